package node

import (
	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/account/tags"
	"github.com/everpoint/everpoint/audience/segments"
	"github.com/everpoint/everpoint/outreach/campaigns"
	"github.com/everpoint/everpoint/state/store"
	"github.com/everpoint/everpoint/templates"
)

// tagOwners introduces the rooms whose resources carry tags to the room that
// answers for them. Source: engagement 1.3.
func tagOwners() []tags.Owner {
	return []tags.Owner{
		{
			Pattern: "apps/{}",
			Tags: func(r store.Reader, account string, n []string) (map[string]string, error) {
				return apps.TagsOf(r, account, n[0])
			},
			SetTags: func(tx *store.Tx, account string, n []string, to map[string]string) error {
				return apps.SetTags(tx, account, n[0], to)
			},
		},
		{
			Pattern: "apps/{}/segments/{}",
			Tags: func(r store.Reader, account string, n []string) (map[string]string, error) {
				ok, err := apps.Exists(r, account, n[0])
				if err != nil {
					return nil, err
				}
				if !ok {
					return nil, apps.NotFound()
				}
				return segments.TagsOf(r, n[0], n[1])
			},
			SetTags: func(tx *store.Tx, _ string, n []string, to map[string]string) error {
				return segments.SetTags(tx, n[0], n[1], to)
			},
		},
		{
			Pattern: "apps/{}/campaigns/{}",
			Tags: func(r store.Reader, account string, n []string) (map[string]string, error) {
				return campaigns.TagsOf(r, account, n[0], n[1])
			},
			SetTags: func(tx *store.Tx, account string, n []string, to map[string]string) error {
				return campaigns.SetTags(tx, account, n[0], n[1], to)
			},
		},
		{
			Pattern: "templates/{}/{}",
			Tags: func(r store.Reader, account string, n []string) (map[string]string, error) {
				return templates.TagsOf(r, account, n[0], templates.Type(n[1]))
			},
			SetTags: func(tx *store.Tx, account string, n []string, to map[string]string) error {
				return templates.SetTags(tx, account, n[0], templates.Type(n[1]), to)
			},
		},
	}
}
