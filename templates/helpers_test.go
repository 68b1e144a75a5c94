package templates

import (
	"regexp"
	"testing"
	"time"
)

// TestHelpers holds the examples of engagement 5.4 and of the original's guide,
// and the cases around them.
func TestHelpers(t *testing.T) {
	checkClaims(t, Options{}, []claim{
		// Conditions, inline and as blocks.
		{"{{eq ChannelType 'EMAIL' yes='y' no='n'}}", "y"},
		{"{{eq ChannelType 'SMS' yes='y' no='n'}}", "n"},
		{"{{eq ChannelType 'EMAIL'}} {{eq ChannelType 'SMS'}}", "true false"},
		{"{{neq ChannelType 'SMS' yes=Address}}", "ann@example.com"},
		{"{{neq ChannelType 'EMAIL' yes='y'}}", "false"},
		{`{{#eq Attributes.colors.[1] "red"}}red{{else}}other{{/eq}}`, "red"},
		{`{{#neq Attributes.colors.[1] "red"}}other{{else}}red{{/neq}}`, "red"},
		{`{{#gt User.UserAttributes.UserAge.[0] "17"}}old enough{{else}}too young{{/gt}}`, "old enough"},
		{`{{#gte User.UserAttributes.UserAge.[0] "22"}}old enough{{else}}too young{{/gte}}`, "old enough"},
		{`{{#lt User.UserAttributes.UserAge.[0] "22"}}young{{else}}not{{/lt}}`, "not"},
		{`{{#lte User.UserAttributes.UserAge.[0] "22"}}young{{else}}not{{/lte}}`, "young"},
		{"{{gt 10 9}} {{gt '10' '9'}} {{gt 'b' 'a'}} {{gt '10' '9a'}}", "true true true false"},
		{"{{eq 1 1.0}} {{eq '01.50' 1.5}} {{eq -0 0}} {{eq '+2' 2}} {{eq '.5' '0.5'}}", "true true true true true"},
		{"{{lt -2 -1}} {{lt -1 0}} {{lt -10 -9.5}} {{gt 0.10 0.09}} {{lt 99 100}}", "true true true true true"},
		{"{{eq '12345678901234567890' '12345678901234567891'}}", "false"},
		{"{{eq '1e2' 100}} {{eq 'a' 'A'}}", "false false"},
		{"{{eq Attributes.plan 'gold'}}", "true"},
		{"{{and Address ChannelType}} {{and Address Nothing}} {{and 1 0}}", "true false false"},
		{"{{or Nothing Address}} {{or Nothing Nought yes='y' no='n'}}", "true n"},
		{`{{#or (eq Location.City "Los Angeles") (eq Location.City "Seattle")}}West{{else}}East{{/or}}`, "West"},
		{"{{not Nothing}} {{not Address}} {{not Attributes.off.[0]}}", "true false true"},
		{`{{#not (eq Attributes.colors.[0] "red")}}no red{{else}}red{{/not}}`, "no red"},
		{"{{if Address yes='y' no='n'}}{{if Nothing yes='y' no='n'}}{{unless Nothing yes='u'}}", "ynu"},
		{"{{yesno true}} {{yesno Attributes.off.[0]}} {{yesno Nothing}} {{yesno null}}", "yes no maybe maybe"},
		{"{{yesno true yes='Y'}} {{yesno false no='N'}} {{yesno Nothing maybe='M'}}", "Y N M"},

		// Text.
		{"{{abbreviate User.UserAttributes.[Last Name].[0] 6}}", "Ale..."},
		{"{{abbreviate 'Alejandro' 9}} {{abbreviate 'Alejandro' 8}} {{abbreviate 'äöüßäöü' 4}} {{abbreviate 'Alejandro' 2}}", "Alejandro Aleja... ä... Al"},
		{"{{capitalize 'my first post'}} {{capitalize 'aB  cd'}}", "My First Post AB  Cd"},
		{"{{capitalizeFirst 'my first post'}}{{capitalizeFirst ''}} {{capitalizeFirst 'élan'}}", "My first post Élan"},
		{"<{{center Location.City size=19}}>", "<    Los Angeles    >"},
		{"{{center Location.City size=20 pad='#'}}", "####Los Angeles#####"},
		{"{{center Location.City size=3}} {{center 'ab' 6 'xy'}}", "Los Angeles xyabxy"},
		{`{{cut Location.City "e"}} {{cut Location.City}} {{cut "aXXbX" "XX"}} {{cut "a" ""}}`, "Los Angls LosAngeles abX a"},
		{"{{inflect 3 apple apples includeCount=false}} {{inflect 3 apple apples includeCount=true}}", "apples 3 apples"},
		{"{{inflect 1 'apple' 'apples'}} {{inflect Metrics.visits 'day' 'days' includeCount=true}} {{inflect 0 'a' 'b'}} {{inflect 1.5 'a' 'b'}} {{inflect '1.0' 'a' 'b'}}", "apple 7 days b b a"},
		{`{{join Attributes.colors ", "}} {{join Attributes.colors " // " prefix="<" suffix=">"}} {{join Attributes.one ","}}`, "blue, red, green <blue // red // green> only"},
		{`{{join "a" Attributes.one "b" "-"}}`, "a-only-b"},
		{"<{{ljust Location.City 15}}>", "<Los Angeles    >"},
		{"<{{rjust Location.City 15}}> {{rjust 7 3 pad='0'}} {{ljust 'ä' size=3 pad='ö'}}", "<    Los Angeles> 007 äöö"},
		{"{{lower 'Santos'}} {{upper 'Roe'}} {{upper User.UserAttributes.FirstName.[0]}}", "santos ROE JANE"},
		{"{{ordinalize User.UserAttributes.UserAge.[0]}}", "22nd"},
		{"{{ordinalize 1}} {{ordinalize 2}} {{ordinalize 3}} {{ordinalize 4}} {{ordinalize 11}} {{ordinalize 12}} {{ordinalize 13}} {{ordinalize 111}} {{ordinalize 121}} {{ordinalize 0}} {{ordinalize -1}}", "1st 2nd 3rd 4th 11th 12th 13th 111th 121st 0th -1st"},
		{`{{replace Location.City " " "_"}} {{replace "aaa" "a" "."}} {{replace "a.c" "." "b"}} {{replace "a" "" "x"}}`, "Los_Angeles ... abc a"},
		{"{{slugify Location.City}} {{slugify ' Joel is a Slug! '}} {{slugify 'Größe_1 & so'}}", "los-angeles joel-is-a-slug größe_1--so"},
		{"{{stripTags User.UserAttributes.interests.[0]}} {{stripTags 'a < b'}} {{stripTags '<br/>x<a href=1>y</a>'}}", "Art a < b xy"},
		{"{{substring Location.City 4 9}} {{substring Location.City 4}} {{substring 'äöü' 1 2}} {{substring 'abc' 5}} {{substring 'abc' 2 1}}", "Angel Angeles ö  "},

		// Numbers.
		{"{{add 5 2.3}} {{subtract 5 2.3}} {{multiply 5 2.3}} {{divide 5 2.3}} {{modulo 7 2}}", "7.3 2.7 11.5 2.17391304 1"},
		{"{{add 0.1 0.2}} {{divide 6 2}} {{divide 1 3}} {{divide -1 3}} {{modulo 7.5 2}} {{modulo -7 2}}", "0.3 3 0.33333333 -0.33333333 1.5 -1"},
		{"{{add 9007199254740993 1}} {{multiply 999999999999999999 1}} {{subtract 1 999999999999999999}}", "9007199254740994 999999999999999999 -999999999999999998"},
		{"{{multiply 999999999 999999999}} {{multiply 9999999999 9999999999}}", "999999998000000001 99999999980000000000"},
		{"{{add Metrics.price User.UserAttributes.UserAge.[0]}} {{add ' 1 ' '+2'}}", "27.5 3"},
		{"{{ceiling 5.23}} {{floor 5.23}} {{round 19.21}} {{round 2.5}} {{round -2.5}} {{ceiling -0.5}} {{floor -0.5}} {{round 7}}", "6 5 19 3 -3 0 -1 7"},

		// Encodings.
		{`{{encode64 "Hello world"}} {{decode64 "SGVsbG8gd29ybGQ="}} {{decode64 "SGVsbG8gd29ybGQ"}}`, "SGVsbG8gd29ybGQ= Hello world Hello world"},
		{`{{md5 "Hello world"}}`, "3e25960a79dbc69b674cd4ec67a72c62"},
		{`{{md5 "Hello World"}}`, "b10a8db164e0754105b7a99be72e3fe5"},
		{`{{sha256 "Hello World"}}`, "a591a6d40bf420404a011733cfb7b190d62c65bf0bcda32b57b277d9ad9f146e"},
		{`{{sha512 "Hello World"}}`, "2c74fd17edafd80e8447b0d46741ee243b7eb74dd2149a0ab1b9246fb30382f27e853d8585719e0e67cbda0daa8f51671064615d645ae27acb15bfb1447f459b"},
		{`{{decode64 "/w=="}}`, "\ufffd"},
	})
}

