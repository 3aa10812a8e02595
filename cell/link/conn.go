// Package link is the encrypted channel between two neighbours of the network: a Noise handshake, records of whole
// cells under AES-GCM, and on top of them circuits that share the link fairly, each under credit.
//
//	byte 0            pattern and version: 0x11 NK (a client calls), 0x12 IK (a relay calls)
//	handshake         one message each way, of fixed size
//	records           uint16 length | AEAD(1 to 46 cells), in both directions
//
// A Conn has one goroutine that reads and one that writes, both within Serve; what a reader has for other links it writes
// to them itself, as far as they take it at once (pen.go). Each circuit has a queue of its own, which
// cannot hold more than what its sender was granted, so a circuit that stands still harms nobody else (spec/link.md,
// spec/flow.md).
package link

import (
	"crypto/ecdh"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/contain"
)

const defaultCircuits = 16384

// Config is what one node brings to all its links. It is not changed once in use.
type Config struct {
	Network  cell.NetworkID                     // both ends must be of the same network
	ID       cell.NodeID                        // who we are, if Key is not nil
	Key      *ecdh.PrivateKey                   // our X25519 link key; nil: a client, who stays anonymous and cannot Accept
	Identify func(cell.Key) (cell.NodeID, bool) // names the relay behind a link key; nil or false: an accepted link stays nameless
	// Gate, when set, is where the costly part of accepting a link is to be done: it calls do, or returns false. It may wait for as
	// long as the handshake may take.
	Gate   func(from net.Addr, do func()) bool
	Credit uint16  // cells granted at first per circuit and direction; 0: 64, a client's 1024
	Rate   *Rate   // of what is sent, shared by all links of the node; nil: without bounds
	Budget *Budget // of memory, shared by all links of the node, dialled and accepted; nil: without bounds

	MaxCircuits int // circuits on one link, from both ends together; 0: 16384

	// Tap sees every batch of cells in clear, received or about to be sent, from the goroutines of the link; it must not
	// keep or change them. For tests and instruments; nil costs nothing.
	Tap func(in bool, cells []cell.Cell)

	// Bend makes, for each link, what has this node misbehave on it: a func that is given the room of a record, of which the first n cells
	// are about to be sent, and says how many of it are sent instead: at least one. It may change them all, and is called by one
	// goroutine at a time. For test networks that try how others bear it; nil, for every honest node, costs nothing.
	Bend func() func(room []cell.Cell, n int) int
	Log  *slog.Logger // nil: silence

	Now func() time.Time // what the clock says that people have, as it is told in handshakes; nil: time.Now

	// Panicked is told of each panic in a link's own code, which ends that link (ReasonBug); it must not block, and may be called with
	// locks held. nil: the log is.
	Panicked func(*contain.Panic)
}

func (c *Config) clock() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

