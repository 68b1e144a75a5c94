package quorum

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/everpoint/everpoint/aws"
)

// do proposes a command at a member and expects it to be accepted.
func (m *member) do(c Command) Result {
	m.w.t.Helper()
	r, err := m.q.Propose(m.w.t.Context(), c)
	if err != nil {
		m.w.t.Fatalf("%s at %s: %v", c.kind(), m.host, err)
	}
	return r
}

func grant(key string) Grant { return Grant{Key: key, Region: "a", Amount: 1, Limit: 1 << 40} }

func TestQuorum_forms_one_group_in_any_order_of_starts(t *testing.T) {
	orders := [][]string{{"a", "b", "witness"}, {"witness", "b", "a"}, {"b", "a", "witness"}, {"b", "witness", "a"}}
	for _, order := range orders {
		t.Run(strings.Join(order, "_"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2, "a", "b", "witness")
				defer w.rest()
				w.members[order[0]].start()
				time.Sleep(5 * time.Second)
				w.members[order[1]].start()
				time.Sleep(20 * time.Second) // the last is late
				for _, name := range order[:2] {
					if s := w.members[name].q.Status(); s.Cluster != "" {
						t.Fatalf("%s is in group %s before all were seen to be empty", name, s.Cluster)
					}
				}
				_, err := w.members[order[0]].q.Propose(t.Context(), grant("k"))
				if aws.KindOf(err) != aws.KindUnavailable || !strings.Contains(err.Error(), order[2]) {
					t.Fatalf("a command without a group: got %v, want Unavailable that names %s", err, order[2])
				}
				w.members[order[2]].start()
				w.until("the group forms", 10*time.Second, w.formed)
				clusters := map[string]bool{}
				for _, m := range w.all() {
					clusters[m.q.Status().Cluster] = true
				}
				if len(clusters) != 1 {
					t.Fatalf("groups %v, want one", clusters)
				}
			})
		})
	}
}

func TestQuorum_founds_nothing_when_voters_name_different_founders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, "a", "b")
		defer w.rest()
		w.members["a"].start()
		w.cfg.Founder = "b"
		w.members["b"].start()
		time.Sleep(30 * time.Second)
		for _, m := range w.all() {
			if s := m.q.Status(); s.Cluster != "" {
				t.Errorf("%s founded %s", m.name, s.Cluster)
			}
		}
	})
}

func TestQuorum_decides_nothing_before_a_majority_can(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, "a", "b", "witness")
		defer w.rest()
		w.startAll()
		a := w.members["a"]
		for end := time.Now().Add(10 * time.Second); a.q.Status().Role != Leader && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		w.sever("a", true)
		_, err := a.q.Propose(t.Context(), Join{Region: "a", Incarnation: "1"})
		if aws.KindOf(err) != aws.KindUnavailable || !strings.Contains(err.Error(), "the group is forming: 1 of 3 voters, 2 needed") {
			t.Errorf("got %v from a founder that is alone", err)
		}
		if st, _ := a.q.State(); len(st.Regions) > 0 {
			t.Error("it decided alone")
		}
		w.heal()
		w.until("the group forms", 30*time.Second, w.formed)
	})
}

func TestState_shows_nothing_older_than_what_it_showed(t *testing.T) {
	w := newWorld(t, 1, "a")
	cfg := w.cfg
	cfg.Name, cfg.Node = "a", "n"
	q, err := newQuorum(cfg, newDisk("1").open(), nil, time.Now, nil, w.log())
	if err != nil {
		t.Fatal(err)
	}
	m := newMachine()
	for _, step := range []struct{ index, want uint64 }{{5, 5}, {3, 5}, {6, 6}} {
		m.index, m.state.SetEpoch = step.index, step.index
		q.publish(m, nil)
		if st, n := q.State(); n != step.want || st.SetEpoch != step.want {
			t.Errorf("after entry %d it shows %d, with the state of %d", step.index, n, st.SetEpoch)
		}
	}
}

