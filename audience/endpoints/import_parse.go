package endpoints

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
)

// line is what one line of a file asks for: an endpoint, or users.
type line struct {
	id      string // empty when the file gives none
	request *pinpoint.EndpointRequest
	users   []string // of a user-id file; request is then nil
}

// lineParser reads the lines of one file. What parse returns is valid until
// its next call. Faults never repeat what the line holds.
type lineParser interface {
	parse(text string) (line, error)
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// csvParser reads lines of comma-separated values below a header.
//
// Source: engagement 4.2.
type csvParser struct {
	columns  []column
	userOnly bool
	fields   []string

	// What the lines are read into, again and again.
	id          string
	request     pinpoint.EndpointRequest
	demographic pinpoint.EndpointDemographic
	location    pinpoint.EndpointLocation
	user        pinpoint.EndpointUser
	lists       []list
	numbers     []float64
}

// list gathers the values of the columns of one name.
type list struct {
	name   string
	user   bool // a user attribute
	values []string
}

// column says where a column's values go.
type column struct {
	header string
	set    func(p *csvParser, i int, value *string) error
	index  int // of the list, for a multi-valued column
}

// headerColumnsMax bounds a header: every name of an app with every value.
const headerColumnsMax = 15000

// newCSVParser reads the header line.
func newCSVParser(header string) (*csvParser, error) {
	p := &csvParser{}
	names, err := splitCSV(header, nil)
	if err != nil {
		return nil, err
	}
	if len(names) > headerColumnsMax {
		return nil, aws.Invalid("the header has more than %d columns", headerColumnsMax)
	}
	seen := map[string]bool{}
	indexes := map[string]int{}
	for i, name := range names {
		name = strings.TrimSpace(name)
		c, err := p.columnOf(name, indexes)
		if err != nil {
			return nil, aws.Invalid("column %d: %s", i+1, err.Error())
		}
		if seen[name] && c.index < 0 {
			return nil, aws.Invalid("column %d: %s may stand in the header once", i+1, name)
		}
		seen[name] = true
		p.columns = append(p.columns, c)
	}
	p.userOnly = len(names) == 1 && p.columns[0].header == "User.UserId"
	p.numbers = make([]float64, len(p.columns))
	return p, nil
}

// scalars are the headers that stand once.
var scalars = map[string]func(p *csvParser, i int, v *string) error{
	"Id":      func(p *csvParser, _ int, v *string) error { p.id = *v; return nil },
	"Address": func(p *csvParser, _ int, v *string) error { p.request.Address = v; return nil },
	"ChannelType": func(p *csvParser, _ int, v *string) error {
		p.request.ChannelType = pinpoint.ChannelType(*v)
		return nil
	},
	"OptOut": func(p *csvParser, _ int, v *string) error { p.request.OptOut = pinpoint.OptOut(*v); return nil },
	"EffectiveDate": func(p *csvParser, _ int, v *string) error {
		p.request.EffectiveDate = v
		return nil
	},
	"RequestId":                   func(p *csvParser, _ int, v *string) error { p.request.RequestId = v; return nil },
	"User.UserId":                 func(p *csvParser, _ int, v *string) error { p.user.UserId = v; return nil },
	"Demographic.AppVersion":      func(p *csvParser, _ int, v *string) error { p.demographic.AppVersion = v; return nil },
	"Demographic.Locale":          func(p *csvParser, _ int, v *string) error { p.demographic.Locale = v; return nil },
	"Demographic.Make":            func(p *csvParser, _ int, v *string) error { p.demographic.Make = v; return nil },
	"Demographic.Model":           func(p *csvParser, _ int, v *string) error { p.demographic.Model = v; return nil },
	"Demographic.ModelVersion":    func(p *csvParser, _ int, v *string) error { p.demographic.ModelVersion = v; return nil },
	"Demographic.Platform":        func(p *csvParser, _ int, v *string) error { p.demographic.Platform = v; return nil },
	"Demographic.PlatformVersion": func(p *csvParser, _ int, v *string) error { p.demographic.PlatformVersion = v; return nil },
	"Demographic.Timezone":        func(p *csvParser, _ int, v *string) error { p.demographic.Timezone = v; return nil },
	"Location.City":               func(p *csvParser, _ int, v *string) error { p.location.City = v; return nil },
	"Location.Country":            func(p *csvParser, _ int, v *string) error { p.location.Country = v; return nil },
	"Location.PostalCode":         func(p *csvParser, _ int, v *string) error { p.location.PostalCode = v; return nil },
	"Location.Region":             func(p *csvParser, _ int, v *string) error { p.location.Region = v; return nil },
	"Location.Latitude": func(p *csvParser, i int, v *string) (err error) {
		p.location.Latitude, err = p.number(i, *v)
		return err
	},
	"Location.Longitude": func(p *csvParser, i int, v *string) (err error) {
		p.location.Longitude, err = p.number(i, *v)
		return err
	},

	// What an export has and an import leaves out.
	"ApplicationId":  ignoreColumn,
	"CohortId":       ignoreColumn,
	"CreationDate":   ignoreColumn,
	"EndpointStatus": ignoreColumn,
}

func ignoreColumn(*csvParser, int, *string) error { return nil }

// columnOf finds where a header leads; indexes has the lists by header.
func (p *csvParser) columnOf(header string, indexes map[string]int) (column, error) {
	if set, ok := scalars[header]; ok {
		return column{header: header, set: set, index: -1}, nil
	}
	if name, ok := strings.CutPrefix(header, prefixMetrics); ok && name != "" {
		return column{header: header, index: -1, set: func(p *csvParser, i int, v *string) error {
			n, err := p.number(i, *v)
			if err == nil {
				p.request.Metrics[name] = *n
			}
			return err
		}}, nil
	}
	name, user := strings.CutPrefix(header, "User."+prefixUserAttrs)
	ok := user
	if !ok {
		name, ok = strings.CutPrefix(header, prefixAttributes)
	}
	if !ok || name == "" {
		return column{}, errors.New("not a name that an import file may have")
	}
	i, ok := indexes[header]
	if !ok {
		i = len(p.lists)
		indexes[header] = i
		p.lists = append(p.lists, list{name: name, user: user})
	}
	return column{header: header, index: i}, nil
}

func (p *csvParser) number(i int, v string) (*float64, error) {
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return nil, aws.Invalid("%s: expected a number", p.columns[i].header)
	}
	p.numbers[i] = n
	return &p.numbers[i], nil
}

