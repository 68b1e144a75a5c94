package changelog

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Rule says how two Regions' versions of one row become one.
type Rule uint8

// The rules; see the package comment.
const (
	RuleLocal Rule = iota
	RuleRecord
	RuleDocument
	RuleAppend
	RuleOptOut
)

// String names the rule.
func (r Rule) String() string {
	switch r {
	case RuleLocal:
		return "local"
	case RuleRecord:
		return "record"
	case RuleDocument:
		return "document"
	case RuleAppend:
		return "append"
	case RuleOptOut:
		return "opt-out"
	default:
		return fmt.Sprintf("rule %d", uint8(r))
	}
}

// Document is what RuleDocument orders: the body of a resource that one Region
// writes at a time. A nil Body is a deletion.
type Document struct {
	Epoch   uint64 // of the control Region that wrote it
	Version uint64 // rises by one with every write
	Body    []byte
}

// MergeDocuments keeps the higher (epoch, version). Equal ones hold equal
// bodies; should they not, the bytes decide alike everywhere.
func MergeDocuments(a, b Document) Document {
	switch {
	case a.Epoch != b.Epoch:
		if a.Epoch > b.Epoch {
			return a
		}
		return b
	case a.Version != b.Version:
		if a.Version > b.Version {
			return a
		}
		return b
	case bytes.Compare(a.Body, b.Body) >= 0:
		return a
	default:
		return b
	}
}

// Change is one row as a commit left it: whole, so that a follower needs
// nothing else to know the row, and merging it twice changes nothing.
type Change struct {
	Kind string
	Key  string
	Rule Rule
	// Foreign says that the commit took the row over from another Region, whose
	// log has the change already.
	Foreign bool
	// Hashes are the keyed hashes that the row is found under, the same in every
	// Region of a group.
	Hashes []string
	Body   []byte // in the form of the rule; nil when the row was removed
}

// The byte of flags behind a change's names.
const (
	changeRule    = 0x0f
	changeBody    = 0x10
	changeForeign = 0x20
	changeFlags   = changeRule | changeBody | changeForeign
)

// AppendChange appends the binary form of c to b.
func AppendChange(b []byte, c Change) []byte {
	b = appendString(b, c.Kind)
	b = appendString(b, c.Key)
	flags := byte(c.Rule) & changeRule
	if c.Body != nil {
		flags |= changeBody
	}
	if c.Foreign {
		flags |= changeForeign
	}
	b = append(b, flags, byte(len(c.Hashes)))
	for _, h := range c.Hashes {
		b = appendString(b, h)
	}
	return append(b, c.Body...)
}

// DecodeChange reads what AppendChange wrote. The body aliases data.
func DecodeChange(data []byte) (Change, error) {
	rd := &reader{b: data, s: string(data)}
	c := Change{Kind: rd.string(), Key: rd.string()}
	flags, hashes := rd.byte(), int(rd.byte())
	for range hashes {
		c.Hashes = append(c.Hashes, rd.string())
	}
	if rd.bad || flags&^changeFlags != 0 {
		return Change{}, errCorrupt
	}
	c.Rule, c.Foreign = Rule(flags&changeRule), flags&changeForeign != 0
	switch {
	case flags&changeBody != 0:
		c.Body = rd.b[:len(rd.b):len(rd.b)]
	case len(rd.b) > 0:
		return Change{}, errCorrupt
	}
	return c, nil
}

// AppendDocument appends the binary form of d to b.
func AppendDocument(b []byte, d Document) []byte {
	b = append(b, recordVersion)
	b = binary.AppendUvarint(b, d.Epoch)
	b = binary.AppendUvarint(b, d.Version)
	if d.Body == nil {
		return append(b, 0)
	}
	return append(append(b, 1), d.Body...)
}

// DecodeDocument reads what AppendDocument wrote. The body aliases data.
func DecodeDocument(data []byte) (Document, error) {
	rd := &reader{b: data, s: ""}
	if rd.byte() != recordVersion {
		return Document{}, errCorrupt
	}
	d := Document{Epoch: rd.uint(), Version: rd.uint()}
	present := rd.byte()
	if rd.bad {
		return Document{}, errCorrupt
	}
	if present == 1 {
		d.Body = append([]byte{}, rd.b...)
	} else if len(rd.b) > 0 {
		return Document{}, errCorrupt
	}
	return d, nil
}

// AppendOptOut appends the binary form of o to b.
func AppendOptOut(b []byte, o OptOut) []byte {
	return AppendRecord(b, &Record{OptOut: o})
}

// Merge unites two bodies of one row by its rule. Either may be nil: the other
// is then the answer. Source: design 5, Merge rules.
func Merge(rule Rule, a, b []byte) ([]byte, []Conflict, error) {
	if a == nil || b == nil || bytes.Equal(a, b) {
		if a == nil {
			return b, nil, nil
		}
		return a, nil, nil
	}
	switch rule {
	case RuleRecord, RuleOptOut:
		x, err := DecodeRecord(a)
		if err != nil {
			return nil, nil, err
		}
		y, err := DecodeRecord(b)
		if err != nil {
			return nil, nil, err
		}
		m, conflicts := MergeRecords(x, y)
		return AppendRecord(nil, &m), conflicts, nil
	case RuleDocument:
		x, err := DecodeDocument(a)
		if err != nil {
			return nil, nil, err
		}
		y, err := DecodeDocument(b)
		if err != nil {
			return nil, nil, err
		}
		return AppendDocument(nil, MergeDocuments(x, y)), nil, nil
	case RuleAppend:
		// Append-only rows never change; of two claims to one key the smaller
		// bytes stand everywhere.
		if bytes.Compare(a, b) <= 0 {
			return a, nil, nil
		}
		return b, nil, nil
	default:
		return nil, nil, fmt.Errorf("changelog: rows of rule %s are not merged", rule)
	}
}
