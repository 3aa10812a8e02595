package circuit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit/layer"
)

// ended waits until a circuit has ended and returns why.
func ended(t *testing.T, c *Circuit) error {
	t.Helper()
	select {
	case <-c.Done():
	case <-time.After(time.Minute):
		t.Fatal("the circuit goes on")
	}
	return c.Err()
}

// eachFlip has a relay before the last change a bit of what passes it as spoil says, and sees that nothing comes back, with an error that is right.
func eachFlip(t *testing.T, spoil func(n *node, flip func(*transit, []cell.Cell)), right func(t *testing.T, w *world, err error) bool) {
	for hop := range 2 {
		for _, at := range []int{0, 15, 16, 700, cell.BodySize - 1} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3)
				s := open(t, w.mustBuild(), "echo")
				spoil(w.nodes[hop], func(_ *transit, cells []cell.Cell) { cells[0].Body()[at] ^= 0x10 })
				s.Write([]byte("secret"))
				got, err := io.ReadAll(s)
				if !right(t, w, err) || len(got) > 0 {
					t.Errorf("byte %d changed by hop %d: %q came back, %v", at, hop+1, got, err)
				}
			})
		}
	}
}

// A bit that changes on its way to the exit ruins the cell, and the circuit ends before anybody acts on it.
func TestFlippedBitForward(t *testing.T) {
	eachFlip(t, func(n *node, flip func(*transit, []cell.Cell)) { n.forwards = flip }, func(t *testing.T, w *world, err error) bool {
		if w.link.Err() != nil {
			t.Errorf("it took the link with it: %v", w.link.Err())
		}
		var de *DestroyedError
		return errors.As(err, &de) && de.Reason != cell.DestroyLinkClosed
	})
}

// A bit that changes on its way back is found by the client itself.
func TestFlippedBitBackward(t *testing.T) {
	eachFlip(t, func(n *node, flip func(*transit, []cell.Cell)) { n.backward = flip }, func(t *testing.T, w *world, err error) bool {
		synctest.Wait()
		w.toldNothing(t)
		return errors.Is(err, errUnknown)
	})
}

// toldNothing checks that what the first relay heard of the end is what it always hears.
func (w *world) toldNothing(t *testing.T) {
	t.Helper()
	n := w.nodes[0]
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.over) != 1 || n.over[0] != cell.DestroyNone {
		t.Errorf("the first relay was told %v", n.over)
	}
}

// Whatever comes that was not asked for ends the circuit, at that cell, with the same DESTROY.
func TestCellsNobodyAskedFor(t *testing.T) {
	message := func(typ cell.MessageType, id cell.StreamID, data []byte) cell.Message {
		return cell.Message{Type: typ, Stream: id, Data: data}
	}
	extended := cell.Extended{Reply: make([]byte, cell.MinReplySize)}.Append(nil)
	connected := cell.Connected{}.Append(nil)
	done := cell.End{Reason: cell.EndDone}.Append(nil)
	extend := cell.Extend{
		To:      cell.LinkSpec{ID: cell.NodeID{1}, Addrs: newHopAddrs},
		Suite:   cell.SuiteCGO,
		Request: make([]byte, cell.RequestSize),
	}.Append(nil)
	tests := []struct {
		name string
		hops []int // which of the three hops may try it
		send cell.Message
		want string
	}{
		{"rekey", []int{0, 1, 2}, message(cell.MsgRekey, 0, nil), "REKEY that was not asked for"},
		{"extended", []int{2}, message(cell.MsgExtended, 0, extended), "EXTENDED that was not asked for"},
		{"extended from before", []int{0, 1}, message(cell.MsgExtended, 0, extended), "only the last hop"},
		{"data from before", []int{0, 1}, message(cell.MsgData, 1, []byte("x")), "only the last hop"},
		{"end from before", []int{0, 1}, message(cell.MsgEnd, 1, done), "only the last hop"},
		{"data on no stream", []int{2}, message(cell.MsgData, 9, []byte("x")), "stream 9, which is not open"},
		{"connected twice", []int{2}, message(cell.MsgConnected, 1, connected), "twice"},
		{"begin", []int{2}, message(cell.MsgBeginDir, 5, nil), "opened from here only"},
		{"extend", []int{2}, message(cell.MsgExtend, 0, extend), "EXTEND is no message of a stream"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, hop := range tt.hops {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 3)
					c := w.mustBuild()
					if _, err := c.Dial(t.Context(), host("silent")); err != nil { // stream 1
						t.Fatal(err)
					}
					w.nodes[hop].last().tell(tt.send)
					err := ended(t, c)
					var pe *ProtocolError
					if !errors.As(err, &pe) || !strings.Contains(err.Error(), tt.want) {
						t.Errorf("hop %d: %v", hop+1, err)
					}
					synctest.Wait()
					w.toldNothing(t)
				})
			}
		})
	}
}

