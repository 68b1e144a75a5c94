package courier

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSegment(t *testing.T) {
	rep := strings.Repeat
	cases := []struct {
		name     string
		body     string
		alphabet Alphabet
		units    int
		parts    []int // characters (runes) in each part
	}{
		{"an_empty_text_is_one_part", "", GSM7, 0, []int{0}},
		{"160_basic_characters_are_one_part", rep("a", 160), GSM7, 160, []int{160}},
		{"161_basic_characters_split_at_153", rep("a", 161), GSM7, 161, []int{153, 8}},
		{"306_basic_characters_fill_two_parts", rep("a", 306), GSM7, 306, []int{153, 153}},
		{"307_basic_characters_need_three", rep("a", 307), GSM7, 307, []int{153, 153, 1}},
		{"extension_characters_cost_two", rep("€", 80), GSM7, 160, []int{80}},
		{"an_extension_character_is_not_split", rep("a", 152) + "€" + rep("b", 10), GSM7, 164, []int{152, 11}},
		{"an_extension_character_that_just_fits_stays", rep("a", 151) + "€" + rep("b", 10), GSM7, 163, []int{152, 10}},
		{"every_extension_character_is_GSM7", `^{}\[]~|€`, GSM7, 18, []int{9}},
		{"every_national_basic_character_is_GSM7", "@£$¥èéùìòÇØøÅåΔΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà\r\n", GSM7, 43, []int{43}},
		{"a_small_c_cedilla_needs_UCS2", "ça", UCS2, 2, []int{2}},
		{"a_backtick_needs_UCS2", "`", UCS2, 1, []int{1}},
		{"a_tab_needs_UCS2", "\t", UCS2, 1, []int{1}},
		{"a_form_feed_needs_UCS2", "\f", UCS2, 1, []int{1}},
		{"70_units_are_one_part", rep("я", 70), UCS2, 70, []int{70}},
		{"71_units_split_at_67", rep("я", 71), UCS2, 71, []int{67, 4}},
		{"a_surrogate_pair_is_not_split", rep("я", 66) + "😀" + rep("я", 5), UCS2, 73, []int{66, 6}},
		{"35_pairs_are_one_part", rep("😀", 35), UCS2, 70, []int{35}},
		{"36_pairs_are_33_and_3", rep("😀", 36), UCS2, 72, []int{33, 3}},
		{"one_foreign_character_makes_all_UCS2", rep("a", 100) + "я", UCS2, 101, []int{67, 34}},
		{"1600_septets_are_eleven_parts", rep("a", 1600), GSM7, 1600, []int{153, 153, 153, 153, 153, 153, 153, 153, 153, 153, 70}},
		{"630_units_are_ten_parts", rep("я", 630), UCS2, 630, []int{67, 67, 67, 67, 67, 67, 67, 67, 67, 27}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, err := Segment(c.body)
			if err != nil {
				t.Fatal(err)
			}
			if s.Alphabet != c.alphabet || s.Units != c.units {
				t.Errorf("got %v of %d units, want %v of %d", s.Alphabet, s.Units, c.alphabet, c.units)
			}
			if len(s.Parts) != len(c.parts) {
				t.Fatalf("got %d parts, want %d", len(s.Parts), len(c.parts))
			}
			for i, p := range s.Parts {
				if n := utf8.RuneCountInString(p); n != c.parts[i] {
					t.Errorf("part %d has %d characters, want %d", i+1, n, c.parts[i])
				}
			}
			if strings.Join(s.Parts, "") != c.body {
				t.Error("the parts joined are not the body")
			}
		})
	}
}

func TestSegmentHeader(t *testing.T) {
	for _, c := range []struct {
		header, gsm7, ucs2 int
	}{{6, 153, 67}, {7, 152, 66}, {0, 160, 70}} {
		s, err := SegmentHeader(strings.Repeat("a", 400), c.header)
		if err != nil || len(s.Parts[0]) != c.gsm7 {
			t.Errorf("header of %d: %d septets in a part, want %d (%v)", c.header, len(s.Parts[0]), c.gsm7, err)
		}
		s, err = SegmentHeader(strings.Repeat("я", 400), c.header)
		if err != nil || utf8.RuneCountInString(s.Parts[0]) != c.ucs2 {
			t.Errorf("header of %d: %q in a part, want %d units (%v)", c.header, s.Parts[0], c.ucs2, err)
		}
	}
	for _, header := range []int{-1, 137} {
		if _, err := SegmentHeader("a", header); err == nil {
			t.Errorf("a header of %d octets was accepted", header)
		}
	}
}

func TestSegmentRefuses(t *testing.T) {
	for _, c := range []struct {
		name, body string
		want       TextTooLongError
	}{
		{"1601_septets", strings.Repeat("a", 1601), TextTooLongError{GSM7, 1601, 1600}},
		{"801_extension_characters", strings.Repeat("{", 801), TextTooLongError{GSM7, 1602, 1600}},
		{"631_units", strings.Repeat("я", 631), TextTooLongError{UCS2, 631, 630}},
		{"316_surrogate_pairs", strings.Repeat("😀", 316), TextTooLongError{UCS2, 632, 630}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Segment(c.body)
			got, ok := errors.AsType[*TextTooLongError](err)
			if !ok || *got != c.want {
				t.Errorf("got %v, want %v", err, &c.want)
			}
		})
	}
	if _, err := Segment("a\xffb"); !errors.Is(err, ErrTextNotUTF8) {
		t.Errorf("broken UTF-8: got %v", err)
	}
}

