package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

// Relays ask in the first quarter of the period after fresh-until, clients in the rest of it: evenly.
func TestMomentsOfAskingAreSpread(t *testing.T) {
	h := dirtest.New(1, 3).Consensus.Header
	rng := rand.New(rand.NewPCG(1, 2)).Uint64N
	for _, client := range []bool{false, true} {
		var quarters [4]int
		const n = 4000
		for range n {
			after := When(&h, client, h.ValidAfter, rng).Sub(h.FreshUntil)
			if after < 0 || after >= time.Hour {
				t.Fatalf("client %v: %v after it ceased to be fresh", client, after)
			}
			quarters[after/(15*time.Minute)]++
		}
		want := []int{n, 0, 0, 0}
		if client {
			want = []int{0, n / 3, n / 3, n / 3}
		}
		for i := range quarters {
			if d := quarters[i] - want[i]; d < -150 || d > 150 {
				t.Errorf("client %v: %v in the four quarters", client, quarters)
				break
			}
		}
	}
	late := h.FreshUntil.Add(time.Minute)
	if got := When(&h, true, late, rng); !got.Equal(late) {
		t.Errorf("what is due already is put off by %v", got.Sub(late))
	}
	tiny := h
	tiny.FreshUntil = tiny.ValidAfter.Add(1)
	if got := When(&tiny, false, tiny.ValidAfter, rng); got.Before(tiny.FreshUntil) {
		t.Error("before it has ceased to be fresh")
	}
}

func TestWhoseTurnItIs(t *testing.T) {
	failed, stale := errors.New("no way"), error(nil)
	for _, c := range []struct {
		name                 string
		usable, live, client bool
		before               []error // what came of relays asked before
		want                 bool
	}{
		{"nothing in hand", false, false, true, nil, true},
		{"a relay first", true, true, true, nil, false},
		{"two relays failed", true, true, true, []error{failed, failed}, false},
		{"three relays failed", true, true, true, []error{failed, failed, failed}, true},
		{"a client is told that there is nothing newer", true, true, true, []error{stale, stale, stale, stale, stale}, false},
		{"a relay is told so", true, true, false, []error{stale, stale, stale}, true},
		{"an older one is no better", true, true, false, []error{ErrOld, ErrOld, ErrOld}, true},
		{"expired, and a relay failed", true, false, true, []error{failed}, true},
		{"expired, and a relay has nothing newer", true, false, true, []error{stale}, true},
	} {
		var turn turns
		for i, err := range c.before {
			id := cell.NodeID{byte(i + 1)}
			turn.avoid(id)
			turn.note(false, id, false, err)
		}
		if got := turn.authority(c.usable, c.live, c.client); got != c.want {
			t.Errorf("%s: authority %v", c.name, got)
		}
		if len(turn.not) != len(c.before) {
			t.Errorf("%s: %d relays are remembered", c.name, len(turn.not))
		}
		turn.note(true, cell.NodeID{}, false, stale)
		if c.usable && turn.authority(c.usable, c.live, c.client) {
			t.Errorf("%s: an authority is asked twice in a row", c.name)
		}
	}
	var turn turns
	for i := range 10 * maxNot {
		turn.avoid(cell.NodeID{byte(i), byte(i >> 8), 1})
	}
	if len(turn.not) > maxNot {
		t.Errorf("%d relays are remembered", len(turn.not))
	}
	for i, longest := range map[int]time.Duration{1: 100 * time.Millisecond, 3: 400 * time.Millisecond, 100: 30 * time.Second} {
		turn := turns{asked: i}
		if got := turn.pause(time.Hour, true, func(n uint64) uint64 { return n - 1 }); got < longest/2 || got > longest {
			t.Errorf("after %d attempts: %v", i, got)
		}
	}
	waits := turns{asked: 20, stale: 20}
	if got := waits.pause(time.Hour, true, func(n uint64) uint64 { return 0 }); got != time.Hour/16 {
		t.Errorf("when nothing newer is out: %v", got)
	}
}

