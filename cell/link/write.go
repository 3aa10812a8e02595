package link

import (
	"math/rand/v2"
	"sync"
	"time"

	"peel/cell"
)

// creditPause is how far the CREDIT cells of a link are apart, unless a circuit is about to run dry (spec/flow.md, section 3).
const creditPause = 10 * time.Millisecond

// control is a cell that needs no credit and goes before all others.
type control struct {
	id   cell.CircID
	cmd  cell.Command
	body cell.Body
}

// say queues a control cell. The caller holds mu. The queue is bounded by the circuits: one CREATE or CREATED and one DESTROY
// each; a peer that makes circuits come and go without ever reading is cut off.
func (c *Conn) say(k control) {
	if c.err != nil {
		return
	}
	c.control = append(c.control, k)
	c.poke()
}

// mostControl is how many control cells may wait.
func (c *Conn) mostControl() int { return 4*c.cfg.maxCircuits() + 64 }

func (c *Conn) rested() bool { return time.Since(c.granted) >= creditPause }

// buffers are what records are made in: room for the head, 46 cells and the tag.
var buffers = sync.Pool{New: func() any { return new([recordBuffer]byte) }}

// batch is what one record carries, and whom that concerns.
type batch struct {
	n       int // cells
	forward []*Circ
	room    []Receiver // whose Room is to be called
}

// write sends what waits until the link is over: a record at a time, each in one write.
func (c *Conn) write() error {
	var b batch
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	chance := rand.Float64()
	for {
		buf := buffers.Get().(*[recordBuffer]byte)
		cells := cell.Cells(buf[recordHead : recordHead+mostCells*cell.Size])
		c.collect(&b, cells)
		for b.n > 0 {
			if c.cfg.Tap != nil {
				c.cfg.Tap(false, cells[:b.n])
			}
			for i, r := range b.room { // while the record is on its way, its room is filled again
				r.Room()
				b.room[i] = nil
			}
			rec := c.out.seal(buf[:], b.n)
			if _, err := c.nc.Write(rec); err != nil {
				return c.lost(err)
			}
			c.stats.RecordsOut.Add(1)
			c.stats.CellsOut.Add(uint64(b.n))
			c.stats.BytesOut.Add(uint64(len(rec)))
			c.last.Store(time.Now().UnixNano())
			chance = rand.Float64()
			c.written(&b)
			c.collect(&b, cells)
		}
		buffers.Put(buf)
		last := time.Unix(0, c.last.Load())
		timer.Reset(time.Until(padding(last, chance)))
		select {
		case <-c.wake:
		case now := <-timer.C:
			if c.idle(now) {
				return ErrIdle
			}
			if !now.Before(padding(time.Unix(0, c.last.Load()), chance)) {
				c.mu.Lock()
				c.say(control{0, cell.CmdPadding, nil})
				c.mu.Unlock()
				c.stats.PaddingOut.Add(1)
			}
		case <-c.done:
			return nil
		}
	}
}

// idle says whether the link has been without circuits for too long.
func (c *Conn) idle(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg.Idle > 0 && len(c.circs) == 0 && now.Sub(c.empty) >= c.cfg.Idle
}

// collect fills cells with what should go next: control cells, then credit, then the circuits in turn.
func (c *Conn) collect(b *batch, cells []cell.Cell) {
	b.n = 0
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	k := 0
	for ; k < len(c.control) && b.n < len(cells); k++ {
		x := &c.control[k]
		if err := cells[b.n].Pack(x.id, x.cmd, x.body); err != nil {
			panic(err) // cannot be: what is queued has been checked
		}
		b.n++
	}
	rest := copy(c.control, c.control[k:])
	clear(c.control[rest:])
	c.control = c.control[:rest]
	if c.due || c.answer != 0 {
		b.n += c.credits(cells[b.n:])
	}
	for b.n < len(cells) {
		e := c.sched.take()
		if e == nil {
			break
		}
		b.n += e.circ.pop(&cells[b.n], b)
	}
}

// pop takes the circuit's next cell, if there still is one, and puts the circuit in the line again if there are more.
func (c *Circ) pop(to *cell.Cell, b *batch) int {
	if c.state != open || c.queue.n == 0 || c.credit <= 0 {
		return 0
	}
	if c.queue.pop(to) {
		c.gone++
		if !c.counted {
			c.counted = true
			b.forward = append(b.forward, c)
		}
	}
	c.credit--
	if c.queue.n > 0 && c.credit > 0 {
		c.conn.sched.add(&c.entry)
	}
	if c.wants && c.credit > 0 && c.queue.n < ahead/2 {
		c.wants = false
		b.room = append(b.room, c.receiver)
	}
	return 1
}

// credits puts what is owed into CREDIT cells: one for all circuits of the link, or a few where there are more than fit.
func (c *Conn) credits(cells []cell.Cell) int {
	n := 0
	for n < len(cells) && (c.answer != 0 || len(c.owing) > 0) {
		k := cell.CreditCell{Answer: c.answer}
		c.answer = 0
		rest := c.owing[:0]
		for _, circ := range c.owing {
			owed := circ.window.Owed()
			if circ.state != open || owed == 0 {
				circ.owing = false
				continue
			}
			if len(k.Grants) == cell.MaxGrants {
				rest = append(rest, circ)
				continue
			}
			circ.owing = false
			circ.window.Grant(owed)
			k.Grants = append(k.Grants, cell.Grant{Circ: circ.id, Cells: int32(owed)})
		}
		clear(c.owing[len(rest):])
		c.owing = rest
		if k.Answer == 0 && len(k.Grants) == 0 {
			break
		}
		if err := cells[n].Pack(0, cell.CmdCredit, k); err != nil {
			panic(err) // cannot be: what is owed is at most the window
		}
		n++
		c.stats.CreditOut.Add(1)
	}
	c.due = len(c.owing) > 0
	c.granted = time.Now()
	return n
}

// written gives the credit of the forwarded cells that have been written back to the links they came by.
func (c *Conn) written(b *batch) {
	for i, circ := range b.forward {
		c.mu.Lock()
		n, from := circ.gone, circ.source
		circ.gone, circ.counted = 0, false
		c.mu.Unlock()
		from.Taken(n)
		b.forward[i] = nil
	}
	b.forward, b.room = b.forward[:0], b.room[:0]
}
