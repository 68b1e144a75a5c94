package events

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// kindSeen rows hold, for a day and an endpoint, the first 8 bytes of the
// identities of its latest events, one after the other. Keys begin with the
// day, so that the oldest are at the front.
var kindSeen = store.Kind{Name: "event-seen", Rule: changelog.RuleLocal}

const (
	seenBytes = 8    // of an identity: among some thousands of one endpoint enough
	seenMax   = 1024 // identities of a day and an endpoint

	forgetInterval = time.Minute
	forgetBatch    = 500
)

// dayOf numbers the days of UTC.
func dayOf(t time.Time) int64 { return t.Unix() / int64(24*time.Hour/time.Second) }

func seenKey(day int64, endpointKey string) string {
	b := make([]byte, 4, 4+len(endpointKey))
	binary.BigEndian.PutUint32(b, uint32(day))
	return string(append(b, endpointKey...))
}

// memory is what is remembered of an endpoint's events: of today, and of
// yesterday, which together are the last 24 hours at least.
type memory struct {
	key              string
	today, yesterday []byte
	changed          bool
}

func recall(tx *store.Tx, endpointKey string, now time.Time) (*memory, error) {
	day := dayOf(now)
	m := &memory{key: seenKey(day, endpointKey)}
	var err error
	if m.today, err = tx.Get(kindSeen, m.key); err != nil {
		return nil, err
	}
	m.yesterday, err = tx.Get(kindSeen, seenKey(day-1, endpointKey))
	return m, err
}

// add remembers an event and reports whether it is new.
func (m *memory) add(id [16]byte) bool {
	short := id[:seenBytes]
	if holds(m.today, short) || holds(m.yesterday, short) {
		return false
	}
	if !m.changed {
		// The row's bytes are the store's, and an update may run again.
		keep := m.today[max(0, len(m.today)-(seenMax-1)*seenBytes):]
		m.today = append(make([]byte, 0, len(keep)+16*seenBytes), keep...)
		m.changed = true
	} else if len(m.today) >= seenMax*seenBytes {
		m.today = m.today[seenBytes:]
	}
	m.today = append(m.today, short...)
	return true
}

func holds(all, short []byte) bool {
	for ; len(all) >= seenBytes; all = all[seenBytes:] {
		if bytes.Equal(all[:seenBytes], short) {
			return true
		}
	}
	return false
}

func (m *memory) save(tx *store.Tx) error {
	if !m.changed {
		return nil
	}
	return tx.Put(kindSeen, m.key, m.today)
}

// forget removes the rows of days before yesterday.
func (s *Service) forget(ctx context.Context) error {
	for {
		rows, err := s.store.Reader(ctx).List(kindSeen, "", "", forgetBatch)
		if err != nil {
			return err
		}
		old := seenKey(dayOf(s.now())-1, "")
		var keys []string
		var touches []store.Touch
		for _, row := range rows {
			if row.Key < old {
				keys = append(keys, row.Key)
				touches = append(touches, store.Touch{Kind: kindSeen, Key: row.Key})
			}
		}
		if len(keys) == 0 {
			return nil
		}
		err = s.store.Update(ctx, func(tx *store.Tx) error {
			for _, key := range keys {
				if err := tx.Remove(kindSeen, key); err != nil {
					return err
				}
			}
			return nil
		}, touches...)
		if err != nil || len(keys) < forgetBatch {
			return err
		}
	}
}
