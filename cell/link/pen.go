package link

import (
	"sync"
	"time"

	"peel/cell"
	"peel/cell/contain"
)

// wires are what records are made in, lent to links while they write.
var wires = sync.Pool{New: func() any { return new([maxRecord]byte) }}

// A gone entry says whose cells, and how many in a row, were written: their credit may return.
type gone struct {
	from  *Circ
	n     int
	spare int64 // credit that was left where they went, beyond what is queued there
}

// stuck is how long a peer may take nothing before its link is lost: honest nodes always read (spec/link.md, section 7).
const stuck = time.Minute

// spurt is how many records whoever has something to write writes itself, before it leaves the rest to the link's writer
// and goes on with its own work.
const spurt = 2

// A pen is the writing half of a link. One goroutine has it at a time, and only who has it may compose, seal and write:
// the link's writer, or a goroutine that found nobody had it when it had something to write (rouse). A reader that has
// cells for a link writes them itself, while they are in its cache and without waking anybody, and passes the pen to the
// writer (signal) when the connection takes no more at once, or there is too much of it. Nobody has it while Conn.idle.
type pen struct {
	*Conn
	port   *port
	gone   []gone    // at most one a cell of a record
	grown  []*Circ   // whose Room grew from 0
	limit  time.Time // the connection's write deadline
	drain  drain
	looked time.Duration // at the round trip

	bend  func(room []cell.Cell, n int) int // of a node that misbehaves; else nil
	wire  *[maxRecord]byte                  // the record in the making
	rest  []byte                            // of it: what the connection did not take at once
	cells int                               // in it
}

func newPen(c *Conn) *pen {
	w := &pen{Conn: c, port: newPort(c.nc), gone: make([]gone, 0, maxCells), grown: make([]*Circ, 0, maxCells)}
	if c.cfg.Bend != nil {
		w.bend = c.cfg.Bend()
	}
	return w
}

// rouse says, under mu, whether the caller has the pen from now on: then it must signal or flush.
func (c *Conn) rouse() bool {
	was := c.idle
	c.idle = false
	return was
}

// signal passes the pen to the link's writer. The caller has it, so that there is room in the channel.
func (c *Conn) signal() {
	select {
	case c.wake <- struct{}{}:
	default: // after a bug only
	}
}

// flush writes what there is as far as that takes no waiting, and leaves the rest to the link's writer. The caller has the
// pen, and no lock.
func (c *Conn) flush() {
	if c.pen.port.now == nil {
		c.signal()
		return
	}
	idle := false
	defer func() {
		if !idle {
			c.signal()
		}
	}()
	if p := contain.Do(func() {
		var err error
		idle, err = c.pen.work(true)
		c.fail(err)
	}); p != nil {
		c.bug(p)
	}
}

// write is the link's writer: it begins with the pen, ends with it, and returns why.
func (w *pen) write() error {
	holdUnsent(w.nc, w.drain.Hold())
	for {
		idle, err := w.work(false)
		if err != nil || !idle {
			return err // without an error, whoever ended the link has said why
		}
		w.wait()
	}
}

// wait waits for the pen: until somebody passes it, a time has come, or the link has ended.
func (w *pen) wait() {
	stop := w.stop
	for {
		rang := false
		select {
		case <-w.wake:
			return
		case <-stop:
			stop = nil // whoever has the pen will pass it
		case <-w.timer.C:
			rang = true
		}
		w.mu.Lock()
		if rang { // whoever has the pen may have looked at the clock before that, and would take it to be set
			w.timed = time.Time{}
		}
		mine := w.rouse()
		w.mu.Unlock()
		if mine {
			return
		}
	}
}

// work writes what there is to write; brief: what can be written without waiting, and not too much. Idle: that was all,
// and nobody has the pen now. Otherwise it is still the caller's, and without an error either there is more to write or
// the link has ended.
func (w *pen) work(brief bool) (idle bool, err error) {
	if w.rest != nil {
		rest := w.rest
		w.rest = nil
		if _, err := w.port.Write(rest); err != nil {
			return false, lost(err)
		}
		w.wrote(time.Now())
	}
	if w.wire == nil {
		w.wire = wires.Get().(*[maxRecord]byte)
	}
	wire := w.wire
	for done := 0; !brief || done < spurt; done++ {
		record, err := w.record(wire, &idle)
		if err != nil || record == nil {
			wires.Put(wire)
			return idle, err
		}
		if brief {
			n, err := w.port.now.WriteNow(record)
			if err != nil {
				return false, lost(err)
			}
			if n < len(record) {
				w.rest = record[n:]
				return false, nil
			}
		} else if _, err := w.port.Write(record); err != nil {
			return false, lost(err)
		}
		w.wrote(time.Now())
	}
	return false, nil
}

