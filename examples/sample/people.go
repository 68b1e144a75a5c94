package main

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
)

// Fate is what the rules say must become of a recipient.
type Fate string

// The fates of the sample. Reached aside, they are the reasons that the
// reconciliation gives.
const (
	Reached      Fate = "SENT"
	NotTargeted  Fate = "" // not in the segment
	OptedOut     Fate = "ENDPOINT_OPT_OUT"
	Inactive     Fate = "ENDPOINT_INACTIVE"
	Unrenderable Fate = "RENDERING_FAILURE"
)

// Endpoint is one line of the import file, and what must become of it.
type Endpoint struct {
	ID, Channel, Address string
	OptOut               string
	UserID               string
	FirstName, LastName  string // user attributes; the first name may be empty
	Club                 string // attribute that the segment asks for
	Teas                 []string
	Orders               int // metric that the segment asks for
	Spent                float64
	Platform, Locale     string
	Timezone             string
	City, Country        string

	// Deactivated says that the sample sets it INACTIVE after the import.
	Deactivated bool
	Fate        Fate
}

// What the sample's people are made of.
var (
	firstNames = []string{"Ada", "Björn", "Chen", "Dalia", "Émile", "Farah", "Grace", "Hiro", "Inês", "Jonas", "Kofi", "Lena"}
	lastNames  = []string{"Abbott", "Baptiste", "Castro", "Dvořák", "Ek", "Fuchs", "Garcia", "Hansen", "Ito", "Jensen"}
	teas       = []string{"oolong", "sencha", "assam", "darjeeling", "pu-erh", "matcha"}
	platforms  = []string{"iOS", "Android", "Web"}
	locales    = []string{"en_US", "de_DE", "pt_BR", "ja_JP"}
	places     = []struct{ city, country, zone string }{
		{"Seattle", "US", "America/Los_Angeles"},
		{"Boston", "US", "America/New_York"},
		{"Berlin", "DE", "Europe/Berlin"},
		{"Recife", "BR", "America/Recife"},
		{"Kyoto", "JP", "Asia/Tokyo"},
		{"Porto", "PT", ""},
	}
)

// The segment asks for these.
const (
	clubWanted   = "first-harvest"
	ordersWanted = 1
)

// endpointsMax is what the telephone numbers below last for.
const endpointsMax = 2 * 6 * 10_000

// People makes n endpoints up: pairs of an email address and a telephone number
// for each user. The same n and seed give the same people.
//
// Of every hundred about two opted out, two are set INACTIVE later, two lose
// their address to a later line of the file, two lack what the mail's template
// needs, and eight are not in the segment. No two of these meet in one endpoint,
// so that each has one reason.
func People(n int, seed uint64) []Endpoint {
	rnd := rand.New(rand.NewPCG(seed, 1))
	all := make([]Endpoint, 0, n)
	for user := 0; len(all) < n; user++ {
		place := places[rnd.IntN(len(places))]
		e := Endpoint{
			UserID: fmt.Sprintf("tea-user-%05d", user), LastName: lastNames[rnd.IntN(len(lastNames))],
			Platform: platforms[rnd.IntN(len(platforms))], Locale: locales[rnd.IntN(len(locales))],
			City: place.city, Country: place.country, Timezone: place.zone,
		}
		if rnd.IntN(10) > 0 {
			e.FirstName = firstNames[rnd.IntN(len(firstNames))]
		}
		for _, channel := range []string{"EMAIL", "SMS"} {
			if len(all) == n {
				break
			}
			e := e // each has a history of its own
			e.Channel = channel
			e.ID = fmt.Sprintf("tea-%05d-email", user)
			e.Address = fmt.Sprintf("member.%05d@tea.example", user)
			if channel == "SMS" {
				e.ID = fmt.Sprintf("tea-%05d-phone", user)
				e.Address = phone(user)
			}
			e.Club, e.Orders = clubWanted, ordersWanted+rnd.IntN(30)
			e.Spent = float64(rnd.IntN(90_000)) / 100
			e.Teas = []string{teas[rnd.IntN(len(teas))]}
			if rnd.IntN(3) == 0 {
				e.Teas = append(e.Teas, teas[rnd.IntN(len(teas))])
			}
			e.Fate = Reached
			switch lot := rnd.IntN(100); {
			case lot < 2:
				e.OptOut, e.Fate = "ALL", OptedOut
			case lot < 4:
				e.Deactivated, e.Fate = true, Inactive
			case lot < 6:
				// The address of an earlier line moves to this one.
				if i := len(all) - 1 - rnd.IntN(20); i >= 0 {
					if was := &all[i]; was.Channel == channel && was.Fate == Reached {
						e.Address, was.Fate = was.Address, Inactive
					}
				}
			case lot < 8:
				e.Teas = nil
				if channel == "EMAIL" {
					e.Fate = Unrenderable
				}
			case lot < 12:
				e.Club, e.Fate = "last-harvest", NotTargeted
			case lot < 16:
				e.Orders, e.Fate = 0, NotTargeted
			}
			all = append(all, e)
		}
	}
	return all
}