// parse reads one line. An empty field says nothing of its member.
func (p *csvParser) parse(text string) (line, error) {
	if p.userOnly {
		var err error
		if p.fields, err = splitCSV(text, p.fields[:0]); err != nil {
			return line{}, err
		}
		return line{users: strings.Fields(strings.Join(p.fields, " "))}, nil
	}
	var err error
	if p.fields, err = splitCSV(text, p.fields[:0]); err != nil {
		return line{}, err
	}
	if len(p.fields) != len(p.columns) {
		return line{}, aws.Invalid("%d fields, where the header has %d", len(p.fields), len(p.columns))
	}
	p.clear()
	for i := range p.columns {
		v := &p.fields[i]
		if *v == "" {
			continue
		}
		if c := &p.columns[i]; c.index >= 0 {
			p.lists[c.index].values = append(p.lists[c.index].values, *v)
		} else if err := c.set(p, i, v); err != nil {
			return line{}, err
		}
	}
	for i := range p.lists {
		switch l := &p.lists[i]; {
		case len(l.values) == 0:
		case l.user:
			p.user.UserAttributes[l.name] = l.values
		default:
			p.request.Attributes[l.name] = l.values
		}
	}
	p.request.Demographic, p.request.Location, p.request.User = &p.demographic, &p.location, &p.user
	return line{id: p.id, request: &p.request}, nil
}

func (p *csvParser) clear() {
	attributes, metrics, user := p.request.Attributes, p.request.Metrics, p.user.UserAttributes
	if attributes == nil {
		attributes, metrics, user = map[string][]string{}, map[string]float64{}, map[string][]string{}
	}
	clear(attributes)
	clear(metrics)
	clear(user)
	p.id = ""
	p.request = pinpoint.EndpointRequest{Attributes: attributes, Metrics: metrics}
	p.demographic = pinpoint.EndpointDemographic{}
	p.location = pinpoint.EndpointLocation{}
	p.user = pinpoint.EndpointUser{UserAttributes: user}
	for i := range p.lists {
		p.lists[i].values = p.lists[i].values[:0]
	}
}

