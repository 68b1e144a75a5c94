package carriers

import (
	"encoding/json"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"net/mail"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/everpoint/everpoint/courier/smpp/smpptest"
	"github.com/everpoint/everpoint/courier/smtp/smtptest"
)

// Message is one line of the outbox.
type Message struct {
	N         int       `json:"n"` // from 1, in the order of arrival
	Channel   string    `json:"channel"`
	Region    string    `json:"region"`
	From      string    `json:"from"`
	To        string    `json:"to"`
	Subject   string    `json:"subject,omitempty"`
	Body      string    `json:"body"`
	MessageID string    `json:"messageId"`
	Time      time.Time `json:"time"`
}

// Bounds of the outbox: what is kept of one body, and how many messages. When
// the outbox is full the oldest half goes.
const (
	bodyBytesMax = 4 << 10
	messagesMax  = 1 << 20
	pageMax      = 5000
)

// Outbox keeps what went out, in memory. It is safe for concurrent use.
type Outbox struct {
	// BodyBytes is how much of each body is kept; 0 means 4 KiB, negative none.
	BodyBytes int

	mu    sync.Mutex
	first int // N of the first message that is kept, less one
	kept  []Message
}

func (o *Outbox) add(m Message) {
	limit := o.BodyBytes
	if limit == 0 {
		limit = bodyBytesMax
	}
	if limit < 0 {
		m.Body = ""
	} else if len(m.Body) > limit {
		m.Body = strings.ToValidUTF8(m.Body[:limit], "") + "…"
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.kept) == messagesMax {
		o.first += messagesMax / 2
		o.kept = append([]Message(nil), o.kept[messagesMax/2:]...)
	}
	m.N = o.first + len(o.kept) + 1
	o.kept = append(o.kept, m)
}

// Mail takes a mail from the SMTP server.
func (o *Outbox) Mail(r smtptest.Received) {
	head, body, _ := strings.Cut(string(r.Data), "\r\n\r\n")
	field := func(name string) string {
		for line := range strings.SplitSeq(head, "\r\n") {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(k, name) {
				return strings.TrimSpace(v)
			}
		}
		return ""
	}
	subject := field("Subject")
	if text, err := new(mime.WordDecoder).DecodeHeader(subject); err == nil {
		subject = text
	}
	from := field("From")
	if a, err := mail.ParseAddress(from); err == nil {
		from = a.Address
	}
	for _, to := range r.To {
		o.add(Message{
			Channel: "EMAIL", Region: regionOf(r.Helo), From: from, To: to, Subject: subject, Body: body,
			MessageID: ledgerID(field("Message-ID")), Time: r.At.UTC(),
		})
	}
}

// regionOf reads the Region out of the name a node gives in EHLO,
// "us-east-1.everpoint".
func regionOf(helo string) string {
	region, _, _ := strings.Cut(helo, ".")
	return region
}

// ledgerID reads the ledger's id out of a Message-ID, "<id@domain>".
func ledgerID(header string) string {
	id, _, _ := strings.Cut(strings.Trim(header, "<>"), "@")
	return id
}

// Text takes a text from the SMS centre.
func (o *Outbox) Text(m smpptest.Message) error {
	o.add(Message{
		Channel: "SMS", Region: m.SystemID, From: m.From, To: m.To, Body: m.Body, MessageID: m.Reference, Time: m.At.UTC(),
	})
	return nil
}

// Messages returns messages after the nth, of one channel if it is given, that
// came after since, at most limit.
func (o *Outbox) Messages(after int, since time.Time, channel string, limit int) []Message {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := []Message{}
	for i := max(after-o.first, 0); i < len(o.kept) && len(out) < limit; i++ {
		m := o.kept[i]
		if (channel == "" || strings.EqualFold(m.Channel, channel)) && m.Time.After(since) {
			out = append(out, m)
		}
	}
	return out
}

// Count is how many messages came.
func (o *Outbox) Count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first + len(o.kept)
}

// Clear forgets all messages.
func (o *Outbox) Clear() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.first, o.kept = o.first+len(o.kept), nil
}

// ServeHTTP shows the outbox: a page for people; for those who ask for JSON a
// list of messages, with ?channel=, ?since= (RFC 3339 or Unix milliseconds),
// and ?after= (a message's n) for paging; at most 5,000 at a time, or ?limit=.
// GET /count answers the number of messages, DELETE forgets them.
func (o *Outbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodDelete {
		o.Clear()
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if strings.HasSuffix(r.URL.Path, "/count") {
		fmt.Fprintln(w, o.Count())
		return
	}
	q := r.URL.Query()
	after, _ := strconv.Atoi(q.Get("after"))
	limit, _ := strconv.Atoi(q.Get("limit"))
	if limit < 1 || limit > pageMax {
		limit = pageMax
	}
	since, err := moment(q.Get("since"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	asJSON := strings.Contains(r.Header.Get("Accept"), "json") || q.Get("format") == "json"
	if asJSON {
		w.Header().Set("Content-Type", "application/json")
		// A client that went away is no news.
		_ = json.NewEncoder(w).Encode(o.Messages(after, since, q.Get("channel"), limit))
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	total := o.Count()
	shown := o.Messages(max(after, total-200), since, q.Get("channel"), 200)
	_ = page.Execute(w, map[string]any{"Total": total, "Messages": shown})
}

func moment(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.UnixMilli(ms), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return t, fmt.Errorf("since: %q is neither RFC 3339 nor Unix milliseconds", s)
	}
	return t, nil
}

var page = template.Must(template.New("outbox").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Everpoint outbox</title>
<meta http-equiv="refresh" content="5">
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b1f24}
table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:600}
td,th{padding:.35rem .6rem;border-bottom:1px solid #d8dee4;vertical-align:top}
td.body{max-width:28rem;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;color:#57606a}
</style></head><body>
<h1>Outbox</h1>
<p>{{.Total}} messages went out. The latest are shown; ask for JSON to get all.</p>
<table><tr><th>#</th><th>Time</th><th>Region</th><th>Channel</th><th>From</th><th>To</th><th>Subject</th><th>Body</th></tr>
{{range .Messages}}<tr><td>{{.N}}</td><td>{{.Time.Format "15:04:05.000"}}</td><td>{{.Region}}</td><td>{{.Channel}}</td>
<td>{{.From}}</td><td>{{.To}}</td><td>{{.Subject}}</td><td class="body">{{.Body}}</td></tr>
{{else}}<tr><td colspan="8">Nothing yet.</td></tr>{{end}}
</table></body></html>`))
