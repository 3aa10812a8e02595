package authority

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/directory"
)

// PathReach is where a node is asked whether it reaches a relay (spec/relay.md, section 11).
const PathReach = "/peel/reach"

// AskedWithin is how long the body of such a request may take: it is one cell's.
const AskedWithin = 5 * time.Second

// How many relays a node tries for others; one more is told to come again.
const (
	triesAtATime = 16
	triesOfOne   = 2                // for one source of callers: a relay has an IPv4 and an IPv6 address
	heldAfter    = 10 * time.Second // a try, its place counts as its caller's
	mostHeld     = 1024
)

// A Caller is who is at the other end of the link on which a request came.
type Caller struct {
	Addr netip.Addr
	Key  cell.Key // the link key that it has proved to hold; zero: none, as clients
}

type callerKey struct{}

// WithCaller is a context of requests of a caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf is who makes a request; zero: it is not known.
func CallerOf(r *http.Request) Caller {
	c, _ := r.Context().Value(callerKey{}).(Caller)
	return c
}

// A turn is a place of a source of callers: until it is given back, and for a while after a try.
type turn struct {
	of    netip.Prefix
	until time.Time // zero: it is in use
}

// turns are the places for tries.
type turns struct {
	mu  sync.Mutex
	all []*turn // guarded by mu
}

// take takes a place; nil: there is none.
func (k *turns) take(of netip.Prefix, now time.Time) *turn {
	k.mu.Lock()
	defer k.mu.Unlock()
	using, own, keep := 0, 0, k.all[:0]
	for _, t := range k.all {
		if !t.until.IsZero() && !t.until.After(now) {
			continue
		}
		keep = append(keep, t)
		if t.until.IsZero() {
			using++
		}
		if t.of == of {
			own++
		}
	}
	clear(k.all[len(keep):])
	k.all = keep
	if using >= triesAtATime || own >= triesOfOne || len(k.all) >= mostHeld {
		return nil
	}
	t := &turn{of: of}
	k.all = append(k.all, t)
	return t
}

// give gives a place back, for others of the same source at a time to come.
func (k *turns) give(t *turn, until time.Time) {
	k.mu.Lock()
	t.until = until
	k.mu.Unlock()
}

// TryFor answers requests to try a relay: 204 if it was reached, 424 and what says returns of the error if not, 403 and a sentence if may has an
// error. Each takes reachTimeout at most.
func TryFor(reach func(context.Context, *directory.Descriptor, netip.AddrPort) error, may func(*http.Request, *directory.ReachRequest) error, says func(error) directory.Unreached) http.Handler {
	var places turns
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(AskedWithin)) // the web server reads what we do not; where there are none, the connection's end bounds it
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "to be asked by POST", http.StatusMethodNotAllowed)
			return
		}
		if r.ContentLength > directory.MaxReach {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		mine := places.take(directory.SourceOf(CallerOf(r).Addr), time.Now())
		if mine == nil {
			w.Header().Set("Retry-After", "10")
			http.Error(w, "busy: try again later", http.StatusServiceUnavailable)
			return
		}
		tried := false
		defer func() {
			until := time.Now()
			if tried {
				until = until.Add(heldAfter)
			}
			places.give(mine, until)
		}()
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, directory.MaxReach))
		if err != nil {
			http.Error(w, "the body ended early, or is too large", http.StatusBadRequest)
			return
		}
		q, err := directory.ParseReachRequest(text)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := may(r, q); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		tried = true
		ctx, cancel := context.WithTimeout(r.Context(), reachTimeout)
		defer cancel()
		if err := reach(ctx, described(q), q.Addr); err != nil {
			http.Error(w, string(says(err)), http.StatusFailedDependency)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// described is as much of a descriptor as a request says.
func described(q *directory.ReachRequest) *directory.Descriptor {
	return &directory.Descriptor{ID: q.ID, LinkKey: q.LinkKey, Addrs: []netip.AddrPort{q.Addr}}
}

// WhyNot is the word for an error of reach: for whoever asks about its own address.
func WhyNot(err error) directory.Unreached {
	var dialed *link.Error // a connection was there
	switch {
	case errors.As(err, &dialed):
		return directory.UnreachedOther
	case errors.Is(err, syscall.ECONNREFUSED):
		return directory.UnreachedRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return directory.UnreachedNoWay
	}
	return directory.UnreachedSilent
}

// justNot does not say what is at an address that may be anybody's.
func justNot(error) directory.Unreached { return directory.UnreachedNot }

// mayTry lets the relay at the other end of the link have its own link key looked for, anywhere but where descriptors may not say they are
// and what the lists refuse: what it asks for it would be tried for as well if it published a descriptor.
func (a *Authority) mayTry(r *http.Request, q *directory.ReachRequest) error {
	if CallerOf(r).Key != q.LinkKey {
		return errors.New("only the link key is looked for that you prove to hold on the link on which you ask")
	}
	if !a.cfg.PrivateAddrs && directory.Special(q.Addr.Addr()) {
		return errors.New("the internet does not route that address")
	}
	return a.store.admit(described(q))
}
