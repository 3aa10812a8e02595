package authority

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/directory"
)

// How relays are tried (spec/voting.md, section 4).
const (
	reachWorkers = 32               // relays at a time
	freshWorkers = 16               // of them such as were not reached lately, at most
	reachTimeout = 10 * time.Second // for one of them, at all its addresses at once
	freshTries   = 3                // that may fail before one that was never reached is dropped
	freshTime    = 10 * time.Minute // since it published, before it is

	triesInPeriod = 3 // of a relay that answers: every 20 minutes, where a period is an hour
)

// ReachByLink returns a Reach for Config that dials a relay and makes a link handshake with it, which
// proves that its link key is there and expects its identity.
func ReachByLink(cfg link.Config, dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(context.Context, *directory.Descriptor, netip.AddrPort) error {
	return func(ctx context.Context, d *directory.Descriptor, at netip.AddrPort) error {
		nc, err := dial(ctx, "tcp", at.String())
		if err != nil {
			return err
		}
		conn, err := link.Dial(ctx, nc, &cfg, link.Peer{ID: d.ID, Key: d.LinkKey, Addrs: []netip.AddrPort{at}})
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// tryRelays tries relays as they fall due until ctx ends.
func (a *Authority) tryRelays(ctx context.Context) {
	var wg contain.Group
	defer wg.Wait()
	over := make(chan bool, reachWorkers) // of each try that is over, whether it was of a fresh relay
	busy, fresh := 0, 0
	for {
		for _, t := range a.store.takeDue(a.now(), reachWorkers-busy, freshWorkers-fresh) {
			busy++
			if t.fresh {
				fresh++
			}
			wg.Go(a.bug("trying a relay"), func() {
				defer func() { over <- t.fresh }()
				a.try(ctx, t.desc)
			})
		}
		wait := time.Minute
		if due, ok := a.store.nextDue(reachWorkers-busy, freshWorkers-fresh); ok {
			wait = min(wait, max(due.Sub(a.now()), time.Millisecond))
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case wasFresh := <-over:
			busy--
			if wasFresh {
				fresh--
			}
		case <-a.due:
		case <-t.C:
		}
		t.Stop()
	}
}

// try makes a handshake with a relay at each of its addresses and notes where it was reached.
func (a *Authority) try(ctx context.Context, d *directory.Descriptor) {
	tctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	errs := make([]error, len(d.Addrs))
	var wg contain.Group
	for i, at := range d.Addrs {
		wg.Go(func(p *contain.Panic) { errs[i] = p }, func() { errs[i] = a.cfg.Reach(tctx, d, at) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	var there []netip.AddrPort
	var why []string
	for i, at := range d.Addrs {
		if errs[i] == nil {
			there = append(there, at)
			continue
		}
		why = append(why, fmt.Sprintf("%v: %v", at, errs[i]))
		a.log.Debug("relay not reached", "relay", d.ID, "nickname", d.Nickname, "address", at, "why", errs[i])
	}
	a.store.tried(d, there, a.now(), a.schedule.Period)
	a.store.explain(d, strings.Join(why, "; "))
}

// explain notes why a relay was not reached at its addresses, or some of them.
func (s *store) explain(d *directory.Descriptor, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.relays[d.ID]; k != nil && sameDoor(k.desc, d) {
		k.why = directory.Said(why, 200)
	}
}

// ReachedAt begins what an authority tells the operator of a relay that it reaches (spec/voting.md, section 3).
const ReachedAt = "reached at "

// knows says in a line what we know of a relay, for its operator.
func (s *store) knows(id cell.NodeID, now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.relays[id]
	if k == nil {
		return "no descriptor of it is here: it was not published, is out of date, or it was never reached and given up"
	}
	line := "not tried yet"
	switch {
	case len(k.there) > 0:
		line = fmt.Sprintf(ReachedAt+"%v, %v ago", k.there, now.Sub(k.reached).Round(time.Second))
	case k.failed > 0:
		line = fmt.Sprintf("not reached, %d times in a row", k.failed)
	}
	if k.why != "" {
		line += "; " + k.why
	}
	for _, a := range k.desc.Addrs {
		if len(k.there) == 0 && s.taken(a.Addr(), k) >= s.perPlace {
			line += fmt.Sprintf("; as many relays as may be are at %v", directory.SourceOf(a.Addr()))
		}
	}
	return line
}

// tryAgain tells tryRelays that there may be a relay to try.
func (a *Authority) tryAgain() {
	select {
	case a.due <- struct{}{}:
	default:
	}
}

// A try is a relay that is to be tried.
type try struct {
	desc  *directory.Descriptor
	fresh bool // not reached lately
}

// takeDue returns the relays whose next try is due, and counts them as busy: at most n, first those
// that were reached lately, and of the others at most fresh. Each come by when they fell due, then by
// identity.
func (s *store) takeDue(now time.Time, n, fresh int) []try {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []try
	for _, from := range []*agenda{&s.lately, &s.fresh} {
		for len(*from) > 0 && !(*from)[0].due.After(now) && len(list) < n {
			if from == &s.fresh {
				if fresh == 0 {
					break
				}
				fresh--
			}
			k := (*from)[0]
			s.unplan(k)
			k.busy = true
			list = append(list, try{k.desc, from == &s.fresh})
		}
	}
	return list
}

// nextDue returns when the next try is due for which there is a worker.
func (s *store) nextDue(n, fresh int) (due time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && len(s.lately) > 0 {
		due, ok = s.lately[0].due, true
	}
	if n > 0 && fresh > 0 && len(s.fresh) > 0 && (!ok || s.fresh[0].due.Before(due)) {
		due, ok = s.fresh[0].due, true
	}
	return due, ok
}

// tried notes at which addresses the relay of a descriptor was reached. One at which there is no
// place does not count. After a failure the next try comes soon, then less often: from a 64th of
// the period to an eighth.
func (s *store) tried(d *directory.Descriptor, there []netip.AddrPort, now time.Time, period time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.relays[d.ID]
	if k == nil || !sameDoor(k.desc, d) {
		return // gone or moved since; if it moved, a try of the new one is due
	}
	k.busy = false
	there = slices.DeleteFunc(there, func(a netip.AddrPort) bool { return s.taken(a.Addr(), k) >= s.perPlace })
	if len(there) > 0 {
		k.reached = now
		s.past.reached(d.ID, now)
		s.settle(k, there, 0)
		s.plan(k, nextSlot(d.ID, now, period/triesInPeriod))
		return
	}
	s.settle(k, nil, k.failed+1)
	if k.reached.IsZero() && k.failed >= freshTries && now.Sub(k.desc.Published) >= freshTime {
		s.remove(k)
		return
	}
	s.plan(k, now.Add(period>>max(3, 7-k.failed)))
}

// sameDoor reports whether a handshake with one is a handshake with the other.
func sameDoor(a, b *directory.Descriptor) bool {
	return a.ID == b.ID && a.LinkKey == b.LinkKey && slices.Equal(a.Addrs, b.Addrs)
}

// newPeriod begins a period: who was reached lately is seen anew.
func (s *store) newPeriod(p Period) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = p.Collect.Add(p.Collect.Sub(p.ValidAfter))
	for _, k := range s.relays {
		if k.reached.After(p.ValidAfter) { // by a clock that was ahead
			k.reached = p.Collect
		}
		s.settle(k, k.there, k.failed)
		if k.on != nil {
			if k.due.After(p.FreshUntil) {
				k.due = p.Collect
			}
			s.plan(k, k.due)
		}
	}
}

// nextSlot returns the next moment after now to try a relay that is tried every so often: those of
// different relays are spread evenly.
func nextSlot(id cell.NodeID, now time.Time, every time.Duration) time.Time {
	at := now.Truncate(every).Add(moment(id, every))
	if !at.After(now) {
		at = at.Add(every)
	}
	return at
}

// moment picks a moment of d for a relay, always the same.
func moment(id cell.NodeID, d time.Duration) time.Duration {
	return d / 65536 * time.Duration(uint(id[0])<<8|uint(id[1]))
}
