package authority

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

// ballot is a network and a vote of each authority, for tests to change. The votes are not signed:
// Tally takes that as done.
type ballot struct {
	net    *dirtest.Net
	period Period
	votes  []*directory.Vote
}

func newBallot(authorities, relays int) *ballot {
	return ballotOf(dirtest.New(7, relays, dirtest.Authorities(authorities)))
}

func ballotOf(net *dirtest.Net) *ballot {
	authorities := len(net.Authorities)
	b := &ballot{net: net}
	b.period = PeriodAt(b.net.Network.Schedule, dirtest.ValidAfter.Add(-time.Minute))
	for i := range authorities {
		v, _ := b.net.Vote(i)
		for j := range v.Relays {
			v.Relays[j].Measured = 0
		}
		b.votes = append(b.votes, v)
	}
	return b
}

func (b *ballot) tallied(t rapid.TB) *directory.Consensus {
	t.Helper()
	c, err := Tally(b.net.Network, b.period, b.votes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tally sees that the consensus can be written, too.
func (b *ballot) tally(t *testing.T) *directory.Consensus {
	t.Helper()
	c := b.tallied(t)
	if _, err := c.Encode(); err != nil {
		t.Fatalf("the consensus has no text: %v", err)
	}
	return c
}

// forget takes a flag out of votes, as if their authorities did not know it.
func forget(votes []*directory.Vote, f directory.Flags) {
	for _, v := range votes {
		v.KnownFlags &^= f
		for j := range v.Relays {
			v.Relays[j].Flags &^= f
		}
	}
}

// drop takes relay j off the list of a vote.
func drop(v *directory.Vote, j int) { v.Relays = slices.Delete(slices.Clone(v.Relays), j, j+1) }

func TestTally(t *testing.T) {
	later := func(e *directory.VoteEntry) {
		e.Published = e.Published.Add(time.Minute)
		e.Descriptor[0]++
		e.Nickname = "later"
	}
	for _, c := range []struct {
		name   string
		votes  int // of 5, of which 4 must sign
		change func(b *ballot)
		want   string // of relay 0: "-" when it is not listed
	}{
		{"all say the same", 5, func(b *ballot) {}, "relay Fast Guard HSDir Running Stable Valid 5"},
		{"each holds another descriptor that says the same", 5, func(b *ballot) {
			for i, v := range b.votes {
				v.Relays[0].Published = v.Relays[0].Published.Add(time.Duration(i) * time.Minute)
				v.Relays[0].Descriptor[0] += byte(i)
			}
		}, "relay Fast Guard HSDir Running Stable Valid 5"},
		{"three of five list it", 5, func(b *ballot) { drop(b.votes[0], 0); drop(b.votes[1], 0) }, "relay Fast Guard HSDir Running Stable Valid 5"},
		{"two of five list it", 5, func(b *ballot) { drop(b.votes[0], 0); drop(b.votes[1], 0); drop(b.votes[2], 0) }, "-"},
		{"three of four list it", 4, func(b *ballot) { drop(b.votes[3], 0) }, "relay Fast Guard HSDir Running Stable Valid 5"},
		{"two of four list it", 4, func(b *ballot) { drop(b.votes[0], 0); drop(b.votes[3], 0) }, "-"},
		{"two of five reached it", 5, func(b *ballot) {
			for _, v := range b.votes[:3] {
				v.Relays[0].Flags &^= directory.Running
			}
		}, "-"},
		{"three of five reached it", 5, func(b *ballot) {
			for _, v := range b.votes[:2] {
				v.Relays[0].Flags &^= directory.Running
			}
		}, "relay Fast Guard HSDir Running Stable Valid 5"},
		{"three of five call it invalid", 5, func(b *ballot) {
			for _, v := range b.votes[:3] {
				v.Relays[0].Flags &^= directory.Valid
			}
		}, "-"},
		{"a flag by half of those who list it", 5, func(b *ballot) {
			drop(b.votes[4], 0)
			b.votes[0].Relays[0].Flags &^= directory.Guard
			b.votes[1].Relays[0].Flags &^= directory.Guard
		}, "relay Fast HSDir Running Stable Valid 5"},
		{"a flag that two alone know", 5, func(b *ballot) { forget(b.votes[2:], directory.HSDir) }, "relay Fast Guard HSDir Running Stable Valid 5"},
		{"a flag that one alone knows", 5, func(b *ballot) { forget(b.votes[1:], directory.HSDir) }, "relay Fast Guard Running Stable Valid 5"},
		{"bandwidth is the middle one", 5, func(b *ballot) {
			for i, bw := range []uint64{9, 1 << 40, 0, 8, 7} {
				b.votes[i].Relays[0].Bandwidth = bw
			}
		}, "relay Fast Guard HSDir Running Stable Valid 8"},
		{"bandwidth of four is the lower of the middle ones", 4, func(b *ballot) {
			for i, bw := range []uint64{9, 8, 7, 1} {
				b.votes[i].Relays[0].Bandwidth = bw
			}
		}, "relay Fast Guard HSDir Running Stable Valid 7"},
		{"measured by three", 5, func(b *ballot) {
			for i, bw := range []uint64{30, 10, 20} {
				b.votes[i].Relays[0].Measured = bw
			}
		}, "relay Fast Guard HSDir Running Stable Valid 20"},
		{"measured by two only", 5, func(b *ballot) {
			b.votes[0].Relays[0].Measured, b.votes[1].Relays[0].Measured = 30, 10
		}, "relay Fast Guard HSDir Running Stable Valid 5"},
		{"three have a later descriptor", 5, func(b *ballot) {
			for _, v := range b.votes[:3] {
				later(&v.Relays[0])
			}
		}, "later Fast Guard HSDir Running Stable Valid 5"},
		{"two have a later descriptor", 5, func(b *ballot) {
			for _, v := range b.votes[:2] {
				later(&v.Relays[0])
			}
		}, "relay Fast Guard HSDir Running Stable Valid 5"},
		{"two and two: the later", 4, func(b *ballot) {
			for _, v := range b.votes[:2] {
				later(&v.Relays[0])
			}
		}, "later Fast Guard HSDir Running Stable Valid 5"},
		{"one says something else of the same descriptor", 5, func(b *ballot) {
			b.votes[4].Relays[0].OnionKey[0]++
			b.votes[4].Relays[0].Nickname = "forged"
		}, "relay Fast Guard HSDir Running Stable Valid 5"},
		{"one forges the latest when nobody else agrees", 4, func(b *ballot) {
			drop(b.votes[0], 0)
			for i, v := range b.votes[1:] {
				v.Relays[0].Nickname = fmt.Sprint("forged", i)
				v.Relays[0].Descriptor[0] += byte(i)
			}
		}, "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBallot(5, 6)
			id := b.votes[0].Relays[0].ID
			for _, v := range b.votes {
				v.Relays[0].Nickname, v.Relays[0].Bandwidth = "relay", 5
				v.Relays[0].Flags = directory.Valid | directory.Running | directory.Fast | directory.Stable | directory.Guard | directory.HSDir
			}
			b.votes = b.votes[:c.votes]
			c.change(b)
			cons := b.tally(t)
			got := "-"
			if e, ok := cons.Lookup(id); ok {
				got = fmt.Sprintf("%s %v %d", e.Nickname, e.Flags, e.Bandwidth)
			}
			if got != c.want {
				t.Errorf("relay 0: %s, want %s", got, c.want)
			}
			if len(cons.Entries) < 5 {
				t.Errorf("%d relays listed: others vanished too", len(cons.Entries))
			}
		})
	}
}

// Two and two say different things of one descriptor, so two of them lie: the greater text of the entry counts, and nothing that no
// entry of a consensus has.
func TestTheGreaterTextOfADescriptorCounts(t *testing.T) {
	b := newBallot(4, 6)
	id := b.votes[0].Relays[0].ID
	for i, v := range b.votes {
		v.Relays[0].Family, v.Relays[0].Policy = nil, nil
		if i%2 == 0 {
			v.Relays[0].Policy = directory.Policy{{Accept: true, Lo: 80, Hi: 80}}
		}
	}
	if e, ok := b.tally(t).Lookup(id); !ok || len(e.Policy) != 1 {
		t.Errorf("relay 0 is listed: %v, with rules %v; the entry with a rule begins with the one without, and so is the greater", ok, e.Policy)
	}
}

func TestTallyHeader(t *testing.T) {
	b := newBallot(5, 9)
	c := b.tally(t)
	if c.Network != b.net.Network.ID() || c.Method != Method || c.Relays != 9 ||
		c.ValidAfter != b.period.ValidAfter || c.FreshUntil != b.period.FreshUntil || c.ValidUntil != b.period.ValidUntil ||
		c.Weights != directory.WeightsOf(c.Entries) || c.Root != directory.Root(c.Entries) || len(c.Signatures) != 0 {
		t.Errorf("header %+v", c.Header)
	}
}

func TestParametersAreLowMediansOfAMajority(t *testing.T) {
	b := newBallot(5, 3)
	for i, p := range []directory.Params{
		{"a": 5, "b": 1, "relays-per-address": 9},
		{"a": 1, "b": 2, "relays-per-address": 2},
		{"a": 4, "c": 7, "relays-per-address": 3},
		{"a": -3, "relays-per-address": 4},
		nil,
	} {
		b.votes[i].Params = p
	}
	got := b.tally(t).Params
	if len(got) != 2 || got["a"] != 1 || got["relays-per-address"] != 3 {
		t.Errorf("parameters %v, want a=1 relays-per-address=3", got)
	}
}

func TestUnknownMethodIsNotGuessed(t *testing.T) {
	b := newBallot(5, 3)
	for i := range 3 {
		b.votes[i].Methods = []int{1, 2}
	}
	if c := b.tally(t); c.Method != 1 {
		t.Errorf("three of five: method %d, want 1", c.Method)
	}
	b.votes[3].Methods = []int{1, 2}
	if _, err := Tally(b.net.Network, b.period, b.votes); err == nil {
		t.Error("method 2, which four of five want, was computed without knowing it")
	}
}

func TestTooFewVotesMakeNoConsensus(t *testing.T) {
	b := newBallot(5, 3)
	if _, err := Tally(b.net.Network, b.period, b.votes[:3]); !errors.Is(err, ErrFewVotes) {
		t.Errorf("three of five votes: %v, want ErrFewVotes", err)
	}
	if _, err := Tally(b.net.Network, b.period, append(b.votes[:4:4], b.votes[0])); err == nil {
		t.Error("an authority voted twice and was counted")
	}
}

// An address is listed when so many reached the relay there that one of them is honest, though the
// others have no such addresses themselves; what fewer say is left out.
func TestAddressesAreThoseThatWereReached(t *testing.T) {
	v4, v6, lie := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[2001:db8::1]:1"), netip.MustParseAddrPort("[2001:db8::2]:1")
	both, one := []netip.AddrPort{v4, v6}, []netip.AddrPort{v4}
	for _, c := range []struct {
		name    string
		reached [5][]netip.AddrPort // nil: not at all; its vote lists them all
		want    []netip.AddrPort    // nil: not listed
	}{
		{"all at both", [5][]netip.AddrPort{both, both, both, both, both}, both},
		{"two at IPv6", [5][]netip.AddrPort{both, one, one, both, one}, both},
		{"one at IPv6", [5][]netip.AddrPort{both, one, one, one, one}, one},
		{"one where nobody else did", [5][]netip.AddrPort{{v4, lie}, both, both, one, one}, both},
		{"one where it is not, with IPv6 nowhere", [5][]netip.AddrPort{{v4, lie}, one, one, one, one}, one},
		{"two at no address", [5][]netip.AddrPort{one, one, one, nil, nil}, one},
		{"those with IPv6 only", [5][]netip.AddrPort{{v6}, {v6}, one, nil, nil}, []netip.AddrPort{v6}},
		{"each elsewhere", [5][]netip.AddrPort{{lie}, {v6}, one, nil, nil}, nil},
	} {
		b := newBallot(5, 3)
		id := b.votes[0].Relays[0].ID
		for i, v := range b.votes {
			v.Relays[0].Addrs = c.reached[i]
			if c.reached[i] == nil {
				v.Relays[0].Addrs = both
				v.Relays[0].Flags &^= directory.Running
			}
		}
		e, ok := b.tally(t).Lookup(id)
		if ok != (c.want != nil) || ok && !slices.Equal(e.Addrs, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.name, e, ok, c.want)
		}
	}
}

