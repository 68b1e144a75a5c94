package quorum

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/everpoint/everpoint/aws"
)

// rules is a state that commands are applied to one by one, as the log does.
type rules struct {
	t *testing.T
	m *machine
	n int
}

func newRules(t *testing.T) *rules { return &rules{t: t, m: newMachine()} }

// try applies a command through its encoding and returns what came of it.
func (r *rules) try(c Command) (Result, error) {
	r.t.Helper()
	r.n++
	before, old := r.m.state, mustJSON(r.t, r.m.state)
	data, err := encodeProposal(fmt.Sprint("p", r.n), r.m.index, c)
	if err != nil {
		r.t.Fatal(err)
	}
	a, err := r.m.apply(r.m.index+1, 1, data)
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := a.outcome()
	if err != nil && !reflect.DeepEqual(before, r.m.state) {
		r.t.Errorf("%s was rejected (%v) and changed the state", c.kind(), err)
	}
	lawful(r.t, &before, &r.m.state, c)
	// What others hold of the state before must be as it was.
	if again := mustJSON(r.t, before); !bytes.Equal(old, again) {
		r.t.Errorf("%s changed a copy of the state that was taken before it", c.kind())
	}
	return res, err
}

func mustEncode(t *testing.T, m *machine) []byte {
	t.Helper()
	b, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustJSON(t *testing.T, s State) []byte {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r *rules) do(c Command) Result {
	r.t.Helper()
	res, err := r.try(c)
	if err != nil {
		r.t.Fatalf("%s: %v", c.kind(), err)
	}
	return res
}

// refuse expects a rejection of a kind that says something.
func (r *rules) refuse(kind aws.Kind, says string, c Command) {
	r.t.Helper()
	_, err := r.try(c)
	if err == nil || aws.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		r.t.Errorf("%+v: got %v, want kind %v and %q", c, err, kind, says)
	}
}

// lawful holds two states, one after the other, to what is true of any two.
func lawful(t *testing.T, before, after *State, c Command) {
	t.Helper()
	set := after.Set()
	if len(before.Set()) > 0 && len(set) == 0 {
		t.Errorf("%+v left the set empty", c)
	}
	for i, owner := range after.Duty.Shards {
		if len(set) > 0 && !slices.Contains(set, owner) {
			t.Errorf("after %+v shard %d is the duty of %q; the set is %v", c, i, owner, set)
		}
	}
	if len(set) > 0 && !slices.Contains(set, after.Control.Region) {
		t.Errorf("after %+v control is with %q; the set is %v", c, after.Control.Region, set)
	}
	if after.Mode == WarmStandby && !slices.Contains(set, after.Primary) {
		t.Errorf("after %+v the primary is %q; the set is %v", c, after.Primary, set)
	}
	rises := func(what string, a, b uint64, changed bool) {
		t.Helper()
		if b < a || changed && b == a || !changed && b != a {
			t.Errorf("%+v: the %s epoch went from %d to %d, changed: %v", c, what, a, b, changed)
		}
	}
	rises("duty", before.Duty.Epoch, after.Duty.Epoch, before.Duty.Shards != after.Duty.Shards)
	rises("control", before.Control.Epoch, after.Control.Epoch, before.Control.Region != after.Control.Region)
	rises("set", before.SetEpoch, after.SetEpoch, !maps.Equal(incarnations(before), incarnations(after)))
	for name, r := range after.Regions {
		was, known := before.Regions[name]
		_, joined := c.(Join)
		heir, succeeds := c.(Succeed)
		may := joined || succeeds && heir.Successor == name || was.Awaited
		if r.InSync && !was.InSync && !may || r.InSync && r.Awaited || known && r.Attempt < was.Attempt {
			t.Errorf("%+v made Region %+v %+v", c, was, r)
		}
		stays := was.InSync && was.Incarnation == r.Incarnation
		switch {
		case r.InSync != (r.Member > 0) || r.Member > after.SetEpoch,
			r.InSync && stays && r.Member != was.Member,
			r.InSync && !stays && r.Member <= before.SetEpoch:
			t.Errorf("at set epoch %d, then %d, %+v made the stay of Region %+v %+v", before.SetEpoch, after.SetEpoch, c, was, r)
		}
	}
	for i, since := range after.Duty.Since {
		switch was := before.Duty.Since[i]; {
		case after.Duty.Shards[i] == before.Duty.Shards[i] && since != was,
			after.Duty.Shards[i] != before.Duty.Shards[i] && since != after.Duty.Epoch:
			t.Errorf("%+v moved shard %d since %d from %q to %q since %d", c, i, was, before.Duty.Shards[i], after.Duty.Shards[i], since)
		}
	}
	for name, l := range before.Leases {
		now, ok := after.Leases[name]
		if !ok || now.Epoch < l.Epoch || now.Epoch == l.Epoch && (now.Renewals < l.Renewals || l.Over && !now.Over || now.Node != l.Node) {
			t.Errorf("%+v made lease %+v %+v", c, l, now)
		}
	}
	if _, drops := c.(DropMarks); !drops {
		for k, v := range before.Marks {
			if after.Marks[k] < v {
				t.Errorf("%+v lowered mark %s from %d to %d", c, k, v, after.Marks[k])
			}
		}
	}
	if _, drops := c.(DropShares); !drops {
		for k, byRegion := range before.Shares {
			for region, n := range byRegion {
				if after.Shares[k][region] < n {
					t.Errorf("%+v lowered the share of %s in %s", c, region, k)
				}
			}
		}
	}
}

