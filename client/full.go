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

	fullFor = 10 * time.Second // a circuit takes no streams after its last relay was busy, once
)

// full says whether a circuit has all the streams that its last relay takes, with those that are about to be asked for, of which up to
// mostAsked may count twice: in a burst it is full a little early. The caller holds the pool's mu.
func (h *held) full(now time.Time) bool {
	n := h.users
	if h.isBuilt() {
		n += h.circuit.Streams()
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

// enter says whether fewer streams than a relay takes are being asked for on a circuit that was taken, and counts one more if so.
func (h *held) enter() bool {
	select {
	case h.line <- struct{}{}:
		return true
	default:
		return false
	}
}

// queue waits until it may enter; false: not within that time.
func (h *held) queue(ctx context.Context, within time.Duration) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case h.line <- struct{}{}:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// failed takes a circuit that failed a stream out of use; streams that are on it may finish. One whose last relay is busy is good for others
// later, but not when that happens again: it may only say so to be shown other targets.
func (p *pool) failed(h *held, err error) {
	var end *stream.EndError
	if !errors.As(err, &end) || end.Reason != cell.EndBusy || !p.rests(h, time.Now()) {
		p.discard(h)
	}
}

// rests has a circuit take no streams for a while; false: it has rested before.
func (p *pool) rests(h *held, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.fullUntil.IsZero() {
		h.fullUntil = now.Add(fullFor)
	}
	return now.Before(h.fullUntil) // who was refused with the first was asked before that was known
}
