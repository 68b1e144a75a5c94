package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/state/quorum"
)

var (
	// errUnheard says that a Region of the group is not heard.
	errUnheard = errors.New("a Region of the group is not heard")
	// errUndecided says that the group has no majority.
	errUndecided = errors.New("the group takes no commands")
)

const (
	nodePath  = "/everpoint/v1/node"
	groupPath = "/everpoint/v1/group"
)

const regionUsage = `region status [-json] [flags]
       everpoint region switch REGION on|off [-weight N] [-reason TEXT] [-dry-run] [flags]
       everpoint region drain REGION [-reason TEXT] [-dry-run] [flags]
       everpoint region resume REGION [-reason TEXT] [-dry-run] [flags]
       everpoint region mode active-active|warm-standby [-primary REGION] [-weights REGION=N,...] [-dry-run] [flags]
       everpoint region control REGION [-dry-run] [flags]
       everpoint region forget REGION [-successor REGION] [-dry-run] [flags]

status shows the Regions of a group; the others give an order to their quorum,
through any Region that is up. "everpoint region COMMAND -h" says more.`

func region(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	verbs := map[string]func(context.Context, []string, io.Writer, io.Writer) error{
		"status": regionStatus, "switch": regionSwitch, "drain": regionDrain, "resume": regionResume, "mode": regionMode, "control": regionControl,
		"forget": regionForget,
	}
	if len(args) > 0 && verbs[args[0]] != nil {
		return verbs[args[0]](ctx, args[1:], stdout, stderr)
	}
	fs := flags("region", regionUsage, stderr)
	if len(args) > 0 {
		if done, err := parse(fs, args); done {
			return err
		}
	}
	fs.Usage()
	return errUsage
}

