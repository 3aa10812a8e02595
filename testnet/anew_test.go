package testnet

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"peel/directory"
	"peel/directory/authority"
	"peel/testnet/plan"
)

// Authorities that no schedule asked for leaves time to agree in, here as each message takes a while, begin anew until they have enough, and the
// network gets ready.
func TestANetworkThatNeedsLongerGetsReady(t *testing.T) {
	beside(t)
	p := plan.Default()
	p.Authorities, p.Relays.Count, p.Relays.Exits = 2, 3, 1
	p.Weathers = []plan.Weather{{Name: "slow", Delay: plan.Duration(20 * time.Millisecond)}}
	p.Weather = "slow"
	p.Fill()
	asked := directory.Schedule{Period: 2 * time.Second, Voting: directory.MinVoting} // of which six ways alone take more
	var mu sync.Mutex
	var told []directory.Schedule
	cfg := Config{
		Size: Size{Authorities: 2, Relays: 3, Exits: 1}, Plan: p, Period: asked.Period, Voting: asked.Voting, Dir: t.TempDir(),
		Anew: func(s directory.Schedule) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, s)
		},
	}
	n := run(t, cfg)
	mu.Lock()
	defer mu.Unlock()
	if len(told) == 0 {
		t.Fatal("nobody was told that the authorities began anew")
	}
	if first := told[0]; first.Period <= asked.Period || first.Voting <= asked.Voting {
		t.Errorf("the second schedule is %+v", first)
	}
	last := told[len(told)-1]
	if c := n.Client().Consensus(); c.FreshUntil.Sub(c.ValidAfter) != last.Period {
		t.Errorf("the consensus is of %v, its period of %v", c.FreshUntil.Sub(c.ValidAfter), last.Period)
	}
	text, err := os.ReadFile(filepath.Join(cfg.Dir, networkFile))
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := directory.ParseNetwork(text); err != nil || kept.Schedule != last || kept.ID() != n.Layout().Network.ID() {
		t.Errorf("the network file has %+v: %v", kept.Schedule, err)
	}
}

// Each schedule gives more time than the one before, and its first consensus comes when one of that would, not before there was time for it.
func TestSchedulesGrow(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 5, 0, time.UTC)
	s := directory.Schedule{Start: now, Period: defaultPeriod, Voting: defaultVoting}
	for _, want := range []struct{ due, period, voting time.Duration }{
		{5 * time.Second, 15 * time.Second, 3 * time.Second},
		{15 * time.Second, 45 * time.Second, 9 * time.Second},
		{45 * time.Second, 135 * time.Second, 27 * time.Second},
		{135 * time.Second, 405 * time.Second, 81 * time.Second},
		{405 * time.Second, slowest, 2*time.Minute + 3*time.Second/2},
		{slowest, slowest, 182250 * time.Millisecond},
	} {
		next := slower(s, now)
		if got := next.Start.Sub(now); got != want.due || next.Period != want.period || next.Voting != want.voting {
			t.Errorf("after %+v: in %v, %v, %v, want %v", s, got, next.Period, next.Voting, want)
		}
		s, now = next, next.Start
	}
	for range 10 {
		s = slower(s, s.Start)
	}
	if s.Period != slowest || s.Voting != slowest {
		t.Errorf("in the end: %+v", s)
	}
	if late := slower(directory.Schedule{Start: now, Period: defaultPeriod, Voting: defaultVoting}, now.Add(2*time.Second)); late.Start != now.Add(10*time.Second) {
		t.Errorf("where it was long in doubt, the next is due at %v", late.Start)
	}
	day := slower(directory.Schedule{Start: now, Period: directory.MaxPeriod, Voting: time.Hour}, now)
	if day.Period != directory.MaxPeriod {
		t.Errorf("a day becomes %v", day.Period)
	}
}

// A period is over when all authorities are done with it, and made if one of them has what came of it.
func TestVerdict(t *testing.T) {
	due := time.Date(2026, 1, 1, 0, 0, 5, 0, time.UTC)
	at := func(period time.Time, has ...time.Time) (s authority.Status) {
		s.Outcome.Period = period
		for _, c := range has {
			s.Consensus = &authority.Published{ValidAfter: c}
		}
		return s
	}
	next, before := due.Add(5*time.Second), due.Add(-5*time.Second)
	for name, x := range map[string]struct {
		all        []authority.Status
		over, made bool
	}{
		"they vote on it":              {[]authority.Status{at(due), at(due)}, false, false},
		"one still votes":              {[]authority.Status{at(next), at(due)}, false, false},
		"nothing came of it":           {[]authority.Status{at(next), at(next)}, true, false},
		"one has it":                   {[]authority.Status{at(next, due), at(due)}, true, true},
		"one has a later one":          {[]authority.Status{at(next, next), at(next)}, true, true},
		"there is one of before alone": {[]authority.Status{at(next, before), at(next, before)}, true, false},
	} {
		if over, made := verdict(x.all, due); over != x.over || made != x.made {
			t.Errorf("%s: over %t, made %t", name, over, made)
		}
	}
}
