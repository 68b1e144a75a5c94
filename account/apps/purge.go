package apps

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

// Content names rows that belong to apps and go with them.
type Content struct {
	Kind   store.Kind
	Prefix func(app string) string // what the keys of an app's rows start with
	// App is the app that a key belongs to. It is given where rows are no safety
	// data: another Region may tell of one after the app's deletion, which goes first.
	App func(key string) string
}

// Contains says what else an app's deletion removes. Call it before Run.
func (s *Service) Contains(c ...Content) { s.contents = append(s.contents, c...) }

// kindPurge rows say which apps still have something to remove. Every Region
// purges its own copy: the app's tombstone tells it to.
var kindPurge = store.Kind{Name: "app-purge", Rule: changelog.RuleLocal}

type purge struct {
	DeletedAt int64 // milliseconds since 1970
}

const (
	purgeInterval = 10 * time.Second // between looks for purge rows that another node wrote
	purgeBatch    = 500              // rows removed in one update
	purgeAppsMax  = 100              // apps looked at in one round

	// purgeGrace is how long after the deletion a purge row stays at least: an
	// update on another node that had seen the app alive may commit after the
	// deletion, and is swept up by a later round.
	purgeGrace = time.Minute
)

// Merged is told of rows that another Region changed: an app that was deleted
// there is purged here too, and so is what comes after its deletion.
func (s *Service) Merged(tx *store.Tx, kind, key string, body []byte) error {
	if kind == Kind.Name {
		return s.purgeDeleted(tx, key, body)
	}
	for _, c := range s.contents {
		if c.Kind.Name != kind || c.App == nil || body == nil {
			continue
		}
		app := c.App(key)
		row, err := tx.Get(Kind, app)
		if err != nil {
			return err
		}
		if bytes.Contains(row, []byte(`"DeletedAt"`)) { // spares most rows the decoding
			return s.purgeDeleted(tx, app, row)
		}
	}
	return nil
}

// purgeDeleted has an app purged whose row says that it was deleted.
func (s *Service) purgeDeleted(tx *store.Tx, app string, body []byte) error {
	d, err := changelog.DecodeDocument(body)
	if err != nil || d.Body == nil {
		return err
	}
	a, err := store.Decode[App](Kind, body)
	if err != nil || a.DeletedAt == "" {
		return err
	}
	tx.AfterCommit(s.rouse)
	return store.Save(tx, kindPurge, app, &purge{DeletedAt: s.now().UnixMilli()})
}

func (s *Service) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run purges deleted apps until ctx ends. Any number of nodes may run it.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(purgeInterval)
	defer tick.Stop()
	for {
		if err := s.purgeOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "deleted apps not purged; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-tick.C:
		}
	}
}

// purgeOnce removes everything that deleted apps still have. What it removed
// is gone whenever it stops; it holds no position.
func (s *Service) purgeOnce(ctx context.Context) error {
	rows, err := s.store.Reader(ctx).List(kindPurge, "", "", purgeAppsMax)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := s.purgeApp(ctx, row.Key); err != nil {
			return fmt.Errorf("purge app %s: %w", row.Key, err)
		}
	}
	return nil
}

func (s *Service) purgeApp(ctx context.Context, app string) error {
	for _, c := range s.contents {
		for {
			n := 0
			err := s.store.Update(ctx, func(tx *store.Tx) error {
				rows, err := tx.List(c.Kind, c.Prefix(app), "", purgeBatch)
				if err != nil {
					return err
				}
				n = len(rows)
				for _, row := range rows {
					if err := tx.Remove(c.Kind, row.Key); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			if n < purgeBatch {
				break
			}
		}
	}
	return s.store.Update(ctx, func(tx *store.Tx) error {
		p, err := store.Load[purge](tx, kindPurge, app)
		if err != nil || p == nil || s.now().Sub(time.UnixMilli(p.DeletedAt)) < purgeGrace {
			return err
		}
		return tx.Remove(kindPurge, app)
	})
}