// counts is how many shards each Region has.
func counts(s *State) map[string]int {
	n := map[string]int{}
	for _, owner := range s.Duty.Shards {
		n[owner]++
	}
	return n
}

// two are Regions a and b, both in the set.
func two(t *testing.T) *rules {
	r := newRules(t)
	r.do(Join{Region: "a", Incarnation: "a1"})
	r.do(Join{Region: "b", Incarnation: "b1"})
	r.back("b", "b1")
	return r
}

// back takes a Region into the set again.
func (r *rules) back(region, incarnation string) {
	r.t.Helper()
	attempt := r.do(Await{Region: region, Incarnation: incarnation}).Epoch
	r.do(Return{Region: region, Incarnation: incarnation, Attempt: attempt, SetEpoch: r.m.state.SetEpoch})
}

func TestRules_the_in_sync_set(t *testing.T) {
	r := newRules(t)
	r.do(Join{Region: "a", Incarnation: "a1"})
	if set := r.m.state.Set(); !slices.Equal(set, []string{"a"}) {
		t.Fatalf("the first Region is its own set: got %v", set)
	}
	r.refuse(aws.KindConflict, "last of the in-sync set", Remove{Region: "a", Incarnation: "a1"})
	r.do(Join{Region: "b", Incarnation: "b1"})
	if r.m.state.Regions["b"].InSync {
		t.Fatal("a Region that joins has not caught up")
	}
	epoch := r.m.state.SetEpoch
	r.refuse(aws.KindConflict, "incarnation b1, not b0", Return{Region: "b", Incarnation: "b0", SetEpoch: epoch})
	r.refuse(aws.KindNotFound, "Region c", Return{Region: "c", Incarnation: "c1", SetEpoch: epoch})
	r.refuse(aws.KindConflict, "is not awaited", Return{Region: "b", Incarnation: "b1", SetEpoch: epoch})
	if all := r.m.state.Together(); len(all) != 1 {
		t.Fatalf("all that is waited for: %v", all)
	}
	first := r.do(Await{Region: "b", Incarnation: "b1"}).Epoch
	if again := r.do(Await{Region: "b", Incarnation: "b1"}).Epoch; again != first || r.m.state.Regions["b"].InSync {
		t.Fatalf("attempts %d and %d, %+v", first, again, r.m.state.Regions["b"])
	}
	if all := r.m.state.Together(); !maps.Equal(all, map[string]string{"a": "a1", "b": "b1"}) {
		t.Fatalf("all that is waited for: %v", all)
	}
	// Who stopped waiting for it does not have it in the set by what it did before.
	r.do(Remove{Region: "b", Incarnation: "b1", Reason: "is late"})
	r.refuse(aws.KindConflict, "is not awaited", Return{Region: "b", Incarnation: "b1", Attempt: first, SetEpoch: epoch})
	second := r.do(Await{Region: "b", Incarnation: "b1"}).Epoch
	r.refuse(aws.KindConflict, "is not awaited", Return{Region: "b", Incarnation: "b1", Attempt: first, SetEpoch: epoch})
	r.refuse(aws.KindConflict, "set of epoch", Return{Region: "b", Incarnation: "b1", Attempt: second, SetEpoch: epoch + 1})
	r.do(Return{Region: "b", Incarnation: "b1", Attempt: second, SetEpoch: epoch})
	r.refuse(aws.KindConflict, "is in the in-sync set", Await{Region: "b", Incarnation: "b1"})
	if got := counts(&r.m.state); got["a"] != 32 || got["b"] != 32 {
		t.Fatalf("shares %v", got)
	}
	r.refuse(aws.KindConflict, "incarnation a1, not a0", Remove{Region: "a", Incarnation: "a0"})
	r.do(Remove{Region: "a", Incarnation: "a1", Reason: "does not answer"})
	s := &r.m.state
	if s.Regions["a"].Reason != "does not answer" || counts(s)["b"] != 64 || s.Control != (Control{"b", 2}) {
		t.Fatalf("after the removal: %+v, control %+v", s.Regions["a"], s.Control)
	}
	r.refuse(aws.KindConflict, "last of the in-sync set", Remove{Region: "b", Incarnation: "b1"})
	r.refuse(aws.KindConflict, "not in the in-sync set: does not answer", SetControl{Region: "a", Epoch: 2})
	r.back("a", "a1")
	if r.m.state.Control != (Control{"b", 2}) {
		t.Error("control came back by itself")
	}
}

