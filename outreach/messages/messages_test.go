package messages

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
)

func TestSendMessages_goes_out_and_says_so(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.endpoint("e1", "EMAIL", "e1@tea.example", "u1", map[string]string{"EndpointStatus": "INACTIVE"})
		status, text := w.call(callerDefault, "POST", sendPath, `{
			"Addresses":{"a@tea.example":{"ChannelType":"EMAIL"},"+12065550123":{"ChannelType":"SMS"}},
			"Endpoints":{"E1":{}},
			"MessageConfiguration":{
				"EmailMessage":{"FromAddress":"shop@tea.example","ReplyToAddresses":["Ann <ann@tea.example>"],"SimpleEmail":{
					"Subject":{"Data":"Hello {{name}}"},"HtmlPart":{"Data":"<p>{{name}}</p>"},"TextPart":{"Data":"{{name}}"},
					"Headers":[{"Name":"X-Kind","Value":"{{name}}"}]},"Substitutions":{"name":["friend"]}},
				"SMSMessage":{"Body":"Your table is ready","MessageType":"TRANSACTIONAL"}}}`)
		if status != 200 {
			t.Fatalf("%d %s", status, text)
		}
		var out pinpoint.MessageResponse
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			t.Fatal(err)
		}
		if out.ApplicationId != testApp || out.RequestId == nil || len(out.Result) != 2 || len(out.EndpointResult) != 1 {
			t.Errorf("answer %s", text)
		}
		sms := out.Result["+12065550123"]
		if sms.DeliveryStatus != "SUCCESSFUL" || sms.StatusCode != 200 || *sms.StatusMessage != "MessageId: "+*sms.MessageId || len(*sms.MessageId) != 36 {
			t.Errorf("result of the SMS %+v", sms)
		}
		e := out.EndpointResult["E1"]
		if e.DeliveryStatus != "SUCCESSFUL" || *e.Address != "e1@tea.example" {
			t.Errorf("result of the endpoint %+v", e)
		}
		w.pass(time.Minute)
		if got := w.mail.to(); !slices.Equal(got, []string{"a@tea.example", "e1@tea.example"}) {
			t.Errorf("mailed %v", got)
		}
		if got := w.textTo("+12065550123"); got != "Your table is ready" || w.text.got[0].Text.Promotional {
			t.Errorf("texted %q", got)
		}
		contains(t, w.mailTo("a@tea.example"), "Subject: Hello friend\r\n", "<p>friend</p>", "X-Kind: friend\r\n", "From: <shop@tea.example>\r\n",
			"Reply-To: \"Ann\" <ann@tea.example>\r\n", "Message-ID: <"+*out.Result["a@tea.example"].MessageId+"@tea.example>")
	})
}

