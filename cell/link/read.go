package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"peel/cell"
)

// readBuffer is what a link reads into: as much as the socket has, and a whole record at least.
const readBuffer = 2 * recordBuffer

// PeerError is a breach of the protocol by the peer, which ends the link.
type PeerError struct{ Err error }

func (e *PeerError) Error() string { return "link: the peer broke the protocol: " + e.Err.Error() }
func (e *PeerError) Unwrap() error { return e.Err }

func breach(format string, args ...any) error { return &PeerError{fmt.Errorf(format, args...)} }

// ErrLost is why a link is over whose connection broke.
var ErrLost = errors.New("link: lost")

// lost says why a read or write failed: because the link is over already, or because the connection broke.
func (c *Conn) lost(err error) error {
	if e := c.Err(); e != nil {
		return e
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("%w: the peer closed it", ErrLost)
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// read handles what comes until the link is over.
func (c *Conn) read(h Handler) error {
	buf := make([]byte, readBuffer)
	var d deliver
	have, used := 0, 0 // buf[used:have] is read and not yet opened
	for {
		n, err := c.nc.Read(buf[have:])
		have += n
		for have-used >= recordHead {
			size, lerr := length(buf[used:])
			if lerr != nil {
				return &PeerError{lerr}
			}
			if have-used < recordHead+size {
				break
			}
			cells, oerr := c.in.open(buf[used : used+recordHead+size])
			if oerr != nil {
				return &PeerError{oerr}
			}
			used += recordHead + size
			c.stats.RecordsIn.Add(1)
			c.stats.CellsIn.Add(uint64(len(cells)))
			c.stats.BytesIn.Add(uint64(recordHead + size))
			if c.cfg.Tap != nil {
				c.cfg.Tap(true, cells)
			}
			if err := c.handle(h, &d, cells); err != nil {
				return err
			}
		}
		if err != nil {
			return c.lost(err)
		}
		c.last.Store(time.Now().UnixNano())
		if used == have {
			have, used = 0, 0
		} else if len(buf)-used < recordBuffer {
			have, used = copy(buf, buf[used:have]), 0
		}
	}
}

// deliver holds the runs of a record's cells between look-up and delivery.
type deliver struct {
	runs [mostCells]run
	n    int
}

type run struct {
	to    Receiver // nil: a circuit that we have closed
	cells []cell.Cell
}

// handle handles the cells of a record in order. Runs of RELAY cells are looked up together, under one lock.
func (c *Conn) handle(h Handler, d *deliver, cells []cell.Cell) error {
	for len(cells) > 0 {
		n, err := c.lookup(d, cells)
		for i := range d.runs[:d.n] {
			r := &d.runs[i]
			if r.to != nil {
				r.to.Receive(r.cells)
			} else {
				c.stats.Late.Add(uint64(len(r.cells)))
			}
			*r = run{}
		}
		if err != nil {
			return err
		}
		if cells = cells[n:]; len(cells) == 0 {
			return nil
		}
		if err := c.command(h, &cells[0]); err != nil {
			return err
		}
		cells = cells[1:]
	}
	return nil
}

func ofCircuit(k *cell.Cell) bool {
	return k.Command() == cell.CmdRelay || k.Command() == cell.CmdRelayEarly
}

// lookup finds whose the RELAY cells are with which cells begin, and counts their credit; it says how many they are.
func (c *Conn) lookup(d *deliver, cells []cell.Cell) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d.n = 0
	i := 0
	for i < len(cells) && ofCircuit(&cells[i]) {
		id := cells[i].Circ()
		j := i + 1
		for j < len(cells) && ofCircuit(&cells[j]) && cells[j].Circ() == id {
			j++
		}
		circ := c.circs[id]
		if circ == nil {
			return i, breach("a cell of circuit %#x, which does not exist", uint32(id))
		}
		if !circ.window.Received(j - i) {
			return i, breach("more cells on circuit %#x than it was granted", uint32(id))
		}
		if circ.state == open && (!circ.ready || circ.receiver == nil) {
			return i, breach("a RELAY cell on circuit %#x before its CREATED", uint32(id))
		}
		d.runs[d.n] = run{circ.receiver, cells[i:j]}
		d.n++
		i = j
	}
	return i, nil
}

// command does what a cell asks that is not RELAY.
func (c *Conn) command(h Handler, k *cell.Cell) error {
	if err := k.Check(); err != nil {
		return &PeerError{err}
	}
	switch k.Command() {
	case cell.CmdPadding:
		c.stats.PaddingIn.Add(1)
		return nil
	case cell.CmdCreate:
		return c.create(h, k)
	case cell.CmdCreated:
		return c.created(k)
	case cell.CmdDestroy:
		return c.destroyed(k)
	default: // Check knows no other than CREDIT
		return c.credited(k)
	}
}

// create begins a circuit that the peer opens.
func (c *Conn) create(h Handler, k *cell.Cell) error {
	m, err := cell.ParseCreate(k.Body())
	if err != nil {
		return &PeerError{err}
	}
	id := k.Circ()
	c.mu.Lock()
	switch {
	case h == nil:
		err = breach("a CREATE to a node that is no relay")
	case (id&cell.DialBit != 0) == c.dialled:
		err = breach("CREATE with id %#x, which is ours to use", uint32(id))
	case c.circs[id] != nil:
		err = breach("CREATE with id %#x, which is in use", uint32(id))
	case len(c.circs)-c.opened >= 2*c.cfg.maxCircuits() || len(c.control) > c.mostControl():
		err = breach("circuits come and go faster than the peer reads our answers")
	}
	if err != nil || c.err != nil {
		c.mu.Unlock()
		return err
	}
	busy := len(c.circs)-c.opened >= c.cfg.maxCircuits()
	circ := c.newCirc(id, false)
	circ.credit = int64(m.Credit)
	c.mu.Unlock()
	if busy {
		circ.Close(cell.DestroyBusy)
		return nil
	}
	h.Create(circ, m)
	return nil
}

// created ends the opening of a circuit of ours.
func (c *Conn) created(k *cell.Cell) error {
	m, err := cell.ParseCreated(k.Body())
	if err != nil {
		return &PeerError{err}
	}
	c.mu.Lock()
	circ := c.circs[k.Circ()]
	if circ == nil || !circ.ours || circ.ready {
		c.mu.Unlock()
		return breach("CREATED for circuit %#x, which waits for none", uint32(k.Circ()))
	}
	circ.ready = true
	circ.credit += int64(m.Credit)
	r := circ.receiver
	c.mu.Unlock()
	if r != nil {
		r.Created(m.Reply)
		circ.resume()
	}
	return nil
}

// resume makes a circuit with new credit send again.
func (c *Circ) resume() {
	l := c.conn
	l.mu.Lock()
	if c.state == open && c.queue.n > 0 && c.credit > 0 {
		l.sched.add(&c.entry)
		l.poke()
	}
	var r Receiver
	if c.state == open && c.wants && c.credit > 0 && c.queue.n < ahead {
		c.wants, r = false, c.receiver
	}
	l.mu.Unlock()
	if r != nil {
		r.Room()
	}
}

// destroyed ends a circuit from the peer's side, or confirms that we ended it.
func (c *Conn) destroyed(k *cell.Cell) error {
	m, err := cell.ParseDestroy(k.Body())
	if err != nil {
		return &PeerError{err}
	}
	c.mu.Lock()
	circ := c.circs[k.Circ()]
	if circ == nil {
		c.mu.Unlock()
		return breach("DESTROY of circuit %#x, which does not exist", uint32(k.Circ()))
	}
	delete(c.circs, circ.id)
	if circ.ours {
		c.opened--
	}
	if len(c.circs) == 0 {
		c.empty = time.Now()
	}
	r := circ.receiver
	if circ.state == open {
		circ.end()
		c.say(control{circ.id, cell.CmdDestroy, cell.Destroy{Reason: cell.DestroyNone}})
	}
	full := len(c.control) > c.mostControl()
	c.mu.Unlock()
	if r != nil {
		r.Closed(m.Reason)
	}
	if full {
		return breach("circuits come and go faster than the peer reads our answers")
	}
	return nil
}

// credited takes a CREDIT cell: more that we may send, or credit that the peer does not need.
func (c *Conn) credited(k *cell.Cell) error {
	m, err := cell.ParseCreditCell(k.Body())
	if err != nil {
		return &PeerError{err}
	}
	if m.Answer != 0 {
		return breach("an answer to a CREDIT that did not ask")
	}
	c.stats.CreditIn.Add(1)
	var more []*Circ
	c.mu.Lock()
	if m.Ask != 0 {
		c.answer = m.Ask // an earlier one that waits is answered by the later
		c.poke()
	}
	for _, g := range m.Grants {
		circ := c.circs[g.Circ]
		switch {
		case circ == nil:
			err = breach("CREDIT for circuit %#x, which does not exist", uint32(g.Circ))
		case g.Cells < 0 && !circ.window.Returned(int64(-g.Cells)):
			err = breach("credit given back on circuit %#x that the peer did not have", uint32(g.Circ))
		case g.Cells > 0 && circ.credit+int64(g.Cells) > creditMost:
			err = breach("credit of more than 2^31 cells on circuit %#x", uint32(g.Circ))
		case g.Cells > 0:
			circ.credit += int64(g.Cells)
			if circ.state == open {
				more = append(more, circ)
			}
		}
		if err != nil {
			c.mu.Unlock()
			return err
		}
	}
	c.mu.Unlock()
	for _, circ := range more {
		circ.resume()
	}
	return nil
}
