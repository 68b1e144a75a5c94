package courier

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Alphabet is how the characters of an SMS become octets.
type Alphabet uint8

// The two alphabets of SMS text. Source: channels 2.5, Encoding.
const (
	GSM7 Alphabet = iota // 3GPP TS 23.038 6.2.1, basic and extension table
	UCS2                 // UTF-16, big-endian
)

// String names the alphabet as handset vendors do.
func (a Alphabet) String() string {
	if a == UCS2 {
		return "UCS-2"
	}
	return "GSM-7"
}

// The longest texts that may be sent, in the units of [Segments].Units.
// Source: channels 5.2.
const (
	gsm7UnitsMax = 1600
	ucs2UnitsMax = 630
)

// partOctetsMax is what one short message carries on the air, a user data
// header included. Source: channels 2.5, Lengths.
const partOctetsMax = 140

// Segments is how one text travels: its alphabet and the text of each part.
type Segments struct {
	Alphabet Alphabet
	// Units is the length of the whole text as carriers count characters:
	// septets in GSM-7, where an extension character counts two, and UTF-16
	// units in UCS-2, where a character beyond U+FFFF counts two.
	Units int
	// Parts are pieces of the body in order, at least one; joined they are the body.
	Parts []string
}

// Encode returns the octets of a part in the alphabet of s: one octet for each
// septet in GSM-7 (not packed, as SMPP carries them), two for each unit in UCS-2.
func (s Segments) Encode(part int) []byte {
	if s.Alphabet == UCS2 {
		return EncodeUCS2(s.Parts[part])
	}
	octets, _ := EncodeGSM7(s.Parts[part]) // Segment chose GSM-7 because it fits
	return octets
}

// TextTooLongError says that a text exceeds what may be sent in its alphabet.
type TextTooLongError struct {
	Alphabet Alphabet
	Units    int // length of the text; see [Segments].Units
	Max      int // longest text allowed
}

func (e *TextTooLongError) Error() string {
	return fmt.Sprintf("text has %d characters in %s, %d is the most", e.Units, e.Alphabet, e.Max)
}

// ErrTextNotUTF8 says that a text is not valid UTF-8, so it has no characters to send.
var ErrTextNotUTF8 = errors.New("text is not valid UTF-8")

// Segment splits body into the parts of an SMS with the usual 8-bit reference:
// 160 GSM-7 or 70 UCS-2 characters alone, 153 or 67 in each of several parts.
// GSM-7 is chosen when every character fits. It fails with [*TextTooLongError]
// past 1,600 GSM-7 or 630 UCS-2 characters and with [ErrTextNotUTF8].
//
// Source: channels 2.5 (Encoding, Lengths) and 5.2.
func Segment(body string) (Segments, error) { return SegmentHeader(body, 6) }

// SegmentHeader is [Segment] for parts whose user data header takes
// headerOctets octets: 6 with an 8-bit reference, 7 with a 16-bit one (152 and
// 66 characters). The header must leave room for two characters.
func SegmentHeader(body string, headerOctets int) (Segments, error) {
	if headerOctets < 0 || headerOctets > partOctetsMax-4 {
		return Segments{}, fmt.Errorf("user data header of %d octets leaves no room in %d", headerOctets, partOctetsMax)
	}
	if !utf8.ValidString(body) {
		return Segments{}, ErrTextNotUTF8
	}
	s := Segments{Alphabet: GSM7}
	for _, r := range body {
		n := septets(r)
		if n == 0 {
			s.Alphabet = UCS2
			break
		}
		s.Units += n
	}
	cost, alone, unitsMax := septets, partOctetsMax*8/7, gsm7UnitsMax
	each := alone - (headerOctets*8+6)/7 // a header fills whole septets
	if s.Alphabet == UCS2 {
		cost, alone, unitsMax = utf16.RuneLen, partOctetsMax/2, ucs2UnitsMax
		each = (partOctetsMax - headerOctets) / 2
		s.Units = 0
		for _, r := range body {
			s.Units += utf16.RuneLen(r)
		}
	}
	if s.Units > unitsMax {
		return Segments{}, &TextTooLongError{Alphabet: s.Alphabet, Units: s.Units, Max: unitsMax}
	}
	if s.Units <= alone {
		s.Parts = []string{body}
		return s, nil
	}
	s.Parts = make([]string, 0, s.Units/(each-1)+1)
	start, used := 0, 0
	for i, r := range body {
		n := cost(r)
		if used+n > each {
			s.Parts = append(s.Parts, body[start:i])
			start, used = i, 0
		}
		used += n
	}
	s.Parts = append(s.Parts, body[start:])
	return s, nil
}

