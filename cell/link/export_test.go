package link

import (
	"time"

	"peel/cell"
)

// NearRatchet makes both ends of a link move their keys on after n more records in either direction. Neither is served yet.
func NearRatchet(n uint64, conns ...*Conn) {
	for _, c := range conns {
		c.in.records, c.out.records = ratchetRecords-n, ratchetRecords-n
	}
}

// Records is how many records went under the present keys. The link has ended.
func Records(c *Conn) (in, out uint64) { return c.in.records, c.out.records }

// A Raw is a link that a test speaks over by hand, after a proper handshake.
type Raw struct {
	c   *Conn
	box inbox
}

// NewRaw takes over c, which nobody serves.
func NewRaw(c *Conn) *Raw { return &Raw{c: c} }

// Send writes cells as one record.
func (r *Raw) Send(cells ...cell.Cell) error {
	wire := make([]byte, maxRecord)
	copy(space(wire), cells)
	record, err := r.c.out.seal(wire, len(cells))
	if err == nil {
		_, err = r.c.nc.Write(record)
	}
	return err
}

// SendSize writes a record of n bytes, well sealed, whatever n is.
func (r *Raw) SendSize(n int) error {
	head := []byte{byte((n + tagSize) >> 8), byte(n + tagSize)}
	_, err := r.c.nc.Write(r.c.out.aead.Seal(head, r.c.out.nonce[:], make([]byte, n), head))
	return err
}

// Receive reads the cells of the next record.
func (r *Raw) Receive() ([]cell.Cell, error) {
	for {
		if r.box.buf != nil {
			record, err := r.box.record()
			if err != nil {
				return nil, err
			}
			if record != nil {
				return r.c.in.open(record)
			}
		}
		if err := r.box.fill(r.c.nc); err != nil {
			return nil, err
		}
	}
}

// Busy says whether a link reads into a big buffer, and Owing how many circuits it keeps a list of as owed credit.
func Busy(c *Conn) bool { return c.box.lent.Load() }
func Owing(c *Conn) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.owing)
}

// RaceEnabled says that the race detector is at work.
const RaceEnabled = raceEnabled

// A State is one direction of a circuit at the end that receives, and the other direction's credit.
type State struct {
	Size, Base, Limit, Recv, Left, Extra int64 // of the window
	Credit                               int64 // to send
	Queued                               int   // to be sent
	Open                                 bool
}

// StateOf looks at a circuit.
func StateOf(c *Circ) State {
	c.conn.mu.Lock()
	defer c.conn.mu.Unlock()
	w := &c.window
	return State{w.size, w.base, w.limit, w.recv, w.left, w.Extra(), c.credit, c.queue.n, c.state == open}
}

// Extra is what the windows of a link hold above their bases, and Queued what is queued on it.
func Extra(c *Conn) (extra int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.circs {
		if x.state == open {
			extra += x.window.Extra()
		}
	}
	return extra
}

func Queued(c *Conn) (cells int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.circs {
		cells += int64(x.queue.n)
	}
	return cells
}

// BoundQueued sets how many cells may be queued apart from how much credit there may be.
func BoundQueued(b *Budget, cells int64) { b.most = cells }

// RTT is what the kernel says of a link's round trip, if it does.
func RTT(c *Conn) (d time.Duration, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trip.rtt, c.trip.kernel
}

// QueuedSize is what a budget counts for a cell, in bytes.
const QueuedSize = queuedSize

// Queues is how many queues a budget counts as not empty.
func Queues(b *Budget) int64 { return b.queues.Load() }

// Waiting is how many circuits of a link have cells queued.
func Waiting(c *Conn) (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.circs {
		if x.queue.n > 0 {
			n++
		}
	}
	return n
}

// Timed is when a link's writer is woken though nothing comes.
func Timed(c *Conn) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.timed
}
