package sim

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/everpoint/everpoint/api/everpoint"
	"github.com/everpoint/everpoint/api/pinpoint"
	"github.com/everpoint/everpoint/state/changelog"
)

// How long the parts of a group's story last.
const (
	turmoil   = 40 * time.Second // in which clients write and faults come
	settleMax = 90 * time.Second // until all is well after the last fault
	callMax   = 20 * time.Second // that a client waits for an answer
)

// Act is a write that a client asked a Region for.
type Act struct {
	Region       string
	What         string // round, optout, delete, segment, campaign or call
	ID           string // of the endpoint; the segment's name; the subject of the mails
	Value        float64
	Began, Ended time.Time
	Err          error // nil: it was acknowledged
}

// Loss is when a Region lost what was on its disk, or a part of it.
type Loss struct {
	Region string
	At     time.Time
	How    string
}

// Freeze is a time in which nothing of a Region ran.
type Freeze struct {
	Region   string
	From, To time.Time
}

// Chronicle is what happened to a group, for the judges.
type Chronicle struct {
	Seed uint64
	App  string

	Acts    []Act
	Losses  []Loss
	Trouble [][2]time.Time // when something was wrong
	Frozen  []Freeze
	Split   string         // what two voters knew differently; empty: nothing
	Faults  map[string]int // how often each kind came to pass
	Log     []string       // the faults, for people

	Settled bool
	Why     string // it has not settled
	// Rows are all that a Region holds and another may have, by Region, kind and key.
	Rows map[string]map[string]string
	// Endpoints are what a Region answers about each; nil: it is not there.
	Endpoints map[string]map[string]*pinpoint.EndpointResponse
	// Segments are the names that a Region lists.
	Segments map[string]map[string]bool
	// Runs are the states of the campaigns that were acknowledged, by subject.
	Runs map[string]everpoint.RunState
	// Listed are the sends that a Region lists as ambiguous, by campaign and address;
	// a campaign whose answer was lost has no name. Refused are the addresses that a
	// carrier refused for good.
	Listed  map[string]map[[2]string]bool
	Refused map[string]bool
	Outbox  []sent

	campaigns map[string]string // id by subject
	segment   string

	mu      sync.Mutex
	deleted map[string]bool // deletion was asked for
}

// Sabotage is a planted bug: what is done to a group to break a promise.
type Sabotage struct {
	// Group is called with the group before it starts; it may set its seams.
	Group func(*Group)
	// Faults, when it is set, takes the place of the faults that are drawn.
	Faults func(context.Context, *Chronicle, *Group) error
	// Retries have nothing in common with the calls that they repeat.
	Retries bool
	// Restarted is called before a Region starts again on the disk it has.
	Restarted func(*Member) error
}

// Chronicles plays a group's story from a seed in dir.
func Chronicles(ctx context.Context, seed uint64, dir string, sabotage Sabotage, log *slog.Logger) (*Chronicle, error) {
	g, err := NewGroup(seed, dir, skewMax, log)
	if err != nil {
		return nil, err
	}
	if sabotage.Group != nil {
		sabotage.Group(g)
	}
	serving, stop := context.WithCancel(ctx)
	wait, err := g.serve(serving)
	if err != nil {
		stop()
		return nil, err
	}
	defer wait()
	defer stop()
	defer g.Stop() // and with it the network
	c := &Chronicle{Seed: seed, Faults: map[string]int{}, deleted: map[string]bool{}, campaigns: map[string]string{}}
	if err := g.Start(ctx); err != nil {
		return nil, err
	}
	if !until(ctx, 30*time.Second, g.whole) {
		_, state := g.states()
		return nil, fmt.Errorf("the group did not form: %+v", state)
	}
	watching, enough := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { c.watch(watching, g) })
	defer watch.Wait()
	defer enough()
	if err := c.opening(ctx, g); err != nil {
		return nil, err
	}
	if err := c.play(ctx, g, sabotage); err != nil {
		return nil, err
	}
	if c.split() {
		return c, nil // voters that do not agree never come to do so
	}
	return c, c.ending(ctx, g)
}

// until waits until ok, and reports whether it came to be in time.
func until(ctx context.Context, limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) || ctx.Err() != nil {
			return false
		}
		time.Sleep(50 * time.Millisecond)
	}
	return true
}

const endpointCount = 24

func endpointID(i int) string { return fmt.Sprint("e", i) }

// memberCount is how many people the campaigns write to.
const memberCount = 100

func memberID(i int) string { return fmt.Sprint("m", i) }

// everybody is the ids of all endpoints.
func everybody() []string {
	var ids []string
	for i := range endpointCount {
		ids = append(ids, endpointID(i))
	}
	for i := range memberCount {
		ids = append(ids, memberID(i))
	}
	return ids
}

