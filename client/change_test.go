package client

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit"
	"peel/client/path"
)

// Rules that a user changes while the client runs hold for every stream after it, and break none before it.
func TestRulesChangeWhileStreamsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := start(t, newWorld(t, 24), Config{})
		old := mustDial(t, c, "www.example:443")
		var rules path.Rules
		for _, e := range PathOf(old) {
			rules.Exclude.IDs = append(rules.Exclude.IDs, e.ID)
		}
		if err := c.Change(rules); err != nil {
			t.Fatal(err)
		}
		for i := range 40 {
			conn := mustDial(t, c.Isolated(fmt.Sprint(i)), "www.example:443")
			for hop, e := range PathOf(conn) {
				if rules.Exclude.Has(e) {
					t.Errorf("%s is at place %d", e.Nickname, hop+1)
				}
			}
			conn.Close()
		}
		if err := echo(old); err != nil {
			t.Errorf("the stream from before: %v", err)
		}

		var all path.Rules // with which there is no path
		for _, e := range c.Consensus().Entries {
			all.Own = append(all.Own, e.ID)
		}
		refused := c.Change(all)
		conn, err := c.DialContext(t.Context(), "tcp", "www.example:443")
		if err != nil {
			t.Fatalf("after rules that leave no path (%v): %v", refused, err)
		}
		conn.Close()
		if refused == nil {
			t.Error("rules that leave no path were taken")
		}
		if err := c.Change(path.Rules{}); err != nil {
			t.Error(err)
		}
		old.Close()
		time.Sleep(2 * upkeep)
		if err := c.Change(path.Rules{Own: []cell.NodeID{{1}}}); err != nil {
			t.Error(err)
		}
	})
}

// A clock that is years off when rules are changed costs no guard: how old one is counts by the consensus.
func TestRulesChangeWhileTheClockIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off atomic.Int64
		c, _ := start(t, newWorld(t, 24), Config{Now: func() time.Time { return time.Now().Add(time.Duration(off.Load())) }})
		mustDial(t, c, "www.example:443").Close()
		guards := func() (text string) {
			for _, g := range c.Guards() {
				text += g.Nickname + " "
			}
			return text
		}
		before := guards()
		for i, wrong := range []time.Duration{365 * 24 * time.Hour, -20 * 365 * 24 * time.Hour} {
			off.Store(int64(wrong))
			if err := c.Change(path.Rules{Own: []cell.NodeID{{byte(i + 1)}}}); err != nil {
				t.Fatal(err)
			}
			off.Store(0)
			if err := c.Change(path.Rules{}); err != nil {
				t.Fatal(err)
			}
			if after := guards(); after != before {
				t.Errorf("clock %v off: guards %s, before %s", wrong, after, before)
			}
		}
	})
}

// A circuit that is being built for longer than most, and was given up for that, does not come back under rules that it was not made by.
func TestLateBuildIsOfNoUseUnderOtherRules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWorld(t, 24).client(Config{Spare: 1})
		var late path.Path
		next, there, goes := c.pool.build, make(chan struct{}), false
		c.pool.build = func(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
			c.pool.mu.Lock()
			first := goes && late == nil
			if first {
				late = p
			}
			fails := goes && !first
			c.pool.mu.Unlock()
			if fails {
				return nil, &circuit.BuildError{Hop: 2, Err: io.EOF}
			}
			if first {
				<-there
			}
			return next(ctx, p)
		}
		run(t, c)
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		buildsInAMillisecond(c)
		c.pool.mu.Lock()
		for h := range c.pool.circs {
			h.gone = true
		}
		goes = true
		c.pool.mu.Unlock()
		time.Sleep(2*upkeep + 2*leastLimit)
		c.pool.mu.Lock()
		rules := path.Rules{Exclude: path.Relays{IDs: []cell.NodeID{late[1].ID, late[2].ID}}}
		c.pool.mu.Unlock()
		if err := c.Change(rules); err != nil {
			t.Fatal(err)
		}
		close(there)
		time.Sleep(time.Second)
		for _, i := range c.Circuits() {
			t.Errorf("a circuit along %v, which the rules exclude in part", i.Path)
		}
	})
}
