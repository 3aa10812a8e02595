package client

import (
	"time"

	"peel/cell"
	"peel/circuit"
)

// asideFor is how long a circuit is kept that guards before its own keep from use: so long they have to be tried (spec/guard.md, section 4).
const asideFor = 15 * time.Second

// aside is a circuit that was built, and may be used when the guards before its own were tried again, and have failed.
type aside struct {
	h  *held
	c  *circuit.Circuit
	at time.Time
}

// putAside keeps a circuit, instead of the one before. The caller holds mu.
func (p *pool) putAside(h *held, c *circuit.Circuit, now time.Time) {
	p.dropAside()
	p.aside = &aside{h, c, now}
}

// dropAside closes what is kept when mu is let go. The caller holds mu.
func (p *pool) dropAside() {
	if p.aside != nil {
		p.ended = append(p.ended, p.aside.c)
		p.aside = nil
	}
}

// tendAside closes what has been kept for too long. The caller holds mu.
func (p *pool) tendAside(now time.Time) {
	if a := p.aside; a != nil && (now.Sub(a.at) >= asideFor || a.c.Err() != nil) {
		p.dropAside()
	}
}

// fromAside is the circuit that was kept, if it enters by the guard that is to be used now, and serves r; nil: it does not. The caller
// holds mu.
func (p *pool) fromAside(r request, entry cell.NodeID, now time.Time) *held {
	p.tendAside(now)
	a := p.aside
	if a == nil || a.h.gone || a.h.path[0].ID != entry || a.h.born.Before(p.awoke) {
		return nil
	}
	h := &held{era: a.h.era, path: a.h.path, skipped: a.h.skipped, born: a.h.born, last: now, built: make(chan struct{}), circuit: a.c}
	if !h.serves(r, p.faults, now) || p.guardServes(h) != nil {
		return nil
	}
	p.aside = nil
	p.count++
	h.id = p.count
	close(h.built)
	p.fails = 0
	p.circs[h] = struct{}{}
	p.core.events.tell(Event{Kind: EventCircuitBegun, Circuit: h.id, Path: h.path})
	p.core.events.tell(Event{Kind: EventCircuitBuilt, Circuit: h.id, Path: h.path})
	return h
}
