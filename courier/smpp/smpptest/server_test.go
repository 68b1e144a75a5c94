package smpptest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everpoint/everpoint/courier/smpp"
	"github.com/everpoint/everpoint/courier/smpp/smpptest"
)

// peer is a raw client: it writes PDUs and reads whatever comes.
type peer struct {
	t      *testing.T
	conn   net.Conn
	reader *smpp.Reader
}

func (p *peer) write(pdu smpp.PDU) {
	p.t.Helper()
	b, err := smpp.Append(nil, pdu)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) want(command smpp.Command, status smpp.Status, sequence uint32) smpp.PDU {
	p.t.Helper()
	got, err := p.reader.Next()
	if err != nil || got.Command != command || got.Status != status || got.Sequence != sequence {
		p.t.Fatalf("got %+v, %v, want %s %s", got, err, command, status)
	}
	return got
}

// serve runs a double and a raw client inside a bubble.
func serve(t *testing.T, cfg smpptest.Config, test func(s *smpptest.Server, dial func() *peer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, pipes := smpptest.New(cfg), smpptest.NewPipes()
		ctx, cancel := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := s.Serve(ctx, pipes); err != nil {
				t.Error(err)
			}
		})
		test(s, func() *peer {
			conn, err := pipes.Dial(ctx, "", "")
			if err != nil {
				t.Fatal(err)
			}
			return &peer{t, conn, smpp.NewReader(conn)}
		})
		cancel()
		serving.Wait()
	})
}

func bind(command smpp.Command, id string, password smpp.Secret) smpp.PDU {
	return smpp.PDU{Command: command, Sequence: 1, Body: &smpp.Bind{SystemID: id, Password: password, InterfaceVersion: 0x34}}
}

func submit(sequence uint32, text string) smpp.PDU {
	return smpp.PDU{Command: smpp.SubmitSM, Sequence: sequence, Body: &smpp.ShortMessage{
		Source: smpp.Address{TON: 3, Text: "24273"}, Destination: smpp.Address{TON: 1, NPI: 1, Text: "13035550144"}, Text: []byte(text),
	}}
}

func TestBind(t *testing.T) {
	cfg := smpptest.Config{SystemID: "ever", Password: "secret"}
	for _, c := range []struct {
		name     string
		id       string
		password smpp.Secret
		status   smpp.Status
	}{
		{"right", "ever", "secret", smpp.StatusOK},
		{"wrong_id", "other", "secret", smpp.StatusInvalidSystemID},
		{"wrong_password", "ever", "secrex", smpp.StatusInvalidPassword},
		{"no_password", "ever", "", smpp.StatusInvalidPassword},
	} {
		t.Run(c.name, func(t *testing.T) {
			serve(t, cfg, func(s *smpptest.Server, dial func() *peer) {
				p := dial()
				p.write(bind(smpp.BindTransceiver, c.id, c.password))
				p.want(smpp.BindTransceiverResp, c.status, 1)
				synctest.Wait()
				if bound := s.Bound() == 1; bound != (c.status == smpp.StatusOK) {
					t.Errorf("bound %v", bound)
				}
			})
		})
	}
	t.Run("twice_is_refused", func(t *testing.T) {
		serve(t, smpptest.Config{}, func(s *smpptest.Server, dial func() *peer) {
			p := dial()
			p.write(bind(smpp.BindTransmitter, "a", ""))
			p.want(smpp.BindTransmitterResp, smpp.StatusOK, 1)
			p.write(bind(smpp.BindTransmitter, "a", ""))
			p.want(smpp.BindTransmitterResp, smpp.StatusAlreadyBound, 1)
		})
	})
	t.Run("submit_needs_a_bind_that_transmits", func(t *testing.T) {
		serve(t, smpptest.Config{}, func(s *smpptest.Server, dial func() *peer) {
			p := dial()
			p.write(submit(5, "x"))
			p.want(smpp.SubmitSMResp, smpp.StatusInvalidBindStatus, 5)
			p.write(bind(smpp.BindReceiver, "a", ""))
			p.want(smpp.BindReceiverResp, smpp.StatusOK, 1)
			p.write(submit(6, "x"))
			p.want(smpp.SubmitSMResp, smpp.StatusInvalidBindStatus, 6)
		})
	})
}