// TestFollow_applies_what_is_committed has entries after the commit, which another
// leader may replace.
func TestFollow_applies_what_is_committed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, "a")
		cfg := w.cfg
		cfg.Name, cfg.Node = "a", "n2"
		h := newDisk("1").open()
		q, err := newQuorum(cfg, h, nil, time.Now, nil, w.log())
		if err != nil {
			t.Fatal(err)
		}
		id, err := h.take(t.Context(), nil, claim{Name: "a", Node: "n1", Life: "l"})
		if err != nil {
			t.Fatal(err)
		}
		join := func(index uint64, region string) *pb.Entry {
			data, err := encodeProposal("p"+region, 1, Join{Region: region, Incarnation: "1"})
			if err != nil {
				t.Fatal(err)
			}
			return &pb.Entry{Index: new(index), Term: new(uint64(1)), Data: data}
		}
		m := newMachine()
		follow := func(c change, want ...string) {
			t.Helper()
			c.Term = 1
			if err := h.save(t.Context(), id, c); err != nil {
				t.Fatal(err)
			}
			if err := q.catchUp(t.Context(), m, id); err != nil {
				t.Fatal(err)
			}
			st, n := q.State()
			if got := slices.Sorted(maps.Keys(st.Regions)); !slices.Equal(got, want) || n != c.Commit {
				t.Errorf("at %d it knows %v, want %v at %d", n, got, want, c.Commit)
			}
		}
		follow(change{Commit: 2, Entries: []*pb.Entry{join(1, "a"), join(2, "b"), join(3, "lost")}}, "a", "b")
		follow(change{Commit: 3, Entries: []*pb.Entry{join(3, "c")}}, "a", "b", "c")
		// What it has not read yet is in a snapshot already.
		ahead := newMachine()
		ahead.index, ahead.term, ahead.state.Regions = 9, 1, map[string]Region{"z": {}}
		follow(change{Commit: 10, Image: mustEncode(t, ahead), ImageIndex: 9, Entries: []*pb.Entry{join(10, "y")}}, "y", "z")
	})
}

func TestQuorum_of_one_needs_nobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, "a")
		defer w.rest()
		a := w.members["a"].start()
		w.until("it leads", 10*time.Second, func() bool { return w.leader() == a })
		a.do(Join{Region: "a", Incarnation: "1"})
		st, _ := a.q.State()
		if set := st.Set(); len(set) != 1 || st.Duty.Epoch != 1 || st.Duty.Shards[63] != "a" || st.Control != (Control{"a", 1}) {
			t.Fatalf("got set %v, duty %v, control %v", set, st.Duty, st.Control)
		}
		a.kill()
		a.start()
		w.until("the state is back", 10*time.Second, func() bool { st, _ := a.q.State(); return st.Regions["a"].InSync })
	})
}

func TestPropose_is_answered_after_it_was_applied_here(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		w.members["a"].do(Join{Region: "a", Incarnation: "1"})
		for i, name := range []string{"a", "b", "witness"} { // two of them forward
			r := w.members[name].do(grant("k"))
			st, n := w.members[name].q.State()
			if n < r.Index || st.Shares["k"]["a"] != uint64(i+1) {
				t.Errorf("%s: shares %v at %d after the answer of %d", name, st.Shares, n, r.Index)
			}
		}
		for _, m := range w.all() {
			_, err := m.q.Propose(t.Context(), Remove{Region: "a", Incarnation: "1", Reason: "test"})
			if aws.KindOf(err) != aws.KindConflict || !strings.Contains(err.Error(), "last of the in-sync set") {
				t.Errorf("%s: got %v, want the rule that was broken", m.name, err)
			}
			_, err = m.q.Propose(t.Context(), Remove{Region: "x", Incarnation: "1"})
			if aws.KindOf(err) != aws.KindNotFound {
				t.Errorf("%s: got %v, want NotFound", m.name, err)
			}
		}
	})
}

func TestPropose_two_of_three_suffice_and_one_is_unavailable_in_bounded_time(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		a, b := w.members["a"], w.members["b"]
		a.do(Join{Region: "a", Incarnation: "1"})
		b.kill()
		w.until("a leader among two", 10*time.Second, func() bool { return w.leader() != nil })
		a.do(grant("k"))
		w.members["witness"].kill()
		for range 2 { // at once, while it still leads, and again when it has stepped down
			from := time.Now()
			_, err := a.q.Propose(t.Context(), grant("k"))
			if took := time.Since(from); took > 5*time.Second {
				t.Errorf("refused after %v", took)
			}
			if aws.KindOf(err) != aws.KindUnavailable {
				t.Fatalf("got %v, want Unavailable", err)
			}
			t.Log(err)
			time.Sleep(5 * time.Second)
		}
		_, err := a.q.Propose(t.Context(), grant("k"))
		want := "1 of 3 voters are reached and 2 are needed; not reached: b, witness"
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
		if s := a.q.Status(); s.Leader != "" || s.Reason == "" || s.Voters[1].Reachable || !s.Voters[0].Reachable {
			t.Errorf("status %+v", s)
		}
		b.start()
		w.until("a leader again", 20*time.Second, func() bool { return w.leader() != nil })
		a.do(grant("k"))
	})
}