func memberAddress(id string) string { return id + "@tea.example" }

// opening makes the app and its people.
func (c *Chronicle) opening(ctx context.Context, g *Group) error {
	var app pinpoint.ApplicationResponse
	m := g.regions[near]
	if err := m.Call(ctx, "mobiletargeting", "POST", "/v1/apps", object{"Name": "sim"}, &app); err != nil {
		return err
	}
	c.App = app.Id
	base := "/v1/apps/" + c.App
	if err := m.Call(ctx, "mobiletargeting", "PUT", base+"/channels/email", object{
		"FromAddress": "news@tea.example", "Identity": "arn:aws:ses:" + near + ":" + account + ":identity/tea.example", "Enabled": true,
	}, nil); err != nil {
		return err
	}
	var seg pinpoint.SegmentResponse
	if err := m.Call(ctx, "mobiletargeting", "POST", base+"/segments", object{"Name": "members", "Dimensions": object{
		"Attributes": object{"Member": object{"AttributeType": "INCLUSIVE", "Values": []string{"yes"}}},
	}}, &seg); err != nil {
		return err
	}
	c.segment = seg.Id
	var items []object
	for i := range memberCount {
		items = append(items, object{
			"Id": memberID(i), "ChannelType": "EMAIL", "Address": memberAddress(memberID(i)), "Attributes": object{"Member": []string{"yes"}},
		})
	}
	if err := m.Call(ctx, "mobiletargeting", "PUT", base+"/endpoints", object{"Item": items}, nil); err != nil {
		return err
	}
	items = nil
	for i := range endpointCount {
		items = append(items, object{"Id": endpointID(i), "ChannelType": "EMAIL", "Address": fmt.Sprintf("p%d@tea.example", i)})
	}
	if err := m.Call(ctx, "mobiletargeting", "PUT", "/v1/apps/"+c.App+"/endpoints", object{"Item": items}, nil); err != nil {
		return err
	}
	time.Sleep(time.Second)
	return nil
}

// play has clients write in both Regions while faults come.
func (c *Chronicle) play(ctx context.Context, g *Group, sabotage Sabotage) error {
	rnd := rand.New(rand.NewPCG(g.seed, 0xfa17))
	var clients sync.WaitGroup
	end := time.Now().Add(turmoil)
	for _, name := range regionNames {
		for half := range 2 {
			own := rand.New(rand.NewPCG(rnd.Uint64(), 2))
			clients.Go(func() { c.client(ctx, g.regions[name], half, own, end) })
		}
	}
	for i := range campaignCount {
		own := rand.New(rand.NewPCG(rnd.Uint64(), 3))
		clients.Go(func() { c.launch(ctx, g, fmt.Sprint("news ", i), own) })
	}
	clients.Go(func() { c.weather(ctx, g, end) })
	clients.Go(func() { c.repeats(ctx, g, end, sabotage.Retries) })
	if sabotage.Faults != nil {
		err := sabotage.Faults(ctx, c, g)
		clients.Wait()
		return err
	}
	err := c.faults(ctx, g, rnd, end, sabotage)
	clients.Wait()
	return err
}

// campaignCount is how many campaigns there are in a story.
const campaignCount = 2

// launch makes a campaign at some moment. One whose answer was lost may run, and
// another is made with another subject.
func (c *Chronicle) launch(ctx context.Context, g *Group, subject string, rnd *rand.Rand) {
	time.Sleep(some(rnd, turmoil*3/4))
	for try := range 20 {
		m := g.regions[regionNames[rnd.IntN(2)]]
		a := Act{Region: m.name, What: "campaign", ID: fmt.Sprintf("%s.%d", subject, try), Began: time.Now()}
		var made pinpoint.CampaignResponse
		calling, cancel := context.WithTimeout(ctx, callMax)
		a.Err = m.Call(calling, "mobiletargeting", "POST", "/v1/apps/"+c.App+"/campaigns", object{
			"Name": a.ID, "SegmentId": c.segment, "Schedule": object{"StartTime": "IMMEDIATE"}, "Limits": object{"MessagesPerSecond": 50},
			"MessageConfiguration": object{"EmailMessage": object{"Title": a.ID, "Body": "Dear {{Id}}"}},
		}, &made)
		cancel()
		a.Ended = time.Now()
		c.act(a)
		if a.Err == nil {
			c.mu.Lock()
			c.campaigns[a.ID] = made.Id
			c.mu.Unlock()
			return
		}
		time.Sleep(time.Second)
	}
}

func (c *Chronicle) act(a Act) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Acts = append(c.Acts, a)
}

