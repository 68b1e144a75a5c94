package quorum

import (
	"maps"
	"slices"
	"strings"

	"github.com/everpoint/everpoint/aws"
)

// Command is a change of the state. Commands are applied in one order by every
// voter, and each of them alone and deterministically: what one needs to know
// is in it or in the state. One that is rejected changes nothing.
type Command interface {
	kind() string
	// check holds the command to its bounds, before it is proposed and again
	// before it is applied.
	check() error
	// apply changes s, whose maps belong to other copies: it replaces those that it
	// changes. After an error s is thrown away.
	apply(s *State) (Result, error)
}

// Result is what an accepted command came to.
type Result struct {
	Index   uint64 // where in the log it was applied
	Epoch   uint64 `json:",omitempty"` // of the lease, control, duty or set that the command was about
	Granted uint64 `json:",omitempty"` // by Grant
	Joined  bool   `json:",omitempty"` // the Stop came to one that stood already
}

// Bounds of the state, and so of a snapshot.
const (
	nameBytesMax   = 128 // of Regions, nodes, incarnations
	keyBytesMax    = 256 // of marks, shares and stop orders
	reasonBytesMax = 512
	regionsMax     = 16
	marksMax       = 8192
	sharesMax      = 2048
	stopsMax       = 4096
	batchMax       = 256 // keys in one command
	leaseMillisMax = 600_000
)

// Join makes a Region known, or known at another incarnation. The first of all
// is in sync; every other is not until [Return]. A Region that was in the set
// and comes back as another incarnation leaves it.
type Join struct {
	Region      string
	Incarnation string
	// Was is the incarnation at which the caller saw the Region; empty for a new
	// one. A call that came late is refused by it.
	Was string `json:",omitempty"`
	// Force takes the last Region of the set at its new incarnation, though others
	// are known that may hold more: an operator's decision.
	Force bool `json:",omitempty"`
}

// Await has the Regions of the set wait for one that is about to return, before
// it does: what they acknowledge from then on, it has. Its Result holds the
// attempt as its Epoch; a Region of the set that has applied Result.Index waits.
type Await struct {
	Region      string
	Incarnation string
}

// Remove takes a Region from the in-sync set, or ends waiting for one that is
// about to return. Its duty goes to the others, and so does control. The last
// Region cannot be removed.
type Remove struct {
	Region      string
	Incarnation string
	Reason      string
}

// Return takes a Region that has caught up into the set: it has what each of the
// others had told when it had begun to wait for it.
type Return struct {
	Region      string
	Incarnation string
	// Attempt is the one since which it was awaited.
	Attempt uint64
	// SetEpoch is that of the set it caught up with: refused when the set has
	// changed since.
	SetEpoch uint64
}

// Forget removes a Region that is out of the set, and all that is kept of it but
// its marks, shares and the epoch of its lease.
type Forget struct {
	Region string
}

// Succeed forgets the last Region of the set, which is lost for good, and takes
// another into the set in its place: an operator's decision, for what only the lost
// one had is lost with it. Its marks stay.
type Succeed struct {
	Region      string // the lost one
	Incarnation string
	// Successor is out of the set, at this incarnation.
	Successor            string
	SuccessorIncarnation string
}

// SetMode says how duty is divided.
type SetMode struct {
	Mode    Mode
	Primary string         `json:",omitempty"` // of warm-standby; in the set
	Weights map[string]int `json:",omitempty"` // 0 to 1000; who is not named has 100
	Epoch   uint64         `json:",omitempty"` // duty epoch that the caller saw; 0 is any
}

// SetControl moves control to a Region of the set.
type SetControl struct {
	Region string
	Epoch  uint64 // control epoch that the caller saw
}

// SetSwitch sets a Region's routing switch. The last that is on stays on.
type SetSwitch struct {
	Region string
	Switch Switch
}

// TakeLease takes the lease of a Region of the set for a node: one that is over,
// or the node's own from before it started again.
type TakeLease struct {
	Region string
	Node   string
	Millis int64 // how long it holds after each renewal
}