func TestDialog(t *testing.T) {
	serve(t, smpptest.Config{}, func(s *smpptest.Server, dial func() *peer) {
		p := dial()
		p.write(bind(smpp.BindTransceiver, "a", ""))
		p.want(smpp.BindTransceiverResp, smpp.StatusOK, 1)
		p.write(smpp.PDU{Command: smpp.EnquireLink, Sequence: 2})
		p.want(smpp.EnquireLinkResp, smpp.StatusOK, 2)
		// query_sm is not spoken here.
		if _, err := p.conn.Write([]byte{0, 0, 0, 16, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 3}); err != nil {
			t.Fatal(err)
		}
		p.want(smpp.GenericNack, smpp.StatusInvalidCommandID, 3)
		p.write(smpp.PDU{Command: smpp.Unbind, Sequence: 4})
		p.want(smpp.UnbindResp, smpp.StatusOK, 4)
		if _, err := p.reader.Next(); err == nil {
			t.Error("the connection is open after unbind")
		}
	})
	t.Run("a_broken_frame_ends_the_connection", func(t *testing.T) {
		serve(t, smpptest.Config{}, func(s *smpptest.Server, dial func() *peer) {
			p := dial()
			if _, err := p.conn.Write([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0x15, 0, 0, 0, 0, 0, 0, 0, 7}); err != nil {
				t.Fatal(err)
			}
			p.want(smpp.GenericNack, smpp.StatusInvalidCommandLength, 7)
			if _, err := p.reader.Next(); err == nil {
				t.Error("the connection is open")
			}
		})
	})
}

func TestSink(t *testing.T) {
	t.Run("it_has_the_message_before_the_answer_and_its_failure_is_answered", func(t *testing.T) {
		var got []smpptest.Message
		fail := true
		serve(t, smpptest.Config{Sink: func(m smpptest.Message) error {
			if fail {
				fail = false
				return errors.New("full")
			}
			got = append(got, m)
			return nil
		}}, func(s *smpptest.Server, dial func() *peer) {
			p := dial()
			p.write(bind(smpp.BindTransceiver, "a", ""))
			p.want(smpp.BindTransceiverResp, smpp.StatusOK, 1)
			part := func(sequence uint32, number byte) smpp.PDU {
				pdu := submit(sequence, string([]byte{5, 0, 3, 9, 2, number, 'a' + number}))
				pdu.Body.(*smpp.ShortMessage).ESMClass = 0x40
				return pdu
			}
			p.write(part(2, 2)) // out of order
			p.want(smpp.SubmitSMResp, smpp.StatusOK, 2)
			p.write(part(3, 1))
			p.want(smpp.SubmitSMResp, smpp.StatusSystemError, 3)
			p.write(part(4, 1)) // again
			answer := p.want(smpp.SubmitSMResp, smpp.StatusOK, 4)
			if len(got) != 1 || got[0].Body != "bc" || got[0].Parts != 2 || got[0].SystemID != "a" {
				t.Fatalf("the sink has %+v", got)
			}
			last := answer.Body.(*smpp.MessageResp).MessageID
			if want := []string{last, "00000001"}; !reflect.DeepEqual(got[0].IDs, want) || got[0].ID != last {
				t.Errorf("ids %q, want %q", got[0].IDs, want)
			}
		})
	})
	t.Run("incomplete_messages_are_bounded", func(t *testing.T) {
		count := 0
		serve(t, smpptest.Config{PartsKeptMax: 2, Sink: func(smpptest.Message) error { count++; return nil }}, func(s *smpptest.Server, dial func() *peer) {
			p := dial()
			p.write(bind(smpp.BindTransceiver, "a", ""))
			p.want(smpp.BindTransceiverResp, smpp.StatusOK, 1)
			sequence := uint32(1)
			part := func(ref, number byte) {
				sequence++
				pdu := submit(sequence, string([]byte{5, 0, 3, ref, 2, number, 'x'}))
				pdu.Body.(*smpp.ShortMessage).ESMClass = 0x40
				p.write(pdu)
				p.want(smpp.SubmitSMResp, smpp.StatusOK, sequence)
			}
			part(1, 1)
			part(2, 1)
			part(3, 1) // the first is forgotten
			part(2, 2)
			part(3, 2)
			part(1, 2)
			if count != 2 {
				t.Errorf("%d are whole", count)
			}
		})
	})
}

