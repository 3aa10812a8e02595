package link

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"peel/cell"
	"peel/cell/contain"
)

// read is the reader: it returns why it ended.
func (c *Conn) read(h Handler) error {
	box := c.box
	defer box.release()
	from := newPort(c.nc)
	for {
		if err := box.fill(from); err != nil {
			if box.called(c.nc, err) {
				continue
			}
			return c.gone(err, box.r < box.w)
		}
		if err := c.readBatch(box, h); err != nil {
			return err
		}
		c.brakes()
	}
}

// readBatch handles the records that are in box.
func (c *Conn) readBatch(box *inbox, h Handler) error {
	c.batch.begin(c.cfg.Budget.now())
	defer c.endBatch()
	contain.Point("link: read")
	for {
		record, err := box.record()
		if err != nil {
			return &Error{ReasonLength, err}
		}
		if record == nil {
			return nil
		}
		cells, err := c.in.open(record)
		if err != nil {
			return &Error{ReasonRecord, err}
		}
		if c.heard(len(record), cells) >= silenceLeast {
			box.rested()
		}
		if c.cfg.Tap != nil {
			c.cfg.Tap(true, cells)
		}
		c.expect(cells)
		if err := c.receive(cells, h); err != nil {
			return err
		}
	}
}

// expect lets the budget count the RELAY cells of a record as queued before any is, so that it is never overdrawn; if they
// are too many, circuits end now.
func (c *Conn) expect(cells []cell.Cell) {
	b := c.cfg.Budget
	if b == nil {
		return
	}
	n := 0
	for i := range cells {
		if relayed(&cells[i]) {
			n++
		}
	}
	c.reserved.Add(int64(n))
	b.queue(n)
	b.relieve()
}

// expected says that n of those cells have been queued, in a queue that b counts; nil: they never will be. It also counts
// those that were not expected.
func (c *Conn) expected(n int, b *Budget) {
	for {
		have := c.reserved.Load()
		known := min(have, int64(n))
		if c.reserved.CompareAndSwap(have, have-known) {
			if b == c.cfg.Budget {
				b.queue(n - int(known)) // most often nothing: all links share the count
				return
			}
			c.cfg.Budget.queue(-int(known))
			b.queue(n)
			return
		}
	}
}

// heard counts a record that came, and puts padding off. It returns how long nothing had come before.
func (c *Conn) heard(size int, cells []cell.Cell) (silence time.Duration) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	silence = now.Sub(c.came)
	c.stats.RecordsIn++
	c.stats.BytesIn += uint64(size)
	c.stats.CellsIn += uint64(len(cells))
	c.came = now
	c.unchecked()
	c.padding.Heard(now, rand.Uint64())
	if c.idle {
		c.setTimer(now)
	}
	return silence
}

// gone says why the connection, of which a part of a record may have come, ended: a peer that closes it while no circuit is on it means to,
// as those do that only tried to reach us. It may also have died: from here that is the same.
func (c *Conn) gone(err error, within bool) error {
	c.mu.Lock()
	used := len(c.circs) > c.waiting
	c.mu.Unlock()
	if errors.Is(err, io.EOF) && !within && !used {
		return fault(ReasonLeft, "the peer closed the connection, on which no circuit was: %w", err)
	}
	return lost(err)
}

