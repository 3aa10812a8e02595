package circuit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"peel/cell"
	"peel/cell/hybrid"
	"peel/cell/link"
	"peel/circuit/stream"
)

// MaxHops is how many hops a circuit may have: the first, and one for each EXTEND that it may send.
const MaxHops = cell.MaxEarly + 1

// Build makes a circuit along hops, the first of which is the peer of the link. When it fails the error is a *BuildError,
// and what was built is ended; so it is when ctx ends.
func Build(ctx context.Context, lc *link.Conn, cfg Config, hops []Hop) (*Circuit, error) {
	if len(hops) == 0 || len(hops) > MaxHops {
		return nil, fmt.Errorf("circuit: %d hops: must be 1 to %d", len(hops), MaxHops)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Circuit{
		cfg:     cfg,
		link:    lc,
		path:    slices.Clone(hops),
		done:    make(chan struct{}),
		replies: make(chan []byte, 1),
	}
	c.mux = stream.NewMux(stream.Config{Wake: c.wake, Later: c.wakeLater, Budget: cfg.Budget})
	for i := range hops {
		if err := c.grow(ctx, lc, i); err != nil {
			err = &BuildError{i, err}
			c.fail(err)
			return nil, err
		}
	}
	return c, nil
}

var errParameters = errors.New("the relay's handshake carries parameters of another version")

// grow adds the hop with this index.
func (c *Circuit) grow(ctx context.Context, lc *link.Conn, index int) error {
	to, suite := c.path[index], cell.SuiteCGO
	id := to.OnionKey.ID()
	handshake, request, err := hybrid.Initiate(hybrid.Config{
		Pattern:  hybrid.NK,
		Prologue: Prologue(c.cfg.Network, to.ID, id, suite),
		Peer:     to.OnionKey,
	})
	if err != nil {
		return err
	}
	if index == 0 {
		err = c.open(lc, to, cell.Create{Suite: suite, Key: id, Request: request})
	} else {
		spec := cell.LinkSpec{ID: to.ID, Addrs: to.Addrs}
		err = c.ask(cell.Extend{To: spec, Suite: suite, Key: id, Request: request})
	}
	if err != nil {
		return err
	}
	select {
	case reply := <-c.replies:
		return c.add(handshake, reply)
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return fmt.Errorf("no answer yet: %w", context.Cause(ctx))
	}
}

// open begins the circuit at its first hop.
func (c *Circuit) open(lc *link.Conn, to Hop, create cell.Create) error {
	if id, ok := lc.PeerID(); ok && id != to.ID {
		return fmt.Errorf("the link leads to %v, not to %v", id, to.ID)
	}
	c.recv.Lock()
	defer c.recv.Unlock()
	c.send.Lock()
	defer c.send.Unlock()
	var err error
	c.circ, err = lc.Open(receiver{c}, create)
	return err
}

// ask has the last hop extend the circuit.
func (c *Circuit) ask(e cell.Extend) error {
	if err := e.Check(); err != nil {
		return err
	}
	c.send.Lock()
	c.extend = e.Append(nil)
	c.send.Unlock()
	c.wake()
	return nil
}

// add finishes the handshake with a new hop.
func (c *Circuit) add(handshake *hybrid.Initiator, reply []byte) error {
	parameters, secrets, err := handshake.Finish(reply)
	if err != nil {
		return err
	}
	if len(parameters) > 0 {
		secrets.Erase()
		return errParameters
	}
	h := newHop(secrets)
	c.recv.Lock()
	defer c.recv.Unlock()
	c.send.Lock()
	defer c.send.Unlock()
	if c.over.Load() {
		h.erase()
		return c.Err()
	}
	h.fresh = mark{c.sent.Load(), c.received.Load(), time.Now()}
	c.hops = append(c.hops, h)
	return nil
}
