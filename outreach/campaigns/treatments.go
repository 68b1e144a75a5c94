package campaigns

import (
	"strconv"

	"github.com/everpoint/everpoint/api/pinpoint"
)

// treatment is one arm of a campaign with what it inherits filled in.
type treatment struct {
	id       string // "0" is the default treatment
	from, to int    // its cohorts, [from, to)
	message  *pinpoint.MessageConfiguration
	template *pinpoint.TemplateConfiguration
	schedule *pinpoint.Schedule
}

// treatments lists a campaign's arms, the default one first. Holdout has the
// cohorts [0, H), the additional treatments follow in order, the default
// treatment has the rest.
//
// Source: engagement 7.3, 13.18.
func (c *Campaign) treatments() []treatment {
	at := c.holdout()
	out := make([]treatment, 1, 1+len(c.AdditionalTreatments))
	for i := range c.AdditionalTreatments {
		a := &c.AdditionalTreatments[i]
		t := treatment{
			id: a.Id, from: at, to: at + a.SizePercent,
			message: c.MessageConfiguration, template: c.TemplateConfiguration, schedule: c.Schedule,
		}
		at = t.to
		if a.MessageConfiguration != nil || a.TemplateConfiguration != nil {
			// A message is one thing: what the treatment says replaces all of it.
			t.message, t.template = a.MessageConfiguration, a.TemplateConfiguration
		}
		if a.Schedule != nil {
			t.schedule = a.Schedule
		}
		out = append(out, t)
	}
	out[0] = treatment{
		id: "0", from: at, to: cohorts,
		message: c.MessageConfiguration, template: c.TemplateConfiguration, schedule: c.Schedule,
	}
	return out
}

// cohorts is how many cohorts there are: a cohort is a percent.
const cohorts = 100

func (c *Campaign) holdout() int {
	if c.HoldoutPercent == nil {
		return 0
	}
	return *c.HoldoutPercent
}

// additional turns the treatments of a request into those of a response.
func additional(in []pinpoint.WriteTreatmentResource) []pinpoint.TreatmentResource {
	out := make([]pinpoint.TreatmentResource, 0, len(in))
	for i, t := range in {
		out = append(out, pinpoint.TreatmentResource{
			Id: strconv.Itoa(i + 1), SizePercent: t.SizePercent, CustomDeliveryConfiguration: t.CustomDeliveryConfiguration,
			MessageConfiguration: t.MessageConfiguration, TemplateConfiguration: t.TemplateConfiguration,
			Schedule: t.Schedule, TreatmentName: t.TreatmentName, TreatmentDescription: t.TreatmentDescription,
		})
	}
	return out
}

// setStatus gives one treatment a status and works out the campaign's.
func (c *Campaign) setStatus(treatment string, s pinpoint.CampaignStatus) {
	if treatment == "0" {
		c.DefaultStatus = s
	}
	all := []pinpoint.CampaignStatus{c.DefaultStatus}
	for i := range c.AdditionalTreatments {
		t := &c.AdditionalTreatments[i]
		if t.Id == treatment {
			t.State = &pinpoint.CampaignState{CampaignStatus: s}
		}
		all = append(all, t.State.CampaignStatus)
	}
	c.State = &pinpoint.CampaignState{CampaignStatus: overall(all)}
}

// setAll gives every treatment, and so the campaign, one status.
func (c *Campaign) setAll(s pinpoint.CampaignStatus) {
	c.DefaultStatus = s
	for i := range c.AdditionalTreatments {
		c.AdditionalTreatments[i].State = &pinpoint.CampaignState{CampaignStatus: s}
	}
	c.State = &pinpoint.CampaignState{CampaignStatus: s}
}

// overall is a campaign's status from its treatments': completed only when all
// are, invalid only when none could run. Source: engagement 7.3, 7.6.
func overall(all []pinpoint.CampaignStatus) pinpoint.CampaignStatus {
	count := map[pinpoint.CampaignStatus]int{}
	for _, s := range all {
		count[s]++
	}
	for _, s := range []pinpoint.CampaignStatus{pinpoint.CampaignStatusDeleted, pinpoint.CampaignStatusExecuting} {
		if count[s] > 0 {
			return s
		}
	}
	over := count[pinpoint.CampaignStatusCompleted] + count[pinpoint.CampaignStatusInvalid]
	switch {
	case count[pinpoint.CampaignStatusInvalid] == len(all):
		return pinpoint.CampaignStatusInvalid
	case over == len(all):
		return pinpoint.CampaignStatusCompleted
	case over > 0:
		return pinpoint.CampaignStatusExecuting
	}
	return all[0]
}