var newHopAddrs = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9001")}

func TestCellThatNobodySealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		c := w.mustBuild()
		var made cell.Cell
		made.SetCommand(cell.CmdRelay)
		w.nodes[0].last().raw(&made)
		if err := ended(t, c); !errors.Is(err, errUnknown) {
			t.Errorf("ended by %v", err)
		}
	})
}

// RELAY_EARLY goes away from the client only, however well it is sealed.
func TestEarlyTowardsTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.mustBuild()
		s := open(t, c, "silent")
		var made cell.Cell
		made.SetCommand(cell.CmdRelayEarly)
		cell.Message{Type: cell.MsgData, Stream: s.ID(), Data: []byte("x")}.Put(made.Body())
		last := w.nodes[0].last()
		last.mu.Lock()
		last.back.Seal(byte(cell.CmdRelayEarly), made.Body())
		last.mu.Unlock()
		last.raw(&made)
		var pe *ProtocolError
		if err := ended(t, c); !errors.As(err, &pe) || !strings.Contains(err.Error(), "towards the client") {
			t.Errorf("ended by %v", err)
		}
	})
}

// A relay that cannot do the handshake, or that answers for another, is found out, and the error names its hop.
func TestWrongHandshakes(t *testing.T) {
	answers := map[string]func([]byte) []byte{
		"one bit":   func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"first bit": func(b []byte) []byte { b[0] ^= 1; return b },
		"garbage":   func(b []byte) []byte { return randomBytes(len(b)) },
		"longer":    func(b []byte) []byte { return append(b, 0) },
		"longest":   func(b []byte) []byte { return randomBytes(cell.MaxReplySize) },
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			for hop := range 3 {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, 3)
					w.nodes[hop].answer = answer
					_, err := w.build(t.Context())
					var be *BuildError
					if !errors.As(err, &be) || be.Hop != hop {
						t.Errorf("hop %d: %v", hop+1, err)
					}
					synctest.Wait()
					w.toldNothing(t)
				})
			}
		})
	}
}

func TestParametersOfAnotherVersion(t *testing.T) {
	w := newWorld(t, 2)
	w.nodes[1].parameters = []byte{1}
	if _, err := w.build(t.Context()); !errors.Is(err, errParameters) {
		t.Errorf("%v", err)
	}
}

// The reply of another circuit's handshake, which is honest in itself, is worth nothing.
func TestReplayedHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		var kept []byte
		w.nodes[2].answer = func(b []byte) []byte {
			if kept == nil {
				kept = bytes.Clone(b)
			}
			return kept
		}
		w.mustBuild()
		_, err := w.build(t.Context())
		var be *BuildError
		if !errors.As(err, &be) || be.Hop != 2 {
			t.Errorf("%v", err)
		}
	})
}

func TestWrongOnionKeyOrIdentity(t *testing.T) {
	for hop := range 3 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3)
			honest := w.hops[hop]
			w.hops[hop].OnionKey = w.hops[(hop+1)%3].OnionKey
			_, err := w.build(t.Context())
			var be *BuildError
			if !errors.As(err, &be) || be.Hop != hop {
				t.Errorf("another key at hop %d: %v", hop+1, err)
			}
			w.hops[hop] = honest
			w.hops[hop].ID[0] ^= 1
			if _, err = w.build(t.Context()); !errors.As(err, &be) || be.Hop != hop {
				t.Errorf("another identity at hop %d: %v", hop+1, err)
			}
			if hop == 0 && !strings.Contains(err.Error(), "the link leads to") {
				t.Errorf("the link's peer does not count: %v", err)
			}
		})
	}
}

