package templates

import "github.com/everpoint/everpoint/api/pinpoint"

// Content is what one version of a template says. Of the members only those of
// its type are set; an empty text is one that was not given.
//
// Source: engagement 5.1.
type Content struct {
	Name    string `json:"-"` // of the template it was read from
	Type    Type
	Version int `json:"-"` // from 1

	Description          string `json:",omitempty"`
	DefaultSubstitutions string `json:",omitempty"` // a JSON object; see [ParseDefaults]
	RecommenderID        string `json:",omitempty"`

	// Of an email.
	Subject  string   `json:",omitempty"`
	HtmlPart string   `json:",omitempty"`
	TextPart string   `json:",omitempty"`
	Headers  []Header `json:",omitempty"`

	// Of an SMS and of a voice message.
	Body         string `json:",omitempty"`
	LanguageCode string `json:",omitempty"`
	VoiceID      string `json:",omitempty"`

	// Of a push notification.
	Default *pinpoint.DefaultPushNotificationTemplate `json:",omitempty"`
	APNS    *pinpoint.APNSPushNotificationTemplate    `json:",omitempty"`
	ADM     *pinpoint.AndroidPushNotificationTemplate `json:",omitempty"`
	Baidu   *pinpoint.AndroidPushNotificationTemplate `json:",omitempty"`
	GCM     *pinpoint.AndroidPushNotificationTemplate `json:",omitempty"`

	// Of an in-app message.
	InApp        []pinpoint.InAppMessageContent `json:",omitempty"`
	CustomConfig map[string]string              `json:",omitempty"`
	Layout       pinpoint.Layout                `json:",omitempty"`
}

// check reports content that breaks a rule of its type.
//
// Source: engagement 5.1, 5.3.
func (c *Content) check() error {
	if err := CheckDescription(c.Description); err != nil {
		return err
	}
	if _, err := ParseDefaults(c.DefaultSubstitutions); err != nil {
		return err
	}
	if err := CheckHeaders(c.Headers); err != nil {
		return err
	}
	parts := c.parts()
	if err := CheckSize(c.Type, parts); err != nil {
		return err
	}
	if c.Type == InApp {
		return nil // without variables
	}
	_, err := Compile(parts)
	return err
}

// parts are the text members that were given.
func (c *Content) parts() []Part {
	var parts []Part
	add := func(member, text string) {
		if text != "" {
			parts = append(parts, Part{member, text})
		}
	}
	switch c.Type {
	case Email:
		add("Subject", c.Subject)
		add("HtmlPart", c.HtmlPart)
		add("TextPart", c.TextPart)
	case SMS, Voice:
		add("Body", c.Body)
	case Push:
		if d := c.Default; d != nil {
			add("Default.Body", text(d.Body))
			add("Default.Sound", text(d.Sound))
			add("Default.Title", text(d.Title))
			add("Default.Url", text(d.Url))
		}
		if p := c.APNS; p != nil {
			add("APNS.Body", text(p.Body))
			add("APNS.MediaUrl", text(p.MediaUrl))
			add("APNS.RawContent", text(p.RawContent))
			add("APNS.Sound", text(p.Sound))
			add("APNS.Title", text(p.Title))
			add("APNS.Url", text(p.Url))
		}
		for _, a := range []struct {
			platform string
			part     *pinpoint.AndroidPushNotificationTemplate
		}{{"ADM", c.ADM}, {"Baidu", c.Baidu}, {"GCM", c.GCM}} {
			if p := a.part; p != nil {
				add(a.platform+".Body", text(p.Body))
				add(a.platform+".ImageIconUrl", text(p.ImageIconUrl))
				add(a.platform+".ImageUrl", text(p.ImageUrl))
				add(a.platform+".RawContent", text(p.RawContent))
				add(a.platform+".SmallImageIconUrl", text(p.SmallImageIconUrl))
				add(a.platform+".Sound", text(p.Sound))
				add(a.platform+".Title", text(p.Title))
				add(a.platform+".Url", text(p.Url))
			}
		}
	case InApp:
		for i := range c.InApp {
			addInApp(add, &c.InApp[i])
		}
		for name, value := range c.CustomConfig {
			add("CustomConfig", name+value)
		}
	}
	return parts
}

func addInApp(add func(member, text string), m *pinpoint.InAppMessageContent) {
	add("Content.ImageUrl", text(m.ImageUrl))
	if h := m.HeaderConfig; h != nil {
		add("Content.HeaderConfig.Header", h.Header)
	}
	if b := m.BodyConfig; b != nil {
		add("Content.BodyConfig.Body", b.Body)
	}
	for _, b := range []struct {
		name   string
		button *pinpoint.InAppMessageButton
	}{{"PrimaryBtn", m.PrimaryBtn}, {"SecondaryBtn", m.SecondaryBtn}} {
		if b.button == nil {
			continue
		}
		if d := b.button.DefaultConfig; d != nil {
			add("Content."+b.name+".DefaultConfig.Text", d.Text)
			add("Content."+b.name+".DefaultConfig.Link", text(d.Link))
		}
		for _, o := range []*pinpoint.OverrideButtonConfiguration{b.button.Android, b.button.IOS, b.button.Web} {
			if o != nil {
				add("Content."+b.name+".Link", text(o.Link))
			}
		}
	}
}