func TestPickDrawsByBandwidth(t *testing.T) {
	c := dirtest.New(1, 4, dirtest.Entries(func(i int, e *directory.Entry) {
		e.Bandwidth = uint64(i) * 1000
		if i == 3 {
			e.Flags &^= directory.Running
		}
	})).Consensus
	rng := rand.New(rand.NewPCG(3, 4)).Uint64N
	none := func(cell.NodeID) bool { return false }
	drawn := map[uint64]int{}
	for range 3000 {
		drawn[Pick(c, none, rng).Bandwidth]++
	}
	if drawn[0] > 10 || drawn[3000] > 0 || drawn[1000] < 900 || drawn[1000] > 1100 {
		t.Errorf("drawn by bandwidth: %v", drawn)
	}
	if e := Pick(c, func(cell.NodeID) bool { return true }, rng); e != nil {
		t.Error("one to be avoided is drawn")
	}
}

// A crowd is an authority, relays that follow it and each other, and clients.
type crowd struct {
	t      *testing.T
	h      *history
	auth   *Cache
	relays map[cell.NodeID]*Cache
	odd    map[cell.NodeID]Dial // relays that do not behave

	authAsked, relayAsked atomic.Int64
	byClients             atomic.Int64 // of the authority
}

func newCrowd(t *testing.T, relays, periods int) *crowd {
	c := &crowd{t: t, h: newHistory(t, relays, periods, time.Now()), relays: map[cell.NodeID]*Cache{}, odd: map[cell.NodeID]Dial{}}
	c.auth = serving(t, c.h.Net, "")
	for _, period := range c.h.all { // those too that join later
		for i := range period.Entries {
			if id := period.Entries[i].ID; c.relays[id] == nil {
				c.relays[id] = serving(t, c.h.Net, "")
			}
		}
	}
	return c
}

// sources are those of a relay or a client.
func (c *crowd) sources(self *Cache, id cell.NodeID, client bool) Sources {
	return Sources{
		Client: client,
		Authority: func(ctx context.Context) (net.Conn, error) {
			c.authAsked.Add(1)
			if client {
				c.byClients.Add(1)
			}
			return to(c.auth)(ctx)
		},
		Relay: func(ctx context.Context, not []cell.NodeID) (net.Conn, cell.NodeID, error) {
			e := Pick(self.Consensus(), func(n cell.NodeID) bool { return n == id || slices.Contains(not, n) }, rand.Uint64N)
			if e == nil {
				return nil, cell.NodeID{}, errors.New("nobody is left")
			}
			c.relayAsked.Add(1)
			if dial := c.odd[e.ID]; dial != nil {
				nc, err := dial(ctx)
				return nc, e.ID, err
			}
			r := c.relays[e.ID]
			if r == nil {
				return nil, e.ID, errors.New("it is gone")
			}
			nc, err := to(r)(ctx)
			return nc, e.ID, err
		},
	}
}

// follow runs one until the end of the test.
func (c *crowd) follow(wg *sync.WaitGroup, ctx context.Context, self *Cache, from Sources, got func(*directory.Consensus)) {
	wg.Go(func() { self.Follow(ctx, from, got, nil) })
}

func TestACrowdSparesTheAuthorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const relays, clients, periods = 8, 20, 3
		c := newCrowd(t, relays, periods)
		c.h.put(t, c.auth, 0, 1)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for id, r := range c.relays {
			c.follow(&wg, ctx, r, c.sources(r, id, false), nil)
		}
		late := make(map[time.Duration]int) // quarters of a period after it began to hold
		var mu sync.Mutex
		all := make([]*Cache, clients)
		for i := range all {
			all[i] = open(t, c.h.Net, "")
			c.follow(&wg, ctx, all[i], c.sources(all[i], cell.NodeID{}, true), func(d *directory.Consensus) {
				mu.Lock()
				defer mu.Unlock()
				late[time.Since(d.ValidAfter)/(15*time.Minute)]++
			})
		}
		time.Sleep(30 * time.Minute)
		if n := c.authAsked.Load(); n != int64(len(c.relays)+clients) {
			t.Errorf("%d requests for the first consensus", n)
		}
		mu.Lock()
		clear(late)
		mu.Unlock()
		c.authAsked.Store(0)
		c.byClients.Store(0)
		time.Sleep(30 * time.Minute)
		for i := 1; i < periods; i++ {
			c.h.put(t, c.auth, i, i+1)
			time.Sleep(time.Hour)
			for j, k := range all {
				if !k.Consensus().ValidAfter.Equal(c.h.all[i].ValidAfter) {
					t.Errorf("client %d has a consensus of %v in period %d", j, k.Consensus().ValidAfter, i)
				}
			}
		}
		if n := c.byClients.Load(); n != 0 {
			t.Errorf("clients asked authorities %d times", n)
		}
		if n := c.authAsked.Load(); n == 0 || n > int64(len(c.relays)*(periods-1)) {
			t.Errorf("relays asked authorities %d times", n)
		}
		mu.Lock()
		if late[0] != 0 || late[1] == 0 || late[2] == 0 || late[3] == 0 {
			t.Errorf("clients have it in these quarters: %v", late)
		}
		mu.Unlock()
		// Nothing newer comes: relays look for it now and then, clients wait for them.
		c.authAsked.Store(0)
		c.relayAsked.Store(0)
		time.Sleep(2 * time.Hour)
		if n := c.byClients.Load(); n != 0 {
			t.Errorf("clients asked authorities %d times for what is not out", n)
		}
		if a, r := c.authAsked.Load(), c.relayAsked.Load(); a > int64(20*len(c.relays)) || r > int64(60*(len(c.relays)+clients)) {
			t.Errorf("in two hours without news %d requests to the authority, %d to relays", a, r)
		}
		cancel()
		wg.Wait()
	})
}

