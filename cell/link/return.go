package link

import (
	"slices"
	"time"

	"peel/cell"
)

const (
	idlePause = 5 * time.Second  // between two looks at credit that nobody uses
	idleLong  = 10 * time.Second // a circuit that sent nothing for so long uses none
)

// left counts n cells of circ as gone on, to where spare more could have gone; wake: signal the writer. The caller holds mu, which is circ's link's.
func (c *Conn) left(circ *Circ, n int, spare int64, now time.Duration) (wake bool) {
	if n == 0 || circ.state != open {
		return false
	}
	circ.window.Left(n, spare, now, c.trip.RTT(), c.trip.Calm(now))
	c.cfg.Budget.settle(&circ.window, &circ.held)
	if !circ.owing {
		if len(c.owing) >= 2*len(c.circs)+64 { // those that ended before they were due shall not add up
			c.forgetOwed()
		}
		circ.owing = true
		c.owing = append(c.owing, circ)
	}
	if c.creditDue {
		return false
	}
	due, soon := circ.window.Due(c.cfg.Budget.room())
	switch {
	case due || soon && now-c.lastCredit >= creditPause:
		c.creditDue = true
		return c.rouse()
	case soon && !c.creditSoon:
		c.creditSoon = true
		if c.idle {
			c.setTimer(c.born.Add(now))
		}
	}
	return false
}

// forgetOwed forgets what was owed to circuits that have ended. The caller holds mu.
func (c *Conn) forgetOwed() {
	c.owing = slices.DeleteFunc(c.owing, func(x *Circ) bool { return x.state != open })
	if len(c.owing) == 0 {
		c.owing = nil
	}
}

// leftAll counts cells of circuits of this link as gone on; wake: the caller has the pen.
func (c *Conn) leftAll(all []gone, at time.Time) (wake bool) {
	c.mu.Lock()
	defer c.unlock()
	now := at.Sub(c.born)
	for _, g := range all {
		wake = c.left(g.from, g.n, g.spare, now) || wake
	}
	return wake
}

// findSpare lists the circuits that hold more credit than they began with and have not used any for long: their
// neighbour shall not keep memory for it. The caller holds mu.
func (c *Conn) findSpare(now time.Duration) {
	c.giveBack = now + idlePause
	c.spare = c.spare[:0]
	for _, circ := range c.circs {
		if circ.spare() > 0 && now-circ.used >= idleLong && !circ.looked {
			c.spare = append(c.spare, circ)
		}
		circ.looked = false
	}
}

// spare is the credit that the circuit may give back. It keeps some, or no cell could come that makes more due.
func (c *Circ) spare() int64 {
	if c.state != open || c.queue.n > 0 {
		return 0
	}
	return c.credit - max(c.base, 1)
}

// composeCredit makes the CREDIT cell of this batch: the answer, if one is asked for, and what is to be given back, or what
// every circuit is owed: a cell must not speak twice of one circuit. It asks if somebody wants to know whether the peer is there. False: there is nothing to say after all. The caller
// holds mu.
func (c *Conn) composeCredit(x *cell.Cell, now time.Duration) (bool, error) {
	m := &c.grants
	m.Ask, m.Answer, m.Grants = 0, c.answer, m.Grants[:0]
	c.answer = 0
	if c.returnSpare(m); len(m.Grants) == 0 {
		c.grantOwed(m, now)
	}
	if c.asking && m.Ask == 0 {
		m.Ask = c.trip.AskNow(now)
	}
	c.asking = false
	c.askedEchoes(m.Ask)
	if m.Ask == 0 && m.Answer == 0 && len(m.Grants) == 0 {
		return false, nil
	}
	return true, x.Pack(0, cell.CmdCredit, m)
}

// returnSpare puts into m what is given back. The caller holds mu.
func (c *Conn) returnSpare(m *cell.CreditCell) {
	for len(c.spare) > 0 && len(m.Grants) < cell.MaxGrants {
		last := len(c.spare) - 1
		circ := c.spare[last]
		c.spare[last], c.spare = nil, c.spare[:last]
		if n := circ.spare(); n > 0 && !circ.looked {
			n = min(n, maxCredit-1)
			circ.credit -= n
			m.Grants = append(m.Grants, cell.Grant{Circ: circ.id, Cells: int32(-n)})
		}
	}
}

// grantOwed puts into m what the circuits are owed, and asks how long the link takes. The caller holds mu.
func (c *Conn) grantOwed(m *cell.CreditCell, now time.Duration) {
	done := 0
	for _, circ := range c.owing {
		if len(m.Grants) == cell.MaxGrants {
			break
		}
		done++
		circ.owing = false
		if circ.state != open {
			continue
		}
		if n := c.cfg.Budget.grant(&circ.window, &circ.held, now); n > 0 {
			m.Grants = append(m.Grants, cell.Grant{Circ: circ.id, Cells: int32(n)})
		}
	}
	rest := copy(c.owing, c.owing[done:])
	clear(c.owing[rest:])
	c.owing = c.owing[:rest]
	c.creditDue, c.creditSoon = rest > 0, false
	if len(m.Grants) > 0 {
		c.lastCredit = now
		m.Ask = c.trip.Ask(now)
	}
}
