package smpp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/courier"
)

// nobody is a Receiver that takes everything or, while away, nothing.
type nobody struct{ away bool }

func (n *nobody) Receipt(context.Context, courier.Receipt) error { return n.answer() }
func (n *nobody) Inbound(context.Context, courier.Inbound) error { return n.answer() }

func (n *nobody) answer() error {
	if n.away {
		return errors.New("away")
	}
	return nil
}

// provider is the other end of a client's only bind, driven by hand.
type provider struct {
	t      *testing.T
	conn   net.Conn
	reader *Reader
}

func (p *provider) write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *provider) read() PDU {
	p.t.Helper()
	pdu, err := p.reader.Next()
	if err != nil {
		p.t.Fatal(err)
	}
	return pdu
}

func (p *provider) want(command Command, status Status, sequence uint32) {
	p.t.Helper()
	if got := p.read(); got.Command != command || got.Status != status || got.Sequence != sequence {
		p.t.Fatalf("got %+v, want %s %s %d", got, command, status, sequence)
	}
}

// byHand runs a client bound to a provider that the test plays, in a bubble.
func byHand(t *testing.T, change func(*Config), test func(t *testing.T, c *Client, p *provider)) {
	t.Helper()
	byHandTo(t, &nobody{}, change, test)
}

// byHandTo does the same with a Receiver.
func byHandTo(t *testing.T, receiver courier.Receiver, change func(*Config), test func(t *testing.T, c *Client, p *provider)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Addresses: []string{"smsc:2775"}, SystemID: "ever", Binds: 1, ReconnectMin: 48 * time.Hour, ReconnectMax: 48 * time.Hour}
		if change != nil {
			change(&cfg)
		}
		ours, theirs := net.Pipe()
		dial := func(context.Context, string, string) (net.Conn, error) { return ours, nil }
		c, err := New(cfg, receiver, dial, rand.New(rand.NewPCG(1, 2)), slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := c.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		p := &provider{t, theirs, NewReader(theirs)}
		bind := p.read()
		if want := (&Bind{SystemID: "ever", InterfaceVersion: 0x34}); bind.Command != BindTransceiver || !reflect.DeepEqual(bind.Body, want) {
			t.Fatalf("bound with %+v", bind)
		}
		p.write(golden(t, "bind_transceiver_resp"))
		synctest.Wait()
		test(t, c, p)
		theirs.Close()
		cancel()
		running.Wait()
	})
}

func TestSessionAnswers(t *testing.T) {
	byHand(t, nil, func(t *testing.T, _ *Client, p *provider) {
		p.write(golden(t, "enquire_link"))
		p.want(EnquireLinkResp, StatusOK, 9)
		p.write([]byte{0, 0, 0, 16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 5}) // query_sm
		p.want(GenericNack, StatusInvalidCommandID, 5)
		p.write(golden(t, "submit_sm_gsm7")) // a client takes none
		p.want(GenericNack, StatusInvalidCommandID, 2)
		cut := golden(t, "deliver_sm_text")[:50]
		cut[3] = 50
		p.write(cut)
		p.want(GenericNack, StatusInvalidCommandLength, 8)
		p.write(golden(t, "deliver_sm_text"))
		p.want(DeliverSMResp, StatusOK, 8)
		p.write(golden(t, "deliver_sm_receipt"))
		p.want(DeliverSMResp, StatusOK, 7)
		nameless, err := Append(nil, PDU{Command: DeliverSM, Sequence: 12, Body: &ShortMessage{ESMClass: 4, Text: []byte("stat:DELIVRD")}})
		if err != nil {
			t.Fatal(err)
		}
		p.write(nameless)
		p.want(DeliverSMResp, StatusPermanentAppError, 12)
		p.write(golden(t, "unbind"))
		p.want(UnbindResp, StatusOK, 10)
	})
	t.Run("and_ends_at_a_frame_without_an_end", func(t *testing.T) {
		byHand(t, nil, func(t *testing.T, _ *Client, p *provider) {
			p.write([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0x15, 0, 0, 0, 0, 0, 0, 0, 5})
			for {
				if pdu, err := p.reader.Next(); err != nil {
					break
				} else if pdu.Command != GenericNack {
					t.Fatalf("got %+v", pdu)
				}
			}
		})
	})
	t.Run("and_ends_when_its_answers_are_not_read", func(t *testing.T) {
		byHand(t, nil, func(t *testing.T, _ *Client, p *provider) {
			for n := range 10 * answersMax {
				if _, err := p.conn.Write(golden(t, "enquire_link")); err != nil {
					if n < answersMax {
						t.Errorf("only %d were taken", n)
					}
					return
				}
			}
			t.Error("it queues without bound")
		})
	})
}