func TestRules_another_incarnation_is_not_in_sync(t *testing.T) {
	r := two(t)
	r.refuse(aws.KindConflict, `not "a0"`, Join{Region: "a", Incarnation: "a2", Was: "a0"})
	r.do(Join{Region: "a", Incarnation: "a2", Was: "a1"})
	if r.m.state.Regions["a"].InSync || counts(&r.m.state)["b"] != 64 {
		t.Fatal("a Region that came back from a backup kept its duty")
	}
	r.refuse(aws.KindConflict, `not "a1"`, Join{Region: "a", Incarnation: "a3", Was: "a1"}) // a call that came late
	r.refuse(aws.KindConflict, "an operator has to choose", Join{Region: "b", Incarnation: "b2", Was: "b1"})
	r.do(Join{Region: "b", Incarnation: "b2", Was: "b1", Force: true})
	if b := r.m.state.Regions["b"]; !b.InSync || b.Incarnation != "b2" {
		t.Fatalf("got %+v", b)
	}
	r.do(Forget{Region: "a"})
	r.refuse(aws.KindConflict, "in the in-sync set", Forget{Region: "b"})
	r.do(Join{Region: "b", Incarnation: "b3", Was: "b2"}) // nobody else could hold more
	if !r.m.state.Regions["b"].InSync {
		t.Error("a group of one is its own set")
	}
}

// The last Region of the set is lost for good: another takes its place by an
// operator's word, and only when it cannot be sending any more.
func TestRules_the_last_of_the_set_has_a_successor(t *testing.T) {
	r := two(t)
	r.do(TakeLease{Region: "a", Node: "n1", Millis: 6000})
	lost := Succeed{Region: "a", Incarnation: "a1", Successor: "b", SuccessorIncarnation: "b1"}
	r.refuse(aws.KindConflict, "in the in-sync set with others (a, b)", lost)
	r.do(Remove{Region: "b", Incarnation: "b1", Reason: "cut off"})
	r.do(Raise{Region: "a", Lease: 1, Duty: r.m.state.Duty.Epoch, Marks: []Mark{{3, "run/a/03", 9}}})
	member, set, duty, control := r.m.state.Regions["a"].Member, r.m.state.SetEpoch, r.m.state.Duty.Epoch, r.m.state.Control.Epoch
	r.refuse(aws.KindConflict, "may be sending", lost)
	r.do(expireLease{Region: "a", Epoch: 1})
	r.refuse(aws.KindConflict, "in the in-sync set", Forget{Region: "a"})
	r.refuse(aws.KindConflict, "at incarnation a1, not a2", Succeed{Region: "a", Incarnation: "a2", Successor: "b", SuccessorIncarnation: "b1"})
	r.refuse(aws.KindConflict, "at incarnation b1, not b2", Succeed{Region: "a", Incarnation: "a1", Successor: "b", SuccessorIncarnation: "b2"})
	r.refuse(aws.KindNotFound, "not known", Succeed{Region: "a", Incarnation: "a1", Successor: "c", SuccessorIncarnation: "c1"})
	r.do(lost)
	s := &r.m.state
	if b := s.Regions["b"]; !b.InSync || b.Member <= max(member, set) || len(s.Regions) != 1 || b.Reason != "" {
		t.Errorf("a was a member at %d of set %d; now %+v", member, set, s.Regions)
	}
	if counts(s)["b"] != 64 || s.Duty.Epoch <= duty || s.Control != (Control{"b", control + 1}) {
		t.Errorf("duty %v of epoch %d, was %d; control %+v, was %d", counts(s), s.Duty.Epoch, duty, s.Control, control)
	}
	if s.Marks["run/a/03"] != 9 || !s.Leases["a"].Over || s.Leases["a"].Epoch != 1 {
		t.Errorf("marks %v, leases %+v", s.Marks, s.Leases)
	}
	// It comes back all the same: as one that is new.
	r.refuse(aws.KindNotFound, "not known", TakeLease{Region: "a", Node: "n1", Millis: 6000})
	r.do(Join{Region: "a", Incarnation: "a1"})
	if s.Regions["a"].InSync {
		t.Error("a Region that was forgotten is in sync")
	}
	r.back("a", "a1")
	if a, b := s.Regions["a"].Member, s.Regions["b"].Member; a <= b {
		t.Errorf("a is a member since %d, b since %d", a, b)
	}
	r.refuse(aws.KindConflict, "with others", Succeed{Region: "b", Incarnation: "b1", Successor: "a", SuccessorIncarnation: "a1"})
}