// RenewLease renews a lease. It is refused when the Region has left the set.
type RenewLease struct {
	Region string
	Node   string
	Epoch  uint64
}

// ReleaseLease gives a lease back before it runs out.
type ReleaseLease struct {
	Region string
	Node   string
	Epoch  uint64
}

// expireLease is the leader's word that a lease was not renewed in time. It is
// refused if a renewal came first.
type expireLease struct {
	Region   string
	Epoch    uint64
	Renewals uint64
}

// Raise raises marks for a Region that holds duty. Marks that are as high stay.
type Raise struct {
	Region string
	Lease  uint64 // epoch of the lease under which the Region claims
	Duty   uint64 // duty epoch that the Region saw
	Marks  []Mark
}

// Mark says how far in hash order a shard's work is claimed.
type Mark struct {
	Shard int
	Key   string // of the run, step or zone, and shard
	To    uint64
}

// DropMarks forgets the marks with a prefix, when others know what they stand for.
type DropMarks struct {
	Prefix string
	// SetEpoch is that of the set in which they do: refused when the set has changed
	// since. 0: whatever the set is.
	SetEpoch uint64
}

// Grant gives a Region a part of a quota for a window: what is left of Limit, up
// to Amount. It is refused when nothing is left.
type Grant struct {
	Key    string // quota and window
	Region string
	Amount uint64
	Limit  uint64 // of all Regions together
}

// DropShares forgets the shares with a prefix, when their window is over.
type DropShares struct{ Prefix string }

// Stop orders what the key names to be paused, cancelled or deleted. A weaker
// order does not replace a stronger, but it is the later of the two: its Result
// holds the epoch that Halt has then.
type Stop struct {
	Key  string
	Halt Halt // without Epoch
}

// DropStops takes stop orders back, or forgets them when they were carried out.
type DropStops struct {
	Keys []string
	UpTo uint64 `json:",omitempty"` // an order of a later epoch stays; 0: none does
}

// Barrier changes nothing: its index is a moment that all voters can be asked
// about.
type Barrier struct{}

func (Join) kind() string         { return "join" }
func (Await) kind() string        { return "await" }
func (Remove) kind() string       { return "remove" }
func (Return) kind() string       { return "return" }
func (Forget) kind() string       { return "forget" }
func (Succeed) kind() string      { return "succeed" }
func (SetMode) kind() string      { return "mode" }
func (SetControl) kind() string   { return "control" }
func (SetSwitch) kind() string    { return "switch" }
func (TakeLease) kind() string    { return "lease.take" }
func (RenewLease) kind() string   { return "lease.renew" }
func (ReleaseLease) kind() string { return "lease.release" }
func (expireLease) kind() string  { return "lease.expire" }
func (Raise) kind() string        { return "mark" }
func (DropMarks) kind() string    { return "mark.drop" }
func (Grant) kind() string        { return "share" }
func (DropShares) kind() string   { return "share.drop" }
func (Stop) kind() string         { return "stop" }
func (DropStops) kind() string    { return "stop.drop" }
func (Barrier) kind() string      { return "barrier" }

// named checks names, in pairs of what and value: each is there, is short, and is
// of printable ASCII that JSON does not escape, which bounds a snapshot.
func named(most int, pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		member, value := pairs[i], pairs[i+1]
		switch {
		case value == "":
			return aws.InvalidMember(member, "%s is missing", member)
		case len(value) > most:
			return aws.InvalidMember(member, "%s has more than %d bytes", member, most)
		case strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"\<>&`, r) }):
			return aws.InvalidMember(member, "%s has characters that are not allowed in a name", member)
		}
	}
	return nil
}

func short(member, value string, most int) error {
	if len(value) > most {
		return aws.InvalidMember(member, "%s has more than %d bytes", member, most)
	}
	return nil
}

func (c Join) check() error {
	if err := short("Was", c.Was, nameBytesMax); err != nil {
		return err
	}
	return named(nameBytesMax, "Region", c.Region, "Incarnation", c.Incarnation)
}

