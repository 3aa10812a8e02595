package relay

import (
	"bytes"
	"crypto/ecdh"
	"runtime"
	"sync"

	"peel/cell"
	"peel/cell/hybrid"
	"peel/cell/link"
	"peel/circuit"
	"peel/circuit/layer"
	"peel/circuit/stream"
)

// mostHandshakes is how many CREATEs may wait for a worker: at 0.3 ms each and core, half a second of work. One more is
// answered with DESTROY (busy) at once.
const mostHandshakes = 2048

// handshake is a CREATE that waits for a worker.
type handshake struct {
	circ    *link.Circ
	key     cell.KeyID
	suite   uint8
	request []byte
}

// Create takes a CREATE from a link's reader and leaves the work to the workers (link.Handler).
func (r *Relay) Create(c *link.Circ, m cell.Create) {
	h := handshake{circ: c, key: m.Key, suite: m.Suite, request: bytes.Clone(m.Request)}
	select {
	case r.handshakes <- h:
	default:
		r.stats.HandshakesShed.Add(1)
		c.Close(cell.DestroyBusy)
	}
}

// workers answers CREATEs on every core until done is closed.
func (r *Relay) workers(done <-chan struct{}) {
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				select {
				case h := <-r.handshakes:
					r.guard("handshake", func() { r.respond(h) })
				case <-done:
					return
				}
			}
		})
	}
	wg.Wait()
}

// respond is the relay's half of the circuit handshake (spec/handshake.md).
func (r *Relay) respond(h handshake) {
	key := r.onionKey(h.key)
	if key == nil {
		r.stats.HandshakesFailed.Add(1)
		h.circ.Close(cell.DestroyProtocol)
		return
	}
	reply, secrets, err := hybrid.Respond(hybrid.Config{
		Pattern:  hybrid.NK,
		Prologue: circuit.Prologue(r.network, r.id, h.key, h.suite),
		Static:   key,
	}, h.request, nil)
	if err != nil {
		r.stats.HandshakesFailed.Add(1)
		h.circ.Close(cell.DestroyProtocol)
		return
	}
	k := secrets.Expand(circuit.KeyLabel, 2*layer.KeySize)
	secrets.Erase()
	t := &transit{relay: r, prev: h.circ, joined: make(chan struct{}), done: make(chan struct{})}
	t.fwd = layer.NewRelay((*[layer.KeySize]byte)(k[:layer.KeySize]), cell.BodySize)
	t.back = layer.NewRelay((*[layer.KeySize]byte)(k[layer.KeySize:]), cell.BodySize)
	clear(k)
	t.mux = stream.NewMux(stream.Config{Accept: t.accept, Wake: t.pump, MaxStreams: r.cfg.MaxStreams})
	r.remember(t)
	h.circ.Attach(fromPrev{t})
	h.circ.Reply(reply)
	r.stats.Circuits.Add(1)
}

// onionKey finds the key that a CREATE names; nil: not one of ours, or no longer.
func (r *Relay) onionKey(id cell.KeyID) *ecdh.PrivateKey {
	for _, k := range r.onion {
		if k.id == id {
			return k.key
		}
	}
	return nil
}
