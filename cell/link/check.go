package link

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"peel/cell/contain"
)

// checkMost is how long a check waits on a link with long round trips, at most.
const checkMost = 30 * time.Second

// Check makes sure that the peer is there: it is asked, and if nothing at all comes from it within d, or two round trips of a link
// that is known to be long, the link ends as lost. It does not wait. While one check is under way another changes nothing.
func (c *Conn) Check(d time.Duration) {
	c.mu.Lock()
	if c.err != nil || !c.serving || c.check != nil {
		c.mu.Unlock()
		return
	}
	if c.trip.rtt > tripMost {
		d = max(d, min(2*c.trip.rtt, checkMost))
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

// An echo is one who waits for the answer to an ask that goes behind the cells of a circuit.
type echo struct {
	circ   *Circ
	serial uint16 // of the ask; 0: it has not gone
	done   chan struct{}
}

// Echo waits until the peer has had all cells that were sent on the circuit by now, but those that it gave no credit for, and until all
// has come that it had sent then: it is asked behind them, and a link keeps the order. An error: ctx or the link ended before.
func (c *Circ) Echo(ctx context.Context) error {
	l, e := c.conn, &echo{circ: c, done: make(chan struct{})}
	l.mu.Lock()
	l.echoes = append(l.echoes, e)
	wake := l.rouse()
	l.mu.Unlock()
	if wake {
		l.signal()
	}
	select {
	case <-e.done:
		return nil
	case <-l.stop:
		return l.Err()
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.echoes = slices.DeleteFunc(l.echoes, func(o *echo) bool { return o == e })
	return context.Cause(ctx)
}

// behind says whether an ask that goes now goes behind all cells that the echo is about. The caller holds mu.
func (e *echo) behind() bool {
	return e.circ.state != open && e.circ.state != asked && e.circ.state != opening || e.circ.credit <= 0 || e.circ.queue.n == 0
}

// askEchoes has the next CREDIT cell ask if an echo waits for that, and none is awaited. The caller holds mu.
func (c *Conn) askEchoes() {
	for _, e := range c.echoes {
		c.asking = c.asking || e.serial == 0 && !c.trip.waiting && e.behind()
	}
}

// askedEchoes notes that an ask goes out with this number. The caller holds mu.
func (c *Conn) askedEchoes(serial uint16) {
	for _, e := range c.echoes {
		if e.serial == 0 && serial != 0 && e.behind() {
			e.serial = serial
		}
	}
}

// echoed tells those who waited for this answer. more: others wait, for which an ask is to go. The caller holds mu.
func (c *Conn) echoed(serial uint16) (more bool) {
	c.echoes = slices.DeleteFunc(c.echoes, func(e *echo) bool {
		came := e.serial != 0 && e.serial == serial
		if came {
			close(e.done)
		}
		more = more || e.serial == 0
		return came
	})
	return more
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
