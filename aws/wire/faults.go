package wire

import (
	"context"
	"errors"
	"reflect"
	"strings"

	"github.com/everpoint/everpoint/aws"
)

// answer is what a fault of some kind is called, and its HTTP status.
type answer struct {
	code   string
	status int
}

// answers turn kinds into exceptions, service by service. A kind that a service
// does not list is answered as its protocol does, further down.
//
// Sources: engagement 12; channels-and-events 0 and 6.2; access 7.1, 7.2; the
// models' error shapes.
var answers = map[string]map[aws.Kind]answer{
	"pinpoint": {
		aws.KindInternal:         {"InternalServerErrorException", 500},
		aws.KindInvalid:          {"BadRequestException", 400},
		aws.KindNotFound:         {"NotFoundException", 404},
		aws.KindConflict:         {"ConflictException", 409},
		aws.KindForbidden:        {"ForbiddenException", 403},
		aws.KindTooLarge:         {"PayloadTooLargeException", 413},
		aws.KindThrottled:        {"TooManyRequestsException", 429},
		aws.KindQuota:            {"BadRequestException", 400},
		aws.KindMethodNotAllowed: {"MethodNotAllowedException", 405},
	},
	"everpoint": {
		aws.KindInternal:  {"InternalServerErrorException", 500},
		aws.KindInvalid:   {"BadRequestException", 400},
		aws.KindNotFound:  {"NotFoundException", 404},
		aws.KindConflict:  {"ConflictException", 409},
		aws.KindForbidden: {"AccessDeniedException", 403},
		aws.KindThrottled: {"TooManyRequestsException", 429},
		aws.KindQuota:     {"BadRequestException", 400},
	},
	"smsvoice": {
		aws.KindInternal:  {"InternalServiceErrorException", 500},
		aws.KindInvalid:   {"BadRequestException", 400},
		aws.KindNotFound:  {"NotFoundException", 404},
		aws.KindConflict:  {"AlreadyExistsException", 409},
		aws.KindForbidden: {"BadRequestException", 400},
		aws.KindThrottled: {"TooManyRequestsException", 429},
		aws.KindQuota:     {"LimitExceededException", 412},
	},
	"pinpointemail": {
		aws.KindInternal:  {"InternalServiceErrorException", 500},
		aws.KindInvalid:   {"BadRequestException", 400},
		aws.KindNotFound:  {"NotFoundException", 404},
		aws.KindConflict:  {"AlreadyExistsException", 400},
		aws.KindForbidden: {"AccountSuspendedException", 400},
		aws.KindTooLarge:  {"BadRequestException", 400},
		aws.KindThrottled: {"TooManyRequestsException", 429},
		aws.KindQuota:     {"LimitExceededException", 400},
	},
	"smsvoicev2": {
		aws.KindInternal:  {"InternalServerException", 500},
		aws.KindInvalid:   {"ValidationException", 400},
		aws.KindNotFound:  {"ResourceNotFoundException", 400},
		aws.KindConflict:  {"ConflictException", 400},
		aws.KindForbidden: {"AccessDeniedException", 400},
		aws.KindTooLarge:  {"ValidationException", 400},
		aws.KindThrottled: {"ThrottlingException", 400},
		aws.KindQuota:     {"ServiceQuotaExceededException", 400},
	},
	"cloudtrail": {
		aws.KindInvalid:   {"InvalidParameterException", 400},
		aws.KindNotFound:  {"ResourceNotFoundException", 400},
		aws.KindConflict:  {"ConflictException", 409},
		aws.KindForbidden: {"OperationNotPermittedException", 400},
		aws.KindThrottled: {"ThrottlingException", 429},
		aws.KindQuota:     {"ServiceQuotaExceededException", 400},
	},
	"cognitoidentity": {
		aws.KindInternal:  {"InternalErrorException", 500},
		aws.KindInvalid:   {"InvalidParameterException", 400},
		aws.KindNotFound:  {"ResourceNotFoundException", 404},
		aws.KindConflict:  {"ResourceConflictException", 409},
		aws.KindForbidden: {"NotAuthorizedException", 403},
		aws.KindThrottled: {"TooManyRequestsException", 429},
		aws.KindQuota:     {"LimitExceededException", 400},
	},
	"personalizeruntime": {
		aws.KindInvalid:  {"InvalidInputException", 400},
		aws.KindNotFound: {"ResourceNotFoundException", 404},
	},
	"iam": {
		aws.KindInternal:  {"ServiceFailure", 500},
		aws.KindNotFound:  {"NoSuchEntity", 404},
		aws.KindConflict:  {"EntityAlreadyExists", 409},
		aws.KindForbidden: {"UnmodifiableEntity", 400},
		aws.KindQuota:     {"LimitExceeded", 409},
	},
	"cloudwatch": {
		aws.KindInternal: {"InternalServiceError", 500},
		aws.KindInvalid:  {"InvalidParameterValue", 400},
		aws.KindNotFound: {"ResourceNotFound", 404},
		aws.KindQuota:    {"LimitExceeded", 400},
	},
}

