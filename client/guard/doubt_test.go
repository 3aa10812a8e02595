package guard

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"peel/cell"
)

// trip is a network beyond a guard: who is hostile there, and how the guard treats circuits.
type trip struct {
	relays, exits int     // beyond the guard
	hostile       float64 // share of each that fails every circuit
	passes        float64 // share of circuits that the guard lets through
	atUse         bool    // what fails does so when it is used, for streams and for a directory
}

// circuit draws one circuit and judges the guard by it. It says whether it is in doubt now.
func (x trip) circuit(s *Set, g cell.NodeID, now time.Time, r *rand.Rand) bool {
	m, e := r.IntN(x.relays), r.IntN(x.exits)
	middle, exit := id(1000+m), id(2000+e)
	bad := func(i, n int) bool { return float64(i) < x.hostile*float64(n) }
	doubt := false
	judge := func(o Outcome) { doubt = s.Judge(g, o, middle, exit, now) || doubt }
	passes := r.Float64() < x.passes
	switch {
	case !x.atUse && (!passes || bad(m, x.relays)):
		judge(NotExtended)
	case !x.atUse && bad(e, x.exits):
		judge(NotBuilt)
	case !passes || bad(m, x.relays) || bad(e, x.exits):
		judge(Built)
		judge(Broken)
		judge(Unanswered)
	default:
		judge(Built)
		judge(Served)
		judge(Answered)
	}
	return doubt
}

// until is how many circuits it takes until a guard is in doubt, at most so many.
func (x trip) until(t testing.TB, seed uint64, most int) int {
	s := made(t, relays(30), seed)
	r := rand.New(rand.NewPCG(seed, 3))
	for n := 1; n <= most; n++ {
		if x.circuit(s, s.order[0].id, t0, r) {
			return n
		}
	}
	return most + 1
}

// Three tenths of all middles and exits fail every circuit, when it is built or when it is used, few of them or many: the honest
// guard stays.
func TestHostileRelaysDriveNobodyFromAnHonestGuard(t *testing.T) {
	for _, x := range []trip{
		{1000, 300, 0.3, 1, false}, {1000, 300, 0.3, 1, true},
		{20, 10, 0.3, 1, false}, {20, 10, 0.3, 1, true},
	} {
		for seed := range uint64(5) {
			if n := x.until(t, seed, 20_000); n <= 20_000 {
				t.Errorf("%+v, seed %d: in doubt after %d circuits", x, seed, n)
			}
		}
	}
}

// A guard that lets nothing through, or a tenth, is in doubt soon.
func TestGuardThatFailsCircuitsIsDoubtedSoon(t *testing.T) {
	for _, x := range []struct {
		trip
		most int
	}{
		{trip{1000, 300, 0, 0, false}, 12}, {trip{1000, 300, 0, 0, true}, 24},
		{trip{1000, 300, 0, 0.1, false}, 60}, {trip{1000, 300, 0, 0.1, true}, 60},
		{trip{1000, 300, 0, 0.15, true}, 100}, {trip{1000, 300, 0, 0.2, true}, 200},
		{trip{9, 4, 0, 0, false}, 24}, {trip{9, 4, 0, 0, true}, 60},
		{trip{1000, 300, 0.05, 0.05, true}, 120},
	} {
		sum, worst := 0, 0
		for seed := range uint64(20) {
			n := x.until(t, seed, 10_000)
			sum, worst = sum+n, max(worst, n)
		}
		t.Logf("%+v: in doubt after %d circuits on average, %d at most", x.trip, sum/20, worst)
		if sum/20 > x.most {
			t.Errorf("%+v: %d circuits on average, want %d", x.trip, sum/20, x.most)
		}
	}
}

