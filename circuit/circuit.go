// Package circuit builds circuits and carries streams over them: the client's end of a way through several relays, with
// a layer of encryption for each.
//
// A Circuit has no goroutine of its own. What it sends is sealed by whoever has something to send, or by the link when
// it has room again, and never before there is credit for it; what comes is peeled by the link's reader (spec/circuit.md).
package circuit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/circuit/stream"
)

// Config says what all circuits of a client share.
type Config struct {
	Network cell.NetworkID
	Budget  *stream.Budget // of what came on their streams and waits to be read; nil: each circuit has its own bound only
	Log     *slog.Logger   // nil: silent

	// Panicked is told of a panic in a circuit's own code, which ends that circuit; it may be called with locks held. nil: the log is.
	Panicked func(*contain.Panic)
}

// A Hop is a relay of a circuit. Addrs are where the relay before it reaches it; the first hop needs none.
type Hop struct {
	ID       cell.NodeID
	LinkKey  cell.Key
	OnionKey cell.Key
	Addrs    []netip.AddrPort
}

// A Circuit is a way through one or more relays that ends at the last of them. Its methods may be called by any
// goroutine. It lives until Close, until a relay of it ends it, or until its link is lost.
type Circuit struct {
	cfg  Config
	link *link.Conn // to the first relay
	path []Hop
	mux  *stream.Mux

	done chan struct{}
	mu   sync.Mutex
	err  error // why it ended
	over atomic.Bool
	lazy *time.Timer // until what can wait is sent

	// Both locks are taken to change hops and circ, one to use them. recv goes before send.
	hops []*hop
	circ *link.Circ

	recv     sync.Mutex    // held while a run of cells is handled
	handling atomic.Bool   // the link's reader has recv, or is about to
	bug      atomic.Bool   // what sends has panicked: the circuit is to end
	received atomic.Uint64 // cells

	send   sync.Mutex // held from cipher to queue
	wanted atomic.Bool
	sent   atomic.Uint64 // cells
	extend []byte        // the data of an EXTEND to send; nil: none

	extending atomic.Bool // an EXTEND went and its EXTENDED has not come
	replies   chan []byte // what CREATED or EXTENDED brought
}

// Dial opens a stream to a host, which the last hop resolves and connects to. An error of the far end is a
// *stream.EndError. When ctx ends first the stream is reset and the circuit goes on.
func (c *Circuit) Dial(ctx context.Context, b cell.Begin) (*stream.Stream, error) {
	return c.mux.Dial(ctx, b)
}

// DialEarly is Dial, with the first bytes to write going along with the request (stream.Mux.DialEarly).
func (c *Circuit) DialEarly(ctx context.Context, b cell.Begin, first []byte) (*stream.Stream, error) {
	return c.mux.DialEarly(ctx, b, first)
}

// Open is Dial that does not wait: what is written goes with the request, and the first Read says what came of it.
func (c *Circuit) Open(b cell.Begin) (*stream.Stream, error) { return c.mux.Open(b) }

// DialDir opens a stream to the directory of the last hop.
func (c *Circuit) DialDir(ctx context.Context) (*stream.Stream, error) { return c.mux.DialDir(ctx) }

// OpenDir is DialDir that does not wait, as Open is.
func (c *Circuit) OpenDir() (*stream.Stream, error) { return c.mux.OpenDir() }

// Echo waits until the first relay has had all that the circuit has sent, and until all has come that it had sent by then
// (link.Circ.Echo). An error: ctx or the link ended before.
func (c *Circuit) Echo(ctx context.Context) error {
	c.send.Lock()
	circ := c.circ
	c.send.Unlock()
	return circ.Echo(ctx)
}

// Resolve looks a name up at the last hop.
func (c *Circuit) Resolve(ctx context.Context, r cell.Resolve) (cell.Resolved, error) {
	return c.mux.Resolve(ctx, r)
}

// Hops are the relays of the circuit, the first one first.
func (c *Circuit) Hops() []Hop { return slices.Clone(c.path) }

