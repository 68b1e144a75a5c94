package smpp

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/courier"
)

// slow is a Receiver that needs a while for each fact, or hangs until it is
// given up on.
type slow struct {
	each  time.Duration // 0 hangs
	taken atomic.Int64
	now   atomic.Int64 // how many are being taken
	most  atomic.Int64
}

func (r *slow) Receipt(ctx context.Context, _ courier.Receipt) error { return r.take(ctx) }
func (r *slow) Inbound(ctx context.Context, _ courier.Inbound) error { return r.take(ctx) }

func (r *slow) take(ctx context.Context) error {
	r.most.Store(max(r.most.Load(), r.now.Add(1)))
	defer r.now.Add(-1)
	if r.each == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	<-time.After(r.each)
	r.taken.Add(1)
	return nil
}

// receipts writes n receipts without heeding the answers, as a provider without
// a window does. written counts those that were.
func (p *provider) receipts(n int, written *atomic.Int64) error {
	for i := range n {
		b, err := Append(nil, PDU{Command: DeliverSM, Sequence: uint32(1000 + i), Body: &ShortMessage{
			ESMClass: 4, Text: fmt.Appendf(nil, "id:%08x stat:DELIVRD err:000", i),
		}})
		if err != nil {
			return err
		}
		if _, err := p.conn.Write(b); err != nil {
			return err
		}
		written.Add(1)
	}
	return nil
}

// answers reads n answers to deliver_sm and counts them by status. It answers
// enquire_links and gives any other PDU to rest. It ends early with the connection.
func (p *provider) answers(n int, rest chan<- PDU) map[Status]int {
	got := map[Status]int{}
	for seen := 0; seen < n; {
		pdu, err := p.reader.Next()
		if err != nil {
			p.t.Errorf("the bind was lost after %d answers: %v", seen, err)
			close(rest)
			return got
		}
		switch pdu.Command {
		case DeliverSMResp:
		case EnquireLink:
			// While this waits to be read, nothing of the client's is.
			b, err := Append(nil, PDU{Command: EnquireLinkResp, Sequence: pdu.Sequence})
			if err != nil {
				p.t.Error(err)
			}
			if _, err := p.conn.Write(b); err != nil {
				p.t.Error(err)
			}
			continue
		default:
			rest <- pdu
			continue
		}
		got[pdu.Status]++
		seen++
	}
	return got
}

