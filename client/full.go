package client

import (
	"context"
	"errors"
	"time"

	"peel/cell"
	"peel/circuit/stream"
)

// What a relay takes of one circuit (spec/queues.md, section 3): a client that asks for more is refused.
const (
	mostStreams = 256 // open
	mostAsked   = 64  // not answered yet

	queueFor = time.Second      // wait for those that were asked before; then for another circuit
	fullFor  = 10 * time.Second // a circuit takes no streams after its last relay was busy: doubled each time
	fullMost = 6                // times
)

// full says whether a circuit has all the streams that its last relay takes, with those that are about to be asked for. The caller holds
// the pool's mu.
func (h *held) full(now time.Time) bool {
	n := h.users
	if h.isBuilt() {
		n += max(0, h.circuit.Streams()-len(h.line)) // those that are being asked for are in both
	}
	return n >= mostStreams || now.Before(h.fullUntil)
}

// join has one more request take the circuit. The caller holds the pool's mu.
func (h *held) join(r request, now time.Time) {
	if !h.taken {
		h.taken, h.token, h.first = true, r.token, now
	}
	if h.line == nil {
		h.line = make(chan struct{}, mostAsked)
	}
	h.users++
	h.last = now
}

// queue waits until fewer streams than a relay takes are being asked for on a circuit that was taken; false: not within that time. 0: any.
func (h *held) queue(ctx context.Context, within time.Duration) bool {
	select {
	case h.line <- struct{}{}:
		return true
	default:
	}
	var over <-chan time.Time
	if within > 0 {
		timer := time.NewTimer(within)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case h.line <- struct{}{}:
		return true
	case <-over:
	case <-ctx.Done():
	}
	return false
}

// failed takes a circuit that failed a stream out of use; streams that are on it may finish. One whose last relay is busy is good for others later.
func (p *pool) failed(h *held, err error) {
	var end *stream.EndError
	if !errors.As(err, &end) || end.Reason != cell.EndBusy {
		p.discard(h)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); !now.Before(h.fullUntil) { // else it was asked before that was known
		h.fullUntil = now.Add(fullFor << min(h.busy, fullMost))
		h.busy++
	}
}
