package relay

import (
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/link/linktest"
)

// busyWorkers has all workers of a relay busy until free is called. It is for bubbles.
func busyWorkers(r *Relay) (free func()) {
	time.Sleep(time.Minute) // whoever tests it has been here
	hold := make(chan struct{})
	for i := range runtime.GOMAXPROCS(0) {
		r.enqueue(&job{place: place{owner: owner{of: i}}, do: func() { <-hold }})
	}
	synctest.Wait() // they have them
	return func() { close(hold) }
}

// Where there is no place for a circuit, no key exchange is done for it: this one would fail.
func TestForACircuitWithoutAPlaceNoKeyExchangeIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.MaxCircuits = 1 })
		w.mustOpen(0)
		bad := w.hops[0]
		bad.OnionKey[0] ^= 1
		if _, err := w.open(w.connect(0), bad); err == nil {
			t.Error("it came about")
		}
		if s := w.relays[0].Stats(); s.HandshakesFailed.Load() != 0 || s.Crowded.Load() != 1 {
			t.Errorf("%d key exchanges failed, %d were refused for want of a place", s.HandshakesFailed.Load(), s.Crowded.Load())
		}
	})
}

// Of circuits that come at once, while there still is a place, no more come about than there are places.
func TestCircuitsThatComeAtOnceGetNoMoreThanThePlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.MaxCircuits = 1 })
		r := w.relays[0]
		a, b := w.connect(0), w.connect(0)
		free := busyWorkers(r)
		came := make(chan error)
		go func() { _, err := w.open(a, w.hops[0]); came <- err }()
		go func() { _, err := w.open(b, w.hops[0]); came <- err }()
		synctest.Wait()
		if n := r.handshakes.len(); n != 2 {
			t.Errorf("%d wait for a key exchange", n)
		}
		free()
		if err, other := <-came, <-came; (err == nil) == (other == nil) {
			t.Errorf("one of two was to come about: %v, %v", err, other)
		}
		if n := w.circuits(0); n != 1 {
			t.Errorf("%d circuits, and one may be", n)
		}
	})
}

// A client that has enough key exchanges waiting is refused the next at once, and those that wait keep their places.
func TestWhoHasManyKeyExchangesWaitingKeepsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		r := w.relays[0]
		lc := w.mustConnectFrom(0, caller(1))
		defer busyWorkers(r)()
		o, _, _ := r.cfg.Limits.ownerAt(net.TCPAddrFromAddrPort(caller(1)))
		r.handshakes.mu.Lock()
		r.handshakes.places.most = 4
		r.handshakes.mu.Unlock()
		var lost atomic.Int32
		for range 4 {
			j := &job{do: func() {}, drop: func() {}}
			j.owner, j.lose = o, func() { lost.Add(1) }
			r.enqueue(j)
		}
		before := r.Stats().Crowded.Load()
		came := make(chan error, 1)
		go func() { _, err := w.open(lc, w.hops[0]); came <- err }()
		select {
		case err := <-came:
			if err == nil {
				t.Error("the next came about")
			}
		case <-time.After(time.Second):
			t.Error("the next waits as well")
		}
		if n, crowded := lost.Load(), r.Stats().Crowded.Load()-before; n != 0 || crowded != 1 {
			t.Errorf("%d that waited lost their places, %d were refused", n, crowded)
		}
	})
}

// A connection for which there is no place, as a link or before it is one, is closed before anything is done for it, and takes nobody's.
func TestConnectionsWithoutAPlaceAreNotLetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		time.Sleep(time.Minute) // as above
		r := w.relays[0]
		from := func(i int) *place {
			near, far := linktest.Pipe(linktest.Options{A: caller(i), B: netip.MustParseAddrPort("192.0.2.1:9001")})
			t.Cleanup(func() { near.Close(); far.Close() })
			return r.admitLink(far)
		}
		free := func(links int) {
			r.mu.Lock()
			r.links.most, r.unproved.most = r.links.n+links, 4
			r.mu.Unlock()
		}
		free(0)
		if from(1) != nil {
			t.Error("it is let in though there are as many links as may be")
		}
		free(1)
		all := []*place{from(1), from(1), from(1), from(1)}
		if from(1) != nil {
			t.Error("who has all places gets one more")
		}
		has := func(p *place) bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return p != nil && p.in != nil
		}
		for i, p := range all {
			if !has(p) {
				t.Errorf("connection %d was not let in, or lost its place", i)
			}
		}
		if !has(from(2)) || has(all[0]) {
			t.Error("who has none gets no place, or not the oldest of him who has all")
		}
	})
}
