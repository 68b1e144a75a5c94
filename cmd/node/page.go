package node

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/everpoint/everpoint/state/quorum"
	"github.com/everpoint/everpoint/state/replica"
	"github.com/everpoint/everpoint/state/store"
)

// page shows people the group as this node knows it. It asks nobody who they are,
// and so is served on a loopback address only.
type page struct {
	n *Node

	mu    sync.Mutex
	stays map[string]stay
}

// stay is how long a Region has been in the set, or out of it, as this node saw.
type stay struct {
	member uint64
	since  time.Time
	before bool // it was so when the node began to look
}

// Bounds of what a page shows.
const (
	pageListMax      = 20    // marks and stop orders
	pageConflictsMax = 1_000 // conflicts that are counted
	pageWriteTimeout = 10 * time.Second
)

// groupPage is what the page shows, and its JSON.
type groupPage struct {
	At      time.Time
	Region  string
	Node    string
	Version string
	Started time.Time
	Votes   bool   // else the Regions do not vote, and only Peers are known
	Problem string // why there is no majority; empty: there is

	Quorum  pageQuorum
	Control quorum.Control
	Mode    quorum.Mode
	Primary string
	Set     pageSet
	Duty    pageDuty
	Regions []pageRegion
	Peers   []pagePeer

	Marks         pageList[pageMark]
	Stops         pageList[pageStop]
	Conflicts     pageCount
	OptOutsMarked store.Marked
}

type pageQuorum struct {
	Role   quorum.Role
	Leader string
	Term   uint64
	Index  uint64
	Voters []pageVoter
}

type pageVoter struct {
	Name      string
	Witness   bool
	Admitted  bool
	Learner   bool
	Reachable *bool // nil: this node would not hear of it
}

type pageSet struct {
	Epoch   uint64
	Regions []string
}

type pageDuty struct {
	Epoch  uint64
	Shards []pageShard
}

type pageShard struct {
	Shard  int
	Region string // empty: nobody's
	Since  uint64 // the duty epoch at which it came to the Region
	Colour int    // of the Region
}

type pageRegion struct {
	Region      string
	Colour      int
	Incarnation string
	Here        bool // this node is of it
	Control     bool
	InSync      bool
	Awaited     bool
	Reason      string
	Since       time.Time // when this node saw it come into the set, or leave it
	SinceBefore bool      // it was so when this node began to look
	Member      uint64    // the set's epoch since which it is in sync
	Shards      int
	Weight      int
	Switch      quorum.Switch
	SwitchAt    time.Time
	Lease       quorum.Lease
	LeaseLeft   time.Duration // of this node's own; 0: not its
}

type pagePeer struct {
	Region          string
	Incarnation     string
	Heard           time.Time
	LagMilliseconds int64
	Safety          replica.StreamStatus
	Changes         replica.StreamStatus
	Problem         string
}

type pageMark struct {
	Key string
	To  uint64
}

type pageStop struct {
	Key  string
	Halt quorum.Halt
	At   time.Time
}

// pageList is the first of a longer list.
type pageList[T any] struct {
	Total int
	First []T
}

// pageCount is a number; when More is set there are more than that.
type pageCount struct {
	Count int
	More  bool
}

func newPage(n *Node) *page { return &page{n: n, stays: map[string]stay{}} }

// Run notes when Regions come and go, and serves the page, until ctx ends.
func (p *page) Run(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	if p.n.Quorum != nil {
		watching.Go(func() { p.watch(ctx) })
	}
	server := &http.Server{
		Handler: p, ReadHeaderTimeout: peerHeaderTimeout, WriteTimeout: pageWriteTimeout,
		ErrorLog: slog.NewLogLogger(p.n.log.With("component", "page").Handler(), slog.LevelDebug),
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", p.n.Config.Admin)
	if err != nil {
		return fmt.Errorf("listen for the page: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (p *page) watch(ctx context.Context) {
	for ctx.Err() == nil {
		state, index := p.n.Quorum.State()
		p.note(&state)
		_ = p.n.Quorum.Wait(ctx, index)
	}
}

// note remembers since when each Region is where it is.
func (p *page) note(state *quorum.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	began := len(p.stays) == 0
	for name, r := range state.Regions {
		if was, ok := p.stays[name]; !ok || was.member != r.Member {
			p.stays[name] = stay{r.Member, p.n.now().UTC(), began}
		}
	}
	maps.DeleteFunc(p.stays, func(name string, _ stay) bool { _, ok := state.Regions[name]; return !ok })
}

// ServeHTTP shows the page, or its JSON to who accepts that. A request whose Host
// is a name of somebody else's comes from a page that a browser was lured to.
func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	switch {
	case !ownHost(r.Host):
		http.Error(w, "this page is asked for by a loopback address", http.StatusForbidden)
		return
	case r.URL.Path != "/":
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET is possible here", http.StatusMethodNotAllowed)
		return
	}
	view := p.view(r.Context())
	// An error means that who asked has gone.
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		h.Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(view)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	_ = pageTemplate.Execute(w, view)
}

// loopback reports whether host:port is an address of this machine alone.
func loopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().IsLoopback()
}

func ownHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if name == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && a.IsLoopback()
}