func TestSendMessages_judges_each_recipient(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.endpoint("out", "EMAIL", "out@tea.example", "", map[string]string{"OptOut": "ALL"})
		w.endpoint("twin", "EMAIL", "twin@tea.example", "", nil)
		w.endpoint("homeless", "EMAIL", "", "", nil)
		w.endpoint("phone", "GCM", "token", "", nil)
		out := w.send(`{"Addresses":{
				"twin@tea.example":{"ChannelType":"EMAIL"},"nobody":{"ChannelType":"EMAIL"},"+1206555-0123":{"ChannelType":"SMS"},
				"12065550124":{"ChannelType":"SMS"},"+12065550124":{"ChannelType":"SMS"},"+12065550125":{"ChannelType":"VOICE"},
				"x":{},"bad@tea.example":{"ChannelType":"EMAIL","BodyOverride":"{{#if"}},
			"Endpoints":{"out":{},"twin":{},"homeless":{},"phone":{},"nowhere":{}},
			"MessageConfiguration":{"DefaultMessage":{"Body":"hello"}}}`)
		want := map[string]string{
			"twin@tea.example": "SUCCESSFUL 200", "nobody": "PERMANENT_FAILURE 400", "+1206555-0123": "PERMANENT_FAILURE 400",
			"12065550124": "DUPLICATE 200", "+12065550124": "SUCCESSFUL 200", "+12065550125": "PERMANENT_FAILURE 400 VOICE",
			"x": "PERMANENT_FAILURE 400", "bad@tea.example": "PERMANENT_FAILURE 400 BodyOverride",
			"out": "OPT_OUT 200", "twin": "DUPLICATE 200", "homeless": "PERMANENT_FAILURE 400", "phone": "PERMANENT_FAILURE 400 GCM",
			"nowhere": "PERMANENT_FAILURE 404",
		}
		check := func(who string, status pinpoint.DeliveryStatus, code int, message *string) {
			t.Helper()
			words := strings.Fields(want[who])
			if got := fmt.Sprintf("%s %d", status, code); got != strings.Join(words[:2], " ") {
				t.Errorf("%s: %s, want %s", who, got, want[who])
			}
			if len(words) > 2 && !strings.Contains(*message, words[2]) {
				t.Errorf("%s: %q does not name %s", who, *message, words[2])
			}
			delete(want, who)
		}
		for who, r := range out.Result {
			check(who, r.DeliveryStatus, r.StatusCode, r.StatusMessage)
			if (r.MessageId != nil) != (r.DeliveryStatus == "SUCCESSFUL") {
				t.Errorf("%s: message id %v", who, r.MessageId)
			}
		}
		for who, r := range out.EndpointResult {
			check(who, r.DeliveryStatus, r.StatusCode, r.StatusMessage)
		}
		if len(want) > 0 {
			t.Errorf("no result for %v", want)
		}
		w.pass(time.Minute)
		if got := append(w.mail.to(), w.text.to()...); !slices.Equal(got, []string{"twin@tea.example", "+12065550124"}) {
			t.Errorf("sent to %v", got)
		}
	})
}

func TestSendMessages_of_a_channel_that_cannot_be_used(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		const both = `{"Addresses":{"a@tea.example":{"ChannelType":"EMAIL"},"+12065550123":{"ChannelType":"SMS"}},"MessageConfiguration":`
		told := func(out *pinpoint.MessageResponse, email, sms string) {
			t.Helper()
			for who, want := range map[string]string{"a@tea.example": email, "+12065550123": sms} {
				r := out.Result[who]
				if got := fmt.Sprintf("%s %d %s", r.DeliveryStatus, r.StatusCode, *r.StatusMessage); !strings.HasPrefix(got, want) {
					t.Errorf("%s: %q, want %q", who, got, want)
				}
			}
		}
		told(w.send(both+`{"SMSMessage":{"Body":"x"}}}`), "PERMANENT_FAILURE 400 The request has no message for the channel EMAIL", "SUCCESSFUL")
		w.must("DELETE", "/v1/apps/"+testApp+"/channels/sms", "")
		w.must("PUT", "/v1/apps/"+testApp+"/channels/email",
			`{"Enabled":false,"FromAddress":"a@tea.example","Identity":"arn:aws:ses:us-east-1:`+testAccount+`:identity/tea.example"}`)
		told(w.send(both+`{"DefaultMessage":{"Body":"x"}}}`),
			"PERMANENT_FAILURE 400 The EMAIL channel is disabled", "PERMANENT_FAILURE 400 The SMS channel is not set up")
		w.pass(time.Minute)
		if n := len(w.mail.got) + len(w.text.got); n != 1 {
			t.Errorf("%d messages", n)
		}
	})
}

