package link

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"peel/cell/contain"
)

// Check makes sure that the peer is there: it is asked, and if nothing at all comes from it within d, the link ends as lost. It
// does not wait. While one check is under way another changes nothing.
func (c *Conn) Check(d time.Duration) {
	c.mu.Lock()
	if c.err != nil || !c.serving || c.check != nil {
		c.mu.Unlock()
		return
	}
	c.check = contain.After(d, c.bug, func() {
		c.fail(fault(ReasonLost, "the peer was asked, and nothing came from it for %v", d))
	})
	c.asking = true
	wake := c.rouse()
	c.mu.Unlock()
	if wake {
		c.signal()
	}
}

// unchecked ends a check. The caller holds mu.
func (c *Conn) unchecked() {
	if c.check != nil {
		c.check.Stop()
		c.check = nil
	}
}

// Check checks all links from which nothing came for so long (Conn.Check).
func (p *Pool) Check(silent, within time.Duration) {
	p.mu.Lock()
	conns := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	now := time.Now()
	for _, c := range conns {
		c.mu.Lock()
		quiet := now.Sub(c.came) >= silent
		c.mu.Unlock()
		if quiet {
			c.Check(within)
		}
	}
}

// Locals are the addresses of this machine that its links use.
func (p *Pool) Locals() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	var as []netip.Addr
	for c := range p.conns {
		if a, ok := c.nc.LocalAddr().(*net.TCPAddr); ok {
			as = append(as, a.AddrPort().Addr().Unmap())
		}
	}
	return as
}

// Reset ends all links, and has the next Get dial anew, also where an attempt is under way: for when the way to all peers is
// another than before. Attempts go on for those who wait for them.
func (p *Pool) Reset() {
	p.mu.Lock()
	conns := slices.Collect(maps.Keys(p.conns))
	clear(p.nodes)
	p.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}
