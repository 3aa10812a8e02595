package authority

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/directory"
)

// How relays are tried (spec/voting.md, section 4).
const (
	reachWorkers = 16               // handshakes at a time
	reachTimeout = 10 * time.Second // for one of them
)

// ReachByLink returns a Reach for Config that dials a relay's first address and makes a link
// handshake with it, which proves that its link key is there and expects its identity.
func ReachByLink(cfg link.Config, dial func(ctx context.Context, network, addr string) (net.Conn, error)) func(context.Context, *directory.Descriptor) error {
	return func(ctx context.Context, d *directory.Descriptor) error {
		if len(d.Addrs) == 0 {
			return errors.New("authority: the relay has no address")
		}
		nc, err := dial(ctx, "tcp", d.Addrs[0].String())
		if err != nil {
			return err
		}
		conn, err := link.Dial(ctx, nc, &cfg, link.Peer{ID: d.ID, Key: d.LinkKey, Addrs: d.Addrs})
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// tryRelays tries relays as they fall due until ctx ends.
func (a *Authority) tryRelays(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, reachWorkers)
	for {
		for _, d := range a.store.takeDue(a.now(), reachWorkers) {
			slots <- struct{}{} // waits reachTimeout at most
			wg.Go(func() {
				defer func() { <-slots }()
				tctx, cancel := context.WithTimeout(ctx, reachTimeout)
				err := a.cfg.Reach(tctx, d)
				cancel()
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					a.log.Debug("relay not reached", "relay", d.ID, "nickname", d.Nickname, "why", err)
				}
				a.store.tried(d, err == nil, a.now(), a.schedule.Period)
				a.tryAgain()
			})
		}
		wait := time.Minute
		if due, ok := a.store.nextDue(); ok {
			wait = min(wait, max(due.Sub(a.now()), time.Millisecond))
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-a.due:
			t.Stop()
		case <-t.C:
		}
	}
}

// tryAgain tells tryRelays that there may be a relay to try.
func (a *Authority) tryAgain() {
	select {
	case a.due <- struct{}{}:
	default:
	}
}

// takeDue returns at most n relays whose next try is due, by identity, and counts them as busy.
func (s *store) takeDue(now time.Time, n int) []*directory.Descriptor {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []*known
	for _, k := range s.relays {
		if !k.busy && !k.due.IsZero() && !k.due.After(now) {
			due = append(due, k)
		}
	}
	slices.SortFunc(due, func(a, b *known) int {
		if c := a.due.Compare(b.due); c != 0 {
			return c
		}
		return compareID(&a.desc.ID, &b.desc.ID)
	})
	var list []*directory.Descriptor
	for _, k := range due[:min(n, len(due))] {
		k.busy = true
		list = append(list, k.desc)
	}
	return list
}

// nextDue returns when the next try is due, if one is and none is under way for it.
func (s *store) nextDue() (due time.Time, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.relays {
		if !k.busy && !k.due.IsZero() && (!ok || k.due.Before(due)) {
			due, ok = k.due, true
		}
	}
	return due, ok
}

// tried notes how the try of a descriptor went. After a failure the next one comes soon, then less
// often: from a 64th of the period to an eighth.
func (s *store) tried(d *directory.Descriptor, ok bool, now time.Time, period time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.relays[d.ID]
	if k == nil || !sameDoor(k.desc, d) {
		return // gone or moved since; if it moved, a try of the new one is due
	}
	k.busy = false
	if ok {
		k.reached, k.failed, k.due = now, 0, time.Time{}
		return
	}
	k.due = now.Add(period >> max(3, 6-k.failed))
	k.failed++
}

// sameDoor reports whether a handshake with one is a handshake with the other.
func sameDoor(a, b *directory.Descriptor) bool {
	return a.ID == b.ID && a.LinkKey == b.LinkKey && slices.Equal(a.Addrs, b.Addrs)
}

// planTries makes a try of every relay due in the new period, spread by identity over the first
// half of its collecting time.
func (s *store) planTries(p Period) {
	spread := p.Vote.Sub(p.Collect) / 2
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, k := range s.relays {
		k.due = p.Collect.Add(moment(id, spread))
	}
}

// moment picks a moment of d for a relay, always the same.
func moment(id cell.NodeID, d time.Duration) time.Duration {
	return d / 65536 * time.Duration(uint(id[0])<<8|uint(id[1]))
}
