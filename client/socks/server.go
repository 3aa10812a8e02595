// Package socks is one port for applications, who may speak SOCKS 4, 4a or 5 or HTTP CONNECT: it hands every request to a
// dial function, names unresolved (spec/socks.md).
package socks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell/contain"
)

// Server answers SOCKS and HTTP CONNECT clients. Its fields must not change once Serve was called. One Server may
// serve several listeners, which then share MaxConns and Stats.
type Server struct {
	// Dial opens the connection that a request asks for. It must return soon after ctx ends, which
	// it does when the server stops or the application hangs up. How long it may take is for Dial
	// to bound. The server closes what it returns; bytes that the application sent with its request
	// are written to it once, first of all. A connection with a method CloseWrite keeps its other
	// direction when the application has sent its last byte; one without is closed then.
	Dial func(ctx context.Context, req Request) (net.Conn, error)
	// DialEarly is Dial where the application has sent first already: it sees to it that first is sent, once, perhaps along
	// with the request. It must not keep first. nil: Dial is used, and no listener answers early.
	DialEarly func(ctx context.Context, req Request, first []byte) (net.Conn, error)
	// Check is what can be said against a request to connect without asking anybody: an early listener says it before it would tell
	// that there is a connection. nil: nothing can.
	Check func(req Request) error
	// Resolve looks up an address of a name, or a name of an address, on the same terms; nil: that is not offered.
	Resolve func(ctx context.Context, req Request) (Answer, error)
	// Known tells addresses that clients got from this program, by Resolve or from its DNS server: who asks for one of
	// them has not looked a name up elsewhere. nil: there are none.
	Known func(netip.Addr) bool
	// Code is the reply code for an error of Dial or Resolve; nil means DefaultCode. Succeeded becomes
	// GeneralFailure, and so does TTLExpired unless the error is a timeout. Extended codes are given to
	// clients of listeners that want them, and stand for plain ones elsewhere.
	Code func(err error) byte
	// HandshakeTimeout is how long a client may take up to the end of its request, and also to take
	// a reply; 0 means 10 s.
	HandshakeTimeout time.Duration
	// MaxConns is how many connections there may be at a time, idle ones included. One more takes the place
	// of the one that has been making its request for longest, else of the one that has been idle for longest
	// and for ten minutes at least; else it is closed at once. 0 means 1000.
	MaxConns int
	// Log gets what a user of the server should know; nil means no log. No host, port, user or
	// address of a client is ever written to it.
	Log *slog.Logger

	stats  counters
	warned [warnings]atomic.Bool

	lookEvery time.Duration // tests look sooner; 0: lookEvery

	draining atomic.Bool // no connection is taken
	alarms   alarms

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// door is one listener of a server.
type door struct {
	server *Server
	rules  Rules
	name   string
	warned [warnings]atomic.Bool

	mu     sync.Mutex
	broken map[string]int // connections that were answered early and came to nothing, by what is told of the code, since it was
	next   time.Time      // when it may be told again
}

// Stats counts what a Server did.
type Stats struct {
	Accepted uint64 // connections that came
	Open     uint64 // those that are open now
	Full     uint64 // closed at once because there were MaxConns
	Evicted  uint64 // slow or idle ones, closed to make room
	Requests uint64 // requests handed to Dial
	Failed   uint64 // those which Dial refused
	Refused  uint64 // connections that made no acceptable request: another protocol, too slow, malformed
	Panics   uint64 // connections that ended because code for them panicked
}

type counters struct {
	accepted, open, full, evicted, requests, failed, refused, panics atomic.Uint64
}

// Stats returns the counts up to now. It may be called at any time.
func (s *Server) Stats() Stats {
	c := &s.stats
	return Stats{
		Accepted: c.accepted.Load(), Open: c.open.Load(), Full: c.full.Load(), Evicted: c.evicted.Load(), Requests: c.requests.Load(),
		Failed: c.failed.Load(), Refused: c.refused.Load(), Panics: c.panics.Load(),
	}
}

// Bounds that are not for the user to choose.
const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultMaxConns         = 1000
	maxAcceptDelay          = time.Second // between attempts while Accept fails for want of resources
	drainLook               = 50 * time.Millisecond
	leaveIdle               = 10 * time.Minute // an idle connection is not closed to make room before
)

// Serve accepts clients from ln until ctx ends or ln fails, then closes every connection and returns
// when the last goroutine is gone. It closes ln. It returns nil if ctx ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return s.ServeRules(ctx, ln, Rules{})
}