// A relay that lies, is stale, stalls or is slow costs a bounded time, and another is asked.
func TestABadRelayCostsABoundedTime(t *testing.T) {
	head := "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
	for name, c := range map[string]struct {
		dial func(*crowd) Dial
		most time.Duration // that it costs, with the pause after it
	}{
		"cannot be reached": {func(*crowd) Dial {
			return func(context.Context) (net.Conn, error) { return nil, errors.New("refused") }
		}, time.Second},
		"hangs up": {func(*crowd) Dial { return raw(func(net.Conn) {}) }, time.Second},
		"talks rubbish": {func(*crowd) Dial {
			return raw(func(nc net.Conn) { go io.Copy(io.Discard, nc); io.WriteString(nc, "rubbish\r\n\r\n") })
		}, time.Second},
		"forges": {func(c *crowd) Dial {
			forged := *c.h.all[1]
			forged.Entries = slices.Clone(forged.Entries)
			forged.Entries[2].Bandwidth += 7
			text := forged.Append(nil)
			return to(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(text) }))
		}, time.Second},
		"has too few signatures": {func(c *crowd) Dial {
			few := *c.h.all[1]
			few.Signatures = few.Signatures[:3]
			text := few.Append(nil)
			return to(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(text) }))
		}, time.Second},
		"stalls": {func(*crowd) Dial { return raw(func(nc net.Conn) { io.Copy(io.Discard, nc) }) }, Stall + time.Second},
		"stalls in the middle": {func(*crowd) Dial {
			return raw(func(nc net.Conn) { go io.WriteString(nc, head+"peel"); io.Copy(io.Discard, nc) })
		}, Stall + time.Second},
		"is slow": {func(*crowd) Dial {
			return raw(func(nc net.Conn) {
				go io.Copy(io.Discard, nc)
				for _, err := io.WriteString(nc, head); err == nil; _, err = io.WriteString(nc, "x") {
					time.Sleep(time.Second)
				}
			})
		}, Timeout + time.Second},
		"is stale": {func(c *crowd) Dial {
			old := serving(c.t, c.h.Net, "")
			c.h.put(c.t, old, 0, 1)
			return to(old)
		}, time.Hour / 16},
		"has an older one": {func(c *crowd) Dial {
			text := next(c.h.Net, -1)
			return to(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(text) }))
		}, time.Hour / 16},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cr := newCrowd(t, 6, 2)
				for _, r := range cr.relays {
					cr.h.put(t, r, 0, 2)
				}
				client := open(t, cr.h.Net, "")
				cr.h.put(t, client, 0, 1)
				time.Sleep(time.Hour)
				bad := cr.h.all[0].Entries[0].ID
				cr.odd[bad] = c.dial(cr)
				from := cr.sources(client, cell.NodeID{}, true)
				first := true
				good := from.Relay
				from.Relay = func(ctx context.Context, not []cell.NodeID) (net.Conn, cell.NodeID, error) {
					if first {
						first = false
						nc, err := cr.odd[bad](ctx)
						return nc, bad, err
					}
					if !slices.Contains(not, bad) {
						t.Error("the bad one may be asked again")
					}
					return good(ctx, not)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				begun, took := time.Now(), make(chan time.Duration, 1)
				var wg sync.WaitGroup
				cr.follow(&wg, ctx, client, from, func(d *directory.Consensus) {
					if d.ValidAfter.Equal(cr.h.all[1].ValidAfter) {
						took <- time.Since(begun)
					}
				})
				if d := <-took; d > c.most {
					t.Errorf("it cost %v", d)
				}
				if n := cr.authAsked.Load(); n != 0 {
					t.Errorf("authorities were asked %d times", n)
				}
				cancel()
				wg.Wait()
				time.Sleep(2 * time.Minute) // what serves ends
			})
		})
	}
}

