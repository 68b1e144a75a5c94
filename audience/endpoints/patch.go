package endpoints

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// A Patch is what one request asks of one endpoint: checked by itself and
// encoded, so that little is left to do inside the update that writes it.
// [Service.Prepare] makes it; nothing changes it afterwards.
type Patch struct {
	app     string
	key     string // of the endpoint's row
	userKey string // of the row of the user that the request names, if it does

	// What the request supplies, sorted by path. Values alias one buffer.
	sets     []set
	userSets []set // UserAttributes

	id                string
	address, channel  string
	userID            string
	addressed, joined bool // Address, User.UserId were supplied, if only to clear them
	inactive          bool
	optOut            pinpoint.OptOut // as said; empty when not
	effective         string          // as supplied and clamped; empty when not

	// complete is demanded of a row that would create an endpoint: it must have
	// an address and a channel. Imports ask for it.
	complete bool
	made     bool // the id is not the client's

	byAddress, byUser store.Index // of what was supplied
}

// set is one member's new value; nil removes the member.
type set struct {
	path     string
	value    []byte
	onCreate bool // only when the endpoint did not exist
}

// Prepare checks a request as far as the request alone can tell, and encodes
// it. An EffectiveDate ahead of now becomes now. Faults name the member and
// never repeat a value.
//
// Source: engagement 2.1 to 2.3.
func (s *Service) Prepare(app, id string, req *pinpoint.EndpointRequest, requestID string) (*Patch, error) {
	p := &Patch{app: app, id: id}
	b := patcher{p: p, limits: &s.limits, buf: make([]byte, 0, 384)}
	if err := b.build(req, requestID, s.now()); err != nil {
		return nil, err
	}
	p.key = Key(s.store, app, id)
	if p.userID != "" {
		p.userKey = UserKey(s.store, app, p.userID)
	}
	p.hash(s.store)
	return p, nil
}

// hash makes the index values that the patch may be written under.
func (p *Patch) hash(st *store.Store) {
	if p.address != "" && p.channel != "" {
		p.byAddress = st.Hashed(KindEndpoint, ByAddress(p.app, p.channel, p.address))
	}
	if p.userID != "" {
		p.byUser = st.Hashed(KindEndpoint, ByUser(p.app, p.userID))
	}
}

// addressIndex and userIndex are ByAddress and ByUser, made in advance where the
// patch supplied the value.
func (p *Patch) addressIndex(channel, address string) store.Index {
	if channel == p.channel && address == p.address && p.byAddress.Name != "" {
		return p.byAddress
	}
	return ByAddress(p.app, channel, address)
}

func (p *Patch) userIndex(userID string) store.Index {
	if userID == p.userID && p.byUser.Name != "" {
		return p.byUser
	}
	return ByUser(p.app, userID)
}

// Touches are the rows that writing the patch will read.
func (p *Patch) Touches() []store.Touch {
	t := make([]store.Touch, 0, 4)
	t = append(t, store.Touch{Kind: KindEndpoint, Key: p.key})
	if p.address != "" && p.channel != "" && !p.inactive {
		t = append(t, store.Touch{Kind: KindEndpoint, Index: p.byAddress})
	}
	if p.userID != "" {
		t = append(t, store.Touch{Kind: KindEndpoint, Index: p.byUser})
		if len(p.userSets) > 0 {
			t = append(t, store.Touch{Kind: KindUser, Key: p.userKey})
		}
	}
	return t
}

// patcher builds a patch. It adds the members in the order of their paths.
type patcher struct {
	p      *Patch
	limits *Limits
	buf    []byte // backs the values
}

