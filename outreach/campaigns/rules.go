package campaigns

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/templates"
)

// Bounds of a campaign. Source: engagement 5.1, 7.
const (
	treatmentsMax      = 4 // beside the default one
	nameCharsMax       = 256
	descriptionMax     = 1000 // characters
	defaultBodyMax     = 200  // characters of DefaultMessage.Body
	smsBodyMax         = 1600 // characters
	emailCharsMax      = 600_000
	priorityMax        = 5
	startAheadMax      = 10 * 365 * 24 * time.Hour
	immediate          = "IMMEDIATE"
	timezoneDefault    = "UTC"
	notYet             = "%s: not available yet"
	segmentVersionsMax = 1 << 30
)

// apply takes the members of a request over into the campaign; what is left out
// stays as it is. Tags are the create operation's.
func (c *Campaign) apply(req *pinpoint.WriteCampaignRequest) {
	if req.AdditionalTreatments != nil {
		c.AdditionalTreatments = additional(req.AdditionalTreatments)
	}
	set(&c.CustomDeliveryConfiguration, req.CustomDeliveryConfiguration)
	set(&c.Description, req.Description)
	set(&c.HoldoutPercent, req.HoldoutPercent)
	set(&c.Hook, req.Hook)
	set(&c.IsPaused, req.IsPaused)
	set(&c.Limits, req.Limits)
	set(&c.MessageConfiguration, req.MessageConfiguration)
	set(&c.Name, req.Name)
	set(&c.Priority, req.Priority)
	set(&c.Schedule, req.Schedule)
	set(&c.TemplateConfiguration, req.TemplateConfiguration)
	set(&c.TreatmentDescription, req.TreatmentDescription)
	set(&c.TreatmentName, req.TreatmentName)
	if req.SegmentId != nil {
		if *req.SegmentId != c.SegmentId {
			c.SegmentVersion = 0 // the latest of the new one
		}
		c.SegmentId = *req.SegmentId
	}
	if req.SegmentVersion != nil {
		c.SegmentVersion = *req.SegmentVersion
	}
	c.fill()
}

func set[T any](p **T, v *T) {
	if v != nil {
		*p = v
	}
}

// fill gives absent members the values that a fresh response was seen with.
//
// Source: engagement 7.1.
func (c *Campaign) fill() {
	if c.AdditionalTreatments == nil {
		c.AdditionalTreatments = []pinpoint.TreatmentResource{}
	}
	if c.HoldoutPercent == nil {
		c.HoldoutPercent = new(int)
	}
	if c.IsPaused == nil {
		c.IsPaused = new(bool)
	}
	if c.Limits == nil {
		c.Limits = &pinpoint.CampaignLimits{}
	}
	schedules := []*pinpoint.Schedule{c.Schedule}
	for i := range c.AdditionalTreatments {
		schedules = append(schedules, c.AdditionalTreatments[i].Schedule)
	}
	for _, sc := range schedules {
		if sc == nil {
			continue
		}
		if sc.IsLocalTime == nil {
			sc.IsLocalTime = new(bool)
		}
		if sc.Timezone == nil || *sc.Timezone == "" {
			zone := timezoneDefault
			sc.Timezone = &zone
		}
	}
}