func TestContent_precedence(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.must("POST", "/v1/templates/menu/email", `{"Subject":"T-subject","HtmlPart":"T-html {{x}}","DefaultSubstitutions":"{\"x\":\"T-x\"}"}`)
		w.must("POST", "/v1/templates/menu/sms", `{"Body":"T-sms {{x}}","DefaultSubstitutions":"{\"x\":\"T-x\"}"}`)
		w.endpoint("e", "EMAIL", "own@tea.example", "", map[string]string{})
		const templates = `"TemplateConfiguration":{"EmailTemplate":{"Name":"menu"},"SMSTemplate":{"Name":"menu"}}`
		one := func(channel, address, more, message string) {
			w.t.Helper()
			w.send(`{"Addresses":{"` + address + `":{"ChannelType":"` + channel + `"` + more + `}},"MessageConfiguration":` + message + `,` + templates + `}`)
		}
		one("SMS", "+10000001", ``, `{}`)
		one("SMS", "+10000002", ``, `{"DefaultMessage":{"Body":"D {{x}}","Substitutions":{"x":["D-x"]}}}`)
		one("SMS", "+10000003", ``, `{"DefaultMessage":{"Body":"D","Substitutions":{"x":["D-x"]}},"SMSMessage":{"Body":"S {{x}}"}}`)
		one("SMS", "+10000004", ``, `{"DefaultMessage":{"Substitutions":{"x":["D-x"]}},"SMSMessage":{"Substitutions":{"x":["S-x"]}}}`)
		one("SMS", "+10000005", `,"Substitutions":{"x":["A-x"]}`, `{"SMSMessage":{"Substitutions":{"x":["S-x"]}}}`)
		one("SMS", "+10000006", `,"BodyOverride":"O {{x}}"`, `{"SMSMessage":{"Body":"S","Substitutions":{"x":["S-x"]}}}`)
		one("EMAIL", "t@x.example", ``, `{}`)
		one("EMAIL", "d@x.example", ``, `{"DefaultMessage":{"Body":"D-text"}}`)
		one("EMAIL", "s@x.example", ``, `{"EmailMessage":{"SimpleEmail":{"Subject":{"Data":"S-subject"}}}}`)
		one("EMAIL", "b@x.example", ``, `{"EmailMessage":{"Body":"B-text"},"DefaultMessage":{"Body":"D-text"}}`)
		one("EMAIL", "o@x.example", `,"BodyOverride":"<b>O {{x}}</b>","TitleOverride":"O-subject"`, `{"EmailMessage":{"Substitutions":{"x":["E-x"]}}}`)
		w.pass(time.Minute)
		for number, want := range map[string]string{
			"+10000001": "T-sms T-x", "+10000002": "D D-x", "+10000003": "S D-x", "+10000004": "T-sms S-x", "+10000005": "T-sms A-x", "+10000006": "O S-x",
		} {
			if got := w.textTo(number); got != want {
				t.Errorf("%s got %q, want %q", number, got, want)
			}
		}
		contains(t, w.mailTo("t@x.example"), "Subject: T-subject\r\n", "T-html T-x", `From: "Tea" <news@tea.example>`)
		contains(t, w.mailTo("d@x.example"), "Subject: T-subject\r\n", "text/plain", "D-text")
		contains(t, w.mailTo("s@x.example"), "Subject: S-subject\r\n", "T-html T-x")
		contains(t, w.mailTo("b@x.example"), "B-text")
		contains(t, w.mailTo("o@x.example"), "Subject: O-subject\r\n", "<b>O E-x</b>")
		if strings.Contains(w.mailTo("d@x.example"), "T-html") {
			t.Error("the default message left the template's HTML in place")
		}
	})
}

func TestRawEmail_goes_out_as_it_is_with_our_message_id(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		raw := "From: Bob <bob@tea.example>\nSubject: raw\nMessage-ID: <theirs@x>\n\nHello {{not a template}}\n"
		data := base64.StdEncoding.EncodeToString([]byte(raw))
		out := w.send(`{"Addresses":{"a@tea.example":{"ChannelType":"EMAIL"}},"MessageConfiguration":{"EmailMessage":{"RawEmail":{"Data":"` + data + `"}}}}`)
		w.pass(time.Minute)
		got := w.mailTo("a@tea.example")
		contains(t, got, "Message-ID: <"+*out.Result["a@tea.example"].MessageId+"@tea.example>\r\n", "Subject: raw\r\n", "Hello {{not a template}}\r\n")
		if strings.Contains(got, "theirs@x") || w.mail.got[0].From != "bob@tea.example" {
			t.Errorf("from %s:\n%s", w.mail.got[0].From, got)
		}
	})
}