func (b *patcher) build(req *pinpoint.EndpointRequest, requestID string, now time.Time) error {
	p := b.p
	if err := checkID(p.id); err != nil {
		return err
	}
	if err := b.remember(req, now); err != nil {
		return err
	}
	date := aws.Timestamp(now)
	p.sets = make([]set, 0, 8+len(req.Attributes)+len(req.Metrics)+8)
	b.text(pathAddress, req.Address)
	if err := b.lists(&p.sets, prefixAttributes, req.Attributes); err != nil {
		return err
	}
	if p.channel != "" {
		b.add(set{path: pathChannelType, value: b.bytes(p.channel)})
	}
	b.add(set{path: pathCreationDate, value: b.bytes(date), onCreate: true})
	if d := req.Demographic; d != nil {
		b.text(prefixDemographic+"AppVersion", d.AppVersion)
		b.text(prefixDemographic+"Locale", d.Locale)
		b.text(prefixDemographic+"Make", d.Make)
		b.text(prefixDemographic+"Model", d.Model)
		b.text(prefixDemographic+"ModelVersion", d.ModelVersion)
		b.text(prefixDemographic+"Platform", d.Platform)
		b.text(prefixDemographic+"PlatformVersion", d.PlatformVersion)
		b.text(prefixDemographic+"Timezone", d.Timezone)
	}
	if p.effective != "" {
		date = p.effective
	}
	b.add(set{path: pathEffectiveDate, value: b.bytes(date)})
	status := statusActive
	if p.inactive {
		status = statusInactive
	}
	b.add(set{path: pathStatus, value: b.bytes(status)})
	b.add(set{path: pathID, value: b.bytes(p.id), onCreate: true})
	if l := req.Location; l != nil {
		b.text(prefixLocation+"City", l.City)
		b.text(prefixLocation+"Country", l.Country)
		if err := b.coordinate(pathLatitude, l.Latitude); err != nil {
			return err
		}
		if err := b.coordinate(pathLongitude, l.Longitude); err != nil {
			return err
		}
		b.text(prefixLocation+"PostalCode", l.PostalCode)
		b.text(prefixLocation+"Region", l.Region)
	}
	if err := b.metrics(req.Metrics); err != nil {
		return err
	}
	if req.RequestId != nil {
		requestID = *req.RequestId
	}
	b.add(set{path: pathRequestID, value: b.bytes(requestID)})
	if req.User != nil {
		b.text(pathUserID, req.User.UserId)
		if err := b.lists(&p.userSets, prefixUserAttrs, req.User.UserAttributes); err != nil {
			return err
		}
	}
	return nil
}

// remember keeps what the rules ask for by name.
func (b *patcher) remember(req *pinpoint.EndpointRequest, now time.Time) error {
	p := b.p
	if req.Address != nil {
		p.address, p.addressed = *req.Address, true
	}
	p.channel = string(req.ChannelType)
	if p.channel != "" && !knownChannel(p.channel) {
		return aws.InvalidMember("ChannelType", "ChannelType: unknown channel type")
	}
	switch req.EndpointStatus {
	case "", statusActive:
	case statusInactive:
		p.inactive = true
	default:
		return aws.InvalidMember("EndpointStatus", "EndpointStatus: expected ACTIVE or INACTIVE")
	}
	switch req.OptOut {
	case "", pinpoint.OptOutAll, pinpoint.OptOutNone:
		p.optOut = req.OptOut
	default:
		return aws.InvalidMember("OptOut", "OptOut: expected ALL or NONE")
	}
	if req.User != nil && req.User.UserId != nil {
		p.userID, p.joined = *req.User.UserId, true
		if len(p.userID) > idBytesMax {
			return aws.InvalidMember("User.UserId", "User.UserId: longer than %d bytes", idBytesMax)
		}
	}
	if req.EffectiveDate != nil && *req.EffectiveDate != "" {
		at, err := aws.ParseTimestamp(*req.EffectiveDate)
		if err != nil || at.Year() < 0 || at.Year() > 9999 {
			return aws.InvalidMember("EffectiveDate", "EffectiveDate: expected an ISO 8601 instant")
		}
		if at.After(now) {
			at = now
		}
		p.effective = aws.Timestamp(at)
	}
	return nil
}

func (b *patcher) add(s set) { b.p.sets = append(b.p.sets, s) }

// bytes copies s into the shared buffer; values that were handed out stay valid
// when it grows.
func (b *patcher) bytes(s string) []byte {
	n := len(b.buf)
	b.buf = append(b.buf, s...)
	return b.buf[n:len(b.buf):len(b.buf)]
}

// text adds a string member when it was supplied; an empty string clears it.
func (b *patcher) text(path string, v *string) {
	switch {
	case v == nil:
	case *v == "":
		b.add(set{path: path})
	default:
		b.add(set{path: path, value: b.bytes(*v)})
	}
}