// restAnswers hold for restJson1 where a service has no word of its own.
// Source: access 1.7.
var restAnswers = map[aws.Kind]answer{
	aws.KindInternal:            {"InternalFailure", 500},
	aws.KindInvalid:             {"BadRequestException", 400},
	aws.KindNotFound:            {"NotFoundException", 404},
	aws.KindConflict:            {"ConflictException", 409},
	aws.KindForbidden:           {"ForbiddenException", 403},
	aws.KindTooLarge:            {"PayloadTooLargeException", 413},
	aws.KindThrottled:           {"TooManyRequestsException", 429},
	aws.KindQuota:               {"LimitExceededException", 400},
	aws.KindMethodNotAllowed:    {"MethodNotAllowedException", 405},
	aws.KindUnknownOperation:    {"UnknownOperationException", 404},
	aws.KindNotImplemented:      {"NotImplementedException", 501},
	aws.KindUnavailable:         {"ServiceUnavailableException", 503},
	aws.KindMissingToken:        {"MissingAuthenticationTokenException", 403},
	aws.KindIncompleteSignature: {"IncompleteSignatureException", 403},
	aws.KindUnknownKey:          {"UnrecognizedClientException", 403},
	aws.KindBadSignature:        {"InvalidSignatureException", 403},
	aws.KindExpiredToken:        {"ExpiredTokenException", 403},
	aws.KindRequestExpired:      {"InvalidSignatureException", 403},
	aws.KindDenied:              {"AccessDeniedException", 403},
}

// jsonAnswers hold for awsJson. Source: access 1.7; that v2 answers 400 to
// everything but its own failures, channels-and-events 0.
var jsonAnswers = map[aws.Kind]answer{
	aws.KindInternal:            {"InternalFailure", 500},
	aws.KindInvalid:             {"ValidationException", 400},
	aws.KindNotFound:            {"ResourceNotFoundException", 400},
	aws.KindConflict:            {"ConflictException", 400},
	aws.KindForbidden:           {"AccessDeniedException", 400},
	aws.KindTooLarge:            {"RequestEntityTooLargeException", 413},
	aws.KindThrottled:           {"ThrottlingException", 400},
	aws.KindQuota:               {"LimitExceededException", 400},
	aws.KindMethodNotAllowed:    {"MethodNotAllowedException", 400},
	aws.KindUnknownOperation:    {"UnknownOperationException", 400},
	aws.KindNotImplemented:      {"NotImplementedException", 501},
	aws.KindUnavailable:         {"ServiceUnavailableException", 503},
	aws.KindMissingToken:        {"MissingAuthenticationTokenException", 400},
	aws.KindIncompleteSignature: {"IncompleteSignatureException", 400},
	aws.KindUnknownKey:          {"UnrecognizedClientException", 400},
	aws.KindBadSignature:        {"InvalidSignatureException", 400},
	aws.KindExpiredToken:        {"ExpiredTokenException", 400},
	aws.KindRequestExpired:      {"InvalidSignatureException", 400},
	aws.KindDenied:              {"AccessDeniedException", 400},
}

// queryAnswers hold for awsQuery. Source: access 1.7, 7.1, 7.2.
var queryAnswers = map[aws.Kind]answer{
	aws.KindInternal:            {"InternalFailure", 500},
	aws.KindInvalid:             {"ValidationError", 400},
	aws.KindNotFound:            {"ResourceNotFound", 404},
	aws.KindConflict:            {"Conflict", 409},
	aws.KindForbidden:           {"AccessDenied", 403},
	aws.KindTooLarge:            {"RequestEntityTooLarge", 413},
	aws.KindThrottled:           {"Throttling", 400},
	aws.KindQuota:               {"LimitExceeded", 400},
	aws.KindMethodNotAllowed:    {"MethodNotAllowed", 405},
	aws.KindUnknownOperation:    {"InvalidAction", 400},
	aws.KindNotImplemented:      {"NotImplemented", 501},
	aws.KindUnavailable:         {"ServiceUnavailable", 503},
	aws.KindMissingToken:        {"MissingAuthenticationToken", 403},
	aws.KindIncompleteSignature: {"IncompleteSignature", 400},
	aws.KindUnknownKey:          {"InvalidClientTokenId", 403},
	aws.KindBadSignature:        {"SignatureDoesNotMatch", 403},
	aws.KindExpiredToken:        {"ExpiredToken", 403},
	aws.KindRequestExpired:      {"RequestExpired", 400},
	aws.KindDenied:              {"AccessDenied", 403},
}

