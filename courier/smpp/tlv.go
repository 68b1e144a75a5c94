package smpp

import (
	"encoding/binary"
	"fmt"
)

// TLV is one optional parameter. Source: SMPP 3.4 3.2.4.
type TLV struct {
	Tag   Tag
	Value []byte
}

// TLVs are the optional parameters of a PDU, in the order of the wire.
type TLVs []TLV

// Tag names an optional parameter.
type Tag uint16

// The tags the client reads or writes. Source: SMPP 3.4 5.3.2.
const (
	TagReceiptedMessageID Tag = 0x001e
	TagUserMessageRef     Tag = 0x0204
	TagSARRef             Tag = 0x020c
	TagSARTotal           Tag = 0x020e
	TagSARNumber          Tag = 0x020f
	TagSCInterfaceVersion Tag = 0x0210
	TagNetworkErrorCode   Tag = 0x0423
	TagMessagePayload     Tag = 0x0424
	TagMessageState       Tag = 0x0427
	// TagEntityID, TagTemplateID and TagReference are in the range for vendors
	// (0x1400 to 0x3FFF); the first two are what Indian operators agreed on.
	TagEntityID   Tag = 0x1400
	TagTemplateID Tag = 0x1401
	TagReference  Tag = 0x1501
)

// tlvsMax bounds the optional parameters of one PDU; the specification defines
// fewer than fifty.
const tlvsMax = 256

// Get returns the first value with this tag; ok is false when there is none.
func (t TLVs) Get(tag Tag) (value []byte, ok bool) {
	for _, p := range t {
		if p.Tag == tag {
			return p.Value, true
		}
	}
	return nil, false
}

// Number returns the first value with this tag as an unsigned number of one or
// two octets; ok is false when there is none or it has another size.
func (t TLVs) Number(tag Tag) (n int, ok bool) {
	switch v, _ := t.Get(tag); len(v) {
	case 1:
		return int(v[0]), true
	case 2:
		return int(binary.BigEndian.Uint16(v)), true
	default:
		return 0, false
	}
}

// Text returns the first value with this tag as text, up to its first NUL.
func (t TLVs) Text(tag Tag) string {
	v, _ := t.Get(tag)
	for i, c := range v {
		if c == 0 {
			return string(v[:i])
		}
	}
	return string(v)
}

func (t TLVs) append(dst []byte) ([]byte, error) {
	if len(t) > tlvsMax {
		return dst, &fieldError{StatusInvalidTLVStream, fmt.Sprintf("%d optional parameters, %d is the most", len(t), tlvsMax)}
	}
	for _, p := range t {
		if len(p.Value) > 0xffff {
			return dst, &fieldError{StatusInvalidTLVLength, fmt.Sprintf("optional parameter 0x%04x has %d octets, 65535 is the most", uint16(p.Tag), len(p.Value))}
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(p.Tag))
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(p.Value)))
		dst = append(dst, p.Value...)
	}
	return dst, nil
}

func decodeTLVs(c *cursor) (t TLVs) {
	for len(c.rest) > 0 {
		if len(c.rest) < 4 {
			c.fail(StatusInvalidTLVStream, "%d octets are no optional parameter", len(c.rest))
			return nil
		}
		if len(t) == tlvsMax {
			c.fail(StatusInvalidTLVStream, "more than %d optional parameters", tlvsMax)
			return nil
		}
		tag, n := Tag(binary.BigEndian.Uint16(c.rest)), int(binary.BigEndian.Uint16(c.rest[2:]))
		c.rest = c.rest[4:]
		if n > len(c.rest) {
			c.fail(StatusInvalidTLVLength, "optional parameter 0x%04x needs %d octets, %d are left", uint16(tag), n, len(c.rest))
			return nil
		}
		t = append(t, TLV{tag, c.octets("optional parameter", n)})
	}
	return t
}