// coordinate adds a coordinate with one decimal. Source: engagement 2.1.
func (b *patcher) coordinate(path string, v *float64) error {
	if v == nil {
		return nil
	}
	if math.IsNaN(*v) || math.IsInf(*v, 0) {
		return aws.InvalidMember(path, "%s: expected a number", path)
	}
	b.add(set{path: path, value: encodeNumber(math.Round(*v*10) / 10)})
	return nil
}

// lists adds attributes; an empty array removes the name.
func (b *patcher) lists(to *[]set, prefix string, lists map[string][]string) error {
	if len(lists) == 0 {
		return nil
	}
	if *to == nil {
		*to = make([]set, 0, len(lists))
	}
	start := len(*to)
	for name, values := range lists {
		if err := b.checkName(prefix, name); err != nil {
			return err
		}
		if len(values) > b.limits.ValuesPerName {
			return aws.InvalidMember(prefix+name, "%s%s: more than %d values", prefix, name, b.limits.ValuesPerName)
		}
		s := set{path: prefix + name}
		if len(values) > 0 {
			n := len(b.buf)
			b.buf = binary.AppendUvarint(b.buf, uint64(len(values)))
			for _, v := range values {
				if len(v) > b.limits.ValueLength && utf8.RuneCountInString(v) > b.limits.ValueLength {
					return aws.InvalidMember(prefix+name, "%s%s: a value is longer than %d characters", prefix, name, b.limits.ValueLength)
				}
				b.buf = append(binary.AppendUvarint(b.buf, uint64(len(v))), v...)
			}
			s.value = b.buf[n:len(b.buf):len(b.buf)]
		}
		*to = append(*to, s)
	}
	sortSets((*to)[start:])
	return nil
}

func (b *patcher) metrics(metrics map[string]float64) error {
	start := len(b.p.sets)
	for name, v := range metrics {
		if err := b.checkName(prefixMetrics, name); err != nil {
			return err
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return aws.InvalidMember(prefixMetrics+name, "%s%s: expected a number", prefixMetrics, name)
		}
		n := len(b.buf)
		b.buf = binary.BigEndian.AppendUint64(b.buf, math.Float64bits(v))
		b.add(set{path: prefixMetrics + name, value: b.buf[n:len(b.buf):len(b.buf)]})
	}
	sortSets(b.p.sets[start:])
	return nil
}

func sortSets(sets []set) {
	if len(sets) > 1 {
		slices.SortFunc(sets, func(x, y set) int { return strings.Compare(x.path, y.path) })
	}
}

func (b *patcher) checkName(prefix, name string) error {
	if name == "" {
		return aws.InvalidMember(prefix, "%s: a name is empty", strings.TrimSuffix(prefix, "."))
	}
	if len(name) > b.limits.NameLength && utf8.RuneCountInString(name) > b.limits.NameLength {
		return aws.InvalidMember(prefix, "%s: a name is longer than %d characters", strings.TrimSuffix(prefix, "."), b.limits.NameLength)
	}
	return nil
}

// checkID refuses what cannot be an endpoint's id. Source: engagement 2.1.
func checkID(id string) error {
	switch {
	case id == "":
		return aws.InvalidMember("Id", "Id: an endpoint needs an id")
	case len(id) > idBytesMax:
		return aws.InvalidMember("Id", "Id: longer than %d bytes", idBytesMax)
	case strings.ContainsAny(id, "${}"):
		return aws.InvalidMember("Id", "Id: an endpoint id may not contain $, { or }")
	}
	return nil
}

func knownChannel(c string) bool {
	switch pinpoint.ChannelType(c) {
	case pinpoint.ChannelTypePush, pinpoint.ChannelTypeGcm, pinpoint.ChannelTypeApns,
		pinpoint.ChannelTypeApnsSandbox, pinpoint.ChannelTypeApnsVoip, pinpoint.ChannelTypeApnsVoipSandbox,
		pinpoint.ChannelTypeAdm, pinpoint.ChannelTypeSms, pinpoint.ChannelTypeVoice, pinpoint.ChannelTypeEmail,
		pinpoint.ChannelTypeBaidu, pinpoint.ChannelTypeCustom, pinpoint.ChannelTypeInApp:
		return true
	}
	return false
}

