package relay

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"

	"peel/cell"
	"peel/cell/link"
	"peel/directory"
	"peel/directory/authority"
)

// callerOf is who is at the other end of a link.
func callerOf(c *link.Conn) authority.Caller {
	key, _ := c.PeerKey()
	return authority.Caller{Addr: addrOf(c.RemoteAddr()), Key: key}
}

// withCaller says in the context of requests on a directory stream who asks, and by what circuit.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	if d, ok := c.(*directoryStream); ok {
		return context.WithValue(authority.WithCaller(ctx, d.caller), asksKey{}, d.by)
	}
	return ctx
}

// withReach has a relay try others for themselves, besides what its directory serves.
func (r *Relay) withReach(directory http.Handler) http.Handler {
	m := http.NewServeMux()
	reach := authority.ReachByLink(link.Config{Network: r.network, Log: r.log, Now: r.cfg.Now}, r.cfg.Dial)
	m.Handle(authority.PathReach, authority.TryFor(reach, r.mayTry, authority.WhyNot))
	m.Handle("/", directory)
	return m
}

// mayTry keeps a relay from connecting to anybody but who asks for it: the address must be the one that the link comes from. Nor does one
// of the internet try addresses that only its own house knows.
func (r *Relay) mayTry(req *http.Request, q *directory.ReachRequest) error {
	caller := authority.CallerOf(req)
	from := caller.Addr
	if caller.Key != (cell.Key{}) || from != q.Addr.Addr() { // on a relay's link it is not known who asks
		return errors.New("only the address that you call from is tried, and only if you call as a client")
	}
	if !directory.Special(from) {
		return nil
	}
	if now := r.settled.Load(); now == nil || slices.ContainsFunc(now.Addrs, func(own netip.AddrPort) bool { return !directory.Special(own.Addr()) }) {
		return errors.New("the internet does not route that address")
	}
	return nil
}