// However often one exit fails, or two do, or two middles: that is their fault.
func TestFewRelaysCannotMakeAGuardDoubted(t *testing.T) {
	for _, middles := range []bool{false, true} {
		for _, o := range []Outcome{NotExtended, NotBuilt, Broken, Unanswered} {
			if o == NotExtended && !middles {
				continue // the exit takes no part in that
			}
			s := made(t, relays(30), 1)
			for i := range 5000 {
				middle, exit := id(1000+i), id(20_000+i%2)
				if middles {
					middle, exit = id(1000+i%2), id(20_000+i)
				}
				if s.Judge(s.order[0].id, o, middle, exit, t0) {
					t.Fatalf("middles %t, outcome %d: in doubt after %d circuits", middles, o, i+1)
				}
			}
			for _, d := range s.order[0].doubts {
				if len(d.blamed) > mostBlamed {
					t.Errorf("%d relays are remembered", len(d.blamed))
				}
			}
		}
	}
}

func TestLeftGuardComesBackAndNoneBeyondTheThirdIsReached(t *testing.T) {
	s := made(t, relays(100), 1)
	leave := func(now time.Time) (cell.NodeID, time.Time) {
		t.Helper()
		g := pick(t, s, now)
		until, ok := s.Leave(g, now, seeded(1))
		if !ok {
			t.Fatal("not left")
		}
		if again, ok := s.Leave(g, now, seeded(1)); ok {
			t.Fatalf("left twice, until %v", again)
		}
		return g, until
	}
	places := []cell.NodeID{s.order[0].id, s.order[1].id, s.order[2].id}
	now := t0
	seen := map[cell.NodeID]int{}
	for range 100 { // whatever is left, and how often, in one day
		g, _ := leave(now)
		seen[g]++
		now = now.Add(10 * time.Minute)
		if n := s.leftNow(now); n > MostLeft {
			t.Fatalf("%d are left", n)
		}
	}
	for _, p := range places {
		if seen[p] == 0 {
			t.Error("one of the first was never used")
		}
	}
	if len(seen) != len(places) || len(s.sample) != MinSample {
		t.Errorf("%d guards used, %d drawn", len(seen), len(s.sample))
	}
	// All is over after the longest leave, and the first is the first.
	now = now.Add(lastLeave*3/2 + 2*day)
	if s.leftNow(now) != 0 || pick(t, s, now) != s.order[0].id {
		t.Error("it never comes back")
	}
}

// One that is left, and is back in the directory when others were left meanwhile, is not left besides them.
func TestNoMoreAreLeftWhenOneIsListedAgain(t *testing.T) {
	s := made(t, relays(100), 1)
	var gone cell.NodeID
	without := func(id cell.NodeID) *List {
		l := relays(100)
		return NewList(slices.DeleteFunc(slices.Clone(l.relays), func(r Relay) bool { return r.ID == id }))
	}
	for i := range 4 {
		g := pick(t, s, t0)
		s.Leave(g, t0, seeded(uint64(i)))
		if i == 1 {
			gone = g
			s.Update(without(gone), nil, t0, seeded(1))
		}
	}
	if n := s.leftNow(t0); n > MostLeft+1 { // the one that is not listed says that it is left
		t.Fatalf("%d are left", n)
	}
	s.Update(relays(100), nil, t0, seeded(1))
	if n := s.leftNow(t0); n != MostLeft {
		t.Errorf("%d are left", n)
	}
	// Of one alone, none is.
	one := NewList([]Relay{{s.order[0].id, 1}})
	s.Leave(s.order[0].id, t0, seeded(1))
	if s.Update(one, nil, t0, seeded(1)); len(s.order) == 1 && s.Left(s.order[0].id, t0) {
		t.Error("the only one that may be used is left")
	}
}

func (s *Set) leftNow(now time.Time) (n int) {
	for _, i := range s.List(now) {
		if i.Left {
			n++
		}
	}
	return n
}