// TestGSM7Codes holds single codes against the printed table, so that a shifted
// row cannot hide behind a round trip. Source: 3GPP TS 23.038 6.2.1.
func TestGSM7Codes(t *testing.T) {
	for text, want := range map[string]string{
		"@": "\x00", "è": "\x04", "\n": "\x0a", "å": "\x0f", "Δ": "\x10", "_": "\x11", "Ξ": "\x1a", "Æ": "\x1c",
		"É": "\x1f", " ": "\x20", "¤": "\x24", "/": "\x2f", "0": "\x30", "?": "\x3f", "¡": "\x40", "A": "\x41", "O": "\x4f",
		"P": "\x50", "Z": "\x5a", "Ä": "\x5b", "§": "\x5f", "¿": "\x60", "a": "\x61", "z": "\x7a", "ä": "\x7b", "à": "\x7f",
		"^": "\x1b\x14", "{": "\x1b\x28", "}": "\x1b\x29", `\`: "\x1b\x2f", "[": "\x1b\x3c", "~": "\x1b\x3d", "]": "\x1b\x3e",
		"|": "\x1b\x40", "€": "\x1b\x65",
	} {
		got, ok := EncodeGSM7(text)
		if !ok || string(got) != want {
			t.Errorf("%q is % x (%v), want % x", text, got, ok, want)
		}
	}
	if got, ok := EncodeGSM7("aя"); ok || got != nil {
		t.Errorf("a Cyrillic letter was written as % x", got)
	}
	for octets, want := range map[string]string{
		"\x1b": "", "\x1b\x1b": " ", "\x1b\x41": "A", "\x1b\x0a": "\f", "\xc1": "A", "\x1b\x65\x41": "€A",
	} {
		if got := DecodeGSM7([]byte(octets)); got != want {
			t.Errorf("% x reads %q, want %q", octets, got, want)
		}
	}
}

func TestUCS2(t *testing.T) {
	if got := EncodeUCS2("aя😀"); !bytes.Equal(got, []byte{0, 'a', 0x04, 0x4f, 0xd8, 0x3d, 0xde, 0x00}) {
		t.Errorf("got % x", got)
	}
	if got := DecodeUCS2([]byte{0xd8, 0x3d, 0x00, 'a', 0x77}); got != "\ufffda" {
		t.Errorf("half a pair and an odd octet read %q", got)
	}
}

// checkSegments holds what must be true of any text that was split.
func checkSegments(t *testing.T, body string, header int) {
	t.Helper()
	s, err := SegmentHeader(body, header)
	if err != nil {
		if !utf8.ValidString(body) || s.Parts != nil {
			return
		}
		long, ok := errors.AsType[*TextTooLongError](err)
		if !ok || long.Units <= long.Max {
			t.Fatalf("%q: %v", body, err)
		}
		return
	}
	gsm7, ucs2 := 160, 70
	if len(s.Parts) > 1 {
		gsm7, ucs2 = 160-(header*8+6)/7, (140-header)/2
	}
	var decoded strings.Builder
	for i := range s.Parts {
		octets := s.Encode(i)
		switch s.Alphabet {
		case GSM7:
			if len(octets) > gsm7 {
				t.Fatalf("part %d has %d septets, %d fit", i+1, len(octets), gsm7)
			}
			decoded.WriteString(DecodeGSM7(octets))
		case UCS2:
			if len(octets)/2 > ucs2 {
				t.Fatalf("part %d has %d units, %d fit", i+1, len(octets)/2, ucs2)
			}
			decoded.WriteString(DecodeUCS2(octets))
		}
	}
	if decoded.String() != body {
		t.Fatalf("%q reads back %q", body, decoded.String())
	}
	if _, fits := EncodeGSM7(body); fits != (s.Alphabet == GSM7) {
		t.Fatalf("%q: %v chosen, fits GSM-7 %v", body, s.Alphabet, fits)
	}
}

func TestSegmentReadsBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	alphabets := [][]rune{gsm7Basic[:gsm7Escape], []rune("abc€{}"), []rune("aя😀"), []rune("\u0000\uffff\U0010ffff\ufffd")}
	for range 5000 {
		alphabet := alphabets[rng.IntN(len(alphabets))]
		body := make([]rune, rng.IntN(700))
		for i := range body {
			body[i] = alphabet[rng.IntN(len(alphabet))]
		}
		checkSegments(t, string(body), 6+rng.IntN(2))
	}
}

func FuzzSegment(f *testing.F) {
	for _, body := range []string{"", "hello", "€{}", "\xff", strings.Repeat("a", 152) + "€€", strings.Repeat("😀", 40), strings.Repeat("x", 1601)} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		checkSegments(t, body, 6)
		checkSegments(t, body, 7)
	})
}

func FuzzDecodeText(f *testing.F) {
	f.Add([]byte{0x1b, 0x65, 0x1b})
	f.Add([]byte{0xd8, 0x3d, 0x00})
	f.Fuzz(func(t *testing.T, octets []byte) {
		for _, text := range []string{DecodeGSM7(octets), DecodeUCS2(octets)} {
			if !utf8.ValidString(text) {
				t.Fatalf("% x reads as broken UTF-8", octets)
			}
		}
	})
}

func BenchmarkSegment(b *testing.B) {
	body := strings.Repeat("Your order {12} has left. ", 20)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := Segment(body); err != nil {
			b.Fatal(err)
		}
	}
}
