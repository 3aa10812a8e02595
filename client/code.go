package client

import (
	"context"
	"errors"
	"os"

	"peel/cell"
	"peel/circuit/stream"
	"peel/client/path"
)

// SOCKS reply codes (RFC 1928, section 6).
const (
	socksFailure     = 0x01
	socksForbidden   = 0x02
	socksUnreachable = 0x03
	socksNoHost      = 0x04
	socksRefused     = 0x05
	socksExpired     = 0x06
)

// SOCKSCode says which SOCKS5 reply tells an application of an error from DialContext. What would fail again at once is
// never answered with 06 (expired), since programs try that many times over.
func SOCKSCode(err error) byte {
	var end *stream.EndError
	var early *notReadyError
	switch {
	case errors.As(err, &early): // whatever it waits for
		return socksFailure
	case errors.As(err, &end):
		return endCode(end.Reason)
	case errors.Is(err, path.ErrNoExit):
		return socksForbidden
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return socksExpired
	}
	return socksFailure
}

// endCode is the reply for what the far end said.
func endCode(r cell.EndReason) byte {
	switch r {
	case cell.EndPolicy:
		return socksForbidden
	case cell.EndUnreachable:
		return socksUnreachable
	case cell.EndNotFound, cell.EndResolveFailed:
		return socksNoHost
	case cell.EndRefused, cell.EndReset:
		return socksRefused
	case cell.EndTimeout:
		return socksExpired
	}
	return socksFailure
}
