package relay

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
)

// goroutines are those that work for relays, or their web servers.
func goroutines() (all []string) {
	b := make([]byte, 1<<20)
	for _, g := range strings.Split(string(b[:runtime.Stack(b, true)]), "\n\n") {
		for _, of := range []string{"relay.(*Relay)", "relay.(*transit)", "contain.AtEnd", "link.(*Conn).Serve", "link.(*Pool)", "http.(*conn)"} {
			if strings.Contains(g, of) && !strings.Contains(g, "testing.tRunner") {
				all = append(all, g)
				break
			}
		}
	}
	return all
}

func TestNothingIsLeftBehindRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := len(goroutines())
		w := newWorld(t, 3)
		c := w.mustBuild(0, 1)
		if _, err := c.DialDir(t.Context()); err != nil { // open and silent
			t.Fatal(err)
		}
		w.replace(2, new(mute))
		x := w.far(0, 1)
		x.extendTo(w.hops[2]) // under way
		x.mustGoOn()
		if len(goroutines()) < before+10 {
			t.Error("this test does not see goroutines")
		}
		began := time.Now()
		for _, stop := range w.stop {
			stop()
		}
		// Those of the client's own links go with the test.
		synctest.Wait()
		for _, g := range goroutines() {
			if strings.Contains(g, "relay.(*") || strings.Contains(g, "contain.AtEnd") || strings.Contains(g, "http.(*conn)") {
				t.Errorf("left behind:\n%s", g)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the end took %v", took)
		}
		for i, r := range w.relays {
			if n := w.circuits(i); n != 0 || r.streams.n != 0 || r.extensions.n != 0 || r.pool.Links() != 0 {
				t.Errorf("relay %d: %d circuits, %d streams, %d extensions and %d links are left",
					i, n, r.streams.n, r.extensions.n, r.pool.Links())
			}
		}
		if c.Err() == nil || !strings.Contains(c.Err().Error(), "link") {
			t.Errorf("the client hears %v", c.Err())
		}
	})
}

// A program calls Run again, while a relay runs and when it has ended: it is told, and the relay goes on as if it had not.
func TestARelayRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		for i, r := range w.relays {
			if err := r.Run(t.Context()); !errors.Is(err, errRan) {
				t.Errorf("relay %d ran again: %v", i, err)
			}
		}
		c := w.mustBuild(0, 1)
		if _, err := c.DialDir(t.Context()); err != nil {
			t.Error(err)
		}
		for i, r := range w.relays {
			w.stop[i]()
			if err := r.Run(t.Context()); !errors.Is(err, errRan) || r.Stats().Panics.Load() > 0 {
				t.Errorf("relay %d ran after its end: %v, and %d panics", i, err, r.Stats().Panics.Load())
			}
		}
		n := &Authority{relay: w.relays[w.authority()]}
		if err := n.Run(t.Context()); !errors.Is(err, errRan) {
			t.Errorf("an authority ran again: %v", err)
		}
	})
}

func TestTooManyLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.MaxLinks = 2 })
		lc := w.connect(0) // the other is to the authority
		synctest.Wait()
		refused := w.relays[0].Stats().LinksRefused.Load() // an authority that was to try may have been one
		h := w.hops[0]
		nc, err := w.dial(t.Context(), "tcp", h.Addrs[0].String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Read(make([]byte, 1)); err == nil {
			t.Error("a third link began")
		}
		if n := w.relays[0].Stats().LinksRefused.Load() - refused; n != 1 {
			t.Errorf("%d refused links were counted", n)
		}
		if _, err := w.buildOver(t.Context(), lc, w.hops[:1]); err != nil {
			t.Errorf("the links there are: %v", err)
		}
	})
}

func TestCallersWhoAreNoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		for _, says := range []string{"", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\x11", 4000)} {
			nc, err := w.dial(t.Context(), "tcp", w.hops[0].Addrs[0].String())
			if err != nil {
				t.Fatal(err)
			}
			nc.Write([]byte(says))
			if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("%q was answered", says[:min(len(says), 10)])
			}
		}
		synctest.Wait() // the caller hears of it before it is counted
		if n := w.relays[0].Stats().LinksRefused.Load(); n != 3 {
			t.Errorf("%d refused links were counted", n)
		}
		w.mustBuild(0)
	})
}

// A relay that has the next consensus is enough for all: the others get it from there.
func TestRelaysHandEachOtherTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		next, text := w.net.Churn(2, w.net.Consensus, 1e-9)
		time.Sleep(59 * time.Minute)
		if changed, err := w.relays[0].cache.Put(text, time.Now()); !changed || err != nil {
			t.Fatal(changed, err)
		}
		time.Sleep(time.Hour)
		for i, r := range w.relays[:4] {
			if c := r.cache.Consensus(); c.Header.Digest() != next.Header.Digest() {
				t.Errorf("relay %d still has that of %v", i, c.ValidAfter)
			}
		}
	})
}

func TestDescriptorsArePublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		time.Sleep(time.Second)
		w.mu.Lock()
		first := w.posted
		w.mu.Unlock()
		time.Sleep(time.Hour)
		w.mu.Lock()
		defer w.mu.Unlock()
		if first != 1 || w.posted < 2 || w.posted > 3 {
			t.Errorf("a relay published %d times at once, and %d times in a period", first, w.posted)
		}
	})
}

// All authorities are sent the same descriptor, whenever each takes it: what they vote for would have too few votes else.
func TestAllAuthoritiesGetTheSameDescriptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWorld(t, 1).relays[0]
		synctest.Wait() // it knows what to announce
		current := func(refused *described) *described {
			d, err := r.current(time.Now(), refused)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		first := current(nil)
		time.Sleep(29 * time.Minute)
		if again := current(nil); again != first {
			t.Error("another authority gets another one, half a period later")
		}
		other := current(first)
		if other == first || bytes.Equal(other.text, first.text) {
			t.Error("what is known as outdated is sent again")
		}
		if again := current(first); again != other {
			t.Error("each authority that knows a newer one gets one of its own")
		}
		time.Sleep(time.Hour)
		if current(nil) == other {
			t.Error("the descriptor is never made anew")
		}
	})
}

func TestAnAuthorityThatCannotBeReachedIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		time.Sleep(time.Second) // the first descriptor is through
		addr := w.hops[w.authority()].Addrs[0].String()
		w.cut(w.authority())
		w.mu.Lock()
		l := w.listeners[addr]
		delete(w.listeners, addr)
		before := w.posted
		w.mu.Unlock()
		time.Sleep(30 * time.Minute)
		w.mu.Lock()
		if w.posted != before {
			t.Error("this authority can be reached")
		}
		w.listeners[addr] = l
		w.mu.Unlock()
		time.Sleep(time.Hour)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.posted == before {
			t.Error("the relay gave up")
		}
	})
}

func TestTheEndOfACircuitComesOnce(t *testing.T) {
	for range 5 { // by client, last relay and the relay's own end, all at once
		synctest.Test(t, func(t *testing.T) {
			w, e, x := withEvilLast(t)
			last := <-e.made
			go last.Close(cell.DestroyNone)
			go x.circ.Close(cell.DestroyNone)
			for range 20 {
				go x.sendBody(cell.CmdRelay, -1, [1]cell.Cell{})
			}
			go w.stop[1]()
			synctest.Wait()
			if a, b := w.circuits(0), w.circuits(1); a != 0 || b != 0 {
				t.Errorf("%d and %d circuits are left", a, b)
			}
		})
	}
}
