package link

import (
	"fmt"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/contain"
)

// mostOwn is how many cells that begin here may wait in a circuit's queue: what is sealed early waits where no window
// sees it (spec/flow.md, section 6).
const mostOwn = 32

// maxRefused is how many circuits that there was no room for may wait for the DESTROY that ends them: an honest peer
// opens no more in the time that takes.
const maxRefused = 4096

// A Receiver takes what comes on one circuit. The link's goroutines call it, without any lock held, so it may use the
// Circ; it must not block. After Close none of it is called any more, but a call that another goroutine has begun may
// still be running.
type Receiver interface {
	Created(reply []byte)             // the peer took the circuit opened here: once, before all else; reply is valid during the call
	Receive(cells []cell.Cell)        // a run of RELAY and RELAY_EARLY cells, in order; valid, and ours to change, during the call
	Room()                            // Circ.Room was 0 and is not now
	Closed(reason cell.DestroyReason) // the peer ended the circuit, or the link is gone (DestroyLinkClosed, then only): once, the last call
}

// A Prefetcher is a Receiver that takes state of its own for each cell, which may be in no cache. Prefetch begins to bring
// it there, for Receive is to be called soon: at once, without waiting for anything, by the link's reader without any lock.
type Prefetcher interface{ Prefetch() }

// state is how far a circuit is.
type state uint8

const (
	opening state = iota // opened here, the peer does not know it yet
	asked                // opened here, CREATE is sent
	offered              // the peer opened it, and waits for CREATED
	open
	closing // closed at this end, by us or in answer: the number is free when both DESTROYs have passed
)

// A Circ is one circuit on one link: its number, its queue, and the credit of both directions. Its methods may be called
// by any goroutine, with the caller's own locks held, but not with one that its Receiver takes where they say so.
type Circ struct {
	conn *Conn
	id   cell.CircID

	// Under conn.mu.
	state   state
	recv    Receiver
	ahead   Prefetcher    // recv, if it is one
	window  window        // what the peer may send
	held    int64         // of it, what the budget has noted
	came    time.Duration // when cells last came, as the budget counts
	credit  int64         // what we may send
	base    int64         // of it, what we got at first
	used    time.Duration // when cells last went, since the link began
	looked  bool          // Room was asked for since the last look at idle credit
	queue   queue         // cells to the peer
	own     int           // cells in queue that began here
	transit bool          // cells of other circuits come through
	had     bool          // Room was not 0
	missed  bool          // it was, but for cells of a batch not yet queued
	turn    turn

	coming atomic.Int32 // cells of a batch that are forwarded and not yet queued

	control *cell.Cell // CREATE or CREATED to be sent
	next    *Circ      // in conn.controls
	listed  bool       // is there
	owing   bool       // is in conn.owing
	refused bool       // there was no room for it

	telling                 int  // calls of Room and Receive under way
	parting                 bool // Closed is to be called after them
	mine                    bool // closed by Close: no Closed
	destroy                 bool // DESTROY is to be sent
	sentDestroy, gotDestroy bool
	created                 bool               // CREATED came
	why, told               cell.DestroyReason // that we give; that we were given
}

// Open opens a circuit: m goes out as CREATE, with the credit of this link's Config in it. It works as soon as there is
// a link, even before Serve. ErrBusy: the link has as many circuits as it may; ErrClosed: it has ended.
func (c *Conn) Open(r Receiver, m cell.Create) (circ *Circ, err error) {
	err = ErrClosed // after a panic
	m.Credit = c.cfg.Credit
	k := new(cell.Cell)
	c.mu.Lock()
	defer c.unlock()
	if c.err != nil {
		return nil, ErrClosed
	}
	if len(c.circs) >= c.cfg.MaxCircuits {
		return nil, ErrBusy
	}
	id := c.freeID()
	if err := k.Pack(id, cell.CmdCreate, m); err != nil {
		return nil, fmt.Errorf("link: opening a circuit: %w", err)
	}
	circ = &Circ{conn: c, id: id, recv: r, control: k}
	circ.ahead, _ = r.(Prefetcher)
	circ.turn.circ = circ
	circ.window.Open(c.cfg.Credit)
	c.circs[id] = circ
	c.say(circ)
	return circ, nil
}

// freeID is the next number in our half that no circuit has. There are far more numbers than circuits.
func (c *Conn) freeID() cell.CircID {
	for {
		c.nextID++
		id := cell.CircID(c.nextID) &^ cell.DialBit
		if c.dialer {
			id |= cell.DialBit
		}
		if c.circs[id] == nil && id != 0 {
			return id
		}
	}
}