// lost says in words why the connection ended.
func lost(err error) error {
	switch {
	case errors.Is(err, io.EOF):
		return fault(ReasonLost, "the peer closed the connection: %w", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fault(ReasonLost, "the connection timed out: %w", err)
	}
	return fault(ReasonLost, "connection lost: %w", err)
}

// A group is cells of a record, of one circuit, that follow one another.
type group struct {
	id    cell.CircID
	circ  *Circ
	ahead Prefetcher // nil: nothing is to be fetched
	cells []cell.Cell
}

// prefetchGroups is how many groups ahead of their turn the state of circuits is fetched.
const prefetchGroups = 3

// receive handles the cells of one record, those of one circuit that follow one another together.
func (c *Conn) receive(cells []cell.Cell, h Handler) error {
	defer c.rest()
	for len(cells) > 0 {
		x := &cells[0]
		if relayed(x) {
			n := 1
			for n < len(cells) && relayed(&cells[n]) {
				n++
			}
			if err := c.relayAll(cells[:n]); err != nil {
				return err
			}
			cells = cells[n:]
			continue
		}
		c.rest()
		err := error(nil)
		if bad := x.Check(); bad != nil {
			return &Error{ReasonCell, bad}
		}
		switch x.Command() {
		case cell.CmdCredit:
			err = c.credit(x)
		case cell.CmdCreate:
			err = c.create(x, h)
		case cell.CmdCreated:
			err = c.created(x)
		case cell.CmdDestroy:
			err = c.destroyed(x)
		case cell.CmdPadding:
			c.mu.Lock()
			c.stats.PaddingIn++
			c.mu.Unlock()
		}
		if err != nil {
			return err
		}
		cells = cells[1:]
	}
	return nil
}

func relayed(c *cell.Cell) bool {
	return c.Command() == cell.CmdRelay || c.Command() == cell.CmdRelayEarly
}

// relayAll hands RELAY cells to their circuits: it looks all of them up at once, and fetches ahead what those after the
// first will take.
func (c *Conn) relayAll(cells []cell.Cell) error {
	groups := c.groups[:0]
	c.mu.Lock()
	for len(cells) > 0 {
		id, n := cells[0].Circ(), 1
		for n < len(cells) && cells[n].Circ() == id {
			n++
		}
		g := group{id: id, circ: c.circs[id], cells: cells[:n]}
		if g.circ != nil {
			g.ahead = g.circ.ahead
		}
		groups = append(groups, g)
		cells = cells[n:]
	}
	c.mu.Unlock()
	c.groups = groups
	defer clear(groups)
	for i := range groups {
		switch {
		case i == 0:
			for _, g := range groups[1:min(len(groups), 1+prefetchGroups)] {
				g.fetch()
			}
		case i+prefetchGroups < len(groups):
			groups[i+prefetchGroups].fetch()
		}
		if bad := groups[i].cells[0].Check(); bad != nil {
			return &Error{ReasonCell, bad}
		}
		if err := c.relay(&groups[i]); err != nil {
			return err
		}
	}
	return nil
}

func (g *group) fetch() {
	if g.ahead != nil {
		g.ahead.Prefetch()
	}
}

// relay hands a group of cells to their circuit. If the circuit was closed since it was looked up, its number may be another's
// by now only if the peer had sent DESTROY, behind which no cell may come.
func (c *Conn) relay(g *group) error {
	r, before, why, err := c.taking(g)
	if before != nil {
		before.Closed(why)
		r, _, _, err = c.taking(g)
	}
	if r != nil { // else it is closing: what was on its way comes to nothing
		r.Receive(g.cells)
	}
	return err
}

// taking counts a group as received, by r if that is not nil. If before is not nil it has done nothing: the caller calls Closed of that one,
// and asks again.
func (c *Conn) taking(g *group) (r, before Receiver, why cell.DestroyReason, err error) {
	circ, cmd := g.circ, g.cells[0].Command()
	c.mu.Lock()
	defer c.unlock()
	contain.Point("link: receive")
	if before, why = c.rested(); before != nil {
		return nil, before, why, nil
	}
	if err := known(circ, g.id, cmd); err != nil {
		return nil, nil, 0, err
	}
	if circ.state < open && circ.state != offered { // an offered one has no credit yet
		return nil, nil, 0, fault(ReasonOrder, "a %v cell before CREATED", cmd)
	}
	if !circ.window.Received(len(g.cells)) {
		return nil, nil, 0, fault(ReasonOverrun, "a %v cell without credit", cmd)
	}
	circ.came = c.batch.now
	if circ.recv != nil {
		circ.telling++
		c.reading = reading{circ, circ.recv}
	}
	return circ.recv, nil, 0, nil
}

// reading is the Receiver that the reader calls, or has called last.
type reading struct {
	circ *Circ
	recv Receiver
}

// rest notes that the reader is through with the Receiver it called, if any, and calls Closed, if the circuit was ended
// meanwhile. Only the reader calls it, without locks.
func (c *Conn) rest() {
	if c.reading.circ == nil {
		return
	}
	c.mu.Lock()
	r, why := c.rested()
	c.mu.Unlock()
	if r != nil {
		r.Closed(why)
	}
}

// rested is rest under mu: whoever calls it calls Closed of r, if it is not nil, without mu.
func (c *Conn) rested() (r Receiver, why cell.DestroyReason) {
	circ := c.reading.circ
	if circ == nil {
		return nil, 0
	}
	if circ.toldOff() {
		r, why = c.reading.recv, circ.told
	}
	c.reading = reading{}
	return r, why
}

// known refuses what the peer says of a circuit that it does not have: there is none, it was not told of it, or has
// sent DESTROY itself.
func known(circ *Circ, id cell.CircID, cmd cell.Command) error {
	switch {
	case circ == nil || circ.state == opening:
		return fault(ReasonCircuit, "a %v cell of circuit %#x, which is not there", cmd, uint32(id))
	case circ.gotDestroy:
		return fault(ReasonOrder, "a %v cell after DESTROY", cmd)
	}
	return nil
}

// create handles CREATE: a new circuit, or one too many.
func (c *Conn) create(x *cell.Cell, h Handler) error {
	m, err := cell.ParseCreate(x.Body())
	if err != nil {
		return &Error{ReasonCell, err}
	}
	id := x.Circ()
	if (id&cell.DialBit != 0) == c.dialer {
		return fault(ReasonCreate, "CREATE of circuit %#x, a number of ours", uint32(id))
	}
	if h == nil {
		return fault(ReasonCreate, "CREATE to a client")
	}
	c.cfg.Budget.relieveClosed()
	circ, err := c.offer(id, m)
	if circ != nil {
		h.Create(circ, m)
	}
	return err
}

// offer makes the circuit that the peer asks for; nil: there is no room for it, which it is told, or the error.
func (c *Conn) offer(id cell.CircID, m cell.Create) (*Circ, error) {
	c.mu.Lock()
	defer c.unlock()
	if c.circs[id] != nil {
		return nil, fault(ReasonCreate, "CREATE of circuit %#x, which is there", uint32(id))
	}
	circ := &Circ{conn: c, id: id, state: offered, credit: int64(m.Credit), base: int64(m.Credit)}
	circ.turn.circ = circ
	if len(c.circs)-c.refused >= c.cfg.MaxCircuits {
		if c.refused == maxRefused {
			return nil, fault(ReasonFlood, "CREATE although %d circuits were refused and not destroyed", maxRefused)
		}
		c.refused++
		circ.refused, circ.mine = true, true
		c.circs[id] = circ
		circ.end(c.busy())
		return nil, nil
	}
	c.circs[id] = circ
	return circ, nil
}

// busy is what the peer is told of a circuit for which there is no room: clients are told no reasons.
func (c *Conn) busy() cell.DestroyReason {
	if c.named {
		return cell.DestroyBusy
	}
	return cell.DestroyNone
}

// created handles CREATED.
func (c *Conn) created(x *cell.Cell) error {
	m, err := cell.ParseCreated(x.Body())
	if err != nil {
		return &Error{ReasonCell, err}
	}
	c.mu.Lock()
	circ := c.circs[x.Circ()]
	if err := known(circ, x.Circ(), cell.CmdCreated); err != nil {
		c.mu.Unlock()
		return err
	}
	if circ.created || (circ.id&cell.DialBit != 0) != c.dialer {
		c.mu.Unlock()
		return fault(ReasonOrder, "CREATED where none was asked for")
	}
	circ.created = true
	if circ.state == closing {
		c.mu.Unlock()
		return nil
	}
	circ.state, circ.credit, circ.base = open, int64(m.Credit), int64(m.Credit)
	circ.had = circ.room() > 0
	has, r := circ.had, circ.recv
	c.mu.Unlock()
	r.Created(m.Reply)
	if has {
		circ.tellRoom()
	}
	return nil
}

// tellRoom calls Room, unless the circuit has been closed, and then Closed, if a DESTROY came meanwhile: reader and writer
// may both be here, and Closed is the last call. The caller holds no lock.
func (c *Circ) tellRoom() {
	l := c.conn
	l.mu.Lock()
	r := c.recv
	if r == nil {
		l.mu.Unlock()
		return
	}
	c.telling++
	l.mu.Unlock()
	r.Room()
	l.mu.Lock()
	last, why := c.toldOff(), c.told
	l.mu.Unlock()
	if last {
		r.Closed(why)
	}
}

// toldOff ends a call of the Receiver; last: Closed has waited for it, and is now to be called. The caller holds mu.
func (c *Circ) toldOff() (last bool) {
	c.telling--
	last = c.parting && c.telling == 0
	if last {
		c.parting = false
	}
	return last
}

// destroyed handles DESTROY: it is answered by one, unless ours is under way.
func (c *Conn) destroyed(x *cell.Cell) error {
	m, err := cell.ParseDestroy(x.Body())
	if err != nil {
		return &Error{ReasonCell, err}
	}
	why := m.Reason
	if why == cell.DestroyLinkClosed || c.cfg.Key == nil {
		why = cell.DestroyNone // that a link is lost is known here, and clients are told no reasons (spec/cell.md, section 6)
	}
	r, err := c.parted(x.Circ(), why)
	if r != nil {
		r.Closed(why)
	}
	return err
}

// parted notes that the peer ended a circuit; r, if it is not nil, is to be told.
func (c *Conn) parted(id cell.CircID, why cell.DestroyReason) (r Receiver, err error) {
	c.mu.Lock()
	defer c.unlock()
	circ := c.circs[id]
	if err := known(circ, id, cell.CmdDestroy); err != nil {
		return nil, err
	}
	circ.gotDestroy = true
	r = circ.recv
	if circ.state != closing {
		circ.end(cell.DestroyNone)
		circ.told = why
	}
	if r != nil && circ.telling > 0 { // the writer is at it, and calls Closed when it is through
		circ.parting, r = true, nil
	}
	circ.free()
	return r, nil
}

// credit handles CREDIT.
func (c *Conn) credit(x *cell.Cell) error {
	m, err := cell.ParseCreditCell(x.Body())
	if err != nil {
		return &Error{ReasonCell, err}
	}
	grown, wake, err := c.granted(&m)
	if wake {
		c.batch.wake(c)
	}
	if err != nil {
		return err
	}
	for _, circ := range grown {
		circ.tellRoom()
	}
	return nil
}

// granted takes the credit that the peer gives; grown are the circuits that have room now. wake: the caller has the pen.
func (c *Conn) granted(m *cell.CreditCell) (grown []*Circ, wake bool, err error) {
	c.mu.Lock()
	defer c.unlock()
	more := false // is to be asked
	if m.Ask != 0 {
		c.answer = m.Ask // a peer that asks again before it has its answer gets the last one
	}
	if m.Answer != 0 {
		c.trip.Answer(m.Answer, time.Since(c.born))
		more = c.echoed(m.Answer)
		if c.check != nil { // it began after this record was heard, and while the ask that is answered now was under way
			c.asking, more = true, true
		}
	}
	for _, g := range m.Grants {
		circ := c.circs[g.Circ]
		if err = known(circ, g.Circ, cell.CmdCredit); err != nil {
			break
		}
		if circ.state == closing {
			continue
		}
		if circ.state != open {
			err = fault(ReasonOrder, "credit for a circuit before CREATED")
			break
		}
		if err = circ.grant(g.Cells); err != nil {
			break
		}
		if circ.grew() {
			grown = append(grown, circ)
		}
	}
	wake = (c.answer != 0 || c.sched.used != 0 || more) && c.rouse()
	return grown, wake, err
}
