package authority

import (
	"testing"
	"time"

	"peel/directory"
)

func at(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestHourlySchedule(t *testing.T) {
	s := directory.Schedule{Period: time.Hour}
	for _, c := range []struct {
		now        string
		phase      Phase
		validAfter string
		end        string
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
		p := PeriodAt(s, now)
		if p.ValidAfter != at(t, c.validAfter) {
			t.Errorf("%s: votes for %v, want %s", c.now, p.ValidAfter, c.validAfter)
		}
		ph := p.Phase(now)
		if ph != c.phase {
			t.Errorf("%s: phase %v, want %v", c.now, ph, c.phase)
		}
		if p.End(ph) != at(t, c.end) {
			t.Errorf("%s: the phase ends at %v, want %s", c.now, p.End(ph), c.end)
		}
		if p.FreshUntil.Sub(p.ValidAfter) != time.Hour || p.ValidUntil.Sub(p.ValidAfter) != 3*time.Hour {
			t.Errorf("%s: fresh until %v, valid until %v", c.now, p.FreshUntil, p.ValidUntil)
		}
	}
}

// A test network names the moment of its first consensus and votes in a fraction of a second.
func TestFirstConsensusComesAtStart(t *testing.T) {
	start := at(t, "2026-01-02T03:04:06Z")
	s := directory.Schedule{Start: start, Period: 10 * time.Second, Voting: 900 * time.Millisecond}
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
		p := PeriodAt(s, now)
		if p.Phase(now) != c.phase || p.ValidAfter != c.after {
			t.Errorf("%v before the start: %v for %v, want %v for %v", c.before, p.Phase(now), p.ValidAfter, c.phase, c.after)
		}
	}
}

// Following the ends of phases from any moment visits each phase of each period once, in order.
func TestPhasesFollowEachOther(t *testing.T) {
	for _, s := range []directory.Schedule{
		{},
		{Period: 7 * time.Second},
		{Period: time.Second, Voting: 100 * time.Millisecond},
		{Period: 5 * time.Second, Start: at(t, "2026-01-02T03:04:06Z")},
	} {
		now := PeriodAt(s, at(t, "2026-06-01T00:00:03Z")).ValidAfter
		for range 12 {
			p := PeriodAt(s, now)
			if p.Collect != now {
				t.Fatalf("%+v: a period begins at %v, the one before it ended at %v", s, p.Collect, now)
			}
			for want := Collect; want <= Sign; want++ {
				if PeriodAt(s, now) != p || p.Phase(now) != want || p.Begin(want) != now {
					t.Fatalf("%+v at %v: %v, want %v", s, now, p.Phase(now), want)
				}
				if !p.End(want).After(now) {
					t.Fatalf("%+v at %v: the phase does not end later", s, now)
				}
				now = p.End(want)
			}
			if now != p.ValidAfter {
				t.Fatalf("%+v: the phases end at %v, not at %v", s, now, p.ValidAfter)
			}
		}
	}
}
