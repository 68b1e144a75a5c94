package channels

import (
	"encoding/json"
	"net/mail"
	"strings"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
)

// Bounds of what a channel keeps. Source: ours; the original states none.
const (
	secretBytesMax = 64 << 10 // a certificate chain, a service-account file
	nameCharsMax   = 256      // of ids, addresses and names
)

// A change checks a put and applies it to a channel, of which it makes the
// settings when there are none. It replaces the settings rather than changing
// them in place, and has no other effect.
type change func(caller aws.Caller, c *Channel) error

func changeADM(r *pinpoint.ADMChannelRequest) change {
	return func(_ aws.Caller, c *Channel) error {
		if err := bounded(secretBytesMax, member{"ClientId", r.ClientId}, member{"ClientSecret", r.ClientSecret}); err != nil {
			return err
		}
		if r.ClientId == "" || r.ClientSecret == "" {
			return aws.InvalidMember("ClientId", "ClientId and ClientSecret: expected a client of Amazon Device Messaging")
		}
		c.ADM = &ADMSettings{Secret(r.ClientId), Secret(r.ClientSecret)}
		return nil
	}
}

func changeAPNS(r *pinpoint.APNSChannelRequest) change {
	return func(_ aws.Caller, c *Channel) error {
		if err := bounded(secretBytesMax, optional("Certificate", r.Certificate), optional("PrivateKey", r.PrivateKey), optional("TokenKey", r.TokenKey)); err != nil {
			return err
		}
		if err := bounded(nameCharsMax, optional("BundleId", r.BundleId), optional("TeamId", r.TeamId), optional("TokenKeyId", r.TokenKeyId)); err != nil {
			return err
		}
		switch strings.ToLower(text(r.DefaultAuthenticationMethod)) {
		case "", methodKey, methodCertificate:
		default:
			return aws.InvalidMember("DefaultAuthenticationMethod", "DefaultAuthenticationMethod: expected key or certificate")
		}
		a := APNSSettings{}
		if c.APNS != nil {
			a = *c.APNS
		}
		if r.BundleId != nil {
			a.BundleID = *r.BundleId
		}
		if r.TeamId != nil || r.TokenKey != nil || r.TokenKeyId != nil {
			a.TeamID, a.TokenKey, a.TokenKeyID = text(r.TeamId), Secret(text(r.TokenKey)), text(r.TokenKeyId)
		}
		if r.Certificate != nil || r.PrivateKey != nil {
			a.Certificate, a.PrivateKey = Secret(text(r.Certificate)), Secret(text(r.PrivateKey))
		}
		if r.DefaultAuthenticationMethod != nil {
			a.DefaultMethod = *r.DefaultAuthenticationMethod
		}
		c.APNS = &a
		return nil
	}
}

func changeBaidu(r *pinpoint.BaiduChannelRequest) change {
	return func(_ aws.Caller, c *Channel) error {
		if err := bounded(secretBytesMax, member{"ApiKey", r.ApiKey}, member{"SecretKey", r.SecretKey}); err != nil {
			return err
		}
		if r.ApiKey == "" || r.SecretKey == "" {
			return aws.InvalidMember("ApiKey", "ApiKey and SecretKey: expected a pair of keys of Baidu")
		}
		c.Baidu = &BaiduSettings{Secret(r.ApiKey), Secret(r.SecretKey)}
		return nil
	}
}

func changeGCM(r *pinpoint.GCMChannelRequest) change {
	return func(_ aws.Caller, c *Channel) error {
		if err := bounded(secretBytesMax, optional("ApiKey", r.ApiKey), optional("ServiceJson", r.ServiceJson)); err != nil {
			return err
		}
		if s := text(r.ServiceJson); s != "" {
			if err := checkServiceJSON(s); err != nil {
				return err
			}
		}
		switch strings.ToLower(text(r.DefaultAuthenticationMethod)) {
		case "", methodKey, methodToken:
		default:
			return aws.InvalidMember("DefaultAuthenticationMethod", "DefaultAuthenticationMethod: expected TOKEN or KEY")
		}
		g := GCMSettings{}
		if c.GCM != nil {
			g = *c.GCM
		}
		if r.ApiKey != nil {
			g.APIKey = Secret(*r.ApiKey)
		}
		if r.ServiceJson != nil {
			g.ServiceJSON = Secret(*r.ServiceJson)
		}
		if r.DefaultAuthenticationMethod != nil {
			g.DefaultMethod = *r.DefaultAuthenticationMethod
		}
		c.GCM = &g
		return nil
	}
}

// checkServiceJSON reports text that is not a service-account file. The fault
// never repeats any of it.
//
// Source: channels-and-events 1, FCM.
func checkServiceJSON(s string) error {
	var file map[string]any
	if err := json.Unmarshal([]byte(s), &file); err != nil || file == nil {
		return aws.InvalidMember("ServiceJson", "ServiceJson: expected the text of a service-account file, a JSON object")
	}
	for _, name := range []string{"project_id", "client_email", "private_key", "token_uri"} {
		if v, ok := file[name].(string); !ok || v == "" {
			return aws.InvalidMember("ServiceJson", "ServiceJson: the service-account file has no %s", name)
		}
	}
	return nil
}