func TestCalls_that_are_wrong_as_a_whole(t *testing.T) {
	hundred := func(n int, item string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, item, i)
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	const one = `"Addresses":{"a@tea.example":{"ChannelType":"EMAIL"}}`
	for name, c := range map[string]struct {
		path, body string
		status     int
		want       string
	}{
		"nobody":              {sendPath, `{"MessageConfiguration":{}}`, 400, "recipient"},
		"too many":            {sendPath, `{"Addresses":{` + hundred(60, `"a%d@x":{"ChannelType":"EMAIL"},`) + `},"Endpoints":{` + hundred(41, `"e%d":{},`) + `},"MessageConfiguration":{}}`, 400, "101"},
		"no configuration":    {sendPath, `{` + one + `}`, 400, "MessageConfiguration"},
		"no template":         {sendPath, `{` + one + `,"MessageConfiguration":{},"TemplateConfiguration":{"EmailTemplate":{"Name":"none"}}}`, 400, "none"},
		"text is no template": {sendPath, `{` + one + `,"MessageConfiguration":{"EmailMessage":{"SimpleEmail":{"HtmlPart":{"Data":"{{#if"}}}}}`, 400, "HtmlPart"},
		"raw and simple":      {sendPath, `{` + one + `,"MessageConfiguration":{"EmailMessage":{"RawEmail":{"Data":"eA=="},"SimpleEmail":{}}}}`, 400, "not both"},
		"raw is no mail":      {sendPath, `{` + one + `,"MessageConfiguration":{"EmailMessage":{"RawEmail":{"Data":"` + base64.StdEncoding.EncodeToString([]byte("no colon here\n\n")) + `"}}}}`, 400, "RawEmail"},
		"reply-to":            {sendPath, `{` + one + `,"MessageConfiguration":{"EmailMessage":{"Body":"x","ReplyToAddresses":["a@b\r\nBcc: c@d"]}}}`, 400, "ReplyTo"},
		"from":                {sendPath, `{` + one + `,"MessageConfiguration":{"EmailMessage":{"Body":"x","FromAddress":"nobody"}}}`, 400, "FromAddress"},
		"long SMS":            {sendPath, `{"Addresses":{"+12065550123":{"ChannelType":"SMS"}},"MessageConfiguration":{"SMSMessage":{"Body":"` + strings.Repeat("x", 1601) + `"}}}`, 400, "SMSMessage.Body"},
		"no users":            {usersPath, `{"Users":{},"MessageConfiguration":{}}`, 400, "recipient"},
		"too many users":      {usersPath, `{"Users":{` + hundred(101, `"u%d":{},`) + `},"MessageConfiguration":{}}`, 400, "101"},
		"no app":              {"/v1/apps/ffffffffffffffffffffffffffffffff/messages", `{` + one + `,"MessageConfiguration":{}}`, 404, "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				if status, text := w.call(callerDefault, "POST", c.path, c.body); status != c.status || !strings.Contains(text, c.want) {
					t.Errorf("%d %s, want %d and %q", status, text, c.status, c.want)
				}
				w.pass(time.Minute)
				if n := len(w.mail.got) + len(w.text.got); n != 0 {
					t.Errorf("%d messages were sent", n)
				}
			})
		})
	}
	in(t, func(t *testing.T, w *world) {
		who := caller{"999999999999", "arn:aws:iam::999999999999:root", "i"}
		if status, _ := w.call(who, "POST", sendPath, `{`+one+`,"MessageConfiguration":{}}`); status != 404 {
			t.Errorf("another account's app: %d", status)
		}
	})
}

