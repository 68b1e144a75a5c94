package smpp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/everpoint/everpoint/courier"
)

// Concatenation is how the parts of a long text are tied together.
type Concatenation uint8

// The ways to tie parts together. Source: channels 2.5, Concatenation.
const (
	// UDH8 puts a user data header with an 8-bit reference before each part.
	UDH8 Concatenation = iota
	// UDH16 is UDH8 with a 16-bit reference: one character less in each part.
	UDH16
	// SAR leaves the header to the provider and names the part in sar_ TLVs.
	// References stay below 256, so that the provider can use an 8-bit header
	// and the part count is that of UDH8.
	SAR
	// Payload sends a long text whole in message_payload; the provider splits it.
	Payload
)

// Numbering is a type of number and a numbering plan.
type Numbering struct{ TON, NPI byte }

// The numbering of a sender or recipient by its kind. Source: channels 2.5, Addresses.
var (
	international = Numbering{TON: 1, NPI: 1}
	alphanumeric  = Numbering{TON: 5, NPI: 0}
	shortCode     = Numbering{TON: 3, NPI: 0}
)

// Values for esm_class and data_coding. Source: SMPP 3.4 5.2.12, 5.2.19.
const (
	esmUDH          = 0x40
	esmTypeMask     = 0x3c
	esmReceipt      = 0x04
	esmIntermediate = 0x20

	codingDefault = 0
	codingUCS2    = 8
)

// refusal is why a message cannot be put on the wire at all, with the status
// the provider would answer.
type refusal struct {
	status Status
	detail string
}

func (r *refusal) Error() string { return r.detail }

// submits returns the submit_sm bodies of m in the order they must be sent, and
// how many parts the recipient's phone gets, which is more than one body only
// with Payload. ref ties the parts together.
func (cfg *Config) submits(m *courier.Message, ref uint16) (bodies []*ShortMessage, parts int, err error) {
	if m.Text == nil {
		return nil, 0, &refusal{StatusSubmitFailed, "the message has no text"}
	}
	source, err := cfg.source(m.From)
	if err != nil {
		return nil, 0, err
	}
	destination, err := cfg.destination(m.To)
	if err != nil {
		return nil, 0, err
	}
	header := 6
	if cfg.Concatenation == UDH16 {
		header = 7
	}
	segments, err := courier.SegmentHeader(m.Text.Body, header)
	if err != nil {
		return nil, 0, &refusal{StatusInvalidMessageLength, err.Error()}
	}
	base := ShortMessage{
		ServiceType:    cfg.ServiceType,
		Source:         source,
		Destination:    destination,
		ValidityPeriod: relativeTime(m.Text.Validity),
		DataCoding:     codingDefault,
		TLVs:           cfg.tlvs(m.Text),
	}
	if m.Text.WantsReceipt {
		base.RegisteredDelivery = 1
	}
	if segments.Alphabet == courier.UCS2 {
		base.DataCoding = codingUCS2
	}
	total := len(segments.Parts)
	if total == 1 {
		base.Text = segments.Encode(0)
		return []*ShortMessage{&base}, 1, nil
	}
	if cfg.Concatenation == Payload {
		whole := courier.Segments{Alphabet: segments.Alphabet, Parts: []string{m.Text.Body}}
		base.TLVs = append(base.TLVs, TLV{TagMessagePayload, whole.Encode(0)})
		return []*ShortMessage{&base}, total, nil
	}
	for i := range total {
		body, octets := base, segments.Encode(i)
		switch cfg.Concatenation {
		case UDH16:
			body.ESMClass |= esmUDH
			body.Text = append([]byte{6, 8, 4, byte(ref >> 8), byte(ref), byte(total), byte(i + 1)}, octets...)
		case SAR:
			body.Text = octets
			body.TLVs = append(append(TLVs(nil), base.TLVs...),
				TLV{TagSARRef, []byte{0, byte(ref)}}, TLV{TagSARTotal, []byte{byte(total)}}, TLV{TagSARNumber, []byte{byte(i + 1)}})
		default:
			body.ESMClass |= esmUDH
			body.Text = append([]byte{5, 0, 3, byte(ref), byte(total), byte(i + 1)}, octets...)
		}
		bodies = append(bodies, &body)
	}
	return bodies, total, nil
}

// tlvs are the route's parameters for one text.
func (cfg *Config) tlvs(text *courier.Text) (t TLVs) {
	kind := cfg.TransactionalValue
	if text.Promotional {
		kind = cfg.PromotionalValue
	}
	if cfg.TrafficTag != 0 && kind != "" {
		t = append(t, TLV{cfg.TrafficTag, []byte(kind)})
	}
	for _, p := range []struct {
		tag   Tag
		value string
	}{{cfg.EntityTag, text.EntityID}, {cfg.TemplateTag, text.TemplateID}, {cfg.ReferenceTag, text.ReferenceText}} {
		if p.value != "" && p.tag != TagNone {
			t = append(t, TLV{p.tag, []byte(p.value)})
		}
	}
	return t
}

