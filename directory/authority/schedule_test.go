package authority

import (
	"testing"
	"time"
)

func at(t *testing.T, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestHourlySchedule(t *testing.T) {
	s := Schedule{Period: time.Hour}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		now        string
		phase      Phase
		validAfter string
		next       string
	}{
		{"2026-01-02T03:00:00Z", Collect, "2026-01-02T04:00:00Z", "2026-01-02T03:50:00Z"},
		{"2026-01-02T03:49:59.999Z", Collect, "2026-01-02T04:00:00Z", "2026-01-02T03:50:00Z"},
		{"2026-01-02T03:50:00Z", Vote, "2026-01-02T04:00:00Z", "2026-01-02T03:53:20Z"},
		{"2026-01-02T03:53:20Z", Fetch, "2026-01-02T04:00:00Z", "2026-01-02T03:56:40Z"},
		{"2026-01-02T03:56:40Z", Sign, "2026-01-02T04:00:00Z", "2026-01-02T04:00:00Z"},
		{"2026-01-02T03:59:59.999999999Z", Sign, "2026-01-02T04:00:00Z", "2026-01-02T04:00:00Z"},
		{"2026-01-02T04:00:00Z", Collect, "2026-01-02T05:00:00Z", "2026-01-02T04:50:00Z"},
		{"2026-01-02T06:30:00+02:00", Collect, "2026-01-02T05:00:00Z", "2026-01-02T04:50:00Z"},
	} {
		now := at(t, c.now)
		p := s.At(now)
		if !p.ValidAfter.Equal(at(t, c.validAfter)) {
			t.Errorf("%s: votes for %v, want %s", c.now, p.ValidAfter, c.validAfter)
		}
		if p.ValidAfter.Location() != time.UTC {
			t.Errorf("%s: valid-after is not in UTC", c.now)
		}
		if ph := p.Phase(now); ph != c.phase {
			t.Errorf("%s: phase %v, want %v", c.now, ph, c.phase)
		}
		if n := p.Next(now); !n.Equal(at(t, c.next)) {
			t.Errorf("%s: next phase at %v, want %s", c.now, n, c.next)
		}
		if p.FreshUntil.Sub(p.ValidAfter) != time.Hour || p.ValidUntil.Sub(p.ValidAfter) != 3*time.Hour {
			t.Errorf("%s: fresh until %v, valid until %v", c.now, p.FreshUntil, p.ValidUntil)
		}
	}
}

// A test network names the moment of its first consensus and votes in a fraction of a second.
func TestFirstConsensusComesAtStart(t *testing.T) {
	start := at(t, "2026-01-02T03:04:06Z")
	s := Schedule{Start: start, Period: 10 * time.Second, Voting: 900 * time.Millisecond}
	for _, c := range []struct {
		before time.Duration
		phase  Phase
		after  time.Time
	}{
		{time.Hour, Collect, start},
		{1200 * time.Millisecond, Collect, start},
		{900 * time.Millisecond, Vote, start},
		{600 * time.Millisecond, Fetch, start},
		{300 * time.Millisecond, Sign, start},
		{0, Collect, start.Add(10 * time.Second)},
		{-9100 * time.Millisecond, Vote, start.Add(10 * time.Second)},
		{-10 * time.Second, Collect, start.Add(20 * time.Second)},
	} {
		now := start.Add(-c.before)
		p := s.At(now)
		if p.Phase(now) != c.phase || !p.ValidAfter.Equal(c.after) {
			t.Errorf("%v before the start: %v for %v, want %v for %v", c.before, p.Phase(now), p.ValidAfter, c.phase, c.after)
		}
	}
}

// Following Next from any moment visits each phase of each period once, in order.
func TestPhasesFollowEachOther(t *testing.T) {
	for _, s := range []Schedule{
		{Period: time.Hour},
		{Period: 7 * time.Second},
		{Period: time.Second, Voting: 100 * time.Millisecond},
		{Period: time.Second, Voting: 3 * time.Millisecond},
		{Period: 5 * time.Second, Voting: 5 * time.Second, Start: at(t, "2026-01-02T03:04:06Z")},
	} {
		if err := s.Check(); err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		now := s.At(at(t, "2026-06-01T00:00:00.5Z")).ValidAfter
		for range 5 {
			p := s.At(now)
			for want := Collect; want <= Sign; want++ {
				if want == Collect && !p.Vote.After(p.Begin) {
					continue // all of the period is voting
				}
				if q := s.At(now); q != p || p.Phase(now) != want {
					t.Fatalf("%+v at %v: %v, want %v", s, now, p.Phase(now), want)
				}
				next := p.Next(now)
				if !next.After(now) {
					t.Fatalf("%+v at %v: the next phase is not later", s, now)
				}
				now = next
			}
			if now != p.ValidAfter {
				t.Fatalf("%+v: the phases end at %v, not at %v", s, now, p.ValidAfter)
			}
		}
	}
}

func TestImpossibleSchedules(t *testing.T) {
	for _, s := range []Schedule{
		{},
		{Period: -time.Hour},
		{Period: 1500 * time.Millisecond},
		{Period: time.Second, Voting: -1},
		{Period: time.Second, Voting: 2 * time.Second},
		{Period: time.Second, Voting: time.Millisecond},
		{Period: time.Second, Start: time.Unix(1, 1)},
	} {
		if s.Check() == nil {
			t.Errorf("%+v was not refused", s)
		}
	}
}
