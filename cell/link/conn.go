// Package link is the encrypted channel between two nodes: a Noise handshake, then records of whole cells under AEAD, with a
// queue and a credit for each circuit in each direction (spec/link.md, spec/flow.md).
package link

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
)

// Config is what the links of a node share. Network is needed; the rest has defaults.
type Config struct {
	Network  cell.NetworkID
	ID       cell.NodeID                        // who we are
	Key      *ecdh.PrivateKey                   // our X25519 link key; nil: a client, anonymous, which cannot Accept
	Identify func(cell.Key) (cell.NodeID, bool) // names the relay behind a link key, from the consensus; nil or false: nameless
	Log      *slog.Logger                       // nil: silent
	Tap      func(in bool, cells []cell.Cell)   // for tests and instruments: every batch in clear, received or about to be sent; nil costs nothing

	Credit      uint16        // cells the peer may send on a new circuit before we grant more; 0: 1024
	MaxCircuits int           // that each side may open on a link; 0: 16384
	Idle        time.Duration // a link without circuits is closed after this; 0: never
}

const (
	defaultCredit      = 1024
	defaultMaxCircuits = 16384
)

func (c *Config) credit() uint16 {
	if c.Credit == 0 {
		return defaultCredit
	}
	return c.Credit
}

func (c *Config) maxCircuits() int {
	if c.MaxCircuits == 0 {
		return defaultMaxCircuits
	}
	return c.MaxCircuits
}

// Peer is a node to link to: who it is, its link key, and where it listens.
type Peer struct {
	ID    cell.NodeID
	Key   cell.Key
	Addrs []netip.AddrPort
}

// Handler takes the circuits that the peer opens.
type Handler interface {
	// Create is called by the link's reader: it must not block, and must copy what it keeps of m. Sooner or later it is
	// answered by Attach and Reply, or by Close.
	Create(c *Circ, m cell.Create)
}

// Receiver takes what arrives for one circuit. Its methods are called by the goroutines of the link and must not block.
type Receiver interface {
	// Created brings the answer to our CREATE, once; reply is valid during the call.
	Created(reply []byte)
	// Receive brings a run of RELAY and RELAY_EARLY cells in order. They may be changed in place and are valid during the call.
	Receive(cells []cell.Cell)
	// Room says that Circ.Room has been 0 and is not now. It may be called at the same time as the others.
	Room()
	// Closed says that a DESTROY came or the link was lost (LinkClosed). It is the last call, and does not follow our own Close.
	Closed(reason cell.DestroyReason)
}

// Conn is a link. Dial or Accept makes it, Serve works it.
type Conn struct {
	cfg      *Config
	nc       net.Conn
	dialled  bool
	peer     cell.NodeID
	named    bool
	observed netip.Addr
	skew     time.Duration
	in, out  *half // in belongs to the reader, out to the writer
	stats    Stats
	last     atomic.Int64 // when a record last went either way, in nanoseconds since 1970
	wake     chan struct{}
	done     chan struct{}

	mu      sync.Mutex
	err     error // why the link is over; nil: it is not
	served  bool
	circs   map[cell.CircID]*Circ
	opened  int // circuits in circs that we opened
	id      cell.CircID
	control []control // cells that need no credit, in order
	sched   sched
	owing   []*Circ // circuits to whose sender credit is owed
	due     bool    // some of it should go now
	granted time.Time
	answer  uint16    // to a CREDIT cell that asked; 0: none
	empty   time.Time // since when there is no circuit
}

func newConn(nc net.Conn, cfg *Config, dialled bool) *Conn {
	c := &Conn{
		cfg: cfg, nc: nc, dialled: dialled,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		circs: make(map[cell.CircID]*Circ), empty: time.Now(),
	}
	c.last.Store(time.Now().UnixNano())
	return c
}

// PeerID is who the peer is; false: a client, or a relay whose link key Config.Identify does not know.
func (c *Conn) PeerID() (cell.NodeID, bool) { return c.peer, c.named }

// Observed is our own address as the responder saw it; not valid on links that were accepted.
func (c *Conn) Observed() netip.Addr { return c.observed }

// Skew is how far the responder's clock was ahead of ours, give or take a second and the round trip; 0 on links that were
// accepted.
func (c *Conn) Skew() time.Duration { return c.skew }

// RemoteAddr is the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Done is closed when the link is over.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the link is over; nil: it is not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Stats are the link's counters.
func (c *Conn) Stats() *Stats { return &c.stats }

// Circuits is how many circuits the link carries, those included whose end the peer has not yet confirmed.
func (c *Conn) Circuits() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.circs)
}

// ErrClosed is why a link is over that we closed ourselves.
var ErrClosed = errors.New("link: closed")

// ErrIdle is why a link is over that carried no circuit for long.
var ErrIdle = errors.New("link: closed for want of circuits")

// Close ends the link at once. What is queued is lost, and every circuit hears of it. Serve then returns.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	return nil
}

// fail ends the link for the first reason given. The circuits are told when the link's goroutines are gone, so that Closed
// is the last they hear; at once if there are none.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	close(c.done)
	served := c.served
	c.mu.Unlock()
	c.nc.Close()
	if !served {
		c.bury()
	}
}

// bury tells every circuit that the link is over.
func (c *Conn) bury() {
	c.mu.Lock()
	var lost []Receiver
	for _, circ := range c.circs {
		if circ.receiver != nil {
			lost = append(lost, circ.receiver)
		}
		circ.end()
	}
	clear(c.circs)
	c.control, c.owing = nil, nil
	c.mu.Unlock()
	for _, r := range lost {
		r.Closed(cell.DestroyLinkClosed)
	}
}

// Serve works the link until it is over and returns why when both of its goroutines are gone: nil after Close. It is called
// once. h takes the circuits that the peer opens; with nil the peer may open none.
func (c *Conn) Serve(h Handler) error {
	c.mu.Lock()
	if c.served || c.err != nil {
		defer c.mu.Unlock()
		if c.err == nil {
			return errors.New("link: Serve called twice")
		}
		return c.over()
	}
	c.served = true
	c.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { c.fail(c.write()) })
	c.fail(c.read(h))
	wg.Wait()
	c.bury()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over()
}

// over is what Serve returns. The caller holds mu.
func (c *Conn) over() error {
	if c.err == ErrClosed {
		return nil
	}
	return c.err
}

// poke wakes the writer.
func (c *Conn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// handshake is the work that a dialled and an accepted link have in common around their handshake: a deadline, and an end when
// ctx ends.
func handshake(ctx context.Context, nc net.Conn, do func() (*Conn, error)) (*Conn, error) {
	nc.SetDeadline(time.Now().Add(handshakeTimeout))
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	c, err := do()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("link: handshake with %v: %w", nc.RemoteAddr(), err)
	}
	nc.SetDeadline(time.Time{})
	return c, nil
}
