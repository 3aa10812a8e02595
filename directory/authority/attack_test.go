package authority

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"peel/cell"
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

// Anybody may publish as many relays as there is room for, which nobody has to reach. So many with so much to say that a vote of all
// of them would be longer than it may be: the authority votes all the same, for the relays that are there.
func TestAFloodOfLongDescriptorsKeepsNoVoteOut(t *testing.T) {
	s := newShelf(t, 20)
	for i := range s.net.Relays {
		d := s.publish(i, 204, "", nil)
		s.tried(d, d.Addrs, s.now, time.Hour)
	}
	var rules []string
	for i := range directory.MaxRules {
		rules = append(rules, fmt.Sprintf("reject [2001:db8:1111:2222:3333:4444:5555:%x]:10000-20000", 0x6666+i))
	}
	policy, err := directory.ParsePolicy(rules)
	if err != nil {
		t.Fatal(err)
	}
	var family []cell.NodeID
	for i := range directory.MaxFamily {
		family = append(family, cell.NodeID{0xfe, byte(i)})
	}
	for i := range 3000 {
		d := s.net.Relays[0].Descriptor
		binary.BigEndian.PutUint32(d.ID[1:], uint32(i))
		d.ID[0], d.Family, d.Policy = 1, family, policy
		if _, err := s.addParsed(&d, d.Append(nil), s.now); err != nil { // an attacker would sign them
			t.Fatal(err)
		}
	}
	v, _ := s.net.Vote(0)
	list := s.candidates(s.now.Add(-time.Hour), s.now)
	v.Relays = entries(list, time.Hour, defaultMaxBandwidth)
	v.Relays, _ = fit(v.Relays, list)
	if _, err := v.Sign(s.net.Authorities[0].Signing); err != nil {
		t.Fatal(err)
	}
	running := 0
	for i := range v.Relays {
		if v.Relays[i].Flags.Has(directory.Running) {
			running++
		}
	}
	if running != 20 || len(v.Relays) < 2000 {
		t.Errorf("a vote for %d relays, of which %d are running, want all 20 of these", len(v.Relays), running)
	}
}

// Nor does what the votes list together make a consensus that is longer than it may be: the same relays are left out by all.
func TestAConsensusIsNoLongerThanItMayBe(t *testing.T) {
	b := newBallot(5, 12)
	all := tallyRelays(b.votes, honest(b.net.Network), measurers(5))
	for i := range all {
		all[i].votes, all[i].Bandwidth = 5, uint64(100+i)
	}
	all[0].Bandwidth, all[7].votes = 1000, 4
	room := 0
	for i := range all {
		room += len(all[i].Append(nil))
	}
	if got := limitSize(slices.Clone(all), room); len(got) != 12 {
		t.Errorf("%d of 12 relays, for which there is room", len(got))
	}
	room -= len(all[1].Append(nil)) + len(all[2].Append(nil)) + len(all[7].Append(nil))
	want := slices.Concat(all[:1:1], all[3:7], all[8:])
	if got := limitSize(all, room); !slices.EqualFunc(got, want, func(a, b tallied) bool { return a.ID == b.ID }) {
		t.Errorf("%d relays stay, want all but the two of least bandwidth and the one that fewer reached", len(got))
	}
}
