package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"peel/cell"
)

var (
	network = cell.NetworkID{1, 2, 3}
	t0      = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func id(i int) (n cell.NodeID) {
	binary.BigEndian.PutUint64(n[:], uint64(i)+1)
	return n
}

func number(n cell.NodeID) int { return int(binary.BigEndian.Uint64(n[:])) - 1 }

// relays are n of weight 1000, but for those left out.
func relays(n int, without ...int) *List {
	var rs []Relay
next:
	for i := range n {
		for _, w := range without {
			if i == w {
				continue next
			}
		}
		rs = append(rs, Relay{id(i), 1000})
	}
	return NewList(rs)
}

func seeded(seed uint64) func(uint64) uint64 { return rand.New(rand.NewPCG(seed, 7)).Uint64N }

// made is a set that knows a list.
func made(t testing.TB, l *List, seed uint64) *Set {
	t.Helper()
	s := New(network)
	s.Update(l, nil, t0, seeded(seed))
	return s
}

func pick(t testing.TB, s *Set, now time.Time) cell.NodeID {
	t.Helper()
	g, err := s.Pick(nil, now)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestSampleIsBounded(t *testing.T) {
	for _, x := range []struct{ network, want int }{
		{0, 0}, {1, 1}, {3, 3}, {12, 12}, {20, 20}, {21, 20}, {100, 20}, {1000, 20},
	} {
		if s := made(t, relays(x.network), 1); len(s.sample) != x.want || len(s.order) != x.want {
			t.Errorf("of %d guards %d are drawn, want %d", x.network, len(s.sample), x.want)
		}
	}
	// Those that are not listed any more are replaced until there are as many as there may be.
	for _, n := range []int{50, 150, 250, 300, 3000} {
		s, gone := made(t, relays(n), 1), []int{}
		var l *List
		for range 30 {
			for _, m := range s.order[min(Primary, len(s.order)):] { // the first three stay
				if len(gone) < n/3 {
					gone = append(gone, number(m.id))
				}
			}
			l = relays(n, gone...)
			s.Update(l, nil, t0.Add(time.Hour), seeded(2))
		}
		want := min(max(MinSample, len(l.relays)*Share/100), MaxSample)
		if len(s.sample) > want+10 || len(s.sample) < min(want, MinSample+len(gone)) { // the network shrank meanwhile
			t.Errorf("of %d guards, %d of which have gone, %d are drawn in the end, want %d", n, len(gone), len(s.sample), want)
		}
	}
}

// However many of the first ones vanish, more than sixty are never drawn.
func TestVanishingGuardsAreReplacedUpToSixty(t *testing.T) {
	s, gone := made(t, relays(2000), 1), []int{}
	for range 100 {
		for _, m := range s.order {
			gone = append(gone, number(m.id))
		}
		s.Update(relays(2000, gone...), nil, t0, seeded(3))
	}
	if len(s.sample) != MaxSample {
		t.Errorf("%d guards", len(s.sample))
	}
	if _, err := s.Pick(nil, t0); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "60 not in the directory now") {
		t.Errorf("none is left: %v", err)
	}
	s.Update(relays(2000), nil, t0, seeded(3))
	if len(s.order) != MaxSample {
		t.Errorf("%d are there again", len(s.order))
	}
	// Twenty days later those that stayed away are given up.
	s.Update(relays(2000, gone...), nil, t0, seeded(3))
	s.Update(relays(2000, gone...), nil, t0.Add(UnlistedLife*9/10-day), seeded(3))
	if len(s.sample) != MaxSample {
		t.Errorf("%d guards before the time is over", len(s.sample))
	}
	s.Update(relays(2000, gone...), nil, t0.Add(UnlistedLife), seeded(3))
	if len(s.order) != MinSample || len(s.sample) != MinSample {
		t.Errorf("%d guards, %d may be used", len(s.sample), len(s.order))
	}
}

// A few relays that have nearly all the bandwidth do not let the set hold them all.
func TestSampleHoldsAFifthOfTheBandwidth(t *testing.T) {
	var rs []Relay
	for i := range 1000 {
		w := uint64(1)
		if i < 100 {
			w = 1_000_000
		}
		rs = append(rs, Relay{id(i), w})
	}
	l := NewList(rs)
	s, gone := made(t, l, 1), map[cell.NodeID]bool{}
	for range 20 {
		for _, m := range s.order[Primary:] {
			gone[m.id] = true
		}
		s.Update(l, func(n cell.NodeID) bool { return !gone[n] }, t0, seeded(2))
	}
	if len(s.sample) > 22 {
		t.Errorf("%d guards", len(s.sample))
	}
}

func TestGuardsAreDrawnByWeight(t *testing.T) {
	const n, rounds = 40, 40_000
	var rs []Relay
	var total float64
	for i := range n {
		rs = append(rs, Relay{id(i), uint64(i * i)})
		total += float64(i * i)
	}
	l, rng := NewList(rs), seeded(5)
	counts := make([]int, n)
	for range rounds {
		s := New(network)
		s.Update(l, nil, t0, rng)
		counts[number(s.sample[0].id)]++
	}
	chi := 0.0
	for i, got := range counts {
		want := float64(i*i) / total * rounds
		if i == 0 {
			if got != 0 {
				t.Errorf("one without weight was drawn %d times", got)
			}
			continue
		}
		chi += (float64(got) - want) * (float64(got) - want) / want
	}
	if chi > 85 { // 38 degrees of freedom: exceeded once in 50,000
		t.Errorf("chi-square %.1f", chi)
	}
	// Without weights each is as likely.
	for i := range rs {
		rs[i].Weight = 0
	}
	if s := made(t, NewList(rs), 1); len(s.order) != MinSample {
		t.Errorf("%d guards of those without weight", len(s.order))
	}
}

// In a network of twelve relays all are in the set at once, and one is used.
func TestSmallNetworkWorksAtOnce(t *testing.T) {
	l := relays(12)
	s := made(t, l, 1)
	first := pick(t, s, t0)
	if s.Succeeded(first, nil, t0, seeded(1)) != Keep {
		t.Fatal("its circuit is not kept")
	}
	for range 100 {
		if got := pick(t, s, t0); got != first {
			t.Fatal("another guard is used")
		}
	}
	skip := func(n cell.NodeID) bool { return n == first }
	if got, err := s.Pick(skip, t0); err != nil || got == first {
		t.Errorf("it would not do, but another would: %v", err)
	}
	if _, err := s.Pick(func(cell.NodeID) bool { return true }, t0); !errors.Is(err, ErrNone) {
		t.Errorf("none would do: %v", err)
	}
	if got := pick(t, s, t0); got != first {
		t.Error("that it would not do once is held against it")
	}
}

// When a network gets its first flags, guards without them are set aside at once, also when all that were drawn are.
func TestFirstFlags(t *testing.T) {
	s := made(t, relays(200), 1)
	var flagged []Relay
	for i := range 200 {
		if s.find(id(i)) == nil && len(flagged) < 10 {
			flagged = append(flagged, Relay{id(i), 1000})
		}
	}
	s.Update(NewList(flagged), nil, t0, seeded(2))
	if len(s.order) != Primary {
		t.Errorf("%d guards may be used, want %d", len(s.order), Primary)
	}
}

// fail has a set try guards until ok says that one answers; it returns that one, and how many were tried.
func fail(t testing.TB, s *Set, now time.Time, ok func(cell.NodeID) bool) (cell.NodeID, int) {
	t.Helper()
	for tries := 1; tries < 500; tries++ {
		g := pick(t, s, now)
		if !ok(g) {
			s.Failed(g, now, seeded(uint64(tries)))
			continue
		}
		if s.Succeeded(g, nil, now, seeded(1)) == Keep {
			return g, tries
		}
	}
	t.Fatal("no circuit")
	return cell.NodeID{}, 0
}

func TestNextGuardWhenOneIsDown(t *testing.T) {
	s := made(t, relays(100), 1)
	first, second := s.order[0].id, s.order[1].id
	not := func(bad ...cell.NodeID) func(cell.NodeID) bool {
		return func(n cell.NodeID) bool {
			for _, b := range bad {
				if n == b {
					return false
				}
			}
			return true
		}
	}
	fail(t, s, t0, not())
	got, tries := fail(t, s, t0.Add(time.Hour), not(first))
	if got != second || tries != 2 {
		t.Errorf("guard %d after %d tries", number(got), tries)
	}
	if i := s.List(t0.Add(time.Hour))[0]; !i.Down || i.ID != first || !i.Primary {
		t.Errorf("%+v", i)
	}
	// It is tried again half a minute later, and used.
	if pick(t, s, t0.Add(time.Hour+14*time.Second)) != second || pick(t, s, t0.Add(time.Hour+30*time.Second)) != first {
		t.Error("it is not tried again when it should")
	}
	got, _ = fail(t, s, t0.Add(time.Hour+30*time.Second), not())
	if got != first {
		t.Error("it is there again and not used")
	}
}

func TestWaitsDoubleUpToHalfAnHour(t *testing.T) {
	s := made(t, relays(100), 1)
	now := t0
	first := s.order[0].id
	fail(t, s, now, func(cell.NodeID) bool { return true })
	last := time.Duration(0)
	for i := range 20 {
		fail(t, s, now, func(n cell.NodeID) bool { return n != first })
		wait := s.order[0].retry.Sub(now)
		full := min(firstRetry<<i, lastRetry)
		if wait < full/2 || wait >= full {
			t.Errorf("failure %d: waits %v, of at most %v", i+1, wait, full)
		}
		last = wait
		now = now.Add(wait)
	}
	if last < lastRetry/2 {
		t.Error(last)
	}
	// One of the others waits for hours.
	other := s.order[10]
	s.Succeeded(first, nil, now, seeded(1))
	other.state = down
	s.Failed(other.id, now, seeded(1))
	if wait := other.retry.Sub(now); wait < firstOthers/2 || wait > firstOthers {
		t.Errorf("one of the others waits %v", wait)
	}
}

// When the client's own network is gone no guard is burned: when it is back, the first guard is used as before, however
// long it took and whichever guard was tried when it came back.
func TestNetworkGoneBurnsNoGuard(t *testing.T) {
	for _, away := range []time.Duration{time.Second, 20 * time.Second, 10 * time.Minute, 8 * time.Hour} {
		for _, every := range []time.Duration{100 * time.Millisecond, time.Second, 10 * time.Second} {
			s := made(t, relays(100), 1)
			first := s.order[0].id
			fail(t, s, t0, func(cell.NodeID) bool { return true })
			now := t0
			for ; now.Sub(t0) < away; now = now.Add(every) {
				s.Failed(pick(t, s, now), now, seeded(uint64(now.UnixNano())))
			}
			used, tries := cell.NodeID{}, 0
			for ; used != first && tries < 20; tries++ {
				g := pick(t, s, now)
				if s.Succeeded(g, nil, now, seeded(1)) == Keep {
					used = g
					if g != first && g != s.order[1].id {
						t.Fatalf("gone for %v, tried every %v: a circuit through another guard is used", away, every)
					}
				}
				now = now.Add(every)
			}
			if len(s.used) > 2 || s.used[0].id != first {
				t.Errorf("gone for %v, tried every %v: %d guards were used", away, every, len(s.used))
			}
			// At the latest when a guard that failed may be tried again.
			now = now.Add(firstRetry)
			if pick(t, s, now) != first {
				t.Errorf("gone for %v, tried every %v: the first guard is not used again", away, every)
			}
		}
	}
}

// While everything fails, guards are asked in turn: as soon as one answers, it is known.
func TestWhenAllFailEachIsTried(t *testing.T) {
	s := made(t, relays(12), 1)
	tried := map[cell.NodeID]bool{}
	now := t0
	for range 200 {
		g := pick(t, s, now)
		tried[g] = true
		s.Failed(g, now, seeded(1))
		now = now.Add(5 * time.Second)
	}
	if len(tried) != 12 {
		t.Errorf("%d of 12 were tried", len(tried))
	}
}

// Four of the first guards are down for good: the fifth is used in the end, after each before it was tried twice.
func TestLesserGuardIsUsedWhenThoseBeforeAreDown(t *testing.T) {
	s := made(t, relays(100), 1)
	want := s.order[4].id
	bad := map[cell.NodeID]bool{}
	for _, m := range s.order[:4] {
		bad[m.id] = true
	}
	got, tries := fail(t, s, t0, func(n cell.NodeID) bool { return !bad[n] })
	if got != want || tries != 10 {
		t.Errorf("guard %d after %d tries, want %d after 10", number(got), tries, number(want))
	}
	if s.order[0].id != want {
		t.Error("one that was used comes before those that never were")
	}
}

func TestUsedGuardsComeFirst(t *testing.T) {
	s := made(t, relays(100), 1)
	third := s.order[2].id
	s.Succeeded(third, nil, t0, seeded(1))
	if pick(t, s, t0) != third {
		t.Error("another than the one that was used is preferred")
	}
}

// A guard leaves 108 to 120 days after it was first used, or, if it never was, 54 to 60 after it was drawn: never later than
// 180 days after that.
func TestLifetime(t *testing.T) {
	for seed := range uint64(200) {
		s := made(t, relays(100), seed)
		rng := seeded(seed)
		m := s.order[0]
		use := time.Duration(rng(uint64(100))) * day
		left := time.Duration(0)
		for d := time.Duration(0); d < 300*day && left == 0; d += day {
			if s.Update(relays(100), nil, t0.Add(d), rng); s.find(m.id) != m { // it may have been drawn anew
				left = d
			} else if d == use {
				s.Succeeded(m.id, nil, t0.Add(d), rng)
			}
		}
		soonest, latest := 53*day, 60*day
		if use < left {
			soonest, latest = use+107*day, use+120*day
		}
		if left < soonest || left > latest || left > 180*day {
			t.Errorf("seed %d: used from day %d on, it left on day %d", seed, use/day, left/day)
		}
	}
}

func TestUnlistedGuard(t *testing.T) {
	s := made(t, relays(100), 1)
	g := pick(t, s, t0)
	s.Succeeded(g, nil, t0, seeded(1))
	without := relays(100, number(g))
	s.Update(without, nil, t0.Add(day), seeded(1))
	if pick(t, s, t0.Add(day)) == g {
		t.Error("one that is not in the consensus is used")
	}
	s.Update(relays(100), nil, t0.Add(10*day), seeded(1))
	if pick(t, s, t0.Add(10*day)) != g {
		t.Error("it is there again and not used")
	}
	s.Update(without, nil, t0.Add(20*day), seeded(1))
	s.Update(without, nil, t0.Add(36*day), seeded(1)) // the time begins anew
	if s.find(g) == nil {
		t.Error("given up too soon")
	}
	s.Update(without, nil, t0.Add(40*day), seeded(1))
	if s.find(g) != nil || len(s.used) != 0 {
		t.Error("never given up")
	}
}

// A clock that was ahead for a while must not keep a guard for years.
func TestDatesAheadOfTheClock(t *testing.T) {
	s := New(network)
	s.Update(relays(100), nil, t0.Add(1000*day), seeded(1))
	g := pick(t, s, t0)
	m := s.find(g)
	s.Succeeded(g, nil, t0.Add(1000*day), seeded(1))
	s.Update(relays(100), nil, t0, seeded(1))
	s.Update(relays(100), nil, t0.Add(Lifetime+day), seeded(1))
	if s.find(g) == m {
		t.Error("it is kept")
	}
}

// What is excluded is never drawn, and not used if it was drawn before.
func TestExcludedGuards(t *testing.T) {
	s := made(t, relays(30), 1)
	odd := func(n cell.NodeID) bool { return number(n)%2 == 1 }
	s.Update(relays(30), odd, t0, seeded(1))
	for _, m := range s.order {
		if !odd(m.id) {
			t.Error("an excluded guard may be used")
		}
	}
	s = New(network)
	s.Update(relays(30), odd, t0, seeded(1))
	if len(s.sample) != 15 {
		t.Errorf("%d guards of 15", len(s.sample))
	}
	s.Update(relays(30), func(cell.NodeID) bool { return false }, t0, seeded(1))
	if _, err := s.Pick(nil, t0); err == nil || !strings.Contains(err.Error(), "15 are excluded by the configuration") {
		t.Error(err)
	}
}

// Dates are moved back by a chance of days: what is on disk does not tell when the client was first used.
func TestDatesAreBlurred(t *testing.T) {
	seen := map[time.Time]bool{}
	for seed := range uint64(300) {
		s := made(t, relays(100), seed)
		s.Succeeded(s.order[0].id, nil, t0, seeded(seed))
		s.Update(relays(100, number(s.order[1].id)), nil, t0, seeded(seed+1))
		for _, m := range s.sample {
			for _, x := range []struct {
				date time.Time
				most time.Duration
			}{{m.added, 6 * day}, {m.confirmed, 12 * day}, {m.unlisted, 2 * day}} {
				if x.date.IsZero() {
					continue
				}
				if ago := t0.Sub(x.date); ago < 0 || ago > x.most+day || x.date != x.date.Truncate(day) {
					t.Fatalf("%v, %v ago", x.date, ago)
				}
			}
			seen[m.added] = true
		}
	}
	if len(seen) < 6 {
		t.Errorf("only %d dates", len(seen))
	}
}

func TestWarnings(t *testing.T) {
	note := func(built, of, carried, used int) (*Set, cell.NodeID) {
		s := made(t, relays(30), 1)
		g := s.order[0].id
		for i := range of {
			s.Note(g, true, i < built, false, false)
		}
		for i := range used {
			s.Note(g, false, false, true, i < carried)
		}
		return s, g
	}
	for _, x := range []struct {
		built, of, carried, used int
		want                     string
		serious                  bool
	}{
		{0, 149, 0, 29, "", false},
		{150, 150, 30, 30, "", false},
		{105, 150, 0, 0, "", false},
		{104, 150, 0, 0, "of 150 circuits that it took, 104 could be built", false},
		{74, 150, 0, 0, "74 could be built", true},
		{150, 150, 23, 30, "of 30 circuits that were used, 23 carried anything", false},
		{150, 150, 20, 30, "20 carried anything", true},
	} {
		s, g := note(x.built, x.of, x.carried, x.used)
		text, serious := s.Warning(g)
		if (text == "") != (x.want == "") || !strings.Contains(text, x.want) || serious != x.serious {
			t.Errorf("%+v: %q %t", x, text, serious)
		}
		if again, _ := s.Warning(g); again != "" {
			t.Errorf("said twice: %q", again)
		}
	}
	s, g := note(400, 1000, 0, 0)
	if c := s.find(g).counts; c.Tried > halveAt || c.Built > halveAt {
		t.Errorf("%+v", c)
	}
	if text, _ := s.Warning(id(99)); text != "" {
		t.Error(text)
	}
}

// Whatever is asked in whatever order, the set keeps its bounds.
func TestAnyOrderKeepsTheBounds(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		s, now := New(network), t0
		for step := range 400 {
			now = now.Add(time.Duration(r.Int64N(int64(3 * day))))
			switch g := id(r.IntN(120)); r.IntN(6) {
			case 0:
				gone := make([]int, r.IntN(100))
				for i := range gone {
					gone[i] = r.IntN(100)
				}
				s.Update(relays(100, gone...), func(n cell.NodeID) bool { return number(n)%10 != 0 }, now, r.Uint64N)
			case 1:
				s.Failed(g, now, r.Uint64N)
			case 2:
				s.Judge(g, Outcome(r.IntN(5)), id(r.IntN(200)), id(r.IntN(200)), now)
				s.Leave(g, now, r.Uint64N)
			case 3:
				s.Note(g, true, r.IntN(2) == 0, r.IntN(2) == 0, false)
			default:
				if g, err := s.Pick(nil, now); err == nil {
					if s.find(g) == nil || number(g)%10 == 0 {
						t.Fatal("one that is none of the guards")
					}
					s.Succeeded(g, nil, now, r.Uint64N)
				}
			}
			if len(s.sample) > MaxSample || len(s.used) > len(s.sample) || len(s.order) > len(s.sample) || len(s.List(now)) != len(s.sample) {
				t.Fatal(fmt.Sprint(len(s.sample), len(s.used), len(s.order), len(s.List(now))))
			}
			if step%40 != 0 {
				continue
			}
			if again, err := Parse(s.Encode(), network); err != nil || len(again.sample) != len(s.sample) {
				t.Fatal(err)
			}
		}
	}
}