func TestPropose_ends_with_its_context(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		w.members["b"].kill()
		w.members["witness"].kill()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.members["a"].q.Propose(ctx, Join{Region: "a", Incarnation: "1"}); err == nil || ctx.Err() == nil {
			t.Fatalf("got %v", err)
		}
	})
}

func TestQuorum_partition_and_heal(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		w.members["a"].do(Join{Region: "a", Incarnation: "1"})
		old := w.leader()
		term := old.q.Status().Term
		w.sever(old.name, true)
		w.until("the old leader steps down and the others elect", 10*time.Second, func() bool {
			l := w.leader()
			return l != nil && l != old
		})
		next := w.leader()
		next.do(grant("k"))
		if st, _ := old.q.State(); st.Shares["k"]["a"] != 0 {
			t.Error("a voter that is cut off applied what it cannot know")
		}
		if _, err := old.q.Propose(t.Context(), grant("lost")); aws.KindOf(err) != aws.KindUnavailable {
			t.Errorf("a command where no majority is: got %v", err)
		}
		time.Sleep(30 * time.Second) // time enough to ask for votes, alone
		led := next.q.Status().Term
		w.heal()
		w.until("all agree", 10*time.Second, func() bool {
			st, _ := old.q.State()
			return st.Shares["k"]["a"] == 1 && old.q.Status().Leader == next.name
		})
		time.Sleep(5 * time.Second)
		if s := next.q.Status(); s.Role != Leader || s.Term <= term || s.Term != led {
			t.Errorf("the voter that returns disturbed the leader: %+v", s)
		}
	})
}

func TestQuorum_a_voter_that_lost_its_disk_learns_and_votes_again(t *testing.T) {
	for _, who := range []string{"a", "b", "witness"} { // the first is the founder
		t.Run(who, func(t *testing.T) {
			three(t, func(t *testing.T, w *world) {
				w.members["b"].do(Join{Region: "a", Incarnation: "1"})
				w.members["b"].do(grant("k"))
				m := w.members[who]
				before, cluster := m.disk.id(), m.q.Status().Cluster
				m.lose()
				m.start()
				w.until("it votes again", 60*time.Second, w.formed)
				st, _ := m.q.State()
				if m.disk.id() == before || st.Voters[who].ID == before {
					t.Error("an id was used again")
				}
				if m.q.Status().Cluster != cluster || st.Shares["k"]["a"] != 1 {
					t.Errorf("it is in group %s with %v", m.q.Status().Cluster, st.Shares)
				}
				// It counts: with it and one other the group decides.
				for _, other := range w.all() {
					if other != m {
						other.kill()
						break
					}
				}
				w.until("two lead", 20*time.Second, func() bool { return w.leader() != nil })
				m.do(grant("k"))
			})
		})
	}
}

func TestQuorum_a_founder_that_lost_its_disk_founds_nothing_while_others_are_away(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		a := w.members["a"]
		cluster := a.q.Status().Cluster
		w.sever("a", true)
		a.lose()
		a.start()
		time.Sleep(time.Minute)
		if s := a.q.Status(); s.Cluster != "" || s.Role != Joining {
			t.Fatalf("alone it is %+v", s)
		}
		w.heal()
		w.until("it votes again", 60*time.Second, w.formed)
		if s := a.q.Status(); s.Cluster != cluster {
			t.Fatalf("it is in group %s, the others in %s", s.Cluster, cluster)
		}
	})
}

func TestQuorum_a_voter_whose_disk_went_back_begins_a_new_life(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		w.members["a"].do(Join{Region: "a", Incarnation: "1"})
		b := w.members["b"]
		b.disk.mu.Lock()
		row, entries, image := *b.disk.row, b.disk.entries, b.disk.image
		b.disk.mu.Unlock()
		for range 5 {
			w.members["a"].do(grant("k"))
		}
		w.until("b has them", 5*time.Second, func() bool { st, _ := b.q.State(); return st.Shares["k"]["a"] == 5 })
		b.kill()
		// Somebody copies yesterday's file over today's, and the store does not see it.
		b.disk.row, b.disk.entries, b.disk.image = &row, entries, image
		b.start()
		w.until("it has another id and votes", 60*time.Second, func() bool { return w.formed() && b.disk.id() != row.ID })
		st, _ := b.q.State()
		if st.Shares["k"]["a"] != 5 {
			t.Errorf("it lacks entries: %v", st.Shares)
		}
	})
}

