package replica

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/everpoint/everpoint/aws"
)

// A Region of several nodes has one voice (Config.Voice). The others ask it
// whether the group has what they wrote:
//
//	writer                       voice                        other Regions
//	  │ commit block n             │ ◀── acknowledge n ─────────────│
//	  │── POST acknowledged?n= ──▶ │ judges by its state of the set
//	  │ ◀── generation, index ──── │
//	  │ waits for the index, and looks whether the generation is still the last

// vouch is what the voice answers a colleague.
type vouch struct {
	Generation uint64 // of the voice, when it judged
	Index      uint64 // how far it had told the others that it had applied the quorum's log
}

// mute reports whether another node speaks for the Region, or none does yet.
func (r *Replica) mute() bool {
	if r.cfg.Voice == nil {
		return false
	}
	_, speaks := r.cfg.Voice.Speaks()
	return !speaks
}

// vouched is Acknowledge where a Region may have several nodes. What was judged
// counts only if no other node had begun to speak by then: that one may have told
// a Region which is about to return of a set and of heads that this one, paused,
// did not know.
func (r *Replica) vouched(ctx context.Context, n int64) error {
	generation, speaks := r.cfg.Voice.Speaks()
	if speaks {
		if err := r.heardOfAll(ctx, n); err != nil {
			return err
		}
		return r.cfg.Voice.Confirm(ctx, generation)
	}
	v, err := r.askVoice(ctx, n)
	if err != nil {
		return aws.Unavailable("written in Region %s; whether the other Regions have it is not known: %v", r.cfg.Region, err)
	}
	// What this node goes by, the epoch of control for one, is then not older than
	// what the others were told.
	if v.Index > 0 {
		if err := r.cfg.Voice.Wait(ctx, v.Index-1); err != nil {
			return aws.Unavailable("written in Region %s; this node has not heard in time what the Regions decided", r.cfg.Region)
		}
	}
	return r.cfg.Voice.Confirm(ctx, v.Generation)
}

var errVoice = errors.New("no node is known to speak for this Region")

const vouchBytesMax = 4 << 10

func (r *Replica) askVoice(ctx context.Context, n int64) (*vouch, error) {
	at := r.cfg.Voice.Speaker()
	if at == "" {
		return nil, errVoice
	}
	q := url.Values{incarnationName: {r.store.Incarnation()}, "n": {strconv.FormatInt(n, 10)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at+path+"acknowledged?"+q.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, vouchBytesMax))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the node that speaks for the Region answered %s: %s", resp.Status, text)
	}
	v := &vouch{}
	if err := json.Unmarshal(text, v); err != nil {
		return nil, fmt.Errorf("the node that speaks for the Region: %w", err)
	}
	return v, nil
}

// serveAcknowledged answers a colleague when the group has its block: 200 with a
// vouch, 421 when this node does not speak for the Region, 409 when the databases
// are not one, 503 with a reason.
func (r *Replica) serveAcknowledged(w http.ResponseWriter, req *http.Request) {
	err := errors.New("this node has no colleagues")
	if r.cfg.Colleague != nil {
		err = r.cfg.Colleague(req)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	n, err := strconv.ParseInt(req.URL.Query().Get("n"), 10, 64)
	if err != nil || n < 0 {
		http.Error(w, "n must be the number of a block", http.StatusBadRequest)
		return
	}
	if req.URL.Query().Get(incarnationName) != r.store.Incarnation() {
		http.Error(w, "the nodes see databases of different incarnations", http.StatusConflict)
		return
	}
	if r.mute() {
		http.Error(w, "another node speaks for the Region", http.StatusMisdirectedRequest)
		return
	}
	generation, _ := r.cfg.Voice.Speaks()
	ctx, cancel := context.WithTimeout(req.Context(), r.cfg.AckMax*3/4) // it hears why before it gives up
	defer cancel()
	err = r.store.Refresh(ctx) // the heads that are told from here on are not before the block
	if err == nil {
		err = r.heardOfAll(ctx, n)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(vouch{generation, r.cfg.Index()}) // an error means that it has gone
}