// reasons are what SMS and Voice v2 must say beside a fault of some kind; rooms
// that know better return the generated exception. Source: channels-and-events 6.2.
var reasons = map[aws.Kind]string{
	aws.KindInvalid:  "INVALID_PARAMETER",
	aws.KindTooLarge: "MAXIMUM_SIZE_EXCEEDED",
	aws.KindConflict: "RESOURCE_MODIFICATION_NOT_ALLOWED",
}

func (m *Match) answer(k aws.Kind) answer {
	if m.Service != nil {
		if a, ok := answers[m.Service.Package][k]; ok {
			return a
		}
	}
	table := restAnswers
	switch m.Protocol {
	case AWSJSON10, AWSJSON11:
		table = jsonAnswers
	case AWSQuery:
		table = queryAnswers
	}
	if a, ok := table[k]; ok {
		return a
	}
	return table[aws.KindInternal]
}

// internal reports an error that is nobody's business but the operator's: no
// exception, and no fault of another kind.
func internal(err error) bool {
	if _, ok := errors.AsType[Exception](err); ok {
		return false
	}
	return kindOf(err) == aws.KindInternal
}

// kindOf is aws.KindOf, save that a request which ran out of time found the
// node unable to serve it, rather than broken.
func kindOf(err error) aws.Kind {
	k := aws.KindOf(err)
	if k == aws.KindInternal && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		return aws.KindUnavailable
	}
	return k
}

// problem is an error on its way out, before a protocol writes it.
type problem struct {
	answer
	message   string
	kind      aws.Kind
	server    bool
	exception any     // the generated exception, or nil
	shape     *Schema // of the exception
	invalid   *invalid
	member    string
}

func (m *Match) problem(err error) problem {
	if x, ok := errors.AsType[Exception](err); ok {
		s := x.Exception()
		return problem{answer: answer{s.Code, s.Status}, server: s.Server, exception: x, shape: s, kind: aws.KindInvalid}
	}
	k := kindOf(err)
	p := problem{answer: m.answer(k), kind: k, server: m.answer(k).status >= 500}
	p.invalid, _ = errors.AsType[*invalid](err)
	if f, ok := errors.AsType[*aws.Fault](err); ok {
		p.message, p.member = f.Message, f.Member
	}
	switch {
	case k == aws.KindInternal:
		p.message = "An internal error occurred. The request id identifies it in the server's log."
	case p.message == "" && k == aws.KindUnavailable:
		p.message = "The request could not be completed in time."
	case p.message == "" && k == aws.KindMissingToken && m.Protocol == AWSQuery:
		p.message = "Request is missing Authentication Token"
	case p.message == "" && k == aws.KindMissingToken:
		p.message = "Missing Authentication Token"
	}
	return p
}

// Fail encodes an error in the matched service's words: a generated exception
// as it is, a fault by its kind, anything else as an internal error without
// detail.
func (m *Match) Fail(requestID string, err error) *Response {
	p := m.problem(err)
	if m.Protocol == AWSQuery {
		return m.failXML(p, requestID)
	}
	return m.failJSON(p, requestID)
}

// authKind reports the faults that say their message in lower case. Source: access 1.7.
func authKind(k aws.Kind) bool { return k >= aws.KindMissingToken && k < aws.KindDenied }