// TestDates checks the styles, patterns and zones. The original's example calls
// September 19, 2020 a Tuesday; it was a Saturday.
func TestDates(t *testing.T) {
	checkClaims(t, Options{}, []claim{
		{`{{now}}`, "Sept 19, 2020"},
		{`{{now "full"}} | {{now "long"}} | {{now "medium"}} | {{now "short"}}`, "Saturday, September 19, 2020 | September 19, 2020 | Sept 19, 2020 | 9/19/20"},
		{`{{now "medium" tz=America/Los_Angeles}}`, "Sept 19, 2020"},
		{`{{now "HH:mm" tz=America/Los_Angeles}} {{now "HH:mm" tz="Asia/Tokyo"}} {{now "HH:mm z" tz=Attributes.zone.[0]}}`, "12:00 04:00 12:00 PDT"},
		{`{{now format="yyyy" tz=UTC}} {{now "HH:mm" tz="GMT-8:00"}} {{now "HH:mm" tz="UTC+0530"}} {{now "HH:mm" tz=PST}}`, "2020 11:00 00:30 12:00"},
		{`{{dateFormat "09/19/2020" inputFormat="19/09/2020" outputFormat="full" tz=America/Los_Angeles}}`, "Saturday, September 19, 2020"},
		{`{{dateFormat "2020-01-05"}} {{dateFormat "2020-05-05" "long"}} {{dateFormat "2020-05-05" format="short"}}`, "Jan 5, 2020 May 5, 2020 5/5/20"},
		{`{{dateFormat Attributes.birth.[0] inputFormat="dd/MM/yyyy" outputFormat="yyyy-MM-dd"}}`, "2020-09-19"},
		{`{{dateFormat "2020-09-19T23:30:00.000Z" outputFormat="yyyy-MM-dd HH:mm" tz="Europe/Berlin"}}`, "2020-09-20 01:30"},
		{`{{dateFormat "2020-09-19T23:30:00-0700" outputFormat="yyyy-MM-dd'T'HH:mm:ss.SSSXXX"}}`, "2020-09-20T06:30:00.000Z"},
		{`{{dateFormat "2020-09-19 23:30:05" outputFormat="HH:mm:ss" tz=Asia/Tokyo}}`, "23:30:05"},
		{`{{dateFormat "Sept 5, 2020 3:07 PM" inputFormat="MMM d, yyyy h:mm a" outputFormat="yyyyMMddHHmm"}}`, "202009051507"},
		{`{{dateFormat "20200905150708" inputFormat="yyyyMMddHHmmss" outputFormat="d.M.yy H:m:s"}}`, "5.9.20 15:7:8"},
		{`{{dateFormat "Sat, 19 September 2020 12:00 AM PDT" inputFormat="EEE, dd MMMM yyyy hh:mm a" outputFormat="HH"}}`, "00"},
		{`{{dateFormat "19-9-99" inputFormat="d-M-yy" outputFormat="yyyy"}} {{dateFormat "19-9-40" inputFormat="d-M-yy" outputFormat="yyyy"}} {{dateFormat "19-9-41" inputFormat="d-M-yy" outputFormat="yyyy"}}`, "1999 2040 1941"},
		{`{{dateFormat "2020-09-19 10:00 +0200" inputFormat="yyyy-MM-dd HH:mm Z" outputFormat="HH:mm X"}}`, "08:00 Z"},
		{`{{dateFormat "2020-09-19 10:00 America/New_York" inputFormat="yyyy-MM-dd HH:mm z" outputFormat="HH:mm"}}`, "14:00"},
		{`{{dateFormat "24:00 366 2020" inputFormat="kk:mm D yyyy" outputFormat="dd.MM.yyyy HH"}}`, "31.12.2020 00"},
		{`{{dateFormat "0044 BC" inputFormat="yyyy G" outputFormat="y G"}}`, "44 BC"},
	})
	checkClaims(t, Options{}, []claim{
		{`{{now "G y yy yyyy yyyyy Y M MM MMM MMMM L"}}`, "AD 2020 20 2020 02020 2020 9 09 Sep September 9"},
		{`{{now "w W D d dd F E EEEE u"}}`, "38 3 263 19 19 3 Sat Saturday 6"},
		{`{{now "a H k K h m s S SSS"}}`, "PM 19 19 7 7 0 0 0 000"},
		{`{{now "z Z X XX XXX" tz="America/Los_Angeles"}} {{now "z Z X" tz="GMT+5:30"}}`, "PDT -0700 -07 -0700 -07:00 GMT+05:30 +0530 +05"},
		{`{{now "yyyy 'o''clock' '' h"}}`, "2020 o'clock ' 7"},
	})
}

