package replica

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/everpoint/everpoint/state/changelog"
	"github.com/everpoint/everpoint/state/store"
)

const (
	path            = "/everpoint/replica/v1/"
	blocksRead      = 4       // blocks in one read of the log: each may open to 16 MiB
	rowsBytes       = 1 << 20 // of changes in one frame of rows
	rowsCount       = 2000
	flushBytes      = 1 << 20 // of blocks that wait to be sent
	incarnationName = "incarnation"
)

// Handler answers the other Regions' pulls.
func (r *Replica) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path+"stream/{stream}", r.serveStream)
	mux.HandleFunc("GET "+path+"rows", r.serveRows)
	mux.HandleFunc("POST "+path+"acknowledged", r.serveAcknowledged)
	return mux
}

// streamOf returns the stream of a name; empty for one that is not shipped.
func streamOf(name string) store.Stream {
	for _, st := range shipped {
		if string(st) == name {
			return st
		}
	}
	return ""
}

// hashing is a keyed hash that both Regions know the value of.
func (r *Replica) hashing() string { return hexOf([]byte(r.store.Blind("replica", "hashing"))) }

func (r *Replica) heartbeat(to string) heartbeat {
	index := r.cfg.Index() // first: what was answered by an older one is below the heads
	h := heartbeat{
		Region: r.cfg.Region, Incarnation: r.store.Incarnation(), Hashing: r.hashing(), Index: index,
		Heads: map[string]int64{}, At: r.now().UnixMilli(), Apart: r.apartFrom(to),
	}
	for _, st := range shipped {
		h.Heads[string(st)] = r.store.Head(st)
	}
	return h
}

// knows reports whether a position is one of this database's present life and
// the blocks after it are there.
func (r *Replica) knows(ctx context.Context, st store.Stream, incarnation string, after int64, hash []byte) (bool, error) {
	if incarnation != r.store.Incarnation() || after > r.store.Head(st) {
		return false, nil
	}
	have, err := r.store.Hash(ctx, st, after)
	if err != nil {
		return false, err
	}
	// Of facts, the first that is there may be asked for without its predecessor.
	first := st == store.Events && len(hash) == 0
	if !first && (have == nil || string(have) != string(hash)) {
		return false, nil
	}
	if after == r.store.Head(st) {
		return true, nil
	}
	next, err := r.store.Hash(ctx, st, after+1)
	return next != nil, err
}

// serveStream tells a Region the blocks of a stream, as they come.
func (r *Replica) serveStream(w http.ResponseWriter, req *http.Request) {
	region, err := r.cfg.Caller(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if r.mute() {
		http.Error(w, "another node speaks for this Region", http.StatusMisdirectedRequest)
		return
	}
	r.called(region)
	st := streamOf(req.PathValue("stream"))
	q := req.URL.Query()
	after, err := strconv.ParseInt(q.Get("after"), 10, 64)
	hash, hashErr := hex.DecodeString(q.Get("hash"))
	if st == "" || err != nil || after < 0 || hashErr != nil {
		http.Error(w, "no such stream, or no such position", http.StatusBadRequest)
		return
	}
	incarnation := q.Get(incarnationName)
	known, err := r.knows(req.Context(), st, incarnation, after, hash)
	if err == nil && !known {
		err = r.store.Told(req.Context(), st, incarnation, after, hash)
	}
	if err != nil {
		http.Error(w, "the log cannot be read", http.StatusServiceUnavailable)
		return
	}
	out := &answer{w: w, control: http.NewResponseController(w), timeout: r.cfg.Timeout}
	out.b = appendJSON(out.b, frameHead, r.heartbeat(region))
	if !known {
		out.b = appendJSON(out.b, frameLost, lost{"the position is not one of this log"})
		_ = out.flush()
		return
	}
	// Acknowledgements come on the request's body while the answer goes out. The
	// position itself is one.
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	pull := r.acks.begin(region, st, q.Get("as"), incarnation, after)
	defer r.acks.end(pull)
	go func() {
		defer cancel()
		var b [saidBytes]byte
		for {
			if _, err := io.ReadFull(req.Body, b[:]); err != nil {
				return
			}
			if s := decodeSaid(&b); !r.acks.set(pull, s) {
				r.log.WarnContext(ctx, "a Region acknowledged what it was not told", "peer", region, "stream", string(st), "block", s.n)
				return
			}
		}
	}()
	r.tell(ctx, out, pull, after)
}

// tell writes blocks and heartbeats until ctx ends or the peer does not read.
func (r *Replica) tell(ctx context.Context, out *answer, pull *pulling, after int64) {
	st := pull.key.stream
	beat := time.Now()
	apart := true
	for ctx.Err() == nil {
		if out.flush() != nil {
			return
		}
		wait, done := context.WithTimeout(ctx, r.cfg.Heartbeat)
		err := r.store.Wait(wait, st, after)
		done()
		if r.mute() || r.store.Incarnation() != pull.of {
			return // the next pull will hear that its position is lost
		}
		if err != nil || time.Since(beat) >= r.cfg.Heartbeat {
			out.b = appendJSON(out.b, frameHead, r.heartbeat(pull.key.region))
			beat = time.Now()
		}
		if err != nil {
			continue
		}
		blocks, err := r.store.Blocks(ctx, st, after, blocksRead)
		if err != nil || len(blocks) == 0 || blocks[0].N != after+1 || blocks[0].Incarnation == "" {
			return // trimmed, or not readable now: the peer asks again
		}
		// What was written since this Region is not apart is told after that it is not.
		if was := apart; was {
			if apart = r.apartFrom(pull.key.region); !apart {
				out.b = appendJSON(out.b, frameHead, r.heartbeat(pull.key.region))
			}
		}
		for _, bl := range blocks {
			records, err := own(st, bl.Records)
			if err != nil {
				r.log.ErrorContext(ctx, "a block of the log cannot be told", "stream", string(st), "block", bl.N, "error", err)
				return
			}
			out.b = r.codec.appendBlock(out.b, block{bl.N, bl.At.UnixMilli(), bl.Hash, records})
			after = bl.N
			pull.told.Store(after)
			if len(out.b) >= flushBytes && out.flush() != nil {
				return
			}
		}
	}
}

// own leaves out the changes that came from another Region.
func own(st store.Stream, records [][]byte) ([][]byte, error) {
	if st == store.Events {
		return records, nil
	}
	out := records[:0:0]
	for _, record := range records {
		c, err := changelog.DecodeChange(record)
		if err != nil {
			return nil, err
		}
		if !c.Foreign {
			out = append(out, record)
		}
	}
	return out, nil
}

// answer is an answer in the making; what is in b goes out with the next flush.
type answer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	b       []byte
}

