package authority

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

// line is a network whose relays have lines of a capacity, seen by one who measures it: pure, in the
// time that the test says it is.
type line struct {
	*samples
	c        *directory.Consensus
	capacity map[cell.NodeID]float64
	now      time.Time
	rng      *rand.Rand

	// cheat, if set, says what a relay makes of a probe that would get so much through it.
	cheat  func(p *probe, i int, rate float64) float64
	probes int
}

func newLine(seed uint64, capacities ...float64) *line {
	l := &line{
		samples: newSamples(time.Hour), now: epoch, rng: rand.New(rand.NewPCG(seed, 1)), capacity: map[cell.NodeID]float64{},
		c: dirtest.New(seed, len(capacities)).Consensus,
	}
	for i := range l.c.Entries {
		e := &l.c.Entries[i]
		e.Bandwidth = newcomer
		l.capacity[e.ID] = capacities[i]
	}
	return l
}

// hours lets periods go by, in which each relay is busy for something between 10 and 40 % of its line.
func (l *line) hours(n int) {
	for range n {
		end := l.now.Add(time.Hour)
		for _, p := range l.plan(l.c, l.now, end, l.rng.Uint64N) {
			l.probes++
			rate := 1e12
			for i, e := range p.path {
				free := l.capacity[e.ID] * (0.6 + 0.3*l.rng.Float64())
				if l.cheat != nil {
					free = l.cheat(&p, i, free)
				}
				rate = min(rate, free)
			}
			if rate <= 0 {
				l.takeFailed([]failure{{&p, &HopError{0, len(p.path) - 1, errDown}, p.at}}, 2)
				continue
			}
			l.take(&p, uint64(rate), p.at)
		}
		l.now = end
	}
}

// share is what a relay is thought to carry, as a share of what it has.
func (l *line) share(i int) float64 {
	id := l.c.Entries[i].ID
	return float64(l.estimate(id)) / l.capacity[id]
}

const mega = 1e6

func mixed(n int) []float64 {
	list := make([]float64, n)
	for i := range list {
		list[i] = []float64{1 * mega, 10 * mega, 100 * mega}[i%3]
	}
	return list
}

// Relays of 1, 10 and 100 MB/s come to be known as what they are.
func TestHonestRelaysAreEstimatedInOrder(t *testing.T) {
	for _, n := range []int{12, 60, 600} {
		for seed := range uint64(min(5, 600/n)) {
			l := newLine(seed, mixed(n)...)
			l.hours(24)
			least, most := 2.0, 0.0
			for i := range l.c.Entries {
				least, most = min(least, l.share(i)), max(most, l.share(i))
			}
			t.Logf("%d relays, seed %d: after 24 periods estimates are %.0f to %.0f %% of the line, of which 60 to 90 %% are free; %.1f probes a relay and period",
				n, seed, 100*least, 100*most, float64(l.probes)/float64(n)/24)
			if least < 0.5 || most > 0.9 {
				t.Errorf("%d relays, seed %d: estimates of %.2f to %.2f", n, seed, least, most)
			}
			before := l.probes
			l.hours(24)
			if rest := float64(l.probes-before) / float64(n) / 24; rest > 1 {
				t.Errorf("%d relays, seed %d: %.2f probes a relay and period when all is known", n, seed, rest)
			}
		}
	}
}

// A relay that is fast only for a link from a known measurer counts for what it is to others. One that
// tells who measures by being asked for data is of no use to itself, and harms others little.
func TestRelayThatIsFastOnlyForAMeasurer(t *testing.T) {
	l := newLine(1, mixed(60)...)
	liar := l.c.Entries[2].ID // 100 MB/s
	l.cheat = func(p *probe, i int, free float64) float64 {
		if p.path[i].ID == liar && i > 0 {
			return free / 100
		}
		return free
	}
	l.hours(48)
	if e := l.estimate(liar); e == 0 || e > 1.2*mega {
		t.Errorf("it counts for %d, want the 1 MB/s that it has for clients", e)
	}
	for i := range l.c.Entries {
		if l.c.Entries[i].ID != liar && l.share(i) < 0.4 {
			t.Errorf("relay %d counts for %.2f of its line: it suffers from the liar", i, l.share(i))
		}
	}
}

// Relays that slow others down when they serve the data must have most of the fast lines to matter.
func TestRelaysThatSlowOthersDown(t *testing.T) {
	l := newLine(2, mixed(60)...)
	bad := map[cell.NodeID]bool{}
	for i := 2; i < 18; i += 3 {
		bad[l.c.Entries[i].ID] = true // 6 of the 20 fastest
	}
	l.cheat = func(p *probe, i int, free float64) float64 {
		if bad[p.path[i].ID] && i == len(p.path)-1 {
			return free / 1000
		}
		return free
	}
	l.hours(72)
	harmed := 0
	for i := range l.c.Entries {
		if l.share(i) < 0.5 {
			harmed++
		}
	}
	t.Logf("%d of 60 relays count for less than half of what they have", harmed)
	if harmed > 12 {
		t.Errorf("%d of 60 relays are harmed by 6", harmed)
	}
}