func (c Await) check() error {
	return named(nameBytesMax, "Region", c.Region, "Incarnation", c.Incarnation)
}

func (c Remove) check() error {
	if err := short("Reason", c.Reason, reasonBytesMax); err != nil {
		return err
	}
	return named(nameBytesMax, "Region", c.Region, "Incarnation", c.Incarnation)
}

func (c Return) check() error {
	return named(nameBytesMax, "Region", c.Region, "Incarnation", c.Incarnation)
}

func (c Forget) check() error { return named(nameBytesMax, "Region", c.Region) }

func (c Succeed) check() error {
	if c.Successor == c.Region {
		return aws.InvalidMember("Successor", "Region %s cannot take its own place", c.Region)
	}
	return named(nameBytesMax, "Region", c.Region, "Incarnation", c.Incarnation,
		"Successor", c.Successor, "SuccessorIncarnation", c.SuccessorIncarnation)
}

func (c SetMode) check() error {
	switch c.Mode {
	case ActiveActive:
		if c.Primary != "" {
			return aws.InvalidMember("Primary", "active-active has no primary")
		}
	case WarmStandby:
		if err := named(nameBytesMax, "Primary", c.Primary); err != nil {
			return err
		}
	default:
		return aws.InvalidMember("Mode", "mode %q is neither %s nor %s", c.Mode, ActiveActive, WarmStandby)
	}
	if len(c.Weights) > regionsMax {
		return aws.InvalidMember("Weights", "more than %d weights", regionsMax)
	}
	for name, w := range c.Weights {
		if err := named(nameBytesMax, "Weights", name); err != nil {
			return err
		}
		if w < 0 || w > weightMax {
			return aws.InvalidMember("Weights", "the weight %d of %s is not between 0 and %d", w, name, weightMax)
		}
	}
	return nil
}

func (c SetControl) check() error { return named(nameBytesMax, "Region", c.Region) }

func (c SetSwitch) check() error {
	switch c.Switch.Position {
	case On, Off, Draining:
	default:
		return aws.InvalidMember("Switch.Position", "position %q is none of on, off and draining", c.Switch.Position)
	}
	if c.Switch.Weight < 0 || c.Switch.Weight > weightMax {
		return aws.InvalidMember("Switch.Weight", "the weight %d is not between 0 and %d", c.Switch.Weight, weightMax)
	}
	if err := short("Switch.Reason", c.Switch.Reason, reasonBytesMax); err != nil {
		return err
	}
	if err := short("Switch.By", c.Switch.By, nameBytesMax); err != nil {
		return err
	}
	return named(nameBytesMax, "Region", c.Region)
}

func (c TakeLease) check() error {
	if c.Millis < 1 || c.Millis > leaseMillisMax {
		return aws.InvalidMember("Millis", "a lease of %d ms is not between 1 and %d", c.Millis, leaseMillisMax)
	}
	return named(nameBytesMax, "Region", c.Region, "Node", c.Node)
}

func (c RenewLease) check() error {
	return named(nameBytesMax, "Region", c.Region, "Node", c.Node)
}

func (c ReleaseLease) check() error {
	return named(nameBytesMax, "Region", c.Region, "Node", c.Node)
}

func (c expireLease) check() error { return named(nameBytesMax, "Region", c.Region) }

func (c Raise) check() error {
	if len(c.Marks) == 0 || len(c.Marks) > batchMax {
		return aws.InvalidMember("Marks", "%d marks are not between 1 and %d", len(c.Marks), batchMax)
	}
	for _, m := range c.Marks {
		if m.Shard < 0 || m.Shard >= Shards {
			return aws.InvalidMember("Marks.Shard", "there is no shard %d", m.Shard)
		}
		if err := named(keyBytesMax, "Marks.Key", m.Key); err != nil {
			return err
		}
	}
	return named(nameBytesMax, "Region", c.Region)
}

func (c DropMarks) check() error { return named(keyBytesMax, "Prefix", c.Prefix) }

