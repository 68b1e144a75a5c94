package segments

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everpoint/everpoint/audience/endpoints"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/state/store"
)

// Index is the audience of every app of a Region, in memory, in columns. It is
// a copy: the store stays the truth, and Run keeps the index behind it by
// little. It is safe for concurrent use.
type Index struct {
	st    *store.Store
	blind endpoints.Blinder
	log   *slog.Logger

	apps atomic.Pointer[audiences]

	mu       sync.Mutex
	position Position
	moved    chan struct{} // closed and replaced when the position moves
}

// audiences are kept by app id.
type audiences struct {
	mu  sync.RWMutex
	all map[string]*audience
}

// NewIndex returns an empty index of the store's endpoints. Run fills it.
func NewIndex(st *store.Store, log *slog.Logger) *Index {
	ix := newIndex(st, log)
	ix.st = st
	return ix
}

func newIndex(blind endpoints.Blinder, log *slog.Logger) *Index {
	ix := &Index{
		blind:    blind,
		log:      log.With("component", "segments"),
		position: Position{-1, -1},
		moved:    make(chan struct{}),
	}
	ix.apps.Store(newAudiences())
	return ix
}

func newAudiences() *audiences { return &audiences{all: map[string]*audience{}} }

func (m *audiences) find(app string) *audience {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.all[app]
}

func (m *audiences) intern(app string) *audience {
	if a := m.find(app); a != nil {
		return a
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.all[app]
	if a == nil {
		a = newAudience(strings.Clone(app))
		m.all[a.app] = a
	}
	return a
}

func (m *audiences) remove(app string) {
	m.mu.Lock()
	a := m.all[app]
	delete(m.all, app)
	m.mu.Unlock()
	if a != nil {
		a.close()
	}
}

// keyBytes is the length of a store key of an endpoint or user.
const keyBytes = 32

// splitKey cuts a store key into the app's id and the rest; ok is false for a
// key that no app of the service has.
func splitKey(key string) (app string, tail [tailBytes]byte, ok bool) {
	if len(key) != keyBytes {
		return "", tail, false
	}
	copy(tail[:], key[keyBytes-tailBytes:])
	return endpoints.AppOfKey(key), tail, true
}

// Upsert takes an endpoint, under its store key, as it now is.
func (ix *Index) Upsert(key string, e *endpoints.Endpoint) { ix.upsert(ix.apps.Load(), key, e) }

func (ix *Index) upsert(m *audiences, key string, e *endpoints.Endpoint) {
	app, tail, ok := splitKey(key)
	if !ok {
		return
	}
	var user *[tailBytes]byte
	if e.UserID != "" {
		if _, t, ok := splitKey(endpoints.UserKey(ix.blind, app, e.UserID)); ok {
			user = &t
		}
	}
	m.intern(app).upsert(&tail, user, e)
}

// Remove forgets an endpoint by its store key; forgetting an unknown one does nothing.
func (ix *Index) Remove(key string) { removeKey(ix.apps.Load(), key) }

func removeKey(m *audiences, key string) {
	if app, tail, ok := splitKey(key); ok {
		if a := m.find(app); a != nil {
			a.remove(&tail)
		}
	}
}

// UpsertUser takes a user's attributes, under the user's store key, as they now
// are. A nil user, or one without attributes, has none.
func (ix *Index) UpsertUser(key string, u *endpoints.User) { upsertUser(ix.apps.Load(), key, u) }

func upsertUser(m *audiences, key string, u *endpoints.User) {
	app, tail, ok := splitKey(key)
	if !ok {
		return
	}
	if u != nil && len(u.Attributes) > 0 {
		m.intern(app).upsertUser(&tail, u.Attributes)
	} else if a := m.find(app); a != nil {
		a.upsertUser(&tail, nil)
	}
}

// RemoveApp forgets everything of an app.
func (ix *Index) RemoveApp(app string) { ix.apps.Load().remove(app) }

// Touch tells that the endpoint with the store key was active: an event of it
// came. It is kept in memory only; after a restart an endpoint's last activity
// is its last update until the next event. Source: engagement 3.3.
func (ix *Index) Touch(key string, at time.Time) {
	if app, tail, ok := splitKey(key); ok {
		if a := ix.apps.Load().find(app); a != nil {
			a.touch(&tail, at)
		}
	}
}

// Len is the number of endpoints of an app.
func (ix *Index) Len(app string) int {
	a := ix.apps.Load().find(app)
	if a == nil {
		return 0
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	return int(a.used) - len(a.free)
}

// Count returns how many endpoints the criteria hold for, and how many of them
// are eligible: active, not opted out, with an address.
func (ix *Index) Count(ctx context.Context, app string, c *Criteria) (count, eligible int, err error) {
	err = ix.evaluate(ctx, app, c, func(a *audience, members bitset) {
		count = members.count()
		members.and(a.active)
		members.andNot(a.optedOut)
		members.and(a.addressed)
		eligible = members.count()
	})
	return count, eligible, err
}

// Set is the membership of a segment at one moment.
type Set struct {
	a       *audience
	members bitset
	births  uint64
}

// Evaluate returns the endpoints that the criteria hold for, whatever their
// status and opt-out. Source: engagement 3.3.
func (ix *Index) Evaluate(ctx context.Context, app string, c *Criteria) (*Set, error) {
	s := &Set{}
	err := ix.evaluate(ctx, app, c, func(a *audience, members bitset) {
		s.a, s.births = a, a.births
		s.members = append(bitset(nil), members...)
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Len is the number of members.
func (s *Set) Len() int { return s.members.count() }

// Has reports whether the endpoint with the store key was a member and has not
// been deleted since.
func (s *Set) Has(key string) bool {
	_, tail, ok := splitKey(key)
	if !ok || s.a == nil {
		return false
	}
	s.a.mu.RLock()
	defer s.a.mu.RUnlock()
	o, ok := s.a.find(&tail)
	if !ok || !s.members.has(o) || !s.a.live.has(o) {
		return false
	}
	p, i := s.a.page(o)
	return p.born[i] <= s.births
}

// Matches reports whether the criteria hold for one endpoint, by its store key.
func (ix *Index) Matches(ctx context.Context, app string, c *Criteria, key string) (bool, error) {
	keyApp, tail, ok := splitKey(key)
	if !ok || keyApp != app {
		return false, nil
	}
	a := ix.apps.Load().find(app)
	if a == nil {
		return false, ix.loaded()
	}
	imports, err := ix.resolve(ctx, a, c)
	if err != nil {
		return false, err
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	o, ok := a.find(&tail)
	if !ok {
		return false, ix.loaded()
	}
	ev := newEvaluation(a, imports)
	defer ev.close()
	return c.root.matches(ev, o), nil
}

// evaluate runs the criteria and hands the members to use while the audience
// stands still; use may change members but not keep them.
func (ix *Index) evaluate(ctx context.Context, app string, c *Criteria, use func(*audience, bitset)) error {
	if err := ix.loaded(); err != nil {
		return err
	}
	a := ix.apps.Load().find(app)
	if a == nil {
		return nil
	}
	imports, err := ix.resolve(ctx, a, c)
	if err != nil {
		return err
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	ev := newEvaluation(a, imports)
	defer ev.close()
	use(a, c.root.members(ev))
	return nil
}

// Ready reports whether the index has been built.
func (ix *Index) Ready() bool { return ix.loaded() == nil }

func (ix *Index) loaded() error {
	if ix.st != nil && ix.Position().Changes < 0 {
		return aws.Unavailable("the audience index of this node is still being built")
	}
	return nil
}
