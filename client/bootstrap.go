package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"peel/circuit/stream"
)

// Progress says how far a client's start has come. Text is for a person; it names no relay and no address.
type Progress struct {
	Percent int
	Stage   string // one word: none, start, directory, consensus, checked, circuit, probe, done
	Text    string
}

func (p Progress) String() string {
	return fmt.Sprintf("Bootstrapped %d %% (%s): %s", p.Percent, p.Stage, p.Text)
}

// The stages of a start, in order.
var (
	stageNone      = Progress{0, "none", "Run has not been called"}
	stageStart     = Progress{1, "start", "starting"}
	stageDirectory = Progress{10, "directory", "reaching a directory authority"}
	stageConsensus = Progress{25, "consensus", "loading the relay list"}
	stageChecked   = Progress{50, "checked", "relay list signed by enough authorities"}
	stageCircuit   = Progress{60, "circuit", "building a circuit of three relays"}
	stageProbe     = Progress{85, "probe", "sending the first bytes through it"}
	stageDone      = Progress{100, "done", "a circuit carries data"}
)

// bootstrap keeps the furthest stage reached; stages only go forward.
type bootstrap struct {
	tell    func(Progress)
	events  *events
	done    chan struct{} // closed at the last stage
	telling sync.Mutex    // held while tell is called, so that it hears the stages in order; goes before mu

	mu     sync.Mutex
	now    Progress
	reason error // what failed last since now was reached, for people who wait
}

func (b *bootstrap) init(tell func(Progress), e *events) {
	b.tell, b.events, b.done, b.now = tell, e, make(chan struct{}), stageNone
}

// reach moves on to p, unless the start was as far before.
func (b *bootstrap) reach(p Progress) {
	if b.progress().Percent >= p.Percent {
		return
	}
	b.telling.Lock()
	defer b.telling.Unlock()
	b.mu.Lock()
	forward := p.Percent > b.now.Percent
	if forward {
		b.now, b.reason = p, nil
	}
	b.mu.Unlock()
	if !forward {
		return
	}
	b.events.tell(Event{Kind: EventBootstrap, Progress: p})
	if b.tell != nil {
		b.tell(p)
	}
	if p.Percent == stageDone.Percent {
		close(b.done)
	}
}

func (b *bootstrap) progress() Progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// failed notes why a step towards the next stage did not succeed. That it waited in vain for the start to be over is no reason: the
// error holds the one before.
func (b *bootstrap) failed(err error) {
	var waited *notReadyError
	if errors.As(err, &waited) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now.Percent < stageDone.Percent {
		b.reason = err
	}
}

// Bootstrap says how far the start has come and, while it is not done, what failed last since it got there.
func (c *Client) Bootstrap() (Progress, error) {
	c.boot.mu.Lock()
	defer c.boot.mu.Unlock()
	return c.boot.now, c.boot.reason
}

// Ready waits until a circuit has carried bytes. Its error says what the start is waiting for: it holds what failed last
// and why ctx ended (ErrNotRunning if Run has not been called). When Run has ended it is ErrClosed.
func (c *Client) Ready(ctx context.Context) error { return c.ready(ctx) }

func (c *core) ready(ctx context.Context) error {
	select {
	case <-c.ended:
		return ErrClosed
	default:
	}
	select {
	case <-c.boot.done:
		return nil
	case <-c.ended:
		return ErrClosed
	case <-ctx.Done():
	}
	c.boot.mu.Lock()
	defer c.boot.mu.Unlock()
	if c.boot.now == stageDone { // of two that have come about, select takes any
		return nil
	}
	e := &notReadyError{at: c.boot.now, why: c.boot.reason, gaveUp: stream.Ended(ctx)}
	if e.at == stageNone {
		e.why = ErrNotRunning
	}
	return e
}

// notReadyError says how far the start had come when somebody gave up waiting for it.
type notReadyError struct {
	at     Progress
	why    error // what failed last; nil: nothing did
	gaveUp error
}

func (e *notReadyError) Error() string {
	why := e.why
	if why == nil {
		why = e.gaveUp
	}
	return fmt.Sprintf("client: not ready, %v: %v", e.at, why)
}

// Timeout says whether it was a deadline that ended the waiting: what failed last may be a timeout of another kind.
func (e *notReadyError) Timeout() bool { return errors.Is(e.gaveUp, context.DeadlineExceeded) }

// Temporary says that a later try may find the client ready.
func (e *notReadyError) Temporary() bool { return true }

func (e *notReadyError) Unwrap() []error {
	if e.why == nil {
		return []error{e.gaveUp}
	}
	return []error{e.why, e.gaveUp}
}
