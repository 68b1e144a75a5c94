package templates

import (
	"strings"
	"testing"
)

// personalised is an HTML body of about 5 KB with ten variables, two conditions
// and a loop.
var personalised = "<html><body>" + strings.Repeat("<p>Lorem ipsum dolor sit amet, consectetur.</p>\n", 48) +
	`<p>Hello {{User.UserAttributes.FirstName.[0]}} {{User.UserAttributes.[Last Name].[0]}},</p>
<p>{{#if Attributes.plan.[0]}}your plan is {{upper Attributes.plan.[0]}}{{else}}you have no plan{{/if}}
in {{Location.City}}, {{Location.Country}}. {{#gt Metrics.visits 5}}You came {{Metrics.visits}} times.{{/gt}}</p>
<ul>{{#each Attributes.colors}}<li>{{this}}</li>{{/each}}</ul>
<p>{{RecommendationItems.[0]}} {{RecommendationItems.[1]}} {{Address}} {{User.UserId}}</p>` +
	strings.Repeat("<p>Ut enim ad minim veniam, quis nostrud exercitation.</p>\n", 40) + "</body></html>"

func BenchmarkAppend(b *testing.B) {
	compiled, err := Parse(personalised, Options{HTML: true})
	if err != nil {
		b.Fatal(err)
	}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		var result Result
		if out, result, err = compiled.Append(out[:0], ann, Context{}); err != nil || !result.Complete() {
			b.Fatal(result, err)
		}
	}
	b.SetBytes(int64(len(out)))
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(personalised)))
	for b.Loop() {
		if _, err := Parse(personalised, Options{HTML: true}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestAppendAllocatesLittle keeps the hot path lean: upper makes a text, and the
// run pool may have been emptied by a collection.
func TestAppendAllocatesLittle(t *testing.T) {
	compiled, err := Parse(personalised, Options{HTML: true})
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 0, 1<<14)
	allocs := testing.AllocsPerRun(200, func() {
		if _, _, err := compiled.Append(out[:0], ann, Context{}); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 4 {
		t.Errorf("%v allocations for one body", allocs)
	}
}