// say lists a circuit among those with a CREATE, CREATED or DESTROY to send. The caller holds mu.
func (c *Conn) say(circ *Circ) {
	c.controls.push(circ)
	if c.rouse() {
		c.batch.wake(c)
	}
}

// Conn is the link the circuit is on.
func (c *Circ) Conn() *Conn { return c.conn }

// ID is the circuit's number on its link.
func (c *Circ) ID() cell.CircID { return c.id }

// Attach sets who takes what comes on a circuit that the peer opened. If the circuit is gone already, Closed is called
// before Attach returns.
func (c *Circ) Attach(r Receiver) {
	c.conn.mu.Lock()
	c.recv = r
	c.ahead, _ = r.(Prefetcher)
	late := c.state == closing && !c.mine
	why := c.told
	if c.state == closing {
		c.recv, c.ahead = nil, nil
	}
	c.conn.mu.Unlock()
	if late {
		r.Closed(why)
	}
}

// Reply answers CREATE with CREATED: from now on cells may come and go. The circuit must have a Receiver. ErrClosed: it
// is gone, as the Receiver has heard.
func (c *Circ) Reply(reply []byte) error {
	l := c.conn
	k := new(cell.Cell)
	if err := k.Pack(c.id, cell.CmdCreated, cell.Created{Credit: l.cfg.Credit, Reply: reply}); err != nil {
		return fmt.Errorf("link: answering CREATE: %w", err)
	}
	l.mu.Lock()
	defer l.unlock()
	switch {
	case l.err != nil || c.state == closing:
		return ErrClosed
	case c.state != offered || c.recv == nil:
		return fmt.Errorf("link: answering CREATE: the circuit has its answer, or nobody attached to it")
	}
	c.state, c.control = open, k
	c.window.Open(l.cfg.Credit)
	c.had = c.room() > 0
	l.say(c)
	return nil
}

// Room is how many cells Send takes now: as many as there is credit for, at most 32 in all waiting. On a circuit that
// cells were ever forwarded to it does not depend on credit, since a queue that never empties would starve our own. It is
// 0 until what was forwarded in a batch is queued.
func (c *Circ) Room() int {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	c.looked = true
	return c.room()
}

func (c *Circ) room() int {
	switch {
	case c.state != open:
		return 0
	case c.coming.Load() > 0: // ours must not overtake them
		c.missed = true
		return 0
	case c.transit:
		return mostOwn - c.own
	default:
		return max(0, int(min(c.credit, mostOwn))-c.own)
	}
}

// Starved says whether cells of an open circuit wait for credit of which there is none: cells in its queue, or others that the caller
// has for it. While last is the same, none went, and so the peer gave no credit for one.
func (c *Circ) Starved(others bool) (starved bool, last time.Duration) {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	return c.state == open && c.credit <= 0 && (others || c.queue.n > 0), c.used
}

// grew says, under mu, whether Room was 0 and is not now, once for each time.
func (c *Circ) grew() bool {
	has := c.room() > 0
	was := c.had
	c.had = has
	return has && !was
}

// Send queues RELAY and RELAY_EARLY cells that begin here; it copies them and sets their number. It takes all or none:
// ErrRoom if they are more than Room, ErrClosed if the circuit is gone.
func (c *Circ) Send(cells []cell.Cell) error {
	wake, err := c.send(cells)
	if wake {
		c.conn.signal()
	}
	return err
}

// send is Send; wake: the caller has the pen.
func (c *Circ) send(cells []cell.Cell) (wake bool, err error) {
	l := c.conn
	err = ErrClosed // after a panic
	l.mu.Lock()
	defer l.unlock()
	contain.Point("link: send")
	switch {
	case c.state != open || l.err != nil:
		return false, ErrClosed
	case len(cells) > c.room():
		return false, ErrRoom
	}
	c.own += len(cells)
	l.cfg.Budget.queue(len(cells))
	wake = c.enqueue(cells, nil, l.cfg.Budget.now())
	c.had = c.room() > 0
	return wake, nil
}

// Forward queues cells that came in on another circuit, of this link or another; it sets their number, and leaves the
// command. The credit for them returns to from's peer when they have been written, and until then they count as from's: the
// queue holds no more than what was granted to from. It is for from's Receive to call, which must not touch the cells
// afterwards: they are queued, those for one link together, when the batch they came in is done. ErrClosed: this circuit is
// gone; it is not always known yet.
func (c *Circ) Forward(from *Circ, cells []cell.Cell) error {
	if from.conn.batch.forward(move{c, from, cells}) {
		return nil
	}
	wake, err := c.forward(from, cells)
	if wake {
		c.conn.signal()
	}
	return err
}

