package smpp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// PDU is one protocol data unit.
type PDU struct {
	Command  Command
	Status   Status // of a response; 0 in a request
	Sequence uint32
	// Body is what follows the header, by command: [*Bind], [*BindResp],
	// [*ShortMessage], [*MessageResp]. It is nil where the command has none,
	// and in a response that carries only its header, as refusals may.
	Body Body
}

// Body is the mandatory and optional parameters of a PDU.
type Body interface {
	appendBody(dst []byte) ([]byte, error)
}

// Command is a command_id; the high bit marks a response.
// Source: SMPP 3.4 5.1.2.1.
type Command uint32

// The commands of the codec.
const (
	GenericNack         Command = 0x80000000
	BindReceiver        Command = 0x00000001
	BindReceiverResp    Command = 0x80000001
	BindTransmitter     Command = 0x00000002
	BindTransmitterResp Command = 0x80000002
	SubmitSM            Command = 0x00000004
	SubmitSMResp        Command = 0x80000004
	DeliverSM           Command = 0x00000005
	DeliverSMResp       Command = 0x80000005
	Unbind              Command = 0x00000006
	UnbindResp          Command = 0x80000006
	BindTransceiver     Command = 0x00000009
	BindTransceiverResp Command = 0x80000009
	EnquireLink         Command = 0x00000015
	EnquireLinkResp     Command = 0x80000015
)

var commandNames = map[Command]string{
	GenericNack: "generic_nack", BindReceiver: "bind_receiver", BindReceiverResp: "bind_receiver_resp",
	BindTransmitter: "bind_transmitter", BindTransmitterResp: "bind_transmitter_resp",
	SubmitSM: "submit_sm", SubmitSMResp: "submit_sm_resp", DeliverSM: "deliver_sm", DeliverSMResp: "deliver_sm_resp",
	Unbind: "unbind", UnbindResp: "unbind_resp", BindTransceiver: "bind_transceiver", BindTransceiverResp: "bind_transceiver_resp",
	EnquireLink: "enquire_link", EnquireLinkResp: "enquire_link_resp",
}

// String names the command as the specification does.
func (c Command) String() string {
	if name, ok := commandNames[c]; ok {
		return name
	}
	return fmt.Sprintf("command 0x%08x", uint32(c))
}

// Response is the command that answers c.
func (c Command) Response() Command { return c | GenericNack }

// IsResponse says that c answers another command.
func (c Command) IsResponse() bool { return c&GenericNack != 0 }

const (
	headerOctets = 16
	// PDUOctetsMax is the largest PDU read or written, header included. It
	// leaves room for a message_payload of 64 KiB less its neighbours.
	PDUOctetsMax = 64 << 10
)

// SyntaxError says that a PDU could not be read or written. The header of a PDU
// that was read is kept, so that it can be answered.
type SyntaxError struct {
	Command  Command
	Sequence uint32
	// Status says on the wire what is wrong, as ESME_RINVCMDLEN does.
	Status Status
	// Fatal says that the end of the PDU is not known either, so the
	// connection cannot go on.
	Fatal  bool
	Detail string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s (sequence %d): %s", e.Command, e.Sequence, e.Detail)
}

// Append writes p behind dst. It fails when a field is longer than the
// specification allows or holds a NUL, or the PDU is longer than [PDUOctetsMax].
func Append(dst []byte, p PDU) ([]byte, error) {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.Command))
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.Status))
	dst = binary.BigEndian.AppendUint32(dst, p.Sequence)
	if p.Body != nil {
		var err error
		if dst, err = p.Body.appendBody(dst); err != nil {
			var field *fieldError
			if errors.As(err, &field) {
				return dst[:start], &SyntaxError{Command: p.Command, Sequence: p.Sequence, Status: field.status, Detail: field.detail}
			}
			return dst[:start], err
		}
	}
	n := len(dst) - start
	if n > PDUOctetsMax {
		return dst[:start], &SyntaxError{
			Command: p.Command, Sequence: p.Sequence, Status: StatusInvalidMessageLength,
			Detail: fmt.Sprintf("%d octets, %d is the most", n, PDUOctetsMax),
		}
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(n))
	return dst, nil
}