// client writes in one Region until the end.
func (c *Chronicle) client(ctx context.Context, m *Member, half int, rnd *rand.Rand, end time.Time) {
	rounds, segments := map[string]float64{}, 0
	for time.Now().Before(end) && ctx.Err() == nil {
		time.Sleep(time.Duration(20+rnd.IntN(600)) * time.Millisecond)
		a := Act{Region: m.name, What: "round", ID: endpointID(half + 2*rnd.IntN(endpointCount/2))}
		path := "/v1/apps/" + c.App + "/endpoints/" + a.ID
		switch rnd.IntN(12) {
		case 0, 1:
			a.What = "optout"
			if rnd.IntN(2) == 0 {
				a.ID = memberID(half + 2*rnd.IntN(memberCount/2))
				path = "/v1/apps/" + c.App + "/endpoints/" + a.ID
			}
		case 2:
			a.What = "delete"
		case 3:
			segments++
			a.What, a.ID = "segment", fmt.Sprintf("%s-%d-%d", m.name, half, segments)
		default:
			rounds[a.ID]++
			a.Value = rounds[a.ID]
		}
		c.mu.Lock()
		gone := c.deleted[a.ID]
		c.deleted[a.ID] = gone || a.What == "delete"
		c.mu.Unlock()
		if gone {
			continue
		}
		calling, cancel := context.WithTimeout(ctx, callMax)
		a.Began = time.Now()
		switch a.What {
		case "round":
			a.Err = m.Call(calling, "mobiletargeting", "PUT", path, object{"Metrics": object{"Round-" + m.name: a.Value}}, nil)
		case "optout":
			a.Err = m.Call(calling, "mobiletargeting", "PUT", path, object{"OptOut": "ALL"}, nil)
		case "delete":
			a.Err = m.Call(calling, "mobiletargeting", "DELETE", path, nil, nil)
		case "segment":
			a.Err = m.Call(calling, "mobiletargeting", "POST", "/v1/apps/"+c.App+"/segments", object{"Name": a.ID, "Dimensions": object{}}, nil)
		}
		cancel()
		a.Ended = time.Now()
		c.act(a)
	}
}

// ending heals everything, waits until the Regions say the same, and asks them what
// they hold.
func (c *Chronicle) ending(ctx context.Context, g *Group) error {
	g.net.Heal()
	began := time.Now()
	until(ctx, settleMax, g.whole)
	until(ctx, settleMax, func() bool { return c.sends(ctx, g) == nil && len(c.unsent()) == 0 }) // or the judges ask after them
	c.Settled = until(ctx, settleMax, g.whole) && until(ctx, settleMax, func() bool { return c.over(ctx, g.regions[near]) }) && until(ctx, settleMax, func() bool {
		var err error
		if c.Rows, err = g.rows(ctx); err != nil {
			c.Why = err.Error()
			return false
		}
		c.Why = difference(c.Rows[near], c.Rows[far])
		return c.Why == ""
	})
	if !c.Settled && c.Why == "" {
		_, state := g.states()
		c.Why = fmt.Sprintf("the group is not whole, or its campaigns are not over (%v): %+v", c.Runs, state)
	}
	c.note(began, time.Now(), "settling")
	if err := c.sends(ctx, g); err != nil {
		return err
	}
	c.Endpoints, c.Segments = map[string]map[string]*pinpoint.EndpointResponse{}, map[string]map[string]bool{}
	for _, name := range regionNames {
		m, at := g.regions[name], map[string]*pinpoint.EndpointResponse{}
		for _, id := range everybody() {
			e := &pinpoint.EndpointResponse{}
			err := m.Call(ctx, "mobiletargeting", "GET", "/v1/apps/"+c.App+"/endpoints/"+id, nil, e)
			if err != nil && strings.Contains(err.Error(), "answered 404") {
				e, err = nil, nil
			}
			if err != nil {
				return err
			}
			at[id] = e
		}
		c.Endpoints[name] = at
		segments, token := map[string]bool{}, ""
		for {
			var page pinpoint.SegmentsResponse
			if err := m.Call(ctx, "mobiletargeting", "GET", "/v1/apps/"+c.App+"/segments?page-size=100"+token, nil, &page); err != nil {
				return err
			}
			for i := range page.Item {
				segments[*page.Item[i].Name] = true
			}
			if page.NextToken == nil || *page.NextToken == "" {
				break
			}
			token = "&token=" + strings.ReplaceAll(*page.NextToken, "+", "%2B")
		}
		c.Segments[name] = segments
	}
	return nil
}