// phone is a number nobody has: 555 is not given out.
func phone(n int) string {
	areas := [...]string{"206", "253", "360", "425", "509", "564"}
	// Rotated, so that none is the number that texts go out from.
	return fmt.Sprintf("+1%s555%04d", areas[(n/10_000+1)%len(areas)], n%10_000)
}

// WriteCSV writes an import file. Its columns are those of engagement 4.2.
func WriteCSV(w io.Writer, all []Endpoint) error {
	b := bufio.NewWriter(w)
	c := csv.NewWriter(b)
	if err := c.Write([]string{
		"Id", "ChannelType", "Address", "OptOut", "User.UserId", "User.UserAttributes.FirstName",
		"User.UserAttributes.LastName", "Attributes.club", "Attributes.teas", "Attributes.teas", "Metrics.orders", "Metrics.spent",
		"Demographic.Platform", "Demographic.Locale", "Demographic.Timezone", "Location.City", "Location.Country",
	}); err != nil {
		return err
	}
	for i := range all {
		e := &all[i]
		teas := append(slices.Clone(e.Teas), "", "")
		if err := c.Write([]string{
			e.ID, e.Channel, e.Address, e.OptOut, e.UserID, e.FirstName, e.LastName, e.Club, teas[0], teas[1],
			strconv.Itoa(e.Orders), strconv.FormatFloat(e.Spent, 'f', -1, 64),
			e.Platform, e.Locale, e.Timezone, e.City, e.Country,
		}); err != nil {
			return err
		}
	}
	c.Flush()
	if err := c.Error(); err != nil {
		return err
	}
	return b.Flush()
}

// The sample's templates, and what they must become for an endpoint.
const (
	subjectTemplate = "{{User.UserAttributes.FirstName}}, the first {{Attributes.teas.[0]}} is here"
	htmlTemplate    = `<p>Dear {{User.UserAttributes.FirstName}} {{User.UserAttributes.LastName}},</p>
<p>the first {{Attributes.teas.[0]}} of the year has come to {{Location.City}}, for the {{Metrics.orders}} orders you placed.</p>
<p><a href="https://tea.example/u/{{User.UserId}}">Reserve yours</a></p>`
	textTemplate = `Dear {{User.UserAttributes.FirstName}} {{User.UserAttributes.LastName}},

the first {{Attributes.teas.[0]}} of the year has come to {{Location.City}}.
Reserve yours: https://tea.example/u/{{User.UserId}}`
	smsTemplate          = "{{User.UserAttributes.FirstName}}, the first tea of the year is here: https://tea.example/u/{{User.UserId}}"
	defaultSubstitutions = `{"User.UserAttributes.FirstName":"Tea lover"}`
)

func (e *Endpoint) greeting() string {
	if e.FirstName == "" {
		return "Tea lover"
	}
	return e.FirstName
}

// Rendered is the mail's subject or the text's body.
func (e *Endpoint) Rendered() string {
	if e.Channel == "SMS" {
		return e.greeting() + ", the first tea of the year is here: https://tea.example/u/" + e.UserID
	}
	if len(e.Teas) == 0 {
		return ""
	}
	return e.greeting() + ", the first " + e.Teas[0] + " is here"
}
