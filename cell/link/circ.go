package link

import (
	"bytes"
	"errors"

	"peel/cell"
)

// ahead is how many cells that begin here a circuit may have queued: a sealed cell can no longer be overtaken, so they are
// sealed late (spec/flow.md, section 5).
const ahead = 32

// state is how far a circuit's end has come: each side sends exactly one DESTROY.
type state uint8

const (
	open    state = iota
	closing       // ours is sent, the peer's has not come: what still comes is ignored
	closed
)

// Circ is one circuit on one link: its number, its queue and its credit. Its methods may be called from any goroutine.
type Circ struct {
	conn *Conn
	id   cell.CircID
	ours bool // we opened it

	// All below is guarded by conn.mu.
	state    state
	receiver Receiver
	ready    bool // CREATED has come or gone: RELAY cells may follow
	window   Window
	credit   int64 // cells that the peer lets us send
	queue    queue
	entry    entry
	source   *Circ // the circuit whose cells are forwarded here
	wants    bool  // Room was 0: the receiver is told when it is not
	owing    bool  // stands in conn.owing
	gone     int   // forwarded cells in the batch being written
	counted  bool  // stands in the writer's list of those
}

// Errors of circuits.
var (
	ErrNoCircuit = errors.New("link: the circuit is closed")
	ErrBusy      = errors.New("link: as many circuits as this link may carry")
	errNoRoom    = errors.New("link: more cells than there is room for")
)

// Conn is the link that the circuit is on.
func (c *Circ) Conn() *Conn { return c.conn }

// ID is the circuit's number on its link.
func (c *Circ) ID() cell.CircID { return c.id }

func (c *Conn) newCirc(id cell.CircID, ours bool) *Circ {
	k := &Circ{conn: c, id: id, ours: ours, window: newWindow(c.cfg.credit())}
	k.entry.circ = k
	c.circs[id] = k
	if ours {
		c.opened++
	}
	return k
}

// Open begins a circuit: it sends CREATE, with the credit this link grants filled in. What comes of it goes to r.
func (c *Conn) Open(r Receiver, create cell.Create) (*Circ, error) {
	create.Credit = c.cfg.credit()
	create.Request = bytes.Clone(create.Request)
	if err := create.Check(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	if c.opened >= c.cfg.maxCircuits() {
		return nil, ErrBusy
	}
	k := c.newCirc(c.freeID(), true)
	k.receiver = r
	c.say(control{k.id, cell.CmdCreate, create})
	return k, nil
}

// freeID is the next number on our side that no circuit has. There are more numbers than circuits.
func (c *Conn) freeID() cell.CircID {
	for {
		c.id++
		id := c.id &^ cell.DialBit
		if c.dialled {
			id |= cell.DialBit
		}
		if c.circs[id] == nil && id != 0 {
			return id
		}
	}
}

// Attach says who takes what comes for a circuit that the peer opened. It goes before Reply. If the circuit has ended in the
// meantime, r is told at once.
func (c *Circ) Attach(r Receiver) {
	c.conn.mu.Lock()
	gone := c.state != open
	if !gone {
		c.receiver = r
	}
	c.conn.mu.Unlock()
	if gone {
		r.Closed(cell.DestroyNone)
	}
}

// Reply sends CREATED. From then on cells may go both ways.
func (c *Circ) Reply(reply []byte) {
	l := c.conn
	created := cell.Created{Credit: l.cfg.credit(), Reply: bytes.Clone(reply)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.state != open || c.ours || c.ready {
		return
	}
	c.ready = true
	l.say(control{c.id, cell.CmdCreated, created})
}

// Room is how many cells Send takes now; when it is 0, the receiver's Room is called once it is not.
func (c *Circ) Room() int {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	return c.room()
}

func (c *Circ) room() int {
	if c.state != open || !c.ready {
		c.wants = true
		return 0
	}
	n := int(min(c.credit, ahead)) - c.queue.n
	if n <= 0 {
		c.wants = true
		return 0
	}
	return n
}

// Send queues cells that begin here, at most Room of them. They are copied, and their CircID is set.
func (c *Circ) Send(cells []cell.Cell) error {
	l := c.conn
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.state != open {
		return ErrNoCircuit
	}
	if len(cells) > c.room() {
		return errNoRoom
	}
	c.push(cells, false)
	return nil
}

// Forward queues cells that came in on from, which stays the same for the circuit's life. They are copied, and their CircID is
// set. Once they have been written, from's peer gets its credit back. What from was granted bounds the queue.
func (c *Circ) Forward(from *Circ, cells []cell.Cell) error {
	l := c.conn
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.state != open {
		return ErrNoCircuit
	}
	if c.source == nil {
		c.source = from
	}
	c.push(cells, true)
	return nil
}

func (c *Circ) push(cells []cell.Cell, forwarded bool) {
	l := c.conn
	c.queue.push(cells, c.id, forwarded)
	if c.credit > 0 && c.ready {
		l.sched.add(&c.entry)
		l.poke()
	}
}

// Taken says that n received cells were consumed here, so that the peer may send as many again.
func (c *Circ) Taken(n int) {
	l := c.conn
	l.mu.Lock()
	defer l.mu.Unlock()
	c.left(n)
}

func (c *Circ) left(n int) {
	if c.state != open {
		return
	}
	c.window.Left(n)
	l := c.conn
	if !c.owing {
		c.owing = true
		l.owing = append(l.owing, c)
	}
	if !l.due && c.window.Due(l.rested()) {
		l.due = true
		l.poke()
	}
}

// Close ends the circuit: it sends DESTROY with the reason given and drops what is queued. The receiver hears nothing more of
// it, but a call that is under way in the link's goroutines may still finish.
func (c *Circ) Close(reason cell.DestroyReason) {
	l := c.conn
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.state != open {
		return
	}
	c.end()
	c.state = closing
	l.say(control{c.id, cell.CmdDestroy, cell.Destroy{Reason: reason}})
}

// end stops a circuit's traffic. The caller holds conn.mu.
func (c *Circ) end() {
	c.state = closed
	c.receiver = nil
	c.queue.drop()
}
