package events

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// kindNames rows hold, one for each app, the custom names that its events use.
// It is a record with a register for each name, so that names which two Regions
// add at the same time unite. Names that begin with an underscore are the
// original's own; they are not counted.
//
// Source: channels-and-events 10, Limits and Names.
var kindNames = store.Kind{Name: "event-names", Rule: changelog.RuleRecord}

// The sorts of names, and how their registers' paths begin.
const (
	eventTypes = iota
	attributeKeys
	metricKeys
	sorts
)

var sortPrefix = [sorts]string{"Type.", "Attribute.", "Metric."}

// names is an app's row as it was read. It is shared and not changed.
type names struct {
	body   []byte
	record changelog.Record
	used   [sorts]map[string]struct{}
}

// namesMemory keeps what apps' rows said when they were last read. It is asked
// with the rows' present bytes, so it is never out of date.
type namesMemory struct {
	mu   sync.Mutex
	apps map[string]*names
}

func (m *namesMemory) load(r store.Reader, app string) (*names, error) {
	body, err := r.Get(kindNames, app)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	n := m.apps[app]
	m.mu.Unlock()
	if n != nil && bytes.Equal(n.body, body) {
		return n, nil
	}
	n = &names{body: body}
	for i := range n.used {
		n.used[i] = map[string]struct{}{}
	}
	if body != nil {
		if n.record, err = changelog.DecodeRecord(body); err != nil {
			return nil, fmt.Errorf("read event names: %w", err)
		}
	}
	for i := range n.record.Registers {
		for sort, prefix := range sortPrefix {
			if name, ok := strings.CutPrefix(n.record.Registers[i].Path, prefix); ok {
				n.used[sort][name] = struct{}{}
			}
		}
	}
	m.mu.Lock()
	if m.apps == nil || len(m.apps) >= rememberedMax {
		m.apps = map[string]*names{}
	}
	m.apps[strings.Clone(app)] = n
	m.mu.Unlock()
	return n, nil
}

// usage is what one update adds to an app's names.
type usage struct {
	names  *names
	limits *Limits
	fresh  [sorts]map[string]struct{}
}

// admit takes up the names of an event, all of them or, saying why, none.
func (u *usage) admit(e *pinpoint.Event) (why string) {
	var more [sorts][]string
	if u.isFresh(eventTypes, e.EventType) {
		more[eventTypes] = append(more[eventTypes], e.EventType)
	}
	for k := range e.Attributes {
		if u.isFresh(attributeKeys, k) {
			more[attributeKeys] = append(more[attributeKeys], k)
		}
	}
	for k := range e.Metrics {
		if u.isFresh(metricKeys, k) {
			more[metricKeys] = append(more[metricKeys], k)
		}
	}
	for sort, limit := range [sorts]int{u.limits.EventTypes, u.limits.AttributeKeys, u.limits.MetricKeys} {
		if len(more[sort]) > 0 && len(u.names.used[sort])+len(u.fresh[sort])+len(more[sort]) > limit {
			return [sorts]string{"Too many event types", "Too many event attributes", "Too many event metrics"}[sort]
		}
	}
	for sort := range more {
		for _, name := range more[sort] {
			if u.fresh[sort] == nil {
				u.fresh[sort] = map[string]struct{}{}
			}
			u.fresh[sort][name] = struct{}{}
		}
	}
	return ""
}

func (u *usage) isFresh(sort int, name string) bool {
	if strings.HasPrefix(name, "_") {
		return false
	}
	if _, ok := u.names.used[sort][name]; ok {
		return false
	}
	_, ok := u.fresh[sort][name]
	return !ok
}

// save writes the row if it has new names.
func (u *usage) save(tx *store.Tx, app string) error {
	if len(u.fresh[eventTypes])+len(u.fresh[attributeKeys])+len(u.fresh[metricKeys]) == 0 {
		return nil
	}
	r := u.names.record
	r.Registers = slices.Clone(r.Registers)
	at := tx.Stamp(r.Latest())
	for sort, prefix := range sortPrefix {
		for _, name := range slices.Sorted(maps.Keys(u.fresh[sort])) {
			r.Set(prefix+name, present, at)
		}
	}
	return tx.Put(kindNames, app, changelog.AppendRecord(nil, &r))
}

// present is the value of a register that only says that it is there.
var present = []byte{1}
