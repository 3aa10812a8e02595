package authority

import (
	"net/netip"
	"testing"

	"peel/directory"
)

// A network may ask for more signatures than it must. That makes nobody honest: one dishonest authority still says nothing
// that the others do not.
func TestAHigherThresholdDoesNotBelieveOneLiar(t *testing.T) {
	t.Run("shared random value", func(t *testing.T) {
		for _, n := range []int{4, 5, 8} {
			honest := newLottery(t, n)
			honest.net.Threshold = n
			honest.rounds(60)
			l := newLottery(t, n)
			l.net.Threshold = n
			l.says = func(i, round int, v *directory.Vote) {
				if i == 0 {
					v.Shared.Run++
					v.Shared.Current = directory.SharedValue{Reveals: n, Value: directory.Digest{1}} // chosen by it
				}
			}
			l.rounds(60)
			if a, b := honest.rounds(1), l.rounds(1); a != b {
				t.Errorf("%d of %d: %v, want %v", n, n, b, a)
			}
		}
	})
	t.Run("address", func(t *testing.T) {
		b := newBallot(5, 3)
		b.net.Network.Threshold = 5
		id := b.votes[0].Relays[0].ID
		v4, lie := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::2]:1")
		for _, v := range b.votes {
			v.Relays[0].Addrs = []netip.AddrPort{v4}
		}
		b.votes[2].Relays[0].Addrs = []netip.AddrPort{v4, lie}
		if e, ok := b.tally(t).Lookup(id); !ok || len(e.Addrs) != 1 || e.Addrs[0] != v4 {
			t.Errorf("%v, want it at %v alone", e, v4)
		}
	})
}

// A relay shows itself to few honest authorities only, so that those that lie for it are most of those that list it: at the
// least vote that counts, and, of 13 authorities, when all vote.
func TestLiarsAreNotTheMajorityOfFewVotes(t *testing.T) {
	for _, c := range []struct{ authorities, liars, votes, list int }{
		{7, 2, 5, 3}, {10, 3, 9, 5}, {13, 4, 13, 7},
	} {
		b := newBallot(c.authorities, 3)
		b.votes = b.votes[:c.votes]
		id := b.votes[0].Relays[0].ID
		for i, v := range b.votes {
			if i >= c.list {
				drop(v, 0)
				continue
			}
			v.Relays[0].Flags &^= directory.Guard
			v.Relays[0].Bandwidth = 50_000
			if i < c.liars {
				v.Relays[0].Flags |= directory.Guard
				v.Relays[0].Bandwidth = directory.MaxBandwidth
			}
		}
		e, ok := b.tally(t).Lookup(id)
		if ok && (e.Flags.Has(directory.Guard) || e.Bandwidth != 50_000) {
			t.Errorf("%d liars of %d, %d votes, %d of which list the relay: %v with %d bytes per second, which no honest one says",
				c.liars, c.authorities, c.votes, c.list, e.Flags, e.Bandwidth)
		}
	}
}