// Where few of the network's relays are allowed, these are drawn with the same chances among each other.
func TestFewAllowedKeepTheirWeights(t *testing.T) {
	var rs []Relay
	for i := range 50 {
		rs = append(rs, Relay{id(i), 1_000_000})
	}
	for i := range 4 {
		rs = append(rs, Relay{id(100 + i), uint64(i + 1)})
	}
	l, rng, counts := NewList(rs), seeded(8), [4]float64{}
	const rounds = 10_000
	for range rounds {
		s := New(network)
		s.Update(l, func(n cell.NodeID) bool { return number(n) >= 100 }, t0, rng)
		if len(s.sample) != 4 {
			t.Fatal(len(s.sample))
		}
		counts[number(s.sample[0].id)-100]++
	}
	chi := 0.0
	for i, got := range counts {
		want := rounds * float64(i+1) / 10
		chi += (got - want) * (got - want) / want
	}
	if chi > 23 { // 3 degrees of freedom: exceeded once in 25,000
		t.Errorf("chi-square %.1f: %v", chi, counts)
	}
}

// Two that failed may be the network, also when the one that answers stands between them.
func TestTwoSuspectsAroundOneThatAnswers(t *testing.T) {
	s := made(t, relays(100), 1)
	a, b, c := s.order[0].id, s.order[1].id, s.order[2].id
	s.Failed(a, t0, seeded(1))
	s.Failed(c, t0, seeded(1))
	if s.Succeeded(b, nil, t0.Add(time.Second), seeded(1)) != Better || pick(t, s, t0.Add(time.Second)) != a {
		t.Error("the first is not tried again")
	}
}