func TestStrangeAnswers(t *testing.T) {
	message := &courier.Message{From: "24273", To: "+13035550144", Text: &courier.Text{Body: "x"}}
	for _, c := range []struct {
		name   string
		answer func(sequence byte) []byte
		want   courier.Outcome
	}{
		{"accepted_without_an_id", func(n byte) []byte {
			return []byte{0, 0, 0, 16, 0x80, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, n}
		}, courier.Outcome{Status: courier.Accepted, Code: "0x00000000", Detail: "ESME_ROK", Parts: 1}},
		{"refused_with_a_body", func(n byte) []byte {
			return []byte{0, 0, 0, 17, 0x80, 0, 0, 4, 0, 0, 0, 11, 0, 0, 0, n, 0}
		}, courier.Outcome{Status: courier.Refused, Code: "0x0000000b", Detail: "ESME_RINVDSTADR"}},
		{"an_id_without_an_end", func(n byte) []byte {
			return []byte{0, 0, 0, 17, 0x80, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, n, 'a'}
		}, courier.Outcome{Code: "conn", Parts: 1, Detail: fmt.Sprintf("submit_sm_resp (sequence %d): message_id has no NUL", 2)}},
		{"another_command", func(n byte) []byte {
			return []byte{0, 0, 0, 16, 0x80, 0, 0, 0x15, 0, 0, 0, 0, 0, 0, 0, n}
		}, courier.Outcome{Code: "0x00000000", Parts: 1, Detail: "answered with enquire_link_resp"}},
		{"a_nack_that_says_all_is_well", func(n byte) []byte {
			return []byte{0, 0, 0, 16, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, n}
		}, courier.Outcome{Code: "0x00000000", Parts: 1, Detail: "answered with generic_nack"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			byHand(t, nil, func(t *testing.T, client *Client, p *provider) {
				sent := make(chan courier.Outcome, 1)
				go func() { sent <- client.Send(context.Background(), message) }()
				submit := p.read()
				p.write([]byte{0, 0, 0, 16, 0x80, 0, 0, 4, 0, 0, 0, 0, 0, 0, 9, 9}) // nobody asked
				p.write(c.answer(byte(submit.Sequence)))
				if got := <-sent; !reflect.DeepEqual(got, c.want) {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
			})
		})
	}
	t.Run("a_place_is_kept_for_a_part_without_id", func(t *testing.T) {
		byHand(t, nil, func(t *testing.T, client *Client, p *provider) {
			sent := make(chan courier.Outcome, 1)
			long := *message
			long.Text = &courier.Text{Body: strings.Repeat("x", 200)}
			go func() { sent <- client.Send(context.Background(), &long) }()
			for _, id := range []string{"", "b2"} {
				b, err := Append(nil, PDU{Command: SubmitSMResp, Sequence: p.read().Sequence, Body: &MessageResp{MessageID: id}})
				if err != nil {
					t.Fatal(err)
				}
				p.write(b)
			}
			if got := <-sent; !reflect.DeepEqual(got.ProviderIDs, []string{"", "b2"}) {
				t.Errorf("got %+v", got)
			}
		})
	})
}

// kept is what an inbox holds of incomplete texts.
func (b *inbox) kept() (octets, texts int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.octets, len(b.texts)
}

func TestInboxIsBounded(t *testing.T) {
	t.Run("parts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newInbox("r", &nobody{}, time.Now, time.Millisecond, time.Minute, time.Second)
			part := Part{Ref: 1, Total: 2, Number: 1, Text: strings.Repeat("x", 60_000)}
			full := 0
			for i := range 200 {
				err := b.takePart(t.Context(), inboundKey{fmt.Sprint(i), "to", 1, 2}, part)
				if err == nil {
					t.Fatal("half a text was taken")
				}
				if errors.Is(err, errInboxFull) {
					full++
				}
			}
			if octets, _ := b.kept(); full != 200-inboxOctetsMax/60_000 || octets > inboxOctetsMax {
				t.Errorf("%d were turned away, %d octets are kept", full, octets)
			}
			<-time.After(3 * time.Minute)
			synctest.Wait()
			if octets, texts := b.kept(); octets != 0 || texts != 0 {
				t.Errorf("%d octets in %d texts are still kept", octets, texts)
			}
			for i := range inboxTextsMax + 5 {
				part.Text = "x"
				err := b.takePart(t.Context(), inboundKey{fmt.Sprint(i), "to", 1, 2}, part)
				if errors.Is(err, errInboxFull) != (i >= inboxTextsMax) {
					t.Fatalf("text %d: %v", i, err)
				}
			}
			b.close()
			if octets, texts := b.kept(); octets != 0 || texts != 0 {
				t.Errorf("%d octets in %d texts outlive it", octets, texts)
			}
		})
	})
	t.Run("remembered_texts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newInbox("r", &nobody{}, time.Now, time.Millisecond, time.Minute, time.Second)
			alive := func() bool { return false }
			for i := range inboxRecentMax + 100 {
				m := &ShortMessage{Source: Address{1, 1, fmt.Sprint(i)}, Text: []byte("YES")}
				if _, err := b.take(t.Context(), m, alive); err != nil {
					t.Fatal(err)
				}
			}
			if len(b.recent) != inboxRecentMax || len(b.order) != inboxRecentMax {
				t.Errorf("%d are remembered in %d places", len(b.recent), len(b.order))
			}
			<-time.After(2 * inboxWindow)
			if _, err := b.take(t.Context(), &ShortMessage{Text: []byte("late")}, alive); err != nil {
				t.Fatal(err)
			}
			if len(b.recent) != 1 || len(b.order) != 1 {
				t.Errorf("%d are remembered in %d places much later", len(b.recent), len(b.order))
			}
		})
	})
	t.Run("a_text_nobody_takes_stays_the_providers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := newInbox("r", &nobody{away: true}, time.Now, time.Millisecond, time.Minute, time.Second)
			part := Part{Ref: 1, Total: 2, Number: 1, Text: "x"}
			if b.takePart(t.Context(), inboundKey{"from", "to", 1, 2}, part) == nil {
				t.Error("taken")
			}
			<-time.After(2 * time.Minute)
			synctest.Wait()
			if b.takePart(t.Context(), inboundKey{"from", "to", 1, 2}, part) == nil {
				t.Error("taken later")
			}
			b.close()
		})
	})
}
