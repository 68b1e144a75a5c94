package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// The kinds of faults of a group, as they are counted.
const (
	faultCrash       = "crash"
	faultDisk        = "disk lost"
	faultRestore     = "restored from a backup"
	faultCut         = "partition"
	faultReset       = "connections broken"
	faultDelay       = "delay"
	faultPause       = "pause"
	faultHalt        = "pause of 30 s"
	faultMidway      = "pause at a commit point"
	faultWitness     = "witness crash"
	faultWitnessDisk = "witness disk lost"
	faultReorder     = "messages overtaken"
	faultSkew        = "clock step"
)

// faultKinds are all that a story may have. Who plays many stories checks that each
// was there.
var faultKinds = []string{
	faultCrash, faultDisk, faultRestore, faultCut, faultReset, faultDelay, faultPause, faultHalt, faultMidway, faultWitness, faultWitnessDisk,
	faultReorder, faultSkew,
}

// pauseMax is the longest pause of a Region.
const pauseMax = 30 * time.Second

// count notes that a fault has come to pass.
func (c *Chronicle) count(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Faults[kind]++
}

// weather changes clocks and lets messages overtake each other until the end. Its
// chance is its own, so that the faults of a seed do not depend on it.
func (c *Chronicle) weather(ctx context.Context, g *Group, end time.Time) {
	rnd := rand.New(rand.NewPCG(g.seed, 0x7ea))
	for {
		time.Sleep(time.Second + some(rnd, 12*time.Second))
		if !time.Now().Before(end) || ctx.Err() != nil {
			return
		}
		if rnd.IntN(2) == 0 {
			m := g.regions[regionNames[rnd.IntN(2)]]
			m.skew.Store(rnd.Int64N(int64(skewMax)))
			c.count(faultSkew)
			continue
		}
		before := g.net.Overtaken()
		g.net.Shuffle(50*time.Millisecond+some(rnd, time.Second), rnd.Uint64())
		time.Sleep(some(rnd, 6*time.Second))
		g.net.Shuffle(0, 0)
		if g.net.Overtaken() > before {
			c.count(faultReorder)
		}
	}
}

// faults draws faults until the end, and mends them all.
func (c *Chronicle) faults(ctx context.Context, g *Group, rnd *rand.Rand, end time.Time, sabotage Sabotage) error {
	for {
		time.Sleep(time.Duration(200+rnd.IntN(3000)) * time.Millisecond)
		if !time.Now().Before(end) || ctx.Err() != nil {
			return ctx.Err()
		}
		began := time.Now()
		what, err := c.fault(ctx, g, rnd, sabotage)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		c.note(began, time.Now(), "%s", what)
	}
}

func some(rnd *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rnd.Int64N(int64(most)))
}

