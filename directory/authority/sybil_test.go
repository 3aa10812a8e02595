package authority

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
)

// flood is a network of old relays, known for 90 days, that many new ones join in one hour. All
// relays are reached whenever they are tried, and all are as fast as they say, even when measured.
type flood struct {
	*shelf
	old, young map[cell.NodeID]bool
}

// youngBandwidth is what each of the new relays shows, bytes per second.
const youngBandwidth = 1_000_000_000

func newFlood(t *testing.T, old, young int, addr func(i int) netip.Addr) *flood {
	f := &flood{shelf: newShelf(t, old+young), old: map[cell.NodeID]bool{}, young: map[cell.NodeID]bool{}}
	f.capacity = maxRelays
	for i := range old {
		d := f.publish(i, 204, "", nil)
		f.old[d.ID] = true
	}
	f.pass(time.Hour, 20*time.Minute)
	f.past.clock += (90 * day).Seconds()
	for _, r := range f.past.records { // who was there all the time
		r.advance(f.past.clock, &history{period: 1000 * day})
		r.last = f.past.clock
	}
	var refused int
	for i := range young {
		d := f.net.Relays[old+i].Descriptor
		d.Addrs = []netip.AddrPort{netip.AddrPortFrom(addr(i), uint16(9001+i))}
		d.Bandwidth, d.Observed, d.Published = youngBandwidth, youngBandwidth, f.now.Truncate(time.Second)
		if d.Policy = nil; i%4 < 2 {
			d.Policy = directory.Policy{{Accept: true, Lo: 1, Hi: 65535}}
		}
		text, err := d.Sign(f.net.Relays[old+i].Identity)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.add(text, f.now); err != nil {
			refused++
			continue
		}
		f.young[d.ID] = true
		f.reached(&d)
	}
	t.Logf("%d relays joined, %d were refused at once", len(f.young), refused)
	return f
}

// pass lets time pass in which all relays are tried every so often.
func (f *flood) pass(d, every time.Duration) {
	for end := f.now.Add(d); f.now.Before(end); {
		f.now = f.now.Add(every)
		for _, k := range f.relays {
			k.desc.Published = f.now // they publish again, which is not what this is about
			if len(k.there) > 0 || !f.young[k.desc.ID] {
				f.tried(k.desc, k.desc.Addrs, f.now, every*3)
			}
		}
	}
}

// vote is what an authority says that measured each relay as fast as it is.
func (f *flood) vote() []directory.VoteEntry {
	list := f.candidates(f.now.Add(-time.Hour), f.now)
	for i := range list {
		list[i].measured = list[i].desc.Bandwidth
	}
	return entries(list, time.Hour, defaultMaxBandwidth)
}

// shares are the chances that a relay of the young is drawn for each position.
func (f *flood) shares(vote []directory.VoteEntry) (shares [3]float64) {
	list := make([]directory.Entry, len(vote))
	for i := range vote {
		list[i] = vote[i].Entry
		list[i].Bandwidth = vote[i].Measured
	}
	w := directory.WeightsOf(list)
	for pos := range shares {
		var all, young float64
		for i := range list {
			e := &list[i]
			need := [...]directory.Flags{directory.Guard, directory.Running, directory.Exit}[pos]
			if !e.Flags.Has(need | directory.Running) {
				continue
			}
			weight := float64(e.Bandwidth) * float64(w.Of(directory.Position(pos), e.Flags))
			all += weight
			if f.young[e.ID] {
				young += weight
			}
		}
		shares[pos] = young / all
	}
	return shares
}

