package client

import (
	"context"
	"errors"
	"os"

	"peel/cell"
	"peel/circuit/stream"
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
	switch {
	case errors.As(err, &end):
		switch end.Reason {
		case cell.EndPolicy:
			return socksForbidden
		case cell.EndNotFound:
			return socksNoHost
		case cell.EndResolveFailed, cell.EndUnreachable:
			return socksUnreachable
		case cell.EndRefused, cell.EndReset:
			return socksRefused
		case cell.EndTimeout:
			return socksExpired
		}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return socksExpired
	}
	return socksFailure
}