// Who fails measurements on purpose does not keep what it had.
func TestRelayThatRefusesToBeMeasured(t *testing.T) {
	l := newLine(3, mixed(30)...)
	l.hours(24)
	x := l.c.Entries[2].ID
	if l.estimate(x) < 50*mega {
		t.Fatalf("it counts for %d", l.estimate(x))
	}
	l.cheat = func(p *probe, i int, free float64) float64 {
		if p.path[i].ID == x {
			return 0
		}
		return free
	}
	l.hours(72)
	if e := l.estimate(x); e > 1 {
		t.Errorf("it counts for %d still", e)
	}
	l.hours(24 * sampleDays)
	for i := range l.c.Entries {
		if l.c.Entries[i].ID != x && l.share(i) < 0.4 {
			t.Errorf("relay %d counts for %.2f of its line", i, l.share(i))
		}
	}
}

// A relay whose line becomes faster, or slower, is found out.
func TestLinesChange(t *testing.T) {
	l := newLine(4, mixed(60)...)
	l.hours(24)
	l.capacity[l.c.Entries[0].ID] = 80 * mega
	l.capacity[l.c.Entries[2].ID] = 2 * mega
	l.hours(24 * 2)
	if a, b := l.share(0), l.share(2); a < 0.5 || b > 1 {
		t.Errorf("after two days they count for %.2f and %.2f of their lines", a, b)
	}
}

// What looks like our own fault counts against nobody.
func TestWhenMostMeasurementsFail(t *testing.T) {
	l := newLine(5, mixed(9)...)
	l.hours(24)
	before := l.estimate(l.c.Entries[2].ID)
	probes := l.plan(l.c, l.now, l.now.Add(100*time.Hour), func(uint64) uint64 { return 0 })
	var failed []failure
	for i := range probes {
		failed = append(failed, failure{&probes[i], &HopError{0, 2, errDown}, l.now})
	}
	if len(failed) == 0 || l.takeFailed(failed, len(failed)) || l.estimate(l.c.Entries[2].ID) != before {
		t.Errorf("%d failures in a row change an estimate from %d to %d", len(failed), before, l.estimate(l.c.Entries[2].ID))
	}
	other := failure{&probe{target: 1}, &HopError{2, 2, errDown}, l.now}
	if other.blames() || (&failure{&probe{}, errors.New("our own"), l.now}).blames() {
		t.Error("a relay is blamed for what others did")
	}
}

func TestPathsOfMeasurements(t *testing.T) {
	l := newLine(6, mixed(40)...)
	for i := range l.c.Entries { // four of a network, two of a family
		e := &l.c.Entries[i]
		e.Addrs = addr("11." + string(rune('0'+i/4%10)) + ".0.1:1")
		if i/4 >= 10 {
			e.Addrs = addr("12.0.0.1:1")
		}
		if i%4 == 0 && i > 0 {
			e.Family = []cell.NodeID{l.c.Entries[0].ID}
			l.c.Entries[0].Family = append(l.c.Entries[0].Family, e.ID)
		}
	}
	l.hours(10)
	seen := map[time.Time]bool{}
	places := [seats]int{}
	for range 20 {
		from := l.now
		for _, p := range l.plan(l.c, from, from.Add(time.Hour), l.rng.Uint64N) {
			if p.at.Before(from) || !p.at.Before(from.Add(time.Hour)) {
				t.Fatalf("a probe at %v of a period from %v", p.at, from)
			}
			seen[p.at] = true
			places[p.seat]++
			if len(p.path) != 2+int(p.seat) || p.target != int(p.seat) || p.bytes < leastProbe || p.bytes > mostProbe {
				t.Fatalf("probe %+v", p)
			}
			for i, a := range p.path {
				for _, b := range p.path[:i] {
					if together(a, b, true) {
						t.Fatalf("%v and %v are in one path", a, b)
					}
				}
			}
		}
		l.hours(1)
	}
	if len(seen) < 50 || places[0] == 0 || places[1] == 0 {
		t.Errorf("%d moments, places %v", len(seen), places)
	}
}

