package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/circuit/layer"
	"peel/circuit/stream"
)

// mostRekeys is how many REKEY messages may wait for their answer. An honest client asks for one at a time.
const mostRekeys = 4

// transit is one circuit at this relay: it passes through, or it ends here. Forward cells are peeled by the reader of
// the link they came in on, backward cells are wrapped by the reader of theirs; a cell changes goroutine only in the
// queue of the link it leaves by.
type transit struct {
	relay *Relay
	prev  *link.Circ // towards the client
	mux   *stream.Mux

	seat  place  // among the relay's circuits
	opens *opens // streams and look-ups that begin; guarded by fmu
	asks  *asks  // requests to the directory; the same

	fwd, back *layer.Layer // never another

	fmu   sync.Mutex // forward: fwd, and held from the first cell of a batch to the last. Before mu.
	spent bool       // fwd is erased
	early int

	mu       sync.Mutex // backward: back, and held from cipher to queue
	next     *link.Circ // towards the exit; nil: the circuit ends here
	growing  bool       // an EXTEND is under way
	extended []byte     // the answer to it that waits to be sent
	rekeys   int        // answers to REKEY that wait to be sent
	over     bool
	life     context.Context // ends with the circuit; nil: no task has needed it yet
	end      context.CancelFunc

	stills [2]standstill // towards the client, and towards the exit; of keepMoving alone

	joined chan struct{} // closed when the next relay has answered
	turns  chan struct{} // see turn; nil: nobody waited for the rate yet
}

// batches holds the cells between cipher and queue.
var batches = sync.Pool{New: func() any { return new([32]cell.Cell) }}

// fromPrev receives what comes from the client's side.
type fromPrev struct{ *transit }

// fromNext receives what comes from the exit's side.
type fromNext struct{ *transit }

func (t fromPrev) Created([]byte) {} // we did not open it

// Prefetch is for the peeling that Receive will do.
func (t fromPrev) Prefetch() { t.fwd.Prefetch() }

// Receive peels a run of forward cells: those for this relay are handled, the others go on as they are.
func (t fromPrev) Receive(cells []cell.Cell) {
	t.survive(func() error { return t.forward(cells) })
}

func (t fromPrev) Room() {
	t.survive(func() error { t.pump(); return nil })
}

func (t fromPrev) Closed(cell.DestroyReason) { t.destroy() }

// survive destroys the circuit if do fails or panics, so that the link and its other circuits go on. No lock is held.
func (t *transit) survive(do func() error) {
	err := errPanic
	t.relay.guard("circuit", func() { err = do() })
	if err != nil {
		if err != errPanic && err != errLimited { // these are counted as such
			t.relay.stats.Breaches.Add(1)
		}
		t.relay.log.Debug("circuit ended", "why", err)
		t.destroy()
	}
}

// overfull ends a circuit whose streams that were refused or are over take the memory of others. Who calls it holds locks of another.
func (t *transit) overfull() {
	r := t.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closing {
		r.stats.CircuitsShed.Add(1)
		r.wg.Go(r.bug("circuit"), t.destroy)
	}
}

// start runs a task of the circuit (Relay.start). Its context ends with the circuit. The caller does not hold mu.
func (t *transit) start(kind *crowd, w *task) bool {
	t.mu.Lock()
	if t.life == nil && !t.over {
		t.life, t.end = context.WithCancel(t.relay.ctx)
	}
	life := t.life
	t.mu.Unlock()
	return life != nil && t.relay.start(life, kind, w)
}

// forward peels cells and sends on, together, those between two that are ours.
func (t *transit) forward(cells []cell.Cell) error {
	t.fmu.Lock()
	defer t.fmu.Unlock()
	contain.Point("relay: forward")
	if t.spent {
		return nil // destroyed meanwhile
	}
	t.relay.stats.Cells.Add(uint64(len(cells)))
	held := false
	defer func() {
		if held {
			t.mux.Release()
		}
	}()
	passed := 0 // from here on cells are peeled and not yet sent
	alike := 0  // up to here all that are left have one command
	for i := 0; i < len(cells); {
		if i == alike {
			n := late(cells[i:])
			if n == 0 { // an early one goes by itself: they are few
				if t.early++; t.early > cell.MaxEarly {
					return errors.New("relay: more RELAY_EARLY cells than a circuit may send")
				}
				n = 1
			}
			alike += n
		}
		done, ours := t.fwd.PeelRun(byte(cells[i].Command()), cell.Bodies(cells[i:alike]), cell.Size)
		i += done
		if !ours {
			continue
		}
		c := &cells[i-1]
		if err := t.pass(cells[passed : i-1]); err != nil {
			return err
		}
		passed = i
		if !held { // who reads a stream shall find all of the run
			held = true
			t.mux.Hold()
		}
		err := t.handle(c)
		t.taken()
		if err != nil {
			return err
		}
	}
	return t.pass(cells[passed:])
}

// late is how many cells come before the first that is RELAY_EARLY.
func late(cells []cell.Cell) int {
	for i := range cells {
		if cells[i].Command() == cell.CmdRelayEarly {
			return i
		}
	}
	return len(cells)
}

