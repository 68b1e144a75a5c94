package quorum

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Path is below which the peers' listener serves [Quorum.Handler].
const Path = "/everpoint/quorum/v1/"

const (
	queueMax       = 256     // messages that wait for a slow peer; more are dropped
	batchBytesMax  = 4 << 20 // of one request, unless a single message is longer
	answerBytesMax = 64 << 10
	snapshotTime   = 30 * time.Second // for a request that carries one
)

// parcel is a message on its way to a peer.
type parcel struct {
	cluster  string
	to       uint64
	snapshot bool
	body     []byte
}

// peer sends messages to one voter, in order, one request at a time.
type peer struct {
	q     *Quorum
	name  string
	queue chan parcel
}

// offer takes a message unless the peer is too slow.
func (p *peer) offer(m parcel) bool {
	select {
	case p.queue <- m:
		return true
	default:
		return false
	}
}

func (p *peer) run(ctx context.Context) {
	var next *parcel
	for {
		var batch []parcel
		if next == nil {
			select {
			case <-ctx.Done():
				return
			case m := <-p.queue:
				next = &m
			}
		}
		batch, next = p.gather(*next)
		if err := p.post(ctx, batch); err != nil {
			if ctx.Err() != nil {
				return
			}
			p.q.log.DebugContext(ctx, "messages did not arrive", "peer", p.name, "messages", len(batch), "error", err)
			p.report(ctx, batch, false)
			continue
		}
		p.q.hear(p.name, "")
		p.report(ctx, batch, true)
	}
}

// gather takes what waits behind first and fits one request, and what came next.
func (p *peer) gather(first parcel) (batch []parcel, next *parcel) {
	batch, size := []parcel{first}, len(first.body)
	for len(batch) < envelopeMessages {
		select {
		case m := <-p.queue:
			if m.cluster != first.cluster || size+len(m.body) > batchBytesMax {
				return batch, &m
			}
			batch, size = append(batch, m), size+len(m.body)
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// report tells the library what became of snapshots, and of a peer that is away.
func (p *peer) report(ctx context.Context, batch []parcel, arrived bool) {
	for _, m := range batch {
		if arrived && !m.snapshot {
			continue
		}
		select {
		case p.q.inbox <- func(v *voter) {
			switch {
			case !arrived:
				v.lost(m.to, m.snapshot)
			case m.snapshot:
				v.node.ReportSnapshot(m.to, 1) // raft.SnapshotFinish
			}
		}:
		case <-ctx.Done():
			return
		}
		if !arrived && !m.snapshot {
			return // once is enough
		}
	}
}

func (p *peer) post(ctx context.Context, batch []parcel) error {
	e := envelope{Cluster: batch[0].cluster, From: p.q.cfg.Name, URL: p.q.cfg.URL}
	limit := p.q.cfg.election()
	for _, m := range batch {
		e.Messages = append(e.Messages, m.body)
		if m.snapshot {
			limit = max(limit, snapshotTime)
		}
	}
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode messages: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	status, _, err := p.q.callPeer(ctx, http.MethodPost, p.name, "messages", body)
	if err == nil && status != http.StatusAccepted {
		err = fmt.Errorf("answered %d", status)
	}
	return err
}

// reply is what a voter says to a request that is not a message.
type reply struct {
	Leader  string `json:",omitempty"` // who to ask instead
	Reason  string `json:",omitempty"`
	Cluster string `json:",omitempty"`
}

// call makes a request of a peer listener and returns its status and answer.
func (q *Quorum) call(ctx context.Context, method, base, what string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(base, "/")+Path+what, bytes.NewReader(body))
	if err != nil {
		return 0, nil, fmt.Errorf("call a voter: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := q.client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("call a voter: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	if err != nil {
		return 0, nil, fmt.Errorf("read a voter's answer: %w", err)
	}
	return resp.StatusCode, answer, nil
}

// callPeer makes a request of a voter: of the node that it was last heard from,
// or where the configuration says. A node that does not answer as it should is
// asked no more until it is heard from again.
func (q *Quorum) callPeer(ctx context.Context, method, name, what string, body []byte) (int, []byte, error) {
	q.mu.Lock()
	base, learned := q.routes[name]
	q.mu.Unlock()
	if !learned {
		base = q.cfg.Peers[name]
	}
	status, answer, err := q.call(ctx, method, base, what, body)
	if learned && (err != nil || status >= http.StatusInternalServerError) {
		q.mu.Lock()
		if q.routes[name] == base {
			delete(q.routes, name)
		}
		q.mu.Unlock()
	}
	return status, answer, err
}

// hear remembers that a voter is alive, and which node speaks for it if that is
// said.
func (q *Quorum) hear(name, from string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.cfg.Peers[name]; !ok || name == q.cfg.Name {
		return
	}
	q.heard[name] = time.Now()
	if from != "" {
		q.routes[name] = from
	}
}
