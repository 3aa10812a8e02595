package relay

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"peel/cell/link"
	"peel/directory"
	"peel/directory/authority"
)

// callerKey is the key of a request's context under which its callerOf is.
type callerKey struct{}

// callerOf is the address of whoever is at the other end of a link of a client's; invalid if the link is a relay's: then it is not known
// who asks on its circuits.
func callerOf(c *link.Conn) netip.Addr {
	if _, proved := c.PeerKey(); proved {
		return netip.Addr{}
	}
	return addrOf(c.RemoteAddr())
}

// withCaller says in the context of requests on a directory stream who asks.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	if d, ok := c.(*directoryStream); ok {
		return context.WithValue(ctx, callerKey{}, d.caller)
	}
	return ctx
}

// withReach has a relay try others for themselves, besides what its directory serves.
func (r *Relay) withReach(directory http.Handler) http.Handler {
	m := http.NewServeMux()
	reach := authority.ReachByLink(link.Config{Network: r.network, Log: r.log, Now: r.cfg.Now}, r.cfg.Dial)
	m.Handle(authority.PathReach, r.oneEach(authority.TryFor(reach, r.mayTry)))
	m.Handle("/", directory)
	return m
}

// oneEach lets every address ask for one try at a time.
func (r *Relay) oneEach(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(authority.AskedWithin)) // the web server reads what we do not
		from, _ := req.Context().Value(callerKey{}).(netip.Addr)
		p := &place{owner: owner{of: sourceOf(from)}}
		r.mu.Lock()
		_, ok := r.doors.tries.enter(p)
		r.mu.Unlock()
		if !ok {
			w.Header().Set("Retry-After", "10")
			http.Error(w, "busy: try again later", http.StatusServiceUnavailable)
			return
		}
		defer func() {
			r.mu.Lock()
			r.doors.tries.leave(p)
			r.mu.Unlock()
		}()
		next.ServeHTTP(w, req)
	})
}

// mayTry keeps a relay from connecting to anybody but who asks for it: the address must be the one that the link comes from. Nor does one
// of the internet try addresses that only its own house knows.
func (r *Relay) mayTry(req *http.Request, at netip.AddrPort) error {
	from, _ := req.Context().Value(callerKey{}).(netip.Addr)
	if from != at.Addr() {
		return errors.New("only the address that you call from is tried, and only if you call as a client")
	}
	if !special(from) {
		return nil
	}
	if now := r.settled.Load(); now == nil || slices.ContainsFunc(now.Addrs, func(own netip.AddrPort) bool { return !special(own.Addr()) }) {
		return errors.New("the internet does not route that address")
	}
	return nil
}

func special(a netip.Addr) bool {
	_, is := directory.SpecialRange(a)
	return is
}
