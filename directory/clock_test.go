package directory_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
)

func hear(c *directory.Clock, ahead ...time.Duration) {
	for i, d := range ahead {
		c.Heard(cell.NodeID{byte(i + 1)}, d)
	}
}

func TestClockIsJudgedByTheMedianOfOthers(t *testing.T) {
	const h = time.Hour
	for _, c := range []struct {
		ahead []time.Duration
		want  time.Duration
		wrong bool
	}{
		{nil, 0, false},
		{[]time.Duration{3 * h}, 0, false}, // one may lie
		{[]time.Duration{3 * h, 2 * h}, 2 * h, true},
		{[]time.Duration{-3 * h, -2 * h}, -2 * h, true},
		{[]time.Duration{3 * h, -2 * h}, 0, false},
		{[]time.Duration{3 * h, 0}, 0, false},
		{[]time.Duration{3 * h, time.Second, -time.Second}, time.Second, false},
		{[]time.Duration{3 * h, 3*h + time.Second, -30 * 24 * h}, 3 * h, true},
		{[]time.Duration{5 * time.Minute, 5 * time.Minute}, 5 * time.Minute, false},
		{[]time.Duration{301 * time.Second, 301 * time.Second}, 301 * time.Second, true},
	} {
		var clock directory.Clock
		hear(&clock, c.ahead...)
		if got, n := clock.Skew(); got != c.want || n != len(c.ahead) || clock.Wrong() != c.wrong {
			t.Errorf("%v: %v behind, %d nodes, wrong: %v", c.ahead, got, n, clock.Wrong())
		}
	}
	var clock directory.Clock
	for i := range 100 {
		clock.Heard(cell.NodeID{byte(i)}, h)
		clock.Heard(cell.NodeID{byte(i)}, time.Second)
	}
	if got, n := clock.Skew(); got != time.Second || n != 15 {
		t.Errorf("the last word of each node: %v of %d", got, n)
	}
}

func TestWrongClockIsSaidOnce(t *testing.T) {
	clock := directory.Clock{Limit: time.Minute}
	hear(&clock, -3*time.Hour, -3*time.Hour)
	if w := clock.Warning(); !strings.Contains(w, "3 hours ahead of those of 2 other nodes") {
		t.Errorf("said %q", w)
	}
	if w := clock.Warning(); w != "" {
		t.Errorf("said again: %q", w)
	}
	hear(&clock, 0, 0)
	if w := clock.Warning(); !strings.Contains(w, "right again") {
		t.Errorf("said %q", w)
	}
	hear(&clock, 50*time.Hour, 50*time.Hour)
	if w := clock.Warning(); !strings.Contains(w, "2 days behind") {
		t.Errorf("said %q", w)
	}
}

// What nobody can tell from a consensus alone, others' clocks tell: is it this clock, or is there none?
func TestClockExplainsAnExpiredConsensus(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	expired := &directory.TimeError{Err: directory.ErrExpired, ValidAfter: at, ValidUntil: at.Add(time.Hour), Now: at.Add(72 * time.Hour)}
	for _, c := range []struct {
		ahead time.Duration
		want  string
	}{{-71 * time.Hour, "2 days ahead of"}, {time.Second, "published no newer"}} {
		var clock directory.Clock
		if err := clock.Explain(expired); err != error(expired) {
			t.Errorf("explained without a clock: %v", err)
		}
		hear(&clock, c.ahead, c.ahead)
		err := clock.Explain(expired)
		if !errors.Is(err, directory.ErrExpired) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.ahead, err)
		}
		other := errors.New("other")
		if clock.Explain(other) != other || clock.Explain(nil) != nil {
			t.Error("another error is explained")
		}
	}
}