func (c Grant) check() error {
	if c.Amount == 0 {
		return aws.InvalidMember("Amount", "nothing is asked for")
	}
	if err := named(keyBytesMax, "Key", c.Key); err != nil {
		return err
	}
	return named(nameBytesMax, "Region", c.Region)
}

func (c DropShares) check() error { return named(keyBytesMax, "Prefix", c.Prefix) }

func (c Stop) check() error {
	if c.Halt.Kind.strength() == 0 {
		return aws.InvalidMember("Halt.Kind", "a stop order %q is none of pause, cancel and delete", c.Halt.Kind)
	}
	if c.Halt.Version < 0 {
		return aws.InvalidMember("Halt.Version", "the version %d is below 0", c.Halt.Version)
	}
	if err := short("Halt.By", c.Halt.By, nameBytesMax); err != nil {
		return err
	}
	return named(keyBytesMax, "Key", c.Key)
}

func (Barrier) check() error { return nil }

func (c DropStops) check() error {
	if len(c.Keys) == 0 || len(c.Keys) > batchMax {
		return aws.InvalidMember("Keys", "%d keys are not between 1 and %d", len(c.Keys), batchMax)
	}
	for _, k := range c.Keys {
		if err := named(keyBytesMax, "Keys", k); err != nil {
			return err
		}
	}
	return nil
}

// with returns a copy of m that has v under k.
func with[V any](m map[string]V, k string, v V) map[string]V {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]V{}
	}
	m[k] = v
	return m
}

// without returns a copy of m that lacks the keys that gone names.
func without[V any](m map[string]V, gone func(k string) bool) map[string]V {
	m = maps.Clone(m)
	maps.DeleteFunc(m, func(k string, _ V) bool { return gone(k) })
	return m
}

// region returns a Region that must be known, and at the incarnation.
func (s *State) region(name, incarnation string) (Region, error) {
	r, ok := s.Regions[name]
	if !ok {
		return r, aws.NotFound("Region %s is not known to the quorum", name)
	}
	if r.Incarnation != incarnation {
		return r, aws.Conflict("Region %s is at incarnation %s, not %s", name, r.Incarnation, incarnation)
	}
	return r, nil
}

// member returns an error unless the Region is in the set.
func (s *State) member(name string) error {
	r, ok := s.Regions[name]
	if !ok {
		return aws.NotFound("Region %s is not known to the quorum", name)
	}
	if !r.InSync {
		return aws.Conflict("Region %s is not in the in-sync set: %s", name, r.Reason)
	}
	return nil
}

func (c Join) apply(s *State) (Result, error) {
	before := *s
	r, known := s.Regions[c.Region]
	set := s.Set()
	switch {
	case known && r.Incarnation == c.Incarnation:
		return Result{Epoch: s.SetEpoch}, nil
	case r.Incarnation != c.Was:
		return Result{}, aws.Conflict("Region %s is at incarnation %q, not %q", c.Region, r.Incarnation, c.Was)
	case !known && len(s.Regions) >= regionsMax:
		return Result{}, aws.Quota("the quorum knows %d Regions already", regionsMax)
	case r.InSync && len(set) == 1 && len(s.Regions) > 1 && !c.Force:
		return Result{}, aws.Conflict("Region %s is the last of the in-sync set and came back as another incarnation; "+
			"another Region may hold more, so an operator has to choose", c.Region)
	}
	next := Region{Incarnation: c.Incarnation, Reason: "has not caught up yet", Attempt: r.Attempt}
	if len(set) == 0 || r.InSync && len(set) == 1 {
		next.InSync, next.Reason = true, ""
	}
	s.Regions = with(s.Regions, c.Region, next)
	if !known {
		s.Switches = with(s.Switches, c.Region, Switch{Position: On, Weight: weightDefault})
	}
	s.settle(&before)
	return Result{Epoch: s.SetEpoch}, nil
}