// over asks a Region whether every campaign that was acknowledged is over.
func (c *Chronicle) over(ctx context.Context, m *Member) bool {
	c.Runs = map[string]everpoint.RunState{}
	all := true
	for subject, id := range c.campaigns {
		var run everpoint.CampaignRun
		if err := m.Call(ctx, "everpoint", "GET", "/everpoint/v1/apps/"+c.App+"/campaigns/"+id+"/run", nil, &run); err != nil {
			c.Why = err.Error()
			return false
		}
		c.Runs[subject] = run.State
		all = all && run.State == everpoint.RunStateCompleted
	}
	return all
}

// unsent are the addresses of messages that were accepted and have no fate.
func (c *Chronicle) unsent() []string {
	out := map[string]bool{}
	for i := range c.Acts {
		if a := &c.Acts[i]; a.What == "call" && a.Err == nil {
			out[a.ID] = true
		}
	}
	for i := range c.Outbox {
		if m := &c.Outbox[i]; m.subject == "call" {
			delete(out, m.to)
		}
	}
	for l := range c.Listed[near] {
		if l[0] == "" && c.Listed[far][l] {
			delete(out, l[1])
		}
	}
	for to := range c.Refused {
		delete(out, to)
	}
	return slices.Sorted(maps.Keys(out))
}

// sends asks for what went out and what is listed.
func (c *Chronicle) sends(ctx context.Context, g *Group) error {
	c.Refused, c.Listed = g.Refused(), map[string]map[[2]string]bool{}
	subjects := map[string]string{}
	for subject, id := range c.campaigns {
		subjects[id] = subject
	}
	for _, name := range regionNames {
		listed, token := map[[2]string]bool{}, ""
		for {
			var page everpoint.AmbiguousSendsResponse
			if err := g.regions[name].Call(ctx, "everpoint", "GET", "/everpoint/v1/apps/"+c.App+"/ambiguous-sends?page-size=500"+token, nil, &page); err != nil {
				return err
			}
			for i := range page.Item {
				subject, a := "", &page.Item[i]
				if a.CampaignId != nil {
					subject = subjects[*a.CampaignId]
				}
				listed[[2]string{subject, a.Address}] = true
			}
			if page.NextToken == nil || *page.NextToken == "" {
				break
			}
			token = "&token=" + strings.ReplaceAll(*page.NextToken, "+", "%2B")
		}
		c.Listed[name] = listed
	}
	c.Outbox = nil
	for after := 0; ; {
		page := g.outbox.Messages(after, time.Time{}, "", 1000)
		if len(page) == 0 {
			return nil
		}
		for _, m := range page {
			c.Outbox = append(c.Outbox, sent{m.Channel, m.To, m.MessageID, m.Time, m.Region, m.Subject})
			after = m.N
		}
	}
}

// rows reads all that the Regions may have in common.
func (g *Group) rows(ctx context.Context) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	for name, m := range g.regions {
		rows := map[string]string{}
		err := m.node.Store.Changes(ctx, 0, func(_ int64, c changelog.Change) error {
			rows[c.Kind+" "+c.Key] = fmt.Sprint(c.Rule) + " " + string(c.Body)
			return nil
		})
		if err != nil {
			return nil, err
		}
		out[name] = rows
	}
	return out, nil
}

// difference names a few rows that two Regions hold differently.
func difference(a, b map[string]string) string {
	var out []string
	for k, v := range a {
		if w, ok := b[k]; !ok {
			out = append(out, fmt.Sprintf("%q is missing in the second", k))
		} else if v != w {
			out = append(out, fmt.Sprintf("%q is %q and %q", k, v, w))
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			out = append(out, fmt.Sprintf("%q is missing in the first", k))
		}
	}
	slices.Sort(out)
	if len(out) > 4 {
		out = append(out[:4], fmt.Sprintf("and %d more", len(out)-4))
	}
	return strings.Join(out, "; ")
}

// note remembers a fault.
func (c *Chronicle) note(from, to time.Time, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Trouble = append(c.Trouble, [2]time.Time{from, to})
	c.Log = append(c.Log, fmt.Sprintf("%s to %s: ", from.Format("04:05.000"), to.Format("04:05.000"))+fmt.Sprintf(format, args...))
}

// String is a chronicle for people.
func (c *Chronicle) String() string {
	lines := slices.Clone(c.Log)
	for i := range c.Acts {
		a := &c.Acts[i]
		if a.What == "round" && a.Err == nil {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s to %s: %s in %s of %s: %v", a.Began.Format("04:05.000"), a.Ended.Format("04:05.000"), a.What, a.Region, a.ID, a.Err))
	}
	for _, m := range c.Outbox {
		lines = append(lines, fmt.Sprintf("%s: %q to %s by %s, %s", clock(m.at), m.subject, m.to, m.region, m.id))
	}
	for _, l := range c.Losses {
		lines = append(lines, fmt.Sprintf("%s: %s of %s", l.At.Format("04:05.000"), l.How, l.Region))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
