package testnet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	if os.Getenv("PEEL_SLOW")+os.Getenv("PEEL_RACE") == "" {
		t.Skip("notice: PEEL_RACE=1 or PEEL_SLOW=1 runs this: most of it waits, ten seconds and more")
	}
	beside(t)
	p := plan.Default()
	p.Authorities, p.Relays.Count, p.Relays.Exits = 2, 3, 1
	p.Weathers = []plan.Weather{{Name: "slow", Delay: plan.Duration(20 * time.Millisecond)}}
	p.Weather = "slow"
	p.Fill()
	asked := directory.Schedule{Period: time.Second, Voting: directory.MinVoting} // of which six ways alone take more
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
	for _, nd := range n.nodes() { // which had none for a while
		if p := int(nd.addr.Port()); p < firstPort || p >= firstPort+mostPorts {
			t.Errorf("%s is at port %d, which a connection may have been given", nd.name, p)
		}
	}
	was := n.schedule()
	if n.anew(t.Context()); n.schedule() != was {
		t.Error("a network that can be used began anew")
	}
	mu.Lock()
	all := slices.Clone(told)
	mu.Unlock()
	if len(all) == 0 {
		t.Fatal("nobody was told that the authorities began anew")
	}
	if first := all[0]; first.Voting <= asked.Voting {
		t.Errorf("the second schedule is %+v", first)
	}
	// The client may have got ready by a list of the schedule before, as they began once more.
	asToldLast := func() error {
		mu.Lock()
		last := told[len(told)-1]
		mu.Unlock()
		if c := n.Client().Consensus(); c.FreshUntil.Sub(c.ValidAfter) != last.Period {
			return fmt.Errorf("the consensus is of %v, its period of %v", c.FreshUntil.Sub(c.ValidAfter), last.Period)
		}
		text, err := os.ReadFile(filepath.Join(cfg.Dir, networkFile))
		if err != nil {
			return err
		}
		if kept, err := directory.ParseNetwork(text); err != nil || kept.Schedule != last || kept.ID() != n.Layout().Network.ID() {
			return fmt.Errorf("the network file has %+v: %v", kept.Schedule, err)
		}
		return nil
	}
	if err := within(5*time.Minute, n, func(ctx context.Context, _ *Net) error {
		err := asToldLast()
		for ; err != nil && ctx.Err() == nil; err = asToldLast() {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// Each schedule gives more time than the one before, and its first consensus comes when one of the first schedule would, not before there was time for it.
func TestSchedulesGrow(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 5, 0, time.UTC)
	first := directory.Schedule{Start: start, Period: defaultPeriod, Voting: defaultVoting}
	s := first
	for _, want := range []struct{ due, period, voting time.Duration }{
		{5 * time.Second, 6 * time.Second, 3 * time.Second},
		{15 * time.Second, 15 * time.Second, 7500 * time.Millisecond},
		{40 * time.Second, 38 * time.Second, 18750 * time.Millisecond},
		{100 * time.Second, 94 * time.Second, 46875 * time.Millisecond},
	} {
		s = slower(first, s, s.Start)
		if got := s.Start.Sub(start); got != want.due || s.Period != want.period || s.Voting != want.voting {
			t.Errorf("after %v: %v of %v, want %+v", got, s.Voting, s.Period, want)
		}
	}
	for range 10 {
		s = slower(first, s, s.Start)
	}
	if s.Period != 2*longest || s.Voting != longest {
		t.Errorf("in the end: %+v", s)
	}
	if late := slower(first, first, start.Add(2*time.Second)); late.Start != start.Add(10*time.Second) {
		t.Errorf("where it was long in doubt, the next is due at %v", late.Start)
	}
	day := directory.Schedule{Start: start, Period: directory.MaxPeriod, Voting: time.Hour}
	if s := slower(day, day, start); s.Period != day.Period || s.Voting != day.Voting {
		t.Errorf("a day becomes %+v", s)
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
	came := func(s authority.Status, of time.Time, failed string) authority.Status {
		s.Before = &authority.Outcome{Period: of, Failed: failed}
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
		"nothing came of it, they say": {[]authority.Status{came(at(next), due, "x"), came(at(next), due, "x")}, true, false},
		"one is about to publish it":   {[]authority.Status{came(at(next), due, "x"), came(at(next), due, "")}, true, true},
		"that was the one before":      {[]authority.Status{came(at(due), before, ""), came(at(next), due, "x")}, false, false},
		"one has it":                   {[]authority.Status{at(next, due), at(due)}, true, true},
		"one has a later one":          {[]authority.Status{at(next, next), at(next)}, true, true},
		"there is one of before alone": {[]authority.Status{at(next, before), at(next, before)}, true, false},
	} {
		if over, made := verdict(x.all, due); over != x.over || made != x.made {
			t.Errorf("%s: over %t, made %t", name, over, made)
		}
	}
}