func TestQuorum_a_snapshot_brings_a_voter_that_was_away_for_long(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		a, b := w.members["a"], w.members["b"]
		a.do(Join{Region: "a", Incarnation: "1"})
		b.kill()
		w.until("a leader among two", 10*time.Second, func() bool { return w.leader() != nil })
		done := make(chan error, 8)
		for range 8 {
			go func() {
				var err error
				for i := 0; i < 160 && err == nil; i++ {
					_, err = a.q.Propose(t.Context(), grant("k"))
				}
				done <- err
			}()
		}
		for range 8 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		w.until("the log is compacted", 5*time.Second, func() bool {
			a.disk.mu.Lock()
			defer a.disk.mu.Unlock()
			return a.disk.row.First >= compactEvery && len(a.disk.entries) < compactEvery
		})
		b.start()
		w.until("b has caught up", 20*time.Second, func() bool { st, _ := b.q.State(); return st.Shares["k"]["a"] == 8*160 })
		if b.disk.row.First < compactEvery {
			t.Error("it came without a snapshot")
		}
		// The others know it as before, and it is the same after a restart of its own.
		b.kill()
		b.start()
		w.until("all agree", 20*time.Second, func() bool { return w.formed() && w.agree() })
	})
}

// agree says that all that run have applied the same, at the same entry.
func (w *world) agree() bool {
	var st *State
	var at uint64
	for _, m := range w.all() {
		if !m.alive() {
			continue
		}
		s, n := m.q.State()
		if st != nil && (n != at || !reflect.DeepEqual(*st, s)) {
			return false
		}
		st, at = &s, n
	}
	return true
}

func TestQuorum_two_nodes_over_one_store(t *testing.T) {
	for _, hosts := range [][2]string{{"a", "a2"}, {"a2", "a"}} { // a is where the others find the Region
		t.Run(hosts[0]+"_votes_first", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 5, "a", "b", "witness")
				defer w.rest()
				w.members["a2"] = &member{w: w, host: "a2", name: "a", disk: w.members["a"].disk}
				first, second := w.members[hosts[0]], w.members[hosts[1]]
				first.start()
				w.until("the first votes", 5*time.Second, func() bool { return first.q.Status().Role == Joining })
				second.start()
				w.members["b"].start()
				w.members["witness"].start()
				w.until("the group forms", 30*time.Second, w.formed)
				if r := second.q.Status().Role; r != Following {
					t.Fatalf("the second node's role is %s", r)
				}
				second.do(Join{Region: "a", Incarnation: "1"}) // a node without the voter proposes, and sees it applied
				if st, _ := second.q.State(); !st.Regions["a"].InSync {
					t.Fatal("it does not see what it proposed")
				}
				id := second.disk.id()
				first.kill()
				w.until("the second node votes", 20*time.Second, func() bool {
					s := second.q.Status()
					return s.Leader != "" && (s.Role == Follower || s.Role == Leader)
				})
				second.do(grant("k"))
				if second.disk.id() != id {
					t.Error("the voter's life ended with the node that ran it")
				}
				first.start()
				first.w.until("the first follows", 10*time.Second, func() bool { return first.q.Status().Role == Following })
				first.do(grant("k"))
				if st, _ := second.q.State(); st.Shares["k"]["a"] != 2 {
					t.Errorf("shares %v", st.Shares)
				}
				if s := first.q.Status(); s.Leader != second.q.Status().Leader {
					t.Errorf("a node that follows says that %q leads", s.Leader)
				}
			})
		})
	}
}

func TestQuorum_a_paused_node_can_write_nothing_after_another_took_over(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		h := w.members["a"].disk.open()
		old, err := h.identity(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		taken, err := h.take(t.Context(), old, claim{Name: "a", Node: "a2-node"})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.save(t.Context(), old, change{Term: old.Term + 1, Vote: 7}); err == nil {
			t.Error("a node of an older generation voted")
		}
		w.until("the node that was fenced follows", 5*time.Second, func() bool { return w.members["a"].q.Status().Role == Following })
		if now, _ := h.identity(t.Context()); now.Vote != taken.Vote || now.Node != "a2-node" {
			t.Errorf("the row is %+v", now)
		}
	})
}