func (a *answer) flush() error {
	// A peer that does not read must not hold this goroutine for ever.
	if err := a.control.SetWriteDeadline(time.Now().Add(a.timeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := a.w.Write(a.b); err != nil {
		return err
	}
	if cap(a.b) > 1<<20 {
		a.b = nil
	}
	a.b = a.b[:0]
	return a.control.Flush()
}

// serveRows tells a Region every row, from the row after a given one.
func (r *Replica) serveRows(w http.ResponseWriter, req *http.Request) {
	region, err := r.cfg.Caller(req)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if r.mute() {
		http.Error(w, "another node speaks for this Region", http.StatusMisdirectedRequest)
		return
	}
	after, err := strconv.ParseInt(req.URL.Query().Get("after"), 10, 64)
	if err != nil || after < 0 {
		http.Error(w, "after must be a number", http.StatusBadRequest)
		return
	}
	out := &answer{w: w, control: http.NewResponseController(w), timeout: r.cfg.Timeout}
	out.b = appendJSON(out.b, frameHead, r.position(req.Context(), region))
	var changes [][]byte
	size := 0
	last := after
	send := func() error {
		out.b = r.codec.appendRows(out.b, last, changes)
		changes, size = changes[:0], 0
		return out.flush()
	}
	err = r.store.Changes(req.Context(), after, func(n int64, c changelog.Change) error {
		record := changelog.AppendChange(nil, c)
		changes, last = append(changes, record), n
		if size += len(record); size < rowsBytes && len(changes) < rowsCount {
			return nil
		}
		return send()
	})
	if err == nil && len(changes) > 0 {
		err = send()
	}
	if err != nil {
		r.log.InfoContext(req.Context(), "rows not told to the end", "error", err)
		return
	}
	out.b = appendJSON(out.b, frameEnd, struct{}{})
	_ = out.flush()
}

// position is a heartbeat with the hashes that the streams have at their heads.
func (r *Replica) position(ctx context.Context, to string) position {
	p := position{heartbeat: r.heartbeat(to), Hashes: map[string]string{}}
	for _, st := range shipped {
		hash, err := r.store.Hash(ctx, st, p.Heads[string(st)])
		if err == nil {
			p.Hashes[string(st)] = hexOf(hash)
		}
	}
	p.Facts = p.Heads[string(store.Events)]
	if first, err := r.store.Blocks(ctx, store.Events, 0, 1); err == nil && len(first) > 0 {
		p.Facts = first[0].N - 1
	}
	return p
}

// position is where the streams were before rows were read.
type position struct {
	heartbeat
	Hashes map[string]string
	Facts  int64 // the block before the first of the event stream that is there
}
