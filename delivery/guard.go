package delivery

import (
	"slices"
	"time"

	"github.com/everpoint/everpoint/audience/endpoints"
)

// Reasons why a recipient is held: the admission metrics of engagement 11.4 and
// the statuses of 7.7, in the API's words.
const (
	ReasonGone            = "ENDPOINT_DELETED"
	ReasonUnreadable      = "ENDPOINT_UNREADABLE"
	ReasonMissingAddress  = "ENDPOINT_MISSING_ADDRESS"
	ReasonMissingChannel  = "ENDPOINT_MISSING_CHANNEL"
	ReasonInactive        = "ENDPOINT_INACTIVE"
	ReasonOptOut          = "ENDPOINT_OPT_OUT"
	ReasonChannelMismatch = "ENDPOINT_CHANNEL_MISMATCH"
	ReasonTreatment       = "TREATMENT_HOLDOUT"
	ReasonHoldout         = "HOLDOUT"
	ReasonDuplicate       = "DUPLICATE_ADDRESS"
	ReasonQuietTime       = "QUIET_TIME"
	ReasonDailyCap        = "DAILY_CAP"
	ReasonCampaignCap     = "CAMPAIGN_CAP"
	ReasonExpired         = "EXPIRED"
	ReasonUnsupported     = "UNSUPPORTED_CHANNEL"
	ReasonStopped         = "STOPPED"    // the run was stopped, or its campaign or app was deleted
	ReasonSuperseded      = "SUPERSEDED" // another Region claimed the recipient in its place
)

// Reasons why an attempt failed.
const (
	ReasonRefused   = "FAILURE_PERMANENT"
	ReasonExhausted = "TRANSIENT_FAILURE"
	ReasonRendering = "RENDERING_FAILURE"
)

// candidate is one recipient as the last check sees it.
type candidate struct {
	endpoint *endpoints.Endpoint // nil for a raw address, or when it is gone
	raw      bool
	broken   bool // there is an endpoint, and it cannot be read
	channel  string
	address  string
	repeated bool // the same address came earlier
}

// guard decides whether a recipient may be sent to, and if not, why. It is
// pure: the caller read what it needs in the update that acts on the answer.
//
// The order is that of engagement 7.7. Direct sends (9.1) know no treatments,
// quiet time or caps; whom they name explicitly they reach although INACTIVE
// (13.21), but never against an opt-out.
func guard(now time.Time, p *Plan, c *candidate) (reason string) {
	campaign := p.Campaign != nil
	e := c.endpoint
	switch {
	case c.broken:
		return ReasonUnreadable
	case e == nil && !c.raw:
		return ReasonGone
	case c.address == "":
		return ReasonMissingAddress
	case c.channel == "":
		return ReasonMissingChannel
	case campaign && !e.Active():
		return ReasonInactive
	case e != nil && e.OptedOut:
		return ReasonOptOut
	case !p.covers(c.channel):
		return ReasonChannelMismatch
	case c.repeated:
		return ReasonDuplicate
	case !p.Deadline.IsZero() && now.After(p.Deadline):
		return ReasonExpired
	}
	if !campaign {
		return ""
	}
	cohort := endpoints.Cohort(e.App, e.ID)
	switch {
	case cohort < p.Campaign.Holdout:
		return ReasonHoldout
	case cohort < p.Campaign.CohortFrom || cohort >= p.Campaign.CohortTo:
		return ReasonTreatment
	case quiet(now, p.QuietFrom, p.QuietTo, e.Demographic["Timezone"]):
		return ReasonQuietTime
	}
	return ""
}

func (p *Plan) covers(channel string) bool {
	switch channel {
	case ChannelEmail:
		return p.Email != nil
	case ChannelSMS:
		return p.SMS != nil
	default:
		return false
	}
}

// quiet reports whether it is quiet time where the endpoint is. The window
// holds both its ends, to the minute, and may cross midnight. An endpoint
// without a valid time zone is never quiet.
//
// Source: engagement 1.2.
func quiet(now time.Time, from, to, zone string) bool {
	if from == "" || to == "" || zone == "" {
		return false
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return false
	}
	at := now.In(loc).Format("15:04")
	if from <= to {
		return from <= at && at <= to
	}
	return at >= from || at <= to
}

// capRow remembers when an address was sent to, as far back as caps look.
type capRow struct {
	Sends  []capSend      `json:",omitempty"` // of the last day
	Totals map[string]int `json:",omitempty"` // by campaign
}

type capSend struct {
	At       int64 // Unix milliseconds
	Campaign string
}

const (
	capWindow       = 24 * time.Hour
	capSendsMax     = 200  // caps are at most 100; a day's sends beyond it are held anyway
	capCampaignsMax = 1000 // campaigns that one address is remembered for
)

// admit decides by the caps and, if they allow, counts the send. Daily counts
// campaigns together over a rolling 24 h; Total counts this campaign.
//
// Source: engagement 1.2, 13.13. Caps count claims, not confirmed sends.
func (c *capRow) admit(now time.Time, p *Plan) (reason string) {
	since := now.Add(-capWindow).UnixMilli()
	c.Sends = slices.DeleteFunc(c.Sends, func(s capSend) bool { return s.At <= since })
	switch {
	case p.Daily > 0 && len(c.Sends) >= p.Daily:
		return ReasonDailyCap
	case p.Total > 0 && c.Totals[p.Campaign.ID] >= p.Total:
		return ReasonCampaignCap
	}
	if c.Totals == nil {
		c.Totals = map[string]int{}
	}
	if len(c.Totals) < capCampaignsMax || c.Totals[p.Campaign.ID] > 0 {
		c.Totals[p.Campaign.ID]++
	}
	c.Sends = append(c.Sends, capSend{now.UnixMilli(), p.Campaign.ID})
	if over := len(c.Sends) - capSendsMax; over > 0 {
		c.Sends = c.Sends[over:]
	}
	return ""
}
