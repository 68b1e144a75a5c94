package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

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
		for range 1 + rnd.IntN(3) {
			time.Sleep(some(rnd, 4*time.Second))
			if rnd.IntN(4) == 0 {
				g.net.Reset(from, "")
			}
		}
		cut(false)
		return fmt.Sprintf("cut %s from %s, both ways %v", from, to, both), nil
	case 8:
		delay := 20*time.Millisecond + some(rnd, 700*time.Millisecond)
		g.net.Delay(near, far, delay)
		g.net.Delay(far, near, some(rnd, delay))
		time.Sleep(some(rnd, 8*time.Second))
		g.net.Delay(near, far, 0)
		g.net.Delay(far, near, 0)
		return fmt.Sprintf("delay of %s", delay), nil
	case 9, 10:
		frozen := Freeze{Region: name, From: time.Now()}
		g.net.Freeze(name, true)
		pause := some(rnd, 2*time.Second)
		if rnd.IntN(2) == 0 {
			pause = some(rnd, 30*time.Second)
		}
		time.Sleep(pause)
		g.net.Freeze(name, false)
		frozen.To = time.Now()
		c.mu.Lock()
		c.Frozen = append(c.Frozen, frozen)
		c.mu.Unlock()
		return fmt.Sprintf("%s paused for %s", name, pause), nil
	default:
		lost := rnd.IntN(2) == 0 && until(ctx, 10*time.Second, g.whole)
		g.witness.Crash()
		if lost {
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
	c.mu.Lock()
	c.Losses = append(c.Losses, loss)
	c.mu.Unlock()
	return m.name + " " + loss.How, c.restart(ctx, m, sabotage)
}
