package client

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"
)

// When the machine has slept or moved (spec/client.md, section 9).
const (
	lookEvery = 2 * time.Second
	sleptFor  = 15 * time.Second // that the clocks went on without us, at least
	silentFor = 15 * time.Second // a link from which nothing came for so long is asked
	askedFor  = 5 * time.Second  // and has so long to answer
)

// A look is what a client sees of the machine it runs on.
type look struct {
	wall  time.Time     // as people's clocks have it
	ran   time.Duration // since the client began, by a clock that nobody sets; it may stand still while the machine sleeps
	addrs []netip.Addr  // of the machine
	used  []netip.Addr  // of those, what links use
}

// A change is what happened between two looks.
type change int

const (
	same  change = iota
	more         // the machine has an address that it did not have: what failed may work now
	moved        // an address that links use is gone
	slept        // time passed in which we did not run
)

var changes = map[change]string{moved: "its address changed", slept: "it slept"}

// since says what happened since an earlier look. A clock that is set forward looks like sleep; that costs new links, no more. One
// that is set back does not.
func (l *look) since(before *look) change {
	ran := l.ran - before.ran
	if ran >= lookEvery+sleptFor || l.wall.Sub(before.wall)-ran >= sleptFor {
		return slept
	}
	for _, a := range l.used {
		if !a.IsLoopback() && !slices.Contains(l.addrs, a) && slices.Contains(before.addrs, a) {
			return moved
		}
	}
	for _, a := range l.addrs {
		if !slices.Contains(before.addrs, a) {
			return more
		}
	}
	return same
}

// machine is where looks come from. Tests have others.
type machine struct {
	wall  func() time.Time
	addrs func() []netip.Addr
}

// thisMachine sees the real one. Who dials by himself knows his addresses himself.
func thisMachine(ownDial bool) machine {
	m := machine{wall: func() time.Time { return time.Now().Round(0) }, addrs: machineAddrs}
	if ownDial {
		m.addrs = func() []netip.Addr { return nil }
	}
	return m
}

// machineAddrs are the machine's addresses, those of itself and of one cable left out.
func machineAddrs() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var as []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap().IsGlobalUnicast() {
				as = append(as, a.Unmap())
			}
		}
	}
	return as
}

// watch looks at the machine until ctx ends, and begins anew when it slept or moved. It also has silent links checked.
func (c *core) watch(ctx context.Context) {
	began := time.Now()
	take := func() *look {
		return &look{wall: c.machine.wall(), ran: time.Since(began), addrs: c.machine.addrs(), used: c.links.Locals()}
	}
	before := take()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := take()
		switch what := now.since(before); what {
		case moved, slept:
			c.log.Info("the machine is not where it was: circuits are built anew", "why", changes[what])
			c.pool.woke(time.Now(), c.links.Reset)
		case more:
			c.pool.forgive()
		}
		before = now
		c.links.Check(silentFor, askedFor)
	}
}

// suspect has all links asked whether the peer is there: something that should have come by one of them is late.
func (c *core) suspect() {
	c.mu.Lock()
	links := c.links
	c.mu.Unlock()
	if links != nil {
		links.Check(0, askedFor)
	}
}

// woke drops all circuits, and forgets what failed: the way to the guards is another now. reset drops the links.
func (p *pool) woke(now time.Time, reset func()) {
	p.mu.Lock()
	p.awoke = now
	for h := range p.circs {
		h.gone = true
		if h.isBuilt() {
			p.drop(h)
		}
	}
	p.guards.Forgive()
	clear(p.faults)
	p.fails, p.retry = 0, time.Time{}
	p.answers = answers{saved: p.answers.saved}
	p.unlock()
	reset()
	p.kick()
}

// forgive forgets what failed, if anything did: the network may be back.
func (p *pool) forgive() {
	p.mu.Lock()
	failing := p.fails > 0
	if failing {
		p.guards.Forgive()
		clear(p.faults)
		p.fails, p.retry = 0, time.Time{}
	}
	p.mu.Unlock()
	if failing {
		p.kick()
	}
}
