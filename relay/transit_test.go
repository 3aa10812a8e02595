package relay

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"peel/cell"
	"peel/cell/hybrid"
	"peel/cell/link"
)

// What a client may not send to a circuit of two hops; each ends the circuit and nothing else.
func TestBreachesEndTheCircuitAlone(t *testing.T) {
	for name, do := range map[string]func(x *raw){
		"a cell that nobody can read": func(x *raw) { x.sendBody(cell.CmdRelay, -1, [1]cell.Cell{}) },
		"a ninth RELAY_EARLY": func(x *raw) {
			for range 7 { // one was for EXTEND
				x.send(cell.CmdRelayEarly, 1, cell.Message{Type: cell.MsgRekey})
				x.mustHear(cell.MsgRekey)
			}
			x.send(cell.CmdRelayEarly, 1, cell.Message{Type: cell.MsgRekey})
		},
		"a stream at a hop that is not the last": func(x *raw) {
			x.send(cell.CmdRelay, 0, cell.Message{Type: cell.MsgBeginDir, Stream: 1})
		},
		"a message that does not parse": func(x *raw) {
			var c [1]cell.Cell
			c[0].Body()[cell.TagSize] = 99
			x.sendBody(cell.CmdRelay, 1, c)
		},
		"a message that only relays send": func(x *raw) {
			x.send(cell.CmdRelay, 1, cell.Message{Type: cell.MsgExtended, Data: make([]byte, hybrid.ReplyOverhead)})
		},
		"data of no stream": func(x *raw) {
			x.send(cell.CmdRelay, 1, cell.Message{Type: cell.MsgData, Stream: 7, Data: []byte("x")})
		},
		"the same stream twice": func(x *raw) {
			for range 2 {
				x.send(cell.CmdRelay, 1, cell.Message{Type: cell.MsgBeginDir, Stream: 7})
			}
			x.mustEnd(cell.MsgConnected)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2)
				x, other := w.far(0, 1), w.far(0, 1)
				do(x)
				x.mustEnd()
				synctest.Wait()
				if a, b := w.circuits(0), w.circuits(1); a != 1 || b != 1 {
					t.Errorf("%d and %d circuits are left, and not the other one alone", a, b)
				}
				if n := w.relays[0].Stats().Breaches.Load() + w.relays[1].Stats().Breaches.Load(); n != 1 {
					t.Errorf("%d breaches were counted, and not one", n)
				}
				other.mustGoOn()
			})
		})
	}
}

// What a neighbour may not send ends its link, and the circuits on that; those on other links go on.
func TestBreachOfALinkLeavesTheOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		other, x := w.far(0, 1), w.far(0, 1) // each has a link of its own to the first relay
		before := w.circuits(0)
		pipes := w.pipes[w.hops[0].Addrs[0].String()]
		pipes[len(pipes)-1].Write([]byte{0, 5, 1, 2, 3, 4, 5}) // a record that is no whole number of cells
		<-x.circ.Conn().Done()
		synctest.Wait()
		if a := w.circuits(0); before != 2 || a != 1 {
			t.Errorf("%d circuits before, %d after: want 2, and 1", before, a)
		}
		other.mustGoOn()
	})
}

func TestRekeyIsAnsweredByEveryHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newWorld(t, 2).far(0, 1)
		for range 100 {
			for hop := range 2 {
				x.send(cell.CmdRelay, hop, cell.Message{Type: cell.MsgRekey})
				x.mustHear(cell.MsgRekey)
			}
		}
	})
}

// Cells that come together are peeled together, and each still finds its relay: also behind one that moved that relay's
// keys, and beside early ones, which have another command.
func TestCellsOfOneRunForSeveralRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newWorld(t, 2).far(0, 1)
		kinds := []struct {
			cmd cell.Command
			hop int
		}{
			{cell.CmdRelay, 1}, {cell.CmdRelay, 1}, {cell.CmdRelay, 0}, {cell.CmdRelay, 0}, {cell.CmdRelayEarly, 1},
			{cell.CmdRelayEarly, 0}, {cell.CmdRelay, 1}, {cell.CmdRelayEarly, 1}, {cell.CmdRelay, 0}, {cell.CmdRelay, 1},
		}
		run := make([]cell.Cell, len(kinds))
		x.mu.Lock()
		for i, kind := range kinds {
			run[i].SetCommand(kind.cmd)
			cell.FinishMessage(run[i].Body(), cell.MsgRekey, 0, 0)
			x.seal(&run[i], kind.hop)
		}
		err := x.circ.Send(run)
		x.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		for range kinds {
			x.mustHear(cell.MsgRekey)
		}
		x.mustGoOn()
	})
}

// stuck is a circuit whose client has given no credit for what comes back, and takes nothing.
func stuck(w *world) *raw {
	x, err := w.open(w.connectAs(0, &link.Config{Network: w.net.Network.ID(), Credit: 1}), w.hops[0])
	if err != nil {
		w.t.Fatal(err)
	}
	x.mu.Lock()
	x.hold = true
	x.mu.Unlock()
	x.mustGoOn() // its answer takes all the credit there is
	return x
}

func TestAnswersThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a, b := stuck(w), stuck(w)
		for _, x := range []*raw{a, b} {
			for range mostRekeys {
				x.send(cell.CmdRelay, 0, cell.Message{Type: cell.MsgRekey})
			}
		}
		a.extendTo(w.hops[1])
		synctest.Wait()
		a.mu.Lock()
		a.hold = false
		a.mu.Unlock()
		a.circ.Taken(1) // the client begins to take: all that waited comes
		a.mustHear(cell.MsgExtended)
		for range mostRekeys {
			a.mustHear(cell.MsgRekey)
		}
		b.send(cell.CmdRelay, 0, cell.Message{Type: cell.MsgRekey})
		b.mustEnd()
	})
}

// evil is a last relay that anybody extends to: it answers CREATE with something, and does as its test wants.
type evil struct {
	made chan *link.Circ
	told chan cell.DestroyReason
}

func newEvil() *evil {
	return &evil{make(chan *link.Circ, 10), make(chan cell.DestroyReason, 10)}
}

func (e *evil) Create(c *link.Circ, _ cell.Create) {
	c.Attach(e)
	c.Reply(make([]byte, hybrid.ReplyOverhead))
	e.made <- c
}

func (e *evil) Created([]byte)              {}
func (e *evil) Receive([]cell.Cell)         {}
func (e *evil) Room()                       {}
func (e *evil) Closed(r cell.DestroyReason) { e.told <- r }

// withEvilLast is a world of three relays, of which the last is evil, and a circuit through them.
func withEvilLast(t *testing.T) (*world, *evil, *raw) {
	w, e := newWorld(t, 3), newEvil()
	w.replace(2, e)
	x := w.far(0, 1)
	x.extendTo(w.hops[2])
	x.mustHear(cell.MsgExtended)
	return w, e, x
}

func TestEarlyCellsTowardsTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, e, x := withEvilLast(t)
		var c [1]cell.Cell
		c[0].SetCommand(cell.CmdRelayEarly)
		if err := (<-e.made).Send(c[:]); err != nil {
			t.Fatal(err)
		}
		x.mustEnd()
		if why := <-e.told; why != cell.DestroyNone {
			t.Errorf("the last relay was told %v", why)
		}
	})
}

func TestDestroyGoesBothWaysWithoutAReason(t *testing.T) {
	for name, end := range map[string]func(w *world, x *raw, last *link.Circ){
		"by the client":     func(_ *world, x *raw, _ *link.Circ) { x.circ.Close(cell.DestroyFinished) },
		"by the last":       func(_ *world, _ *raw, last *link.Circ) { last.Close(cell.DestroyHibernating) },
		"by a lost link":    func(w *world, _ *raw, _ *link.Circ) { w.cut(1) },
		"by a relay's end":  func(w *world, _ *raw, _ *link.Circ) { w.stop[1]() },
		"by the last's end": func(w *world, _ *raw, last *link.Circ) { last.Conn().Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, e, x := withEvilLast(t)
				end(w, x, <-e.made)
				if name != "by the client" {
					x.mustEnd()
				}
				if name != "by the last" {
					// Its own link may be what was lost.
					if why := <-e.told; why != cell.DestroyNone && why != cell.DestroyLinkClosed {
						t.Errorf("the last relay was told %v", why)
					}
				}
				synctest.Wait()
				for i := range 2 {
					if n := w.circuits(i); n != 0 {
						t.Errorf("relay %d keeps %d circuits", i, n)
					}
				}
			})
		})
	}
}

func TestAPanicEndsWhatCausedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var once sync.Once
		w := newWorld(t, 2, func(i int, cfg *Config) {
			cfg.Heard = func(_ net.Addr, m cell.Message) {
				if m.Type == cell.MsgBeginDir {
					once.Do(func() { panic("a bug") })
				}
			}
		})
		x, other := w.far(0, 1), w.far(0, 1)
		x.send(cell.CmdRelay, 1, cell.Message{Type: cell.MsgBeginDir, Stream: 1})
		x.mustEnd()
		other.send(cell.CmdRelay, 1, cell.Message{Type: cell.MsgBeginDir, Stream: 1})
		other.mustHear(cell.MsgConnected)
		if n := w.relays[1].Stats().Panics.Load(); n != 1 {
			t.Errorf("%d panics were counted", n)
		}
	})
}

func TestCellsAreCountedWhereTheyPassAndWhereTheyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		x := w.far(0, 1)
		synctest.Wait()
		before := [2]uint64{w.relays[0].Stats().Cells.Load(), w.relays[1].Stats().Cells.Load()}
		for range 10 {
			x.send(cell.CmdRelay, 1, cell.Message{Type: cell.MsgRekey})
			x.mustHear(cell.MsgRekey)
		}
		synctest.Wait()
		for i, r := range w.relays[:2] {
			if n := r.Stats().Cells.Load() - before[i]; n != 20 {
				t.Errorf("relay %d counted %d cells for 10 each way", i, n)
			}
		}
	})
}
