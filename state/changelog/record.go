package changelog

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
)

// Register is one member of a record: a value and when it was written.
type Register struct {
	Path  string // "Address", "Attributes.Ride", "Demographic.Make"
	Value []byte // opaque here; nil means that the member was removed
	At    Stamp  // when this value was written
	Over  Stamp  // the stamp it overwrote; zero for a first write
}

// wins reports whether a beats b at one path: the later stamp. Equal stamps
// hold equal values unless a Region lost its clock; the bytes then decide, so
// that everybody decides alike.
func wins(a, b Register) bool {
	if a.At != b.At {
		return b.At.Less(a.At)
	}
	if c := bytes.Compare(a.Value, b.Value); c != 0 {
		return c > 0
	}
	return b.Over.Less(a.Over)
}

// Record is a document of registers. The zero Record is empty and was never
// written.
//
// Invariants: Registers are sorted by path, one for each path, and all belong
// to the present generation.
type Record struct {
	Registers  []Register
	OptOut     OptOut // outlives every generation
	Generation uint32 // how many generations before this one were deleted
	DeletedAt  Stamp  // when the last of them was deleted; zero if none was
}

// Live reports whether the record has any value, that is, exists for readers.
func (r *Record) Live() bool {
	for i := range r.Registers {
		if r.Registers[i].Value != nil {
			return true
		}
	}
	return false
}

// Written reports whether anything was ever recorded: a tombstone is written
// but not live.
func (r *Record) Written() bool {
	return len(r.Registers) > 0 || r.Generation > 0 || len(r.OptOut) > 0
}

// Latest is the highest stamp in the record; a writer's stamp must be above it.
func (r *Record) Latest() Stamp {
	latest := r.DeletedAt
	for i := range r.Registers {
		if latest.Less(r.Registers[i].At) {
			latest = r.Registers[i].At
		}
	}
	for _, o := range r.OptOut {
		if s := (Stamp{o.Out, o.Region}); latest.Less(s) {
			latest = s
		}
	}
	return latest
}

func (r *Record) find(path string) (int, bool) {
	return slices.BinarySearchFunc(r.Registers, path, func(g Register, p string) int {
		return strings.Compare(g.Path, p)
	})
}

// Get returns the value at path; nil, false when it was never set or was removed.
func (r *Record) Get(path string) ([]byte, bool) {
	i, ok := r.find(path)
	if !ok || r.Registers[i].Value == nil {
		return nil, false
	}
	return r.Registers[i].Value, true
}

// StampOf returns when the member at path was last written; zero if never.
func (r *Record) StampOf(path string) Stamp {
	if i, ok := r.find(path); ok {
		return r.Registers[i].At
	}
	return Stamp{}
}

// Set writes value at path; nil removes the member. The stamp must be above
// Latest, as [Clock.Next] with it gives. Setting a value that is already there changes nothing.
func (r *Record) Set(path string, value []byte, at Stamp) {
	i, ok := r.find(path)
	next := Register{Path: path, Value: value, At: at}
	if !ok {
		if value == nil {
			return
		}
		r.Registers = slices.Insert(r.Registers, i, next)
		return
	}
	old := &r.Registers[i]
	if old.Value != nil && value != nil && bytes.Equal(old.Value, value) {
		return
	}
	if old.Value == nil && value == nil {
		return
	}
	next.Over = old.At
	*old = next
}

// Delete ends the record's generation; its opt-outs stay.
func (r *Record) Delete(at Stamp) {
	r.Generation++
	r.DeletedAt = at
	r.Registers = nil
}

// Prefix yields the live registers whose path starts with prefix, in order.
func (r *Record) Prefix(prefix string) func(yield func(rest string, value []byte) bool) {
	return func(yield func(string, []byte) bool) {
		i, _ := r.find(prefix)
		for ; i < len(r.Registers) && strings.HasPrefix(r.Registers[i].Path, prefix); i++ {
			if g := &r.Registers[i]; g.Value != nil && !yield(g.Path[len(prefix):], g.Value) {
				return
			}
		}
	}
}

