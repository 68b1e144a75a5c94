package templates_test

import (
	"fmt"

	"github.com/everpoint/everpoint/templates"
)

func ExampleTemplate_Append() {
	t, err := templates.Parse(`Hi {{User.UserAttributes.FirstName.[0]}}, {{inflect points "point" "points" includeCount=true}}{{gift}}`, templates.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defaults, err := templates.ParseDefaults(`{"User.UserAttributes.FirstName":"friend"}`)
	if err != nil {
		fmt.Println(err)
		return
	}
	out, result, err := t.Append(nil, templates.Substitutions{"points": {"3"}}, templates.Context{Defaults: defaults})
	fmt.Println(string(out), result.Missing, err)
	// Output: Hi friend, 3 points [gift] <nil>
}