func TestMeasurementsComeBackFromTheirBytes(t *testing.T) {
	l := newLine(7, mixed(30)...)
	l.hours(9)
	text := l.bytes()
	again := newSamples(time.Hour)
	if err := again.load(text); err != nil {
		t.Fatal(err)
	}
	if string(again.bytes()) != string(text) {
		t.Error("what was read prints back as something else")
	}
	for i := range l.c.Entries {
		id := l.c.Entries[i].ID
		if a, b := l.estimate(id), again.estimate(id); a == 0 || a != b {
			t.Errorf("relay %d: %d, after loading %d", i, a, b)
		}
	}
	id := l.c.Entries[0].ID.String()
	for name, bad := range map[string]string{
		"cut off": string(text[:len(text)-3]), "no version": id + " 0:1@1\n", "a place there is not": samplesTop + id + " 3:1@1\n",
		"nothing measured": samplesTop + id + "\n", "no number": samplesTop + id + " 0:x@1\n", "negative": samplesTop + id + " 0:1@-1x\n",
		"twice": samplesTop + strings.Repeat(id+" 0:1@1\n", 2), "too many": samplesTop + id + strings.Repeat(" 0:1@1", samplesKept+1) + "\n",
	} {
		if err := again.load([]byte(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if string(again.bytes()) != string(text) {
		t.Error("what is damaged changed what was known")
	}
	again.expire(l.now.Add((sampleDays + 1) * day))
	if len(again.relays) != 0 {
		t.Error("what is too old is not forgotten")
	}
	full := newSamples(time.Hour)
	full.full = 2
	for i := range l.c.Entries {
		full.add(l.c.Entries[i].ID, seatFirst, sample{1, epoch})
	}
	if len(full.relays) != 2 {
		t.Errorf("%d relays, at most 2 are allowed", len(full.relays))
	}
}

// Authorities that measure vote for what they find, and the consensus goes by it; a restart loses none of it.
// A claim of a hundred times as much gains nothing.
func TestMeasuredBandwidthBeatsClaims(t *testing.T) {
	const real = 1_000_000
	synctest.Test(t, func(t *testing.T) {
		claims := func(i int, d *directory.Descriptor) {
			d.Bandwidth, d.Observed = real, real
			if i == 0 {
				d.Bandwidth, d.Observed, d.Nickname = 100*real, 100*real, "liar"
			}
		}
		w := newWorld(t, 1, 4, 9, dirtest.Relays(claims))
		var mu sync.Mutex
		probes := 0
		for _, n := range w.nodes[:3] {
			n.cfg.Measure = func(_ context.Context, path []*directory.Entry, bytes int64) (uint64, error) {
				mu.Lock()
				defer mu.Unlock()
				probes++
				return real, nil
			}
		}
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		shares := func() (liar, most float64) {
			c := w.nodes[3].auth.Consensus()
			sum := 0.0
			for i := range c.Entries {
				sum += float64(c.Entries[i].Bandwidth)
			}
			for i := range c.Entries {
				if s := float64(c.Entries[i].Bandwidth) / sum; c.Entries[i].Nickname == "liar" {
					liar = s
				} else {
					most = max(most, s)
				}
			}
			return liar, most
		}
		w.wantAgreed(hour(1), 4)
		if liar, most := shares(); liar > 10*most*1.01 {
			t.Errorf("while nobody measured, a claim of 100 times as much gains %.1f times, want at most 10", liar/most)
		}
		w.wantAgreed(hour(12), 4)
		if liar, most := shares(); liar > most {
			t.Errorf("it has %.3f of the weight, the others %.3f each", liar, most)
		}
		mu.Lock()
		if probes < 9*2*samplesKept*3 {
			t.Errorf("%d probes", probes)
		}
		mu.Unlock()
		for _, n := range w.nodes[:3] {
			n.cfg.Measure = func(context.Context, []*directory.Entry, int64) (uint64, error) { return 0, errDown }
			n.crash()
			n.start()
		}
		w.publishAll()
		w.wantAgreed(hour(13), 4)
		if liar, most := shares(); liar > most {
			t.Errorf("after a restart it has %.3f of the weight, the others %.3f each", liar, most)
		}
	})
}

// Who is not measured where others are counts for little, whatever it says.
func TestWhoIsNotMeasuredCountsForLittle(t *testing.T) {
	for _, c := range []struct {
		authorities, by int
		counts          bool
	}{{5, 3, true}, {5, 2, false}, {4, 3, true}, {9, 5, true}, {9, 4, false}, {1, 1, true}, {3, 2, false}} {
		b := newBallot(c.authorities, 8)
		for i, v := range b.votes {
			for j := range v.Relays {
				if v.Relays[j].Measured = 0; i < c.by && j < 4 {
					v.Relays[j].Measured = 70_000_000
				}
				v.Relays[j].Bandwidth = 5_000_000
			}
		}
		for j, e := range b.tally(t).Entries {
			want := uint64(5_000_000)
			if c.counts {
				want = []uint64{70_000_000, newcomer}[j/4]
			}
			if e.Bandwidth != want {
				t.Errorf("measured by %d of %d: relay %d counts for %d, want %d", c.by, c.authorities, j, e.Bandwidth, want)
			}
		}
	}
	if !slices.Equal([]int{measurers(1), measurers(3), measurers(4), measurers(6), measurers(7), measurers(9)}, []int{1, 3, 3, 3, 5, 5}) {
		t.Error("too few may measure")
	}
}