// source is how the sender is written: "+" and digits is E.164, up to eight
// digits a short code, more digits E.164 without its sign, and anything else of
// at most eleven characters a name.
func (cfg *Config) source(from string) (Address, error) {
	digits := strings.TrimPrefix(from, "+")
	switch {
	case from == "":
		return Address{}, &refusal{StatusInvalidSource, "the message has no sender"}
	case onlyDigits(digits) && len(digits) <= 15 && (digits != from || len(digits) > 8):
		return Address{cfg.International.TON, cfg.International.NPI, digits}, nil
	case onlyDigits(from) && len(from) <= 8:
		return Address{cfg.ShortCode.TON, cfg.ShortCode.NPI, from}, nil
	case len(from) <= 11 && printable(from) && from[0] != '+':
		return Address{cfg.Alphanumeric.TON, cfg.Alphanumeric.NPI, from}, nil
	default:
		return Address{}, &refusal{StatusInvalidSource, fmt.Sprintf("sender %q is neither a number nor a name of 1 to 11 characters", bounded(from, 64))}
	}
}

// destination is how the recipient is written: always E.164 without its sign.
func (cfg *Config) destination(to string) (Address, error) {
	digits, ok := strings.CutPrefix(to, "+")
	if !ok || !onlyDigits(digits) || len(digits) > 15 {
		return Address{}, &refusal{StatusInvalidDestination, fmt.Sprintf("%q is not an E.164 number", bounded(to, 64))}
	}
	return Address{cfg.Recipient.TON, cfg.Recipient.NPI, digits}, nil
}

func onlyDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// International says that the address is shown with "+": it is digits of type
// international, or of unknown type and at least ten long, as some providers
// hand inbound texts over.
func (a Address) International() bool {
	return onlyDigits(a.Text) && (a.TON == 1 || a.TON == 0 && len(a.Text) >= 10)
}

// String is the address in the words of package courier: E.164 with "+", or as it is.
func (a Address) String() string {
	if a.International() {
		return "+" + a.Text
	}
	return a.Text
}

const (
	validityDefault = 72 * time.Hour
	validityMax     = 30 * 24 * time.Hour
)

// relativeTime writes a validity period in the relative form, rounded up to a
// second; 0 means 72 hours and more than 30 days mean 30 days.
// Source: SMPP 3.4 7.1.1.2; channels 2.5, Submit.
func relativeTime(d time.Duration) string {
	if d <= 0 {
		d = validityDefault
	}
	s := int64((min(d, validityMax) + time.Second - 1) / time.Second)
	return fmt.Sprintf("0000%02d%02d%02d%02d000R", s/86400, s/3600%24, s/60%60, s%60)
}

// decodeText reads octets in a data_coding. Binary codings and those nobody
// uses are read as Latin-1, which loses nothing.
// Source: SMPP 3.4 5.2.19; 3GPP TS 23.038 4 for 0xF0 to 0xFF.
func decodeText(coding byte, octets []byte) string {
	switch {
	case coding == codingDefault, coding >= 0xf0 && coding&0x04 == 0:
		return courier.DecodeGSM7(octets)
	case coding == codingUCS2:
		return courier.DecodeUCS2(octets)
	}
	text := make([]rune, len(octets))
	for i, c := range octets {
		text[i] = rune(c)
	}
	return string(text)
}

// Part is one short message with its place in a long one.
type Part struct {
	Ref    int // reference that the parts share; -1 when the text stands alone
	Total  int // 1 when it stands alone
	Number int // from 1
	Text   string
}

var errUserDataHeader = errors.New("the user data header is longer than the message")

// Part reads the text of m, from short_message or message_payload, and its place
// among parts, from the user data header or the sar_ TLVs. A place that
// contradicts itself (number 0, number above total) makes a text that stands alone.
func (m *ShortMessage) Part() (Part, error) {
	octets := m.Text
	if payload, ok := m.TLVs.Get(TagMessagePayload); ok && len(octets) == 0 {
		octets = payload
	}
	p := Part{Ref: -1, Total: 1, Number: 1}
	if m.ESMClass&esmUDH != 0 {
		if len(octets) == 0 || int(octets[0]) > len(octets)-1 {
			return p, errUserDataHeader
		}
		header := octets[1 : 1+int(octets[0])]
		octets = octets[1+len(header):]
		for len(header) >= 2 && 2+int(header[1]) <= len(header) {
			switch id, value := header[0], header[2:2+int(header[1])]; {
			case id == 0 && len(value) == 3:
				p.place(int(value[0]), value[1], value[2])
			case id == 8 && len(value) == 4:
				p.place(int(binary.BigEndian.Uint16(value)), value[2], value[3])
			}
			header = header[2+int(header[1]):]
		}
	} else if ref, ok := m.TLVs.Number(TagSARRef); ok {
		total, _ := m.TLVs.Number(TagSARTotal)
		number, _ := m.TLVs.Number(TagSARNumber)
		p.place(ref, byte(total), byte(number))
	}
	p.Text = decodeText(m.DataCoding, octets)
	return p, nil
}

func (p *Part) place(ref int, total, number byte) {
	if total > 1 && number >= 1 && number <= total {
		p.Ref, p.Total, p.Number = ref, int(total), int(number)
	}
}

// bounded cuts s to at most n octets without splitting a character.
func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
