package templates

import (
	"strconv"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // the same zones on every machine, whatever is installed there
)

// zones keeps the zones that were used, by the name they were asked for by.
// Only names that exist are kept, so it cannot grow beyond the database.
var zones sync.Map // string → *time.Location

// javaZones are short names that Java knows and the tz database does not.
var javaZones = map[string]string{
	"PST": "America/Los_Angeles", "CST": "America/Chicago", "AST": "America/Anchorage",
	"JST": "Asia/Tokyo", "IST": "Asia/Kolkata", "ECT": "Europe/Paris",
}

// zoneNameMax bounds a zone's name, in bytes.
const zoneNameMax = 64

// zoneNamed finds a zone by its tz database name, or as GMT or UTC with an
// offset: GMT+8, UTC-05:30.
func zoneNamed(name string) (*time.Location, bool) {
	if zone, ok := zones.Load(name); ok {
		return zone.(*time.Location), true
	}
	if name == "" || name == "Local" || len(name) > zoneNameMax {
		return nil, false
	}
	if rest, ok := strings.CutPrefix(name, "GMT"); ok && rest != "" && rest != "0" {
		return zoneOffset(rest)
	}
	if rest, ok := strings.CutPrefix(name, "UTC"); ok && rest != "" {
		return zoneOffset(rest)
	}
	known := name
	if long, ok := javaZones[name]; ok {
		known = long
	}
	zone, err := time.LoadLocation(known)
	if err != nil {
		return nil, false
	}
	kept, _ := zones.LoadOrStore(strings.Clone(name), zone)
	return kept.(*time.Location), true
}

// zoneOffset reads ±h, ±hh, ±hmm, ±hhmm, ±h:mm or ±hh:mm, up to 18 hours.
func zoneOffset(s string) (*time.Location, bool) {
	sign := 1
	switch s[0] {
	case '+':
	case '-':
		sign = -1
	default:
		return nil, false
	}
	hours, minutes, colon := strings.Cut(s[1:], ":")
	if !colon && len(hours) > 2 {
		hours, minutes = hours[:len(hours)-2], hours[len(hours)-2:]
	}
	if minutes == "" {
		if colon {
			return nil, false
		}
		minutes = "00"
	}
	if len(hours) == 0 || len(hours) > 2 || len(minutes) != 2 || digits(hours+minutes) != len(hours)+2 {
		return nil, false
	}
	h, _ := strconv.Atoi(hours)
	m, _ := strconv.Atoi(minutes)
	if h > 18 || m > 59 || h == 18 && m > 0 {
		return nil, false
	}
	return time.FixedZone("", sign*(h*3600+m*60)), true
}