// TestWeeks pins the US weeks around New Year.
func TestWeeks(t *testing.T) {
	for _, c := range []struct{ day, want string }{
		{"2020-12-26", "2020 52"},
		{"2020-12-27", "2021 1"}, // a Sunday, its week holds January 1, 2021
		{"2021-01-01", "2021 1"},
		{"2021-01-02", "2021 1"},
		{"2021-01-03", "2021 2"},
		{"2022-12-31", "2022 53"}, // a Saturday
		{"2023-01-01", "2023 1"},
	} {
		day, err := time.Parse("2006-01-02", c.day)
		if err != nil {
			t.Fatal(err)
		}
		if got, message := appendPattern(nil, "Y w", day); string(got) != c.want || message != "" {
			t.Errorf("%s: %s %s, want %s", c.day, got, message, c.want)
		}
	}
}

func TestDatesThatCannotBeRead(t *testing.T) {
	for _, c := range []struct{ text, pattern string }{
		{"", "yyyy"},
		{"x", ""},
		{"2020", "MM"},
		{"31/02/2020", "dd/MM/yyyy"},
		{"2020-13-01", "yyyy-MM-dd"},
		{"25:00", "HH:mm"},
		{"12:60", "HH:mm"},
		{"Foo 1", "MMM d"},
		{"10 XYZ", "HH z"},
		{"2020/01", "yyyy-MM"},
		{"99999999999999999999", "yyyy"},
		{"2020", "'open"},
	} {
		if got, ok := readDate(c.text, c.pattern, time.UTC, noon); ok {
			t.Errorf("%q by %q read as %v", c.text, c.pattern, got)
		}
	}
}