// Conflict is a pair of writes to one member of which neither had seen the
// other. The rule has decided; the loser is kept for the operator to see.
type Conflict struct {
	Path          string
	Winner, Loser Register
}

// MergeRecords unites two versions of a record: the younger generation, and
// within one generation the later write of each member. It is commutative,
// associative and idempotent. Conflicts are those that this merge decided.
func MergeRecords(a, b Record) (Record, []Conflict) {
	if a.Generation < b.Generation {
		a, b = b, a
	}
	out := Record{
		OptOut:     MergeOptOuts(a.OptOut, b.OptOut),
		Generation: a.Generation,
		DeletedAt:  a.DeletedAt,
	}
	if a.Generation > b.Generation {
		out.Registers = a.Registers
		return out, nil
	}
	if a.DeletedAt.Less(b.DeletedAt) {
		out.DeletedAt = b.DeletedAt
	}
	var conflicts []Conflict
	x, y := a.Registers, b.Registers
	if len(x)+len(y) > 0 {
		out.Registers = make([]Register, 0, max(len(x), len(y)))
	}
	for len(x) > 0 || len(y) > 0 {
		switch {
		case len(y) == 0 || len(x) > 0 && x[0].Path < y[0].Path:
			out.Registers, x = append(out.Registers, x[0]), x[1:]
		case len(x) == 0 || y[0].Path < x[0].Path:
			out.Registers, y = append(out.Registers, y[0]), y[1:]
		default:
			w, l := x[0], y[0]
			if wins(l, w) {
				w, l = l, w
			}
			if w.At.Region != l.At.Region && w.Over.Less(l.At) && !bytes.Equal(w.Value, l.Value) {
				conflicts = append(conflicts, Conflict{w.Path, w, l})
			}
			out.Registers, x, y = append(out.Registers, w), x[1:], y[1:]
		}
	}
	return out, conflicts
}

// OptOut is a set of opt-outs, by the Region that recorded them: a recipient
// is opted out while any Region's last opt-out is above what an opt-in has
// revoked of it. Sorted by Region. The zero value is "never opted out".
type OptOut []RegionOptOut

// RegionOptOut is one Region's part of an [OptOut]; the numbers are stamp clocks.
type RegionOptOut struct {
	Region  string
	Out     uint64 // the last opt-out recorded there
	Revoked uint64 // opt-outs up to this one are revoked by an explicit opt-in
}

// Active reports whether the recipient is opted out.
func (o OptOut) Active() bool {
	for _, r := range o {
		if r.Out > r.Revoked {
			return true
		}
	}
	return false
}

// Record returns o with an opt-out at the stamp.
func (o OptOut) Record(at Stamp) OptOut {
	return MergeOptOuts(o, OptOut{{Region: at.Region, Out: at.Clock}})
}

// Revoke returns o with every opt-out that it holds revoked. An opt-out that
// the writer had not seen is not in o, and stays.
func (o OptOut) Revoke() OptOut {
	out := slices.Clone(o)
	for i := range out {
		out[i].Revoked = max(out[i].Revoked, out[i].Out)
	}
	return out
}

// MergeOptOuts unites two sets: the higher number of each Region on each side.
func MergeOptOuts(a, b OptOut) OptOut {
	if len(b) == 0 {
		return a
	}
	if len(a) == 0 {
		return b
	}
	out := slices.Clone(a)
	for _, r := range b {
		i, ok := slices.BinarySearchFunc(out, r, func(x, y RegionOptOut) int { return cmp.Compare(x.Region, y.Region) })
		if !ok {
			out = slices.Insert(out, i, r)
			continue
		}
		out[i].Out = max(out[i].Out, r.Out)
		out[i].Revoked = max(out[i].Revoked, r.Revoked)
	}
	return out
}
