package quorum

import "context"

// Halted returns the stop order for the first of the keys that has one. It is a
// look into memory; a nil Quorum, of a Region that has no group, has none.
func (q *Quorum) Halted(keys ...string) (h Halt, ok bool) {
	if q == nil {
		return Halt{}, false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, k := range keys {
		if h, ok = q.state.Stops[k]; ok {
			return h, true
		}
	}
	return Halt{}, false
}

// Order gives a stop order. It fails as [Quorum.Propose] does. withdraw takes the
// order back, when what it asks for was done otherwise; one that came to another
// that stood already stays until both are carried out.
func (q *Quorum) Order(ctx context.Context, key string, h Halt) (withdraw func(context.Context), err error) {
	result, err := q.Propose(ctx, Stop{Key: key, Halt: h})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		if result.Joined {
			return
		}
		if err := q.Lift(ctx, key, result.Epoch); err != nil {
			q.log.InfoContext(ctx, "a stop order is not withdrawn: the control Region will carry it out", "order", key, "error", err)
		}
	}, nil
}

// Lift forgets the stop order for a key up to an epoch.
func (q *Quorum) Lift(ctx context.Context, key string, upTo uint64) error {
	_, err := q.Propose(ctx, DropStops{Keys: []string{key}, UpTo: upTo})
	return err
}