// Decode reads the PDU that fills b. It copies what it keeps. Errors are
// [*SyntaxError]; a PDU of a command outside the codec is one with
// ESME_RINVCMDID.
//
// Fields longer than the specification allows are read all the same: providers
// send them, and the frame bounds them.
func Decode(b []byte) (PDU, error) {
	if len(b) < headerOctets {
		return PDU{}, &SyntaxError{Status: StatusInvalidCommandLength, Fatal: true, Detail: fmt.Sprintf("%d octets are no header", len(b))}
	}
	p := PDU{
		Command:  Command(binary.BigEndian.Uint32(b[4:])),
		Status:   Status(binary.BigEndian.Uint32(b[8:])),
		Sequence: binary.BigEndian.Uint32(b[12:]),
	}
	if n := binary.BigEndian.Uint32(b); uint64(n) != uint64(len(b)) || n > PDUOctetsMax {
		return PDU{}, &SyntaxError{
			Command: p.Command, Sequence: p.Sequence, Status: StatusInvalidCommandLength, Fatal: true,
			Detail: fmt.Sprintf("command_length is %d in a frame of %d octets", n, len(b)),
		}
	}
	c := cursor{rest: b[headerOctets:]}
	switch p.Command {
	case BindReceiver, BindTransmitter, BindTransceiver:
		p.Body = decodeBind(&c)
	case BindReceiverResp, BindTransmitterResp, BindTransceiverResp:
		if len(c.rest) > 0 {
			p.Body = decodeBindResp(&c)
		}
	case SubmitSM, DeliverSM:
		p.Body = decodeShortMessage(&c)
	case SubmitSMResp, DeliverSMResp:
		if len(c.rest) > 0 {
			p.Body = decodeMessageResp(&c)
		}
	case EnquireLink, EnquireLinkResp, Unbind, UnbindResp, GenericNack:
		// A header and nothing else.
	default:
		return PDU{}, &SyntaxError{Command: p.Command, Sequence: p.Sequence, Status: StatusInvalidCommandID, Detail: "not spoken here"}
	}
	if c.err == nil && len(c.rest) > 0 {
		c.fail(StatusInvalidCommandLength, "%d octets are left over", len(c.rest))
	}
	if c.err != nil {
		return PDU{}, &SyntaxError{Command: p.Command, Sequence: p.Sequence, Status: c.err.status, Detail: c.err.detail}
	}
	return p, nil
}

// Reader reads PDUs from a stream. It is for one goroutine.
type Reader struct {
	src *bufio.Reader
	buf []byte
}

// NewReader returns a Reader over r.
func NewReader(r io.Reader) *Reader { return &Reader{src: bufio.NewReaderSize(r, 16<<10)} }

// Next reads one PDU. It returns io.EOF at the end of the stream between PDUs.
// After a [*SyntaxError] that is not Fatal the stream stands at the next PDU;
// after any other error it cannot be read on. No PDU takes more than
// [PDUOctetsMax] of memory, whatever its command_length says.
func (r *Reader) Next() (PDU, error) {
	var header [headerOctets]byte
	if _, err := io.ReadFull(r.src, header[:]); err != nil {
		return PDU{}, err
	}
	n := binary.BigEndian.Uint32(header[:])
	if n < headerOctets || n > PDUOctetsMax {
		return PDU{}, &SyntaxError{
			Command: Command(binary.BigEndian.Uint32(header[4:])), Sequence: binary.BigEndian.Uint32(header[12:]),
			Status: StatusInvalidCommandLength, Fatal: true,
			Detail: fmt.Sprintf("command_length is %d, it must be %d to %d", n, headerOctets, PDUOctetsMax),
		}
	}
	if cap(r.buf) < int(n) {
		r.buf = make([]byte, n, max(int(n), 512))
	}
	b := r.buf[:n]
	copy(b, header[:])
	if _, err := io.ReadFull(r.src, b[headerOctets:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return PDU{}, err
	}
	return Decode(b)
}

// fieldError says which field of a body is wrong, and the status that says so on the wire.
type fieldError struct {
	status Status
	detail string
}

func (e *fieldError) Error() string { return e.detail }

// cursor reads fields in order; after the first failure it returns zero values.
type cursor struct {
	rest []byte
	err  *fieldError
}

func (c *cursor) fail(status Status, format string, args ...any) {
	if c.err == nil {
		c.err = &fieldError{status, fmt.Sprintf(format, args...)}
	}
	c.rest = nil
}

func (c *cursor) octet(field string) byte {
	if len(c.rest) == 0 {
		c.fail(StatusInvalidCommandLength, "the PDU ends before %s", field)
		return 0
	}
	v := c.rest[0]
	c.rest = c.rest[1:]
	return v
}

// cstring reads a C-Octet String. Source: SMPP 3.4 3.1.
func (c *cursor) cstring(field string) string {
	for i, v := range c.rest {
		if v == 0 {
			s := string(c.rest[:i])
			c.rest = c.rest[i+1:]
			return s
		}
	}
	c.fail(StatusInvalidCommandLength, "%s has no NUL", field)
	return ""
}

func (c *cursor) octets(field string, n int) []byte {
	if len(c.rest) < n {
		c.fail(StatusInvalidCommandLength, "%s needs %d octets, %d are left", field, n, len(c.rest))
		return nil
	}
	if n == 0 {
		return nil
	}
	v := append([]byte(nil), c.rest[:n]...)
	c.rest = c.rest[n:]
	return v
}

// appendCString writes s with its NUL; octetsMax counts the NUL, as the
// specification's tables do.
func appendCString(dst []byte, field, s string, octetsMax int, status Status) ([]byte, error) {
	if len(s) >= octetsMax {
		return dst, &fieldError{status, fmt.Sprintf("%s has %d octets, %d is the most", field, len(s), octetsMax-1)}
	}
	for i := range len(s) {
		if s[i] == 0 {
			return dst, &fieldError{status, field + " holds a NUL"}
		}
	}
	return append(append(dst, s...), 0), nil
}