// Each leave is longer than the one before, up to a month and a half; after two months of peace it is as at first.
func TestLeavesGrow(t *testing.T) {
	s := made(t, relays(100), 1)
	g, now := s.order[0].id, t0
	for i := range 9 {
		until, ok := s.Leave(g, now, seeded(uint64(i)))
		least := min(firstLeave<<i, lastLeave)
		if d := until.Sub(now); !ok || d < least || d > least*3/2+day {
			t.Errorf("leave %d: %v", i, d)
		}
		if pick(t, s, until.Add(-time.Second)) == g || pick(t, s, until) != g {
			t.Errorf("leave %d: not as long as it is said", i)
		}
		now = until
	}
	until, _ := s.Leave(g, now.Add(leaveForgive), seeded(1))
	if until.Sub(now.Add(leaveForgive)) > 3*day {
		t.Error("never forgiven")
	}
}

// A restart ends no leave, and a clock that was wrong makes none for ever.
func TestLeavesSurviveARestart(t *testing.T) {
	s := made(t, relays(100), 1)
	g := s.order[0].id
	until, _ := s.Leave(g, t0, seeded(1))
	if !s.Changed() {
		t.Error("it is not to be written")
	}
	again, err := Parse(s.Encode(), network)
	if err != nil {
		t.Fatal(err)
	}
	again.Update(relays(100), nil, t0.Add(time.Hour), seeded(1))
	if pick(t, again, t0.Add(time.Hour)) == g || pick(t, again, until) != g || again.order[0].leaves != 1 {
		t.Error("the leave is forgotten, or never ends")
	}
	again.Update(relays(100), nil, t0.Add(-100*day), seeded(1))
	if pick(t, again, t0.Add(-100*day)) != g {
		t.Error("left until a date that a wrong clock made")
	}
}

// Where no other answers, the guard that is left is better than none; a set of one leaves none.
func TestLeftGuardIsTheLastResort(t *testing.T) {
	s := made(t, relays(100), 1)
	g := s.order[0].id
	s.Leave(g, t0, seeded(1))
	for range 2 * MinSample {
		s.Failed(pick(t, s, t0), t0, seeded(1))
		if pick(t, s, t0) == g {
			break
		}
	}
	if pick(t, s, t0) != g {
		t.Fatal("others are tried for ever")
	}
	if s.Succeeded(g, nil, t0, seeded(1)) != Keep {
		t.Error("its circuit is not used")
	}
	one := made(t, NewList([]Relay{{id(1), 1}}), 1)
	if _, ok := one.Leave(id(1), t0, seeded(1)); ok {
		t.Error("the only one is left")
	}
	if _, ok := s.Leave(id(99_999), t0, seeded(1)); ok || s.Judge(id(99_999), Broken, id(1), id(2), t0) || s.Doubt(id(99_999)) != "" {
		t.Error("one that is none of the guards")
	}
}

// What was told of a guard is forgotten when others do no better, and when it is left.
func TestDoubtsEnd(t *testing.T) {
	s := made(t, relays(100), 1)
	g, r := s.order[0].id, rand.New(rand.NewPCG(1, 1))
	bad := trip{1000, 300, 0, 0, true}
	for !bad.circuit(s, g, t0, r) {
	}
	if !strings.Contains(s.Doubt(g), "are used") {
		t.Errorf("why: %q", s.Doubt(g))
	}
	s.Clear(g)
	if s.Doubt(g) != "" || bad.circuit(s, g, t0, r) {
		t.Error("not cleared")
	}
	s.Leave(g, t0, seeded(1))
	for range 100 {
		if bad.circuit(s, g, t0, r) {
			t.Fatal("one that is left is judged")
		}
	}
}

// A file of before there were leaves is read, and written as it is now; one that mixes the two is refused.
func TestFilesOfTheFirstFormatAreRead(t *testing.T) {
	s := lived(t)
	old := s.encode(1)
	again, err := Parse(old, network)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.encode(1), old) || !bytes.Contains(again.Encode(), []byte("format = 2")) {
		t.Error("not the same guards")
	}
	mixed := bytes.Replace(s.Encode(), []byte("format = 2"), []byte("format = 1"), 1)
	if _, err := Parse(mixed, network); err == nil {
		t.Error("what no version wrote is accepted")
	}
}