// While guards are to be checked, no circuit of a later one is used; when nobody checks them, after fifteen seconds.
func TestLaterGuardsStandBackForAWhile(t *testing.T) {
	s := made(t, relays(100), 1)
	for _, m := range s.order[:3] {
		s.Failed(m.id, t0, seeded(1))
	}
	later := s.order[3].id
	for _, x := range []struct {
		after time.Duration
		want  Verdict
	}{{0, Better}, {time.Second, Better}, {14 * time.Second, Better}, {16 * time.Second, Keep}} {
		if got := s.Succeeded(later, nil, t0.Add(x.after), seeded(1)); got != x.want {
			t.Errorf("after %v: %v, want %v", x.after, got, x.want)
		}
	}
	// One that would not do for the circuit is not waited for.
	s = made(t, relays(100), 1)
	first := s.order[0].id
	s.Failed(first, t0, seeded(1))
	s.Failed(s.order[1].id, t0, seeded(1))
	s.order[1].state = up
	s.Failed(s.order[5].id, t0, seeded(1))
	if s.Succeeded(s.order[1].id, func(n cell.NodeID) bool { return n == first }, t0, seeded(1)) != Keep {
		t.Error("the circuit waits for a guard with which it cannot be made")
	}
}

func TestSuccessForgivesAll(t *testing.T) {
	s := made(t, relays(100), 1)
	m := s.order[0]
	now := t0
	fail(t, s, now, func(cell.NodeID) bool { return true })
	for range 6 {
		fail(t, s, now, func(n cell.NodeID) bool { return n != m.id })
		now = m.retry
	}
	if m.failures < 5 {
		t.Fatalf("%d failures count", m.failures)
	}
	fail(t, s, now, func(cell.NodeID) bool { return true })
	fail(t, s, now, func(n cell.NodeID) bool { return n != m.id })
	if wait := m.retry.Sub(now); wait > firstRetry {
		t.Errorf("it waits %v", wait)
	}
}