func (m *Match) failJSON(p problem, id string) *Response {
	resp := &Response{Status: p.status, Header: header(id, jsonTypes[m.Protocol])}
	w := writer{b: make([]byte, 0, 256)}
	w.b = append(w.b, '{')
	first := true
	add := func(key string, value []byte) {
		if !first {
			w.b = append(w.b, ',')
		}
		first = false
		w.b = AppendString(w.b, key)
		w.b = append(w.b, ':')
		w.b = append(w.b, value...)
	}
	text := func(key, value string) { add(key, AppendString(nil, value)) }
	if m.Protocol == RestJSON1 {
		// The name is canonical for Go; on the wire header names have no case.
		resp.Header["X-Amzn-Errortype"] = []string{p.code}
	} else {
		text("__type", p.code)
	}
	switch {
	case p.exception != nil:
		v := reflect.New(reflect.TypeOf(p.exception).Elem()).Elem()
		v.Set(reflect.ValueOf(p.exception).Elem())
		pl := planFor(v.Type(), p.shape)
		for i := range pl.fields {
			f := &pl.fields[i]
			fv := v.Field(f.index)
			if f.kind == String && !f.ptr && fv.String() == "" && strings.EqualFold(f.name, "requestid") {
				fv.SetString(id)
			}
		}
		inner := writer{}
		if err := inner.structure(pl, v, true); err == nil && len(inner.b) > 2 {
			if !first {
				w.b = append(w.b, ',')
			}
			w.b = append(w.b, inner.b[1:len(inner.b)-1]...)
		}
	case authKind(p.kind):
		text("message", p.message)
	case p.kind == aws.KindDenied:
		text("Message", p.message)
	default:
		text(m.messageKey(p), p.message)
		m.extras(p, id, text, add)
	}
	w.b = append(w.b, '}')
	resp.Body = w.b
	return resp
}

// messageKey is how the exception's shape spells its message.
func (m *Match) messageKey(p problem) string {
	if m.Op != nil {
		for _, s := range m.Op.Errors {
			if s.Code == p.code {
				for i := range s.Members {
					if strings.EqualFold(s.Members[i].Name, "message") {
						return s.Members[i].Name
					}
				}
			}
		}
	}
	switch {
	case m.Service == nil:
		return "message"
	case m.Service.Package == "pinpointemail", m.Service.Package == "cognitoidentity", m.Service.Package == "personalizeruntime":
		return "message"
	}
	return "Message"
}

// extras are what some services say beside the message.
func (m *Match) extras(p problem, id string, text func(k, v string), add func(string, []byte)) {
	if m.Service == nil {
		return
	}
	switch m.Service.Package {
	case "pinpoint", "everpoint":
		text("RequestID", id)
	case "smsvoicev2":
		if p.kind == aws.KindInternal {
			text("RequestId", id)
		}
		reason := reasons[p.kind]
		if p.kind == aws.KindInvalid {
			switch {
			case p.invalid != nil && p.invalid.syntax:
				reason = "CANNOT_PARSE"
			case p.invalid != nil && len(p.invalid.violations) > 0 && p.invalid.violations[0].missing:
				reason = "MISSING_PARAMETER"
			case p.member == "NextToken":
				reason = "INVALID_NEXT_TOKEN"
			}
		}
		if reason != "" {
			text("Reason", reason)
		}
		if p.kind != aws.KindInvalid {
			return
		}
		var fields []violation
		if p.invalid != nil {
			fields = p.invalid.violations
		} else if p.member != "" {
			fields = []violation{{member: p.member, what: p.message}}
		}
		if len(fields) == 0 {
			return
		}
		b := []byte{'['}
		for i, f := range fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `{"Name":`...)
			b = AppendString(b, f.member)
			b = append(b, `,"Message":`...)
			b = AppendString(b, f.what)
			b = append(b, '}')
		}
		add("Fields", append(b, ']'))
	}
}

func (m *Match) failXML(p problem, id string) *Response {
	ns := "https://iam.amazonaws.com/doc/2010-05-08/"
	if m.Service != nil {
		ns = m.Service.XMLNamespace
	}
	w := &xmlWriter{}
	w.b = append(w.b, `<ErrorResponse xmlns="`...)
	w.text(ns)
	w.b = append(w.b, `"><Error>`...)
	side := "Sender"
	if p.server {
		side = "Receiver"
	}
	w.leaf("Type", side)
	w.leaf("Code", p.code)
	if p.exception == nil {
		w.leaf("Message", p.message)
	} else {
		v := reflect.ValueOf(p.exception).Elem()
		pl := planFor(v.Type(), p.shape)
		for i := range pl.fields {
			f := &pl.fields[i]
			fv := v.Field(f.index)
			if f.ptr {
				if fv.IsNil() {
					continue
				}
				fv = fv.Elem()
			}
			name := f.name
			if strings.EqualFold(name, "message") {
				name = "Message"
			}
			if err := w.value(name, f.plan, fv); err != nil {
				m.log().Error("exception not encodable", "operation", m.name(), "request_id", id, "error", err)
			}
		}
	}
	w.close("Error")
	w.leaf("RequestId", id)
	w.close("ErrorResponse")
	return &Response{Status: p.status, Header: header(id, "text/xml"), Body: w.b}
}