func (c *Chronicle) fault(ctx context.Context, g *Group, rnd *rand.Rand, sabotage Sabotage) (string, error) {
	name := regionNames[rnd.IntN(2)]
	m := g.regions[name]
	switch rnd.IntN(12) {
	case 0, 1, 2:
		// At a commit point, if one comes soon; then down for a while.
		m.doom(1 + rnd.IntN(24))
		select {
		case <-m.Died():
		case <-time.After(500 * time.Millisecond):
		}
		if err := m.Crash(); err != nil {
			return "", err
		}
		c.count(faultCrash)
		down := some(rnd, 8*time.Second)
		time.Sleep(down)
		return fmt.Sprintf("%s crashed for %s", name, down), c.restart(ctx, m, sabotage)
	case 3:
		return c.lose(ctx, g, m, rnd, false, sabotage)
	case 4:
		if err := m.Backup(ctx); err != nil {
			return "", err
		}
		time.Sleep(some(rnd, 3*time.Second))
		return c.lose(ctx, g, m, rnd, true, sabotage)
	case 5, 6, 7:
		from, to := voterNames[rnd.IntN(3)], voterNames[rnd.IntN(3)]
		both := rnd.IntN(3) > 0
		cut := func(yes bool) {
			for _, other := range voterNames {
				if other != from && (to == from || to == other) { // from everybody, or from one
					g.net.Cut(from, other, yes)
					if both {
						g.net.Cut(other, from, yes)
					}
				}
			}
		}
		cut(true)
		c.count(faultCut)
		for range 1 + rnd.IntN(3) {
			time.Sleep(some(rnd, 4*time.Second))
			if rnd.IntN(4) == 0 {
				g.net.Reset(from, "")
				c.count(faultReset)
			}
		}
		cut(false)
		return fmt.Sprintf("cut %s from %s, both ways %v", from, to, both), nil
	case 8:
		delay := 20*time.Millisecond + some(rnd, 700*time.Millisecond)
		c.count(faultDelay)
		g.net.Delay(near, far, delay)
		g.net.Delay(far, near, some(rnd, delay))
		time.Sleep(some(rnd, 8*time.Second))
		g.net.Delay(near, far, 0)
		g.net.Delay(far, near, 0)
		return fmt.Sprintf("delay of %s", delay), nil
	case 9, 10:
		pause := some(rnd, 2*time.Second)
		if rnd.IntN(2) == 0 {
			pause = some(rnd, pauseMax)
		}
		midway := pause%2 == 0
		if pause > pauseMax*2/3 {
			pause = pauseMax
			c.count(faultHalt)
		}
		if midway {
			// Before a commit point, if one comes soon.
			select {
			case <-m.halt(1 + int(pause/2%24)):
				c.count(faultMidway)
			case <-time.After(500 * time.Millisecond):
				m.halt(0)
			}
		}
		c.count(faultPause)
		frozen := Freeze{Region: name, From: time.Now()}
		g.net.Freeze(name, true)
		time.Sleep(pause)
		g.net.Freeze(name, false)
		frozen.To = time.Now()
		c.mu.Lock()
		c.Frozen = append(c.Frozen, frozen)
		c.mu.Unlock()
		return fmt.Sprintf("%s paused for %s", name, pause), nil
	default:
		lost := rnd.IntN(2) == 0 && until(ctx, 10*time.Second, g.whole)
		c.count(faultWitness)
		g.witness.Crash()
		if lost {
			c.count(faultWitnessDisk)
			if err := os.RemoveAll(g.file(witnessName)); err != nil {
				return "", err
			}
		}
		time.Sleep(some(rnd, 6*time.Second))
		return fmt.Sprintf("the witness crashed, disk lost: %v", lost), g.witness.Start(ctx)
	}
}

func (c *Chronicle) restart(ctx context.Context, m *Member, sabotage Sabotage) error {
	if sabotage.Restarted != nil {
		if err := sabotage.Restarted(m); err != nil {
			return err
		}
	}
	return m.Start(ctx, 0)
}

// lose takes a Region's disk away, or puts a backup in its place: once nobody else
// is missing, for a promise holds against the loss of one disk.
func (c *Chronicle) lose(ctx context.Context, g *Group, m *Member, rnd *rand.Rand, restore bool, sabotage Sabotage) (string, error) {
	if !until(ctx, 20*time.Second, g.whole) {
		return "nothing", nil
	}
	loss := Loss{Region: m.name, At: time.Now(), How: "disk lost"}
	if err := m.Crash(); err != nil {
		return "", err
	}
	time.Sleep(some(rnd, 5*time.Second))
	restored := false
	if restore {
		loss.How = "restored from a backup"
		var err error
		if restored, err = m.Restore(); err != nil {
			return "", err
		}
	}
	if !restored {
		if err := m.LoseDisk(); err != nil {
			return "", err
		}
	}
	kind := faultDisk
	if restored {
		kind = faultRestore
	}
	c.mu.Lock()
	c.Losses = append(c.Losses, loss)
	c.Faults[kind]++
	c.mu.Unlock()
	return m.name + " " + loss.How, c.restart(ctx, m, sabotage)
}