// TestReceiptsOutliveTheConnection: a receipt that was not answered comes again
// on the next bind.
func TestReceiptsOutliveTheConnection(t *testing.T) {
	serve(t, smpptest.Config{Receipts: []smpptest.Receipt{{State: "DELIVRD"}}}, func(s *smpptest.Server, dial func() *peer) {
		p := dial()
		p.write(bind(smpp.BindTransceiver, "a", ""))
		p.want(smpp.BindTransceiverResp, smpp.StatusOK, 1)
		pdu := submit(2, "x")
		pdu.Body.(*smpp.ShortMessage).RegisteredDelivery = 1
		p.write(pdu)
		p.want(smpp.SubmitSMResp, smpp.StatusOK, 2)
		p.want(smpp.DeliverSM, smpp.StatusOK, 1)
		p.conn.Close()
		<-time.After(time.Minute)
		p = dial()
		p.write(bind(smpp.BindTransceiver, "a", ""))
		p.want(smpp.BindTransceiverResp, smpp.StatusOK, 1)
		p.want(smpp.DeliverSM, smpp.StatusOK, 1)
		p.write(smpp.PDU{Command: smpp.DeliverSMResp, Sequence: 1, Body: &smpp.MessageResp{}})
		heard := make(chan error, 1)
		go func() {
			_, err := p.reader.Next()
			heard <- err
		}()
		select {
		case err := <-heard:
			t.Errorf("something came after the answer: %v", err)
		case <-time.After(time.Hour):
		}
		p.conn.Close()
		<-heard
	})
}

// TestWindow: no more deliver_sm wait for their answers on one bind than the window
// holds, and those that were refused do not come again in step.
func TestWindow(t *testing.T) {
	for _, c := range []struct {
		window, want int
	}{{0, 10}, {3, 3}} {
		t.Run(fmt.Sprintf("of_%d_holds_%d", c.window, c.want), func(t *testing.T) {
			serve(t, smpptest.Config{Window: c.window}, func(s *smpptest.Server, dial func() *peer) {
				p := dial()
				p.write(bind(smpp.BindTransceiver, "a", ""))
				p.want(smpp.BindTransceiverResp, smpp.StatusOK, 1)
				synctest.Wait()
				heard := make(chan smpp.PDU, 1000)
				var reading sync.WaitGroup
				reading.Go(func() {
					for {
						pdu, err := p.reader.Next()
						if err != nil {
							return
						}
						heard <- pdu
					}
				})
				const texts = 40
				var ends []<-chan struct{}
				for range texts {
					end, err := s.Text(smpptest.Text{From: "+13035550144", To: "24273", Body: "x"})
					if err != nil {
						t.Fatal(err)
					}
					ends = append(ends, end)
				}
				answer := func(status smpp.Status) {
					p.write(smpp.PDU{Command: smpp.DeliverSMResp, Status: status, Sequence: (<-heard).Sequence, Body: &smpp.MessageResp{}})
				}
				synctest.Wait()
				if n := len(heard); n != c.want {
					t.Fatalf("%d came without an answer", n)
				}
				answer(smpp.StatusOK)
				synctest.Wait()
				if n := len(heard); n != c.want {
					t.Errorf("%d are unanswered after one answer", n)
				}
				// All that are left are refused at once, and come again one by one.
				for range texts - 1 {
					answer(smpp.StatusTemporaryAppError)
				}
				began := time.Now()
				moments := map[time.Duration]bool{}
				for range texts - 1 {
					answer(smpp.StatusOK)
					moments[time.Since(began)] = true
				}
				if took := time.Since(began); len(moments) < texts-5 || took < time.Second || took > 1500*time.Millisecond {
					t.Errorf("they came again at %d moments in %v", len(moments), took)
				}
				for _, end := range ends {
					<-end
				}
				p.conn.Close()
				reading.Wait()
			})
		})
	}
	t.Run("is_free_again_when_an_answer_does_not_come", func(t *testing.T) {
		serve(t, smpptest.Config{Window: 1}, func(s *smpptest.Server, dial func() *peer) {
			p := dial()
			p.write(bind(smpp.BindTransceiver, "a", ""))
			p.want(smpp.BindTransceiverResp, smpp.StatusOK, 1)
			synctest.Wait()
			if _, err := s.Text(smpptest.Text{From: "+13035550144", To: "24273", Body: "x"}); err != nil {
				t.Fatal(err)
			}
			for n := range uint32(3) {
				p.want(smpp.DeliverSM, smpp.StatusOK, n+1)
			}
		})
	})
}