// check reports the first rule that a campaign breaks, as it is about to be
// written at now. The model has checked types, enumerations and ranges.
//
// Source: engagement 7, 12.
func (c *Campaign) check(now time.Time) error {
	for _, text := range []struct {
		member string
		value  *string
		most   int
	}{
		{"Name", c.Name, nameCharsMax},
		{"Description", c.Description, descriptionMax},
		{"TreatmentName", c.TreatmentName, nameCharsMax},
		{"TreatmentDescription", c.TreatmentDescription, descriptionMax},
	} {
		if text.value != nil && utf8.RuneCountInString(*text.value) > text.most {
			return aws.InvalidMember(text.member, "%s: longer than %d characters", text.member, text.most)
		}
	}
	switch {
	case c.SegmentId == "":
		return aws.InvalidMember("SegmentId", "SegmentId: a campaign needs a segment")
	case c.SegmentVersion < 0 || c.SegmentVersion > segmentVersionsMax:
		return aws.InvalidMember("SegmentVersion", "SegmentVersion: there is no version %d", c.SegmentVersion)
	case c.Priority != nil && (*c.Priority < 1 || *c.Priority > priorityMax):
		return aws.InvalidMember("Priority", "Priority: expected a number from 1 to %d", priorityMax)
	case c.Schedule == nil:
		return aws.InvalidMember("Schedule", "Schedule: a campaign needs a start time")
	case c.CustomDeliveryConfiguration != nil:
		return aws.InvalidMember("CustomDeliveryConfiguration", notYet, "CustomDeliveryConfiguration")
	}
	if err := checkHook("Hook", c.Hook); err != nil {
		return err
	}
	if err := c.checkTreatments(); err != nil {
		return err
	}
	paused := c.IsPaused != nil && *c.IsPaused
	for i, t := range c.treatments() {
		at := ""
		if i > 0 {
			at = fmt.Sprintf("AdditionalTreatments.%d.", i-1)
		}
		if err := checkSchedule(at+"Schedule", t.schedule, now, paused); err != nil {
			return err
		}
		if err := checkMessage(at+"MessageConfiguration", t.message); err != nil {
			return err
		}
		if err := checkTemplates(at+"TemplateConfiguration", t.template); err != nil {
			return err
		}
	}
	return nil
}

func (c *Campaign) checkTreatments() error {
	if n := len(c.AdditionalTreatments); n > treatmentsMax {
		return aws.InvalidMember("AdditionalTreatments", "AdditionalTreatments: %d treatments, at most %d", n, treatmentsMax)
	}
	sum := c.holdout()
	for i := range c.AdditionalTreatments {
		t := &c.AdditionalTreatments[i]
		if t.CustomDeliveryConfiguration != nil {
			member := fmt.Sprintf("AdditionalTreatments.%d.CustomDeliveryConfiguration", i)
			return aws.InvalidMember(member, notYet, member)
		}
		sum += t.SizePercent
	}
	if sum > cohorts {
		return aws.InvalidMember("AdditionalTreatments", "AdditionalTreatments: HoldoutPercent and SizePercent add up to %d, more than 100", sum)
	}
	return nil
}

// checkHook refuses a hook that would have to be called: leaving it out would
// send to people it filters.
func checkHook(member string, h *pinpoint.CampaignHook) error {
	if h != nil && (filled(h.LambdaFunctionName) || filled(h.WebUrl)) {
		return aws.InvalidMember(member, notYet, member)
	}
	return nil
}

func filled(s *string) bool { return s != nil && *s != "" }

// zones are the offsets that Schedule.Timezone may name. Source: engagement 7.4.
var zones = strings.Fields(`UTC UTC+01 UTC+02 UTC+03 UTC+03:30 UTC+04 UTC+04:30 UTC+05 UTC+05:30 UTC+05:45 UTC+06
	UTC+06:30 UTC+07 UTC+08 UTC+09 UTC+09:30 UTC+10 UTC+10:30 UTC+11 UTC+12 UTC+13 UTC-02 UTC-03 UTC-04 UTC-05
	UTC-06 UTC-07 UTC-08 UTC-09 UTC-10 UTC-11`)

// checkSchedule reports a schedule that cannot be kept.
//
// Source: engagement 7.4, 12.
func checkSchedule(member string, sc *pinpoint.Schedule, now time.Time, paused bool) error {
	bad := func(name, format string, args ...any) error {
		return aws.InvalidMember(member+"."+name, member+"."+name+": "+format, args...)
	}
	if sc.Frequency != "" && sc.Frequency != pinpoint.FrequencyOnce {
		return bad("Frequency", "%s is not available yet; ONCE is", sc.Frequency)
	}
	if sc.IsLocalTime != nil && *sc.IsLocalTime {
		return bad("IsLocalTime", "not available yet")
	}
	if sc.EventFilter != nil {
		return bad("EventFilter", "belongs to event campaigns, which are not available yet")
	}
	if sc.Timezone != nil && !slices.Contains(zones, *sc.Timezone) {
		return bad("Timezone", "%q is not one of the offsets UTC-11 to UTC+13", short(*sc.Timezone))
	}
	if q := sc.QuietTime; q != nil && filled(q.Start) != filled(q.End) {
		return bad("QuietTime", "expected both Start and End, or neither")
	}
	start := now
	if sc.StartTime != immediate {
		var err error
		if start, err = aws.ParseTimestamp(sc.StartTime); err != nil {
			return bad("StartTime", "expected IMMEDIATE or an ISO 8601 instant")
		}
		switch {
		case start.Before(now) && !paused:
			return bad("StartTime", "%s has passed", aws.Timestamp(start))
		case start.Sub(now) > startAheadMax:
			return bad("StartTime", "%s is more than ten years ahead", aws.Timestamp(start))
		}
	} else if paused {
		return bad("StartTime", "an immediate campaign cannot be paused")
	}
	if filled(sc.EndTime) {
		end, err := aws.ParseTimestamp(*sc.EndTime)
		if err != nil {
			return bad("EndTime", "expected an ISO 8601 instant")
		}
		if end.Before(start) {
			return bad("EndTime", "%s is before the start", aws.Timestamp(end))
		}
	}
	return nil
}