func (c Await) apply(s *State) (Result, error) {
	r, err := s.region(c.Region, c.Incarnation)
	switch {
	case err != nil:
		return Result{}, err
	case r.InSync:
		return Result{}, aws.Conflict("Region %s is in the in-sync set", c.Region)
	case !r.Awaited:
		r.Awaited = true
		r.Attempt++
		s.Regions = with(s.Regions, c.Region, r)
	}
	return Result{Epoch: r.Attempt}, nil
}

func (c Remove) apply(s *State) (Result, error) {
	before := *s
	r, err := s.region(c.Region, c.Incarnation)
	switch {
	case err != nil:
		return Result{}, err
	case r.Awaited:
		r.Awaited, r.Reason = false, c.Reason
		s.Regions = with(s.Regions, c.Region, r)
		return Result{Epoch: s.SetEpoch}, nil
	case !r.InSync:
		return Result{Epoch: s.SetEpoch}, nil
	case len(s.Set()) == 1:
		return Result{}, aws.Conflict("Region %s is the last of the in-sync set and cannot be removed from it", c.Region)
	}
	r.InSync, r.Reason = false, c.Reason
	s.Regions = with(s.Regions, c.Region, r)
	s.settle(&before)
	return Result{Epoch: s.SetEpoch}, nil
}

func (c Return) apply(s *State) (Result, error) {
	before := *s
	r, err := s.region(c.Region, c.Incarnation)
	switch {
	case err != nil:
		return Result{}, err
	case r.InSync:
		return Result{Epoch: s.SetEpoch}, nil
	case !r.Awaited || r.Attempt != c.Attempt:
		return Result{}, aws.Conflict("Region %s is not awaited since its attempt %d", c.Region, c.Attempt)
	case c.SetEpoch != s.SetEpoch:
		return Result{}, aws.Conflict("Region %s caught up with the set of epoch %d, which is now %d", c.Region, c.SetEpoch, s.SetEpoch)
	}
	r.InSync, r.Awaited, r.Reason = true, false, ""
	s.Regions = with(s.Regions, c.Region, r)
	s.settle(&before)
	return Result{Epoch: s.SetEpoch}, nil
}

func (c Forget) apply(s *State) (Result, error) {
	r, ok := s.Regions[c.Region]
	switch {
	case !ok:
		return Result{}, aws.NotFound("Region %s is not known to the quorum", c.Region)
	case r.InSync:
		return Result{}, aws.Conflict("Region %s is in the in-sync set", c.Region)
	}
	if err := s.forget(c.Region); err != nil {
		return Result{}, err
	}
	return Result{Epoch: s.SetEpoch}, nil
}

// forget drops what is kept of a Region whose lease is over. The lease's epoch is
// kept: one that comes back goes on from it.
func (s *State) forget(name string) error {
	if l, ok := s.Leases[name]; ok && !l.Over {
		return aws.Conflict("the lease of Region %s has not run out: it may be sending", name)
	}
	same := func(other string) bool { return other == name }
	s.Regions = without(s.Regions, same)
	s.Switches = without(s.Switches, same)
	s.Weights = without(s.Weights, same)
	return nil
}

func (c Succeed) apply(s *State) (Result, error) {
	before := *s
	r, err := s.region(c.Region, c.Incarnation)
	if err != nil {
		return Result{}, err
	}
	next, err := s.region(c.Successor, c.SuccessorIncarnation)
	switch set := s.Set(); {
	case err != nil:
		return Result{}, err
	case !r.InSync:
		return Result{}, aws.Conflict("Region %s is not in the in-sync set: nobody has to take its place", c.Region)
	case len(set) > 1:
		return Result{}, aws.Conflict("Region %s is in the in-sync set with others (%s), which remove it when they do not hear it",
			c.Region, strings.Join(set, ", "))
	}
	if err := s.forget(c.Region); err != nil {
		return Result{}, err
	}
	next.InSync, next.Awaited, next.Reason = true, false, ""
	s.Regions = with(s.Regions, c.Successor, next)
	s.settle(&before)
	return Result{Epoch: s.SetEpoch}, nil
}