// ServeRules is Serve with rules for the listener.
func (s *Server) ServeRules(ctx context.Context, ln net.Listener, rules Rules) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg contain.Group
	defer wg.Wait()
	defer cancel()
	stop := contain.OnDone(ctx, s.bug, func() { ln.Close() })
	defer func() {
		if stop() {
			ln.Close()
		}
	}()
	d := &door{server: s, rules: rules, name: ln.Addr().Network() + " " + ln.Addr().String()}

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
		if s.draining.Load() {
			nc.Close()
			continue
		}
		c := &conn{door: d, nc: nc, done: make(chan struct{})}
		var one context.Context
		one, c.end = context.WithCancel(ctx)
		if !s.enter(c) {
			c.end()
			s.stats.full.Add(1)
			nc.Close()
			s.warn(warnFull, "socks: too many connections: new ones are closed", "limit", s.maxConns())
			continue
		}
		wg.Go(s.bug, func() {
			defer s.leave(c)
			c.serve(one)
		})
	}
}

// Drain has the server close new connections at once, and returns when those that were there have ended, or with ctx's error when that
// ends before. Then it is time to end Serve.
func (s *Server) Drain(ctx context.Context) error {
	s.draining.Store(true)
	look := time.NewTicker(drainLook)
	defer look.Stop()
	for s.stats.open.Load() > 0 {
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// enter counts a connection in, if need be in the place of another; false: there is no room.
func (s *Server) enter(c *conn) bool {
	c.touch()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns) >= s.maxConns() {
		old := s.evictable(time.Now())
		if old == nil {
			return false
		}
		delete(s.conns, old)
		s.stats.evicted.Add(1)
		old.end() // both its ends, for it may be waiting for either
		s.mu.Unlock()
		<-old.done // so that there are never more than MaxConns
		s.mu.Lock()
	}
	if s.conns == nil {
		s.conns = make(map[*conn]struct{})
	}
	s.conns[c] = struct{}{}
	s.stats.open.Add(1)
	return true
}

// leave counts it out.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.stats.open.Add(^uint64(0))
	close(c.done)
}

// evictable is the connection that others may take the place of; nil: there is none. The caller holds mu.
func (s *Server) evictable(now time.Time) *conn {
	var slow, idle *conn
	for c := range s.conns {
		switch last := c.last.Load(); {
		case !c.asked.Load():
			if slow == nil || last < slow.last.Load() {
				slow = c
			}
		case now.Sub(time.Unix(0, last)) >= leaveIdle && (idle == nil || last < idle.last.Load()):
			idle = c
		}
	}
	if slow != nil {
		return slow
	}
	return idle
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
	if p := contain.Do(f); p != nil {
		s.bug(p)
	}
}

// bug counts and logs a panic.
func (s *Server) bug(p *contain.Panic) {
	s.stats.panics.Add(1)
	if s.Log != nil {
		s.Log.Error("socks: a connection ended by a panic; please report this", "panic", p.Value, "stack", p.Stack)
	}
}

// What is said once, of a server or of a listener.
type warning uint8

const (
	warnAccept warning = iota
	warnFull
	warnAddress
	warnHTTP
	warnWebPage
	warnings
)

func (s *Server) warn(w warning, msg string, args ...any) {
	if s.Log != nil && !s.warned[w].Swap(true) {
		s.Log.Warn(msg, args...)
	}
}

func (d *door) warn(w warning, msg string) {
	if d.server.Log != nil && !d.warned[w].Swap(true) {
		d.server.Log.Warn(msg, "listener", d.name)
	}
}

// tellEvery is how often the log tells of connections that came to nothing after an early answer, at most.
const tellEvery = time.Hour

// tellBroken tells now and then of such a connection, as its application learns no reason.
func (d *door) tellBroken(code byte) {
	if d.server.Log == nil {
		return
	}
	now := time.Now()
	d.mu.Lock()
	if d.broken == nil {
		d.broken = make(map[string]int)
	}
	d.broken[problemOf(code).text]++
	var all map[string]int
	if !now.Before(d.next) {
		all, d.broken, d.next = d.broken, nil, now.Add(tellEvery)
	}
	d.mu.Unlock()
	if all != nil {
		n, why := reasons(all)
		d.server.Log.Info("socks: a connection came to nothing after an early answer: its application saw a reset, and not why (early_answer)",
			"why", why, "since_last", n, "listener", d.name)
	}
}

// reasons is how many there are of all, and which: where they are several, each with its number, those first of which there are most.
func reasons(of map[string]int) (n int, why string) {
	texts := slices.SortedFunc(maps.Keys(of), func(a, b string) int { return cmp.Or(of[b]-of[a], strings.Compare(a, b)) })
	for i, text := range texts {
		if n += of[text]; len(texts) > 1 {
			texts[i] = fmt.Sprintf("%d: %s", of[text], text)
		}
	}
	return n, strings.Join(texts, " ")
}
