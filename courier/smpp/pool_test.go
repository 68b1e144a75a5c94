package smpp

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPool(t *testing.T) {
	alive := func() *session { return &session{done: make(chan struct{})} }
	t.Run("lends_from_the_emptiest_bind", func(t *testing.T) {
		p := newPool(10)
		a, b := alive(), alive()
		p.add(a)
		p.add(b)
		lent := map[*session]int{}
		for range 12 {
			s, err := p.acquire(t.Context(), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			lent[s]++
		}
		if lent[a] != 6 || lent[b] != 6 {
			t.Errorf("%d and %d", lent[a], lent[b])
		}
	})
	t.Run("serves_in_the_order_of_asking", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPool(1)
			s := alive()
			p.add(s)
			if _, err := p.acquire(t.Context(), time.Second); err != nil {
				t.Fatal(err)
			}
			served := make(chan int, 3)
			for i := range 3 {
				go func() {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if i == 1 { // gives up
						time.AfterFunc(time.Second, cancel)
					}
					if _, err := p.acquire(ctx, time.Hour); err == nil {
						served <- i
					}
				}()
				synctest.Wait()
			}
			<-time.After(2 * time.Second)
			p.release(s)
			first := <-served
			p.release(s)
			if second := <-served; first != 0 || second != 2 {
				t.Errorf("served %d and %d", first, second)
			}
			if p.idle(s) || len(p.waiting) != 0 {
				t.Error("a slot or a place was lost")
			}
			p.release(s)
			if !p.idle(s) {
				t.Error("a slot was not given back")
			}
		})
	})
	t.Run("never_lends_a_dead_bind", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPool(1)
			s := alive()
			close(s.done)
			p.add(s)
			p.remove(s)
			if _, err := p.acquire(t.Context(), time.Second); !errors.Is(err, errNotBound) {
				t.Errorf("got %v", err)
			}
			p.close()
			if _, err := p.acquire(t.Context(), time.Second); !errors.Is(err, errClosed) {
				t.Errorf("closed: got %v", err)
			}
		})
	})
}