func TestZones(t *testing.T) {
	for _, name := range []string{"", "Local", "../etc/passwd", "/etc/passwd", "GMT+19", "GMT+1:5", "UTC+", "GMT+1:", "GMTx", "GMT+18:01"} {
		if zone, ok := zoneNamed(name); ok {
			t.Errorf("%q is %v", name, zone)
		}
	}
	for name, want := range map[string]int{"GMT": 0, "UTC": 0, "GMT+8": 8 * 3600, "GMT-0330": -12600, "UTC+05:45": 20700, "GMT+18": 18 * 3600, "America/Port-au-Prince": -4 * 3600} {
		zone, ok := zoneNamed(name)
		if !ok {
			t.Errorf("%q is not known", name)
			continue
		}
		if _, offset := noon.In(zone).Zone(); offset != want {
			t.Errorf("%q: offset %d, want %d", name, offset, want)
		}
	}
}

func TestUUID(t *testing.T) {
	const src = "{{uuid}} {{uuid}}"
	first, _ := render(t, src, Options{}, nil, Context{UUID: UUIDsFrom("m-1")})
	again, _ := render(t, src, Options{}, nil, Context{UUID: UUIDsFrom("m-1")})
	other, _ := render(t, src, Options{}, nil, Context{UUID: UUIDsFrom("m-2")})
	if first != again {
		t.Errorf("a resend differs: %s, %s", first, again)
	}
	if first == other {
		t.Errorf("two messages have the same identifiers: %s", first)
	}
	const form = `[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`
	if !regexp.MustCompile("^"+form+" "+form+"$").MatchString(first) || first[:36] == first[37:] {
		t.Errorf("identifiers %s", first)
	}
}
