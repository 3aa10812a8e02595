package relay

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
)

// Whatever clients say to relays of their circuits, in whatever order: at most their circuits end.
func TestNoClientMakesARelayPanic(t *testing.T) {
	rounds, seed := 40, uint64(1)
	if n, err := strconv.ParseUint(os.Getenv("PEEL_WANDER"), 10, 64); err == nil { // a seed, for a longer way
		rounds, seed = 3000, n
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		rng := rand.New(rand.NewPCG(seed, 5))
		for range rounds {
			x := w.far([][]int{{0}, {0, 1}, {2, 0, 1}}[rng.IntN(3)]...)
			for range 1 + rng.IntN(30) {
				select {
				case <-x.over:
					x.ended = true
				default:
				}
				if x.ended || x.circ.Room() == 0 {
					break
				}
				x.wander(rng)
				if rng.IntN(3) > 0 {
					synctest.Wait()
				}
			}
			if rng.IntN(2) == 0 {
				x.circ.Close(cell.DestroyNone)
			}
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		breaches := uint64(0)
		for i, r := range w.relays {
			s := r.Stats()
			breaches += s.Breaches.Load()
			if n := s.Panics.Load(); n != 0 {
				t.Errorf("relay %d: %d panics", i, n)
			}
		}
		if breaches == 0 {
			t.Error("no client broke the protocol: the test shows less than it should")
		}
	})
}

// wander says something or other.
func (x *raw) wander(rng *rand.Rand) {
	hop := rng.IntN(len(x.fwd)+1) - 1
	if rng.IntN(8) > 0 {
		hop = len(x.fwd) - 1
	}
	cmd := cell.CmdRelay
	if rng.IntN(8) == 0 {
		cmd = cell.CmdRelayEarly
	}
	m := cell.Message{Type: cell.MessageType(1 + rng.IntN(11)), Stream: cell.StreamID(1 + rng.IntN(3))}
	var body cell.Body
	switch m.Type {
	case cell.MsgBegin:
		body = cell.Begin{Port: uint16(1 + rng.IntN(65535)), Host: []string{"192.0.2.1", "x.example", "localhost", "::1", "1.1.1.1"}[rng.IntN(5)]}
	case cell.MsgResolve:
		body = cell.Resolve{Kind: []cell.ResolveKind{cell.ResolveA, cell.ResolveAny}[rng.IntN(2)], Name: "x.example"}
	case cell.MsgEnd:
		body = cell.End{Reason: cell.EndReason(1 + rng.IntN(13))}
	case cell.MsgWindow:
		body = cell.Window{Limit: uint64(rng.IntN(12)) << 19}
	case cell.MsgData:
		m.Data = []byte([]string{"GET /peel/consensus HTTP/1.1\r\nHost: x\r\n\r\n", "POST /peel/reach HTTP/1.1\r\nContent-Length: 5\r\n\r\n", "x"}[rng.IntN(3)])
	case cell.MsgExtend:
		_, e := x.extension(x.w.hops[rng.IntN(len(x.w.hops))])
		body, m.Stream = e, 0
	case cell.MsgExtended, cell.MsgRekey:
		m.Stream = 0
		if m.Type == cell.MsgExtended {
			m.Data = make([]byte, cell.MinReplySize)
		}
	case cell.MsgConnected, cell.MsgResolved:
		m.Data = make([]byte, 5)
	}
	if body != nil {
		m.Data = body.Append(nil)
	}
	var c [1]cell.Cell
	if rng.IntN(30) == 0 { // noise
		for i := range c[0].Body() {
			c[0].Body()[i] = byte(rng.Uint32())
		}
	} else if m.Put(c[0].Body()) != nil {
		return
	}
	x.sendBody(cmd, hop, c)
}
