package authority

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"peel/cell"
	"peel/directory"
)

// A relay is listed when a majority of the authorities reached it, and tried again when it failed.
func TestRelaysMustBeReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 5, 4)
		id := func(i int) cell.NodeID { return w.net.Relays[i].Descriptor.ID }
		var mu sync.Mutex
		failed := map[int]bool{}
		for i, n := range w.nodes {
			n.cfg.Reach = func(ctx context.Context, d *directory.Descriptor, _ netip.AddrPort) error {
				switch {
				case d.ID == id(1): // is silent
					<-ctx.Done()
					return ctx.Err()
				case d.ID == id(2) && i < 3:
					return errors.New("refused")
				case d.ID == id(3):
					mu.Lock()
					defer mu.Unlock()
					if !failed[i] {
						failed[i] = true
						return errors.New("refused once")
					}
				}
				return nil
			}
		}
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		w.wantAgreed(hour(1), 5)
		c := w.nodes[0].auth.Consensus()
		for i, want := range []bool{true, false, false, true} {
			if _, ok := c.Lookup(id(i)); ok != want {
				t.Errorf("relay %d listed: %v, want %v", i, ok, want)
			}
		}
	})
}

// Relays where nobody answers take half of the workers, however many they are.
func TestSilentRelaysLeaveWorkersToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1, 100)
		silent := map[cell.NodeID]bool{}
		var mu sync.Mutex
		busy, most := 0, 0
		w.nodes[0].cfg.Reach = func(ctx context.Context, d *directory.Descriptor, _ netip.AddrPort) error {
			if !silent[d.ID] {
				return nil
			}
			mu.Lock()
			busy++
			most = max(most, busy)
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			busy--
			mu.Unlock()
			return ctx.Err()
		}
		for _, r := range w.net.Relays[:80] {
			silent[r.Descriptor.ID] = true
		}
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		for i := 1; i <= 2; i++ {
			w.wantAgreed(hour(i), 1)
			if n := len(w.nodes[0].auth.Consensus().Entries); n != 20 {
				t.Errorf("period %d: %d relays, want the 20 that are there", i, n)
			}
		}
		if most != freshWorkers {
			t.Errorf("%d silent relays tried at a time, want %d", most, freshWorkers)
		}
		if n := w.nodes[0].auth.store.len(); n != 20 {
			t.Errorf("%d descriptors held, want 20: those that were never reached are dropped", n)
		}
	})
}

// Relays are tried at every address, and listed at those where authorities reached them, be it not
// all: some have no IPv6.
func TestEveryAddressIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 5, 12)
		dead := map[netip.AddrPort]bool{}
		want := map[cell.NodeID][]netip.AddrPort{}
		for i := range w.net.Relays {
			r := &w.net.Relays[i]
			d := &r.Descriptor
			v4 := d.Addrs[0]
			v6 := netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x2a, 0, 7: byte(i), 15: 1}), 9001)
			d.Addrs = []netip.AddrPort{v4, v6}
			switch i % 3 {
			case 0:
				want[d.ID] = d.Addrs
			case 1:
				want[d.ID], dead[v6] = d.Addrs[:1], true
			case 2:
				want[d.ID], dead[v4] = d.Addrs[1:], true
			}
			var err error
			if r.Text, err = d.Sign(r.Identity); err != nil {
				t.Fatal(err)
			}
		}
		for i, n := range w.nodes {
			n.cfg.Reach = func(ctx context.Context, _ *directory.Descriptor, at netip.AddrPort) error {
				if dead[at] {
					<-ctx.Done()
					return ctx.Err()
				}
				if at.Addr().Is6() && i >= 3 {
					return errors.New("network is unreachable")
				}
				return nil
			}
		}
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		w.wantAgreed(hour(1), 5)
		for id, addrs := range want {
			e, ok := w.nodes[0].auth.Consensus().Lookup(id)
			if !ok || !slices.Equal(e.Addrs, addrs) {
				t.Errorf("listed: %v, %+v; want it at %v", ok, e, addrs)
			}
		}
	})
}

// A relay that went away is not listed in the next period, though its descriptor is fresh.
func TestRelayThatLeftIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 5, 4)
		var gone sync.Map
		for _, n := range w.nodes {
			n.cfg.Reach = func(_ context.Context, d *directory.Descriptor, _ netip.AddrPort) error {
				if _, ok := gone.Load(d.ID); ok {
					return errors.New("refused")
				}
				return nil
			}
		}
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		w.wantAgreed(hour(1), 5)
		gone.Store(w.net.Relays[0].Descriptor.ID, true)
		w.wantAgreed(hour(2), 5)
		if n := len(w.nodes[0].auth.Consensus().Entries); n != 3 {
			t.Errorf("%d relays, want 3", n)
		}
	})
}

// A relay that publishes an address at which nobody reaches it, because an authority told it that there was no directory by which it could have had
// that tested, is in no consensus, also if that authority says that it reached it.
func TestRelayThatOneAuthorityLetsInIsNotListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 5, 4)
		nobody := w.net.Relays[0].Descriptor.ID
		for i, n := range w.nodes {
			n.cfg.Reach = func(_ context.Context, d *directory.Descriptor, _ netip.AddrPort) error {
				if d.ID == nobody && i > 0 {
					return errors.New("refused")
				}
				return nil
			}
		}
		w.startAll()
		defer w.stopAll()
		for hours := range 2 {
			w.publishAll()
			w.wantAgreed(hour(1+hours), 5)
			c := w.nodes[1].auth.Consensus()
			if _, listed := c.Lookup(nobody); listed || len(c.Entries) != 3 {
				t.Errorf("hour %d: %d relays, it among them: %t", hours, len(c.Entries), listed)
			}
			sleepUntil(minute(float64(60*(1+hours) + 1)))
		}
	})
}
