package events

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws/wire"
)

// The record of an app event is written by hand: it is the busiest thing here.
// Its first part and what the client said are made outside the update, what
// tells of the endpoint inside it, once for all events of the endpoint.
//
//	start:  {"event_type":…,"application":{…,"version_code":"24"
//	device: ,"version_name":"2.4"},"client":{…},"device":{…},
//	said:   "session":{…},"attributes":{…},"metrics":{…}
//	end:    ,"client_context":{…},"awsAccountId":"…"}
//
// Members without content are left out; sdk, platform, session, attributes and
// metrics are then empty objects.
//
// Source: channels-and-events 9.1, 9.2.

// recordBytes is about what a record has besides names and values.
const recordBytes = 360

func appendStart(b []byte, of *batch, e *pinpoint.Event, at time.Time) []byte {
	b = append(b, `{"event_type":`...)
	b = wire.AppendString(b, e.EventType)
	b = append(b, `,"event_timestamp":`...)
	b = strconv.AppendInt(b, at.UnixMilli(), 10)
	b = append(b, `,"arrival_timestamp":`...)
	b = strconv.AppendInt(b, of.now.UnixMilli(), 10)
	b = append(b, `,"event_version":"3.0","application":{"app_id":`...)
	b = wire.AppendString(b, of.app)
	b = appendMember(b, `,"package_name":`, deref(e.AppPackageName))
	b = append(b, `,"sdk":{`...)
	sdk := len(b)
	b = appendMember(b, `,"name":`, deref(e.SdkName))
	b = appendMember(b, `,"version":`, deref(e.ClientSdkVersion))
	b = uncomma(b, sdk)
	b = append(b, '}')
	b = appendMember(b, `,"title":`, deref(e.AppTitle))
	return appendMember(b, `,"version_code":`, deref(e.AppVersionCode))
}

func appendSaid(b []byte, e *pinpoint.Event) []byte {
	b = append(b, `"session":{`...)
	if s := e.Session; s != nil {
		b = append(b, `"session_id":`...)
		b = wire.AppendString(b, s.Id)
		if t, ok := instant(s.StartTimestamp); ok {
			b = append(b, `,"start_timestamp":`...)
			b = strconv.AppendInt(b, t.UnixMilli(), 10)
		}
		if s.StopTimestamp != nil {
			if t, ok := instant(*s.StopTimestamp); ok {
				b = append(b, `,"stop_timestamp":`...)
				b = strconv.AppendInt(b, t.UnixMilli(), 10)
			}
		}
	}
	b = append(b, `},"attributes":{`...)
	start := len(b)
	var names [40]string
	for _, k := range sortedKeys(names[:0], e.Attributes) {
		b = append(b, ',')
		b = wire.AppendString(b, k)
		b = append(b, ':')
		b = wire.AppendString(b, e.Attributes[k])
	}
	b = uncomma(b, start)
	b = append(b, `},"metrics":{`...)
	start = len(b)
	for _, k := range sortedKeys(names[:0], e.Metrics) {
		b = append(b, ',')
		b = wire.AppendString(b, k)
		b = append(b, ':')
		b = appendNumber(b, e.Metrics[k])
	}
	b = uncomma(b, start)
	return append(b, '}')
}

// scratch holds what the records of one endpoint have in common, and the record
// in the making. It is used again and again within one update.
type scratch struct {
	client          string // id of the endpoint, as first written
	device, end     []byte
	context, buffer []byte
}

// endpoint makes the parts that tell of the endpoint; who is nil when it does
// not exist, because its patch was refused.
func (s *scratch) endpoint(b *batch, it *item, who *endpoints.Endpoint) {
	s.client = it.id
	if who != nil {
		s.client = who.ID
	}
	var d map[string]string
	if who != nil {
		d = who.Demographic
	}
	s.device = appendMember(s.device[:0], `,"version_name":`, d["AppVersion"])
	s.device = append(s.device, `},"client":{"client_id":`...)
	s.device = wire.AppendString(s.device, s.client)
	s.device = append(s.device, `},"device":{`...)
	s.device = appendLocale(s.device, d["Locale"])
	s.device = appendMember(s.device, `"make":`, d["Make"])
	if d["Make"] != "" {
		s.device = append(s.device, ',')
	}
	s.device = appendMember(s.device, `"model":`, d["Model"])
	if d["Model"] != "" {
		s.device = append(s.device, ',')
	}
	s.device = append(s.device, `"platform":{`...)
	platform := len(s.device)
	s.device = appendMember(s.device, `,"name":`, d["Platform"])
	s.device = appendMember(s.device, `,"version":`, d["PlatformVersion"])
	s.device = uncomma(s.device, platform)
	s.device = append(s.device, `}},`...)

	s.end = s.end[:0]
	if who != nil {
		s.context = appendContext(s.context[:0], who)
		s.end = append(s.end, `,"client_context":{"custom":{"endpoint":`...)
		s.end = wire.AppendString(s.end, s.context)
		s.end = append(s.end, `}}`...)
	}
	s.end = append(s.end, `,"awsAccountId":`...)
	s.end = wire.AppendString(s.end, b.account)
	s.end = append(s.end, '}')
}

