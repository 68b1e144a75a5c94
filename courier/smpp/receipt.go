package smpp

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/courier"
)

// IsReceipt says that a deliver_sm is a delivery receipt (or an intermediate
// notification, which has the same form) and not a text from a person.
// Source: SMPP 3.4 5.2.12.
func (m *ShortMessage) IsReceipt() bool {
	kind := m.ESMClass & esmTypeMask
	return kind == esmReceipt || kind == esmIntermediate
}

// receiptStates are the values of message_state. The last two numbers of SMPP
// 5.0 that 3.4 lacks are read as their nearest neighbours.
// Source: SMPP 3.4 5.2.28 and appendix B for the names.
var receiptStates = map[int]string{
	0: "ENROUTE", // SCHEDULED in 5.0
	1: "ENROUTE", 2: "DELIVRD", 3: "EXPIRED", 4: "DELETED", 5: "UNDELIV", 6: "ACCEPTD", 7: "UNKNOWN", 8: "REJECTD",
	9: "DELETED", // SKIPPED in 5.0
}

// receiptWords map the beginning of a stat: word to its state; providers write
// "DELIVERED" and "Rejected" too.
var receiptWords = []struct{ prefix, state string }{
	{"DELIV", "DELIVRD"},
	{"DELET", "DELETED"},
	{"EXPIR", "EXPIRED"},
	{"UNDEL", "UNDELIV"},
	{"ACCEP", "ACCEPTD"},
	{"ENROU", "ENROUTE"},
	{"EN_RO", "ENROUTE"},
	{"REJEC", "REJECTD"},
	{"UNKNO", "UNKNOWN"},
}

var errReceiptID = errors.New("the receipt names no message")

// readReceipt reads a receipt. Id and state come from receipted_message_id and
// message_state where those are, otherwise from the text; the error code and the
// time from the text, or network_error_code and now. A state nobody defined is
// UNKNOWN. It fails when no message is named.
//
// Source: channels 2.5, DLR; SMPP 3.4 appendix B.
func readReceipt(m *ShortMessage, zone *time.Location, now time.Time) (courier.Receipt, error) {
	part, err := m.Part()
	if err != nil {
		return courier.Receipt{}, err
	}
	fields := receiptFields(part.Text)
	r := courier.Receipt{
		ProviderID: m.TLVs.Text(TagReceiptedMessageID),
		ErrorCode:  bounded(fields["err"], receiptFieldMax),
		At:         receiptTime(fields["done date"], zone, now),
		Detail:     bounded(part.Text, 512),
	}
	if r.ProviderID == "" {
		r.ProviderID = bounded(fields["id"], receiptFieldMax)
	}
	if r.ProviderID == "" {
		return courier.Receipt{}, errReceiptID
	}
	if state, ok := m.TLVs.Number(TagMessageState); ok {
		r.State = receiptStates[state]
	} else {
		word := strings.ToUpper(fields["stat"])
		for _, w := range receiptWords {
			if strings.HasPrefix(word, w.prefix) {
				r.State = w.state
			}
		}
	}
	if r.State == "" {
		r.State = "UNKNOWN"
	}
	if code, ok := m.TLVs.Get(TagNetworkErrorCode); ok && r.ErrorCode == "" && len(code) == 3 {
		r.ErrorCode = fmt.Sprintf("%03d", int(code[1])<<8|int(code[2]))
	}
	return r, nil
}

const receiptFieldMax = 64 // octets; longer ids and codes are cut

// receiptKeys are the fields of a receipt's text in the order of appendix B.
var receiptKeys = []string{"id", "sub", "dlvrd", "submit date", "done date", "stat", "err", "text"}

// receiptFields reads "id:1 sub:001 dlvrd:001 submit date:… done date:… stat:… err:… text:…".
// Keys may be in any case and order and missing, and others stand between them;
// a value is one word; "text" takes the rest, which is the customer's and is not
// read further.
func receiptFields(text string) map[string]string {
	fields := make(map[string]string, len(receiptKeys))
	lower := asciiLower(text)
	key, from := "", 0
	for i := 0; i < len(lower); i++ {
		if i > 0 && lower[i-1] != ' ' && lower[i-1] != ',' && lower[i-1] != '\n' {
			continue // a key begins a word, so "valid:" is not "id:"
		}
		for _, k := range receiptKeys {
			if !strings.HasPrefix(lower[i:], k) || !strings.HasPrefix(lower[i+len(k):], ":") {
				continue
			}
			keepField(fields, key, text[from:i])
			key, from = k, i+len(k)+1
			i = from - 1
			break
		}
		if key == "text" {
			break
		}
	}
	keepField(fields, key, text[from:])
	return fields
}

func keepField(fields map[string]string, key, value string) {
	if _, twice := fields[key]; key != "" && !twice {
		value = strings.Trim(value, " ,\r\n")
		if end := strings.IndexAny(value, " ,\r\n"); end >= 0 && key != "text" {
			value = value[:end]
		}
		fields[key] = value
	}
}

// asciiLower lowers A to Z and keeps every octet in its place.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// receiptTime reads "YYMMDDhhmm" with optional seconds in the provider's zone.
// What cannot be read, or lies ahead of now (a wrong zone), becomes now.
func receiptTime(s string, zone *time.Location, now time.Time) time.Time {
	for _, layout := range []string{"0601021504", "060102150405"} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil && !t.After(now) {
			return t.UTC()
		}
	}
	return now.UTC()
}

// NormalizeID returns the forms in which a provider may write one message id,
// most certain first: as given, in lower case without leading zeros, decimal
// digits read as a number and written in hex, and hex digits read as a number
// and written in decimal. Ids that share a form may be the same message: some
// providers answer submit_sm in hex and send receipts in decimal, or the other
// way round. The first form that names a known message should win.
//
// Source: channels 2.5, DLR.
func NormalizeID(id string) []string {
	forms := make([]string, 0, 4)
	add := func(form string) {
		for _, f := range forms {
			if f == form {
				return
			}
		}
		forms = append(forms, form)
	}
	add(id)
	bare := strings.TrimPrefix(asciiLower(strings.TrimSpace(id)), "0x")
	if bare = strings.TrimLeft(bare, "0"); bare == "" {
		bare = "0"
	}
	add(bare)
	if n, err := strconv.ParseUint(bare, 10, 64); err == nil {
		add(strconv.FormatUint(n, 16))
	}
	if n, err := strconv.ParseUint(bare, 16, 64); err == nil {
		add(strconv.FormatUint(n, 10))
	}
	return forms
}
