package authority

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"peel/cell/link"
	"peel/directory"
)

// PathReach is where a node is asked whether it reaches a relay (spec/relay.md, section 11).
const PathReach = "/peel/reach"

// TriesAtATime is how many relays a node tries for others at a time; one more is told to come again.
const TriesAtATime = 16

// AskedWithin is how long the body of such a request may take: it is one cell's.
const AskedWithin = 5 * time.Second

// TryFor answers requests to try a relay: 204 if it was reached, 424 and a word why not, 403 and a sentence if may, which is told the
// request and the address, has an error. Each takes reachTimeout at most.
func TryFor(reach func(context.Context, *directory.Descriptor, netip.AddrPort) error, may func(*http.Request, netip.AddrPort) error) http.Handler {
	places := make(chan struct{}, TriesAtATime)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "to be asked by POST", http.StatusMethodNotAllowed)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(AskedWithin)) // where there are none, the connection's end bounds it
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
		if err := may(r, q.Addr); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			busy(w)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), reachTimeout)
		defer cancel()
		d := &directory.Descriptor{ID: q.ID, LinkKey: q.LinkKey, Addrs: []netip.AddrPort{q.Addr}}
		if err := reach(ctx, d, q.Addr); err != nil {
			http.Error(w, string(whyNot(err)), http.StatusFailedDependency)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// whyNot is the word for an error of reach.
func whyNot(err error) directory.Unreached {
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

// mayTry lets relays be tried anywhere but where descriptors may not say they are: who asks could as well publish one.
func (a *Authority) mayTry(_ *http.Request, at netip.AddrPort) error {
	if !a.cfg.PrivateAddrs && !public(at.Addr()) {
		return errors.New("the internet does not route that address")
	}
	return nil
}
