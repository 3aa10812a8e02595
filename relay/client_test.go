package relay

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"peel/cell"
	"peel/cell/hybrid"
	"peel/cell/link"
	"peel/circuit"
	"peel/circuit/layer"
)

// raw is a client without manners: it sends what it is told to, in whatever cells.
type raw struct {
	t    *testing.T
	w    *world
	circ *link.Circ
	got  chan cell.Message // from whatever hop
	over chan cell.DestroyReason

	ended bool // the test knows

	mu   sync.Mutex
	fwd  []*layer.Layer
	back []*layer.Layer
	hold bool // takes no cells, so that no credit returns
}

// open makes a circuit of one hop.
func (w *world) open(lc *link.Conn, hop circuit.Hop) (*raw, error) {
	w.t.Helper()
	x := &raw{t: w.t, w: w, got: make(chan cell.Message, 4096), over: make(chan cell.DestroyReason, 1)}
	hs, key, request := x.initiate(hop)
	created := make(chan []byte, 1)
	var err error
	x.circ, err = lc.Open(rawReceiver{x, created}, cell.Create{Suite: cell.SuiteCGO, Key: key, Request: request})
	if err != nil {
		return nil, err
	}
	select {
	case reply := <-created:
		x.add(hs, reply)
		return x, nil
	case why := <-x.over:
		return nil, fmt.Errorf("destroyed (%v)", why)
	}
}

func (w *world) mustOpen(i int) *raw {
	w.t.Helper()
	x, err := w.open(w.connect(i), w.hops[i])
	if err != nil {
		w.t.Fatal(err)
	}
	return x
}

// far makes a circuit through several relays.
func (w *world) far(path ...int) *raw {
	w.t.Helper()
	x := w.mustOpen(path[0])
	for _, p := range path[1:] {
		hs, e := x.extension(w.hops[p])
		x.send(cell.CmdRelayEarly, len(x.fwd)-1, cell.Message{Type: cell.MsgExtend, Data: e.Append(nil)})
		x.add(hs, x.mustHear(cell.MsgExtended).Data)
	}
	return x
}

func (x *raw) initiate(hop circuit.Hop) (*hybrid.Initiator, cell.KeyID, []byte) {
	x.t.Helper()
	key := hop.OnionKey.ID()
	hs, request, err := hybrid.Initiate(hybrid.Config{
		Pattern: hybrid.NK, Prologue: circuit.Prologue(x.w.net.Network.ID(), hop.ID, key, cell.SuiteCGO), Peer: hop.OnionKey,
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return hs, key, request
}

func (x *raw) extension(hop circuit.Hop) (*hybrid.Initiator, cell.Extend) {
	x.t.Helper()
	hs, key, request := x.initiate(hop)
	return hs, cell.Extend{To: cell.LinkSpec{ID: hop.ID, Addrs: hop.Addrs}, Suite: cell.SuiteCGO, Key: key, Request: request}
}

func (x *raw) add(hs *hybrid.Initiator, reply []byte) {
	x.t.Helper()
	_, s, err := hs.Finish(reply)
	if err != nil {
		x.t.Fatal(err)
	}
	k := s.Expand(circuit.KeyLabel, 2*layer.KeySize)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fwd = append(x.fwd, layer.NewClient((*[layer.KeySize]byte)(k[:layer.KeySize]), cell.BodySize))
	x.back = append(x.back, layer.NewClient((*[layer.KeySize]byte)(k[layer.KeySize:]), cell.BodySize))
}

// send sends one message to the hop with that index.
func (x *raw) send(cmd cell.Command, hop int, m cell.Message) {
	x.t.Helper()
	var c [1]cell.Cell
	if err := m.Put(c[0].Body()); err != nil {
		x.t.Fatal(err)
	}
	x.sendBody(cmd, hop, c)
}

// sendBody sends what is in a cell, sealed for a hop; for -1 as it is.
func (x *raw) sendBody(cmd cell.Command, hop int, c [1]cell.Cell) {
	x.t.Helper()
	c[0].SetCommand(cmd)
	x.mu.Lock()
	defer x.mu.Unlock()
	if hop >= 0 {
		x.seal(&c[0], hop)
	}
	if err := x.circ.Send(c[:]); err != nil && err != link.ErrClosed {
		x.t.Error(err)
	}
}

// seal makes the message in a cell one for that hop. The caller holds mu.
func (x *raw) seal(c *cell.Cell, hop int) {
	x.fwd[hop].Seal(byte(c.Command()), c.Body())
	for i := hop - 1; i >= 0; i-- {
		x.fwd[i].Wrap(byte(c.Command()), c.Body())
	}
}

// hear waits for the next message; false: the circuit ended before, for no reason told.
func (x *raw) hear() (cell.Message, bool) {
	x.t.Helper()
	select {
	case m := <-x.got:
		return m, true
	default:
	}
	select {
	case m := <-x.got:
		return m, true
	case why := <-x.over:
		if why != cell.DestroyNone {
			x.t.Errorf("the circuit ended with a reason: %v", why)
		}
		return cell.Message{}, false
	case <-time.After(time.Minute):
		x.t.Fatal("nothing came for a minute")
		panic("unreachable")
	}
}

func (x *raw) mustHear(want cell.MessageType) cell.Message {
	x.t.Helper()
	m, ok := x.hear()
	if !ok || m.Type != want {
		x.t.Fatalf("waited for %v, got %v (the circuit goes on: %v)", want, m.Type, ok)
	}
	return m
}

// mustEnd waits for the end of the circuit, before which nothing may come but what may.
func (x *raw) mustEnd(may ...cell.MessageType) {
	x.t.Helper()
	for !x.ended {
		m, ok := x.hear()
		if ok && !slices.Contains(may, m.Type) {
			x.t.Fatalf("%v came, and not the end of the circuit", m.Type)
		}
		x.ended = !ok
	}
}

// mustGoOn holds that the circuit lasts: its first hop answers.
func (x *raw) mustGoOn() {
	x.t.Helper()
	x.send(cell.CmdRelay, 0, cell.Message{Type: cell.MsgRekey})
	x.mustHear(cell.MsgRekey)
}

type rawReceiver struct {
	*raw
	created chan []byte
}

func (x rawReceiver) Created(reply []byte)             { x.created <- bytes.Clone(reply) }
func (x rawReceiver) Room()                            {}
func (x rawReceiver) Closed(reason cell.DestroyReason) { x.over <- reason }

func (x rawReceiver) Receive(cells []cell.Cell) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range cells {
		body := cells[i].Body()
		if !slices.ContainsFunc(x.back, func(l *layer.Layer) bool { return l.Peel(byte(cells[i].Command()), body) }) {
			x.t.Error("a cell that no hop sealed")
			continue
		}
		m, err := cell.ParseMessage(body)
		if err != nil {
			x.t.Error(err)
			continue
		}
		m.Data = bytes.Clone(m.Data)
		x.got <- m
	}
	if !x.hold {
		x.circ.Taken(len(cells))
	}
}