func (c SetMode) apply(s *State) (Result, error) {
	before := *s
	if c.Epoch != 0 && c.Epoch != s.Duty.Epoch {
		return Result{}, aws.Conflict("the duty epoch is %d, not %d", s.Duty.Epoch, c.Epoch)
	}
	if c.Mode == WarmStandby {
		if err := s.member(c.Primary); err != nil {
			return Result{}, err
		}
	}
	for name := range c.Weights {
		if _, ok := s.Regions[name]; !ok {
			return Result{}, aws.NotFound("Region %s is not known to the quorum", name)
		}
	}
	s.Mode, s.Primary, s.Weights = c.Mode, c.Primary, maps.Clone(c.Weights)
	s.settle(&before)
	return Result{Epoch: s.Duty.Epoch}, nil
}

func (c SetControl) apply(s *State) (Result, error) {
	if c.Epoch != s.Control.Epoch {
		return Result{}, aws.Conflict("the control epoch is %d, not %d", s.Control.Epoch, c.Epoch)
	}
	if err := s.member(c.Region); err != nil {
		return Result{}, err
	}
	if c.Region != s.Control.Region {
		s.Control = Control{c.Region, c.Epoch + 1}
	}
	return Result{Epoch: s.Control.Epoch}, nil
}

func (c SetSwitch) apply(s *State) (Result, error) {
	if _, ok := s.Regions[c.Region]; !ok {
		return Result{}, aws.NotFound("Region %s is not known to the quorum", c.Region)
	}
	next := with(s.Switches, c.Region, c.Switch)
	on := func(all map[string]Switch) bool {
		for name, sw := range all {
			if sw.Position == On && s.Regions[name].InSync {
				return true
			}
		}
		return false
	}
	if on(s.Switches) && !on(next) {
		return Result{}, aws.Conflict("Region %s is the last of the in-sync set that is switched on", c.Region)
	}
	s.Switches = next
	return Result{}, nil
}

// lease returns a lease that must be the node's at the epoch, and not over.
func (s *State) lease(region, node string, epoch uint64) (Lease, error) {
	l, ok := s.Leases[region]
	switch {
	case !ok:
		return l, aws.NotFound("Region %s has no lease", region)
	case l.Epoch != epoch || node != "" && l.Node != node:
		return l, aws.Conflict("the lease of Region %s is at epoch %d, held by %s; it is not epoch %d", region, l.Epoch, l.Node, epoch)
	case l.Over:
		return l, aws.Conflict("the lease of Region %s of epoch %d is over", region, epoch)
	}
	return l, nil
}

func (c TakeLease) apply(s *State) (Result, error) {
	if err := s.member(c.Region); err != nil {
		return Result{}, err
	}
	l := s.Leases[c.Region]
	if l.Epoch > 0 && !l.Over && l.Node != c.Node {
		return Result{}, aws.Conflict("the lease of Region %s is held by %s at epoch %d", c.Region, l.Node, l.Epoch)
	}
	s.Leases = with(s.Leases, c.Region, Lease{Node: c.Node, Epoch: l.Epoch + 1, Millis: c.Millis})
	return Result{Epoch: l.Epoch + 1}, nil
}

func (c RenewLease) apply(s *State) (Result, error) {
	l, err := s.lease(c.Region, c.Node, c.Epoch)
	if err != nil {
		return Result{}, err
	}
	if err := s.member(c.Region); err != nil {
		return Result{}, err
	}
	l.Renewals++
	s.Leases = with(s.Leases, c.Region, l)
	return Result{Epoch: l.Epoch}, nil
}

func (c ReleaseLease) apply(s *State) (Result, error) {
	l, err := s.lease(c.Region, c.Node, c.Epoch)
	if err != nil {
		return Result{}, err
	}
	l.Over = true
	s.Leases = with(s.Leases, c.Region, l)
	return Result{Epoch: l.Epoch}, nil
}

