package smpp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/courier"
)

// golden reads a PDU of testdata; see testdata/README.md.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		digits.WriteString(strings.Join(strings.Fields(line), ""))
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// route is a Config with its defaults filled in.
func route(t testing.TB, change func(*Config)) *Config {
	t.Helper()
	cfg := &Config{Addresses: []string{"localhost:2775"}, SystemID: "ever"}
	if change != nil {
		change(cfg)
	}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// submit is the nth submit_sm of a text, with the reference the golden files use.
func submit(t *testing.T, cfg *Config, n int, from, to string, text courier.Text) Body {
	t.Helper()
	bodies, _, err := cfg.submits(&courier.Message{From: from, To: to, Text: &text}, 0xa7)
	if err != nil {
		t.Fatal(err)
	}
	return bodies[n]
}

func TestGolden(t *testing.T) {
	const us, they = "24273", "+13035550144"
	source, destination := Address{1, 1, "13035550144"}, Address{3, 0, "24273"}
	for _, c := range []struct {
		name string
		pdu  PDU
	}{
		{"bind_transceiver", PDU{BindTransceiver, 0, 1, route(t, func(c *Config) {
			c.Password, c.AddressRange = "secret", "303*"
		}).bind()}},
		{"bind_receiver", PDU{BindReceiver, 0, 0x7fffffff, &Bind{"a", "b", "VMS", 0x34, 1, 1, ""}}},
		{"bind_transmitter_resp", PDU{BindTransmitterResp, StatusInvalidPassword, 1, nil}},
		{"bind_transceiver_resp", PDU{BindTransceiverResp, 0, 1, &BindResp{"smsc", TLVs{{TagSCInterfaceVersion, []byte{0x34}}}}}},
		{"submit_sm_gsm7", PDU{SubmitSM, 0, 2, submit(t, route(t, nil), 0, "EVERPOINT", "+447700900123",
			courier.Text{Body: "Hi {1} €@", WantsReceipt: true, ReferenceText: "m-1"})}},
		{"submit_sm_udh8", PDU{SubmitSM, 0, 3, submit(t, route(t, nil), 1, "+13035550199", they,
			courier.Text{Body: strings.Repeat("я", 67) + "ab😀", Validity: time.Hour + time.Minute + time.Second})}},
		{"submit_sm_sar", PDU{SubmitSM, 0, 4, submit(t, route(t, func(c *Config) { c.Concatenation = SAR }), 1, us, they,
			courier.Text{Body: strings.Repeat("a", 153) + "bbbbbbbb"})}},
		{"submit_sm_payload", PDU{SubmitSM, 0, 5, submit(t, route(t, func(c *Config) {
			c.Concatenation, c.TrafficTag, c.PromotionalValue = Payload, 0x1402, "P"
		}), 0, us, they, courier.Text{Body: strings.Repeat("a", 161), Promotional: true, EntityID: "12", TemplateID: "34"})}},
		{"submit_sm_resp", PDU{SubmitSMResp, 0, 2, &MessageResp{MessageID: "0a1b2c3d"}}},
		{"submit_sm_resp_refused", PDU{SubmitSMResp, StatusInvalidDestination, 2, nil}},
		{"deliver_sm_receipt", PDU{DeliverSM, 0, 7, &ShortMessage{
			Source: source, Destination: destination, ESMClass: 4, Text: []byte("id:0a1b2c3d stat:DELIVRD err:000"),
			TLVs: TLVs{{TagReceiptedMessageID, []byte("0a1b2c3d\x00")}, {TagMessageState, []byte{2}}},
		}}},
		{"deliver_sm_text", PDU{DeliverSM, 0, 8, &ShortMessage{Source: source, Destination: destination, Text: []byte("STOP")}}},
		{"deliver_sm_resp", PDU{DeliverSMResp, 0, 8, &MessageResp{}}},
		{"enquire_link", PDU{EnquireLink, 0, 9, nil}},
		{"enquire_link_resp", PDU{EnquireLinkResp, 0, 9, nil}},
		{"unbind", PDU{Unbind, 0, 10, nil}},
		{"unbind_resp", PDU{UnbindResp, 0, 10, nil}},
		{"generic_nack", PDU{GenericNack, StatusInvalidCommandID, 11, nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := golden(t, c.name)
			got, err := Append([]byte("before"), c.pdu)
			if err != nil {
				t.Fatal(err)
			}
			if got = got[len("before"):]; !bytes.Equal(got, want) {
				t.Errorf("wrote\n% x\nwant\n% x", got, want)
			}
			read, err := Decode(want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(read, c.pdu) {
				t.Errorf("read %+v %+v, want %+v %+v", read, read.Body, c.pdu, c.pdu.Body)
			}
		})
	}
}

func TestAppendRefuses(t *testing.T) {
	sm := func(change func(*ShortMessage)) *ShortMessage {
		m := &ShortMessage{}
		change(m)
		return m
	}
	for _, c := range []struct {
		name   string
		body   Body
		status Status
	}{
		{"system_id_of_16", &Bind{SystemID: strings.Repeat("a", 16)}, StatusInvalidSystemID},
		{"password_of_9", &Bind{Password: "123456789"}, StatusInvalidPassword},
		{"system_type_of_13", &Bind{SystemType: strings.Repeat("a", 13)}, StatusInvalidSystemType},
		{"service_type_of_6", sm(func(m *ShortMessage) { m.ServiceType = "123456" }), StatusInvalidServiceType},
		{"source_of_21", sm(func(m *ShortMessage) { m.Source.Text = strings.Repeat("1", 21) }), StatusInvalidSource},
		{"destination_of_21", sm(func(m *ShortMessage) { m.Destination.Text = strings.Repeat("1", 21) }), StatusInvalidDestination},
		{"NUL_in_destination", sm(func(m *ShortMessage) { m.Destination.Text = "1\x002" }), StatusInvalidDestination},
		{"validity_of_15", sm(func(m *ShortMessage) { m.ValidityPeriod = "00000300000000R" }), StatusInvalidExpiry},
		{"schedule_of_17", sm(func(m *ShortMessage) { m.ScheduleDeliveryTime = strings.Repeat("0", 17) }), StatusInvalidSchedule},
		{"short_message_of_255", sm(func(m *ShortMessage) { m.Text = make([]byte, 255) }), StatusInvalidMessageLength},
		{"TLV_of_64_KiB", sm(func(m *ShortMessage) { m.TLVs = TLVs{{TagMessagePayload, make([]byte, 65536)}} }), StatusInvalidTLVLength},
		{"257_TLVs", sm(func(m *ShortMessage) { m.TLVs = make(TLVs, 257) }), StatusInvalidTLVStream},
		{"PDU_past_64_KiB", sm(func(m *ShortMessage) { m.TLVs = TLVs{{TagMessagePayload, make([]byte, 65535)}} }), StatusInvalidMessageLength},
		{"message_id_of_65", &MessageResp{MessageID: strings.Repeat("a", 65)}, StatusInvalidMessageID},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Append([]byte{1}, PDU{Command: SubmitSM, Sequence: 5, Body: c.body})
			bad, ok := errors.AsType[*SyntaxError](err)
			if !ok || bad.Status != c.status || bad.Sequence != 5 || bad.Fatal {
				t.Errorf("got %#v, want status %s", err, c.status)
			}
			if len(got) != 1 {
				t.Errorf("left %d octets behind", len(got)-1)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	resize := func(b []byte) []byte {
		binary.BigEndian.PutUint32(b, uint32(len(b)))
		return b
	}
	text := golden(t, "deliver_sm_text")
	for _, c := range []struct {
		name   string
		b      []byte
		status Status
		fatal  bool
	}{
		{"short_header", text[:15], StatusInvalidCommandLength, true},
		{"length_beyond_the_frame", text[:52], StatusInvalidCommandLength, true},
		{"text_cut", resize(bytes.Clone(text[:50])), StatusInvalidCommandLength, false},
		{"cut_in_an_address", resize(bytes.Clone(text[:25])), StatusInvalidCommandLength, false},
		{"half_a_TLV", resize(append(bytes.Clone(text), 4, 0x24, 0)), StatusInvalidTLVStream, false},
		{"TLV_longer_than_the_rest", resize(append(bytes.Clone(text), 4, 0x24, 0, 9, 1)), StatusInvalidTLVLength, false},
		{"257_TLVs", resize(append(bytes.Clone(text), make([]byte, 4*257)...)), StatusInvalidTLVStream, false},
		{"body_behind_enquire_link", resize(append(golden(t, "enquire_link"), 1)), StatusInvalidCommandLength, false},
		{"query_sm", resize([]byte{0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 8}), StatusInvalidCommandID, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Decode(c.b)
			bad, ok := errors.AsType[*SyntaxError](err)
			if !ok || bad.Status != c.status || bad.Fatal != c.fatal {
				t.Errorf("got %#v, want status %s", err, c.status)
			}
			if !c.fatal && bad.Sequence != binary.BigEndian.Uint32(c.b[12:]) {
				t.Errorf("sequence %d was not kept", bad.Sequence)
			}
		})
	}
}

func TestReader(t *testing.T) {
	t.Run("goes_on_behind_a_bad_body", func(t *testing.T) {
		bad := append(golden(t, "enquire_link"), 1)
		bad[3]++
		r := NewReader(io.MultiReader(bytes.NewReader(bad), bytes.NewReader(golden(t, "unbind"))))
		if _, err := r.Next(); err == nil {
			t.Fatal("the bad PDU was read")
		}
		if p, err := r.Next(); err != nil || p.Command != Unbind {
			t.Errorf("then got %v, %v", p, err)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("at the end got %v", err)
		}
	})
	t.Run("a_length_out_of_bounds_is_fatal_and_takes_no_memory", func(t *testing.T) {
		for _, n := range []uint32{0, 15, PDUOctetsMax + 1, 0xffffffff} {
			b := golden(t, "enquire_link")
			binary.BigEndian.PutUint32(b, n)
			r := NewReader(bytes.NewReader(b))
			_, err := r.Next()
			if bad, ok := errors.AsType[*SyntaxError](err); !ok || !bad.Fatal {
				t.Errorf("length %d: got %v", n, err)
			}
			if cap(r.buf) != 0 {
				t.Errorf("length %d: %d octets were allocated", n, cap(r.buf))
			}
		}
	})
	t.Run("a_cut_PDU_is_an_unexpected_end", func(t *testing.T) {
		b := golden(t, "deliver_sm_text")
		for _, n := range []int{1, 16, 20} {
			if _, err := NewReader(bytes.NewReader(b[:n])).Next(); err != io.ErrUnexpectedEOF {
				t.Errorf("%d octets: got %v", n, err)
			}
		}
	})
}

func TestSecretDoesNotPrint(t *testing.T) {
	b := &Bind{Password: "hunter2"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(format, b); strings.Contains(s, "hunter2") {
			t.Errorf("%s prints %s", format, s)
		}
	}
	if s := fmt.Sprint(b.Password.LogValue()); s != "[secret]" {
		t.Errorf("logs %s", s)
	}
}

func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden PDUs", err)
	}
	for _, file := range files {
		f.Add(golden(f, strings.TrimSuffix(filepath.Base(file), ".hex")))
	}
	f.Add([]byte{0, 0, 0, 20, 0x80, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x15, 0x01, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		streamed, streamErr := NewReader(bytes.NewReader(b)).Next()
		p, err := Decode(b)
		if err != nil {
			if _, ok := errors.AsType[*SyntaxError](err); !ok {
				t.Fatalf("%v is not a SyntaxError", err)
			}
			return
		}
		if streamErr != nil || !reflect.DeepEqual(streamed, p) {
			t.Fatalf("the stream gives %+v, %v, the frame %+v", streamed, streamErr, p)
		}
		if m, ok := p.Body.(*ShortMessage); ok {
			if part, err := m.Part(); err == nil && (part.Number < 1 || part.Number > part.Total) {
				t.Fatalf("part %d of %d", part.Number, part.Total)
			}
			readReceipt(m, time.UTC, time.Unix(1700000000, 0))
		}
		again, err := Append(nil, p)
		if err != nil {
			return // a field is longer than may be written
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("read\n% x\nwrote\n% x", b, again)
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("ever", "24273", "447700900123", []byte("text"), byte(0x40), byte(8), uint16(0x1501), []byte("m-1"), uint32(7))
	f.Fuzz(func(t *testing.T, service, source, destination string, text []byte, class, coding byte, tag uint16, value []byte, sequence uint32) {
		if len(text) == 0 {
			text = nil
		}
		if len(value) == 0 {
			value = nil
		}
		p := PDU{Command: SubmitSM, Sequence: sequence, Body: &ShortMessage{
			ServiceType: service, Source: Address{5, 0, source}, Destination: Address{1, 1, destination},
			ESMClass: class, DataCoding: coding, Text: text, TLVs: TLVs{{Tag(tag), value}},
		}}
		b, err := Append(nil, p)
		if err != nil {
			return
		}
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Fatalf("wrote %+v, read %+v, %v", p.Body, got.Body, err)
		}
	})
}