// record puts an event's record together. It is good until the next call.
func (s *scratch) record(b *batch, e *event) []byte {
	s.buffer = append(s.buffer[:0], b.buf[e.start:e.mid]...)
	s.buffer = append(s.buffer, s.device...)
	s.buffer = append(s.buffer, b.buf[e.mid:e.end]...)
	s.buffer = append(s.buffer, s.end...)
	return s.buffer
}

// appendLocale writes the locale with a comma after it: en_GB, or en-GB, is
// English of GB. Absent when it is empty.
func appendLocale(b []byte, locale string) []byte {
	if locale == "" {
		return b
	}
	language, country, _ := strings.Cut(strings.ReplaceAll(locale, "-", "_"), "_")
	b = append(b, `"locale":{"code":`...)
	b = wire.AppendString(b, locale)
	b = appendMember(b, `,"country":`, country)
	b = appendMember(b, `,"language":`, language)
	return append(b, `},`...)
}

// appendContext writes the endpoint as client_context holds it, as a string.
//
// Source: channels-and-events 9.2, 9.3.
func appendContext(b []byte, e *endpoints.Endpoint) []byte {
	b = append(b, '{')
	start := len(b)
	b = appendMember(b, `,"ChannelType":`, e.ChannelType)
	b = appendMember(b, `,"EndpointStatus":`, e.Status)
	optOut := "NONE"
	if e.OptedOut {
		optOut = "ALL"
	}
	b = appendMember(b, `,"OptOut":`, optOut)
	b = appendMember(b, `,"RequestId":`, e.RequestID)
	b = appendMember(b, `,"EffectiveDate":`, e.EffectiveDate)
	if len(e.Demographic) > 0 {
		b = append(b, `,"Demographic":{`...)
		inner := len(b)
		var names [8]string
		for _, k := range sortedKeys(names[:0], e.Demographic) {
			b = append(b, ',')
			b = wire.AppendString(b, k)
			b = append(b, ':')
			b = wire.AppendString(b, e.Demographic[k])
		}
		b = uncomma(b, inner)
		b = append(b, '}')
	}
	if e.UserID != "" {
		b = append(b, `,"User":{"UserId":`...)
		b = wire.AppendString(b, e.UserID)
		b = append(b, '}')
	}
	b = uncomma(b, start)
	return append(b, '}')
}

// identify names an event by its endpoint, its id and what the client said of
// it; see the package comment. When and in which request it arrived do not
// count.
func identify(b *batch, it *item, e *event, at time.Time) [16]byte {
	var space [1024]byte
	x := space[:0]
	part := func(s string) { x = append(binary.AppendUvarint(x, uint64(len(s))), s...) }
	part(b.app)
	part(endpoints.Fold(it.id))
	part(e.id)
	part(e.in.EventType)
	x = binary.AppendVarint(x, at.UnixMilli())
	for _, p := range [...]*string{e.in.AppPackageName, e.in.AppTitle, e.in.AppVersionCode, e.in.ClientSdkVersion, e.in.SdkName} {
		part(deref(p))
	}
	x = append(x, b.buf[e.mid:e.end]...)
	sum := sha256.Sum256(x)
	return [16]byte(sum[:16])
}

func factID(id [16]byte) string { return hex.EncodeToString(id[:]) }

func sortedKeys[V any](into []string, m map[string]V) []string {
	for k := range m {
		into = append(into, k)
	}
	slices.Sort(into)
	return into
}

func deref(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}