func regionStatus(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flags("region status", `region status [-json] [flags]

Shows how the Region of the node that is asked hears of the others: how late it
is, what it has merged of theirs, and what they have of its own. Where the
Regions vote it shows the group too: who is in sync or why not, who sends how many
of the 64 shards, who has control, how late each is heard, what is switched on, the
leases, and who votes. Through a router it is a Region's answer, named in the first
line. Fails when a Region is not heard, or
when the group takes no commands.`, stderr)
	var to target
	to.flags(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	if done, err := parse(fs, args); done {
		return err
	}
	if fs.NArg() > 0 {
		fs.Usage()
		return errUsage
	}
	c, err := to.client()
	if err != nil {
		return err
	}
	var s struct {
		everpoint.NodeStatus
		Group *everpoint.Group `json:",omitempty"`
	}
	if err := c.call(ctx, adminService, http.MethodGet, nodePath, nil, nil, &s.NodeStatus); err != nil {
		return err
	}
	// Where nobody votes there is no group to show.
	switch err := c.call(ctx, adminService, http.MethodGet, groupPath, nil, nil, &s.Group); {
	case err != nil && strings.Contains(err.Error(), ": NotFoundException: "):
		s.Group = nil
	case err != nil:
		return err
	}
	if *asJSON {
		return printJSON(stdout, s)
	}
	fmt.Fprintf(stdout, "%s, incarnation %s\n", s.Region, s.Incarnation)
	switch {
	case s.Group != nil && s.Group.Quorum.Role == string(quorum.Following):
		fmt.Fprintln(stdout, "another node speaks for the Region and hears the others: the lease below names it")
	case len(s.Peers) == 0:
		fmt.Fprintln(stdout, "no other Region")
	}
	if s.OptOutsMarked != nil && s.OptOutsMarkedSince != nil {
		fmt.Fprintf(stdout, "%d opt-outs accepted that the group did not have, since %s\n", *s.OptOutsMarked, s.OptOutsMarkedSince.Format(time.RFC3339))
	}
	problem := printPeers(stdout, s.Peers)
	if s.Group != nil {
		problem = errors.Join(problem, printGroup(stdout, s.Region, s.Group, s.Peers))
	}
	return problem
}

// printPeers prints how the other Regions are heard.
func printPeers(w io.Writer, peers []everpoint.PeerStatus) error {
	if len(peers) == 0 {
		return nil
	}
	rows := [][]string{{"REGION", "HEARD", "LAG", "SAFETY MERGED", "CHANGES MERGED", "OF OURS THERE", "PROBLEM"}}
	unheard := false
	for _, p := range peers {
		heard, problem := "never", ""
		if p.HeardAt != nil {
			heard = p.HeardAt.Format(time.RFC3339)
		}
		if p.Problem != nil {
			problem = *p.Problem
		}
		unheard = unheard || p.HeardAt == nil || problem != ""
		rows = append(rows, []string{
			p.Region, heard, (time.Duration(p.LagMilliseconds) * time.Millisecond).String(), of(p.SafetyMerged, p.SafetyHead),
			of(p.ChangesMerged, p.ChangesHead), strconv.FormatInt(p.SafetyAcknowledged, 10) + ", " + strconv.FormatInt(p.ChangesAcknowledged, 10), problem,
		})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	if unheard {
		return errUnheard
	}
	return nil
}

func of(n, all int64) string { return strconv.FormatInt(n, 10) + " of " + strconv.FormatInt(all, 10) }

// printGroup prints what the Regions have decided together, and who they are; from
// and peers are the Region that was asked, and how it hears of the others.
func printGroup(w io.Writer, from string, g *everpoint.Group, peers []everpoint.PeerStatus) error {
	fmt.Fprintf(w, "\ngroup: %s, duty epoch %d, set epoch %d, control %s (epoch %d)\n",
		modeText(g.Duty), g.Duty.Epoch, g.SetEpoch, text(g.Control.Region, "nobody"), g.Control.Epoch)
	rows := [][]string{{"REGION", "IN SYNC", "SHARDS", "CONTROL", "LAG", "SWITCH", "LEASE", "INCARNATION", "REASON"}}
	for i := range g.Regions {
		r := &g.Regions[i]
		lease := "none"
		if r.Lease != nil {
			lease = fmt.Sprintf("%s, epoch %d", r.Lease.NodeId, r.Lease.Epoch)
			if r.Lease.Over {
				lease += ", over"
			}
		}
		inSync := "no"
		if r.InSync {
			inSync = "yes"
		}
		control := ""
		if text(g.Control.Region, "") == r.Region {
			control = "yes"
		}
		reasons := []string{text(r.Reason, ""), text(r.Switch.Reason, "")}
		rows = append(rows, []string{
			r.Region, inSync, strconv.Itoa(r.Shards) + " of " + strconv.Itoa(quorum.Shards), control, lagOf(r.Region, from, peers),
			switchText(r.Switch), lease, r.Incarnation,
			strings.Join(slices.DeleteFunc(reasons, func(s string) bool { return s == "" }), "; "),
		})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	q := g.Quorum
	fmt.Fprintf(w, "\nquorum: this node is %s, leader %s, term %d, index %d\n", q.Role, text(q.Leader, "none"), q.Term, g.Index)
	rows = [][]string{{"VOTER", "PART", "REACHED"}}
	for _, v := range q.Voters {
		part, reached := "votes", "the leader knows"
		switch {
		case !v.Admitted:
			part = "not admitted yet"
		case v.Learner:
			part = "catches up, has no vote yet"
		case v.Witness:
			part = "votes, holds no data"
		}
		if v.Reachable != nil {
			reached = map[bool]string{true: "yes", false: "no"}[*v.Reachable]
		}
		rows = append(rows, []string{v.Voter, part, reached})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	return undecided(g)
}

// lagOf is how late what a Region tells is where it is heard.
func lagOf(region, from string, peers []everpoint.PeerStatus) string {
	for _, p := range peers {
		switch {
		case p.Region != region:
		case p.HeardAt == nil:
			return "never heard"
		case p.Problem != nil:
			return "not heard"
		default:
			return (time.Duration(p.LagMilliseconds) * time.Millisecond).String()
		}
	}
	if region == from {
		return "this one"
	}
	return "not known"
}

// undecided returns why the group takes no commands; nil when it does.
func undecided(g *everpoint.Group) error {
	if g.Quorum.Reason == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", errUndecided, *g.Quorum.Reason)
}

func text(s *string, otherwise string) string {
	if s == nil {
		return otherwise
	}
	return *s
}

func switchText(s *everpoint.RegionSwitch) string {
	return fmt.Sprintf("%s, weight %d", s.Position, s.Weight)
}

func modeText(d *everpoint.GroupDuty) string {
	if d.Primary != nil {
		return fmt.Sprintf("%s, primary %s", d.Mode, *d.Primary)
	}
	return string(d.Mode)
}

// order is a command that changes the group.
type order struct {
	*flag.FlagSet
	to     target
	dryRun bool
}

func newOrder(name, usage string, stderr io.Writer) *order {
	o := &order{FlagSet: flags(name, usage, stderr)}
	o.to.flags(o.FlagSet)
	o.BoolVar(&o.dryRun, "dry-run", false, "print what would change, and change nothing")
	return o
}

// parse reads flags before, between and after n other arguments, and returns
// those; done is as of parse.
func (o *order) parse(args []string, n int) (given []string, done bool, err error) {
	for {
		if done, err := parse(o.FlagSet, args); done {
			return nil, true, err
		}
		if o.NArg() == 0 {
			break
		}
		given, args = append(given, o.Arg(0)), o.Args()[1:]
	}
	if len(given) != n {
		o.Usage()
		return nil, true, errUsage
	}
	return given, false, nil
}

// change asks how the group is, has an order planned on that, gives it unless it
// is a dry run, and says what changed, or would.
func (o *order) change(ctx context.Context, stdout io.Writer, plan func(g *everpoint.Group) (change, error)) error {
	c, err := o.to.client()
	if err != nil {
		return err
	}
	var g everpoint.Group
	if err := c.call(ctx, adminService, http.MethodGet, groupPath, nil, nil, &g); err != nil {
		return err
	}
	p, err := plan(&g)
	if err != nil {
		return err
	}
	if p.warning != "" {
		fmt.Fprintln(stdout, p.warning)
	}
	if o.dryRun {
		fmt.Fprintf(stdout, "would change %s: from %s to %s\n", p.what, p.from, p.to)
		return undecided(&g)
	}
	if p.method == "" {
		p.method = http.MethodPut
	}
	if err := c.call(ctx, adminService, p.method, p.path, p.query, p.request, nil); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "changed %s: from %s to %s\n", p.what, p.from, p.to)
	return nil
}

// change is what an order comes to.
type change struct {
	what, from, to string // for people
	warning        string // printed first
	method         string // empty: PUT
	path           string
	query          url.Values
	request        any
}

// known returns a Region of the group.
func known(g *everpoint.Group, name string) (*everpoint.GroupRegion, error) {
	var names []string
	for i := range g.Regions {
		if g.Regions[i].Region == name {
			return &g.Regions[i], nil
		}
		names = append(names, g.Regions[i].Region)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no Region %s in the group: none has joined yet", name)
	}
	return nil, fmt.Errorf("no Region %s in the group; joined have %s", name, strings.Join(names, ", "))
}

// planSwitch is what an order about a switch comes to; weight 0 leaves it as it
// is.
func planSwitch(g *everpoint.Group, name string, to everpoint.SwitchPosition, weight int, reason string) (change, error) {
	r, err := known(g, name)
	if err != nil {
		return change{}, err
	}
	if weight < 0 || weight > 1000 {
		return change{}, fmt.Errorf("the weight %d is not between 1 and 1000", weight)
	}
	lastOn := to != everpoint.SwitchPositionOn
	for i := range g.Regions {
		if o := &g.Regions[i]; o.Region != name && o.InSync && o.Switch.Position == everpoint.SwitchPositionOn {
			lastOn = false
		}
	}
	if lastOn && r.InSync && r.Switch.Position == everpoint.SwitchPositionOn {
		return change{}, fmt.Errorf("%s is the last Region in sync that is switched on, and stays so", name)
	}
	next := everpoint.RegionSwitchRequest{Position: to}
	after := everpoint.RegionSwitch{Position: to, Weight: r.Switch.Weight}
	if weight > 0 {
		next.Weight, after.Weight = &weight, weight
	}
	if reason != "" {
		next.Reason = &reason
	}
	return change{
		what: "the switch of " + name, from: switchText(r.Switch), to: switchText(&after),
		path: groupPath + "/regions/" + url.PathEscape(name) + "/switch", request: next,
	}, nil
}

func regionSwitch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := newOrder("region switch", `region switch REGION on|off [-weight N] [-reason TEXT] [-dry-run] [flags]

Switches a Region on or off for the routers: one that is off gets no request, ill
though the others may be; one that is switched on returns in steps. It needs a
majority of the group's voters, and goes through any Region that is up. The last
Region in sync that is on stays on. Routers hear of it within seconds.`, stderr)
	weight := o.Int("weight", 0, "its weight, in percent of what the routers' configuration gives it, 1 to 1000; 0 leaves it as it is")
	reason := o.String("reason", "", "why, for whoever looks")
	given, done, err := o.parse(args, 2)
	if done {
		return err
	}
	position := everpoint.SwitchPosition(given[1])
	if position != everpoint.SwitchPositionOn && position != everpoint.SwitchPositionOff {
		o.Usage()
		return errUsage
	}
	return o.change(ctx, stdout, func(g *everpoint.Group) (change, error) { return planSwitch(g, given[0], position, *weight, *reason) })
}

func regionDrain(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return switchTo(ctx, everpoint.SwitchPositionDraining, newOrder("region drain", `region drain REGION [-reason TEXT] [-dry-run] [flags]

Has the routers send no new requests to a Region; those under way finish.`, stderr), args, stdout)
}

func regionResume(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return switchTo(ctx, everpoint.SwitchPositionOn, newOrder("region resume", `region resume REGION [-reason TEXT] [-dry-run] [flags]

Switches on a Region that is off or draining, with the weight that it had. It
returns in steps.`, stderr), args, stdout)
}

func switchTo(ctx context.Context, to everpoint.SwitchPosition, o *order, args []string, stdout io.Writer) error {
	reason := o.String("reason", "", "why, for whoever looks")
	given, done, err := o.parse(args, 1)
	if done {
		return err
	}
	return o.change(ctx, stdout, func(g *everpoint.Group) (change, error) { return planSwitch(g, given[0], to, 0, *reason) })
}

func regionMode(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := newOrder("region mode", `region mode active-active|warm-standby [-primary REGION] [-weights REGION=N,...] [-dry-run] [flags]

Says how the Regions share: in active-active each in sync has its part of the
shards and of the traffic, in warm-standby the primary has all. Sending moves with
the shards.`, stderr)
	primary := o.String("primary", "", "the primary of warm-standby; default: the present one")
	var weights map[string]int
	o.Func("weights", "parts of the shards, 0 to 1000 each; who is not named has 100. Default: as they are", func(s string) error {
		weights = map[string]int{}
		for pair := range strings.SplitSeq(s, ",") {
			name, number, _ := strings.Cut(pair, "=")
			n, err := strconv.Atoi(number)
			if err != nil || name == "" || n < 0 || n > 1000 {
				return fmt.Errorf("%q is not REGION=N with N from 0 to 1000", pair)
			}
			weights[name] = n
		}
		return nil
	})
	given, done, err := o.parse(args, 1)
	if done {
		return err
	}
	mode := everpoint.GroupMode(given[0])
	if mode != everpoint.GroupModeActiveActive && mode != everpoint.GroupModeWarmStandby {
		o.Usage()
		return errUsage
	}
	return o.change(ctx, stdout, func(g *everpoint.Group) (change, error) { return planMode(g, mode, *primary, weights) })
}

// planMode is what an order about the mode comes to. It holds only for the duty
// that it was made from.
func planMode(g *everpoint.Group, mode everpoint.GroupMode, primary string, weights map[string]int) (change, error) {
	next := everpoint.GroupModeRequest{Mode: mode, Weights: weights, Epoch: &g.Duty.Epoch}
	after := &everpoint.GroupDuty{Mode: mode}
	standby := mode == everpoint.GroupModeWarmStandby
	switch {
	case !standby && primary != "":
		return change{}, errors.New("-primary is for warm-standby")
	case standby && primary != "":
		next.Primary, after.Primary = &primary, &primary
	case standby && g.Duty.Primary == nil:
		return change{}, errors.New("warm-standby needs -primary")
	case standby:
		after.Primary = g.Duty.Primary
	}
	names := slices.Sorted(maps.Keys(weights))
	if after.Primary != nil {
		names = append(names, *after.Primary)
	}
	for _, name := range names {
		if _, err := known(g, name); err != nil {
			return change{}, err
		}
	}
	now := map[string]int{}
	for i := range g.Regions {
		now[g.Regions[i].Region] = g.Regions[i].Weight
	}
	then := now
	if weights != nil {
		then = map[string]int{}
		for name := range now {
			then[name] = 100
		}
		maps.Copy(then, weights)
	}
	return change{
		what: "the mode", from: modeText(g.Duty) + ", weights " + weightsText(now), to: modeText(after) + ", weights " + weightsText(then),
		path: groupPath + "/mode", request: next,
	}, nil
}

func weightsText(weights map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		parts = append(parts, fmt.Sprintf("%s=%d", name, weights[name]))
	}
	return strings.Join(parts, ",")
}

func regionControl(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := newOrder("region control", `region control REGION [-dry-run] [flags]

Moves control to a Region in sync: the one through which the control plane is
written.`, stderr)
	given, done, err := o.parse(args, 1)
	if done {
		return err
	}
	return o.change(ctx, stdout, func(g *everpoint.Group) (change, error) { return planControl(g, given[0]) })
}

// planControl is what an order about control comes to. It holds only for the
// epoch that it was made from.
func planControl(g *everpoint.Group, name string) (change, error) {
	r, err := known(g, name)
	if err != nil {
		return change{}, err
	}
	if !r.InSync {
		return change{}, fmt.Errorf("%s is not in sync: %s", name, text(r.Reason, "no reason is known"))
	}
	return change{
		what: "control", from: text(g.Control.Region, "nobody"), to: name,
		path: groupPath + "/control-region", request: everpoint.GroupControlRequest{Region: name, Epoch: &g.Control.Epoch},
	}, nil
}

func regionForget(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o := newOrder("region forget", `region forget REGION [-successor REGION] [-dry-run] [flags]

Declares a Region lost for good, disk and all. A Region that is lost while another
is in sync is removed from the set by itself, and needs this only when it is never
to come back. When the last one in sync is lost, nothing is sent and no control
write is taken until it comes back, or until this says that it never will: then
another Region takes its place, with what it has. WHAT ONLY THE LOST ONE HAD IS LOST.
-dry-run says what that is. Refused while the Region is heard, and until its
lease has run out, some seconds after it was last well. Ask the Region that is
to go on.`, stderr)
	successor := o.String("successor", "", "who takes the place of the last Region in sync; default: the other one, if there is one other")
	given, done, err := o.parse(args, 1)
	if done {
		return err
	}
	return o.change(ctx, stdout, func(g *everpoint.Group) (change, error) { return planForget(g, given[0], *successor) })
}

// planForget is what it comes to that a Region is forgotten.
func planForget(g *everpoint.Group, name, successor string) (change, error) {
	r, err := known(g, name)
	if err != nil {
		return change{}, err
	}
	var others []string
	for i := range g.Regions {
		o := &g.Regions[i]
		if o.Region == name {
			continue
		}
		others = append(others, o.Region)
		if o.InSync && r.InSync {
			return change{}, fmt.Errorf("%s is in sync with others, which remove it when they do not hear it; it can be forgotten then", name)
		}
	}
	if r.Lease != nil && !r.Lease.Over {
		return change{}, fmt.Errorf("the lease of %s has not run out: it may be sending; once it is stopped that takes some seconds", name)
	}
	c := change{
		what: "the group", from: name + " known, " + text(r.Reason, "in sync alone"), to: name + " forgotten",
		method: http.MethodDelete, path: groupPath + "/regions/" + url.PathEscape(name),
	}
	switch {
	case !r.InSync && successor != "":
		return change{}, fmt.Errorf("%s is not in sync, so nobody has to take its place", name)
	case !r.InSync:
		c.warning = fmt.Sprintf(`Lost with %[1]s: endpoint updates and events that nobody else has yet. Opt-outs,
deletions, accepted sends and control writes that were acknowledged while it was in sync
are in the Regions in sync. If %[1]s comes back it joins as a new Region.`, name)
		return c, nil
	case successor == "" && len(others) != 1:
		return change{}, fmt.Errorf("%s is the last Region in sync: name with -successor which of %s takes its place", name, strings.Join(others, ", "))
	case successor == "":
		successor = others[0]
	}
	if !slices.Contains(others, successor) {
		_, err := known(g, successor)
		return change{}, errors.Join(err, fmt.Errorf("%s cannot take the place of %s", successor, name))
	}
	c.query = url.Values{"successor": {successor}}
	c.to = successor + " in sync alone, with control and all shards; " + name + " forgotten"
	c.warning = fmt.Sprintf(`WARNING: %[1]s was in sync alone. Everything that it took since %[2]s left the set is lost
with it, acknowledged or not: opt-outs, deletions, endpoint updates, events, accepted sends,
campaigns and all that was written through the control plane. Import the opt-outs anew from
where they came. Of its campaigns, what it may have sent without %[2]s knowing is listed as
ambiguous, and left or sent again as the sending policy says.
If the disk of %[1]s can be saved, do not go on: start it, and nothing is lost.
If it comes back later it joins as a new Region, and what it has is merged then.`, name, successor)
	return c, nil
}