func TestRules_each_stay_in_the_set_has_its_epoch(t *testing.T) {
	r := two(t)
	member := func(region string) uint64 { return r.m.state.Regions[region].Member }
	a, b := member("a"), member("b")
	if a != 1 || b != 2 {
		t.Fatalf("members at %d and %d", a, b)
	}
	r.do(Remove{Region: "b", Incarnation: "b1", Reason: "cut off"})
	if member("b") != 0 || member("a") != a {
		t.Errorf("after the removal at %d and %d", member("a"), member("b"))
	}
	r.back("b", "b1")
	if member("b") != 4 || member("a") != a {
		t.Errorf("after the return at %d and %d", member("a"), member("b"))
	}
	r.do(Join{Region: "b", Incarnation: "b2", Was: "b1"})
	r.back("b", "b2")
	if member("b") != 6 {
		t.Errorf("after a restore at %d", member("b"))
	}
	// What an older release left says at least who is in the set.
	old := r.m.state.Regions["b"]
	old.Member = 0
	r.m.state.Regions = with(r.m.state.Regions, "b", old)
	m, err := decodeMachine(mustEncode(t, r.m))
	if err != nil || m.state.Regions["b"].Member != 1 || m.state.Regions["a"].Member != a {
		t.Errorf("read from a snapshot without them: %+v, %v", m.state.Regions, err)
	}
}

func TestRules_modes(t *testing.T) {
	r := two(t)
	r.refuse(aws.KindConflict, "duty epoch", SetMode{Mode: WarmStandby, Primary: "a", Epoch: 77})
	r.refuse(aws.KindNotFound, "Region x", SetMode{Mode: WarmStandby, Primary: "x"})
	r.do(SetMode{Mode: WarmStandby, Primary: "b", Epoch: r.m.state.Duty.Epoch})
	if counts(&r.m.state)["b"] != 64 {
		t.Fatalf("the primary has %v", counts(&r.m.state))
	}
	r.do(Remove{Region: "b", Incarnation: "b1", Reason: "x"})
	if r.m.state.Primary != "a" || counts(&r.m.state)["a"] != 64 {
		t.Fatalf("primary %s, shares %v", r.m.state.Primary, counts(&r.m.state))
	}
	epoch := r.m.state.Duty.Epoch
	r.back("b", "b1")
	if r.m.state.Primary != "a" || r.m.state.Duty.Epoch != epoch {
		t.Error("the primary changed when the old one returned")
	}
	r.refuse(aws.KindNotFound, "Region x", SetMode{Mode: ActiveActive, Weights: map[string]int{"x": 1}})
	r.do(SetMode{Mode: ActiveActive, Weights: map[string]int{"a": 300}})
	if got := counts(&r.m.state); got["a"] != 48 || got["b"] != 16 {
		t.Errorf("3 to 1: %v", got)
	}
	r.do(SetMode{Mode: ActiveActive, Weights: map[string]int{"a": 0, "b": 0}})
	if got := counts(&r.m.state); got["a"] != 32 {
		t.Errorf("no weights: %v", got)
	}
}

func TestRules_control_and_switches(t *testing.T) {
	r := two(t)
	r.refuse(aws.KindConflict, "control epoch is 1, not 0", SetControl{Region: "b", Epoch: 0})
	if res := r.do(SetControl{Region: "b", Epoch: 1}); res.Epoch != 2 {
		t.Errorf("epoch %d", res.Epoch)
	}
	r.do(SetSwitch{Region: "a", Switch: Switch{Position: Draining, Reason: "upgrade", By: "ops", AtMillis: 5}})
	r.refuse(aws.KindConflict, "last of the in-sync set that is switched on", SetSwitch{Region: "b", Switch: Switch{Position: Off}})
	r.refuse(aws.KindNotFound, "Region x", SetSwitch{Region: "x", Switch: Switch{Position: On}})
	r.do(SetSwitch{Region: "a", Switch: Switch{Position: On, Weight: 10}})
	r.do(SetSwitch{Region: "b", Switch: Switch{Position: Off}})
	if s := r.m.state.Switches; s["a"].Weight != 10 || s["b"].Position != Off {
		t.Errorf("switches %v", s)
	}
}

func TestRules_leases(t *testing.T) {
	r := two(t)
	take := TakeLease{Region: "a", Node: "n1", Millis: 6000}
	r.do(take)
	r.refuse(aws.KindConflict, "held by n1", TakeLease{Region: "a", Node: "n2", Millis: 6000})
	r.refuse(aws.KindNotFound, "no lease", RenewLease{Region: "b", Node: "n1", Epoch: 1})
	r.do(RenewLease{Region: "a", Node: "n1", Epoch: 1})
	r.refuse(aws.KindConflict, "held by n1", RenewLease{Region: "a", Node: "n2", Epoch: 1})
	r.refuse(aws.KindConflict, "not epoch 2", RenewLease{Region: "a", Node: "n1", Epoch: 2})
	r.refuse(aws.KindConflict, "was renewed", expireLease{Region: "a", Epoch: 1, Renewals: 0})
	r.do(expireLease{Region: "a", Epoch: 1, Renewals: 1})
	r.refuse(aws.KindConflict, "is over", RenewLease{Region: "a", Node: "n1", Epoch: 1})
	if res := r.do(TakeLease{Region: "a", Node: "n2", Millis: 6000}); res.Epoch != 2 {
		t.Errorf("epoch %d", res.Epoch)
	}
	r.do(TakeLease{Region: "a", Node: "n2", Millis: 6000}) // the node started again
	r.refuse(aws.KindConflict, "not epoch 2", ReleaseLease{Region: "a", Node: "n2", Epoch: 2})
	r.do(Remove{Region: "a", Incarnation: "a1", Reason: "cut off"})
	r.refuse(aws.KindConflict, "not in the in-sync set", RenewLease{Region: "a", Node: "n2", Epoch: 3})
	if r.m.state.Leases["a"].Over {
		t.Error("a removal cannot know that the holder has stopped")
	}
	r.refuse(aws.KindConflict, "has not run out", Forget{Region: "a"})
	r.do(expireLease{Region: "a", Epoch: 3, Renewals: 0})
	r.refuse(aws.KindConflict, "not in the in-sync set", TakeLease{Region: "a", Node: "n2", Millis: 6000})
	r.do(Forget{Region: "a"})
	r.do(Join{Region: "a", Incarnation: "a9"})
	r.back("a", "a9")
	if res := r.do(take); res.Epoch != 4 {
		t.Errorf("a Region that was forgotten takes its lease at epoch %d, want 4", res.Epoch)
	}
}