// septets is how many septets r takes in GSM-7; 0 when it has no place there.
func septets(r rune) int {
	switch code := gsm7Code(r); {
	case code == gsm7Absent:
		return 0
	case code > 0x7f:
		return 2
	default:
		return 1
	}
}

// EncodeGSM7 writes text in the GSM-7 alphabet, one octet for each septet; ok is
// false when a character has no place in it.
func EncodeGSM7(text string) (octets []byte, ok bool) {
	octets = make([]byte, 0, len(text)+8)
	for _, r := range text {
		code := gsm7Code(r)
		switch {
		case code == gsm7Absent:
			return nil, false
		case code > 0x7f:
			octets = append(octets, gsm7Escape, byte(code))
		default:
			octets = append(octets, byte(code))
		}
	}
	return octets, true
}

// DecodeGSM7 reads unpacked GSM-7 septets. The high bit is ignored. As handsets
// do, an escape before an unknown code shows the code's basic character, an
// escape before an escape shows a space, and a last escape shows nothing.
//
// Source: 3GPP TS 23.038 6.2.1 and 6.2.1.1.
func DecodeGSM7(octets []byte) string {
	var b strings.Builder
	b.Grow(len(octets))
	for i := 0; i < len(octets); i++ {
		code := octets[i] & 0x7f
		if code != gsm7Escape {
			b.WriteRune(gsm7Basic[code])
			continue
		}
		i++
		if i == len(octets) {
			break
		}
		code = octets[i] & 0x7f
		switch r, known := gsm7Extension[code]; {
		case known:
			b.WriteRune(r)
		case code == gsm7Escape:
			b.WriteByte(' ')
		default:
			b.WriteRune(gsm7Basic[code])
		}
	}
	return b.String()
}

// EncodeUCS2 writes text as big-endian UTF-16. What is not UTF-8 becomes U+FFFD.
func EncodeUCS2(text string) []byte {
	octets := make([]byte, 0, 2*len(text))
	for _, r := range text {
		if hi, lo := utf16.EncodeRune(r); hi != utf8.RuneError {
			octets = binary.BigEndian.AppendUint16(octets, uint16(hi))
			octets = binary.BigEndian.AppendUint16(octets, uint16(lo))
			continue
		}
		octets = binary.BigEndian.AppendUint16(octets, uint16(r))
	}
	return octets
}

// DecodeUCS2 reads big-endian UTF-16. A half surrogate pair becomes U+FFFD and
// an odd last octet is dropped.
func DecodeUCS2(octets []byte) string {
	units := make([]uint16, len(octets)/2)
	for i := range units {
		units[i] = binary.BigEndian.Uint16(octets[2*i:])
	}
	return string(utf16.Decode(units))
}

const (
	gsm7Escape = 0x1b
	gsm7Absent = 0xffff
)

// gsm7Basic is the basic table; its place for the escape holds a space.
// Source: 3GPP TS 23.038 6.2.1.
var gsm7Basic = [128]rune([]rune("@£$¥èéùìòÇ\nØø\rÅå" +
	"Δ_ΦΓΛΩΠΨΣΘΞ ÆæßÉ" +
	" !\"#¤%&'()*+,-./" +
	"0123456789:;<=>?" +
	"¡ABCDEFGHIJKLMNO" +
	"PQRSTUVWXYZÄÖÑÜ§" +
	"¿abcdefghijklmno" +
	"pqrstuvwxyzäöñüà"))

// gsm7Extension is the extension table. The form feed is read but never
// written: handsets show it as they please.
// Source: 3GPP TS 23.038 6.2.1.1.
var gsm7Extension = map[byte]rune{
	0x0a: '\f', 0x14: '^', 0x28: '{', 0x29: '}', 0x2f: '\\',
	0x3c: '[', 0x3d: '~', 0x3e: ']', 0x40: '|', 0x65: '€',
}

// gsm7Codes maps each character below U+0400 to its septet, or to the septet
// after an escape with 0x100 added, or to gsm7Absent.
var gsm7Codes = func() (codes [0x400]uint16) {
	for i := range codes {
		codes[i] = gsm7Absent
	}
	for code, r := range gsm7Basic {
		if code != gsm7Escape {
			codes[r] = uint16(code)
		}
	}
	for code, r := range gsm7Extension {
		if r != '\f' && r < 0x400 {
			codes[r] = 0x100 | uint16(code)
		}
	}
	return codes
}()

func gsm7Code(r rune) uint16 {
	if r >= 0 && int(r) < len(gsm7Codes) {
		return gsm7Codes[r]
	}
	if r == '€' {
		return 0x100 | 0x65
	}
	return gsm7Absent
}