func emailContent(r *pinpoint.EmailTemplateRequest) *draft {
	d := &draft{tags: r.Tags, Content: Content{
		Type: Email, Description: text(r.TemplateDescription), DefaultSubstitutions: text(r.DefaultSubstitutions),
		RecommenderID: text(r.RecommenderId), Subject: text(r.Subject), HtmlPart: text(r.HtmlPart), TextPart: text(r.TextPart),
	}}
	for _, h := range r.Headers {
		d.Headers = append(d.Headers, Header{text(h.Name), text(h.Value)})
	}
	return d
}

func smsContent(r *pinpoint.SMSTemplateRequest) *draft {
	return &draft{tags: r.Tags, Content: Content{
		Type: SMS, Description: text(r.TemplateDescription), DefaultSubstitutions: text(r.DefaultSubstitutions),
		RecommenderID: text(r.RecommenderId), Body: text(r.Body),
	}}
}

func voiceContent(r *pinpoint.VoiceTemplateRequest) *draft {
	return &draft{tags: r.Tags, Content: Content{
		Type: Voice, Description: text(r.TemplateDescription), DefaultSubstitutions: text(r.DefaultSubstitutions),
		Body: text(r.Body), LanguageCode: text(r.LanguageCode), VoiceID: text(r.VoiceId),
	}}
}

func pushContent(r *pinpoint.PushNotificationTemplateRequest) *draft {
	return &draft{tags: r.Tags, Content: Content{
		Type: Push, Description: text(r.TemplateDescription), DefaultSubstitutions: text(r.DefaultSubstitutions),
		RecommenderID: text(r.RecommenderId), Default: r.Default, APNS: r.APNS, ADM: r.ADM, Baidu: r.Baidu, GCM: r.GCM,
	}}
}

func inAppContent(r *pinpoint.InAppTemplateRequest) *draft {
	return &draft{tags: r.Tags, Content: Content{
		Type: InApp, Description: text(r.TemplateDescription),
		InApp: r.Content, CustomConfig: r.CustomConfig, Layout: r.Layout,
	}}
}

func (v *view) email() *pinpoint.EmailTemplateResponse {
	out := &pinpoint.EmailTemplateResponse{
		Arn: &v.arn, CreationDate: v.created, LastModifiedDate: v.modified, TemplateName: v.Name,
		TemplateType: pinpoint.TemplateTypeEmail, Version: &v.version, Tags: v.tags,
		DefaultSubstitutions: given(v.DefaultSubstitutions), TemplateDescription: given(v.Description), RecommenderId: given(v.RecommenderID),
		Subject: given(v.Subject), HtmlPart: given(v.HtmlPart), TextPart: given(v.TextPart),
	}
	for i := range v.Headers {
		out.Headers = append(out.Headers, pinpoint.MessageHeader{Name: &v.Headers[i].Name, Value: &v.Headers[i].Value})
	}
	return out
}

func (v *view) sms() *pinpoint.SMSTemplateResponse {
	return &pinpoint.SMSTemplateResponse{
		Arn: &v.arn, CreationDate: v.created, LastModifiedDate: v.modified, TemplateName: v.Name,
		TemplateType: pinpoint.TemplateTypeSms, Version: &v.version, Tags: v.tags,
		DefaultSubstitutions: given(v.DefaultSubstitutions), TemplateDescription: given(v.Description), RecommenderId: given(v.RecommenderID),
		Body: given(v.Body),
	}
}

func (v *view) voice() *pinpoint.VoiceTemplateResponse {
	return &pinpoint.VoiceTemplateResponse{
		Arn: &v.arn, CreationDate: v.created, LastModifiedDate: v.modified, TemplateName: v.Name,
		TemplateType: pinpoint.TemplateTypeVoice, Version: &v.version, Tags: v.tags,
		DefaultSubstitutions: given(v.DefaultSubstitutions), TemplateDescription: given(v.Description),
		Body: given(v.Body), LanguageCode: given(v.LanguageCode), VoiceId: given(v.VoiceID),
	}
}

func (v *view) push() *pinpoint.PushNotificationTemplateResponse {
	return &pinpoint.PushNotificationTemplateResponse{
		Arn: &v.arn, CreationDate: v.created, LastModifiedDate: v.modified, TemplateName: v.Name,
		TemplateType: pinpoint.TemplateTypePush, Version: &v.version, Tags: v.tags,
		DefaultSubstitutions: given(v.DefaultSubstitutions), TemplateDescription: given(v.Description), RecommenderId: given(v.RecommenderID),
		Default: v.Default, APNS: v.APNS, ADM: v.ADM, Baidu: v.Baidu, GCM: v.GCM,
	}
}

func (v *view) inApp() *pinpoint.InAppTemplateResponse {
	return &pinpoint.InAppTemplateResponse{
		Arn: &v.arn, CreationDate: v.created, LastModifiedDate: v.modified, TemplateName: v.Name,
		TemplateType: pinpoint.TemplateTypeInapp, Version: &v.version, Tags: v.tags,
		TemplateDescription: given(v.Description), Content: v.InApp, CustomConfig: v.CustomConfig, Layout: v.Layout,
	}
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// given is the optional member for a text; absent when it is empty.
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
