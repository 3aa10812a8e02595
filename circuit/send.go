package circuit

import (
	"sync"
	"time"

	"peel/cell"
	"peel/cell/contain"
)

// most is how many cells are sealed and queued at once.
const most = 32

// batches holds the cells between cipher and queue.
var batches = sync.Pool{New: func() any { return new([most]cell.Cell) }}

// wake sends what there is to send, as far as the link takes it. It does not wait for another goroutine that is at it:
// that one then goes on for this one.
func (c *Circuit) wake() {
	c.wanted.Store(true)
	for c.wanted.Load() && c.send.TryLock() {
		c.wanted.Store(false)
		ok := c.survive(c.pump)
		c.send.Unlock()
		if !ok {
			c.bug.Store(true)
			if !c.handling.Load() { // else the reader, which may be the caller and has recv, does it
				c.fail(errPanic)
			}
		}
	}
}

// patience is how long the END of a stream waits that the relay had ended before (spec/stream.md, section 3): a program that opens one
// connection after another is not kept by the last one's END, which wakes three relays.
const patience = 10 * time.Millisecond

// wakeLater sends what can wait, after a while, unless the circuit has ended.
func (c *Circuit) wakeLater() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
	case c.lazy == nil:
		c.lazy = contain.After(patience, nil, c.mux.Urge)
	default:
		c.lazy.Reset(patience)
	}
}

// pump seals messages while there is credit for their cells, so that none waits sealed longer than it must. The caller
// holds send.
func (c *Circuit) pump() {
	if c.circ == nil || len(c.hops) == 0 {
		return
	}
	contain.Point("circuit: send")
	batch := batches.Get().(*[most]cell.Cell)
	defer batches.Put(batch)
	now := time.Now()
	for !c.over.Load() {
		room := min(c.circ.Room(), most)
		n := 0
		for n < room && c.next(&batch[n], now) {
			n++
		}
		if n == 0 || c.circ.Send(batch[:n]) != nil {
			return // a circuit that takes no more hears why from the link
		}
		c.sent.Add(uint64(n))
	}
}

// next makes the next cell to send; false: there is none.
func (c *Circuit) next(to *cell.Cell, now time.Time) bool {
	body, last := to.Body(), len(c.hops)-1
	to.SetCommand(cell.CmdRelay)
	if c.extend != nil {
		to.SetCommand(cell.CmdRelayEarly)
		cell.FinishMessage(body, cell.MsgExtend, 0, copy(cell.DataSpace(body), c.extend))
		c.extend = nil
		c.extending.Store(true)
		c.seal(to, last)
		return true
	}
	for i, h := range c.hops[:last] {
		if at := (mark{c.sent.Load(), c.received.Load(), now}); h.fresh.stale(at) && h.asked.CompareAndSwap(false, true) {
			h.fresh = at
			cell.FinishMessage(body, cell.MsgRekey, 0, 0)
			c.seal(to, i)
			return true
		}
	}
	if !c.mux.Next(body) {
		return false
	}
	c.seal(to, last)
	return true
}

// seal makes the message in a cell one for the hop with this index.
func (c *Circuit) seal(to *cell.Cell, index int) {
	ad, body := byte(to.Command()), to.Body()
	c.hops[index].forward.Seal(ad, body)
	for i := index - 1; i >= 0; i-- {
		c.hops[i].forward.Wrap(ad, body)
	}
}