func (c expireLease) apply(s *State) (Result, error) {
	l, err := s.lease(c.Region, "", c.Epoch)
	if err != nil {
		return Result{}, err
	}
	if l.Renewals != c.Renewals {
		return Result{}, aws.Conflict("the lease of Region %s was renewed", c.Region)
	}
	l.Over = true
	s.Leases = with(s.Leases, c.Region, l)
	return Result{Epoch: l.Epoch}, nil
}

func (c Raise) apply(s *State) (Result, error) {
	if err := s.member(c.Region); err != nil {
		return Result{}, err
	}
	if c.Duty != s.Duty.Epoch {
		return Result{}, aws.Conflict("the duty epoch is %d, not %d", s.Duty.Epoch, c.Duty)
	}
	if _, err := s.lease(c.Region, "", c.Lease); err != nil {
		return Result{}, err
	}
	marks := maps.Clone(s.Marks)
	if marks == nil {
		marks = map[string]uint64{}
	}
	for _, m := range c.Marks {
		if owner := s.Duty.Shards[m.Shard]; owner != c.Region {
			return Result{}, aws.Conflict("shard %d is the duty of %s, not of %s", m.Shard, owner, c.Region)
		}
		marks[m.Key] = max(marks[m.Key], m.To)
	}
	if len(marks) > marksMax && len(marks) > len(s.Marks) {
		return Result{}, aws.Quota("there would be more than %d marks", marksMax)
	}
	s.Marks = marks
	return Result{Epoch: s.Duty.Epoch}, nil
}

func (c DropMarks) apply(s *State) (Result, error) {
	if c.SetEpoch != 0 && c.SetEpoch != s.SetEpoch {
		return Result{}, aws.Conflict("marks were of no more use in the set of epoch %d, which is now %d", c.SetEpoch, s.SetEpoch)
	}
	s.Marks = without(s.Marks, func(k string) bool { return strings.HasPrefix(k, c.Prefix) })
	return Result{}, nil
}

func (c Grant) apply(s *State) (Result, error) {
	if err := s.member(c.Region); err != nil {
		return Result{}, err
	}
	granted, left := s.Shares[c.Key], c.Limit
	for _, n := range granted {
		left -= min(left, n)
	}
	n := min(c.Amount, left)
	switch {
	case n == 0:
		return Result{}, aws.Quota("nothing is left of the %d of %s", c.Limit, c.Key)
	case granted == nil && len(s.Shares) >= sharesMax:
		return Result{}, aws.Quota("there are %d shared quotas already", sharesMax)
	}
	s.Shares = with(s.Shares, c.Key, with(granted, c.Region, granted[c.Region]+n))
	return Result{Granted: n}, nil
}

func (c DropShares) apply(s *State) (Result, error) {
	s.Shares = without(s.Shares, func(k string) bool { return strings.HasPrefix(k, c.Prefix) })
	return Result{}, nil
}

func (c Stop) apply(s *State) (Result, error) {
	halt, ok := s.Stops[c.Key]
	switch {
	case !ok && len(s.Stops) >= stopsMax:
		return Result{}, aws.Quota("there are %d stop orders already", stopsMax)
	case halt.Kind.strength() < c.Halt.Kind.strength():
		halt = c.Halt
	case halt.Kind == c.Halt.Kind && c.Halt.Version == 0:
		halt.Version = 0
	case halt.Kind == c.Halt.Kind && halt.Version > 0:
		halt.Version = max(halt.Version, c.Halt.Version)
	}
	s.StopEpoch++
	halt.Epoch = s.StopEpoch
	s.Stops = with(s.Stops, c.Key, halt)
	return Result{Epoch: s.StopEpoch, Joined: ok}, nil
}

func (Barrier) apply(*State) (Result, error) { return Result{}, nil }

func (c DropStops) apply(s *State) (Result, error) {
	s.Stops = without(s.Stops, func(k string) bool {
		return slices.Contains(c.Keys, k) && (c.UpTo == 0 || s.Stops[k].Epoch <= c.UpTo)
	})
	return Result{}, nil
}
