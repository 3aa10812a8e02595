package link

import (
	"math/rand/v2"
	"sync"
	"time"

	"peel/cell"
)

// wires are what records are made in, lent to links while they write.
var wires = sync.Pool{New: func() any { return new([maxRecord]byte) }}

// A gone entry says whose cells, and how many in a row, were written: their credit may return.
type gone struct {
	from *Circ
	n    int
}

// stuck is how long a peer may take nothing before its link is lost: honest nodes always read (spec/link.md, section 7).
const stuck = time.Minute

// A writer is the writing half of a link, within Serve.
type writer struct {
	*Conn
	gone   []gone    // at most one a cell of a record
	grown  []*Circ   // whose Room grew from 0
	limit  time.Time // the connection's write deadline
	drain  drain
	looked time.Duration // at the round trip
}

// write is the writer: it returns why it ended.
func (c *Conn) write() error {
	w := &writer{Conn: c, gone: make([]gone, 0, maxCells), grown: make([]*Circ, 0, maxCells)}
	holdUnsent(w.nc, w.drain.Hold())
	for {
		if err := w.work(); err != nil {
			return err
		}
		if !w.wait() {
			return nil // whoever closed stop has said why
		}
	}
}

// wait waits until there may be something to write; false: the link has ended.
func (w *writer) wait() bool {
	select {
	case <-w.stop:
		return false
	case <-w.wake:
	case <-w.timer.C:
	}
	return true
}

// work writes all that there is to write.
func (w *writer) work() error {
	wire := wires.Get().(*[maxRecord]byte)
	defer wires.Put(wire)
	for {
		now := time.Now()
		if w.limit.Sub(now) < stuck/2 { // moved on now and then, for it costs
			w.limit = now.Add(stuck)
			w.nc.SetWriteDeadline(w.limit)
		}
		w.measure(now.Sub(w.born))
		cells, err := w.compose(space(wire[:])[:w.drain.Record()], now)
		if err != nil || len(cells) == 0 {
			w.drain.Idle()
			return err
		}
		if w.cfg.Tap != nil {
			w.cfg.Tap(false, cells)
		}
		record, err := w.out.seal(wire[:], len(cells))
		if err != nil {
			return err
		}
		if _, err := w.nc.Write(record); err != nil {
			return lost(err)
		}
		at := time.Now()
		if w.drain.Wrote(len(cells), at.Sub(w.born)) {
			holdUnsent(w.nc, w.drain.Hold())
		}
		w.wrote(at)
	}
}

// measure looks at the round trip and at what the socket holds, now and then.
func (w *writer) measure(now time.Duration) {
	if now-w.looked < askPause && w.looked != 0 {
		return
	}
	w.looked = now
	rtt, unsent := look(w.nc)
	if w.drain.Looked(unsent, now) {
		holdUnsent(w.nc, w.drain.Hold())
	}
	w.mu.Lock()
	w.trip.Measured(rtt)
	w.mu.Unlock()
	w.cfg.Budget.relieve()
}

// compose fills batch with what goes next, control cells before data; none: the writer is idle from now on.
func (w *writer) compose(batch []cell.Cell, now time.Time) ([]cell.Cell, error) {
	c := w.Conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, nil
	}
	n, err := c.composeControl(batch, now.Sub(c.born))
	if err != nil {
		return nil, err
	}
	n += w.composeData(batch[n:], now.Sub(c.born))
	if n == 0 {
		switch {
		case c.idleAfter > 0 && len(c.circs) == 0 && now.Sub(c.unused) >= c.idleAfter:
			return nil, fault(ReasonIdle, "closed after %v without a circuit", c.idleAfter)
		case !c.padding.Due(now):
			c.idle = true
			c.setTimer(now)
			return nil, nil
		}
		batch[0] = cell.Cell{} // PADDING
		c.stats.PaddingOut++
		n = 1
	}
	c.padding.Heard(now, rand.Uint64())
	c.stats.RecordsOut++
	c.stats.CellsOut += uint64(n)
	c.stats.BytesOut += uint64(headerSize + n*cell.Size + tagSize)
	return batch[:n], nil
}