// startOf is when a schedule that checkSchedule let pass starts.
func startOf(sc *pinpoint.Schedule, now time.Time) time.Time {
	if sc.StartTime == immediate {
		return now
	}
	at, err := aws.ParseTimestamp(sc.StartTime)
	if err != nil {
		return now
	}
	return at
}

// checkMessage reports message members that cannot be sent, or whose text is no
// template. Whether there is a message at all is known once its template is.
//
// Source: engagement 7.2.
func checkMessage(member string, m *pinpoint.MessageConfiguration) error {
	if m == nil {
		return nil
	}
	for _, later := range []struct {
		name string
		set  bool
	}{
		{"APNSMessage", m.APNSMessage != nil},
		{"GCMMessage", m.GCMMessage != nil},
		{"ADMMessage", m.ADMMessage != nil},
		{"BaiduMessage", m.BaiduMessage != nil},
		{"CustomMessage", m.CustomMessage != nil},
		{"InAppMessage", m.InAppMessage != nil},
	} {
		if later.set {
			return aws.InvalidMember(member+"."+later.name, notYet, member+"."+later.name)
		}
	}
	text := func(name string, s *string, most int, html bool) error {
		if s == nil {
			return nil
		}
		if utf8.RuneCountInString(*s) > most {
			return aws.InvalidMember(member+"."+name, "%s.%s: longer than %d characters", member, name, most)
		}
		if _, err := templates.Parse(*s, templates.Options{HTML: html}); err != nil {
			return aws.InvalidMember(member+"."+name, "%s.%s: %v", member, name, err)
		}
		return nil
	}
	if d := m.DefaultMessage; d != nil {
		if err := first(text("DefaultMessage.Body", d.Body, defaultBodyMax, false), text("DefaultMessage.Title", d.Title, emailCharsMax, false)); err != nil {
			return err
		}
	}
	if e := m.EmailMessage; e != nil {
		if err := first(
			text("EmailMessage.Title", e.Title, emailCharsMax, false), text("EmailMessage.HtmlBody", e.HtmlBody, emailCharsMax, true),
			text("EmailMessage.Body", e.Body, emailCharsMax, false), templates.CheckHeaders(headers(e.Headers)),
		); err != nil {
			return err
		}
	}
	if e := m.SMSMessage; e != nil {
		return text("SMSMessage.Body", e.Body, smsBodyMax, false)
	}
	return nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// checkTemplates reports the first template that no campaign can use yet, else
// the first that has no name.
func checkTemplates(member string, t *pinpoint.TemplateConfiguration) error {
	if t == nil {
		return nil
	}
	for _, later := range []struct {
		name string
		ref  *pinpoint.Template
	}{{"InAppTemplate", t.InAppTemplate}, {"PushTemplate", t.PushTemplate}} {
		if later.ref != nil {
			return aws.InvalidMember(member+"."+later.name, notYet, member+"."+later.name)
		}
	}
	for _, now := range []struct {
		name string
		ref  *pinpoint.Template
	}{{"EmailTemplate", t.EmailTemplate}, {"SMSTemplate", t.SMSTemplate}} {
		if now.ref != nil && !filled(now.ref.Name) {
			return aws.InvalidMember(member+"."+now.name+".Name", "%s.%s.Name: a template has a name", member, now.name)
		}
	}
	return nil
}

func short(s string) string {
	const most = 64
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
