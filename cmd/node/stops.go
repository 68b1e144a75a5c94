package node

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/everpoint/everpoint/account/apps"
	"github.com/everpoint/everpoint/aws"
	"github.com/everpoint/everpoint/outreach/campaigns"
)

// stops carries out stop orders of the quorum, in the Region with control.
type stops struct {
	n         *Node
	apps      *apps.Service
	campaigns *campaigns.Service
}

// stopsRetry is how soon an order that could not be carried out is tried again, and
// how soon a node that may not notices that it may.
const stopsRetry = time.Second

// Run carries orders out until ctx ends.
func (s *stops) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		state, index := s.n.Quorum.State()
		wait, cancel := ctx, func() {}
		if len(state.Stops) > 0 {
			s.carryOut(ctx)
			wait, cancel = context.WithTimeout(ctx, stopsRetry)
		}
		_ = s.n.Quorum.Wait(wait, index)
		cancel()
	}
	return nil
}

// carryOut does what the orders ask for where control is, and lifts those that are
// done: a write that was acknowledged is in every Region that may send.
func (s *stops) carryOut(ctx context.Context) {
	state, _ := s.n.Quorum.State()
	if state.Control.Region != s.n.Config.Region || !s.n.leads() {
		return
	}
	ctx = aws.WithControlEpoch(ctx, state.Control.Epoch)
	for _, key := range slices.Sorted(maps.Keys(state.Stops)) {
		h := state.Stops[key]
		app, campaign, ok := strings.Cut(key, "/")
		var err error
		if ok {
			err = s.campaigns.CarryOut(ctx, app, campaign, h)
		} else {
			err = s.apps.CarryOut(ctx, app)
		}
		if err == nil {
			err = s.n.Quorum.Lift(ctx, key, h.Epoch)
		}
		if err != nil {
			s.n.log.WarnContext(ctx, "a stop order is not carried out yet", "order", key, "kind", h.Kind, "error", err)
			continue
		}
		s.n.log.InfoContext(ctx, "stop order carried out", "order", key, "kind", h.Kind, "by", h.By)
	}
}