// setTimer sets when an idle writer has something to do by itself: pad, or close. The caller holds mu.
func (c *Conn) setTimer(now time.Time) {
	wait := c.padding.Wait(now)
	if len(c.circs) > 0 {
		wait = min(wait, c.giveBack-now.Sub(c.born))
	} else if c.idleAfter > 0 {
		wait = min(wait, c.idleAfter-now.Sub(c.unused))
	}
	if c.creditSoon {
		wait = min(wait, c.lastCredit+creditPause-now.Sub(c.born))
	}
	c.timer.Reset(wait)
}

// composeControl puts control cells into batch and returns how many. The caller holds mu.
func (c *Conn) composeControl(batch []cell.Cell, now time.Duration) (int, error) {
	n := 0
	if now >= c.giveBack {
		c.findSpare(now)
	}
	c.creditDue = c.creditDue || c.creditSoon && now-c.lastCredit >= creditPause
	if c.answer != 0 || c.creditDue || len(c.spare) > 0 {
		made, err := c.composeCredit(&batch[n], now)
		if err != nil {
			return 0, err
		}
		if made {
			n++
		}
	}
	for n < len(batch) {
		circ := c.controls.pop()
		if circ == nil {
			break
		}
		switch {
		case circ.control != nil:
			batch[n] = *circ.control
			circ.control = nil
			if circ.state == opening {
				circ.state = asked
			}
		case circ.destroy:
			if err := batch[n].Pack(circ.id, cell.CmdDestroy, cell.Destroy{Reason: circ.why}); err != nil {
				return 0, err
			}
			circ.destroy, circ.sentDestroy = false, true
			circ.free()
		default: // closed before the peer heard of it
			continue
		}
		n++
	}
	return n, nil
}

// composeData puts the cells of circuits into batch, as the scheduler says, and returns how many. The caller holds mu.
func (w *writer) composeData(batch []cell.Cell, now time.Duration) int {
	n := 0
	for n < len(batch) {
		t := w.sched.Next()
		if t == nil {
			break
		}
		circ := t.circ
		if circ.queue.n == 0 || circ.credit <= 0 {
			continue // closed meanwhile
		}
		from := circ.queue.pop(&batch[n])
		n++
		circ.credit--
		circ.used = now
		w.sched.Sent(t)
		if circ.queue.n > 0 && circ.credit > 0 {
			w.sched.Add(t)
		}
		switch last := len(w.gone) - 1; {
		case from == nil:
			circ.own--
		case last >= 0 && w.gone[last].from == from:
			w.gone[last].n++
		default:
			w.gone = append(w.gone, gone{from, 1})
		}
		if circ.grew() {
			w.grown = append(w.grown, circ)
		}
	}
	w.cfg.Budget.queue(-n)
	return n
}

// wrote returns the credit of the cells just written, to one link after another, and tells circuits that they have room.
func (w *writer) wrote(now time.Time) {
	for i := 0; i < len(w.gone); {
		l := w.gone[i].from.conn
		at, wake := now.Sub(l.born), false
		l.mu.Lock()
		for ; i < len(w.gone) && w.gone[i].from.conn == l; i++ {
			wake = l.left(w.gone[i].from, w.gone[i].n, at) || wake
		}
		l.mu.Unlock()
		if wake {
			l.signal()
		}
	}
	clear(w.gone)
	w.gone = w.gone[:0]
	for _, circ := range w.grown {
		circ.tellRoom()
	}
	clear(w.grown)
	w.grown = w.grown[:0]
}

// emptied notes when the last circuit went. The caller holds mu.
func (c *Conn) emptied() {
	if len(c.circs) == 0 {
		c.unused = time.Now()
	}
}