// Each authority admits two relays at an address, but not all the same two.
func TestAddressLimitHoldsAcrossVotes(t *testing.T) {
	b := newBallot(5, 8)
	shared := netip.MustParseAddrPort("192.0.2.1:9001")
	for _, v := range b.votes {
		for j := range 4 {
			v.Relays[j].Addrs = []netip.AddrPort{shared}
			v.Relays[j].Bandwidth = uint64(100 + j)
		}
	}
	for _, v := range b.votes[:2] {
		v.Relays[3].Flags &^= directory.Running // three of five reached it
	}
	c := b.tally(t)
	var at []uint64
	for _, e := range c.Entries {
		if e.Addrs[0] == shared {
			at = append(at, e.Bandwidth)
		}
	}
	if !slices.Equal(at, []uint64{101, 102}) {
		t.Errorf("at one address: those of bandwidth %v, want 101 and 102, the two best reached", at)
	}
	if len(c.Entries) != 6 {
		t.Errorf("%d relays, want 6", len(c.Entries))
	}
}

// Whatever the votes, their order makes no difference to a single byte.
func TestTallyDoesNotDependOnOrder(t *testing.T) {
	net := dirtest.New(7, 12)
	rapid.Check(t, func(t *rapid.T) {
		b := ballotOf(net)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for _, v := range b.votes {
			scramble(rng, v)
		}
		first := b.tallied(t)
		for range 4 {
			rng.Shuffle(len(b.votes), func(i, j int) { b.votes[i], b.votes[j] = b.votes[j], b.votes[i] })
			again := b.tallied(t)
			if !bytes.Equal(first.Append(nil), again.Append(nil)) {
				t.Fatal("another order of the votes made another consensus")
			}
		}
	})
}