func (c Config) withDefaults() Config {
	switch {
	case c.Credit != 0:
	case c.Key == nil:
		c.Credit = clientBase
	default:
		c.Credit = relayBase
	}
	if c.MaxCircuits == 0 {
		c.MaxCircuits = defaultCircuits
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c *Config) panicked(p *contain.Panic) {
	switch {
	case c.Panicked != nil:
		c.Panicked(p)
	case c.Log != nil:
		c.Log.Error("a bug: please report this", "in", "link", "panic", p.Value, "stack", p.Stack)
	}
}

// Peer says whom to dial: the relay, its link key, and where it listens (for a Pool).
type Peer struct {
	ID    cell.NodeID
	Key   cell.Key
	Addrs []netip.AddrPort
}

// A Handler takes the circuits that the peer opens.
type Handler interface {
	// Create is called by the link's reader for each CREATE: it must not block, and must copy what it keeps of m.
	// Sooner or later somebody calls c.Attach and c.Reply, or c.Close.
	Create(c *Circ, m cell.Create)
}

// A Conn is a link to one neighbour. Its methods may be called by any goroutine.
type Conn struct {
	nc  net.Conn
	cfg Config

	// Set by the handshake.
	dialer   bool
	peer     cell.NodeID
	named    bool
	peerKey  cell.Key // zero: a client's
	observed netip.Addr
	skew     time.Duration
	in, out  *half // owned by the reader and by whoever has the pen

	pen  *pen          // set by Serve
	box  *inbox        // the reader's; set by Serve
	wake chan struct{} // passes the pen to the writer; capacity 1
	stop chan struct{} // closed when err is set
	done chan struct{} // closed when all is over
	over sync.Once     // closes done

	batch    batch        // what the reader is at, and what is left for its end
	reading  reading      // the reader's
	groups   []group      // the reader's, of the record at hand; kept for its memory
	reserved atomic.Int64 // cells of the batch the reader is at that the budget expects

	born   time.Time
	slowed atomic.Bool // brake is to be looked at

	mu       sync.Mutex
	err      error // why the link ended; nil: it has not
	serving  bool
	idle     bool // nobody has the pen (pen.go)
	timer    *time.Timer
	timed    time.Time // when it goes off
	padding  padding
	stats    Stats
	circs    map[cell.CircID]*Circ
	nextID   uint32
	waiting  int       // circuits of circs that are closed here, and whose DESTROYs have not both passed
	refused  int       // circuits of circs that there was no room for
	unused   time.Time // since when there has been no circuit
	sched    sched
	controls controls // circuits with a CREATE, CREATED or DESTROY to send
	answer   uint16   // Answer of the next CREDIT cell; 0: nobody asked

	owing      []*Circ       // circuits whose cells left since credit was last granted to them
	creditDue  bool          // a CREDIT cell shall go now
	creditSoon bool          // or when creditPause is over
	lastCredit time.Duration // since born
	spare      []*Circ       // circuits that have credit to give back
	giveBack   time.Duration // when to look for such again
	trip       trip
	pacing     pacing
	brake      brake
	grants     cell.CreditCell // the CREDIT cell in the making; kept for its memory

	came   time.Time   // when a record came last, or the link began
	asking bool        // a CREDIT cell shall ask, whether it grants or not
	echoes []*echo     // who waits for answers: each once, until it has its answer or gives up
	check  *time.Timer // ends the link if nothing comes until then; nil: nobody waits

	idleAfter time.Duration // close when there has been no circuit for so long; 0: never
}

// newConn makes a link of what the handshake agreed on: keys of keySize bytes each, which are erased.
func newConn(nc net.Conn, cfg Config, dialer bool, keyIn, keyOut []byte) *Conn {
	if t, ok := nc.(*net.TCPConn); ok {
		t.SetNoDelay(true) // a record is written at once; an error would come back with the first Write
	}
	c := &Conn{
		nc: nc, cfg: cfg, dialer: dialer,
		in: newHalf(keyIn), out: newHalf(keyOut),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		circs: make(map[cell.CircID]*Circ),
		born:  time.Now(), unused: time.Now(), came: time.Now(),
		lastCredit: -creditPause, giveBack: idlePause,
		// The timer is set when the writer first waits.
	}
	clear(keyIn)
	clear(keyOut)
	return c
}

// Serve runs the link until Close, loss or an error, and returns why it ended (Err) when its goroutines are gone and
// every circuit has been told. A nil h makes a CREATE the peer's error, as a client must. Call it exactly once.
func (c *Conn) Serve(h Handler) error {
	c.mu.Lock()
	if c.err != nil { // Close has seen to everything
		defer c.mu.Unlock()
		return c.err
	}
	c.serving = true
	now := time.Now()
	c.unused = now
	c.padding.Heard(now, rand.Uint64())
	c.timer, c.timed = time.NewTimer(c.padding.Wait(now)), c.padding.due
	c.pen, c.box = newPen(c), new(inbox)
	c.mu.Unlock()
	defer c.timer.Stop()
	c.cfg.Budget.join(c)
	defer c.cfg.Budget.leave(c)

	var writer contain.Group
	writer.Go(c.bug, func() { c.fail(c.pen.write()) })
	if p := contain.Do(func() { c.fail(c.read(h)) }); p != nil {
		c.bug(p)
	}
	writer.Wait()
	c.finish()
	c.over.Do(func() { close(c.done) })
	return c.Err()
}

// Close ends the link at once: what is queued is lost. Circuits that have a Receiver hear of it from Serve, or, if nobody
// serves the link, before Close returns. It does not wait for Serve: Done does. It returns nil.
func (c *Conn) Close() error {
	c.fail(&Error{ReasonClosed, ErrClosed})
	c.mu.Lock()
	first := false
	serving := c.serving
	c.mu.Unlock()
	if !serving {
		c.over.Do(func() { first = true })
	}
	if first { // not within Do: a Receiver may call Close
		c.finish()
		close(c.done)
	}
	return nil
}

// bug ends the link because its own code panicked. The caller does not hold mu.
func (c *Conn) bug(p *contain.Panic) {
	c.cfg.panicked(p)
	c.fail(fault(ReasonBug, "%w", p))
}

// unlock unlocks mu, deferred, where more is done under it than to set fields: a panic then ends this link, and neither leaves it locked
// for others nor ends the circuit of another link that called.
func (c *Conn) unlock() {
	v := recover()
	c.mu.Unlock()
	if v != nil {
		c.bug(contain.Caught(v))
	}
}

// told runs what a Receiver does at the end of its circuit. A panic of one is told, and does not keep the others from hearing.
func (c *Conn) told(do func()) {
	if p := contain.Do(do); p != nil {
		c.bug(p)
	}
}

// fail ends the link for the first reason given; nil is none.
func (c *Conn) fail(err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
		c.unchecked()
		c.stats.Errors[ReasonOf(err)]++
		close(c.stop)
	}
	c.mu.Unlock()
	if first {
		c.nc.Close()
		c.cfg.Log.Debug("link ended", "why", err)
	}
}

