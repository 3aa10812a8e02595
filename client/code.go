package client

import (
	"context"
	"errors"
	"os"

	"peel/cell"
	"peel/circuit/stream"
	"peel/client/path"
	"peel/client/socks"
)

// SOCKSCode says which reply of SOCKS 5, an extended one where there is one, tells an application of an error from
// DialContext or Lookup. What would fail again at once is
// never answered with 06 (expired), since programs try that many times over.
func SOCKSCode(err error) byte {
	var end *stream.EndError
	var early *notReadyError
	var name *nameError
	switch {
	case errors.As(err, &name):
		return name.code
	case errors.As(err, &early): // whatever it waits for
		return socks.GeneralFailure
	case errors.As(err, &end):
		return endCode(end.Reason)
	case errors.Is(err, path.ErrNoExit):
		return socks.NotAllowed
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return socks.TTLExpired
	}
	return socks.GeneralFailure
}

// endCode is the reply for what the far end said.
func endCode(r cell.EndReason) byte {
	switch r {
	case cell.EndPolicy:
		return socks.NotAllowed
	case cell.EndUnreachable:
		return socks.NetworkUnreachable
	case cell.EndNotFound, cell.EndResolveFailed:
		return socks.HostUnreachable
	case cell.EndRefused, cell.EndReset:
		return socks.ConnectionRefused
	case cell.EndTimeout:
		return socks.TTLExpired
	}
	return socks.GeneralFailure
}
