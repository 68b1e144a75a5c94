package smpp

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/everpoint/everpoint/courier"
)

var testNow = time.Date(2026, 11, 3, 12, 0, 0, 0, time.UTC)

func TestReadReceipt(t *testing.T) {
	kolkata := time.FixedZone("IST", 5*3600+1800)
	for _, c := range []struct {
		name string
		text string
		tlvs TLVs
		zone *time.Location
		want courier.Receipt
	}{
		{
			"appendix_B", "id:0123456789 sub:001 dlvrd:001 submit date:2611031100 done date:2611031130 stat:DELIVRD err:000 text:Hello id:9", nil, time.UTC,
			courier.Receipt{ProviderID: "0123456789", State: "DELIVRD", ErrorCode: "000", At: testNow.Add(-30 * time.Minute)},
		},
		{
			"seconds_and_a_zone", "id:a1 submit date:261103112900 done date:261103163015 stat:UNDELIV err:011 text:", nil, kolkata,
			courier.Receipt{ProviderID: "a1", State: "UNDELIV", ErrorCode: "011", At: time.Date(2026, 11, 3, 11, 0, 15, 0, time.UTC)},
		},
		{
			"other_case_and_full_words", "ID:X-1 Stat:Rejected Err:42 Text:no", nil, time.UTC,
			courier.Receipt{ProviderID: "X-1", State: "REJECTD", ErrorCode: "42", At: testNow},
		},
		{
			"TLVs_win", "id:1 stat:ENROUTE err:5",
			TLVs{{TagReceiptedMessageID, []byte("abc\x00")}, {TagMessageState, []byte{3}}, {TagNetworkErrorCode, []byte{3, 0, 9}}},
			time.UTC,
			courier.Receipt{ProviderID: "abc", State: "EXPIRED", ErrorCode: "5", At: testNow},
		},
		{
			"TLVs_alone", "",
			TLVs{{TagReceiptedMessageID, []byte("abc")}, {TagMessageState, []byte{8}}, {TagNetworkErrorCode, []byte{3, 1, 9}}},
			time.UTC,
			courier.Receipt{ProviderID: "abc", State: "REJECTD", ErrorCode: "265", At: testNow},
		},
		{
			"a_state_nobody_knows", "id:1 stat:WHATEVER", nil, time.UTC,
			courier.Receipt{ProviderID: "1", State: "UNKNOWN", At: testNow},
		},
		{
			"a_message_state_nobody_knows", "id:1 stat:DELIVRD",
			TLVs{{TagMessageState, []byte{200}}},
			time.UTC,
			courier.Receipt{ProviderID: "1", State: "UNKNOWN", At: testNow},
		},
		{
			"a_date_ahead_of_now_is_now", "id:1 done date:2611031500 stat:EXPIRED", nil, time.UTC,
			courier.Receipt{ProviderID: "1", State: "EXPIRED", At: testNow},
		},
		{
			"a_word_that_ends_in_a_key_is_not_the_key", "valid:7 id:8 substat:DELIVRD stat:DELETED", nil, time.UTC,
			courier.Receipt{ProviderID: "8", State: "DELETED", At: testNow},
		},
		{
			"accepted", "id:8 stat:ACCEPTD", nil, time.UTC,
			courier.Receipt{ProviderID: "8", State: "ACCEPTD", At: testNow},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.want.Detail = c.text
			got, err := readReceipt(&ShortMessage{ESMClass: 4, Text: []byte(c.text), TLVs: c.tlvs}, c.zone, testNow)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
	t.Run("without_an_id_it_is_an_error", func(t *testing.T) {
		for _, text := range []string{"", "stat:DELIVRD", "id: stat:DELIVRD", "text:id:5"} {
			if r, err := readReceipt(&ShortMessage{Text: []byte(text)}, time.UTC, testNow); err != errReceiptID {
				t.Errorf("%q reads %+v, %v", text, r, err)
			}
		}
	})
	t.Run("its_fields_are_bounded", func(t *testing.T) {
		long := strings.Repeat("9", 5000)
		m := &ShortMessage{TLVs: TLVs{{TagMessagePayload, []byte("id:" + long + " err:" + long)}}}
		r, err := readReceipt(m, time.UTC, testNow)
		if err != nil || len(r.ProviderID) != 64 || len(r.ErrorCode) != 64 || len(r.Detail) != 512 {
			t.Errorf("%d, %d, %d octets, %v", len(r.ProviderID), len(r.ErrorCode), len(r.Detail), err)
		}
	})
}

func TestIsReceipt(t *testing.T) {
	for class, want := range map[byte]bool{0x00: false, 0x04: true, 0x44: true, 0x20: true, 0x40: false, 0x08: false, 0x03: false, 0xc4: true} {
		if got := (&ShortMessage{ESMClass: class}).IsReceipt(); got != want {
			t.Errorf("esm_class 0x%02x: %v", class, got)
		}
	}
}

func TestNormalizeID(t *testing.T) {
	for id, want := range map[string][]string{
		"00001234":               {"00001234", "1234", "4d2", "4660"},
		"4660":                   {"4660", "1234", "18016"},
		"0A1B2C3D":               {"0A1B2C3D", "a1b2c3d", "169552957"},
		"169552957":              {"169552957", "a1b2c3d", "6062156119"},
		"0x1f":                   {"0x1f", "1f", "31"},
		"0":                      {"0"},
		"":                       {"", "0"},
		"3f-b2":                  {"3f-b2"},
		"ffffffffffffffffffffff": {"ffffffffffffffffffffff"},
	} {
		if got := NormalizeID(id); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %q, want %q", id, got, want)
		}
	}
}

func TestPart(t *testing.T) {
	for _, c := range []struct {
		name string
		m    ShortMessage
		want Part
		err  error
	}{
		{"alone", ShortMessage{Text: []byte("hi")}, Part{-1, 1, 1, "hi"}, nil},
		{"latin_1", ShortMessage{DataCoding: 3, Text: []byte{0xe7}}, Part{-1, 1, 1, "ç"}, nil},
		{"message_class_GSM7", ShortMessage{DataCoding: 0xf1, Text: []byte{0}}, Part{-1, 1, 1, "@"}, nil},
		{"payload", ShortMessage{TLVs: TLVs{{TagMessagePayload, []byte("whole")}}}, Part{-1, 1, 1, "whole"}, nil},
		{"UDH8", ShortMessage{ESMClass: 0x40, Text: []byte("\x05\x00\x03\x07\x03\x02b")}, Part{7, 3, 2, "b"}, nil},
		{"UDH16", ShortMessage{ESMClass: 0x40, Text: []byte("\x06\x08\x04\x01\x02\x03\x03c")}, Part{258, 3, 3, "c"}, nil},
		{"UDH_behind_another_element", ShortMessage{ESMClass: 0x40, Text: []byte("\x0b\x05\x04\x15\x8a\x00\x00\x00\x03\x09\x02\x01d")}, Part{9, 2, 1, "d"}, nil},
		{"number_above_total_stands_alone", ShortMessage{ESMClass: 0x40, Text: []byte("\x05\x00\x03\x07\x02\x03e")}, Part{-1, 1, 1, "e"}, nil},
		{"number_0_stands_alone", ShortMessage{ESMClass: 0x40, Text: []byte("\x05\x00\x03\x07\x02\x00e")}, Part{-1, 1, 1, "e"}, nil},
		{"header_cut", ShortMessage{ESMClass: 0x40, Text: []byte("\x05\x00\x03\x07\x02")}, Part{-1, 1, 1, ""}, errUserDataHeader},
		{"header_missing", ShortMessage{ESMClass: 0x40}, Part{-1, 1, 1, ""}, errUserDataHeader},
		{"header_and_no_text", ShortMessage{ESMClass: 0x40, Text: []byte("\x05\x00\x03\x07\x02\x01")}, Part{7, 2, 1, ""}, nil},
		{
			"SAR",
			ShortMessage{Text: []byte("f"), TLVs: TLVs{{TagSARRef, []byte{1, 0}}, {TagSARTotal, []byte{2}}, {TagSARNumber, []byte{1}}}},
			Part{256, 2, 1, "f"},
			nil,
		},
		{"SAR_without_total_stands_alone", ShortMessage{Text: []byte("g"), TLVs: TLVs{{TagSARRef, []byte{1, 0}}}}, Part{-1, 1, 1, "g"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := c.m.Part(); got != c.want || err != c.err {
				t.Errorf("got %+v, %v, want %+v, %v", got, err, c.want, c.err)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	cfg := route(t, nil)
	for from, want := range map[string]Address{
		"+13035550199": {1, 1, "13035550199"}, "13035550199": {1, 1, "13035550199"}, "+24273": {1, 1, "24273"},
		"24273": {3, 0, "24273"}, "12345678": {3, 0, "12345678"}, "123456789": {1, 1, "123456789"},
		"EVERPOINT": {5, 0, "EVERPOINT"}, "Two Words-1": {5, 0, "Two Words-1"},
	} {
		if got, err := cfg.source(from); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", from, got, err, want)
		}
	}
	cfg = route(t, func(c *Config) {
		c.ShortCode, c.Recipient, c.Alphanumeric = &Numbering{6, 0}, &Numbering{0, 0}, &Numbering{5, 9}
	})
	if got, _ := cfg.source("24273"); got != (Address{6, 0, "24273"}) {
		t.Errorf("got %+v", got)
	}
	if got, _ := cfg.source("NAME"); got != (Address{5, 9, "NAME"}) {
		t.Errorf("got %+v", got)
	}
	if got, _ := cfg.destination("+13035550144"); got != (Address{0, 0, "13035550144"}) {
		t.Errorf("got %+v", got)
	}
	for a, want := range map[Address]string{
		{1, 1, "13035550144"}: "+13035550144", {0, 1, "13035550144"}: "+13035550144", {0, 0, "24273"}: "24273",
		{3, 0, "24273"}: "24273", {5, 0, "NAME"}: "NAME", {2, 1, "3035550144"}: "3035550144",
	} {
		if got := a.String(); got != want {
			t.Errorf("%+v shows as %s, want %s", a, got, want)
		}
	}
}

func TestRelativeTime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "000003000000000R", 5 * time.Second: "000000000005000R", 90 * time.Second: "000000000130000R", 1500 * time.Millisecond: "000000000002000R",
		25*time.Hour + time.Minute: "000001010100000R", 72 * time.Hour: "000003000000000R", 9000 * time.Hour: "000030000000000R",
	} {
		if got := relativeTime(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestGovernor(t *testing.T) {
	var g governor
	now := testNow
	reserve := func(n int) time.Duration {
		wait, ok := g.reserve(now, n, time.Hour)
		if !ok {
			t.Fatal("turned away")
		}
		return wait
	}
	if reserve(1000) != 0 || reserve(1) != 0 {
		t.Error("an unthrottled route waits")
	}
	for range 10 {
		g.throttled(now) // one burst
	}
	if g.interval != throttleIntervalMin {
		t.Errorf("a burst made the interval %v", g.interval)
	}
	if wait := reserve(3); wait != time.Second {
		t.Errorf("the first waits %v", wait)
	}
	if wait := reserve(1); wait != time.Second+30*time.Millisecond {
		t.Errorf("behind three parts it waits %v", wait)
	}
	for range 20 {
		now = now.Add(throttlePause)
		g.throttled(now)
	}
	if g.interval != throttleIntervalMax {
		t.Errorf("driven hard the interval is %v", g.interval)
	}
	if _, ok := g.reserve(now, 1, time.Millisecond); ok {
		t.Error("the pause was not kept")
	}
	before := g.next
	now = now.Add(time.Minute)
	if reserve(1) != 0 || g.interval != 0 || before.After(now) {
		t.Errorf("a minute later the interval is %v", g.interval)
	}
}

func FuzzReceipt(f *testing.F) {
	for _, text := range []string{
		"id:0123456789 sub:001 dlvrd:001 submit date:2611031100 done date:2611031130 stat:DELIVRD err:000 text:Hello",
		"ID:X Stat:Rejected,Err:42", "id:", "text:id:1", "done date: id:1", "İD:1 id:2",
	} {
		f.Add([]byte(text), byte(0), byte(4))
	}
	f.Fuzz(func(t *testing.T, text []byte, coding, class byte) {
		m := &ShortMessage{ESMClass: class, DataCoding: coding, TLVs: TLVs{{TagMessagePayload, text}}}
		r, err := readReceipt(m, time.UTC, testNow)
		if err != nil {
			return
		}
		if r.ProviderID == "" || len(r.ProviderID) > len(text)*3 || r.At.After(testNow) || len(r.Detail) > 512 {
			t.Fatalf("%q reads %+v", text, r)
		}
		forms := NormalizeID(r.ProviderID)
		if forms[0] != r.ProviderID || len(forms) > 4 {
			t.Fatalf("%q has forms %q", r.ProviderID, forms)
		}
	})
}