// forward is Forward outside a batch; wake: the caller has the pen.
func (c *Circ) forward(from *Circ, cells []cell.Cell) (wake bool, err error) {
	l := c.conn
	err = ErrClosed // after a panic
	l.mu.Lock()
	defer l.unlock()
	if c.state != open || l.err != nil {
		return false, ErrClosed
	}
	return c.take(from, cells, l.cfg.Budget.now()), nil
}

// take queues cells that came in on another circuit; wake: the caller has the pen. The caller holds mu.
func (c *Circ) take(from *Circ, cells []cell.Cell, now time.Duration) (wake bool) {
	c.transit = true
	from.conn.expected(len(cells), c.conn.cfg.Budget)
	return c.enqueue(cells, from, now)
}

// enqueue appends cells to the queue; wake: the caller has the pen. The caller holds mu.
func (c *Circ) enqueue(cells []cell.Cell, from *Circ, now time.Duration) (wake bool) {
	if c.queue.n == 0 && len(cells) > 0 {
		c.conn.cfg.Budget.hold(1)
	}
	for i := range cells {
		c.queue.push(&cells[i], c.id, from, now)
	}
	if c.credit <= 0 || c.queue.n == 0 {
		return false
	}
	c.conn.sched.Add(&c.turn)
	return c.conn.rouse()
}

// Taken says that n cells that came on this circuit have been consumed here, so that credit for them may return. Every
// cell is either Taken or Forwarded, once; else the circuit comes to a stop.
func (c *Circ) Taken(n int) {
	l := c.conn
	if l.batch.take(c, n) {
		return
	}
	if l.leftAll([]gone{{c, n, plenty}}, time.Now()) {
		l.signal()
	}
}

// Close ends the circuit: what is queued is dropped, for which no credit returns, and DESTROY goes out. It may be called
// again, and on a circuit that is gone, to no effect.
func (c *Circ) Close(reason cell.DestroyReason) {
	l := c.conn
	l.mu.Lock()
	defer l.unlock()
	if c.state == closing {
		c.parting = false
		return
	}
	c.mine = true
	c.end(reason)
}

// end closes this side of the circuit, which has not been. The caller holds mu.
func (c *Circ) end(reason cell.DestroyReason) {
	unknown := c.state == opening
	c.lose(reason)
	if unknown { // the peer has not heard of it, and never will
		delete(c.conn.circs, c.id)
		c.conn.emptied()
		return
	}
	c.destroy = true
	c.conn.waiting++
	c.conn.cfg.Budget.close(1)
	c.conn.say(c)
}

// lose drops all that the circuit, which has not been closed, holds. The caller holds mu.
func (c *Circ) lose(reason cell.DestroyReason) {
	c.why = reason
	c.state, c.recv, c.ahead, c.control = closing, nil, nil, nil
	c.conn.cfg.Budget.release(c)
	c.queue.drop()
	c.own = 0
}

// free gives the circuit's number back, once both DESTROYs have passed. The caller holds mu.
func (c *Circ) free() {
	if !c.sentDestroy || !c.gotDestroy {
		return
	}
	delete(c.conn.circs, c.id)
	c.conn.waiting--
	c.conn.cfg.Budget.close(-1)
	if c.refused {
		c.conn.refused--
	}
	c.conn.emptied()
}

// grant adds n cells of credit, or takes back what the peer does. The caller holds mu.
func (c *Circ) grant(n int32) error {
	switch {
	case n < 0:
		if !c.window.Returned(-int64(n)) {
			return fault(ReasonCredit, "credit given back that was used already")
		}
		c.conn.cfg.Budget.settle(&c.window, &c.held)
	default:
		if c.credit += int64(n); c.credit > maxCredit {
			return fault(ReasonCredit, "credit for more than %d cells", int64(maxCredit))
		}
		if c.queue.n > 0 {
			c.conn.sched.Add(&c.turn)
		}
	}
	return nil
}

// controls is the queue of circuits that have a CREATE, CREATED or DESTROY to send. Each is in it at most once.
type controls struct{ head, tail *Circ }

func (q *controls) push(c *Circ) {
	if c.listed {
		return
	}
	c.listed, c.next = true, nil
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
}

func (q *controls) pop() *Circ {
	c := q.head
	if c == nil {
		return nil
	}
	if q.head = c.next; q.head == nil {
		q.tail = nil
	}
	c.listed, c.next = false, nil
	return c
}
