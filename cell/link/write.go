package link

import (
	"math/rand/v2"
	"time"

	"peel/cell"
	"peel/cell/contain"
)

// measure looks at the round trip and at what the socket holds, now and then.
func (w *pen) measure(now time.Duration) {
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

// compose fills batch with what goes next, control cells before data. None: there is nothing, and nobody has the pen from
// now on, if idle; otherwise the link has ended.
func (w *pen) compose(batch []cell.Cell, now time.Time) (cells []cell.Cell, idle bool, err error) {
	c := w.Conn
	c.mu.Lock()
	defer c.unlock()
	contain.Point("link: compose")
	if c.err != nil {
		return nil, false, nil
	}
	n, err := c.composeControl(batch, now.Sub(c.born))
	if err != nil {
		return nil, false, err
	}
	if may := w.may(len(batch)-n, now.Sub(c.born)); may > 0 {
		sent := w.composeData(batch[n:n+may], now.Sub(c.born))
		w.sent(sent)
		n += sent
	}
	if n == 0 {
		switch {
		case c.idleAfter > 0 && len(c.circs) == 0 && now.Sub(c.unused) >= c.idleAfter:
			return nil, false, fault(ReasonIdle, "closed after %v without a circuit", c.idleAfter)
		case !c.padding.Due(now):
			c.idle = true
			w.drain.Idle()
			c.setTimer(now)
			return nil, true, nil
		}
		c.forgetOwed()
		batch[0] = cell.Cell{} // PADDING
		c.stats.PaddingOut++
		n = 1
	}
	c.padding.Heard(now, rand.Uint64())
	c.stats.RecordsOut++
	c.stats.CellsOut += uint64(n)
	c.stats.BytesOut += uint64(headerSize + n*cell.Size + tagSize)
	return batch[:n], false, nil
}

// setTimer sees to it that an idle writer is woken by the time at which it has something to do by itself: pad, or close. A timer that goes
// off before is left alone, and the writer then sets it anew: to move it wakes a thread, which on the way of each cell costs more than the
// cell. The caller holds mu.
func (c *Conn) setTimer(now time.Time) {
	wait := c.padding.Look(now)
	if len(c.circs) > 0 {
		wait = min(wait, c.giveBack-now.Sub(c.born))
	} else if c.idleAfter > 0 {
		wait = min(wait, c.idleAfter-now.Sub(c.unused))
	}
	if c.pacing.until > 0 {
		wait = min(wait, c.pacing.until-now.Sub(c.born))
	}
	if c.creditSoon {
		wait = min(wait, c.lastCredit+creditPause-now.Sub(c.born))
	}
	if due := now.Add(wait); !c.timed.After(now) || due.Before(c.timed) {
		c.timed = due
		c.timer.Reset(wait)
	}
}

// composeControl puts control cells into batch and returns how many. The caller holds mu.
func (c *Conn) composeControl(batch []cell.Cell, now time.Duration) (int, error) {
	n := 0
	if now >= c.giveBack {
		c.findSpare(now)
	}
	c.creditDue = c.creditDue || c.creditSoon && now-c.lastCredit >= creditPause
	c.askEchoes()
	if c.answer != 0 || c.asking || c.creditDue || len(c.spare) > 0 {
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
func (w *pen) composeData(batch []cell.Cell, now time.Duration) int {
	n, emptied := 0, 0
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
		switch {
		case circ.queue.n == 0:
			emptied++
		case circ.credit > 0:
			w.sched.Add(t)
		}
		switch last := len(w.gone) - 1; {
		case from == nil:
			circ.own--
		case last >= 0 && w.gone[last].from == from:
			w.gone[last].n++
			w.gone[last].spare = circ.credit - int64(circ.queue.n)
		default:
			w.gone = append(w.gone, gone{from, 1, circ.credit - int64(circ.queue.n)})
		}
		if circ.grew() {
			w.grown = append(w.grown, circ)
		}
	}
	w.cfg.Budget.queue(-n)
	w.cfg.Budget.hold(-emptied)
	return n
}

// emptied notes when the last circuit went. The caller holds mu.
func (c *Conn) emptied() {
	if len(c.circs) == 0 {
		c.unused = time.Now()
	}
}
