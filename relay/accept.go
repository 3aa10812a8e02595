package relay

import (
	"net"
	"time"

	"peel/cell/link"
)

// admitLink gives a connection that has just arrived a place for its link handshake; nil: it is to be closed. When all are taken, the
// address that has most loses its oldest: an honest caller needs one for a moment only. But one that has half as many as that is
// refused, which costs least: those that flood would else take places from each other without end. Where another authority is, one is
// taken in any case.
func (r *Relay) admitLink(nc net.Conn) *place {
	if r.draining.Load() {
		return nil
	}
	o, at, counted := r.cfg.Limits.ownerAt(nc.RemoteAddr())
	if counted && !r.sources.take(at, ofLinks, time.Now()) {
		r.stats.Limited.Add(1)
		return nil
	}
	p := &place{owner: o, lose: func() { nc.Close() }}
	near := r.voters.near(nc)
	r.mu.Lock()
	if r.links.full(o) && !near || r.unproved.sated(o) {
		r.mu.Unlock()
		return nil
	}
	shed, ok := r.unproved.enter(p)
	if !ok && near && r.unproved.has(o) == 0 { // all places are taken, each by another address
		r.unproved.add(p)
		ok = true
	}
	r.mu.Unlock()
	if shed != nil {
		shed.lose()
	}
	if !ok {
		return nil
	}
	return p
}

// proved gives the place of a connection back whose handshake has ended.
func (r *Relay) proved(p *place) {
	r.mu.Lock()
	r.unproved.leave(p)
	r.mu.Unlock()
}

// takeLink gives a link that was accepted a place; false: there is none, and it is to be closed.
func (r *Relay) takeLink(c *link.Conn) bool {
	o, _, _ := r.peer(c)
	p := &place{owner: o, lose: func() { c.Close() }}
	r.mu.Lock()
	shed, ok := r.links.enter(p)
	if !ok && r.voters.by(c) && r.links.has(o) < mostOfVoter {
		r.links.add(p)
		ok = true
	}
	if ok {
		r.linked[c] = p
	}
	r.mu.Unlock()
	if shed != nil {
		r.stats.LinksShed.Add(1)
		shed.lose()
	}
	return ok
}

// countLink counts a link that the relay dialled itself: it is made in any case.
func (r *Relay) countLink(c *link.Conn) {
	o, _, _ := r.peer(c)
	o.of = c // never the one who has most
	p := &place{owner: o, lose: func() { c.Close() }}
	r.mu.Lock()
	r.links.add(p)
	r.linked[c] = p
	r.mu.Unlock()
}

// unlinked gives the place of a link back that has ended.
func (r *Relay) unlinked(c *link.Conn) {
	r.mu.Lock()
	if p := r.linked[c]; p != nil {
		r.links.leave(p)
		cross(&r.linked, c)
	}
	r.mu.Unlock()
}

// gate has a worker do the costly part of a link's handshake when it is the caller's turn; false: it was not (link.Config).
func (r *Relay) gate(from net.Addr, do func()) bool {
	done := make(chan bool, 1)
	o, _, _ := r.cfg.Limits.ownerAt(from)
	came := time.Now()
	j := &job{
		do:   func() { do(); done <- true },
		gone: func() bool { return time.Since(came) > staleLink },
	}
	j.kept = r.voters.at[addrOf(from)]
	j.owner, j.drop = o, func() { done <- false }
	j.lose = j.drop
	r.enqueue(j)
	return <-done
}

// staleLink is for how long a link's handshake may wait for a worker: then its caller has gone, or is about to.
const staleLink = 4 * time.Second

// enqueue lets a job wait for a worker. Another may lose its place for it, or it finds none.
func (r *Relay) enqueue(j *job) {
	if shed := r.handshakes.push(j); shed != nil {
		r.stats.Crowded.Add(1)
		r.stats.HandshakesShed.Add(1)
		if shed.gone != nil && shed.gone() {
			shed.drop()
		} else {
			shed.lose()
		}
	}
}
