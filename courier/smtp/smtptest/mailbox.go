package smtptest

import (
	"bytes"
	"strings"
	"time"
)

// Received is one message the server took.
type Received struct {
	From string   // envelope sender; empty for the null sender
	To   []string // envelope recipients that were accepted
	Data []byte   // the message as sent, without dot-stuffing and final dot; the receiver's to keep, nobody writes to it
	Helo string   // the name given in EHLO or HELO
	User string   // who authenticated; empty for nobody
	TLS  bool     // it came over TLS
	At   time.Time
	// Label is Config.Label: which server of several took it.
	Label string
}

// MessageID is the message's own Message-ID, angle brackets included; empty
// when there is none.
func (r *Received) MessageID() string { return r.header("Message-ID") }

// header is the first line of the first header field of that name.
func (r *Received) header(name string) string {
	for rest := r.Data; len(rest) > 0; {
		line, after, _ := bytes.Cut(rest, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			return ""
		}
		if len(line) > len(name) && line[len(name)] == ':' && strings.EqualFold(string(line[:len(name)]), name) {
			value := bytes.TrimSpace(line[len(name)+1:])
			// A long value may stand alone on the next, folded line.
			if len(value) == 0 && len(after) > 0 && (after[0] == ' ' || after[0] == '\t') {
				value, _, _ = bytes.Cut(after, []byte("\n"))
				value = bytes.TrimSpace(value)
			}
			return string(value)
		}
		rest = after
	}
	return ""
}

// keep puts a message into the mailbox and pushes the oldest out when full.
func (s *Server) keep(r *Received) {
	s.boxMu.Lock()
	defer s.boxMu.Unlock()
	s.count++
	if s.cfg.MailboxMax < 0 {
		return
	}
	m := kept{r, r.MessageID()}
	if len(s.box) < s.cfg.MailboxMax {
		s.box = append(s.box, m)
	} else {
		old := s.box[s.oldest]
		s.box[s.oldest] = m
		s.oldest = (s.oldest + 1) % len(s.box)
		if ids := s.byID[old.id]; len(ids) > 1 {
			s.byID[old.id] = ids[1:]
		} else {
			delete(s.byID, old.id)
		}
	}
	s.byID[m.id] = append(s.byID[m.id], r)
}

type kept struct {
	*Received
	id string
}

// Count is how many messages the server took since it was made, kept or not.
func (s *Server) Count() int {
	s.boxMu.Lock()
	defer s.boxMu.Unlock()
	return s.count
}

// Messages are those in the mailbox, oldest first.
func (s *Server) Messages() []Received {
	s.boxMu.Lock()
	defer s.boxMu.Unlock()
	out := make([]Received, 0, len(s.box))
	for i := range s.box {
		out = append(out, *s.box[(s.oldest+i)%len(s.box)].Received)
	}
	return out
}

// ByMessageID are the messages in the mailbox with that Message-ID, oldest
// first: more than one means that somebody sent twice.
func (s *Server) ByMessageID(id string) []Received {
	s.boxMu.Lock()
	defer s.boxMu.Unlock()
	var out []Received
	for _, r := range s.byID[id] {
		out = append(out, *r)
	}
	return out
}
