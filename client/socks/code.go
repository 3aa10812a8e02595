package socks

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
)

// Reply codes (RFC 1928, section 6).
const (
	Succeeded              = 0x00
	GeneralFailure         = 0x01
	NotAllowed             = 0x02
	NetworkUnreachable     = 0x03
	HostUnreachable        = 0x04
	ConnectionRefused      = 0x05
	TTLExpired             = 0x06
	CommandNotSupported    = 0x07
	AddressTypeUnsupported = 0x08
)

// Extended codes, about onion services (Tor's proposal 304). Listeners send them on request only.
const (
	ServiceNotFound         = 0xF0
	ServiceInvalid          = 0xF1
	ServiceIntroFailed      = 0xF2
	ServiceRendezvousFailed = 0xF3
	ServiceMissingAuth      = 0xF4
	ServiceWrongAuth        = 0xF5
	ServiceBadAddress       = 0xF6
	ServiceIntroTimeout     = 0xF7
)

// standard is what a client is told who does not know extended codes. None of them is TTLExpired: programs would try again
// at once and many times.
func standard(code byte) byte {
	switch code {
	case ServiceNotFound, ServiceInvalid, ServiceIntroFailed, ServiceRendezvousFailed, ServiceBadAddress, ServiceIntroTimeout:
		return HostUnreachable
	case ServiceMissingAuth, ServiceWrongAuth:
		return NotAllowed
	}
	return code
}

// DefaultCode is the reply code for an error of the operating system's own dialing, and
// GeneralFailure for any other.
func DefaultCode(err error) byte {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return ConnectionRefused
	case errors.Is(err, syscall.ENETUNREACH):
		return NetworkUnreachable
	case errors.Is(err, syscall.EHOSTUNREACH), errors.As(err, &dns),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return HostUnreachable
	}
	return GeneralFailure
}

// code is the reply for err: what f says, but never success, and TTLExpired only for what may go
// better next time, since programs try again when they read it (spec/socks.md, section 4).
func code(f func(error) byte, err error) byte {
	if f == nil {
		f = DefaultCode
	}
	c := f(err)
	if c == Succeeded {
		return GeneralFailure
	}
	var t interface{ Timeout() bool }
	if c == TTLExpired && !(errors.As(err, &t) && t.Timeout()) {
		return GeneralFailure
	}
	return c
}
