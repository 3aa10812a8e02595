package stream

import (
	"context"
	"errors"
	"fmt"

	"peel/cell"
)

// An EndError says that the other end ended a stream, and why: it refused it, could not reach what was asked for, or
// reset it.
type EndError struct{ Reason cell.EndReason }

func (e *EndError) Error() string { return fmt.Sprintf("stream: ended by the other end: %v", e.Reason) }

// Is says whether target is an EndError with the same reason.
func (e *EndError) Is(target error) bool {
	t, ok := target.(*EndError)
	return ok && *t == *e
}

// Timeout says whether the other end gave up waiting.
func (e *EndError) Timeout() bool { return e.Reason == cell.EndTimeout }

// Temporary says whether another try may help.
func (e *EndError) Temporary() bool {
	switch e.Reason {
	case cell.EndTimeout, cell.EndBusy, cell.EndResolveFailed:
		return true
	}
	return false
}

// A SentError says that a stream failed before all that was to go along with the request had, or before the other end had answered, and
// after some of it had gone: whether that arrived nobody knows here, so to send it again might have it arrive twice.
type SentError struct{ Err error }

func (e *SentError) Error() string {
	return fmt.Sprintf("%v (the first bytes had gone by then: they may have arrived)", e.Err)
}

func (e *SentError) Unwrap() error { return e.Err }

// Ended is what to tell a caller whose ctx has ended: ctx.Err(), which says how, and with it the cause, where that is another.
func Ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

var (
	// ErrProtocol is in every error of Receive: the other end broke the protocol, and the circuit must end.
	ErrProtocol = errors.New("the other end broke the protocol")
	// ErrTooMany says that a circuit has no room for another stream: use another circuit.
	ErrTooMany = errors.New("stream: too many streams on this circuit: use another")

	errShed    = errors.New("stream: reset: too much of the circuit waited to be read, and most of it here: read faster")
	errAccepts = errors.New("stream: this end accepts streams and opens none")
)

func breach(format string, args ...any) error {
	return fmt.Errorf("stream: %w: "+format, append([]any{ErrProtocol}, args...)...)
}
