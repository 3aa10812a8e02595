package exit

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"peel/cell"
)

// Error says why there is no connection or no answer. It does not name the target, so it
// may be logged.
type Error struct {
	Reason cell.EndReason // what the client is told
	what   string
	err    error // what the system said, where that names no target; may be nil
}

func (e *Error) Error() string {
	if e.err == nil {
		return "exit: " + e.what
	}
	return "exit: " + e.what + ": " + e.err.Error()
}

func (e *Error) Unwrap() error { return e.err }

func refuse(reason cell.EndReason, what string) *Error { return &Error{Reason: reason, what: what} }

// Reason is what to tell a client about an error of Dial, or of reading from or writing to
// the connection that Dial gave. It is EndDone for nil and io.EOF, EndMisc where it knows
// nothing better.
func Reason(err error) cell.EndReason {
	var own *Error
	if errors.As(err, &own) {
		return own.Reason
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		if dns.IsNotFound {
			return cell.EndNotFound
		}
		return cell.EndResolveFailed
	}
	for _, k := range known {
		if errors.Is(err, k.err) {
			return k.reason
		}
	}
	var t interface{ Timeout() bool }
	switch {
	case err == nil:
		return cell.EndDone
	case errors.As(err, &t) && t.Timeout():
		return cell.EndTimeout
	}
	return cell.EndMisc
}

var known = []struct {
	err    error
	reason cell.EndReason
}{
	{io.EOF, cell.EndDone},
	{io.ErrUnexpectedEOF, cell.EndReset},
	{os.ErrDeadlineExceeded, cell.EndTimeout},
	{context.DeadlineExceeded, cell.EndTimeout},
	{syscall.ETIMEDOUT, cell.EndTimeout},
	{syscall.ECONNREFUSED, cell.EndRefused},
	{syscall.ECONNRESET, cell.EndReset},
	{syscall.ECONNABORTED, cell.EndReset},
	{syscall.EPIPE, cell.EndReset},
	{syscall.ENETUNREACH, cell.EndUnreachable},
	{syscall.EHOSTUNREACH, cell.EndUnreachable},
	{syscall.ENETDOWN, cell.EndUnreachable},
	{syscall.EADDRNOTAVAIL, cell.EndUnreachable},
	{syscall.EAFNOSUPPORT, cell.EndUnreachable},
	{syscall.EACCES, cell.EndUnreachable}, // a firewall, or a broadcast address
	{syscall.EPERM, cell.EndUnreachable},
	{syscall.EMFILE, cell.EndBusy},
	{syscall.ENFILE, cell.EndBusy},
	{syscall.ENOBUFS, cell.EndBusy},
	{syscall.ENOMEM, cell.EndBusy},
}

// scrub turns an error of the net package, which names the target, into one that does not.
func scrub(what string, err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	e := &Error{Reason: Reason(err), what: what}
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		e.err = errno
	case errors.Is(err, context.Canceled):
		e.err = context.Canceled
	case e.Reason == cell.EndTimeout:
		e.err = context.DeadlineExceeded
	}
	return e
}
