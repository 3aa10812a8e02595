package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/directory"
	"peel/directory/authority"
	"peel/directory/cache"
)

// listing is what a relay knows of its own place in the directory, so as to tell its operator.
type listing struct {
	stale atomic.Bool // it was told that there is no consensus of use

	unheard time.Time // since when nobody answers who has never had a consensus; of the goroutine that follows the directory
	cutOff  bool      // it was told; of the same

	mu     sync.Mutex
	listed bool                       // so it was said last; guarded by mu, as all below
	taken  time.Time                  // when an authority first took our descriptor
	missed int                        // consensuses in a row without us since, or since we were in one
	told   bool                       // of these
	seen   map[cell.NodeID]netip.Addr // where we come from, as authorities see it
}

// How many consensuses must lack a relay whose descriptor was taken, or that was listed, before it is said: the first may have been voted on
// before, or have come by while it was away; and before it is said though most authorities reach it, so that the next may have it.
const (
	missedToTell = 2
	missedAnyway = 4
)

// took notes that an authority took our descriptor.
func (l *listing) took(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken.IsZero() {
		l.taken = now
	}
}

// A presence is how a consensus lists a relay.
type presence uint8

const (
	absent  presence = iota
	asWas            // with keys or addresses that it does not have any more, or it does not hold any more
	present          // so that clients that go by it can use the relay
)

// presence is how a consensus lists this relay.
func (r *Relay) presence(c *directory.Consensus) presence {
	e, ok := c.Lookup(r.id)
	if !ok {
		return absent
	}
	addrs, onion := r.settled.Load().Addrs, e.OnionKey.ID()
	if r.cfg.Now().Before(c.ValidUntil) && // else it is the one of the last run, long ago
		e.LinkKey == cell.Key(r.cfg.Keys.Link.PublicKey().Bytes()) &&
		slices.ContainsFunc(r.onion.Load().keys, func(k onionKey) bool { return k.id == onion }) &&
		slices.ContainsFunc(e.Addrs, func(a netip.AddrPort) bool { return slices.Contains(addrs, a) }) {
		return present
	}
	return asWas
}

// saw notes a consensus. It returns what there may be to say: that we are listed now, or that so many in a row lack us; 0: nothing yet.
func (l *listing) saw(is presence, validAfter time.Time) (now bool, missing int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if is != absent {
		now = is == present && !l.listed
		l.listed, l.missed, l.told = l.listed || now, 0, false
		return now, 0
	}
	if l.listed || !l.taken.IsZero() && validAfter.After(l.taken) {
		l.missed++
	}
	if l.told || l.missed < missedToTell {
		return false, 0
	}
	return false, l.missed
}

// lost notes that it is being said that we are missing. It returns whether we were listed before.
func (l *listing) lost() (was bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was, l.listed, l.told = l.listed, false, true
	return was
}

// from says where authorities see us come from, other than at an address of ours.
func (l *listing) from(own []netip.AddrPort) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for _, a := range l.seen {
		if !slices.ContainsFunc(own, func(o netip.AddrPort) bool { return o.Addr() == a }) {
			list = append(list, a.String())
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// dialed hears what another node says of our clock and address.
func (r *Relay) dialed(p link.Peer, conn *link.Conn) {
	r.countLink(conn)
	r.clock.Heard(p.ID, conn.Skew())
	if w := r.clock.Warning(); w != "" {
		r.log.Warn(w)
	}
	if _, ok := r.cfg.Network.Authority(p.ID); ok && conn.Observed().IsValid() {
		r.listing.mu.Lock()
		defer r.listing.mu.Unlock()
		if r.listing.seen == nil {
			r.listing.seen = map[cell.NodeID]netip.Addr{}
		}
		r.listing.seen[p.ID] = conn.Observed()
	}
}

// patience is how long nobody may answer before it is said.
const patience = 30 * time.Second

// tellCutOff says once, of a relay that has never had a consensus, that it comes by none. An authority that has none either, as
// in a young network, is an answer.
func (r *Relay) tellCutOff(err error) {
	var no *cache.StatusError
	var t *directory.TimeError
	l, now := &r.listing, r.cfg.Now()
	switch {
	case r.cache.Consensus() != nil, errors.As(err, &no), errors.As(err, &t):
		l.unheard = time.Time{}
	case l.unheard.IsZero():
		l.unheard = now
	case now.Sub(l.unheard) >= patience && !l.cutOff:
		l.cutOff = true
		r.log.Warn("no directory yet, and without one nobody uses this relay: look whether it may connect to the authorities, and whether the network file is in order", "why", err)
	}
}

// tellStale says once, until there is another, that no consensus is of use, and why: not when one that was asked has none, for it may have
// been cut off, while the one here may be used.
func (r *Relay) tellStale(err error) {
	var t *directory.TimeError
	if _, _, none := r.cache.Usable(r.cfg.Now()); errors.As(err, &t) && none != nil && !r.listing.stale.Swap(true) {
		if t.Err == directory.ErrFuture && r.cache.Consensus() != nil { // it held when it came: our clock was set back
			r.clock.Forget()
		}
		r.log.Warn("no directory that holds now", "why", r.clock.Explain(err))
	}
}

// mayComeBack says that so many consensuses without us are no news yet, as so many of the authorities reach us.
func mayComeBack(missing, reached, of int) bool { return missing < missedAnyway && reached > of/2 }

// tellListed says in the log when clients begin or cease to hear of this relay, or do not begin to.
func (r *Relay) tellListed(ctx context.Context, is presence, validAfter time.Time) {
	if r.cfg.Directory != nil {
		return // an authority is in no directory
	}
	now, missing := r.listing.saw(is, validAfter)
	if now {
		r.log.Info("listed in the directory: clients can use this relay")
	}
	if missing == 0 || r.ending(ctx) {
		return
	}
	said, reached := r.askWhy(ctx)
	if r.ending(ctx) || mayComeBack(missing, reached, len(r.cfg.Network.Authorities)) {
		return
	}
	what := "not listed in the directory, although authorities took the descriptor"
	if r.listing.lost() {
		what = "no longer listed in the directory"
	}
	r.log.Warn(what, "authorities-say", said)
	if from := r.listing.from(r.settled.Load().Addrs); len(from) > 0 {
		r.log.Warn("authorities see this relay come from another address than it announces: is that the right one, and does it lead here?",
			"seen", strings.Join(from, " "))
	}
}

// ending says that the relay ends as its operator asked: that nobody reaches or lists it any more is then nothing to warn of.
func (r *Relay) ending(ctx context.Context) bool { return ctx.Err() != nil || r.draining.Load() }

// askWhy asks the authorities what they know of this relay: a line for each, none longer than 300 bytes, and how many of them reach it.
func (r *Relay) askWhy(ctx context.Context) (text string, reached int) {
	as := r.cfg.Network.Authorities
	said := make([]string, len(as))
	var wg contain.Group
	for i, a := range as {
		wg.Go(r.bug("listing"), func() {
			ctx, cancel := context.WithTimeout(ctx, authorityTimeout)
			defer cancel()
			text, err := cache.Get(ctx, func(ctx context.Context) (net.Conn, error) { return r.dialAuthority(ctx, a) }, "/peel/relay/"+r.id.String(), 4<<10)
			line := "no answer"
			if err == nil {
				line = directory.Said(string(text), 300)
			}
			said[i] = a.Nickname + ": " + line
		})
	}
	wg.Wait()
	for i, a := range as {
		if strings.HasPrefix(said[i], a.Nickname+": "+authority.ReachedAt) {
			reached++
		}
	}
	return strings.Join(said, "; "), reached
}
