package circuit

import (
	"bytes"
	"errors"
	"fmt"

	"peel/cell"
	"peel/cell/contain"
)

// receiver is the side of a Circuit that its link sees (link.Receiver).
type receiver struct{ *Circuit }

// Created brings the first hop's half of the handshake.
func (r receiver) Created(reply []byte) { r.reply(reply) }

func (c *Circuit) reply(b []byte) {
	select {
	case c.replies <- bytes.Clone(b):
	default: // one is asked for at a time, and more than that is refused before
	}
}

// Room says that the link takes cells again.
func (r receiver) Room() { r.wake() }

// Closed says that a relay has ended the circuit, or that the link was lost.
func (r receiver) Closed(reason cell.DestroyReason) { r.end(&DestroyedError{reason}) }

// Receive takes a run of cells. It is called by the link's reader.
func (r receiver) Receive(cells []cell.Cell) {
	c := r.Circuit
	c.handling.Store(true)
	c.recv.Lock()
	circ := c.circ
	var err error
	ok := c.survive(func() { err = c.receive(cells) })
	c.recv.Unlock()
	c.handling.Store(false)
	if !ok || c.bug.Load() {
		c.fail(errPanic)
		return
	}
	if err != nil {
		c.fail(&ProtocolError{err})
		return
	}
	circ.Taken(len(cells))
	n := c.received.Add(uint64(len(cells)))
	if n/rekeyCells != (n-uint64(len(cells)))/rekeyCells {
		c.wake() // for REKEY; what streams have to say wakes by itself
	}
}

var errUnknown = errors.New("a cell that no hop sealed: it was changed on its way, or a relay made it up")

// receive handles a run of cells. Every breach ends the circuit, and always in the same way.
func (c *Circuit) receive(cells []cell.Cell) error {
	contain.Point("circuit: receive")
	c.mux.Hold() // who reads a stream shall find all of the run
	defer c.mux.Release()
	for i := range cells {
		if c.over.Load() {
			return nil
		}
		if err := c.peel(&cells[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *Circuit) peel(from *cell.Cell) error {
	if from.Command() != cell.CmdRelay {
		return fmt.Errorf("%v towards the client", from.Command())
	}
	ad, body := byte(from.Command()), from.Body()
	for i, h := range c.hops {
		if h.backward.Peel(ad, body) {
			m, err := cell.ParseMessage(body)
			if err != nil {
				return fmt.Errorf("hop %d: %w", i+1, err)
			}
			if err := c.handle(i, m); err != nil {
				return fmt.Errorf("hop %d: %w", i+1, err)
			}
			return nil
		}
	}
	return errUnknown
}

// handle takes a message from the hop with this index.
func (c *Circuit) handle(index int, m cell.Message) error {
	last := index == len(c.hops)-1
	switch {
	case m.Type == cell.MsgRekey:
		if !c.hops[index].asked.CompareAndSwap(true, false) {
			return errors.New("REKEY that was not asked for")
		}
		c.wake() // it may be time again
		return nil
	case !last:
		return fmt.Errorf("%v, which only the last hop may send", m.Type)
	case m.Type == cell.MsgExtended:
		e, err := cell.ParseExtended(m.Data)
		if err != nil {
			return err
		}
		if !c.extending.CompareAndSwap(true, false) {
			return errors.New("EXTENDED that was not asked for")
		}
		c.reply(e.Reply)
		return nil
	}
	return c.mux.Receive(m)
}
