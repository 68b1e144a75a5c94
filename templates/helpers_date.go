package templates

import (
	"strings"
	"time"
)

// The date helpers. Source: engagement 5.4.
var dateHelpers = []helper{
	{name: "dateFormat", min: 1, max: 2, hash: []string{"inputFormat", "outputFormat", "format", "tz"}, inline: dateFormat, check: checkDateFormat},
	{name: "now", max: 1, hash: []string{"format", "tz"}, inline: now, check: checkNow},
}

// What reading or showing a date, and looking for a zone that does not exist,
// take of the work an execution may do, in bytes.
const (
	dateCost     = 1 << 10
	zoneMissCost = 1 << 16
)

// styleDefault is the style when none is asked for.
const styleDefault = "medium"

// now shows the execution's time.
func now(r *run, c *call, quiet bool) Value {
	if r.context.Now.IsZero() {
		r.refuse("now", "has no clock here", quiet)
		return Value{}
	}
	format := c.hash[0]
	if len(c.args) > 0 {
		format = &c.args[0]
	}
	return r.showDate(r.context.Now, format, c.hash[1], quiet)
}

// dateFormat reads its argument by inputFormat and shows it by outputFormat,
// which may also be the second argument. Without inputFormat it reads ISO 8601
// and month/day/year. tz is the zone shown, and that of a date that names none.
func dateFormat(r *run, c *call, quiet bool) Value {
	text, ok := r.textOf(c, 0, quiet)
	if !ok {
		return Value{}
	}
	zone, ok := r.zoneOf(c.hash[3], quiet)
	if !ok {
		return Value{}
	}
	input, ok := r.optionText(c, 0, "", quiet)
	if !ok {
		return Value{}
	}
	if !r.charge(dateCost) {
		return Value{}
	}
	when, ok := readDate(strings.TrimSpace(text), input, zone, r.context.Now)
	if !ok {
		r.refuse(c.args[0].source, "is not a date that can be read", quiet)
		return Value{}
	}
	return r.showDate(when, outputFormat(c), c.hash[3], quiet)
}

// outputFormat finds dateFormat's format among its arguments; nil if not given.
func outputFormat(c *call) *expr {
	switch {
	case c.hash[1] != nil:
		return c.hash[1]
	case c.hash[2] != nil:
		return c.hash[2]
	case len(c.args) > 1:
		return &c.args[1]
	}
	return nil
}

func checkDateFormat(c *call) string {
	if message := checkPattern(outputFormat(c)); message != "" {
		return message
	}
	if x := c.hash[0]; x != nil && x.kind == exprLiteral {
		if message := readable(x.value.Text()); message != "" {
			return message
		}
	}
	return checkZone(c.hash[3])
}

func checkNow(c *call) string {
	format := c.hash[0]
	if len(c.args) > 0 {
		format = &c.args[0]
	}
	if message := checkPattern(format); message != "" {
		return message
	}
	return checkZone(c.hash[1])
}

func checkPattern(x *expr) string {
	if x == nil || x.kind != exprLiteral {
		return ""
	}
	if _, message := appendStyled(nil, x.value.Text(), time.Unix(0, 0).UTC()); message != "" {
		return message
	}
	return ""
}

func checkZone(x *expr) string {
	if x == nil || x.kind != exprLiteral {
		return ""
	}
	if _, ok := zoneNamed(x.value.Text()); !ok {
		return quote(x.source) + " is not a time zone"
	}
	return ""
}

// showDate shows when in a zone and format; nil stand for UTC and medium.
func (r *run) showDate(when time.Time, format, tz *expr, quiet bool) Value {
	zone, ok := r.zoneOf(tz, quiet)
	if !ok {
		return Value{}
	}
	style := styleDefault
	if format != nil {
		if style, ok = r.asText(format, quiet); !ok {
			return Value{}
		}
	}
	if !r.charge(dateCost) {
		return Value{}
	}
	var space [64]byte
	out, message := appendStyled(space[:0], style, when.In(zone))
	if message != "" {
		r.refuse(format.source, "is not a date format", quiet)
		return Value{}
	}
	return r.result(string(out))
}

// zoneOf reads a tz option, which may be a zone's name without quotes.
func (r *run) zoneOf(x *expr, quiet bool) (*time.Location, bool) {
	if x == nil {
		return time.UTC, true
	}
	name, ok := r.asText(x, quiet || x.zoneWord())
	if !ok {
		if !x.zoneWord() {
			return nil, false
		}
		name = x.source
	}
	zone, ok := zoneNamed(name)
	if !ok {
		r.charge(zoneMissCost)
		r.refuse(x.source, "is not a time zone", quiet)
	}
	return zone, ok
}

// appendStyled shows t in one of the four styles or by a pattern; message says
// what is wrong with the pattern.
func appendStyled(dst []byte, style string, t time.Time) (out []byte, message string) {
	switch style {
	case "full":
		return t.AppendFormat(dst, "Monday, January 2, 2006"), ""
	case "long":
		return t.AppendFormat(dst, "January 2, 2006"), ""
	case "medium":
		// The original abbreviates September to four letters, here only.
		if t.Month() == time.September {
			return t.AppendFormat(append(dst, "Sept"...), " 2, 2006"), ""
		}
		return t.AppendFormat(dst, "Jan 2, 2006"), ""
	case "short":
		return t.AppendFormat(dst, "1/2/06"), ""
	}
	return appendPattern(dst, style, t)
}

// isoForms are the dates read without an inputFormat: what the API writes, and
// the day forms people store in attributes.
var isoForms = []string{
	"2006-01-02T15:04:05.999999999Z07:00",
	"2006-01-02T15:04:05.999999999Z0700",
	"2006-01-02T15:04Z07:00",
	"2006-01-02T15:04:05.999999999",
	"2006-01-02T15:04",
	"2006-01-02 15:04:05.999999999",
	"2006-01-02",
	"1/2/2006",
}

// dateCharsMax bounds a date that is read, in bytes.
const dateCharsMax = 128

// readDate reads text by a SimpleDateFormat pattern. A pattern without letters,
// such as the original's own example 19/09/2020, is taken as not given.
func readDate(text, pattern string, zone *time.Location, now time.Time) (time.Time, bool) {
	if text == "" || len(text) > dateCharsMax {
		return time.Time{}, false
	}
	if strings.ContainsFunc(pattern, isPatternLetter) {
		return readPattern(text, pattern, zone, now)
	}
	for _, form := range isoForms {
		if t, err := time.ParseInLocation(form, text, zone); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}