func TestRules_marks(t *testing.T) {
	r := two(t)
	r.do(TakeLease{Region: "a", Node: "n", Millis: 6000})
	mine := slices.Index(r.m.state.Duty.Shards[:], "a")
	theirs := slices.Index(r.m.state.Duty.Shards[:], "b")
	raise := func(shard int, key string, to uint64) Raise {
		return Raise{Region: "a", Lease: 1, Duty: r.m.state.Duty.Epoch, Marks: []Mark{{shard, key, to}}}
	}
	r.do(raise(mine, "run1/0", 100))
	r.do(raise(mine, "run1/0", 50))
	if got := r.m.state.Marks["run1/0"]; got != 100 {
		t.Errorf("mark %d", got)
	}
	r.refuse(aws.KindConflict, "is the duty of b", raise(theirs, "run1/1", 1))
	stale := raise(mine, "run1/0", 200)
	stale.Duty--
	r.refuse(aws.KindConflict, "the duty epoch is", stale)
	other := raise(mine, "run1/0", 200)
	other.Lease = 7
	r.refuse(aws.KindConflict, "it is not epoch 7", other)
	r.do(raise(mine, "run2/0", 5))
	r.refuse(aws.KindConflict, "which is now", DropMarks{Prefix: "run1/", SetEpoch: r.m.state.SetEpoch + 1})
	r.do(DropMarks{Prefix: "run1/", SetEpoch: r.m.state.SetEpoch})
	if !maps.Equal(r.m.state.Marks, map[string]uint64{"run2/0": 5}) {
		t.Errorf("marks %v", r.m.state.Marks)
	}
	r.do(expireLease{Region: "a", Epoch: 1})
	r.refuse(aws.KindConflict, "is over", raise(mine, "run2/0", 6))
}

func TestRules_shares_and_stops(t *testing.T) {
	r := two(t)
	if res := r.do(Grant{Key: "spend/1", Region: "a", Amount: 60, Limit: 100}); res.Granted != 60 {
		t.Errorf("granted %d", res.Granted)
	}
	if res := r.do(Grant{Key: "spend/1", Region: "b", Amount: 60, Limit: 100}); res.Granted != 40 {
		t.Errorf("granted %d", res.Granted)
	}
	r.refuse(aws.KindQuota, "nothing is left", Grant{Key: "spend/1", Region: "a", Amount: 1, Limit: 100})
	r.do(Remove{Region: "b", Incarnation: "b1", Reason: "dead"})
	r.refuse(aws.KindQuota, "nothing is left", Grant{Key: "spend/1", Region: "a", Amount: 1, Limit: 100})
	r.refuse(aws.KindConflict, "not in the in-sync set", Grant{Key: "spend/2", Region: "b", Amount: 1, Limit: 100})
	r.do(DropShares{Prefix: "spend/1"})
	if len(r.m.state.Shares) != 0 {
		t.Errorf("shares %v", r.m.state.Shares)
	}

	r.do(Stop{Key: "app/c1", Halt: Halt{Kind: Cancel, AtMillis: 1}})
	r.do(Stop{Key: "app/c1", Halt: Halt{Kind: Pause, AtMillis: 2}})
	r.do(Stop{Key: "app/c2", Halt: Halt{Kind: Pause, AtMillis: 3}})
	r.do(Stop{Key: "app/c2", Halt: Halt{Kind: Delete, AtMillis: 4}})
	want := map[string]Halt{"app/c1": {Kind: Cancel, Epoch: 2, AtMillis: 1}, "app/c2": {Kind: Delete, Epoch: 4, AtMillis: 4}}
	if !maps.Equal(r.m.state.Stops, want) {
		t.Errorf("stops %v", r.m.state.Stops)
	}
	r.do(DropStops{Keys: []string{"app/c1"}})
	if len(r.m.state.Stops) != 1 {
		t.Errorf("stops %v", r.m.state.Stops)
	}
}