// 500 fast relays that join in one hour from a few networks have less than a twentieth of any
// position of a path for the week that follows (the first day of it, in the quick test).
func TestFiveHundredRelaysOfAFewNetworks(t *testing.T) {
	const networks = 4
	f := newFlood(t, 600, 500, func(i int) netip.Addr { // 3 on each address
		return netip.AddrFrom4([4]byte{100, byte(i % networks), byte(i / networks / 3), 7})
	})
	var most [3]float64
	hours := 24
	if slow() {
		hours = 7 * 24
	}
	for hour := range hours {
		f.pass(time.Hour, 20*time.Minute)
		vote := f.vote()
		addrs := map[netip.Addr]int{}
		running := 0
		for i := range vote {
			e := &vote[i]
			if !f.young[e.ID] {
				continue
			}
			if e.Flags.Has(directory.Guard) {
				t.Fatalf("hour %d: a relay of the week is a guard", hour)
			}
			if e.Flags.Has(directory.Running) {
				running++
				addrs[e.Addrs[0].Addr()]++
			}
			ramp := newcomer * math.Exp2(float64(hour+2)/48)
			if float64(max(e.Measured, e.Bandwidth)) > ramp {
				t.Fatalf("hour %d: a new relay counts for %d, want at most %.0f", hour, e.Measured, ramp)
			}
		}
		for a, n := range addrs {
			if n > 2 {
				t.Fatalf("hour %d: %d relays at %v", hour, n, a)
			}
		}
		if running < 300 || running > 400 {
			t.Fatalf("hour %d: %d of the new relays run, want the two of each address", hour, running)
		}
		for pos, share := range f.shares(vote) {
			most[pos] = max(most[pos], share)
		}
	}
	for pos, share := range most {
		if share >= 0.05 {
			t.Errorf("position %d: the new relays have %.2f %% of the weight, want less than 5 %%", pos, 100*share)
		}
	}
	if most[directory.PositionExit] == 0 {
		t.Error("this test sees no new relay")
	}
	t.Logf("at most, in %d hours: %s of guards, %s of middles, %s of exits", hours, percent(most[0]), percent(most[1]), percent(most[2]))
}

func percent(v float64) string { return fmt.Sprintf("%.2f %%", 100*v) }

// From as many networks as there are relays only the ramp holds them.
func TestFiveHundredRelaysOfManyNetworks(t *testing.T) {
	if !slow() {
		t.Skip("the ramp alone against as many networks: PEEL_SLOW=1 runs it")
	}
	f := newFlood(t, 600, 500, func(i int) netip.Addr { return netip.AddrFrom4([4]byte{byte(90 + i/250), byte(i % 250), 0, 7}) })
	f.pass(time.Hour, 20*time.Minute)
	first := f.shares(f.vote())
	if first[1] > 0.02 || first[2] > 0.02 {
		t.Errorf("after an hour they have %v", first)
	}
	f.pass(7*day, 20*time.Minute)
	last := f.shares(f.vote())
	if last[0] != 0 || last[1] > 0.06 || last[2] > 0.12 {
		t.Errorf("after a week they have %v", last)
	}
	t.Logf("after an hour %s of middles and %s of exits, after a week %s and %s", percent(first[1]), percent(first[2]), percent(last[1]), percent(last[2]))
}

// A relay that stays grows up.
func TestNewRelaysGrow(t *testing.T) {
	f := newFlood(t, 40, 1, func(int) netip.Addr { return netip.AddrFrom4([4]byte{90, 1, 0, 7}) })
	value := func() uint64 {
		for _, e := range f.vote() {
			if f.young[e.ID] {
				return e.Measured
			}
		}
		return 0
	}
	var got []uint64
	for range 5 {
		f.pass(time.Hour, 20*time.Minute)
		got = append(got, value())
		f.pass(7*day, 20*time.Minute)
	}
	t.Logf("a relay of %d counts for %d in the weeks after it came", youngBandwidth, got)
	if got[0] > newcomer*21/20 || got[4] != youngBandwidth {
		t.Errorf("%d at first and %d after four weeks, want about %d and all of it, %d", got[0], got[4], newcomer, youngBandwidth)
	}
	for i := range got[1:] {
		if got[i+1] < got[i] {
			t.Errorf("it shrinks: %d", got)
		}
	}
}