// evictable reports whether a channel's endpoints make room for a user's
// sixteenth. Source: engagement 2.3, 13.7.
func evictable(channel string) bool {
	switch pinpoint.ChannelType(channel) {
	case pinpoint.ChannelTypeAdm, pinpoint.ChannelTypeGcm, pinpoint.ChannelTypeBaidu,
		pinpoint.ChannelTypeApns, pinpoint.ChannelTypeApnsSandbox,
		pinpoint.ChannelTypeApnsVoip, pinpoint.ChannelTypeApnsVoipSandbox:
		return true
	}
	return false
}

// assign returns the registers with the sets applied at a stamp; both are
// sorted by path. A value that is already there keeps its stamp, so that it
// does not outvote what another Region changes meanwhile.
func assign(regs []changelog.Register, sets []set, created bool, at changelog.Stamp) []changelog.Register {
	out := make([]changelog.Register, 0, len(regs)+len(sets))
	for _, s := range sets {
		if s.onCreate && !created {
			continue
		}
		for len(regs) > 0 && regs[0].Path < s.path {
			out, regs = append(out, regs[0]), regs[1:]
		}
		if len(regs) == 0 || regs[0].Path != s.path {
			if s.value != nil {
				out = append(out, changelog.Register{Path: s.path, Value: s.value, At: at})
			}
			continue
		}
		old := regs[0]
		regs = regs[1:]
		if (old.Value == nil) != (s.value == nil) || string(old.Value) != string(s.value) {
			old.Value, old.Over, old.At = s.value, old.At, at
		}
		out = append(out, old)
	}
	return append(out, regs...)
}

// apply returns the record as the patch, with the sets that are left of it once
// blocked names are gone, leaves it: only what was supplied
// changes, an array is replaced whole, an opt-out is recorded and an opt-in
// revokes what the record holds. It fails when the result could not be an
// endpoint. The stamp must be above the record's latest.
//
// Without an explicit word an endpoint with an address receives and one
// without does not; that is read off the address and never recorded, so it can
// neither stand against a later address nor revoke an explicit opt-out.
//
// Source: engagement 2.2, 13.19; design 5, Merge rules.
func apply(r *changelog.Record, p *Patch, sets []set, at changelog.Stamp) (changelog.Record, error) {
	out := *r
	created := !r.Live()
	out.Registers = assign(r.Registers, sets, created, at)
	_, addressed := out.Get(pathAddress)
	_, channelled := out.Get(pathChannelType)
	switch {
	case p.complete && created && !addressed:
		return out, aws.InvalidMember("Address", "Missing Address: a new endpoint needs Address and ChannelType")
	case (addressed || p.complete && created) && !channelled:
		return out, aws.InvalidMember("ChannelType", "Missing ChannelType")
	case p.optOut == pinpoint.OptOutNone && !addressed:
		return out, aws.InvalidMember("Address", "Missing Address")
	}
	switch p.optOut {
	case pinpoint.OptOutAll:
		out.OptOut = r.OptOut.Record(at)
	case pinpoint.OptOutNone:
		if len(r.OptOut) > 0 {
			out.OptOut = r.OptOut.Revoke()
		}
	}
	return out, nil
}

// stale reports whether the patch says that it is older than what is stored;
// it is then accepted and ignored. Dates have one form and sort as text.
//
// Source: engagement 2.2, Effective date.
func stale(r *changelog.Record, p *Patch) bool {
	stored, ok := r.Get(pathEffectiveDate)
	return ok && p.effective != "" && p.effective < string(stored)
}

func is(r *changelog.Record, path, value string) bool {
	v, ok := r.Get(path)
	return ok && string(v) == value
}

func textOf(r *changelog.Record, path string) string {
	v, _ := r.Get(path)
	return string(v)
}

// bytesOf is the size that the limit of an endpoint counts.
func bytesOf(r *changelog.Record, prefix string) int {
	n := 0
	for path, v := range r.Prefix(prefix) {
		n += len(path) + len(v)
	}
	return n
}
