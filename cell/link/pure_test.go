package link

import (
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"
)

// sendAll lets the scheduler send n cells of circuits that always have more, and returns whose they were.
func sendAll(s *sched, n int) []*turn {
	var who []*turn
	for range n {
		t := s.Next()
		s.Sent(t)
		s.Add(t)
		who = append(who, t)
	}
	return who
}

func TestBusyCircuitsShareExactly(t *testing.T) {
	var s sched
	turns := make([]turn, 7)
	for i := range turns {
		s.Add(&turns[i])
	}
	for i, who := range sendAll(&s, 700) {
		if who != &turns[i%7] {
			t.Fatalf("cell %d is not the turn of circuit %d", i, i%7)
		}
	}
}

func TestNewcomerDelaysOthersByItsHeadStart(t *testing.T) {
	var s sched
	old := make([]turn, 3)
	for i := range old {
		s.Add(&old[i])
	}
	sendAll(&s, 3000)
	var fresh turn
	s.Add(&fresh)
	who := sendAll(&s, 400)
	first := slices.IndexFunc(who, func(t *turn) bool { return t != &fresh })
	if first < headStart-1 || first > headStart {
		t.Errorf("the newcomer sends %d cells before the others, want %d", first, headStart)
	}
	count := make(map[*turn]int)
	gap := 0
	for _, w := range who[first:] {
		count[w]++
		if gap++; w == &old[0] {
			gap = 0
		}
		if gap > headStart {
			t.Fatalf("a circuit waits for %d cells", gap)
		}
	}
	for _, n := range count {
		if share := len(who[first:]) / 4; n < share-1 || n > share+2 {
			t.Errorf("a circuit sent %d of %d cells, its share is %d", n, len(who[first:]), share)
		}
	}
}

func TestQuietCircuitsGoFirst(t *testing.T) {
	var s sched
	var bulk, quiet turn
	s.Add(&bulk)
	sendAll(&s, 1000)
	for range 5 {
		s.Add(&quiet)
		if got := s.Next(); got != &quiet {
			t.Fatal("a circuit that was quiet does not go first")
		}
		s.Sent(&quiet)
		sendAll(&s, 100)
	}
}

// TestTurnsAgreeWithALongList compares the scheduler with one that looks at everybody.
func TestTurnsAgreeWithALongList(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var s sched
	type ref struct{ at, since int64 }
	turns := make([]turn, 40)
	waiting := make(map[*turn]ref)
	var now, serial int64
	add := func(x *turn) {
		if _, ok := waiting[x]; !ok {
			serial++
			waiting[x] = ref{max(x.at, now+1-headStart), serial}
		}
		s.Add(x)
	}
	for step := range 200000 {
		if rng.IntN(3) == 0 {
			add(&turns[rng.IntN(1+step%len(turns))])
		}
		got := s.Next()
		if len(waiting) == 0 {
			if got != nil {
				t.Fatal("somebody goes, and nobody wants to")
			}
			continue
		}
		if got == nil {
			t.Fatal("nobody goes, and somebody wants to")
		}
		want := waiting[got]
		for _, r := range waiting {
			if r.at < want.at || r.at == want.at && r.since < want.since {
				t.Fatalf("step %d: somebody with a lower number, or older, was passed over", step)
			}
		}
		delete(waiting, got)
		if rng.IntN(10) == 0 {
			continue // it had been closed: it goes without sending
		}
		now = max(now, want.at)
		s.Sent(got)
		if got.at < s.now+1-headStart || got.at > s.now+1 || s.now != now {
			t.Fatalf("the number %d is out of the range of %d", got.at, s.now)
		}
		if rng.IntN(4) != 0 {
			add(got)
		}
	}
}

func TestSchedulerAllocatesNothing(t *testing.T) {
	var s sched
	var x turn
	if n := testing.AllocsPerRun(100, func() {
		s.Add(&x)
		s.Sent(s.Next())
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestPaddingComesAtARandomMomentOfSilence(t *testing.T) {
	start := time.Unix(1e9, 0)
	var least, most time.Duration = time.Hour, 0
	rng := rand.New(rand.NewPCG(7, 8))
	for range 10000 {
		var p padding
		p.Heard(start, rng.Uint64())
		wait := p.Wait(start)
		if wait < 1500*time.Millisecond || wait > 9500*time.Millisecond {
			t.Fatalf("padding after %v", wait)
		}
		if p.Due(start.Add(wait-1)) || !p.Due(start.Add(wait)) {
			t.Fatal("padding is not due when its time has come")
		}
		if look := p.Look(start); look != 1500*time.Millisecond {
			t.Fatalf("while cells go by, it is looked at after %v: later ones would have to move that", look)
		}
		if late := start.Add(1500 * time.Millisecond); p.Look(late) != p.Wait(late) {
			t.Fatalf("in a silence it is looked at after %v, and is due after %v", p.Look(late), p.Wait(late))
		}
		least, most = min(least, wait), max(most, wait)
	}
	if least > 1600*time.Millisecond || most < 9400*time.Millisecond {
		t.Errorf("padding only from %v to %v", least, most)
	}
	for _, x := range []struct {
		chance uint64
		wait   time.Duration
	}{{0, silenceLeast}, {uint64(silenceMost - silenceLeast), silenceMost}, {uint64(silenceMost-silenceLeast) + 1, silenceLeast}} {
		var p padding
		p.Heard(start, x.chance)
		if got := p.Wait(start); got != x.wait {
			t.Errorf("chance %d: %v, want %v", x.chance, got, x.wait)
		}
	}
}

func TestReasonsHaveNames(t *testing.T) {
	seen := make(map[string]bool)
	for r := range reasons {
		if r.String() == "" || seen[r.String()] {
			t.Errorf("reason %d has no name of its own", r)
		}
		seen[r.String()] = true
	}
	if ReasonOf(ErrBusy) != ReasonLost {
		t.Error("an error that says no reason has one")
	}
}

// TestRulesReadNoClock: what is said to know no clock is told the time.
func TestRulesReadNoClock(t *testing.T) {
	for _, name := range []string{"credit.go", "drain.go", "sched.go", "trip.go", "padding.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if clock := regexp.MustCompile(`time\.(Now|Since|Until|After|AfterFunc|NewTimer|NewTicker|Sleep)\b`).Find(text); clock != nil {
			t.Errorf("%s asks for %s", name, clock)
		}
	}
}
