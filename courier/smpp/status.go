package smpp

import (
	"fmt"

	"github.com/everpoint/everpoint/courier"
)

// Status is a command_status. Source: SMPP 3.4 5.1.3.
type Status uint32

// The statuses that mean something to this package.
const (
	StatusOK                   Status = 0x00
	StatusInvalidMessageLength Status = 0x01
	StatusInvalidCommandLength Status = 0x02
	StatusInvalidCommandID     Status = 0x03
	StatusInvalidBindStatus    Status = 0x04
	StatusAlreadyBound         Status = 0x05
	StatusSystemError          Status = 0x08
	StatusInvalidSource        Status = 0x0a
	StatusInvalidDestination   Status = 0x0b
	StatusInvalidMessageID     Status = 0x0c
	StatusBindFailed           Status = 0x0d
	StatusInvalidPassword      Status = 0x0e
	StatusInvalidSystemID      Status = 0x0f
	StatusQueueFull            Status = 0x14
	StatusInvalidServiceType   Status = 0x15
	StatusSubmitFailed         Status = 0x45
	StatusInvalidSystemType    Status = 0x53
	StatusThrottled            Status = 0x58
	StatusInvalidSchedule      Status = 0x61
	StatusInvalidExpiry        Status = 0x62
	StatusTemporaryAppError    Status = 0x64
	StatusPermanentAppError    Status = 0x65
	StatusRejectAppError       Status = 0x66
	StatusInvalidTLVStream     Status = 0xc0
	StatusInvalidTLVLength     Status = 0xc2
	StatusUnknownError         Status = 0xff
)

// statusNames are the names of the specification's table.
var statusNames = map[Status]string{
	0x00: "ESME_ROK", 0x01: "ESME_RINVMSGLEN", 0x02: "ESME_RINVCMDLEN", 0x03: "ESME_RINVCMDID", 0x04: "ESME_RINVBNDSTS",
	0x05: "ESME_RALYBND", 0x06: "ESME_RINVPRTFLG", 0x07: "ESME_RINVREGDLVFLG", 0x08: "ESME_RSYSERR", 0x0a: "ESME_RINVSRCADR",
	0x0b: "ESME_RINVDSTADR", 0x0c: "ESME_RINVMSGID", 0x0d: "ESME_RBINDFAIL", 0x0e: "ESME_RINVPASWD", 0x0f: "ESME_RINVSYSID",
	0x11: "ESME_RCANCELFAIL", 0x13: "ESME_RREPLACEFAIL", 0x14: "ESME_RMSGQFUL", 0x15: "ESME_RINVSERTYP", 0x33: "ESME_RINVNUMDESTS",
	0x34: "ESME_RINVDLNAME", 0x40: "ESME_RINVDESTFLAG", 0x42: "ESME_RINVSUBREP", 0x43: "ESME_RINVESMCLASS", 0x44: "ESME_RCNTSUBDL",
	0x45: "ESME_RSUBMITFAIL", 0x48: "ESME_RINVSRCTON", 0x49: "ESME_RINVSRCNPI", 0x50: "ESME_RINVDSTTON", 0x51: "ESME_RINVDSTNPI",
	0x53: "ESME_RINVSYSTYP", 0x54: "ESME_RINVREPFLAG", 0x55: "ESME_RINVNUMMSGS", 0x58: "ESME_RTHROTTLED", 0x61: "ESME_RINVSCHED",
	0x62: "ESME_RINVEXPIRY", 0x63: "ESME_RINVDFTMSGID", 0x64: "ESME_RX_T_APPN", 0x65: "ESME_RX_P_APPN", 0x66: "ESME_RX_R_APPN",
	0x67: "ESME_RQUERYFAIL", 0xc0: "ESME_RINVOPTPARSTREAM", 0xc1: "ESME_ROPTPARNOTALLWD", 0xc2: "ESME_RINVPARLEN",
	0xc3: "ESME_RMISSINGOPTPARAM", 0xc4: "ESME_RINVOPTPARAMVAL", 0xfe: "ESME_RDELIVERYFAILURE", 0xff: "ESME_RUNKNOWNERR",
}

// String writes the status as Outcome.Code holds it: "0x0000000b".
func (s Status) String() string { return fmt.Sprintf("0x%08x", uint32(s)) }

// Name is the specification's name, or "reserved" for a number it does not define.
func (s Status) Name() string {
	if name, ok := statusNames[s]; ok {
		return name
	}
	return "reserved"
}

// Outcome is what a submit_sm_resp or generic_nack with this status says about
// the message; throttled marks the provider's rate limit.
//
//	0x00                         Accepted
//	0x14, 0x58                   Deferred, throttled: the route slows down
//	0x08, 0x64, 0xff             Deferred: later, or on another route
//	0x04, 0x05, 0x0d, 0x0e, 0x0f Deferred: the bind is wrong, not the message; see [Status.Rebind]
//	otherwise defined            Refused: the same message would be refused again
//	not defined by 3.4           Deferred: nobody knows; attempts are bounded by delivery
//
// Source: channels 2.5; SMPP 3.4 5.1.3 for the statuses it does not name.
func (s Status) Outcome() (status courier.Status, throttled bool) {
	switch s {
	case StatusOK:
		return courier.Accepted, false
	case StatusQueueFull, StatusThrottled:
		return courier.Deferred, true
	case StatusSystemError, StatusTemporaryAppError, StatusUnknownError:
		return courier.Deferred, false
	case StatusInvalidBindStatus, StatusAlreadyBound, StatusBindFailed, StatusInvalidPassword, StatusInvalidSystemID:
		return courier.Deferred, false
	}
	if _, defined := statusNames[s]; defined {
		return courier.Refused, false
	}
	return courier.Deferred, false
}

// Rebind says that the bind must be made anew, and somebody be told.
// Source: channels 2.5: 0x04, 0x0D, 0x0E, 0x0F; 0x05 is of the same family.
func (s Status) Rebind() bool {
	switch s {
	case StatusInvalidBindStatus, StatusAlreadyBound, StatusBindFailed, StatusInvalidPassword, StatusInvalidSystemID:
		return true
	default:
		return false
	}
}
