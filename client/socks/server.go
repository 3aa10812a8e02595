// Package socks is a SOCKS 5 server that hands every request to a dial function, names unresolved
// (spec/socks.md).
package socks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Server answers SOCKS 5 clients. Its fields must not change once Serve was called. One Server may
// serve several listeners, which then share MaxConns and Stats.
type Server struct {
	// Dial opens the connection that a request asks for. It must return soon after ctx ends, which
	// it does when the server stops or the application hangs up. How long it may take is for Dial
	// to bound. The server closes what it returns; bytes that the application sent with its request
	// are written to it once, first of all. A connection with a method CloseWrite keeps its other
	// direction when the application has sent its last byte; one without is closed then.
	Dial func(ctx context.Context, req Request) (net.Conn, error)
	// Code is the reply code for an error of Dial; nil means DefaultCode. Succeeded becomes
	// GeneralFailure, and so does TTLExpired unless the error is a timeout.
	Code func(err error) byte
	// HandshakeTimeout is how long a client may take up to the end of its request, and also to take
	// a reply; 0 means 10 s.
	HandshakeTimeout time.Duration
	// MaxConns is how many connections there may be at a time, idle ones included; more are closed
	// at once. 0 means 1000.
	MaxConns int
	// Log gets what a user of the server should know; nil means no log. No host, port, user or
	// address of a client is ever written to it.
	Log *slog.Logger

	stats  counters
	warned [warnings]atomic.Bool
}

// Stats counts what a Server did.
type Stats struct {
	Accepted uint64 // connections that came
	Open     uint64 // those that are open now
	Full     uint64 // closed at once because there were MaxConns
	Requests uint64 // requests handed to Dial
	Failed   uint64 // those which Dial refused
	Refused  uint64 // connections that made no acceptable request: not SOCKS, too slow, malformed
	Panics   uint64 // connections that ended because code for them panicked
}

type counters struct {
	accepted, open, full, requests, failed, refused, panics atomic.Uint64
}

// Stats returns the counts up to now. It may be called at any time.
func (s *Server) Stats() Stats {
	c := &s.stats
	return Stats{
		Accepted: c.accepted.Load(), Open: c.open.Load(), Full: c.full.Load(), Requests: c.requests.Load(),
		Failed: c.failed.Load(), Refused: c.refused.Load(), Panics: c.panics.Load(),
	}
}

// Bounds that are not for the user to choose.
const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultMaxConns         = 1000
	maxAcceptDelay          = time.Second // between attempts while Accept fails for want of resources
)

// Serve accepts clients from ln until ctx ends or ln fails, then closes every connection and returns
// when the last goroutine is gone. It closes ln. It returns nil if ctx ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer func() {
		if stop() {
			ln.Close()
		}
	}()
	name := ln.Addr().Network() + " " + ln.Addr().String()

	var delay time.Duration
	for {
		nc, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return nil
		}
		if err != nil {
			if !passing(err) {
				return fmt.Errorf("socks: accept: %w", err)
			}
			delay = min(max(2*delay, 5*time.Millisecond), maxAcceptDelay)
			s.warn(warnAccept, "socks: cannot accept connections for now; is the limit of open files too low?", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(delay):
			}
			continue
		}
		delay = 0
		s.stats.accepted.Add(1)
		if n := s.stats.open.Add(1); n > uint64(s.maxConns()) {
			s.stats.open.Add(^uint64(0))
			s.stats.full.Add(1)
			nc.Close()
			s.warn(warnFull, "socks: too many connections: new ones are closed", "limit", s.maxConns())
			continue
		}
		wg.Go(func() {
			defer s.stats.open.Add(^uint64(0))
			s.serve(ctx, nc, name)
		})
	}
}

// passing tells errors of Accept that go away by themselves: the client was gone already, or there
// are too many open files.
func passing(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

func (s *Server) maxConns() int {
	if s.MaxConns <= 0 {
		return defaultMaxConns
	}
	return s.MaxConns
}

func (s *Server) handshakeTimeout() time.Duration {
	if s.HandshakeTimeout <= 0 {
		return defaultHandshakeTimeout
	}
	return s.HandshakeTimeout
}

// guard runs f and stops a panic of it, which is counted and logged: it ends one connection only.
func (s *Server) guard(f func()) {
	defer func() {
		if v := recover(); v != nil {
			s.stats.panics.Add(1)
			if s.Log != nil {
				s.Log.Error("socks: a connection ended by a panic; please report this", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			}
		}
	}()
	f()
}

// What is said once for a server.
type warning uint8

const (
	warnAccept warning = iota
	warnFull
	warnAddress
	warnSOCKS4
	warnHTTP
	warnings
)

func (s *Server) warn(w warning, msg string, args ...any) {
	if s.Log != nil && !s.warned[w].Swap(true) {
		s.Log.Warn(msg, args...)
	}
}
