package link

import (
	"math/rand/v2"
	"slices"
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
	gone  []gone    // at most one a cell of a record
	grown []*Circ   // whose Room grew from 0
	limit time.Time // the connection's write deadline
}

// write is the writer: it returns why it ended.
func (c *Conn) write() error {
	w := &writer{Conn: c, gone: make([]gone, 0, maxCells), grown: make([]*Circ, 0, maxCells)}
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
		cells, err := w.compose(space(wire[:]), now)
		if err != nil || len(cells) == 0 {
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
		w.wrote()
	}
}

// compose fills batch with what goes next, control cells before data; none: the writer is idle from now on.
func (w *writer) compose(batch []cell.Cell, now time.Time) ([]cell.Cell, error) {
	c := w.Conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, nil
	}
	n, err := c.composeControl(batch, now)
	if err != nil {
		return nil, err
	}
	n += w.composeData(batch[n:])
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
	if c.idleAfter > 0 && len(c.circs) == 0 {
		wait = min(wait, c.idleAfter-now.Sub(c.unused))
	}
	c.timer.Reset(wait)
}

// composeControl puts control cells into batch and returns how many. The caller holds mu.
func (c *Conn) composeControl(batch []cell.Cell, now time.Time) (int, error) {
	n := 0
	if c.answer != 0 || c.creditDue {
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

// composeCredit makes the CREDIT cell of this batch: the answer, if one is asked for, and what every circuit is owed.
// False: there is nothing to say after all. The caller holds mu.
func (c *Conn) composeCredit(x *cell.Cell, now time.Time) (bool, error) {
	m := &c.grants
	m.Answer, m.Grants = c.answer, m.Grants[:0]
	done := 0
	for _, circ := range c.owing {
		if len(m.Grants) == cell.MaxGrants {
			break
		}
		done++
		circ.owing = false
		if n := circ.window.Owed(); n > 0 && circ.state == open {
			m.Grants = append(m.Grants, cell.Grant{Circ: circ.id, Cells: int32(n)})
			circ.window.Grant(n)
		}
	}
	rest := copy(c.owing, c.owing[done:])
	clear(c.owing[rest:])
	c.owing = c.owing[:rest]
	c.creditDue, c.answer = rest > 0, 0
	if m.Answer == 0 && len(m.Grants) == 0 {
		return false, nil
	}
	c.lastCredit = now
	return true, x.Pack(0, cell.CmdCredit, m)
}

// composeData puts the cells of circuits into batch, as the scheduler says, and returns how many. The caller holds mu.
func (w *writer) composeData(batch []cell.Cell) int {
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
	return n
}

// wrote returns the credit of the cells just written, to one link after another, and tells circuits that they have room.
func (w *writer) wrote() {
	for i := 0; i < len(w.gone); {
		l := w.gone[i].from.conn
		at, wake := time.Now(), false
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

// left counts n cells of circ as gone on; wake: signal the writer. The caller holds mu, which is circ's link's.
func (c *Conn) left(circ *Circ, n int, now time.Time) (wake bool) {
	if n == 0 || circ.state != open {
		return false
	}
	circ.window.Left(n)
	if !circ.owing {
		if len(c.owing) >= 2*len(c.circs)+64 { // those that ended before they were due shall not add up
			c.owing = slices.DeleteFunc(c.owing, func(x *Circ) bool { return x.state != open })
		}
		circ.owing = true
		c.owing = append(c.owing, circ)
	}
	if c.creditDue || !circ.window.Due(now.Sub(c.lastCredit)) {
		return false
	}
	c.creditDue = true
	return c.rouse()
}

// emptied notes when the last circuit went. The caller holds mu.
func (c *Conn) emptied() {
	if len(c.circs) == 0 {
		c.unused = time.Now()
	}
}
