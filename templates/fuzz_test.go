package templates

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzTemplate parses and executes what it is given: nothing may panic, errors
// point into the text, output stays within its bound, and an execution repeats.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{
		"", "{{", "{{{x}}}", "{{&x}}", "{{!-- --}}", "{{~x~}}", `\{{x}}`, `\\{{x}}`,
		"{{#if a}}b{{else if c}}d{{^}}e{{/if}}", "{{^a}}b{{/a}}",
		"{{#each Attributes.colors}}{{@index}}{{@../index}}{{../Address}}{{this.[0]}}{{@last}}{{/each}}",
		"{{#with User}}{{UserAttributes.[Last Name].[0]}}{{/with}}",
		`{{#* inline "n"}}{{> n}}{{/inline}}{{> n}}`, `{{> n a=1}}{{#*inline "n"}}{{a}}{{/inline}}`,
		`{{and (eq a 'b') (or c "d" yes=1 no=2)}}`, `{{inflect 3 apple apples includeCount=true}}`,
		`{{dateFormat "2020-09-19" inputFormat="yyyy-MM-dd" outputFormat="EEE, d MMM yyyy HH:mm:ss z" tz=America/Los_Angeles}}`,
		`{{now "yyyy'x'"}}{{uuid}}`, `{{center Location.City size=19 pad="ab"}}`, `{{join Attributes.colors ", " prefix="<"}}`,
		`{{replace (decode64 "//8=") "\ufffd" "x"}}`, `{{substring Address 3 (add 1 2)}}`, `{{divide 5 0}}{{modulo 5.5 2}}`,
		"{{a.b/c.[d e].1}}{{../../x}}{{@root.a}}{{this}}{{.}}{{./a}}", "{{#[a b]}}{{/[a b]}}", "{{else}}", "{{/x}}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, src string) {
		for _, o := range []Options{{}, {HTML: true}} {
			compiled, err := Parse(src, o)
			if err != nil {
				syntax, ok := errors.AsType[*SyntaxError](err)
				lines := strings.Split(src, "\n")
				if !ok || syntax.Line < 1 || syntax.Line > len(lines) || syntax.Column < 1 || syntax.Column > utf8.RuneCountInString(lines[syntax.Line-1])+1 {
					t.Fatalf("Parse(%q): %v", src, err)
				}
				return
			}
			if !slices.IsSorted(compiled.Variables()) {
				t.Errorf("variables %q", compiled.Variables())
			}
			first, result, err := compiled.Append(nil, ann, noonContext())
			again, _, errAgain := compiled.Append(nil, ann, noonContext())
			if string(first) != string(again) || !errors.Is(errAgain, err) {
				t.Errorf("%q renders differently: %q %v, %q %v", src, first, err, again, errAgain)
			}
			if len(first) > outputBytesMax || !utf8.Valid(first) {
				t.Errorf("%q: output of %d bytes, valid %v", src, len(first), utf8.Valid(first))
			}
			if len(result.Missing) > 10 || len(result.Unusable) > 10 {
				t.Errorf("reports %q %q", result.Missing, result.Unusable)
			}
		}
	})
}

// FuzzDate checks that what a pattern shows, it reads back to the same instant,
// where it holds all of it.
func FuzzDate(f *testing.F) {
	f.Add("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "2020-09-19T19:00:00.000Z", int64(1600542000123))
	f.Add("EEE, d MMM yyyy KK:mm:ss a z", "Sat, 19 Sep 2020", int64(0))
	f.Add("yyMMddkkmm", "2009191900", int64(-1))
	f.Add("D y G", "263 2020 AD", int64(1))
	f.Add("'", "''", int64(1))
	f.Fuzz(func(t *testing.T, pattern, text string, millis int64) {
		if when, ok := readDate(text, pattern, time.UTC, noon); ok {
			appendPattern(nil, pattern, when)
		}
		appendPattern(nil, pattern, time.UnixMilli(millis).UTC())
		when := time.UnixMilli(millis % 200_000_000_000_000).UTC()
		if when.Year() < 1 || when.Year() > 9999 {
			return
		}
		for _, whole := range []string{"yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "yyyyMMddHHmmssSSS", "EEEE, MMMM d, yyyy h:mm:ss.SSS a Z", "D/yyyy k:m:s:S"} {
			shown, message := appendPattern(nil, whole, when)
			read, ok := readDate(string(shown), whole, time.UTC, noon)
			if message != "" || !ok || !read.Equal(when) {
				t.Errorf("%v shows as %q by %q and is read as %v", when, shown, whole, read)
			}
		}
	})
}

func FuzzParseDefaults(f *testing.F) {
	f.Add(`{"a.[b].[0]":"x"}`)
	f.Add(`{"a":1}`)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDefaults(s)
		if err != nil && d != nil {
			t.Errorf("ParseDefaults(%q) = %v and %v", s, d, err)
		}
		for key := range d {
			if key == "" || strings.ContainsAny(key, "[]") {
				t.Errorf("key %q", key)
			}
		}
	})
}
