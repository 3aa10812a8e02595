package relay

import (
	"bytes"
	"crypto/ecdh"
	"runtime"
	"sync"
	"sync/atomic"

	"peel/cell"
	"peel/cell/hybrid"
	"peel/cell/link"
	"peel/circuit"
	"peel/circuit/layer"
	"peel/circuit/stream"
)

// mostHandshakes is how many CREATEs may wait for a worker: at 0.3 ms each and core, half a second of work.
const mostHandshakes = 2048

// handshake is a CREATE that waits for a worker. Until it has one it is the circuit's receiver.
type handshake struct {
	circ    *link.Circ
	key     cell.KeyID
	suite   uint8
	request []byte
	gone    atomic.Bool // the circuit has ended: not worth a worker's time
}

func (*handshake) Created([]byte)      {} // we did not open it
func (*handshake) Receive([]cell.Cell) {} // nothing may come before CREATED
func (*handshake) Room()               {}

func (h *handshake) Closed(cell.DestroyReason) { h.gone.Store(true) }

// Create takes a CREATE from a link's reader and leaves the work to the workers (link.Handler).
func (r *Relay) Create(c *link.Circ, m cell.Create) {
	if r.draining.Load() {
		refuse(c, cell.DestroyRequested)
		return
	}
	if r.crowded() {
		r.stats.HandshakesShed.Add(1)
		refuse(c, cell.DestroyBusy)
		return
	}
	h := &handshake{circ: c, key: m.Key, suite: m.Suite, request: bytes.Clone(m.Request)}
	c.Attach(h)
	if shed := r.handshakes.push(c.Conn(), h); shed != nil {
		r.stats.HandshakesShed.Add(1)
		refuse(shed.circ, cell.DestroyBusy)
	}
}

// crowded says whether the relay has as many circuits as it may.
func (r *Relay) crowded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.transits) >= r.cfg.MaxCircuits
}

// refuse ends a circuit that did not come to be. Only relays are told why (spec/cell.md, section 6).
func refuse(c *link.Circ, why cell.DestroyReason) {
	if _, named := c.Conn().PeerID(); !named {
		why = cell.DestroyNone
	}
	c.Close(why)
}

// workers answers CREATEs on every core until the queue is closed.
func (r *Relay) workers() {
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				h := r.handshakes.pop()
				if h == nil {
					return
				}
				if h.gone.Load() {
					continue
				}
				if !r.guard("handshake", func() { r.respond(h) }) {
					refuse(h.circ, cell.DestroyInternal)
				}
			}
		})
	}
	wg.Wait()
}

// respond is the relay's half of the circuit handshake (spec/handshake.md).
func (r *Relay) respond(h *handshake) {
	key := r.onionKey(h.key)
	if key == nil {
		r.stats.HandshakesFailed.Add(1)
		refuse(h.circ, cell.DestroyProtocol)
		return
	}
	reply, secrets, err := hybrid.Respond(hybrid.Config{
		Pattern:  hybrid.NK,
		Prologue: circuit.Prologue(r.network, r.id, h.key, h.suite),
		Static:   key,
	}, h.request, nil)
	if err != nil {
		r.stats.HandshakesFailed.Add(1)
		refuse(h.circ, cell.DestroyProtocol)
		return
	}
	k := secrets.Expand(circuit.KeyLabel, 2*layer.KeySize)
	secrets.Erase()
	t := newTransit(r, h.circ, k)
	clear(k)
	r.remember(t)
	h.circ.Attach(fromPrev{t})
	h.circ.Reply(reply) // an error is told to the receiver as well
	r.stats.Circuits.Add(1)
}

// newTransit makes a circuit of the keys that the handshake agreed on.
func newTransit(r *Relay, prev *link.Circ, k []byte) *transit {
	t := &transit{relay: r, prev: prev, joined: make(chan struct{})}
	t.fwd = layer.NewRelay((*[layer.KeySize]byte)(k[:layer.KeySize]), cell.BodySize)
	t.back = layer.NewRelay((*[layer.KeySize]byte)(k[layer.KeySize:]), cell.BodySize)
	t.mux = stream.NewMux(stream.Config{Accept: t.accept, Wake: t.pump, MaxStreams: r.cfg.MaxStreams, Budget: r.budget})
	return t
}

// onionKey finds the key that a CREATE names; nil: not one of ours, or no longer.
func (r *Relay) onionKey(id cell.KeyID) *ecdh.PrivateKey {
	for _, k := range r.onion.Load().keys {
		if k.id == id {
			return k.key
		}
	}
	return nil
}