func TestRefusal(t *testing.T) {
	for hop := range 3 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3)
			w.nodes[hop].refuse = true
			_, err := w.build(t.Context())
			var be *BuildError
			var de *DestroyedError
			if !errors.As(err, &be) || be.Hop != hop || !errors.As(err, &de) {
				t.Errorf("hop %d refuses: %v", hop+1, err)
			}
		})
	}
}

// A relay that dies takes its circuits with it, at once, and their streams hear of it.
func TestRelayDies(t *testing.T) {
	for cut := range 3 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3)
			c := w.mustBuild()
			s := open(t, c, "echo")
			var wg sync.WaitGroup
			wg.Go(func() { s.Write(make([]byte, 16<<20)) })
			io.ReadFull(s, make([]byte, 100<<10))
			w.conns[cut].Cut()
			_, err := io.Copy(io.Discard, s)
			wg.Wait()
			var de *DestroyedError
			if !errors.As(err, &de) || (de.Reason == cell.DestroyLinkClosed) != (cut == 0) {
				t.Errorf("link %d cut: %v", cut+1, err)
			}
			if c.Err() != err {
				t.Errorf("the stream says %v, the circuit %v", err, c.Err())
			}
		})
	}
}

// The circuits of a link hear one after the other that it has ended. Whoever asks one that has not heard is told all the same.
func TestCircuitsOfADeadLinkAreLostAtOnce(t *testing.T) {
	w := newWorld(t, 3)
	circuits := make([]*Circuit, 8)
	for i := range circuits {
		if circuits[i] = w.mustBuild(); circuits[i].Lost() {
			t.Fatal("a circuit that was just built is lost")
		}
	}
	ended := make(chan int, len(circuits))
	for _, c := range circuits {
		go func() {
			<-c.Done()
			lost := 0
			for _, other := range circuits {
				if other.Lost() {
					lost++
				}
			}
			ended <- lost
		}()
	}
	w.conns[0].Cut()
	for range circuits {
		if lost := <-ended; lost != len(circuits) {
			t.Errorf("one has ended, %d of %d are lost", lost, len(circuits))
		}
	}
}

func TestLinkDiesWhileACircuitIsBuilt(t *testing.T) {
	for hop := range 3 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3)
			w.nodes[hop].answer = func([]byte) []byte { return nil }
			go func() { time.Sleep(time.Second); w.conns[0].Cut() }()
			_, err := w.build(t.Context())
			var de *DestroyedError
			if !errors.As(err, &de) || de.Reason != cell.DestroyLinkClosed {
				t.Errorf("at hop %d: %v", hop+1, err)
			}
			if _, err := w.build(t.Context()); err == nil {
				t.Error("a circuit was built on a dead link")
			}
		})
	}
}

// An EXTENDED that comes twice, the second time for nothing.
func TestExtendedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		var once sync.Once
		w.nodes[2].answer = func(b []byte) []byte {
			once.Do(func() {
				w.nodes[1].last().tell(cell.Message{Type: cell.MsgExtended, Data: cell.Extended{Reply: b}.Append(nil)})
			})
			return b
		}
		c, err := w.build(t.Context())
		if err == nil {
			err = ended(t, c)
		}
		var pe *ProtocolError
		if !errors.As(err, &pe) {
			t.Errorf("ended by %v", err)
		}
	})
}

func TestKeysAreDifferentEveryTime(t *testing.T) {
	w := newWorld(t, 1)
	seen := make(map[layer.Layer]bool)
	for range 5 {
		c := w.mustBuild()
		c.recv.Lock()
		c.send.Lock()
		for _, l := range []*layer.Layer{c.hops[0].forward, c.hops[0].backward} {
			if seen[*l] {
				t.Error("two layers with the same keys")
			}
			seen[*l] = true
		}
		c.send.Unlock()
		c.recv.Unlock()
	}
}

// Built, used and closed by many at a time, and some given up half-way: nothing is left on the link.
func TestManyCircuitsComeAndGo(t *testing.T) {
	w := newWorld(t, 3)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			ctx := t.Context()
			if i%4 == 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithCancel(ctx)
				go cancel()
			}
			c, err := w.build(ctx)
			if err != nil {
				if i%4 != 0 {
					t.Error(err)
				}
				return
			}
			exchange(t, c, 20000)
			c.Close()
		})
	}
	wg.Wait()
	if err := w.link.Err(); err != nil {
		t.Errorf("the link ended: %v", err)
	}
}