// record makes the next record in wire; nil: there is none, and without an error idle says whether nobody has the pen.
func (w *pen) record(wire *[maxRecord]byte, idle *bool) ([]byte, error) {
	contain.Point("link: write")
	now := time.Now()
	if w.limit.Sub(now) < stuck/2 { // moved on now and then, for it costs
		w.limit = now.Add(stuck)
		w.nc.SetWriteDeadline(w.limit)
	}
	w.measure(now.Sub(w.born))
	w.wire = nil // if there is nothing to write, it is no longer ours once nobody has the pen
	cells, none, err := w.compose(space(wire[:])[:w.drain.Record()], now)
	if err != nil || len(cells) == 0 {
		*idle = none
		return nil, err
	}
	if cells[0].Command() == cell.CmdPadding { // nothing else has moved for long
		w.box.call(w.nc)
	}
	if w.bend != nil {
		room := space(wire[:])
		cells = room[:min(max(w.bend(room, len(cells)), 1), len(room))]
	}
	w.wire, w.cells = wire, len(cells)
	if w.cfg.Tap != nil {
		w.cfg.Tap(false, cells)
	}
	return w.out.seal(wire[:], len(cells))
}

// wrote notes that the record is written, returns the credit of its cells, to one link after another, and tells circuits that
// they have room.
func (w *pen) wrote(now time.Time) {
	if w.drain.Wrote(w.cells, now.Sub(w.born)) {
		holdUnsent(w.nc, w.drain.Hold())
	}
	for i := 0; i < len(w.gone); {
		first, l := i, w.gone[i].from.conn
		for i < len(w.gone) && w.gone[i].from.conn == l {
			i++
		}
		if l.leftAll(w.gone[first:i], now) {
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

// A move is cells that came in and go on.
type move struct {
	to, from *Circ
	cells    []cell.Cell
}

// A batch is what a reader is at: the records that one read brought. What is to be done once for all of it, with one lock
// a link, waits for its end.
type batch struct {
	mu    sync.Mutex
	on    bool          // a batch is being handled: the lists may grow
	now   time.Duration // when it began, as the budget counts
	conns []*Conn
	moves []move // all of a link that goes on, in order
	taken []gone // of the reader's own link
	told  []*Circ
}

func (b *batch) begin(now time.Duration) {
	b.mu.Lock()
	b.on, b.now = true, now
	b.mu.Unlock()
}

// wake sees to it that c, whose pen the caller has, is written to at the end of the batch; now, if there is none.
func (b *batch) wake(c *Conn) {
	b.mu.Lock()
	on := b.on
	if on {
		b.conns = append(b.conns, c)
	}
	b.mu.Unlock()
	if !on {
		c.signal()
	}
}

// forward keeps a move for the end of the batch; false: there is none.
func (b *batch) forward(m move) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.on {
		m.to.coming.Add(int32(len(m.cells)))
		b.moves = append(b.moves, m)
	}
	return b.on
}

// take keeps for the end of the batch that n cells of c were taken; false: there is none.
func (b *batch) take(c *Circ, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.on { // then the list is the reader's, who may be at it
		return false
	}
	if last := len(b.taken) - 1; last >= 0 && b.taken[last].from == c {
		b.taken[last].n += n
	} else {
		b.taken = append(b.taken, gone{c, n, plenty})
	}
	return true
}

// endBatch does what was left for the end. Only the reader calls it; from now on the lists are its own. Whatever panics, no pen is kept: the
// writer of its link would wait for it for ever, and Serve for the writer.
func (c *Conn) endBatch() {
	b := &c.batch
	b.mu.Lock()
	b.on = false
	b.mu.Unlock()
	flushed := 0
	defer func() {
		if flushed < len(b.conns) || c.reserved.Load() != 0 { // after a panic only
			for _, l := range b.conns[flushed:] {
				l.signal()
			}
			c.expected(int(c.reserved.Load()), nil)
		}
		b.clear()
	}()
	if len(b.taken) > 0 && c.leftAll(b.taken, time.Now()) {
		b.conns = append(b.conns, c)
	}
	for i := range b.moves {
		if b.moves[i].to != nil {
			b.enqueue(b.moves[i:])
		}
	}
	c.expected(int(c.reserved.Load()), nil)
	contain.Point("link: give on")
	for _, circ := range b.told {
		circ.tellRoom()
	}
	for _, l := range b.conns {
		flushed++
		l.flush()
	}
}

// clear forgets what was done, and keeps the memory. Only the reader calls it, after endBatch.
func (b *batch) clear() {
	clear(b.taken)
	clear(b.moves)
	clear(b.told)
	clear(b.conns)
	b.taken, b.moves, b.told, b.conns = b.taken[:0], b.moves[:0], b.told[:0], b.conns[:0]
}

// enqueue queues all moves to the link that the first one goes to, and crosses them off.
func (b *batch) enqueue(moves []move) {
	if l := moves[0].to.conn; b.enqueueTo(l, moves) {
		b.conns = append(b.conns, l)
	}
}

// enqueueTo queues the moves to l; wake: the caller has the pen.
func (b *batch) enqueueTo(l *Conn, moves []move) (wake bool) {
	l.mu.Lock()
	defer l.unlock()
	contain.Point("link: enqueue")
	for i := range moves {
		m := &moves[i]
		if m.to == nil || m.to.conn != l {
			continue
		}
		m.to.coming.Add(-int32(len(m.cells)))
		if m.to.state == open && l.err == nil { // else they come to nothing, and no credit returns
			wake = m.to.take(m.from, m.cells, b.now) || wake
		}
		if m.to.missed {
			m.to.missed = false
			if m.to.had = m.to.room() > 0; m.to.had {
				b.told = append(b.told, m.to)
			}
		}
		m.to = nil
	}
	return wake
}