func TestFloodOfReceipts(t *testing.T) {
	message := &courier.Message{From: "24273", To: "+13035550144", Text: &courier.Text{Body: "x"}}
	accept := func(t *testing.T, p *provider, submit PDU) {
		b, err := Append(nil, PDU{Command: SubmitSMResp, Sequence: submit.Sequence, Body: &MessageResp{MessageID: "a1"}})
		if err != nil {
			t.Error(err)
		}
		p.write(b)
	}

	t.Run("is_taken_to_the_last_without_a_refusal_or_a_lost_bind", func(t *testing.T) {
		r := &slow{each: 10 * time.Millisecond}
		byHandTo(t, r, nil, func(t *testing.T, c *Client, p *provider) {
			const flood = 10_000
			rest := make(chan PDU, 1)
			sent := make(chan courier.Outcome, 1)
			var work sync.WaitGroup
			var got map[Status]int
			var written atomic.Int64
			work.Go(func() { got = p.answers(flood, rest) })
			work.Go(func() { sent <- c.Send(context.Background(), message) })
			submit, open := <-rest
			if !open {
				t.Fatal("no submit_sm")
			}
			work.Go(func() {
				if err := p.receipts(flood, &written); err != nil {
					t.Errorf("after %d receipts: %v", written.Load(), err)
					return
				}
				accept(t, p, submit)
			})
			work.Wait()
			if got[StatusOK] != flood || r.taken.Load() != flood || r.most.Load() != 64 {
				t.Errorf("answers %v, %d taken, %d at once", got, r.taken.Load(), r.most.Load())
			}
			if o := <-sent; o.Status != courier.Accepted {
				t.Errorf("the send behind the flood: %+v", o)
			}
		})
	})
	// The Receiver hangs. What cannot be held stays with the provider, and what
	// was held too long goes back to it, so that the answers behind are read.
	t.Run("that_nobody_takes_stops_the_reading_but_not_the_bind", func(t *testing.T) {
		byHandTo(t, &slow{}, nil, func(t *testing.T, c *Client, p *provider) {
			const flood = 4 * heldMax // the last is read after 30 s
			rest := make(chan PDU, 1)
			sent := make(chan courier.Outcome, 1)
			var work sync.WaitGroup
			var got map[Status]int
			var written atomic.Int64
			work.Go(func() { got = p.answers(flood, rest) })
			work.Go(func() { sent <- c.Send(context.Background(), message) })
			submit, open := <-rest
			if !open {
				t.Fatal("no submit_sm")
			}
			work.Go(func() {
				if err := p.receipts(flood, &written); err != nil {
					t.Errorf("after %d receipts: %v", written.Load(), err)
					return
				}
				accept(t, p, submit)
			})
			synctest.Wait()
			// 64 are taken, one waits for its turn, one for room.
			if n := written.Load(); n < heldMax || n > heldMax+64+2 {
				t.Errorf("%d were read at once", n)
			}
			work.Wait()
			if got[StatusTemporaryAppError] != flood {
				t.Errorf("answers %v", got)
			}
			if o := <-sent; o.Status != courier.Accepted {
				t.Errorf("the send behind the flood: %+v", o)
			}
		})
	})
	t.Run("in_large_PDUs_is_bounded_in_octets", func(t *testing.T) {
		byHandTo(t, &slow{}, nil, func(t *testing.T, _ *Client, p *provider) {
			large := strings.Repeat("x", 60_000)
			var written atomic.Int64
			var work sync.WaitGroup
			work.Go(func() {
				for i := range uint32(heldMax) {
					b, err := Append(nil, PDU{Command: DeliverSM, Sequence: i, Body: &ShortMessage{
						TLVs: TLVs{{Tag: TagMessagePayload, Value: []byte(large)}},
					}})
					if err != nil {
						t.Error(err)
					}
					if _, err := p.conn.Write(b); err != nil {
						return // the test is over
					}
					written.Add(1)
				}
			})
			synctest.Wait()
			if n := int(written.Load()); n < heldOctetsMax/60_000 || n > heldOctetsMax/60_000+64+3 {
				t.Errorf("%d PDUs of 60,000 octets were read", n)
			}
			p.conn.Close()
			work.Wait()
		})
	})
	// The provider reads no answer before it has written everything.
	t.Run("that_nobody_takes_is_refused_to_a_provider_that_does_not_read", func(t *testing.T) {
		byHandTo(t, &slow{}, nil, func(t *testing.T, _ *Client, p *provider) {
			const flood = 2 * heldMax
			var written atomic.Int64
			if err := p.receipts(flood, &written); err != nil {
				t.Fatalf("after %d receipts: %v", written.Load(), err)
			}
			if got := p.answers(flood, make(chan PDU, 1)); got[StatusTemporaryAppError] != flood {
				t.Errorf("answers %v", got)
			}
		})
	})
	t.Run("that_never_ends_does_not_keep_a_send_for_ever", func(t *testing.T) {
		byHandTo(t, &slow{}, nil, func(t *testing.T, c *Client, p *provider) {
			began := time.Now()
			sent := make(chan courier.Outcome, 1)
			rest := make(chan PDU, 1)
			var work sync.WaitGroup
			var written atomic.Int64
			work.Go(func() {
				for {
					pdu, err := p.reader.Next()
					if err != nil {
						close(rest)
						return
					}
					if pdu.Command == SubmitSM {
						rest <- pdu
					}
				}
			})
			work.Go(func() { sent <- c.Send(context.Background(), message) })
			<-rest
			work.Go(func() {
				for p.receipts(1000, &written) == nil {
				}
			})
			o := <-sent
			if took := time.Since(began); o.Status != courier.Unknown || o.Code != "timeout" || took < 20*time.Second || took > 40*time.Second {
				t.Errorf("after %v: %+v", took, o)
			}
			<-time.After(5 * time.Minute) // no enquire_link is answered either
			if _, err := c.pool.acquire(t.Context(), time.Second); err != nil {
				t.Errorf("the bind was given up: %v", err)
			}
			p.conn.Close()
			work.Wait()
		})
	})
}