// scramble makes a vote differ from others in every way a vote can.
func scramble(rng *rand.Rand, v *directory.Vote) {
	kept := v.Relays[:0]
	for _, e := range v.Relays {
		if rng.IntN(5) == 0 {
			continue
		}
		e.Flags = directory.Flags(rng.Uint32()) & v.KnownFlags
		if rng.IntN(4) > 0 {
			e.Flags |= directory.Running | directory.Valid
		}
		e.Bandwidth = uint64(rng.IntN(4))
		e.Measured = uint64(rng.IntN(3))
		e.Published = e.Published.Add(time.Duration(rng.IntN(2)) * time.Second)
		e.Descriptor[0] = byte(rng.IntN(2))
		e.OnionKey[0] = byte(rng.IntN(2))
		e.Addrs = []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(4))}), 1)}
		kept = append(kept, e)
	}
	v.Relays = kept
	v.Params = directory.Params{}
	for _, name := range []string{"a", "b", "c"} {
		if rng.IntN(3) > 0 {
			v.Params[name] = rng.Int32N(5)
		}
	}
}

// A dishonest minority of one cannot add a relay, remove one, or change what is said of one, when the
// others agree.
func TestOneLiarChangesNothing(t *testing.T) {
	net := dirtest.New(7, 12)
	rapid.Check(t, func(t *rapid.T) {
		b := ballotOf(net)
		honest := b.tallied(t)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		liar := b.votes[rng.IntN(5)]
		scramble(rng, liar)
		liar.Params = b.votes[0].Params
		liar.Relays = append(liar.Relays, directory.VoteEntry{Entry: liar.Relays[0].Entry})
		liar.Relays[len(liar.Relays)-1].ID = cell.NodeID{0xff}
		slices.SortFunc(liar.Relays, func(a, b directory.VoteEntry) int { return compareID(&a.ID, &b.ID) })
		got := b.tallied(t)
		if !bytes.Equal(honest.Append(nil), got.Append(nil)) {
			t.Fatal("one of five authorities changed the consensus of the four others")
		}
	})
}

func BenchmarkTally(b *testing.B) {
	for _, relays := range []int{10, 100, 1000, 10000} {
		b.Run(fmt.Sprintf("relays=%d", relays), func(b *testing.B) {
			ballot := newBallot(5, relays)
			for b.Loop() {
				if _, err := Tally(ballot.net.Network, ballot.period, ballot.votes); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