// finish tells the circuits of a link that has ended. Reader and writer are gone.
func (c *Conn) finish() {
	c.in.erase()
	c.out.erase()
	c.mu.Lock()
	if c.pacing.cells > 0 { // what it will not send is for others
		c.cfg.Rate.giveBack(c.pacing.cells)
		c.pacing.cells = 0
	}
	c.mu.Unlock()
	for _, r := range c.loseAll() {
		c.told(func() { r.Closed(cell.DestroyLinkClosed) })
	}
}

// loseAll ends all circuits, and returns who is to hear of it.
func (c *Conn) loseAll() (told []Receiver) {
	c.mu.Lock()
	defer c.unlock()
	for id, circ := range c.circs {
		if circ.state != closing {
			if circ.recv != nil {
				told = append(told, circ.recv)
			}
			circ.lose(cell.DestroyLinkClosed)
			circ.told = cell.DestroyLinkClosed
		}
		delete(c.circs, id)
	}
	c.sched, c.controls, c.owing, c.spare = sched{}, controls{}, nil, nil
	c.cfg.Budget.close(-c.waiting)
	c.waiting = 0
	return told
}

// Done is closed when Serve is about to return, or at Close of a link that nobody serves.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is nil while the link lasts; then it is an *Error that says why it ended, after Close one that is ErrClosed.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// PeerID is who is at the other end; false: somebody without a name, as clients are. It is proved, not claimed.
func (c *Conn) PeerID() (cell.NodeID, bool) { return c.peer, c.named }

// PeerKey is the link key that the other end has proved to hold; false: none, as clients.
func (c *Conn) PeerKey() (cell.Key, bool) { return c.peerKey, c.peerKey != cell.Key{} }

// Observed is our own address as the responder saw it; invalid on accepted links, and if it did not say.
func (c *Conn) Observed() netip.Addr { return c.observed }

// Skew is how far the responder's clock is ahead of ours, give or take half a round trip; 0 on accepted links.
func (c *Conn) Skew() time.Duration { return c.skew }

// RemoteAddr is the address at the other end of the connection.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Circuits is how many circuits there are, those included that the peer has not yet confirmed to be closed.
func (c *Conn) Circuits() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.circs)
}

// Stats is what went over the link so far.
func (c *Conn) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Circuits = len(c.circs)
	return s
}
