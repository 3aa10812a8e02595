package relay

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/circuit"
	"peel/circuit/stream"
	"peel/directory/cache"
)

// onlyPassedOn is a network of three relays, of which the last is an exit for circuits that others pass on. Its hosts echo what comes.
func onlyPassedOn(t *testing.T) (w *world, reached func() int) {
	n := 0
	w = newWorld(t, 3, resolves(func(context.Context, string) ([]netip.Addr, error) {
		n++
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}), func(_ int, cfg *Config) {
		cfg.OneHop = false
		cfg.Connect = func(context.Context, string, string) (net.Conn, error) {
			n++
			near, far := linktest.Pipe(linktest.Options{})
			go func() { // until the exit has closed its end
				io.Copy(far, far)
				far.Close()
			}()
			return near, nil
		}
	})
	return w, func() int { synctest.Wait(); return n }
}

// exitBy makes a circuit over a link, along relays.
func (w *world) exitBy(lc *link.Conn, way ...int) *circuit.Circuit {
	w.t.Helper()
	hops := make([]circuit.Hop, len(way))
	for i, p := range way {
		hops[i] = w.hops[p]
	}
	c := w.mustBuildOver(lc, hops)
	w.t.Cleanup(func() { c.Close() })
	return c
}

// as is what makes a link on which a key is proved; nil: none is, as on clients'.
func (w *world) as(key *ecdh.PrivateKey) *link.Config {
	return &link.Config{Network: w.net.Network.ID(), Key: key, ID: cell.NodeID{1}}
}

// mustEcho holds that the circuit leads to the world.
func mustEcho(t *testing.T, what string, c *circuit.Circuit) {
	t.Helper()
	s, err := c.Dial(t.Context(), cell.Begin{Host: "127.0.0.1", Port: 80})
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer s.Close()
	got := make([]byte, 5)
	s.Write([]byte("hello"))
	if _, err := io.ReadFull(s, got); err != nil || string(got) != "hello" {
		t.Errorf("%s: the echo is %q, %v", what, got, err)
	}
	if _, err := c.Resolve(t.Context(), cell.Resolve{Name: "example.com"}); err != nil {
		t.Errorf("%s: a look-up: %v", what, err)
	}
}

// mustStay holds that it does not, and that its last relay's directory is there for it all the same.
func (w *world) mustStay(what string, c *circuit.Circuit) {
	w.t.Helper()
	refused := &stream.EndError{Reason: cell.EndMisc}
	if _, err := c.DialEarly(w.t.Context(), cell.Begin{Host: "127.0.0.1", Port: 80}, []byte("hello")); !errors.Is(err, refused) {
		w.t.Errorf("%s: BEGIN with what goes along: %v", what, err)
	}
	if _, err := c.Dial(w.t.Context(), cell.Begin{Host: "127.0.0.1", Port: 80}); !errors.Is(err, refused) {
		w.t.Errorf("%s: BEGIN: %v", what, err)
	}
	if _, err := c.Resolve(w.t.Context(), cell.Resolve{Name: "example.com"}); !errors.Is(err, refused) {
		w.t.Errorf("%s: RESOLVE: %v", what, err)
	}
	text, err := cache.Get(w.t.Context(), func(ctx context.Context) (net.Conn, error) { return c.DialDir(ctx) }, cache.Path, 1<<20)
	if err != nil || !bytes.Equal(text, w.net.Text) {
		w.t.Errorf("%s: the directory: %d bytes, %v", what, len(text), err)
	}
	if c.Err() != nil {
		w.t.Errorf("%s: the circuit: %v", what, c.Err())
	}
}

// A hostile client that goes straight to an exit gets nowhere by it, with a key of its own or without; one beside it that takes three hops does.
func TestAnExitIsNoProxyOfOneHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, reached := onlyPassedOn(t)
		own := someKeys(t).Link
		for what, key := range map[string]*ecdh.PrivateKey{"a client": nil, "a key of no relay": own, "an authority's key": w.net.Authorities[0].Link} {
			before := reached()
			w.mustStay(what, w.exitBy(w.connectAs(2, w.as(key)), 2))
			if n := reached(); n != before {
				t.Errorf("%s: the exit looked up or connected %d times", what, n-before)
			}
		}
		if s := w.relays[2].Stats(); s.OneHop.Load() != 9 || s.Exits.Load()+s.ExitsFailed.Load() != 0 {
			t.Errorf("%d refused, %d connected, %d failed", s.OneHop.Load(), s.Exits.Load(), s.ExitsFailed.Load())
		}
		mustEcho(t, "three hops", w.exitBy(w.connect(0), 0, 1, 2))
		mustEcho(t, "two hops", w.exitBy(w.connect(1), 1, 2))
		if n := w.relays[2].Stats().OneHop.Load(); n != 9 {
			t.Errorf("honest circuits: %d more were refused", n-9)
		}
	})
}

// Who is a relay is looked up when a stream is asked for: in what the exit knows by then, and in what some client may still go by.
func TestAnExitKnowsWhoPassesCircuitsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := onlyPassedOn(t)
		r := w.relays[2]
		all := r.known.Load()
		far := w.exitBy(w.connect(0), 0, 1, 2)
		alone := w.exitBy(w.connectAs(2, w.as(someKeys(t).Link)), 2)
		client := w.exitBy(w.connect(2), 2)

		// A newer list has no word of the middle relay: the one before may still be in use.
		next := *w.net.Consensus
		next.ValidAfter, next.FreshUntil, next.ValidUntil = next.FreshUntil, next.FreshUntil.Add(next.FreshUntil.Sub(next.ValidAfter)), next.ValidUntil.Add(next.FreshUntil.Sub(next.ValidAfter))
		next.Entries = next.Entries[:0:0]
		for _, e := range w.net.Consensus.Entries {
			if e.ID != w.hops[1].ID {
				next.Entries = append(next.Entries, e)
			}
		}
		r.known.Store(all.with(&next))
		mustEcho(t, "a middle relay of the list before", far)

		// This exit's list is older than the client's, who goes through a relay that is new.
		r.known.Store(new(known).with(&next))
		w.mustStay("a middle relay that the exit does not know yet", far)
		r.known.Store(all)
		mustEcho(t, "when it does", far)

		// It has just been started, and has no list at all: who proved a key may be a relay.
		r.known.Store(new(known))
		mustEcho(t, "without a list, a relay", far)
		mustEcho(t, "without a list, a key", alone)
		w.mustStay("without a list, a client", client)
		r.known.Store(all)
		w.mustStay("with one again, a key", alone)
	})
}

// Whoever asks again and again for what he is refused gets no more answers than this relay likes.
func TestWhoIsRefusedAtOneHopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := onlyPassedOn(t)
		x := w.mustOpen(2)
		for i := range cell.StreamID(2 * refusedOpens) {
			x.send(cell.CmdRelay, 0, begin(i+1, "example.com"))
			if m := x.mustHear(cell.MsgEnd); m.Stream != i+1 || m.Data[0] != byte(cell.EndMisc) {
				t.Errorf("END of stream %d: %v", m.Stream, cell.EndReason(m.Data[0]))
			}
		}
		synctest.Wait()
		r := w.relays[2]
		o := r.all()[0].opens
		o.mu.Lock()
		owed := o.owed
		o.mu.Unlock()
		if owed == 0 {
			t.Error("credit for all of them is back")
		}
	})
}
