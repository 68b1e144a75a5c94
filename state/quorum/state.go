package quorum

import (
	"cmp"
	"maps"
	"slices"
)

// Shards is how many dispatch shards an app's work is divided into.
//
// Source: design 5, duty.
const Shards = 64

// Mode says how duty is divided.
type Mode string

// The modes. A new group is active-active.
const (
	ActiveActive Mode = "active-active" // each Region of the set has a share by its weight
	WarmStandby  Mode = "warm-standby"  // the primary has every shard
)

// State is what the voters agree on. It is a value: its maps are shared with
// other copies and must not be changed. Its JSON is the snapshot's.
type State struct {
	Cluster string           // the group's own id, made when it was founded
	Voters  map[string]Voter // by name
	Regions map[string]Region
	// SetEpoch rises whenever the in-sync set changes: a Region comes, goes, or
	// is there at another incarnation.
	SetEpoch uint64
	Mode     Mode
	Primary  string         // of warm-standby; moves when the primary leaves the set
	Weights  map[string]int // shares of active-active; a Region without has 100
	Duty     Duty
	Control  Control
	Switches map[string]Switch
	Leases   map[string]Lease
	// Marks say how far, in hash order, work was claimed by a Region that is alone
	// in the set. A mark only rises until it is dropped.
	Marks map[string]uint64
	// Shares are granted amounts by key (a quota and its window) and Region. They
	// only grow: what a dead Region was granted counts as spent.
	Shares map[string]map[string]uint64
	// Stops are the orders that the control Region has not carried out yet.
	Stops map[string]Halt
	// StopEpoch rises with every stop order.
	StopEpoch uint64 `json:",omitempty"`
}

// Voter is a member of the quorum: a Region's or the witness.
type Voter struct {
	ID      uint64 // never used again, see the package comment
	Learner bool   `json:",omitempty"` // it has no vote until it has caught up
	Witness bool   `json:",omitempty"` // it votes and holds no data
}

// Region is a Region as the quorum knows it.
type Region struct {
	Incarnation string // of its store
	InSync      bool
	Reason      string `json:",omitempty"` // why it is not in the set
	// Awaited says that it is about to return: whoever waits for the set waits for
	// it too. Attempt counts how often it was.
	Awaited bool   `json:",omitempty"`
	Attempt uint64 `json:",omitempty"`
	// Member is the SetEpoch at which it last came into the set; 0 while it is out.
	// No two stays of a Region in the set have the same.
	Member uint64 `json:",omitempty"`
}

// Duty says which Region sends for each dispatch shard. Before the first Region
// joined nobody does, and the epoch is 0.
type Duty struct {
	Epoch  uint64 // rises at every change of the map
	Shards [Shards]string
	Since  [Shards]uint64 // the epoch at which each shard came to its Region
}

// Control says which Region control writes go through.
type Control struct {
	Region string
	Epoch  uint64 // rises whenever the Region changes
}

// Position is what a routing switch is set to.
type Position string

// The positions. Draining sends no new calls and lets those under way finish.
const (
	On       Position = "on"
	Off      Position = "off"
	Draining Position = "draining"
)

// Switch is the routing switch of a Region.
type Switch struct {
	Position Position
	Weight   int    // of the traffic when on, 0 to 1000
	Reason   string `json:",omitempty"`
	By       string `json:",omitempty"`
	AtMillis int64  `json:",omitempty"` // when it was asked for, by the clock of who asked
}

// Lease is the one lease of a Region. The log holds no time: see the package
// comment for when it runs out.
type Lease struct {
	Node     string // that holds or held it
	Epoch    uint64 // rises each time it is taken
	Renewals uint64 // within the epoch
	Millis   int64  // how long it holds after a renewal
	Over     bool   // it ran out or was given back
}

// Halt is a stop order for whatever its key names.
type Halt struct {
	Kind     HaltKind
	Epoch    uint64 `json:",omitempty"` // the StopEpoch of the latest order for the key
	Version  int    `json:",omitempty"` // a later version of what the key names is not meant; 0: any is
	By       string `json:",omitempty"`
	AtMillis int64  `json:",omitempty"`
}

// HaltKind is what a stop order asks for. A stronger one replaces a weaker.
type HaltKind string

// The kinds, the weakest first.
const (
	Pause  HaltKind = "pause"
	Cancel HaltKind = "cancel"
	Delete HaltKind = "delete"
)

// strength orders the kinds; 0 is none of them.
func (k HaltKind) strength() int {
	return slices.Index([]HaltKind{Pause, Cancel, Delete}, k) + 1
}

const (
	weightDefault = 100
	weightMax     = 1000
)

// Set returns the names of the Regions in sync, sorted.
func (s *State) Set() []string {
	var set []string
	for name, r := range s.Regions {
		if r.InSync {
			set = append(set, name)
		}
	}
	slices.Sort(set)
	return set
}

// Together returns the incarnations of the Regions that have to have what is
// acknowledged to the group: those of the set and those that are awaited.
func (s *State) Together() map[string]string {
	all := map[string]string{}
	for name, r := range s.Regions {
		if r.InSync || r.Awaited {
			all[name] = r.Incarnation
		}
	}
	return all
}

// weight is the Region's share in active-active.
func (s *State) weight(region string) int {
	if w, ok := s.Weights[region]; ok {
		return w
	}
	return weightDefault
}

// settle makes what follows from the set and the mode true again, after they may
// have changed from before: the epochs, the duty map, control, the primary.
func (s *State) settle(before *State) {
	set := s.Set()
	if !maps.Equal(incarnations(before), incarnations(s)) {
		s.SetEpoch++
	}
	s.admit(before)
	if len(set) == 0 {
		return
	}
	if !slices.Contains(set, s.Control.Region) {
		s.Control = Control{set[0], s.Control.Epoch + 1}
	}
	if s.Mode == WarmStandby && !slices.Contains(set, s.Primary) {
		s.Primary = slices.MaxFunc(set, func(a, b string) int {
			return cmp.Or(cmp.Compare(s.weight(a), s.weight(b)), cmp.Compare(b, a)) // of equal weight the first name
		})
	}
	weights := map[string]int{}
	for _, name := range set {
		switch {
		case s.Mode != WarmStandby:
			weights[name] = s.weight(name)
		case name == s.Primary:
			weights[name] = 1
		default:
			weights[name] = 0
		}
	}
	if shards := divide(s.Duty.Shards, weights); shards != s.Duty.Shards {
		next := Duty{s.Duty.Epoch + 1, shards, s.Duty.Since}
		for i, owner := range shards {
			if owner != s.Duty.Shards[i] {
				next.Since[i] = next.Epoch
			}
		}
		s.Duty = next
	}
}

// admit notes since when each Region is in the set, after SetEpoch has risen.
func (s *State) admit(before *State) {
	for name, r := range s.Regions {
		was := before.Regions[name]
		member := was.Member
		switch {
		case !r.InSync:
			member = 0
		case !was.InSync || was.Incarnation != r.Incarnation:
			member = s.SetEpoch
		}
		if r.Member != member {
			r.Member = member
			s.Regions = with(s.Regions, name, r)
		}
	}
}

// incarnations is the in-sync set with what each Region stands for.
func incarnations(s *State) map[string]string {
	set := map[string]string{}
	for name, r := range s.Regions {
		if r.InSync {
			set[name] = r.Incarnation
		}
	}
	return set
}
