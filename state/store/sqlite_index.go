package store

import (
	"cmp"
	"database/sql"
	"fmt"
	"slices"
	"strings"
)

// This file finds SQLite's rows: by entries that are young, see young.go, and by
// those in the table doc_entry.

// openIndex reads the log of young postings.
func (e *sqliteEngine) openIndex() error {
	y := e.young
	for {
		records, err := e.youngAfter(y.last)
		if err != nil {
			return fmt.Errorf("read young postings: %w", err)
		}
		for _, r := range records {
			if err := y.replay(r.n, r.body); err != nil {
				return err
			}
		}
		if len(records) < youngRead {
			break
		}
	}
	y.replayed()
	if e.lastID <= knownAtOnce {
		e.known.begin()
		return e.fill()
	}
	e.fillKnown()
	return nil
}

const (
	youngRead   = 1000   // records of the log in one read
	entriesRead = 2000   // entries of the table in one read
	knownAtOnce = 20_000 // rows for whose entries opening waits
)

func (e *sqliteEngine) youngAfter(n int64) ([]sealedBlock, error) {
	rows, err := e.write["young"].Query(n, youngRead)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []sealedBlock
	for rows.Next() {
		var r sealedBlock
		if err := rows.Scan(&r.n, &r.body); err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// fillKnown fills the filter anew, in the background; unfilled, it answers "maybe".
func (e *sqliteEngine) fillKnown() {
	e.known.begin()
	e.aside.Go(func() { _ = e.fill() })
}

// fill adds to the filter what is found under the table's entries and the young
// ones; begin was called.
func (e *sqliteEngine) fill() error {
	e.known.fill(e.young.all())
	after := posting{}
	for e.ended.Err() == nil {
		page, err := e.entriesAfter(after)
		if err != nil {
			e.known.giveUp()
			return err
		}
		e.known.fill(page)
		if len(page) < entriesRead {
			e.known.end()
			return nil
		}
		after = page[len(page)-1]
	}
	return e.ended.Err()
}

func (e *sqliteEngine) entriesAfter(p posting) ([]posting, error) {
	rows, err := e.read["entries"].Query([]byte(p.entry), p.doc, entriesRead)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := make([]posting, 0, entriesRead)
	var entry sql.RawBytes
	for rows.Next() {
		var doc int64
		if err := rows.Scan(&entry, &doc); err != nil {
			return nil, err
		}
		out = append(out, posting{string(entry), doc})
	}
	return out, rows.Err()
}

// under returns the rows under an entry, in the order they were first written.
// It looks at the young postings first: one that moves is seen twice.
func (e *sqliteEngine) under(with map[string]*sql.Stmt, entry string, limit int) ([]stored, error) {
	rows, err := e.byIDs(with, e.young.under(entry, limit))
	if err != nil {
		return nil, err
	}
	more, err := rowsOf(with["under"], scanFull, []byte(entry), limit)
	if err != nil {
		return nil, err
	}
	rows = inOrder(append(rows, more...))
	return rows[:min(limit, len(rows))], nil
}

// inOrder sorts rows as they were first written, each once.
func inOrder(rows []stored) []stored {
	slices.SortFunc(rows, func(a, b stored) int { return cmp.Compare(a.id, b.id) })
	return slices.CompactFunc(rows, func(a, b stored) bool { return a.id == b.id })
}

// between returns the rows of a kind whose keys are from one to below another,
// the first of them by key.
func (e *sqliteEngine) between(with map[string]*sql.Stmt, kind, from, before string, limit int) ([]stored, error) {
	first, end := keyFrom(kind, from), keyFrom(kind, before)
	var rows []stored
	for range overtakenMax {
		ids, soon, all := e.young.between(first, end, limit)
		var err error
		if rows, err = e.byIDs(with, ids); err != nil {
			return nil, err
		}
		there := len(rows)
		come, err := e.byIDs(with, soon)
		if err != nil {
			return nil, err
		}
		rows = append(rows, come...)
		// Rows that were removed meanwhile leave a gap; what comes after them is asked
		// for again, and a row's number may be another row's by now.
		if slices.Sort(ids); all || there == len(slices.Compact(ids)) {
			break
		}
	}
	rows = slices.DeleteFunc(rows, func(r stored) bool { return r.kind != kind || r.key < from || r.key >= before })
	more, err := rowsOf(with["list"], scanFull, []byte(first), []byte(end), limit)
	if err != nil {
		return nil, err
	}
	rows = append(rows, more...)
	slices.SortFunc(rows, func(a, b stored) int { return cmp.Or(strings.Compare(a.key, b.key), cmp.Compare(a.id, b.id)) })
	rows = slices.CompactFunc(rows, func(a, b stored) bool { return a.id == b.id })
	return rows[:min(limit, len(rows))], nil
}

// overtakenMax bounds how often a list is begun anew because rows were removed
// under it.
const overtakenMax = 100

// byIDs returns the rows that are there.
func (e *sqliteEngine) byIDs(with map[string]*sql.Stmt, ids []int64) ([]stored, error) {
	var out []stored
	for _, id := range ids {
		rows, err := rowsOf(with["rows"], scanFull, id)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

// underAll is under for many entries, within the writer's transaction.
func (e *sqliteEngine) underAll(entries []string) (map[string][]stored, error) {
	var ask []string // what the table may hold
	var ids []int64  // of young rows
	fresh := map[string][]int64{}
	for _, entry := range entries {
		if !e.known.maybe(entry) {
			continue
		}
		if docs := e.young.under(entry, lookupMax); len(docs) > 0 {
			fresh[entry] = docs
			ids = append(ids, docs...)
		}
		ask = append(ask, entry)
	}
	found, err := e.inTable(ask)
	if err != nil || len(ids) == 0 {
		return found, err
	}
	slices.Sort(ids)
	rows, err := e.allByIDs(slices.Compact(ids))
	if err != nil {
		return nil, err
	}
	for entry, docs := range fresh {
		for _, id := range docs {
			if at, ok := slices.BinarySearchFunc(rows, id, func(r stored, id int64) int { return cmp.Compare(r.id, id) }); ok {
				found[entry] = append(found[entry], rows[at])
			}
		}
		found[entry] = inOrder(found[entry])
	}
	return found, nil
}

// inTable returns the rows under entries by the table alone. It sorts entries.
func (e *sqliteEngine) inTable(entries []string) (map[string][]stored, error) {
	slices.Sort(entries)
	found := map[string][]stored{}
	one := func(entry string) error {
		rows, err := rowsOf(e.write["under"], scanFull, []byte(entry), lookupMax)
		if len(rows) > 0 {
			found[entry] = rows
		}
		return err
	}
	for ; len(entries) >= manyRows; entries = entries[manyRows:] {
		args := make([]any, 0, manyRows)
		for _, entry := range entries[:manyRows] {
			args = append(args, []byte(entry))
		}
		rows, err := rowsOf(e.many["under_many"], func(rows *sql.Rows, r *stored) error {
			var entry, key []byte
			if err := rows.Scan(&entry, &r.id, &r.kind, &key, &r.rev, &r.body); err != nil {
				return err
			}
			r.key = string(key)
			found[string(entry)] = append(found[string(entry)], *r)
			return nil
		}, args...)
		if err != nil {
			return nil, err
		}
		if len(rows) < underManyMax {
			continue
		}
		// One of them has so many rows that others' may have been cut off.
		for _, entry := range entries[:manyRows] {
			if err := one(entry); err != nil {
				return nil, err
			}
		}
	}
	for _, entry := range entries {
		if err := one(entry); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// underManyMax is the LIMIT of under_many.
const underManyMax = 10_000

// allByIDs is byIDs for many ids, in their order, within the writer's transaction.
func (e *sqliteEngine) allByIDs(ids []int64) ([]stored, error) {
	var out []stored
	for ; len(ids) >= manyRows; ids = ids[manyRows:] {
		args := make([]any, 0, manyRows)
		for _, id := range ids[:manyRows] {
			args = append(args, id)
		}
		rows, err := rowsOf(e.many["rows"], scanFull, args...)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	rest, err := e.byIDs(e.write, ids)
	return inOrder(append(out, rest...)), err
}

// writeIndex writes what a commit changes of the index.
func (s *sqliteSession) writeIndex(b *batch) error {
	y := s.e.young
	st := step{
		adds:  make([]posting, 0, len(b.inserts)+len(b.indexAdds)),
		drops: make([]posting, 0, len(b.deletes)+len(b.indexDrops)),
	}
	for i := range b.inserts {
		st.adds = append(st.adds, posting{keyFrom(b.inserts[i].kind, b.inserts[i].key), b.inserts[i].id})
	}
	for _, x := range b.indexAdds {
		st.adds = append(st.adds, posting{hashEntry(x.hash), x.doc})
	}
	for i := range b.deletes {
		st.drops = append(st.drops, posting{keyFrom(b.deletes[i].kind, b.deletes[i].key), b.deletes[i].id})
	}
	for _, x := range b.indexDrops {
		st.drops = append(st.drops, posting{hashEntry(x.hash), x.doc})
	}
	s.e.known.add(st.adds)
	changed := len(st.adds) + len(st.drops)
	st.moved = y.oldest(changed + changed/4)
	if err := s.inRuns("entry_add", len(st.moved), func(all []any, i int) []any {
		return append(all, []byte(st.moved[i].entry), st.moved[i].doc)
	}); err != nil {
		return err
	}
	for _, p := range st.drops {
		if y.isFresh(p) {
			continue
		}
		if _, err := s.e.write["entry_drop"].Exec([]byte(p.entry), p.doc); err != nil {
			return err
		}
	}
	if len(st.adds)+len(st.drops) > 0 {
		st.record = y.last + 1
		if _, err := s.e.write["young_add"].Exec(st.record, encodePostings(st.adds, st.drops)); err != nil {
			return err
		}
	}
	if from, to := y.useless(youngTrim); from <= to {
		if _, err := s.e.write["young_drop"].Exec(from, to); err != nil {
			return err
		}
		st.removed = to
	}
	s.step = st
	return nil
}

// youngTrim bounds the records of the log that one commit removes.
const youngTrim = 256
