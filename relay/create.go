package relay

import (
	"bytes"
	"crypto/ecdh"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/contain"
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
	came    time.Time
	gone    atomic.Bool // the circuit has ended: not worth a worker's time
}

func (*handshake) Created([]byte)      {} // we did not open it
func (*handshake) Receive([]cell.Cell) {} // nothing may come before CREATED
func (*handshake) Room()               {}

func (h *handshake) Closed(cell.DestroyReason) { h.gone.Store(true) }

// Create takes a CREATE from a link's reader and leaves the work to the workers (link.Handler).
func (r *Relay) Create(c *link.Circ, m cell.Create) {
	if r.refusing() {
		refuse(c, cell.DestroyRequested)
		return
	}
	o, ok := r.allow(c.Conn(), ofCreates)
	if ok && (r.crowded(o) || r.handshakes.sated(o)) {
		r.stats.Crowded.Add(1)
		ok = false
	}
	if !ok {
		r.stats.HandshakesShed.Add(1)
		r.busy(c, o)
		return
	}
	h := &handshake{circ: c, key: m.Key, suite: m.Suite, request: bytes.Clone(m.Request), came: time.Now()}
	c.Attach(h)
	j := &job{gone: h.gone.Load, kept: r.voters.by(c.Conn())}
	j.do = func() {
		if !r.guard("handshake", func() { j.whole = r.respond(h, o) }) {
			refuse(c, cell.DestroyInternal)
		}
	}
	j.drop = func() { refuse(c, cell.DestroyInternal) } // if the client has not ended it already
	j.owner, j.lose = o, func() { r.busy(c, o) }
	r.enqueue(j)
}

// crowded says whether there is no place for one more circuit of a peer's.
func (r *Relay) crowded(o owner) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.circuits.full(o)
}

// refuse ends a circuit that did not come to be. Only relays are told why (spec/cell.md, section 6).
func refuse(c *link.Circ, why cell.DestroyReason) {
	if _, named := c.Conn().PeerID(); !named {
		why = cell.DestroyNone
	}
	c.Close(why)
}

// busy refuses a circuit for which there is no place, and has a peer wait to whom that happens often.
func (r *Relay) busy(c *link.Circ, o owner) {
	refuse(c, cell.DestroyBusy)
	c.Conn().Slow(r.wait(c.Conn(), o))
}

// wait is for how long.
func (r *Relay) wait(c *link.Conn, o owner) time.Duration {
	if o.weight == relayWeight || r.fromRelay(c) {
		return refusedRelay
	}
	return refusedClient
}

// By how much later a peer is heard of which a circuit was refused (link.Conn.Slow). What it costs to read and refuse CREATEs is so little for
// a client, who may be refused 20 at once, that a thousand can go on. On a relay's link others would wait as well: it
// is slowed where more are refused than 18 cores can pass on of all kinds to all relays, with a key exchange of 0.28 ms for each.
const (
	refusedClient = time.Second / 20
	refusedRelay  = time.Second / 65536
)

// workers does the key exchanges, of links and CREATEs, on every core until the queue is closed. A worker lets others run after each
// job, and rests for as long as they need (pace).
func (r *Relay) workers() {
	var wg contain.Group
	cores := runtime.GOMAXPROCS(0)
	for range cores {
		wg.Go(r.bug("handshakes"), func() {
			p := newPace(cores)
			for j := r.handshakes.pop(); j != nil; j = r.handshakes.pop() {
				r.guard("handshake", func() { r.work(p, j) })
			}
		})
	}
	wg.Wait()
}

// work does one job, and rests.
func (r *Relay) work(p *pace, j *job) {
	if j.gone != nil && j.gone() {
		j.drop()
		return
	}
	began := time.Now()
	if r.cfg.toll != nil {
		r.cfg.toll()
	}
	if !r.guard("handshake", j.do) {
		j.drop()
	}
	took := time.Since(began)
	if j.whole {
		p.did(took)
	}
	now := time.Now()
	if rest := p.rest(took, now, r.stats.Cells.Load(), r.handshakes.len()); rest > 0 {
		time.Sleep(rest)
		p.rested(time.Since(now) - rest)
	} else {
		runtime.Gosched()
	}
}

var errForeignKey = errors.New("it is for an onion key that is none of ours: is the other's directory old?")

// failed refuses a CREATE that nothing can be made of. Only the log says what is wrong with it, and not from where it came.
func (r *Relay) failed(h *handshake, why error) (whole bool) {
	r.stats.HandshakesFailed.Add(1)
	r.log.Debug("CREATE refused", "key", h.key, "why", why)
	refuse(h.circ, cell.DestroyProtocol)
	return false
}

// respond is the relay's half of the circuit handshake (spec/handshake.md). It says whether the keys were agreed on.
func (r *Relay) respond(h *handshake, of owner) (whole bool) {
	contain.Point("relay: create")
	r.stats.Waits.add(time.Since(h.came))
	key := r.onionKey(h.key)
	if key == nil {
		return r.failed(h, errForeignKey)
	}
	reply, secrets, err := hybrid.Respond(hybrid.Config{
		Pattern:  hybrid.NK,
		Prologue: circuit.Prologue(r.network, r.id, h.key, h.suite),
		Static:   key,
	}, h.request, nil)
	if err != nil {
		return r.failed(h, err)
	}
	k := secrets.Expand(circuit.KeyLabel, 2*layer.KeySize)
	secrets.Erase()
	t := newTransit(r, h.circ, of, k)
	clear(k)
	if !r.remember(t) {
		r.stats.Crowded.Add(1)
		r.stats.HandshakesShed.Add(1)
		t.destroy()
		return true
	}
	h.circ.Attach(fromPrev{t})
	h.circ.Reply(reply) // an error is told to the receiver as well
	r.stats.Circuits.Add(1)
	return true
}

// newTransit makes a circuit of the keys that the handshake agreed on.
func newTransit(r *Relay, prev *link.Circ, of owner, k []byte) *transit {
	t := &transit{relay: r, prev: prev, joined: make(chan struct{})}
	t.seat = place{owner: of, lose: t.destroy}
	t.fwd = layer.NewRelay((*[layer.KeySize]byte)(k[:layer.KeySize]), cell.BodySize)
	t.back = layer.NewRelay((*[layer.KeySize]byte)(k[layer.KeySize:]), cell.BodySize)
	t.mux = stream.NewMux(stream.Config{Accept: t.accept, Wake: t.wake, MaxStreams: r.cfg.MaxStreams, Budget: r.budget, Full: t.overfull})
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