func TestSendUsersMessages_reaches_every_active_endpoint_that_has_content(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.endpoint("mail", "EMAIL", "u1@tea.example", "u1", nil)
		w.endpoint("old", "EMAIL", "old@tea.example", "u1", map[string]string{"EndpointStatus": "INACTIVE"})
		w.endpoint("text", "SMS", "+12065550123", "u1", nil)
		w.endpoint("push", "GCM", "token", "u1", nil)
		w.endpoint("out", "EMAIL", "out@tea.example", "u2", map[string]string{"OptOut": "ALL"})
		w.endpoint("same", "SMS", "+12065550123", "u2", nil)
		out := w.sendUsers(`{"Users":{"u1":{"Substitutions":{"x":["one"]}},"u2":{},"nobody":{}},
			"MessageConfiguration":{"EmailMessage":{"SimpleEmail":{"Subject":{"Data":"s"},"TextPart":{"Data":"mail {{x}}"}},"Substitutions":{"x":["all"]}},
				"SMSMessage":{"Body":"text {{x}}"}}}`)
		got := map[string]string{}
		for user, results := range out.Result {
			if len(results) == 0 {
				got[user] = "-"
			}
			for id, r := range results {
				got[user+"/"+id] = fmt.Sprintf("%s %d", r.DeliveryStatus, r.StatusCode)
			}
		}
		want := map[string]string{
			"u1/mail": "SUCCESSFUL 200", "u1/text": "SUCCESSFUL 200", "u2/out": "OPT_OUT 200", "u2/same": "DUPLICATE 200", "nobody": "-",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("results %v, want %v", got, want)
		}
		w.pass(time.Minute)
		contains(t, w.mailTo("u1@tea.example"), "mail one")
		if got := w.textTo("+12065550123"); got != "text one" {
			t.Errorf("texted %q", got)
		}
		push := w.sendUsers(`{"Users":{"u1":{}},"MessageConfiguration":{"GCMMessage":{"Body":"x"}}}`)
		if r := push.Result["u1"]; len(r) != 1 || r["push"].DeliveryStatus != "PERMANENT_FAILURE" {
			t.Errorf("push %+v", r)
		}
	})
}

func TestSendUsersMessages_of_many_endpoints_claims_in_blocks(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		users := make([]string, 0, 100)
		for i := range 100 {
			for j := range 3 {
				w.endpoint(fmt.Sprintf("e%d-%d", i, j), "EMAIL", fmt.Sprintf("e%d-%d@tea.example", i, j), fmt.Sprintf("u%d", i), nil)
			}
			users = append(users, fmt.Sprintf(`"u%d":{}`, i))
		}
		w.sendUsers(`{"Users":{` + strings.Join(users, ",") + `},"MessageConfiguration":{"DefaultMessage":{"Body":"x"}}}`)
		w.pass(time.Minute)
		got := w.mail.to()
		if n := len(slices.Compact(got)); n != 300 || len(w.mail.got) != 300 {
			t.Errorf("%d mails to %d addresses", len(w.mail.got), n)
		}
	})
}

const greeting = `{"Addresses":{"a@tea.example":{"ChannelType":"EMAIL"}},"Endpoints":{"nowhere":{}},"MessageConfiguration":{"DefaultMessage":{"Body":"hello"}}}`

func TestRetry_of_a_call_gets_the_first_answer_and_sends_nothing(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		ann := callerDefault
		ann.invocation = "11111111-2222-3333-4444-555555555555"
		_, first := w.call(ann, "POST", sendPath, greeting)
		for range 3 {
			if status, again := w.call(ann, "POST", sendPath, greeting); status != 200 || again != first {
				t.Errorf("a retry got %d %s, first %s", status, again, first)
			}
		}
		w.pass(time.Minute)
		if n := len(w.mail.got); n != 1 {
			t.Fatalf("%d mails", n)
		}
		bob, other := ann, ann
		bob.principal, other.invocation = "arn:aws:iam::"+testAccount+":user/bob", "another"
		for name, again := range map[string]func() (int, string){
			"principal":  func() (int, string) { return w.call(bob, "POST", sendPath, greeting) },
			"invocation": func() (int, string) { return w.call(other, "POST", sendPath, greeting) },
			"body":       func() (int, string) { return w.call(ann, "POST", sendPath, greeting+" ") },
			"none":       func() (int, string) { return w.call(callerDefault, "POST", sendPath, greeting) },
			"none again": func() (int, string) { return w.call(callerDefault, "POST", sendPath, greeting) },
		} {
			before := len(w.mail.to())
			if _, text := again(); text == first {
				t.Errorf("another %s got the first answer", name)
			}
			w.pass(time.Minute)
			if n := len(w.mail.to()) - before; n != 1 {
				t.Errorf("another %s sent %d mails", name, n)
			}
		}
	})
}