func TestRules_of_stop_orders(t *testing.T) {
	r := newRules(t)
	stop := func(kind HaltKind, version int) Result {
		return r.do(Stop{Key: "app/c", Halt: Halt{Kind: kind, Version: version}})
	}
	if got := stop(Pause, 3); got.Epoch != 1 || got.Joined {
		t.Errorf("the first order came to %+v", got)
	}
	if got := stop(Pause, 5); got.Epoch != 2 || !got.Joined || r.m.state.Stops["app/c"].Version != 5 {
		t.Errorf("an order of a later version came to %+v, stops %v", got, r.m.state.Stops)
	}
	if stop(Pause, 0); r.m.state.Stops["app/c"].Version != 0 {
		t.Errorf("an order of any version: stops %v", r.m.state.Stops)
	}
	if stop(Pause, 7); r.m.state.Stops["app/c"].Version != 0 {
		t.Errorf("after it, one of version 7: stops %v", r.m.state.Stops)
	}
	// Who carried out the order that it saw does not drop one that it did not see.
	if r.do(DropStops{Keys: []string{"app/c"}, UpTo: 3}); len(r.m.state.Stops) != 1 {
		t.Error("a later order was dropped with an earlier one")
	}
	if r.do(DropStops{Keys: []string{"app/c"}, UpTo: 4}); len(r.m.state.Stops) != 0 {
		t.Errorf("stops %v", r.m.state.Stops)
	}
	if got := stop(Delete, 0); got.Epoch != 5 {
		t.Errorf("an epoch was used again: %+v", got)
	}
	for i := range stopsMax - 1 {
		r.m.state.Stops = with(r.m.state.Stops, fmt.Sprint("app/other", i), Halt{Kind: Pause})
	}
	r.refuse(aws.KindQuota, "stop orders already", Stop{Key: "app/one-more", Halt: Halt{Kind: Pause}})
	stop(Delete, 0) // of a key that is there
}

func TestRules_what_is_out_of_bounds_is_not_proposed(t *testing.T) {
	long := strings.Repeat("x", keyBytesMax+1)
	for _, c := range []Command{
		Join{Region: "a"},
		Join{Incarnation: "1"},
		Join{Region: long, Incarnation: "1"},
		Join{Region: "a", Incarnation: "1", Was: long},
		Join{Region: "a\"", Incarnation: "1"},
		Join{Region: "a b", Incarnation: "1"},
		Join{Region: "ü", Incarnation: "1"},
		Remove{Region: "a", Incarnation: "1", Reason: strings.Repeat("x", reasonBytesMax+1)},
		Return{Region: "a"},
		Await{Region: "a"},
		Forget{},
		Succeed{Region: "a", Incarnation: "1", Successor: "b"},
		Succeed{Region: "a", Incarnation: "1", Successor: "a", SuccessorIncarnation: "1"},
		SetMode{},
		SetMode{Mode: WarmStandby},
		SetMode{Mode: ActiveActive, Primary: "a"},
		SetMode{Mode: ActiveActive, Weights: map[string]int{"a": -1}},
		SetMode{Mode: ActiveActive, Weights: map[string]int{"a": weightMax + 1}},
		SetControl{},
		SetSwitch{Region: "a"},
		SetSwitch{Region: "a", Switch: Switch{Position: On, Weight: -1}},
		TakeLease{Region: "a", Node: "n"},
		TakeLease{Region: "a", Node: "n", Millis: leaseMillisMax + 1},
		RenewLease{Region: "a"},
		ReleaseLease{Node: "n"},
		Raise{Region: "a"},
		Raise{Region: "a", Marks: []Mark{{Shards, "k", 1}}},
		Raise{Region: "a", Marks: []Mark{{-1, "k", 1}}},
		Raise{Region: "a", Marks: []Mark{{0, "", 1}}},
		Raise{Region: "a", Marks: make([]Mark, batchMax+1)},
		DropMarks{},
		Grant{Key: "k", Region: "a"},
		Grant{Region: "a", Amount: 1},
		DropShares{},
		Stop{Key: "k"},
		Stop{Key: "k", Halt: Halt{Kind: "halt"}},
		Stop{Halt: Halt{Kind: Pause}},
		Stop{Key: "k", Halt: Halt{Kind: Pause, Version: -1}},
		DropStops{},
		DropStops{Keys: []string{long}},
	} {
		if err := c.check(); aws.KindOf(err) != aws.KindInvalid {
			t.Errorf("%+v: got %v, want Invalid", c, err)
		}
	}
}

