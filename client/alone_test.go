package client

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/directory"
	"peel/directory/cache"
	"peel/directory/dirtest"
)

// listing is the world's consensus with such relays only.
func (w *world) listing(of func(e *directory.Entry) bool) []byte {
	c := *w.Consensus
	c.Entries = nil
	for _, e := range w.Consensus.Entries {
		if of(&e) {
			c.Entries = append(c.Entries, e)
		}
	}
	c.Relays, c.Root = len(c.Entries), directory.Root(c.Entries)
	return w.Sign(&c, len(w.Authorities))
}

// When all nodes of a network are started at once, its first list may name no relay, or none that lets traffic out. A client takes it, is
// ready soon after the next one comes out, and asks no more often meanwhile than who has no list.
func TestAFirstListOfNoUseCostsItsPeriod(t *testing.T) {
	const period = time.Hour
	for name, first := range map[string]func(*directory.Entry) bool{
		"no relays": func(*directory.Entry) bool { return false },
		"no exits":  func(e *directory.Entry) bool { return !e.Flags.Has(directory.Exit) },
	} {
		for when, late := range map[string]time.Duration{"in time": 0, "late": period / 3} {
			t.Run(name+", the next one "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 8, dirtest.Entries(func(i int, e *directory.Entry) {
						if i%2 == 0 {
							e.Flags, e.Policy = e.Flags&^directory.Exit, nil
						}
					}))
					useless, good := w.listing(first), w.later(period, 5)
					out := w.Consensus.FreshUntil.Add(late)
					var mu sync.Mutex
					var asked []time.Time
					w.handOut = func(_ int, a http.ResponseWriter, r *http.Request) {
						if r.URL.Path != cache.Path { // for what has changed
							http.NotFound(a, r)
							return
						}
						mu.Lock()
						defer mu.Unlock()
						asked = append(asked, time.Now())
						if time.Now().Before(out) {
							a.Write(useless)
						} else {
							a.Write(good)
						}
					}
					c := w.client(Config{})
					run(t, c)
					ctx, cancel := context.WithTimeout(t.Context(), 3*period)
					defer cancel()
					if err := c.Ready(ctx); err != nil {
						t.Fatal(err)
					}
					soon, most := period/20, 2
					if late > 0 {
						soon, most = period/8, 8
					}
					if d := time.Since(out); d > soon+5*time.Second {
						t.Errorf("ready %v after the list came out", d)
					}
					mu.Lock()
					defer mu.Unlock()
					if len(asked) > most {
						t.Errorf("authorities were asked %d times", len(asked))
					}
					for i := 1; i < len(asked); i++ {
						if d := asked[i].Sub(asked[i-1]); d < period/128 {
							t.Errorf("they were asked again after %v", d)
						}
					}
				})
			})
		}
	}
}