func TestRetry_that_comes_at_the_same_time_sends_once(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		who := callerDefault
		who.invocation = "same"
		w.endpoint("e", "SMS", "+12065550123", "u", nil)
		answers := make([]string, 20)
		var calls sync.WaitGroup
		for i := range answers {
			calls.Go(func() {
				_, answers[i] = w.call(who, "POST", usersPath, `{"Users":{"u":{},"nobody":{}},"MessageConfiguration":{"DefaultMessage":{"Body":"x"}}}`)
			})
		}
		calls.Wait()
		for _, a := range answers {
			if a != answers[0] || !strings.Contains(a, `"nobody":{}`) {
				t.Errorf("answers differ: %s and %s", a, answers[0])
			}
		}
		w.pass(time.Minute)
		if n := len(w.text.got); n != 1 {
			t.Errorf("%d texts", n)
		}
	})
}

func TestCrash_around_the_commit_loses_nothing_and_repeats_nothing(t *testing.T) {
	// "committed" fails after the commit: the caller has no answer, the call stands.
	for _, point := range []string{"begin", "write", "commit", "committed"} {
		t.Run(point, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				dead := false
				w.stop()
				w.silent = true // or delivery's commits would fail in this one's place
				w.start()
				fail := func(p string) error {
					if dead = dead || p == point; dead {
						return errors.New("power cut")
					}
					return nil
				}
				w.fault.Store(&fail)
				who := callerDefault
				who.invocation = "crash"
				if status, text := w.call(who, "POST", sendPath, greeting); status < 500 {
					t.Errorf("the call that crashed got %d %s", status, text)
				}
				w.stop()
				w.fault.Store(nil)
				w.silent = false
				w.start()
				_, first := w.call(who, "POST", sendPath, greeting)
				_, again := w.call(who, "POST", sendPath, greeting)
				if first != again || !strings.Contains(first, "SUCCESSFUL") {
					t.Errorf("retries got %s and %s", first, again)
				}
				w.pass(5 * time.Minute)
				if n := len(w.mail.got); n != 1 {
					t.Errorf("%d mails", n)
				}
				var out pinpoint.MessageResponse
				if err := json.Unmarshal([]byte(first), &out); err != nil {
					t.Fatal(err)
				}
				contains(t, w.mailTo("a@tea.example"), *out.Result["a@tea.example"].MessageId)
			})
		})
	}
}

func TestEngines_answer_retries_alike(t *testing.T) {
	urls := map[string]string{"sqlite": ""}
	if url := os.Getenv("TEST_POSTGRES_URL"); url != "" {
		urls["postgres"] = newDatabase(t, url)
	} else {
		t.Log("TEST_POSTGRES_URL is not set: SQLite only")
	}
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.url = url
			w.start()
			defer func() { w.stop() }()
			var calls sync.WaitGroup
			for i := range 40 {
				calls.Go(func() {
					who := callerDefault
					who.invocation = fmt.Sprint(i / 4) // four tries of each call
					body := fmt.Sprintf(`{"Addresses":{"a%d@tea.example":{"ChannelType":"EMAIL"}},"MessageConfiguration":{"DefaultMessage":{"Body":"x"}}}`, i/4)
					if status, text := w.call(who, "POST", sendPath, body); status != 200 {
						t.Errorf("%d %s", status, text)
					}
				})
			}
			calls.Wait()
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for deadline := time.Now().Add(20 * time.Second); len(w.mail.to()) < 10 && time.Now().Before(deadline); {
				<-tick.C
			}
			w.stop() // whatever else was on its way is out now
			got := w.mail.to()
			if n := len(slices.Compact(slices.Clone(got))); n != 10 || len(got) != 10 {
				t.Errorf("%d mails to %d addresses: %v", len(got), n, got)
			}
		})
	}
}

func BenchmarkSendMessages(b *testing.B) {
	w := newWorld(b)
	w.silent = true
	w.start()
	defer w.stop()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			who := callerDefault
			who.invocation = fmt.Sprint(requests.Add(1))
			if status, text := w.call(who, "POST", sendPath, greeting); status != 200 {
				b.Errorf("%d %s", status, text)
			}
		}
	})
}