// When all relays are gone, a client comes to an authority, and says nothing wrong meanwhile.
func TestAuthoritiesAreTheLastResort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 6, 2)
		clear(c.relays)
		c.h.put(t, c.auth, 0, 2)
		client := open(t, c.h.Net, "")
		c.h.put(t, client, 0, 1)
		time.Sleep(time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var got []string
		c.follow(&wg, ctx, client, c.sources(client, cell.NodeID{}, true), func(d *directory.Consensus) {
			got = append(got, fmt.Sprintf("%d after %d relays and %d authorities", d.ValidAfter.Sub(c.h.all[0].ValidAfter)/time.Hour, c.relayAsked.Load(), c.authAsked.Load()))
		})
		time.Sleep(10 * time.Second)
		cancel()
		wg.Wait()
		if want := "[0 after 0 relays and 0 authorities 1 after 3 relays and 1 authorities]"; fmt.Sprint(got) != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// The first list of a network may name few relays, and one of these have an older one: it can neither say what has changed nor is anybody
// left to ask for the whole. Somebody has to ask an authority all the same.
func TestFewRelaysDoNotKeepTheNextFromEachOther(t *testing.T) {
	for _, client := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(t, 2, 3)
			id := c.h.all[0].Entries[0].ID
			self, other := c.relays[id], c.relays[c.h.all[0].Entries[1].ID]
			c.h.put(t, other, 0, 1)
			c.h.put(t, self, 0, 2)
			c.h.put(t, c.auth, 0, 3)
			if client {
				c.relays[id] = other
			}
			time.Sleep(time.Until(c.h.all[1].FreshUntil))
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Hour)
			defer cancel()
			var took time.Duration
			start, most := time.Now(), 30*time.Minute
			if client { // who turns to authorities only when what he has has expired
				most += time.Until(c.h.all[1].ValidUntil)
			}
			self.Follow(ctx, c.sources(self, id, client), func(d *directory.Consensus) {
				if d.ValidAfter.Equal(c.h.all[2].ValidAfter) {
					took = time.Since(start)
					cancel()
				}
			}, nil)
			if took == 0 || took > most || c.authAsked.Load() > 2 {
				t.Errorf("client %v: the next list came after %v, %d streams to an authority and %d to relays", client, took, c.authAsked.Load(), c.relayAsked.Load())
			}
		})
	}
}

// Who has no way to any relay asks authorities, and no more often than who has no consensus.
func TestWhoIsAloneAsksAuthorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory(t, 3, 1, time.Now())
		asked := func(has, alone bool) (n int) {
			c := open(t, h.Net, "")
			if has {
				h.put(t, c, 0, 1)
				time.Sleep(time.Until(h.all[0].FreshUntil))
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			c.Follow(ctx, Sources{
				Client:    true,
				Authority: func(context.Context) (net.Conn, error) { n++; return nil, errors.New("cut off") },
				Relay: func(context.Context, []cell.NodeID) (net.Conn, cell.NodeID, error) {
					t.Error("a relay is asked")
					return nil, cell.NodeID{}, ErrNone
				},
				Alone: func() bool { return alone },
			}, nil, nil)
			return n
		}
		none, alone := asked(false, false), asked(true, true)
		if alone < 120 || alone > none+60 {
			t.Errorf("asked %d times in an hour; %d without a consensus", alone, none)
		}
	})
}