// splitCSV appends the fields of a line. Quotes enclose commas and doubled
// quotes; values hold no line breaks, so a line is a record.
//
// Source: engagement 4.2; RFC 4180 2.
func splitCSV(text string, fields []string) ([]string, error) {
	for {
		if !strings.HasPrefix(text, `"`) {
			end := strings.IndexByte(text, ',')
			field := text
			if end >= 0 {
				field = text[:end]
			}
			if strings.IndexByte(field, '"') >= 0 {
				return fields, aws.Invalid("a quote stands inside a field that does not begin with one")
			}
			fields = append(fields, field)
			if end < 0 {
				return fields, nil
			}
			text = text[end+1:]
			continue
		}
		field, rest, err := quoted(text[1:])
		if err != nil {
			return fields, err
		}
		fields = append(fields, field)
		if rest == "" {
			return fields, nil
		}
		if rest[0] != ',' {
			return fields, aws.Invalid("text follows a closing quote")
		}
		text = rest[1:]
	}
}

// quoted reads up to the closing quote; text begins after the opening one.
func quoted(text string) (field, rest string, err error) {
	end := strings.IndexByte(text, '"')
	if end >= 0 && !strings.HasPrefix(text[end+1:], `"`) {
		return text[:end], text[end+1:], nil
	}
	var b strings.Builder
	for {
		if end < 0 {
			return "", "", aws.Invalid("a quote is not closed on its line")
		}
		b.WriteString(text[:end])
		text = text[end+1:]
		if !strings.HasPrefix(text, `"`) {
			return b.String(), text, nil
		}
		b.WriteByte('"')
		text = text[1:]
		end = strings.IndexByte(text, '"')
	}
}

// jsonParser reads one object from each line.
type jsonParser struct{ record jsonRecord }

// jsonRecord has the members of an endpoint that an import takes.
type jsonRecord struct {
	ID            *string                       `json:"Id"`
	Address       *string                       `json:"Address"`
	Attributes    map[string]words              `json:"Attributes"`
	ChannelType   pinpoint.ChannelType          `json:"ChannelType"`
	Demographic   *pinpoint.EndpointDemographic `json:"Demographic"`
	EffectiveDate *string                       `json:"EffectiveDate"`
	Location      *pinpoint.EndpointLocation    `json:"Location"`
	Metrics       map[string]float64            `json:"Metrics"`
	OptOut        pinpoint.OptOut               `json:"OptOut"`
	RequestID     *string                       `json:"RequestId"`
	User          *jsonUser                     `json:"User"`
}

type jsonUser struct {
	UserAttributes map[string]words `json:"UserAttributes"`
	UserID         *string          `json:"UserId"`
}

// words is a list of strings; a bare string is a list of one.
type words []string

// UnmarshalJSON reads a string or an array of strings.
func (w *words) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte(`"`)) {
		var one string
		err := json.Unmarshal(data, &one)
		*w = words{one}
		return err
	}
	return json.Unmarshal(data, (*[]string)(w))
}

func (p *jsonParser) parse(text string) (line, error) {
	p.record = jsonRecord{}
	r := &p.record
	if err := json.Unmarshal([]byte(text), r); err != nil {
		if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && t.Field != "" {
			return line{}, aws.Invalid("a member has the wrong type, where %s is expected", t.Type)
		}
		return line{}, aws.Invalid("not a JSON object")
	}
	if r.User != nil && r.User.UserID != nil && len(r.User.UserAttributes) == 0 && r.ID == nil && r.Address == nil &&
		r.ChannelType == "" && r.Attributes == nil && r.Metrics == nil && r.Demographic == nil && r.Location == nil && r.OptOut == "" {
		return line{users: []string{*r.User.UserID}}, nil
	}
	req := &pinpoint.EndpointRequest{
		Address: r.Address, Attributes: lists(r.Attributes), ChannelType: r.ChannelType, Demographic: r.Demographic,
		EffectiveDate: r.EffectiveDate, Location: r.Location, Metrics: r.Metrics, OptOut: r.OptOut, RequestId: r.RequestID,
	}
	if r.User != nil {
		req.User = &pinpoint.EndpointUser{UserId: r.User.UserID, UserAttributes: lists(r.User.UserAttributes)}
	}
	return line{id: deref(r.ID), request: req}, nil
}

func lists(m map[string]words) map[string][]string {
	if m == nil {
		return nil
	}
	out := make(map[string][]string, len(m))
	for name, w := range m {
		out[name] = w
	}
	return out
}

// describe is what a failure says of an error: a fault's sentence, or nothing
// that could hold a value.
func describe(err error) string {
	if f, ok := errors.AsType[*aws.Fault](err); ok {
		return f.Message
	}
	return fmt.Sprintf("could not be read (%T)", err)
}
