package smpp

import (
	"fmt"
	"log/slog"
)

// Secret is a password; it does not print.
type Secret string

// String hides the secret from fmt.
func (Secret) String() string { return "[secret]" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "[secret]" }

// LogValue hides the secret from logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// Bind is the body of bind_transmitter, bind_receiver and bind_transceiver.
// Source: SMPP 3.4 4.1.1, 4.1.3, 4.1.5.
type Bind struct {
	SystemID         string // at most 15 octets
	Password         Secret // at most 8 octets
	SystemType       string // at most 12 octets
	InterfaceVersion byte   // 0x34
	AddrTON, AddrNPI byte
	AddressRange     string // at most 40 octets
}

func (b *Bind) appendBody(dst []byte) (_ []byte, err error) {
	if dst, err = appendCString(dst, "system_id", b.SystemID, 16, StatusInvalidSystemID); err != nil {
		return dst, err
	}
	if dst, err = appendCString(dst, "password", string(b.Password), 9, StatusInvalidPassword); err != nil {
		return dst, err
	}
	if dst, err = appendCString(dst, "system_type", b.SystemType, 13, StatusInvalidSystemType); err != nil {
		return dst, err
	}
	dst = append(dst, b.InterfaceVersion, b.AddrTON, b.AddrNPI)
	return appendCString(dst, "address_range", b.AddressRange, 41, StatusBindFailed)
}

func decodeBind(c *cursor) *Bind {
	return &Bind{
		SystemID:         c.cstring("system_id"),
		Password:         Secret(c.cstring("password")),
		SystemType:       c.cstring("system_type"),
		InterfaceVersion: c.octet("interface_version"),
		AddrTON:          c.octet("addr_ton"),
		AddrNPI:          c.octet("addr_npi"),
		AddressRange:     c.cstring("address_range"),
	}
}

// BindResp is the body of the responses to the three binds.
// Source: SMPP 3.4 4.1.2, 4.1.4, 4.1.6.
type BindResp struct {
	SystemID string // the provider's, at most 15 octets
	TLVs     TLVs   // sc_interface_version
}

func (b *BindResp) appendBody(dst []byte) (_ []byte, err error) {
	if dst, err = appendCString(dst, "system_id", b.SystemID, 16, StatusInvalidSystemID); err != nil {
		return dst, err
	}
	return b.TLVs.append(dst)
}

func decodeBindResp(c *cursor) *BindResp {
	return &BindResp{SystemID: c.cstring("system_id"), TLVs: decodeTLVs(c)}
}

// Address is a number or name with its type of number and numbering plan.
type Address struct {
	TON, NPI byte
	Text     string // at most 20 octets
}

// ShortMessage is the body of submit_sm and of deliver_sm, which have the same
// layout. Source: SMPP 3.4 4.4.1, 4.6.1.
type ShortMessage struct {
	ServiceType          string // at most 5 octets
	Source, Destination  Address
	ESMClass             byte
	ProtocolID           byte
	PriorityFlag         byte
	ScheduleDeliveryTime string // empty or 16 octets
	ValidityPeriod       string // empty or 16 octets
	RegisteredDelivery   byte
	ReplaceIfPresent     byte
	DataCoding           byte
	SMDefaultMsgID       byte
	Text                 []byte // short_message, at most 254 octets; sm_length is its length
	TLVs                 TLVs
}

// shortMessageOctetsMax is the longest short_message. Source: SMPP 3.4 5.2.22.
const shortMessageOctetsMax = 254

func (m *ShortMessage) appendBody(dst []byte) (_ []byte, err error) {
	if dst, err = appendCString(dst, "service_type", m.ServiceType, 6, StatusInvalidServiceType); err != nil {
		return dst, err
	}
	dst = append(dst, m.Source.TON, m.Source.NPI)
	if dst, err = appendCString(dst, "source_addr", m.Source.Text, 21, StatusInvalidSource); err != nil {
		return dst, err
	}
	dst = append(dst, m.Destination.TON, m.Destination.NPI)
	if dst, err = appendCString(dst, "destination_addr", m.Destination.Text, 21, StatusInvalidDestination); err != nil {
		return dst, err
	}
	dst = append(dst, m.ESMClass, m.ProtocolID, m.PriorityFlag)
	if dst, err = appendTime(dst, "schedule_delivery_time", m.ScheduleDeliveryTime, StatusInvalidSchedule); err != nil {
		return dst, err
	}
	if dst, err = appendTime(dst, "validity_period", m.ValidityPeriod, StatusInvalidExpiry); err != nil {
		return dst, err
	}
	dst = append(dst, m.RegisteredDelivery, m.ReplaceIfPresent, m.DataCoding, m.SMDefaultMsgID)
	if len(m.Text) > shortMessageOctetsMax {
		return dst, &fieldError{StatusInvalidMessageLength, fmt.Sprintf("short_message has %d octets, %d is the most", len(m.Text), shortMessageOctetsMax)}
	}
	dst = append(dst, byte(len(m.Text)))
	dst = append(dst, m.Text...)
	return m.TLVs.append(dst)
}

// appendTime writes a time field, which is empty or has 16 characters.
// Source: SMPP 3.4 7.1.1.
func appendTime(dst []byte, field, s string, status Status) ([]byte, error) {
	if len(s) != 0 && len(s) != 16 {
		return dst, &fieldError{status, fmt.Sprintf("%s has %d octets, it must be empty or have 16", field, len(s))}
	}
	return appendCString(dst, field, s, 17, status)
}

func decodeShortMessage(c *cursor) *ShortMessage {
	m := &ShortMessage{
		ServiceType:          c.cstring("service_type"),
		Source:               decodeAddress(c, "source_addr"),
		Destination:          decodeAddress(c, "destination_addr"),
		ESMClass:             c.octet("esm_class"),
		ProtocolID:           c.octet("protocol_id"),
		PriorityFlag:         c.octet("priority_flag"),
		ScheduleDeliveryTime: c.cstring("schedule_delivery_time"),
		ValidityPeriod:       c.cstring("validity_period"),
		RegisteredDelivery:   c.octet("registered_delivery"),
		ReplaceIfPresent:     c.octet("replace_if_present_flag"),
		DataCoding:           c.octet("data_coding"),
		SMDefaultMsgID:       c.octet("sm_default_msg_id"),
	}
	m.Text = c.octets("short_message", int(c.octet("sm_length")))
	m.TLVs = decodeTLVs(c)
	return m
}

func decodeAddress(c *cursor, field string) Address {
	return Address{TON: c.octet(field + "_ton"), NPI: c.octet(field + "_npi"), Text: c.cstring(field)}
}

// MessageResp is the body of submit_sm_resp, and of deliver_sm_resp, where the
// id is empty. Source: SMPP 3.4 4.4.2, 4.6.2.
type MessageResp struct {
	MessageID string // at most 64 octets
	TLVs      TLVs
}

func (r *MessageResp) appendBody(dst []byte) (_ []byte, err error) {
	if dst, err = appendCString(dst, "message_id", r.MessageID, 65, StatusInvalidMessageID); err != nil {
		return dst, err
	}
	return r.TLVs.append(dst)
}

func decodeMessageResp(c *cursor) *MessageResp {
	return &MessageResp{MessageID: c.cstring("message_id"), TLVs: decodeTLVs(c)}
}
