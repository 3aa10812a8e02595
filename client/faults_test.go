package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit"
	"peel/client/path"
	"peel/directory"
	"peel/directory/dirtest"
)

func TestWhoIsBlamed(t *testing.T) {
	n := dirtest.New(1, 3)
	p := path.Path{&n.Consensus.Entries[0], &n.Consensus.Entries[1], &n.Consensus.Entries[2]}
	now := time.Now()
	for _, x := range []struct {
		what string
		err  error
		want [3]int
	}{
		{"the first hop", &circuit.BuildError{Hop: 0, Err: io.EOF}, [3]int{1, 0, 0}},
		{"the second", &circuit.BuildError{Hop: 1, Err: io.EOF}, [3]int{1, 1, 0}},
		{"the third", &circuit.BuildError{Hop: 2, Err: io.EOF}, [3]int{0, 1, 1}},
		{"a hop that is not there", &circuit.BuildError{Hop: 9, Err: io.EOF}, [3]int{}},
		{"the probe", errors.New("no answer"), [3]int{0, 0, 1}},
	} {
		f := make(faults)
		f.failed(p, x.err, now)
		for i, e := range p {
			if f[e.ID].level != x.want[i] {
				t.Errorf("%s: hop %d is at level %d, want %d", x.what, i+1, f[e.ID].level, x.want[i])
			}
		}
	}
}

func TestBlameIsForgiven(t *testing.T) {
	f, id, now := make(faults), cell.NodeID{1}, time.Now()
	for range 100 {
		f.blame(id, now)
	}
	if f[id].level != mostBlame-1 {
		t.Errorf("level %d", f[id].level)
	}
	if !f.after(now.Add(-1))(id) || f.after(now)(id) || f.after(now.Add(1))(id) {
		t.Error("what was begun before the fault is not to be trusted, what was begun later is")
	}
	if f.forget(now.Add(avoidFor)); len(f) != 1 {
		t.Error("forgotten too soon")
	}
	if f.forget(now.Add(avoidFor + 1)); len(f) != 0 {
		t.Error("never forgotten")
	}
	f.blame(id, now)
	if f.clear(path.Path{&directory.Entry{ID: id}}); len(f) != 0 {
		t.Error("a circuit through it does not clear it")
	}
}

// Blame orders the relays and forbids none.
func TestLeastBlamedIsChosen(t *testing.T) {
	n := dirtest.New(1, 12)
	r, err := newRelays(n.Consensus, path.Rules{})
	if err != nil {
		t.Fatal(err)
	}
	now, u := dirtest.ValidAfter, path.Usage{Port: 443}
	rng := rand.New(rand.NewPCG(1, 2)).Uint64N
	f := make(faults)
	var exits []*directory.Entry
	for i := range n.Consensus.Entries {
		if e := &n.Consensus.Entries[i]; len(e.Policy) > 0 {
			exits = append(exits, e)
		}
	}
	if len(exits) != 4 {
		t.Fatal(len(exits))
	}
	level := func(e *directory.Entry, n int) {
		for range n {
			f.blame(e.ID, now)
		}
	}
	level(exits[0], 1)
	level(exits[1], 2)
	level(exits[2], 5)
	draw := func() map[cell.NodeID]bool {
		got := make(map[cell.NodeID]bool)
		for range 100 {
			p, err := f.choose(r, u, nil, now, rng)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range p {
				got[e.ID] = true
			}
		}
		return got
	}
	if got := draw(); got[exits[0].ID] || got[exits[1].ID] || got[exits[2].ID] {
		t.Error("one that is blamed was chosen while others would do")
	}
	level(exits[3], 5)
	if got := draw(); !got[exits[0].ID] || got[exits[1].ID] || got[exits[2].ID] || got[exits[3].ID] {
		t.Error("of those blamed not the least blamed was chosen")
	}
	for i := range n.Consensus.Entries {
		level(&n.Consensus.Entries[i], 10)
	}
	if got := draw(); len(got) < 6 {
		t.Error("all are blamed: all alike are to be chosen")
	}
	if p, err := f.choose(r, u, []cell.NodeID{exits[0].ID, exits[1].ID, exits[2].ID}, now, rng); err != nil || p[2] != exits[3] {
		t.Errorf("one exit is left: %v", err)
	}
	if _, err := f.choose(r, path.Usage{Port: 25}, nil, now, rng); !errors.Is(err, path.ErrNoExit) {
		t.Errorf("no exit: %v", err)
	}
	end := n.Consensus.ValidUntil.Add(directory.Grace)
	if _, err := f.choose(r, u, nil, end, rng); err != nil {
		t.Errorf("to the end of the grace: %v", err)
	}
	if _, err := f.choose(r, u, nil, end.Add(1), rng); !errors.Is(err, directory.ErrExpired) {
		t.Errorf("after it: %v", err)
	}
}

