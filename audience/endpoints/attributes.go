package endpoints

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// Bounds of an app's block list.
const (
	blocksMax      = 250 // patterns of one type
	blockLengthMax = 100 // characters of a pattern
)

// removeAttributes answers RemoveAttributes. Names that match are dropped from
// every later write, no longer count towards the app's names, and are stripped
// from what is stored in the background. An empty list lifts the blocks of the
// type: nothing else could. Attributes in the answer is the whole block list.
//
// Source: engagement 1.4, 13.1. Departs: an empty list is not described there.
func (s *Service) removeAttributes(ctx context.Context, in *pinpoint.RemoveAttributesRequest) (*pinpoint.RemoveAttributesResponse, error) {
	prefix, err := prefixOf(in.AttributeType)
	if err != nil {
		return nil, err
	}
	list := in.UpdateAttributesRequest.Blacklist
	if list == nil {
		return nil, aws.InvalidMember("Blacklist", "Blacklist: expected a list of attribute names")
	}
	for _, pattern := range list {
		if pattern == "" || utf8.RuneCountInString(pattern) > blockLengthMax {
			return nil, aws.InvalidMember("Blacklist", "Blacklist: a name has 1 to %d characters", blockLengthMax)
		}
	}
	var blocked []string
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		if err := s.memory.own(tx, aws.CallerFrom(ctx).Account, in.ApplicationId); err != nil {
			return err
		}
		n, err := s.memory.namesOf(tx, in.ApplicationId)
		if err != nil {
			return err
		}
		var sets []set
		if blocked, sets, err = n.block(prefix, list); err != nil {
			return err
		}
		if err := n.change(tx, in.ApplicationId, sets); err != nil {
			return err
		}
		if len(list) == 0 {
			return nil
		}
		tx.AfterCommit(s.rouse)
		// A strip that was under way starts over, with the longer list.
		return store.Save(tx, kindStrip, AppPrefix(in.ApplicationId)+prefix, &strip{App: in.ApplicationId, Prefix: prefix})
	}, store.Touch{Kind: kindNames, Key: AppPrefix(in.ApplicationId)})
	if err != nil {
		return nil, err
	}
	return &pinpoint.RemoveAttributesResponse{AttributesResource: &pinpoint.AttributesResource{
		ApplicationId: in.ApplicationId, AttributeType: string(in.AttributeType), Attributes: blocked,
	}}, nil
}

func prefixOf(t pinpoint.RemovableAttributeType) (string, error) {
	switch t {
	case pinpoint.RemovableAttributeTypeEndpointCustomAttributes:
		return prefixAttributes, nil
	case pinpoint.RemovableAttributeTypeEndpointMetricAttributes:
		return prefixMetrics, nil
	case pinpoint.RemovableAttributeTypeEndpointUserAttributes:
		return prefixUserAttrs, nil
	}
	return "", aws.InvalidMember("AttributeType", "AttributeType: unknown attribute type")
}

// block returns the block list of a type with more patterns on it, and the
// changes to the app's row; an empty list empties it.
func (n *names) block(prefix string, more []string) (list []string, sets []set, err error) {
	list = []string{}
	for _, b := range n.blocks {
		pattern, ok := strings.CutPrefix(b, prefix)
		switch {
		case !ok:
		case len(more) == 0:
			sets = append(sets, set{path: prefixBlock + b})
		default:
			list = append(list, pattern)
		}
	}
	for _, pattern := range more {
		if !slices.Contains(list, pattern) {
			list = append(list, pattern)
			sets = append(sets, set{path: prefixBlock + prefix + pattern, value: present})
		}
	}
	if len(list) > blocksMax {
		return nil, nil, aws.Quota("Blacklist: more than %d names of this type are blocked", blocksMax)
	}
	slices.Sort(list)
	for path := range n.used {
		if slices.ContainsFunc(more, func(pattern string) bool { return match(prefix+pattern, path) }) {
			sets = append(sets, set{path: path})
		}
	}
	sortSets(sets)
	return list, sets, nil
}

// kindStrip rows are the strips under way in this Region; their key is the
// app's prefix and the type.
var kindStrip = store.Kind{Name: "endpoint-strip", Rule: changelog.RuleLocal}

type strip struct {
	App    string
	Prefix string // of the registers' paths
	After  []byte // key of the last row that was looked at
	Users  bool   // the endpoints are done; the users are next
}

const (
	stripBatch    = 500 // rows looked at in one update
	stripsMax     = 100 // in one round
	stripInterval = 10 * time.Second
)

func (s *Service) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run strips blocked attributes until ctx ends. Any number of nodes may run it.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(stripInterval)
	defer tick.Stop()
	for {
		if err := s.stripOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "blocked attributes not stripped; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-tick.C:
		}
	}
}

func (s *Service) stripOnce(ctx context.Context) error {
	rows, err := s.store.Reader(ctx).List(kindStrip, "", "", stripsMax)
	if err != nil {
		return err
	}
	for _, row := range rows {
		for done := false; !done; {
			err := s.store.Update(ctx, func(tx *store.Tx) (err error) {
				done, err = s.stripBatch(tx, row.Key)
				return err
			}, store.Touch{Kind: kindStrip, Key: row.Key})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// stripBatch looks at the next rows of a strip; its position is committed with
// what it changed.
func (s *Service) stripBatch(tx *store.Tx, key string) (done bool, err error) {
	st, err := store.Load[strip](tx, kindStrip, key)
	if err != nil || st == nil {
		return true, err
	}
	n, err := s.memory.namesOf(tx, st.App)
	if err != nil {
		return false, err
	}
	kind := KindEndpoint
	if st.Users {
		kind = KindUser
	}
	rows, err := tx.List(kind, AppPrefix(st.App), string(st.After), stripBatch)
	if err != nil {
		return false, err
	}
	for _, row := range rows {
		if err := stripRow(tx, kind, st, n, row); err != nil {
			return false, err
		}
		st.After = []byte(row.Key)
	}
	switch {
	case len(rows) == stripBatch:
	case !st.Users && st.Prefix == prefixUserAttrs:
		st.Users, st.After = true, nil
	default:
		return true, tx.Remove(kindStrip, key)
	}
	return false, store.Save(tx, kindStrip, key, st)
}

func stripRow(tx *store.Tx, kind store.Kind, st *strip, n *names, row store.Row) error {
	r, err := changelog.DecodeRecord(row.Body)
	if err != nil {
		return fmt.Errorf("read %s: %w", kind.Name, err)
	}
	var sets []set
	for name := range r.Prefix(st.Prefix) {
		if n.blocked(st.Prefix + name) {
			sets = append(sets, set{path: st.Prefix + name})
		}
	}
	if len(sets) == 0 {
		return nil
	}
	r.Registers = assign(r.Registers, sets, false, tx.Stamp(r.Latest()))
	if kind.Name == KindUser.Name {
		return tx.Put(kind, row.Key, encode(&r))
	}
	return put(tx, st.App, row.Key, &r)
}
