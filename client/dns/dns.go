// Package dns is a DNS server for applications of this machine: it hands every question for an address or a name to a
// lookup function, and keeps the answers for a while (spec/dns.md).
package dns

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"peel/cell/contain"
)

// Query is what is looked up: the addresses of a host, or the names of an address.
type Query struct {
	Host string     // in small letters, without a last dot
	Addr netip.Addr // valid: its names are asked for, and Host is empty
	// Client and Listener are who asks, and of which listener: those of others must not share a circuit.
	Client   netip.Addr
	Listener string
}

// LogValue hides the query.
func (q Query) LogValue() slog.Value { return slog.StringValue("[scrubbed]") }

// Answer is an address or a name that was found, and for how many seconds it may be kept.
type Answer struct {
	TTL  uint32
	Addr netip.Addr
	Name string
}

// ErrNotFound is in errors of a Lookup that say that there is no such name; others say that it could not be looked up.
var ErrNotFound = errors.New("dns: no such name")

// Server answers DNS clients over UDP and TCP. Its fields must not change once it serves. One Server may serve several
// sockets, which share its cache and bounds.
type Server struct {
	// Lookup finds all addresses of a host, of both kinds, or the names of an address. It must return soon after ctx ends.
	Lookup func(ctx context.Context, q Query) ([]Answer, error)
	// Epoch numbers what is kept: answers of one epoch are given in no other. nil: there is one.
	Epoch func() uint64
	// Log gets what a user of the server should know; nil means no log. No name and no address is ever written to it.
	Log *slog.Logger

	mu      sync.Mutex
	cache   cache
	flights map[key]*flight
	conns   map[*conn]struct{}
	stats   counters
}

// Stats counts what a Server did.
type Stats struct {
	Questions uint64 // messages that were answered
	Lookups   uint64 // calls of Lookup
	Cached    uint64 // answers from the cache
	Full      uint64 // questions answered with a failure because too many were under way
	Evicted   uint64 // TCP connections closed to make room
	Panics    uint64 // questions that got no answer because code for them panicked
}

type counters struct{ questions, lookups, cached, full, evicted, panics atomic.Uint64 }

// Stats returns the counts up to now. It may be called at any time.
func (s *Server) Stats() Stats {
	c := &s.stats
	return Stats{c.questions.Load(), c.lookups.Load(), c.cached.Load(), c.full.Load(), c.evicted.Load(), c.panics.Load()}
}

// Bounds (spec/dns.md, section 6).
const (
	mostFlights   = 256 // lookups under way
	mostWaiting   = 1024
	mostConns     = 64               // over TCP
	lookupTime    = 15 * time.Second // of a lookup
	connTime      = 10 * time.Second // up to the next question over TCP, and to take an answer
	maxQuestion   = 4096             // bytes over UDP
	maxAcceptWait = time.Second
	maxFails      = 1000 // reads in a row that a socket may fail
)

// flight is a lookup under way; those who ask the same meanwhile share it.
type flight struct {
	done    chan struct{}
	outcome outcome
}

var errBusy = errors.New("dns: too many lookups are under way")

// lookup answers from the cache, or joins a lookup under way, or begins one.
func (s *Server) lookup(ctx context.Context, k key) outcome {
	s.mu.Lock()
	if o, ok := s.cache.get(k, time.Now()); ok {
		s.mu.Unlock()
		s.stats.cached.Add(1)
		return o
	}
	f := s.flights[k]
	mine := f == nil
	if mine {
		if len(s.flights) >= mostFlights {
			s.mu.Unlock()
			s.stats.full.Add(1)
			return outcome{err: errBusy}
		}
		if s.flights == nil {
			s.flights = make(map[key]*flight)
		}
		f = &flight{done: make(chan struct{})}
		s.flights[k] = f
	}
	s.mu.Unlock()
	if !mine {
		select {
		case <-f.done:
			return f.outcome
		case <-ctx.Done():
			return outcome{err: ctx.Err()}
		}
	}
	s.stats.lookups.Add(1)
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	var found []Answer
	var err error
	if p := contain.Do(func() {
		found, err = s.Lookup(ctx, Query{Host: k.host, Addr: k.addr, Client: k.client, Listener: k.listener})
	}); p != nil {
		s.bug(p)
		found, err = nil, p // those who wait for it hear of it
	}
	cancel()
	f.outcome = outcome{found: clip(found), err: err}
	if errors.Is(err, ErrNotFound) || err == nil && len(found) == 0 {
		f.outcome = outcome{none: true}
	}
	s.mu.Lock()
	delete(s.flights, k)
	s.cache.put(k, f.outcome, time.Now())
	s.mu.Unlock()
	close(f.done)
	return f.outcome
}

// bug counts and logs a panic.
func (s *Server) bug(p *contain.Panic) {
	s.stats.panics.Add(1)
	if s.Log != nil {
		s.Log.Error("dns: a question got no answer because of a panic; please report this", "panic", p.Value, "stack", p.Stack)
	}
}

func (s *Server) epoch() uint64 {
	if s.Epoch == nil {
		return 0
	}
	return s.Epoch()
}

// asker is who sent a message, and how long an answer may be.
type asker struct {
	client   netip.Addr
	listener string
	udp      bool
}

// limit is how long an answer to a message, which r was read from, may be.
func (from asker) limit(r *request, b []byte) int {
	switch {
	case !from.udp:
		return streamSize
	case from.client.IsLoopback():
		return r.size
	}
	return min(r.size, amplify*len(b)) // or anybody's address could be flooded by way of this port
}

// full makes the answer to a message for which there is no place; nil: there is none.
func (s *Server) full(from asker, b []byte) []byte {
	s.stats.full.Add(1)
	r, _, ok := parse(b)
	if !ok {
		return nil
	}
	return r.answer(dnsmessage.RCodeServerFailure, nil, from.limit(&r, b))
}

// handle makes the answer to a message; nil: there is none.
func (s *Server) handle(ctx context.Context, from asker, b []byte) []byte {
	r, code, ok := parse(b)
	if !ok {
		return nil
	}
	s.stats.questions.Add(1)
	limit := from.limit(&r, b)
	if code != dnsmessage.RCodeSuccess {
		return r.answer(code, nil, limit)
	}
	host, addr, ok := r.query()
	if !ok {
		return r.answer(dnsmessage.RCodeNameError, nil, limit)
	}
	o := s.lookup(ctx, key{host: host, addr: addr, client: from.client, listener: from.listener, epoch: s.epoch()})
	switch {
	case o.err != nil:
		if s.Log != nil {
			s.Log.Debug("dns: a lookup failed", "why", o.err)
		}
		return r.answer(dnsmessage.RCodeServerFailure, nil, limit)
	case o.none:
		return r.answer(dnsmessage.RCodeNameError, nil, limit)
	}
	return r.answer(dnsmessage.RCodeSuccess, o.found, limit)
}

func addrOf(a net.Addr) netip.Addr {
	if ap, err := netip.ParseAddrPort(a.String()); err == nil {
		return ap.Addr().Unmap()
	}
	return netip.Addr{}
}