// When one's own network was gone for a moment, everybody is blamed; it goes on all the same, and what is begun then
// serves all that wait.
func TestNetworkGoneForAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c, b := start(t, w, Config{})
		w.down.Store(true)
		for _, n := range w.nodes {
			n.restart()
		}
		for range 30 {
			c.DialContext(t.Context(), "tcp", "www.example:443")
		}
		w.down.Store(false)
		before := b.begun.Load()
		for range 10 {
			if err := dialAndEcho(c, "www.example:443"); err != nil {
				t.Fatal(err)
			}
		}
		if _, used := counts(c); used != 1 {
			t.Errorf("%d circuits in use", used)
		}
		if n := b.begun.Load() - before; n > 5 {
			t.Errorf("%d builds", n)
		}
	})
}

// Who took part in a circuit that was built is blamed no more.
func TestCircuitClearsItsRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := start(t, newWorld(t, 12), Config{})
		c.pool.mu.Lock()
		for i := range c.Consensus().Entries {
			c.pool.faults.blame(c.Consensus().Entries[i].ID, time.Now())
		}
		c.pool.mu.Unlock()
		time.Sleep(time.Millisecond)
		conn := mustDial(t, c, "www.example:443")
		defer conn.Close()
		c.pool.mu.Lock()
		defer c.pool.mu.Unlock()
		for _, e := range PathOf(conn) {
			if _, ok := c.pool.faults[e.ID]; ok {
				t.Errorf("%s is blamed", e.Nickname)
			}
		}
		if len(c.pool.faults) == 0 {
			t.Error("nobody is blamed")
		}
	})
}

// Any relay can fail what guards extend to it, as often as it is chosen. That has no stream go on another circuit than it would have: who has many
// relays would get to see more of a client by it.
func TestRelayThatFailsAGuardMovesNoStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := start(t, newWorld(t, 12), Config{})
		ways := map[string]bool{}
		for range 5 {
			conn, err := c.DialContext(t.Context(), "tcp", "www.example:443")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			way := PathOf(conn)
			ways[way.String()] = true
			time.Sleep(time.Second)
			other := slices.IndexFunc(c.Consensus().Entries, func(e directory.Entry) bool {
				return !slices.ContainsFunc(way, func(w *directory.Entry) bool { return w.ID == e.ID })
			})
			c.pool.mu.Lock()
			c.pool.faults.failed(path.Path{way[0], &c.Consensus().Entries[other], way[2]}, &circuit.BuildError{Hop: 1, Err: io.EOF}, time.Now())
			c.pool.mu.Unlock()
		}
		if len(ways) != 1 {
			t.Errorf("streams of one token went on %d circuits: %v", len(ways), ways)
		}
	})
}

func TestRelayThatFailsIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.client(Config{})
		var bad cell.NodeID
		for i := range w.Consensus.Entries {
			if e := &w.Consensus.Entries[i]; len(e.Policy) > 0 {
				bad = e.ID
			}
		}
		var hit atomic.Int32
		next := c.pool.build
		c.pool.build = func(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
			if p[2].ID == bad {
				hit.Add(1)
				return nil, &circuit.BuildError{Hop: 2, Err: io.EOF}
			}
			return next(ctx, p)
		}
		run(t, c)
		for i := range 50 {
			if err := dialAndEcho(c.Isolated(i), "www.example:443"); err != nil {
				t.Fatal(err)
			}
		}
		if hit.Load() > defaultSpare+1 { // those begun before the first had failed
			t.Errorf("it was tried %d times within a minute", hit.Load())
		}
	})
}

// An exit that does not know the middle relay of a circuit (spec/exit.md, section 7) costs that circuit, and nobody his name.
func TestNobodyIsBlamedForAMiddleThatAnExitDoesNotKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		for i := range 40 { // of which counts would say something
			w.refusals.Store(dialAttempts - 1)
			mustDial(t, c.Isolated(i), fmt.Sprintf("fickle-%d.example:443", cell.EndMisc)).Close()
			time.Sleep(time.Second)
		}
		if n := len(w.asked()); n < 40*dialAttempts {
			t.Errorf("%d circuits were asked: nobody refused", n)
		}
		c.pool.mu.Lock()
		blamed := len(c.pool.faults)
		c.pool.mu.Unlock()
		if g := c.Guards()[0]; blamed > 0 || !g.Up || g.Left || g.Counts.Built < g.Counts.Tried || g.Counts.Carried < g.Counts.Used {
			t.Errorf("%d relays are blamed, and of the guard is thought %+v", blamed, g.Info)
		}
	})
}