func changeEmail(r *pinpoint.EmailChannelRequest) change {
	return func(caller aws.Caller, c *Channel) error {
		if err := bounded(nameCharsMax, member{"FromAddress", r.FromAddress}, optional("ConfigurationSet", r.ConfigurationSet)); err != nil {
			return err
		}
		if _, err := mail.ParseAddress(r.FromAddress); err != nil {
			return aws.InvalidMember("FromAddress", "FromAddress: expected an email address, with a display name or without")
		}
		if err := checkIdentity(caller, r.Identity); err != nil {
			return err
		}
		if err := checkRole(caller, "RoleArn", r.RoleArn); err != nil {
			return err
		}
		if err := checkRole(caller, "OrchestrationSendingRoleArn", r.OrchestrationSendingRoleArn); err != nil {
			return err
		}
		c.Email = &EmailSettings{
			FromAddress: r.FromAddress, Identity: r.Identity, ConfigurationSet: text(r.ConfigurationSet),
			RoleARN: text(r.RoleArn), OrchestrationRoleARN: text(r.OrchestrationSendingRoleArn),
		}
		return nil
	}
}

// checkIdentity reports what is not the ARN of an email identity of the
// caller's account. Any Region will do: a channel is the same in all of them.
func checkIdentity(caller aws.Caller, identity string) error {
	arn, err := aws.ParseARN(identity)
	name, is := strings.CutPrefix(arn.Resource, "identity/")
	if err != nil || !is || arn.Service != "ses" || arn.Region == "" || name == "" || len(identity) > arnBytesMax || strings.ContainsAny(name, "/ ") {
		return aws.InvalidMember("Identity", "Identity: expected the ARN of an email identity, arn:aws:ses:REGION:ACCOUNT:identity/NAME")
	}
	if arn.Account != caller.Account {
		return aws.Forbidden("Identity: the email identity is not of this account")
	}
	return nil
}

// checkRole reports what is not the ARN of a role of the caller's account.
func checkRole(caller aws.Caller, name string, role *string) error {
	if text(role) == "" {
		return nil
	}
	arn, err := aws.ParseARN(*role)
	resource, is := strings.CutPrefix(arn.Resource, "role/")
	if err != nil || !is || arn.Service != "iam" || arn.Region != "" || resource == "" || len(*role) > arnBytesMax || strings.HasSuffix(resource, "/") {
		return aws.InvalidMember(name, "%s: expected the ARN of a role, arn:aws:iam::ACCOUNT:role/NAME", name)
	}
	if arn.Account != caller.Account {
		return aws.Forbidden("%s: the role is not of this account", name)
	}
	return nil
}

const arnBytesMax = 2048

func changeSMS(r *pinpoint.SMSChannelRequest) change {
	return func(_ aws.Caller, c *Channel) error {
		if id := text(r.SenderId); id != "" && !isSenderID(id) {
			return aws.InvalidMember("SenderId", "SenderId: expected 1 to 11 letters, digits, underscores or hyphens")
		}
		if code := text(r.ShortCode); code != "" && !isShortCode(code) {
			return aws.InvalidMember("ShortCode", "ShortCode: expected a number of 3 to 15 digits")
		}
		if c.SMS == nil || r.SenderId != nil || r.ShortCode != nil {
			c.SMS = &SMSSettings{text(r.SenderId), text(r.ShortCode)}
		}
		return nil
	}
}

// isSenderID reports whether s may be a sender id. Source: channels-and-events 5.1.
func isSenderID(s string) bool {
	return len(s) <= 11 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-'
	})
}

func isShortCode(s string) bool {
	s = strings.TrimPrefix(s, "+")
	return len(s) >= 3 && len(s) <= 15 && strings.Trim(s, "0123456789") == ""
}

func changeVoice(aws.Caller, *Channel) error { return nil }

type member struct{ name, value string }

func optional(name string, v *string) member { return member{name, text(v)} }

func bounded(most int, members ...member) error {
	for _, m := range members {
		if len(m.value) > most {
			return aws.InvalidMember(m.name, "%s: longer than %d bytes", m.name, most)
		}
	}
	return nil
}

// next is the channel after a put: one version on, switched as the request
// says. One that says nothing leaves a channel as it is, and switches a new one
// on when it can send; voice is off until somebody switches it on.
//
// Source: channels-and-events 1, Enabled and Version.
func next(was *Channel, caller aws.Caller, t Type, app, now string, enabled *bool, apply change) (*Channel, error) {
	c := &Channel{App: app, Type: t, CreationDate: now}
	if was != nil {
		*c = *was
	}
	if err := apply(caller, c); err != nil {
		return nil, err
	}
	c.Version++
	c.LastModifiedDate, c.LastModifiedBy = now, caller.Principal
	switch {
	case enabled != nil:
		c.Enabled = *enabled
	case was == nil:
		c.Enabled = t != TypeVoice && c.HasCredential()
	}
	return c, nil
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
