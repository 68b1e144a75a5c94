package processes

import (
	"sync"
	"testing"

	"github.com/everpoint/everpoint/courier/smtp/smtptest"
)

// The relay breaks the connection off once between a mail's final dot and its
// 250: nobody can know whether it took the mail. Exactly that mail is listed,
// under its Message-ID, and the totals add up.
func TestDroppedAfterDot(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		at     smtptest.Stage // before or after the relay stored the mail
		policy string
		copies int // of the mail in the outbox
	}{
		{"stored_and_left", smtptest.AfterStore, "LEAVE", 1},
		{"stored_and_sent_again", smtptest.AfterStore, "RESEND", 2},
		{"not_stored_and_left", smtptest.AtDot, "LEAVE", 0},
		{"not_stored_and_sent_again", smtptest.AtDot, "RESEND", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // it waits for a retry
			const recipients = 200
			w := newWorld(t, setting{inside: true})
			a := newApp(t, w)
			reach := a.audience(recipients)
			var mu sync.Mutex
			dropped := ""
			w.local.Relay.SetRules(smtptest.Rule{At: tt.at, Drop: true, Times: 1, Match: func(m smtptest.Attempt) bool {
				mu.Lock()
				defer mu.Unlock()
				dropped = m.To
				return true
			}})
			campaign := a.campaign(tt.policy)
			a.finish(campaign)
			a.judge(campaign, recipients, reach)

			mu.Lock()
			defer mu.Unlock()
			list := a.ambiguousSends(campaign)
			if len(list) != 1 || list[0].Address != dropped || list[0].Channel != "EMAIL" {
				t.Fatalf("listed are %+v, want the one mail to %q", list, dropped)
			}
			decision := map[string]string{"LEAVE": "LEFT", "RESEND": "RESENT"}[tt.policy]
			if list[0].Decision != decision {
				t.Errorf("the decision is %s, want %s", list[0].Decision, decision)
			}
			copies := 0
			for _, m := range a.messages() {
				if m.To != dropped {
					continue
				}
				copies++
				if m.MessageID != list[0].MessageId {
					t.Errorf("the outbox has it as %s, listed is %s", m.MessageID, list[0].MessageId)
				}
			}
			if copies != tt.copies {
				t.Errorf("the outbox has %d copies, want %d", copies, tt.copies)
			}
		})
	}
}
