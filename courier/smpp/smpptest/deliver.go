package smpptest

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/courier"
	"github.com/everpoint/everpoint/courier/smpp"
)

// receiptCodes are the values of message_state. Source: SMPP 3.4 5.2.28.
var receiptCodes = map[string]byte{
	"ENROUTE": 1, "DELIVRD": 2, "EXPIRED": 3, "DELETED": 4, "UNDELIV": 5, "ACCEPTD": 6, "UNKNOWN": 7, "REJECTD": 8,
}

// receipt is the deliver_sm that reports r about the part m with this id.
// Source: SMPP 3.4 appendix B.
func (s *Server) receipt(m *smpp.ShortMessage, id string, r Receipt) *smpp.ShortMessage {
	if s.cfg.ReceiptIDs != s.cfg.IDs {
		base := 16
		if s.cfg.IDs == Decimal {
			base = 10
		}
		if n, err := strconv.ParseUint(id, base, 64); err == nil {
			id = s.cfg.ReceiptIDs.write(n)
		}
	}
	if r.Error == "" {
		r.Error = "000"
	}
	d := &smpp.ShortMessage{Source: m.Destination, Destination: m.Source, ESMClass: 0x04}
	if !s.cfg.NoReceiptText {
		delivered := 0
		if r.State == "DELIVRD" {
			delivered = 1
		}
		at := time.Now().UTC().Format("0601021504")
		d.Text = fmt.Appendf(nil, "id:%s sub:001 dlvrd:%03d submit date:%s done date:%s stat:%s err:%s text:", id, delivered, at, at, r.State, r.Error)
	}
	if !s.cfg.NoReceiptTLVs {
		d.TLVs = append(d.TLVs, smpp.TLV{Tag: smpp.TagReceiptedMessageID, Value: append([]byte(id), 0)})
		if code, ok := receiptCodes[r.State]; ok {
			d.TLVs = append(d.TLVs, smpp.TLV{Tag: smpp.TagMessageState, Value: []byte{code}})
		}
	}
	return d
}

// Text sends a message from a person to whoever is bound, again and again until
// it was answered with status 0. The channel is closed then, or when the server
// gave up.
func (s *Server) Text(t Text) (<-chan struct{}, error) {
	segments, err := courier.Segment(t.Body)
	if err != nil {
		return nil, err
	}
	total := len(segments.Parts)
	var ends []<-chan struct{}
	for i := range total {
		number := i + 1
		if t.Reverse {
			number = total - i
		}
		if t.Only != 0 && t.Only != number {
			continue
		}
		d := &smpp.ShortMessage{Source: address(t.From), Destination: address(t.To), Text: segments.Encode(number - 1)}
		if segments.Alphabet == courier.UCS2 {
			d.DataCoding = 8
		}
		if total > 1 {
			d.ESMClass = 0x40
			d.Text = append([]byte{5, 0, 3, t.Ref, byte(total), byte(number)}, d.Text...)
		}
		for range max(t.Copies, 1) {
			ends = append(ends, s.push("", d, 0))
		}
	}
	all := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		close(all)
		return all, nil
	}
	s.work.Go(func() {
		defer close(all)
		for _, end := range ends {
			<-end
		}
	})
	return all, nil
}

// address writes a number as the double's clients do.
func address(s string) smpp.Address {
	if digits, ok := strings.CutPrefix(s, "+"); ok {
		return smpp.Address{TON: 1, NPI: 1, Text: digits}
	}
	return smpp.Address{TON: 3, NPI: 0, Text: s}
}

// push sends a deliver_sm after a while, on any bind of system that receives,
// until it is answered with status 0. The channel is closed when that is over.
func (s *Server) push(system string, body *smpp.ShortMessage, after time.Duration) <-chan struct{} {
	end := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		close(end)
		return end
	}
	s.work.Go(func() {
		defer close(end)
		if after > 0 && !pause(s.running, after) {
			return
		}
		for range s.cfg.TriesMax {
			if c, err := s.receiver(system); err == nil && c.deliver(s.running, body) {
				return
			}
			if !pause(s.running, s.retryAfter()) {
				return
			}
		}
	})
	return end
}

// pause waits for d; it is false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