// pass sends peeled cells to the next relay.
func (t *transit) pass(cells []cell.Cell) error {
	if len(cells) == 0 {
		return nil
	}
	t.mu.Lock()
	next := t.next
	t.mu.Unlock()
	if next == nil {
		return errors.New("relay: a cell nobody here can read")
	}
	return next.Forward(t.prev, cells)
}

// handle does what a message for this relay asks.
func (t *transit) handle(c *cell.Cell) error {
	m, err := cell.ParseMessage(c.Body())
	if err != nil {
		return err
	}
	if heard := t.relay.cfg.Heard; heard != nil {
		heard(t.prev.Conn().RemoteAddr(), m)
	}
	switch m.Type {
	case cell.MsgExtend:
		if c.Command() != cell.CmdRelayEarly {
			return errors.New("relay: EXTEND outside RELAY_EARLY")
		}
		e, err := cell.ParseExtend(m.Data)
		if err != nil {
			return err
		}
		return t.extend(e)
	case cell.MsgRekey:
		return t.rekey()
	default:
		if t.grown() {
			return fmt.Errorf("relay: %v at a hop that is not the last", m.Type)
		}
		return t.mux.Receive(m)
	}
}

// grown says whether this relay is, or is about to be, no longer the circuit's last.
func (t *transit) grown() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next != nil || t.growing
}

// rekey notes that an answer is due: its Seal moves the backward keys, as the message moved the forward ones.
func (t *transit) rekey() error {
	t.mu.Lock()
	t.rekeys++
	n := t.rekeys
	t.mu.Unlock()
	if n > mostRekeys {
		return errors.New("relay: more REKEY messages than may wait for an answer")
	}
	t.pump()
	return nil
}

// Created: the next relay joined; the client hears of it.
func (t fromNext) Created(reply []byte) {
	t.survive(func() error { t.extendedBy(reply); return nil })
}

func (t *transit) extendedBy(reply []byte) {
	data := cell.Extended{Reply: reply}.Append(nil)
	t.mu.Lock()
	t.extended, t.growing = data, false
	t.mu.Unlock()
	close(t.joined)
	t.pump()
}

// Prefetch is for the wrapping that Receive will do.
func (t fromNext) Prefetch() { t.back.Prefetch() }

// Receive wraps a run of backward cells and sends them on.
func (t fromNext) Receive(cells []cell.Cell) {
	t.survive(func() error { return t.backward(cells) })
}

func (t fromNext) Room() {} // nothing begins here that goes forward

func (t fromNext) Closed(cell.DestroyReason) { t.destroy() }

func (t *transit) backward(cells []cell.Cell) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	contain.Point("relay: backward")
	if t.over {
		return nil
	}
	if late(cells) < len(cells) {
		return errors.New("relay: RELAY_EARLY towards the client")
	}
	t.back.WrapRun(byte(cell.CmdRelay), cell.Bodies(cells), cell.Size)
	t.relay.stats.Cells.Add(uint64(len(cells)))
	return t.prev.Forward(t.next, cells)
}

// wake pumps for the streams, whoever woke them. It may hold fmu, so that another goroutine destroys the circuit if that panics.
func (t *transit) wake() {
	if r := t.relay; !r.guard("circuit", t.pump) {
		r.later("circuit", t.destroy)
	}
}

// pump seals what waits to go to the client while the link takes it.
func (t *transit) pump() {
	b := batches.Get().(*[32]cell.Cell)
	defer batches.Put(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	contain.Point("relay: pump")
	for !t.over {
		n := 0
		for room := min(t.prev.Room(), len(b)); n < room && t.message(b[n].Body()); n++ {
			b[n].SetCommand(cell.CmdRelay)
			t.back.Seal(byte(cell.CmdRelay), b[n].Body())
		}
		if n == 0 || t.prev.Send(b[:n]) != nil {
			return // a circuit that takes no more is being destroyed
		}
		t.relay.stats.Cells.Add(uint64(n))
	}
}

// message puts the next message for the client into body; false: there is none. The caller holds mu.
func (t *transit) message(body []byte) bool {
	switch {
	case t.extended != nil:
		n := copy(cell.DataSpace(body), t.extended)
		cell.FinishMessage(body, cell.MsgExtended, 0, n)
		t.extended = nil
	case t.rekeys > 0:
		cell.FinishMessage(body, cell.MsgRekey, 0, 0)
		t.rekeys--
	default:
		return t.mux.Next(body)
	}
	return true
}

// destroy ends the circuit on both sides. The reason told is always the same, so that nobody learns from it.
func (t *transit) destroy() {
	t.mu.Lock()
	if t.over {
		t.mu.Unlock()
		return
	}
	t.over = true
	next, end := t.next, t.end
	t.back.Erase()
	t.mu.Unlock()

	if end != nil {
		end()
	}
	t.prev.Close(cell.DestroyNone)
	if next != nil {
		next.Close(cell.DestroyNone)
	}
	t.mux.Close(errDestroyed)
	t.fmu.Lock()
	t.fwd.Erase()
	t.spent = true
	opens := t.opens
	t.fmu.Unlock()
	if opens != nil {
		opens.end()
	}
	t.relay.forget(t)
}

var (
	errDestroyed = errors.New("relay: the circuit was destroyed")
	errLimited   = errors.New("relay: EXTEND from an address that asks for too many")
	errPanic     = errors.New("relay: a bug in what the circuit asked for")
)
