package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Block is one commit's records in one stream, or a part of them when they are
// too many for one block.
type Block struct {
	N           int64  // position in the stream, from 1, without gaps
	Incarnation string // the life of the database that wrote it
	At          time.Time
	Hash        []byte // of the chain up to and with this block
	Records     [][]byte
}

// Head returns the position of the stream's last block.
func (s *Store) Head(st Stream) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heads[st].n
}

// Refresh reads the heads: what was committed before it was called, by whichever
// of the Region's nodes, Head then tells. Without it, Head may be late by a poll.
func (s *Store) Refresh(ctx context.Context) error { return s.learnHeads(ctx) }

// Wait returns when the stream has a block after n, or ctx ends.
func (s *Store) Wait(ctx context.Context, st Stream, n int64) error {
	for {
		s.mu.Lock()
		have, moved := s.heads[st].n, s.moved
		s.mu.Unlock()
		if have > n {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Blocks returns the stream's blocks after n in order, at most limit.
func (s *Store) Blocks(ctx context.Context, st Stream, n int64, limit int) ([]Block, error) {
	sealed, err := s.engine.blocks(ctx, st, n, limit)
	if err != nil {
		return nil, s.readError(err)
	}
	out := make([]Block, 0, len(sealed))
	for i := range sealed {
		b := &sealed[i]
		records, err := s.openBlock(st, b.body)
		if err != nil {
			return nil, fmt.Errorf("open block %d of stream %s: %w", b.n, st, err)
		}
		out = append(out, Block{b.n, b.incarnation, time.UnixMilli(b.at).UTC(), b.hash, records})
	}
	return out, nil
}

// Hash returns the hash of the chain up to and with block n: nothing for n 0, nil
// when the block is not there, or not any more. That of the head outlasts its
// block.
func (s *Store) Hash(ctx context.Context, st Stream, n int64) ([]byte, error) {
	if n == 0 {
		return []byte{}, nil
	}
	hash, err := s.engine.blockHash(ctx, st, n)
	if err != nil || hash != nil {
		return hash, s.readError(err)
	}
	h, err := s.engine.head(ctx, st)
	if err != nil || h.n != n {
		return nil, s.readError(err)
	}
	return h.hash, nil
}

// Trim removes the stream's blocks that are older than before and not after n.
// It returns how many it removed. It takes its turns with the updates, trimMax
// blocks at a time.
func (s *Store) Trim(ctx context.Context, st Stream, n int64, before time.Time) (int64, error) {
	var total int64
	for {
		var removed int64
		err := s.submit(&request{ctx: ctx, alone: func() (err error) {
			removed, err = s.engine.trim(ctx, st, n, before.UnixMilli())
			return err
		}})
		total += removed
		if err != nil || removed < trimMax {
			return total, err
		}
	}
}

// trimMax bounds the blocks that are removed while updates wait.
const trimMax = 256

func blockPlace(st Stream) string { return "log\x00" + string(st) }

// packer makes blocks of records that come one after another.
type packer struct {
	s           *Store
	at          int64
	incarnation string
	plain       []byte
	blocks      []sealedBlock
	err         error
}

// add takes a record, after ending a block that would be too long with it.
func (p *packer) add(st Stream, record []byte) {
	if len(p.plain) > 0 && len(p.plain)+len(record)+binary.MaxVarintLen32 > blockBytesMax {
		p.end(st)
	}
	p.plain = append(appendLength(p.plain, len(record)), record...)
}

// end seals what was added as a block, if there is anything.
func (p *packer) end(st Stream) {
	if len(p.plain) == 0 || p.err != nil {
		return
	}
	body, err := p.s.sealBlock(st, p.plain)
	if err != nil {
		p.err = fmt.Errorf("seal block of stream %s: %w", st, err)
	}
	p.blocks = append(p.blocks, sealedBlock{stream: st, incarnation: p.incarnation, at: p.at, body: body})
	p.plain = p.plain[:0]
}

// sealBlock compresses and seals records, each behind its length.
func (s *Store) sealBlock(st Stream, plain []byte) ([]byte, error) {
	return s.keys.Seal(s.encoder.EncodeAll(plain, make([]byte, 0, len(plain)/2+64)), blockPlace(st))
}

func (s *Store) openBlock(st Stream, sealed []byte) ([][]byte, error) {
	packed, err := s.keys.Unseal(sealed, blockPlace(st))
	if err != nil {
		return nil, err
	}
	plain, err := s.decoder.DecodeAll(packed, nil)
	if err != nil {
		return nil, err
	}
	var records [][]byte
	for len(plain) > 0 {
		n, k := binary.Uvarint(plain)
		if k <= 0 || n > uint64(len(plain)-k) {
			return nil, errors.New("record is cut short")
		}
		records = append(records, plain[k:k+int(n):k+int(n)])
		plain = plain[k+int(n):]
	}
	return records, nil
}

// chain links a block to the one before it.
func chain(previous, body []byte) []byte {
	h := sha256.New()
	h.Write(previous)
	h.Write(digest(body))
	return h.Sum(nil)
}

func digest(body []byte) []byte {
	d := sha256.Sum256(body)
	return d[:]
}

func (s *Store) learnHeads(ctx context.Context) error {
	// Two at once would not know whose heads are the older ones.
	s.learning.Lock()
	defer s.learning.Unlock()
	heads := map[Stream]head{}
	for _, st := range streams {
		h, err := s.engine.head(ctx, st)
		if err != nil {
			return fmt.Errorf("read head of stream %s: %w", st, err)
		}
		heads[st] = h
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for st, h := range heads {
		s.incarnation = h.incarnation
		if h.n > s.heads[st].n || h.incarnation != s.heads[st].incarnation {
			s.heads[st] = h
			s.signal()
		}
	}
	return nil
}

// signal wakes those that wait for a head; s.mu is held.
func (s *Store) signal() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// lineage is what a node remembers, beside the database, of how far it had seen
// the streams come.
type lineage struct {
	Incarnation string
	Heads       map[Stream]lineageHead
}

type lineageHead struct {
	N    int64
	Hash string // hex
}

func newIncarnation() string { return hex.EncodeToString(randomBytes(8)) }

func (s *Store) lineagePath() string { return filepath.Join(s.cfg.Dir, "lineage.json") }

// checkLineage compares the database with what this node had seen. A database
// that is behind, or whose chain is another, was restored or rolled back.
func (s *Store) checkLineage(ctx context.Context) error {
	data, err := os.ReadFile(s.lineagePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var seen lineage
	if err := json.Unmarshal(data, &seen); err != nil {
		return fmt.Errorf("parse lineage file: %w", err)
	}
	for _, st := range streams {
		was := seen.Heads[st]
		h, err := s.engine.head(ctx, st)
		if err != nil {
			return err
		}
		why := ""
		switch hash, err := s.engine.blockHash(ctx, st, was.N); {
		case err != nil:
			return err
		case h.n < was.N:
			why = "the database is behind what this node had seen"
		case hash != nil && hex.EncodeToString(hash) != was.Hash:
			why = "the database's chain is not the one this node had seen"
		}
		if why == "" {
			continue
		}
		return s.reincarnate(ctx, h.incarnation, why, st, was.N, h.n)
	}
	return nil
}

// Told compares the database with what another Region says to have of it: block n
// of a stream with its hash, of the present incarnation. A database that is behind,
// or has another block there, was restored or rolled back by more than the lineage
// file tells, which is older by up to a second: it takes a new incarnation.
func (s *Store) Told(ctx context.Context, st Stream, incarnation string, n int64, hash []byte) error {
	return s.submit(&request{ctx: ctx, alone: func() error {
		h, err := s.engine.head(ctx, st)
		if err != nil || h.incarnation != incarnation || n <= 0 || len(hash) == 0 {
			return err
		}
		have := h.hash
		if n != h.n {
			if have, err = s.engine.blockHash(ctx, st, n); err != nil {
				return err
			}
		}
		if h.n >= n && (have == nil || bytes.Equal(have, hash)) {
			return nil // it is there, or was trimmed
		}
		if err := s.reincarnate(ctx, incarnation, "another Region has what this database has not", st, n, h.n); err != nil {
			return err
		}
		return s.learnHeads(ctx)
	}})
}

// reincarnate gives the database a new incarnation, once for all its nodes.
func (s *Store) reincarnate(ctx context.Context, from, why string, st Stream, seen, have int64) error {
	to := newIncarnation()
	if err := s.engine.reincarnate(ctx, from, to); err != nil {
		return fmt.Errorf("take a new incarnation: %w", err)
	}
	s.log.WarnContext(ctx, "database was restored or rolled back; new incarnation taken",
		"reason", why, "stream", string(st), "seen", seen, "have", have, "incarnation", to)
	return nil
}

func (s *Store) saveLineage() error {
	s.mu.Lock()
	l := lineage{Incarnation: s.incarnation, Heads: map[Stream]lineageHead{}}
	for st, h := range s.heads {
		if h.n > 0 {
			l.Heads[st] = lineageHead{h.n, hex.EncodeToString(h.hash)}
		}
	}
	s.mu.Unlock()
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if bytes.Equal(s.lineage, data) {
		return nil
	}
	if err := writeFile(s.lineagePath(), data, 0o600); err != nil {
		return err
	}
	s.lineage = data
	return nil
}

// keepClock makes the clock go on above what this node reserved in its earlier
// lives.
func (s *Store) keepClock() error {
	path := filepath.Join(s.cfg.Dir, "clock")
	last := uint64(0)
	data, err := os.ReadFile(path)
	if err == nil {
		last, err = strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read reserved stamps: %w", err)
	}
	s.clock.Keep(last, func(upTo uint64) error {
		return writeFile(path, strconv.AppendUint(nil, upTo, 10), 0o600)
	})
	return nil
}