// view is what the node knows now.
func (p *page) view(ctx context.Context) *groupPage {
	n := p.n
	out := &groupPage{
		At: n.now().UTC().Truncate(time.Second), Region: n.Config.Region, Node: n.Config.Node, Version: Version(), Started: n.started.UTC(),
		OptOutsMarked: n.Store.Marked(), Regions: []pageRegion{}, Peers: []pagePeer{},
	}
	if n.Replica != nil {
		for _, s := range n.Replica.Status() {
			out.Peers = append(out.Peers, pagePeerOf(s))
		}
		found, _, err := n.Replica.Conflicts(ctx, "", pageConflictsMax+1)
		if err != nil {
			n.log.WarnContext(ctx, "conflicts cannot be counted", "error", err)
		}
		out.Conflicts = pageCount{min(len(found), pageConflictsMax), len(found) > pageConflictsMax}
	}
	if n.Quorum == nil {
		return out
	}
	state, _ := n.Quorum.State()
	p.note(&state)
	out.group(&state, n.Quorum.Status())
	_, left, held := n.Quorum.Lease()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range out.Regions {
		r := &out.Regions[i]
		r.Since, r.SinceBefore = p.stays[r.Region].since, p.stays[r.Region].before
		if r.Region == out.Region && held {
			r.LeaseLeft = left.Truncate(100 * time.Millisecond)
		}
	}
	return out
}

func pagePeerOf(s replica.Status) pagePeer {
	out := pagePeer{
		Region: s.Region, Incarnation: s.Incarnation, Heard: s.Heard.UTC(), LagMilliseconds: s.Lag.Milliseconds(),
		Safety: s.Streams[store.Safety], Changes: s.Streams[store.Changes],
	}
	if s.Err != nil {
		out.Problem = s.Err.Error()
	}
	return out
}

// group adds what the quorum says.
func (g *groupPage) group(state *quorum.State, s quorum.Status) {
	g.Votes, g.Problem = true, s.Reason
	g.Quorum = pageQuorum{Role: s.Role, Leader: s.Leader, Term: s.Term, Index: s.Index, Voters: []pageVoter{}}
	for _, v := range s.Voters {
		_, admitted := state.Voters[v.Name]
		view := pageVoter{Name: v.Name, Witness: v.Witness, Admitted: admitted, Learner: v.Learner}
		if hears(&s, &v) {
			view.Reachable = &v.Reachable
		}
		g.Quorum.Voters = append(g.Quorum.Voters, view)
	}
	g.Control, g.Mode, g.Primary = state.Control, state.Mode, state.Primary
	g.Set = pageSet{state.SetEpoch, state.Set()}
	names := slices.Sorted(maps.Keys(state.Regions))
	duty := dutyView(state)
	for i, name := range names {
		r := state.Regions[name]
		weight, ok := state.Weights[name]
		if !ok {
			weight = weightDefault
		}
		view := pageRegion{
			Region: name, Colour: i, Incarnation: r.Incarnation, Here: name == g.Region, Control: name == state.Control.Region,
			InSync: r.InSync, Awaited: r.Awaited, Reason: r.Reason, Member: r.Member, Shards: duty.Shards[name], Weight: weight,
			Switch: switchOf(state, name), Lease: state.Leases[name],
		}
		if at := view.Switch.AtMillis; at > 0 {
			view.SwitchAt = time.UnixMilli(at).UTC()
		}
		g.Regions = append(g.Regions, view)
	}
	g.Duty.Epoch = state.Duty.Epoch
	for i, name := range state.Duty.Shards {
		g.Duty.Shards = append(g.Duty.Shards, pageShard{i, name, state.Duty.Since[i], slices.Index(names, name)})
	}
	g.Marks = first(state.Marks, func(key string, to uint64) pageMark { return pageMark{key, to} })
	g.Stops = first(state.Stops, func(key string, h quorum.Halt) pageStop { return pageStop{key, h, time.UnixMilli(h.AtMillis).UTC()} })
}

// first is what a map holds, in the order of its keys, as far as it is shown.
func first[V, T any](all map[string]V, view func(key string, v V) T) pageList[T] {
	out := pageList[T]{Total: len(all), First: []T{}}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if len(out.First) == pageListMax {
			break
		}
		out.First = append(out.First, view(key, all[key]))
	}
	return out
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"time":  func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	"clock": func(t time.Time) string { return t.UTC().Format("15:04:05") },
	"lag": func(ms int64) string {
		return (time.Duration(ms) * time.Millisecond).String()
	},
	"ago": func(now, then time.Time) string {
		return max(now.Sub(then), 0).Truncate(time.Second).String()
	},
	"behind": func(s replica.StreamStatus) int64 { return max(s.Head-s.Merged, 0) },
	"short":  func(s string) string { return s[:min(len(s), 12)] },
	"yes":    func(b *bool) bool { return b != nil && *b },
	"late":   func(ms int64) bool { return ms > lateMilliseconds },
}).Parse(pageText))

// lateMilliseconds is a lag that is worth a look.
const lateMilliseconds = 2_000