// Streams is how many streams are open on the circuit.
func (c *Circuit) Streams() int { return c.mux.Streams() }

// Quiet says whether no stream is open, and nothing is left to be said of one: a circuit that is closed before cuts off what the far end
// had yet to give to its host.
func (c *Circuit) Quiet() bool { return c.mux.Quiet() }

// Cells is how many cells the circuit has sent to its first hop and received from it, but CREATE and CREATED.
func (c *Circuit) Cells() (sent, received uint64) { return c.sent.Load(), c.received.Load() }

// Done is closed when the circuit has ended.
func (c *Circuit) Done() <-chan struct{} { return c.done }

// Err is why the circuit has ended: *DestroyedError, *ProtocolError, net.ErrClosed after Close, what CloseFor was given; nil: it has not.
func (c *Circuit) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Lost says whether the link to the first relay has ended. The circuit then ends with it; until it is told it is of no use either.
func (c *Circuit) Lost() bool { return c.link.Err() != nil }

// Close ends the circuit at once, and its streams with it. What is still queued is lost: end the streams first.
func (c *Circuit) Close() error {
	c.fail(errClosed)
	return nil
}

// CloseFor is Close where it is known why: err, which is then what Err and the streams say. It should hold net.ErrClosed.
func (c *Circuit) CloseFor(err error) { c.fail(err) }

var errClosed = fmt.Errorf("circuit: closed at this end: %w", net.ErrClosed)

// fail ends the circuit from this side.
func (c *Circuit) fail(err error) {
	if !c.end(err) {
		return
	}
	c.send.Lock()
	circ := c.circ
	c.send.Unlock()
	if circ != nil {
		circ.Close(cell.DestroyNone) // the same to everybody, whatever happened
	}
}

// end is the end of everything here; false: it had come before. The caller holds neither recv nor send.
func (c *Circuit) end(err error) bool {
	c.mu.Lock()
	first := c.err == nil
	if first {
		c.err = err
		c.over.Store(true)
		close(c.done)
		if c.lazy != nil {
			c.lazy.Stop()
		}
	}
	c.mu.Unlock()
	if !first {
		return false
	}
	var breach *ProtocolError
	if errors.As(err, &breach) {
		c.cfg.Log.Warn("circuit ended: a relay of it broke the protocol, or a cell was changed on its way", "why", err)
	} else {
		c.cfg.Log.Debug("circuit ended", "why", err)
	}
	c.mux.Close(err)
	c.recv.Lock()
	c.send.Lock()
	for _, h := range c.hops {
		h.erase()
	}
	c.send.Unlock()
	c.recv.Unlock()
	return true
}

// A BuildError says at which hop the building of a circuit failed: 0 is the first. Either this hop is at fault or, as it
// was that one's task to reach it, the hop before.
type BuildError struct {
	Hop int
	Err error
}

func (e *BuildError) Error() string { return fmt.Sprintf("circuit: hop %d: %v", e.Hop+1, e.Err) }

func (e *BuildError) Unwrap() error { return e.Err }

// A DestroyedError says that a relay ended the circuit, or that its link was lost (cell.DestroyLinkClosed). Relays tell
// clients no reason.
type DestroyedError struct{ Reason cell.DestroyReason }

func (e *DestroyedError) Error() string {
	switch e.Reason {
	case cell.DestroyLinkClosed:
		return "circuit: the link to the first relay was lost"
	case cell.DestroyNone:
		return "circuit: ended by a relay, which never says why"
	}
	return fmt.Sprintf("circuit: ended by a relay (%v)", e.Reason)
}

// A ProtocolError says that something came which no honest relay sends: a relay of the circuit misbehaves, or a cell was
// changed on its way.
type ProtocolError struct{ Err error }

func (e *ProtocolError) Error() string { return fmt.Sprintf("circuit: %v", e.Err) }

func (e *ProtocolError) Unwrap() error { return e.Err }