// TestRules_random plays random commands, sensible and not, and holds every step
// to the laws; then it replays the log, from the start and from a snapshot.
func TestRules_random(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r := newRules(t)
		var log [][]byte
		half := newMachine()
		const steps = 400
		for i := range steps {
			c := randomCommand(rng, &r.m.state)
			data, err := encodeProposal(fmt.Sprint("p", i+1), r.m.index, c)
			if err != nil {
				t.Fatal(err)
			}
			log = append(log, data)
			if _, err := r.try(c); err != nil && aws.KindOf(err) == aws.KindInternal {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if i == steps/2 {
				if half, err = decodeMachine(mustEncode(t, r.m)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for from, m := range map[int]*machine{0: newMachine(), steps/2 + 1: half} {
			for i, data := range log[from:] {
				if _, err := m.apply(uint64(from+i+1), 1, data); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(mustEncode(t, m), mustEncode(t, r.m)) {
				t.Fatalf("seed %d: the log from %d gives another state", seed, from)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// randomCommand makes a command that fits the state, more often than not.
func randomCommand(rng *rand.Rand, s *State) Command {
	region := string(rune('a' + rng.IntN(4)))
	r := s.Regions[region]
	off := func(n uint64) uint64 { // mostly right
		if rng.IntN(5) == 0 {
			return n + 1
		}
		return n
	}
	lease := s.Leases[region]
	node := fmt.Sprint("n", rng.IntN(2))
	key := fmt.Sprint("k", rng.IntN(5))
	switch rng.IntN(18) {
	case 0:
		return Join{Region: region, Incarnation: fmt.Sprint("i", rng.IntN(9)), Was: r.Incarnation, Force: rng.IntN(4) == 0}
	case 1:
		return Remove{Region: region, Incarnation: r.Incarnation + strings.Repeat("x", rng.IntN(2)*rng.IntN(2)), Reason: "random"}
	case 2:
		return Await{Region: region, Incarnation: r.Incarnation}
	case 3:
		return Return{Region: region, Incarnation: r.Incarnation + "x"[:rng.IntN(2)*rng.IntN(2)], Attempt: off(r.Attempt), SetEpoch: off(s.SetEpoch)}
	case 4:
		if rng.IntN(2) == 0 {
			return SetMode{Mode: WarmStandby, Primary: region, Epoch: off(s.Duty.Epoch)}
		}
		return SetMode{Mode: ActiveActive, Weights: map[string]int{region: rng.IntN(weightMax + 1)}}
	case 5:
		return SetControl{Region: region, Epoch: off(s.Control.Epoch)}
	case 6:
		return SetSwitch{Region: region, Switch: Switch{Position: []Position{On, Off, Draining}[rng.IntN(3)], Weight: rng.IntN(weightMax)}}
	case 7:
		return TakeLease{Region: region, Node: node, Millis: 6000}
	case 8:
		return RenewLease{Region: region, Node: node, Epoch: off(lease.Epoch)}
	case 9:
		return ReleaseLease{Region: region, Node: node, Epoch: off(lease.Epoch)}
	case 10:
		return expireLease{Region: region, Epoch: lease.Epoch, Renewals: off(lease.Renewals)}
	case 11, 12:
		shard := rng.IntN(Shards)
		if rng.IntN(3) > 0 {
			shard = max(0, slices.Index(s.Duty.Shards[:], region))
		}
		return Raise{Region: region, Lease: lease.Epoch, Duty: off(s.Duty.Epoch), Marks: []Mark{{shard, key, rng.Uint64N(1000)}}}
	case 13:
		return Grant{Key: key, Region: region, Amount: 1 + rng.Uint64N(50), Limit: 500}
	case 14:
		return Stop{Key: key, Halt: Halt{Kind: []HaltKind{Pause, Cancel, Delete}[rng.IntN(3)]}}
	case 15:
		return []Command{DropMarks{Prefix: key, SetEpoch: off(s.SetEpoch)}, DropShares{Prefix: key}, DropStops{Keys: []string{key}}}[rng.IntN(3)]
	case 16:
		set, other := s.Set(), string(rune('a'+rng.IntN(4)))
		if len(set) == 0 || other == set[0] {
			break
		}
		return Succeed{Region: set[0], Incarnation: s.Regions[set[0]].Incarnation, Successor: other, SuccessorIncarnation: s.Regions[other].Incarnation + "x"[:rng.IntN(2)*rng.IntN(2)]}
	}
	return Forget{Region: region}
}

// TestDivide_moves_as_little_as_can_be compares what moved with the least that any
// division into the same numbers needs, and the numbers with the exact shares.
func TestDivide_moves_as_little_as_can_be(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	var now [Shards]string
	for range 5000 {
		weights, total := map[string]int{}, 0
		for i := range 1 + rng.IntN(5) {
			w := rng.IntN(5) * rng.IntN(200)
			weights[string(rune('a'+(i+rng.IntN(2))))] = w
		}
		for _, w := range weights {
			total += w
		}
		next := divide(now, weights)
		had, has, moved := map[string]int{}, map[string]int{}, 0
		for i := range next {
			had[now[i]]++
			has[next[i]]++
			if now[i] != next[i] {
				moved++
			}
		}
		least := 0
		for name, n := range had {
			least += max(0, n-has[name])
		}
		if moved != least {
			t.Fatalf("%v: %d shards moved, %d had to", weights, moved, least)
		}
		for name, n := range has {
			w, ok := weights[name]
			if !ok {
				t.Fatalf("%q owns %d shards", name, n)
			}
			if all := total; all > 0 && (n < Shards*w/all || n > (Shards*w+all-1)/all) {
				t.Fatalf("%v: %s has %d", weights, name, n)
			}
		}
		if again := divide(next, weights); again != next {
			t.Fatalf("%v: dividing again moved shards", weights)
		}
		now = next
	}
	// Equal remainders: who has more keeps it.
	var three [Shards]string
	for i := range three {
		three[i] = []string{"a", "b", "c"}[i%3] // 22, 21, 21
	}
	three[0] = "c" // 21, 21, 22
	if divide(three, map[string]int{"a": 1, "b": 1, "c": 1}) != three {
		t.Error("an even division was not left alone")
	}
}

func TestMachine_a_proposal_has_its_effect_once(t *testing.T) {
	r := two(t)
	data, err := encodeProposal("same", r.m.index, grant("k"))
	if err != nil {
		t.Fatal(err)
	}
	var first answer
	for i := range 3 {
		a, err := r.m.apply(r.m.index+1, 1, data)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = *a
		}
		if *a != first {
			t.Errorf("the answer was %+v and is %+v", first, *a)
		}
		if r.m, err = decodeMachine(mustEncode(t, r.m)); err != nil { // snapshots remember it
			t.Fatal(err)
		}
	}
	if n := r.m.state.Shares["k"]["a"]; n != 1 {
		t.Errorf("its effect came %d times", n)
	}
	for range window + 5 {
		if _, err := r.m.apply(r.m.index+1, 1, nil); err != nil {
			t.Fatal(err)
		}
	}
	a, err := r.m.apply(r.m.index+1, 1, data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.outcome(); aws.KindOf(err) != aws.KindUnavailable || r.m.state.Shares["k"]["a"] != 1 {
		t.Errorf("a proposal from before the window: %v, shares %v", err, r.m.state.Shares)
	}
	if len(r.m.recent) != 0 || len(r.m.known) != 0 {
		t.Errorf("%d outcomes are remembered", len(r.m.recent))
	}
}

func TestMachine_what_a_newer_release_made_is_passed_over(t *testing.T) {
	r := two(t)
	before := r.m.state
	for i, data := range []string{
		`{"v":1,"id":"x1","base":1,"kind":"hologram","body":{"Region":"a"}}`,
		`{"v":2,"id":"x2","base":1,"kind":"remove","body":{"Region":"a","Incarnation":"a1"}}`,
	} {
		a, err := r.m.apply(r.m.index+1, 1, []byte(data))
		if err == nil || a == nil {
			t.Fatalf("%d: %v, %v", i, a, err)
		}
		if _, err := a.outcome(); aws.KindOf(err) != aws.KindNotImplemented {
			t.Errorf("its proposer is told %v", err)
		}
	}
	for _, data := range []string{`nonsense`, `{}`, `{"v":1,"id":"x3","kind":"remove","body":"?"}`} {
		if a, err := r.m.apply(r.m.index+1, 1, []byte(data)); a == nil && err == nil {
			t.Errorf("%s was passed over in silence", data)
		}
	}
	if !reflect.DeepEqual(before, r.m.state) {
		t.Error("the state changed")
	}
}

// TestMachine_snapshot_fits_its_envelope fills every map to its bound.
func TestMachine_snapshot_fits_its_envelope(t *testing.T) {
	m := newMachine()
	key := func(i, most int) string { return fmt.Sprintf("%0*d", most, i) }
	reason := strings.Repeat("\x01", reasonBytesMax)
	who := strings.Repeat("\x01", nameBytesMax)
	s := &m.state
	s.Marks, s.Shares, s.Stops = map[string]uint64{}, map[string]map[string]uint64{}, map[string]Halt{}
	s.Regions, s.Switches, s.Leases, s.Weights = map[string]Region{}, map[string]Switch{}, map[string]Lease{}, map[string]int{}
	byRegion := map[string]uint64{}
	for i := range regionsMax {
		name := key(i, nameBytesMax)
		byRegion[name] = 1 << 63
		s.Regions[name], s.Switches[name] = Region{name, true, reason, true, 1 << 62, 1 << 63}, Switch{On, 1, reason, who, 1 << 62}
		s.Leases[name], s.Weights[name] = Lease{name, 1 << 63, 1 << 63, 1 << 62, true}, 1
	}
	for i := range marksMax {
		s.Marks[key(i, keyBytesMax)] = 1 << 63
	}
	for i := range sharesMax {
		s.Shares[key(i, keyBytesMax)] = byRegion
	}
	for i := range stopsMax {
		s.Stops[key(i, keyBytesMax)] = Halt{Delete, 1 << 63, 1 << 62, who, 1 << 62}
	}
	for i := range window {
		m.recent = append(m.recent, answer{ID: key(i, idBytesMax), Message: strings.Repeat("\x01", reasonBytesMax+2*nameBytesMax), Member: key(i, nameBytesMax)})
	}
	if n := len(mustEncode(t, m)); n*4/3+4096 > envelopeBytesMax {
		t.Errorf("a snapshot of %d bytes does not fit an envelope of %d", n, envelopeBytesMax)
	} else {
		t.Logf("%d bytes", n)
	}
}
