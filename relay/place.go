package relay

import (
	"time"

	"peel/directory"
)

// Place is what a relay knows of its place in the network.
type Place struct {
	Listed     bool      // in the newest consensus here
	ValidAfter time.Time // of that; zero: there is none
	ValidUntil time.Time
	Relays     int // that it lists

	Bandwidth uint64 // bytes a second, as offered
	Observed  uint64 // bytes a second: the most that was carried in ten seconds of the last day
	Exit      directory.Policy
	Clock     string // a warning of the machine's clock; "": there is none
	Draining  bool
}

// Place says it for the operator.
func (r *Relay) Place() Place {
	p := Place{Observed: r.observed.Load(), Clock: r.clock.Warning(), Draining: r.draining.Load()}
	if now := r.settled.Load(); now != nil { // an authority's node has none
		p.Bandwidth, p.Exit = now.Bandwidth, now.Exit
	}
	if c := r.cache.Consensus(); c != nil {
		p.ValidAfter, p.ValidUntil, p.Relays = c.ValidAfter, c.ValidUntil, len(c.Entries)
		_, p.Listed = c.Lookup(r.id)
	}
	return p
}
