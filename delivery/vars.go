package delivery

import (
	"strings"

	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/templates"
)

// recipientVars answers a template's names from an endpoint and its user
// without copying them. Source: engagement 5.3.
type recipientVars struct {
	e *endpoints.Endpoint
	u *endpoints.User // nil when the endpoint has none
}

// Lookup finds a name of engagement 5.3: Attributes.x, User.UserAttributes.x, …
func (v recipientVars) Lookup(path []string) (templates.Value, bool) {
	none := templates.Value{}
	text := func(s string) (templates.Value, bool) { return templates.String(s), s != "" }
	if len(path) == 1 {
		switch path[0] {
		case "Address":
			return text(v.e.Address)
		case "ChannelType":
			return text(v.e.ChannelType)
		case "CreationDate":
			return text(v.e.CreationDate)
		case "EffectiveDate":
			return text(v.e.EffectiveDate)
		case "EndpointStatus":
			return text(v.e.Status)
		case "Id":
			return text(v.e.ID)
		case "RequestId":
			return text(v.e.RequestID)
		case "OptOut":
			return text(optOutOf(v.e))
		}
		return none, false
	}
	switch path[0] {
	case "Attributes":
		values, ok := v.e.Attributes[rest(path)]
		return templates.Strings(values), ok
	case "Metrics":
		n, ok := v.e.Metrics[rest(path)]
		return templates.Number(n), ok
	case "Demographic":
		return text(v.e.Demographic[path[1]])
	case "Location":
		switch path[1] {
		case "Latitude":
			return templates.Number(v.e.Latitude), v.e.HasCoordinates
		case "Longitude":
			return templates.Number(v.e.Longitude), v.e.HasCoordinates
		}
		return text(v.e.Location[path[1]])
	case "User":
		if path[1] == "UserId" {
			return text(v.e.UserID)
		}
		if path[1] == "UserAttributes" && len(path) > 2 && v.u != nil {
			values, ok := v.u.Attributes[rest(path[1:])]
			return templates.Strings(values), ok
		}
	}
	return none, false
}

// rest joins what follows the first segment: attribute names may hold dots.
func rest(path []string) string {
	if len(path) == 2 {
		return path[1]
	}
	return strings.Join(path[1:], ".")
}

func optOutOf(e *endpoints.Endpoint) string {
	if e.OptedOut {
		return "ALL"
	}
	return "NONE"
}