func TestQuorum_lease(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		a, b := w.members["a"], w.members["b"]
		a.do(Join{Region: "a", Incarnation: "1"})
		b.do(Join{Region: "b", Incarnation: "1"})
		attempt := b.do(Await{Region: "b", Incarnation: "1"}).Epoch
		st, _ := b.q.State()
		b.do(Return{Region: "b", Incarnation: "1", Attempt: attempt, SetEpoch: st.SetEpoch})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.q.KeepLease(ctx) }()
		w.until("a holds its lease", 10*time.Second, func() bool { _, _, ok := a.q.Lease(); return ok })
		// Over many times LeaseTime it never lapses.
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if e, left, ok := a.q.Lease(); !ok || e != 1 || left > 6*time.Second {
				t.Fatalf("lease %d for %v, %v", e, left, ok)
			}
			if st, _ := b.q.State(); st.Leases["a"].Over {
				t.Fatal("a lease that was renewed ran out")
			}
		}
		w.sever("a", true)
		from := time.Now()
		var stopped time.Time
		w.until("the others see it run out", 20*time.Second, func() bool {
			if _, _, ok := a.q.Lease(); !ok && stopped.IsZero() {
				stopped = time.Now()
			}
			st, _ := b.q.State()
			return st.Leases["a"].Over
		})
		if stopped.IsZero() || time.Since(stopped) < 500*time.Millisecond {
			t.Errorf("the holder relied on it until %v after the cut, it was over %v after", stopped.Sub(from), time.Since(from))
		}
		w.heal()
		w.until("it takes the lease anew", 20*time.Second, func() bool { e, _, ok := a.q.Lease(); return ok && e == 2 })
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, _, ok := a.q.Lease(); ok {
			t.Error("it relies on a lease it gave back")
		}
		w.until("it is given back", time.Second, func() bool { st, _ := b.q.State(); return st.Leases["a"].Over })
		if err := w.members["witness"].q.KeepLease(t.Context()); err == nil {
			t.Error("a witness kept a lease")
		}
	})
}

// A Region that left the set does not go on leading: it may be reached one way only,
// and if it is cut off wholly a moment later, nobody decides until another leads.
func TestQuorum_a_Region_out_of_the_set_does_not_lead(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		a, b := w.members["a"], w.members["b"]
		a.do(Join{Region: "a", Incarnation: "1"})
		b.do(Join{Region: "b", Incarnation: "1"})
		attempt := b.do(Await{Region: "b", Incarnation: "1"}).Epoch
		st, _ := b.q.State()
		b.do(Return{Region: "b", Incarnation: "1", Attempt: attempt, SetEpoch: st.SetEpoch})
		for range 2 { // whoever leads first, each of the Regions leaves the set once
			var leads *member
			w.until("a Region leads", 2*time.Minute, func() bool {
				if leads = w.leader(); leads != nil && leads != a && leads != b {
					leads.kill()
					leads.start()
				}
				return leads == a || leads == b
			})
			other := a
			if leads == a {
				other = b
			}
			other.do(Remove{Region: leads.name, Incarnation: "1", Reason: "a test"})
			w.until("another leads", 10*time.Second, func() bool { l := w.leader(); return l != nil && l != leads })
			time.Sleep(20 * time.Second)
			if l := w.leader(); l == leads {
				t.Errorf("%s leads again, out of the set", l.name)
			}
			attempt := leads.do(Await{Region: leads.name, Incarnation: "1"}).Epoch
			st, _ := leads.q.State()
			leads.do(Return{Region: leads.name, Incarnation: "1", Attempt: attempt, SetEpoch: st.SetEpoch})
		}
	})
}

func TestQuorum_wait(t *testing.T) {
	three(t, func(t *testing.T, w *world) {
		b := w.members["b"]
		_, n := b.q.State()
		woke := make(chan uint64, 1)
		go func() {
			if err := b.q.Wait(t.Context(), n); err != nil {
				t.Error(err)
			}
			_, n := b.q.State()
			woke <- n
		}()
		synctest.Wait()
		select {
		case n := <-woke:
			t.Fatalf("woke at %d though nothing came", n)
		default:
		}
		w.members["a"].do(Join{Region: "a", Incarnation: "1"})
		if got := <-woke; got <= n {
			t.Errorf("woke at %d", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.q.Wait(ctx, 1<<40); err == nil {
			t.Error("waited for nothing without an error")
		}
	})
}

func TestNew_refuses_a_configuration_that_cannot_work(t *testing.T) {
	for what, cfg := range map[string]Config{
		"no name":              {Node: "n"},
		"no node":              {Name: "a"},
		"not among the voters": {Name: "a", Node: "n", Peers: map[string]string{"b": "http://b"}},
		"unknown founder":      {Name: "a", Node: "n", Founder: "x", Peers: map[string]string{"a": "http://a"}},
	} {
		if _, err := New(cfg, nil, nil, time.Now, nil, newWorld(t, 1).log()); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	many := map[string]string{"a": ""}
	for i := range peersMax {
		many[fmt.Sprint("r", i)] = ""
	}
	if _, err := New(Config{Name: "a", Node: "n", Peers: many}, nil, nil, time.Now, nil, newWorld(t, 1).log()); err == nil {
		t.Error("too many voters: accepted")
	}
}
