package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/circuit"
)

func TestCircuitsThroughSeveralRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		for _, path := range [][]int{{0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 0}} {
			c := w.mustBuild(path...)
			s, err := c.DialDir(t.Context())
			if err != nil {
				t.Fatalf("%v: %v", path, err)
			}
			s.Close()
			c.Close()
		}
		synctest.Wait()
		for i := range 3 {
			if n := w.circuits(i); n != 0 {
				t.Errorf("relay %d keeps %d circuits", i, n)
			}
		}
	})
}

func TestExtendsThatEndTheCircuit(t *testing.T) {
	foreign := netip.MustParseAddrPort("198.51.100.7:9001")
	for name, do := range map[string]func(w *world, x *raw){
		"in a RELAY cell": func(w *world, x *raw) {
			_, e := x.extension(w.hops[2])
			x.send(cell.CmdRelay, 1, cell.Message{Type: cell.MsgExtend, Data: e.Append(nil)})
		},
		"to itself": func(w *world, x *raw) { x.extendTo(w.hops[1]) },
		"back":      func(w *world, x *raw) { x.extendTo(w.hops[0]) },
		"to nobody": func(w *world, x *raw) {
			h := w.hops[2]
			h.ID[3] ^= 1
			x.extendTo(h)
		},
		"to an authority": func(w *world, x *raw) { x.extendTo(w.hops[w.authority()]) },
		"to addresses of somebody else": func(w *world, x *raw) {
			h := w.hops[2]
			h.Addrs = []netip.AddrPort{foreign}
			x.extendTo(h)
		},
		"twice at once": func(w *world, x *raw) {
			x.extendTo(w.hops[2])
			x.extendTo(w.hops[2])
			x.mustEnd(cell.MsgExtended)
		},
		"with a stream open": func(w *world, x *raw) {
			x.send(cell.CmdRelay, 1, cell.Message{Type: cell.MsgBeginDir, Stream: 1})
			x.mustHear(cell.MsgConnected)
			x.extendTo(w.hops[2])
		},
		"that cannot be read": func(w *world, x *raw) {
			x.send(cell.CmdRelayEarly, 1, cell.Message{Type: cell.MsgExtend, Data: []byte("who?")})
		},
		"whose handshake the next refuses": func(w *world, x *raw) {
			_, e := x.extension(w.hops[2])
			e.Request[100] ^= 1
			x.send(cell.CmdRelayEarly, 1, cell.Message{Type: cell.MsgExtend, Data: e.Append(nil)})
		},
		"with data behind it": func(w *world, x *raw) {
			x.extendTo(w.hops[2])
			x.send(cell.CmdRelay, 1, cell.Message{Type: cell.MsgBeginDir, Stream: 1})
			x.mustEnd(cell.MsgExtended)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3)
				x := w.far(0, 1)
				other := w.far(0, 1)
				do(w, x)
				x.mustEnd()
				synctest.Wait()
				if a, b := w.circuits(0), w.circuits(1); a != 1 || b != 1 {
					t.Errorf("%d and %d circuits are left, and not the other one alone", a, b)
				}
				if n := w.relays[1].Stats().Panics.Load(); n != 0 {
					t.Errorf("%d panics", n)
				}
				other.mustGoOn()
			})
		})
	}
}

func (x *raw) extendTo(h circuit.Hop) {
	x.t.Helper()
	_, e := x.extension(h)
	x.send(cell.CmdRelayEarly, len(x.fwd)-1, cell.Message{Type: cell.MsgExtend, Data: e.Append(nil)})
}

func TestExtendOfACircuitThatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		x := w.far(0, 1)
		_, e := x.extension(w.hops[2])
		x.send(cell.CmdRelayEarly, 0, cell.Message{Type: cell.MsgExtend, Data: e.Append(nil)})
		x.mustEnd()
	})
}

func TestEveryCircuitEndsAtAnAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, exits(0))
		x := w.mustOpen(w.authority())
		x.send(cell.CmdRelay, 0, cell.Message{
			Type: cell.MsgBegin, Stream: 1, Data: cell.Begin{Host: "127.0.0.1", Port: 80}.Append(nil),
		})
		if m := x.mustHear(cell.MsgEnd); m.Data[0] != byte(cell.EndPolicy) {
			t.Errorf("BEGIN was answered with %v", cell.EndReason(m.Data[0]))
		}
		began := time.Now()
		x = w.mustOpen(w.authority())
		x.extendTo(w.hops[0])
		x.mustEnd()
		if took := time.Since(began); took != 0 {
			t.Errorf("EXTEND was refused after %v", took)
		}
	})
}

func TestOneKnownAddressIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.hops[1].Addrs = []netip.AddrPort{w.hops[1].Addrs[0], netip.MustParseAddrPort("[2001:db8::1]:9001")}
		w.mustBuild(0, 1)
	})
}

// mute is a relay that answers no CREATE.
type mute struct{ created atomic.Int64 }

func (m *mute) Create(*link.Circ, cell.Create) { m.created.Add(1) }

func TestANextRelayThatDoesNotAnswer(t *testing.T) {
	for name, silence := range map[string]func(w *world) (created *atomic.Int64){
		"to CREATE": func(w *world) *atomic.Int64 {
			m := new(mute)
			w.replace(2, m)
			return &m.created
		},
		"to the link's handshake": func(w *world) *atomic.Int64 {
			l := w.listen(w.net.Relays[2].Descriptor.Addrs[0])
			go l.Accept()
			w.t.Cleanup(func() { l.Close() })
			return nil
		},
		"to the connection": func(w *world) *atomic.Int64 {
			l := w.listen(w.net.Relays[2].Descriptor.Addrs[0])
			w.t.Cleanup(func() { l.Close() })
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3)
				x := w.far(0, 1)
				created := silence(w)
				began := time.Now()
				x.extendTo(w.hops[2])
				x.mustGoOn()
				x.mustEnd()
				if took := time.Since(began); took > extendTimeout {
					t.Errorf("it took %v", took)
				} else if created != nil && (took < extendTimeout || created.Load() != 1) {
					t.Errorf("it took %v, and there were %d CREATEs", took, created.Load())
				}
			})
		})
	}
}

func TestANextRelayThatRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.stop[2]()
		_, err := w.build(0, 1, 2)
		var be *circuit.BuildError
		var de *circuit.DestroyedError
		if !errors.As(err, &be) || be.Hop != 2 || !errors.As(err, &de) || de.Reason != cell.DestroyNone {
			t.Errorf("%v", err)
		}
	})
}

func TestAnExtensionEndsWithItsCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, func(i int, cfg *Config) { cfg.MaxTasks = 1 })
		w.replace(2, new(mute))
		for range 5 { // each has the only place
			x := w.mustOpen(0)
			x.extendTo(w.hops[2])
			x.mustGoOn()
			time.Sleep(time.Second)
			x.circ.Close(cell.DestroyNone)
			synctest.Wait()
		}
		w.mustBuild(0, 1)
	})
}

func TestTooManyExtensionsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, func(i int, cfg *Config) { cfg.MaxTasks = 1 })
		w.replace(2, new(mute))
		x := w.mustOpen(0)
		x.extendTo(w.hops[2])
		x.mustGoOn()
		y := w.mustOpen(0)
		y.extendTo(w.hops[1])
		y.mustEnd()
		z := w.mustOpen(0) // but streams have places of their own
		z.send(cell.CmdRelay, 0, cell.Message{Type: cell.MsgBeginDir, Stream: 1})
		z.mustHear(cell.MsgConnected)
	})
}

func TestTheLinkWithMostExtensionsMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, func(i int, cfg *Config) { cfg.MaxTasks = 3 })
		w.replace(2, new(mute))
		greedy := w.connect(0)
		var held []*raw
		for range 3 {
			x, err := w.open(greedy, w.hops[0])
			if err != nil {
				t.Fatal(err)
			}
			x.extendTo(w.hops[2])
			x.mustGoOn()
			held = append(held, x)
		}
		w.mustBuild(0, 1) // on a link of its own
		held[2].mustEnd() // the newest
		for _, x := range held[:2] {
			x.mustGoOn()
		}
	})
}

func TestARelayWithoutADirectoryExtendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWorld(t, 2, func(i int, cfg *Config) {
			cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("offline") }
		})
		began := time.Now()
		x := w.mustOpen(0)
		x.extendTo(w.hops[1])
		x.mustEnd()
		if took := time.Since(began); took != extendTimeout {
			t.Errorf("it took %v", took)
		}
	})
}
