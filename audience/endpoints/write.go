package endpoints

import (
	"fmt"
	"slices"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// Upsert creates or merges an endpoint within an update. A fault means that
// nothing was written, and the update may go on. The caller has checked that
// the app exists. [Service.Prepare] and [Service.Write] are the same in two
// steps, of which the first, and longer, need not be inside the update.
//
// Source: engagement 2.2; channels-and-events 10, Endpoint piggyback.
func (s *Service) Upsert(tx *store.Tx, app, id string, req *pinpoint.EndpointRequest, requestID string) error {
	p, err := s.Prepare(app, id, req, requestID)
	if err != nil {
		return err
	}
	return s.Write(tx, p)
}

// Touches are the rows that Upsert of the request will read.
func (s *Service) Touches(app, id string, req *pinpoint.EndpointRequest) []store.Touch {
	p := Patch{app: app, key: Key(s.store, app, id), channel: string(req.ChannelType)}
	if req.Address != nil {
		p.address = *req.Address
	}
	if req.User != nil && req.User.UserId != nil {
		p.userID = *req.User.UserId
		p.userKey = UserKey(s.store, app, p.userID)
		p.userSets = make([]set, len(req.User.UserAttributes))
	}
	p.hash(s.store)
	return p.Touches()
}

// Write writes a patch. A fault means that nothing was written.
func (s *Service) Write(tx *store.Tx, p *Patch) error {
	_, err := s.write(tx, p)
	return err
}

// write is Write, and says which channel the endpoint has now.
func (s *Service) write(tx *store.Tx, p *Patch) (channel string, err error) {
	known, err := s.memory.namesOf(tx, p.app)
	if err != nil {
		return "", err
	}
	w := write{s: s, tx: tx, p: p, sets: known.strip(p.sets), userSets: known.strip(p.userSets)}
	if err := w.load(); err != nil {
		return "", err
	}
	if stale(&w.was, p) {
		return textOf(&w.was, pathChannelType), w.optOutOnly()
	}
	fresh := known.fresh(known.fresh(nil, w.sets), w.userSets)
	if err := known.admit(fresh, s.limits.NamesPerApp); err != nil {
		return "", err
	}
	if err := w.decide(); err != nil {
		return "", err
	}
	if len(fresh) > 0 {
		if err := known.add(tx, p.app, fresh); err != nil {
			return "", err
		}
	}
	return w.channel, w.put()
}

// write is one patch on its way: what was there, and what will be.
type write struct {
	s              *Service
	tx             *store.Tx
	p              *Patch
	sets, userSets []set

	was, is changelog.Record
	at      changelog.Stamp

	userKey       string // of the user the endpoint will belong to; empty for none
	userID        string
	user          changelog.Record // read only when user attributes change
	userChanges   bool
	losers        []string // keys of earlier holders of the address
	evict         string   // key of the endpoint that makes room for a user's sixteenth
	channel, addr string
}

func (w *write) load() error {
	body, err := w.tx.Get(KindEndpoint, w.p.key)
	if err != nil || body == nil {
		return err
	}
	if w.was, err = changelog.DecodeRecord(body); err != nil {
		return fmt.Errorf("read endpoint: %w", err)
	}
	return nil
}

// optOutOnly takes nothing but an explicit opt-out from a patch that is older
// than what is stored: whoever wants nothing more must not be missed because a
// message was late. An opt-in does not count from the past.
//
// Departs: docs/divergences.md#late-opt-out.
func (w *write) optOutOnly() error {
	if w.p.optOut != pinpoint.OptOutAll || w.was.OptOut.Active() {
		return nil
	}
	r := w.was
	r.OptOut = r.OptOut.Record(w.tx.Stamp(r.Latest()))
	return w.p.put(w.tx, optingOut(KindEndpoint), w.p.key, &r)
}

// decide makes the new record and finds out who else changes. It writes nothing.
func (w *write) decide() error {
	p := w.p
	w.addr, w.channel, w.userID, w.userKey = p.address, p.channel, p.userID, p.userKey
	live := w.was.Live()
	if live {
		if !p.addressed {
			w.addr = textOf(&w.was, pathAddress)
		}
		if p.channel == "" {
			w.channel = textOf(&w.was, pathChannelType)
		}
		if !p.joined {
			if w.userID = textOf(&w.was, pathUserID); w.userID != "" && len(w.userSets) > 0 {
				w.userKey = UserKey(w.tx, p.app, w.userID)
			}
		}
	}
	seen := make([]changelog.Stamp, 1, 4)
	seen[0] = w.was.Latest()
	seen, err := w.findLosers(seen)
	if err != nil {
		return err
	}
	if seen, err = w.findRoom(live, seen); err != nil {
		return err
	}
	if seen, err = w.joinUser(seen); err != nil {
		return err
	}
	w.at = w.tx.Stamp(seen...)
	if w.is, err = apply(&w.was, p, w.sets, w.at); err != nil {
		return err
	}
	if w.userChanges {
		w.user.Registers = assign(w.user.Registers, w.userSets, !w.user.Live(), w.at)
	}
	if n := bytesOf(&w.is, "") + bytesOf(&w.user, prefixUserAttrs); n > w.s.limits.EndpointBytes {
		return aws.Quota("The endpoint has %d bytes, more than %d", n, w.s.limits.EndpointBytes)
	}
	return nil
}

// findLosers finds the other active holders of the address on this channel:
// only the newest holder stays active.
//
// Source: engagement 2.2, Status rules; 13.24.
func (w *write) findLosers(seen []changelog.Stamp) ([]changelog.Stamp, error) {
	if w.p.inactive || w.addr == "" || w.channel == "" {
		return seen, nil
	}
	if is(&w.was, pathStatus, statusActive) && is(&w.was, pathAddress, w.addr) && is(&w.was, pathChannelType, w.channel) {
		return seen, nil // it is the holder already
	}
	rows, err := w.tx.Lookup(KindEndpoint, w.p.addressIndex(w.channel, w.addr), holdersMax)
	if err != nil {
		return seen, err
	}
	for _, row := range rows {
		if row.Key == w.p.key {
			continue
		}
		r, err := changelog.DecodeRecord(row.Body)
		if err != nil {
			return seen, fmt.Errorf("read endpoint: %w", err)
		}
		w.losers = append(w.losers, row.Key)
		seen = append(seen, r.Latest())
	}
	return seen, nil
}

// holdersMax bounds the rows read under one address or user. Writes keep one
// active holder and fifteen endpoints of a user; merging Regions may find more.
const holdersMax = 1000

// findRoom applies the bound on a user's endpoints when this one joins them.
//
// Source: engagement 2.3, The sixteenth endpoint.
func (w *write) findRoom(live bool, seen []changelog.Stamp) ([]changelog.Stamp, error) {
	if w.userID == "" || live && is(&w.was, pathUserID, w.userID) {
		return seen, nil
	}
	rows, err := w.tx.Lookup(KindEndpoint, w.p.userIndex(w.userID), holdersMax)
	if err != nil || len(rows) < w.s.limits.EndpointsPerUser {
		return seen, err
	}
	full := aws.Quota("Exceeded maximum endpoint per user count: %d", w.s.limits.EndpointsPerUser)
	if !evictable(w.channel) {
		return seen, full
	}
	oldest := ""
	for _, row := range rows {
		r, err := changelog.DecodeRecord(row.Body)
		if err != nil {
			return seen, fmt.Errorf("read endpoint: %w", err)
		}
		date := textOf(&r, pathEffectiveDate)
		if evictable(textOf(&r, pathChannelType)) && (w.evict == "" || date < oldest) {
			w.evict, oldest = row.Key, date
		}
		seen = append(seen, r.Latest())
	}
	if w.evict == "" {
		return seen, full
	}
	return seen, nil
}

// joinUser sends user attributes to where they belong: to the user's own
// record, or, while the endpoint has no user, to the endpoint's; when it gets
// one, what it held goes along, unless the request or the user knows better.
func (w *write) joinUser(seen []changelog.Stamp) ([]changelog.Stamp, error) {
	if w.userID == "" {
		if len(w.userSets) > 0 {
			w.sets = append(w.sets[:len(w.sets):len(w.sets)], w.userSets...)
		}
		return seen, nil
	}
	var held []set
	for name, value := range w.was.Prefix(prefixUserAttrs) {
		held = append(held, set{path: prefixUserAttrs + name, value: value})
	}
	if len(w.userSets)+len(held) == 0 {
		return seen, nil
	}
	if w.userKey == "" {
		w.userKey = UserKey(w.tx, w.p.app, w.userID)
	}
	body, err := w.tx.Get(KindUser, w.userKey)
	if err != nil {
		return seen, err
	}
	if body != nil {
		if w.user, err = changelog.DecodeRecord(body); err != nil {
			return seen, fmt.Errorf("read user: %w", err)
		}
	}
	given := w.userSets
	w.userSets = append(make([]set, 0, 1+len(given)+len(held)), set{path: pathID, value: []byte(w.userID), onCreate: true})
	w.userSets = append(w.userSets, given...)
	for _, h := range held {
		w.sets = append(w.sets[:len(w.sets):len(w.sets)], set{path: h.path})
		_, known := w.user.Get(h.path)
		if !known && !hasPath(given, h.path) {
			w.userSets = append(w.userSets, h)
		}
	}
	sortSets(w.userSets)
	w.userChanges = true
	return append(seen, w.user.Latest()), nil
}

func hasPath(sets []set, path string) bool {
	for i := range sets {
		if sets[i].path == path {
			return true
		}
	}
	return false
}

func (w *write) put() error {
	for _, key := range w.losers {
		if err := deactivate(w.tx, w.p.app, key, false, w.at); err != nil {
			return err
		}
	}
	if w.evict != "" {
		if err := deactivate(w.tx, w.p.app, w.evict, true, w.at); err != nil {
			return err
		}
	}
	if w.userChanges {
		if err := w.tx.Put(KindUser, w.userKey, encode(&w.user)); err != nil {
			return err
		}
	}
	k := KindEndpoint
	switch {
	case slices.Equal(w.was.OptOut, w.is.OptOut):
	case w.p.optOut == pinpoint.OptOutAll:
		k = optingOut(k)
	default:
		k = safely(k)
	}
	return w.p.put(w.tx, k, w.p.key, &w.is)
}

// deactivate makes an endpoint INACTIVE, and takes its user away when it makes
// room. The address' loser is written at the winner's stamp, so that two
// Regions pick the same one.
func deactivate(tx *store.Tx, app, key string, leave bool, at changelog.Stamp) error {
	body, err := tx.Get(KindEndpoint, key)
	if err != nil || body == nil {
		return err
	}
	r, err := changelog.DecodeRecord(body)
	if err != nil {
		return fmt.Errorf("read endpoint: %w", err)
	}
	r.Set(pathStatus, []byte(statusInactive), at)
	if leave {
		r.Set(pathUserID, nil, at)
	}
	return put(tx, app, key, &r)
}

// SetInactive makes an endpoint INACTIVE: its provider said that the address is
// gone for good. An endpoint that does not exist is left alone.
//
// Source: engagement 2.2, Status rules.
func SetInactive(tx *store.Tx, key string) error {
	body, err := tx.Get(KindEndpoint, key)
	if err != nil || body == nil {
		return err
	}
	r, err := changelog.DecodeRecord(body)
	if err != nil {
		return fmt.Errorf("read endpoint: %w", err)
	}
	if !r.Live() {
		return nil
	}
	return deactivate(tx, AppOfKey(key), key, false, tx.Stamp(r.Latest()))
}

// put writes an endpoint's record under the index values that it has now.
func put(tx *store.Tx, app, key string, r *changelog.Record) error {
	return (&Patch{app: app}).put(tx, KindEndpoint, key, r)
}

func (p *Patch) put(tx *store.Tx, k store.Kind, key string, r *changelog.Record) error {
	x, n := p.indexes(r)
	return tx.Put(k, key, encode(r), x[:n]...)
}

// Indexes are the index values of a record of an endpoint or a user, for one that
// two Regions had both changed.
func Indexes(kind, key string, body []byte) ([]store.Index, error) {
	if kind != KindEndpoint.Name {
		return nil, nil
	}
	r, err := changelog.DecodeRecord(body)
	if err != nil {
		return nil, err
	}
	x, n := (&Patch{app: AppOfKey(key)}).indexes(&r)
	return x[:n], nil
}

func (p *Patch) indexes(r *changelog.Record) (x [2]store.Index, n int) {
	address, _ := r.Get(pathAddress)
	channel, _ := r.Get(pathChannelType)
	if len(address) > 0 && len(channel) > 0 && is(r, pathStatus, statusActive) {
		x[n] = p.addressIndex(string(channel), string(address))
		n++
	}
	if user, _ := r.Get(pathUserID); len(user) > 0 {
		x[n] = p.userIndex(string(user))
		n++
	}
	return x, n
}

// encode writes a record into a buffer of about its size.
func encode(r *changelog.Record) []byte {
	n := 96
	for i := range r.Registers {
		n += len(r.Registers[i].Path) + len(r.Registers[i].Value) + 7
	}
	return changelog.AppendRecord(make([]byte, 0, n), r)
}
