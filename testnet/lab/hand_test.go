package lab

import (
	"bytes"
	"context"
	"errors"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/testnet/memnet"
	"peel/testnet/plan"
	"peel/testnet/story"
)

// What those who watch do to a network happens, is told, and stands in the trace; what cannot be done is refused, and so is all when it is
// over. They can end it before its time.
func TestWhoWatchesCanKillRestoreAndEnd(t *testing.T) {
	p := plan.Default()
	p.Authorities, p.Length, p.Relays, p.Services, p.Loads = 1, plan.Duration(time.Hour), plan.Relays{Count: 3, Exits: 1}, nil, nil
	p.Fill()
	synctest.Test(t, func(t *testing.T) {
		s := story.New("watched", "in virtual time", time.Now())
		state := func() string {
			for _, n := range s.Snapshot(0).Nodes {
				if n.Name == "relay3" {
					return n.State
				}
			}
			return "?"
		}
		seconds := 0
		var last story.Actions
		r, err := Virtual(t.Context(), Config{Plan: p, Story: s, Second: func(can story.Actions, look func()) bool {
			seconds++
			last = can
			switch seconds {
			case 22:
				if err := can.Kill("relay3"); err != nil || state() != story.Down {
					t.Errorf("killed: %v, and it is %s", err, state())
				}
				if err := can.Kill("relay3"); err == nil || !strings.Contains(err.Error(), "down already") {
					t.Errorf("killed again: %v", err)
				}
				if can.Freeze("relay3") == nil || can.Kill("relay9") == nil || can.SetWeather("hail") == nil {
					t.Error("what cannot be done was done")
				}
			case 24:
				if err := can.Restore("relay3"); err != nil || state() != story.Up {
					t.Errorf("restored: %v, and it is %s", err, state())
				}
				if err := can.SetWeather("fair"); err != nil {
					t.Error(err)
				}
				look()
			}
			return seconds < 36
		}})
		if err != nil {
			t.Fatal(err)
		}
		if !r.Stopped || seconds != 36 {
			t.Errorf("it went on for %d seconds, stopped: %v", seconds, r.Stopped)
		}
		if err := last.Kill("relay3"); err == nil {
			t.Error("a relay was killed after the end")
		}
		lines := slices.DeleteFunc(r.Trace(), func(l string) bool { return !strings.HasSuffix(l, ", by hand") })
		if r.ByHand != 3 || len(lines) != 3 || !strings.HasSuffix(lines[0], "s kill relay3, by hand") || !strings.HasSuffix(lines[2], "s weather fair, by hand") {
			t.Errorf("by hand %d: %q", r.ByHand, lines)
		}
		told := 0
		for _, e := range s.Snapshot(0).Events {
			if e.Kind == story.OfHand {
				told++
			}
		}
		if told != 3 || !slices.ContainsFunc(strings.Split(r.String(), "\n"), func(l string) bool { return strings.Contains(l, "done by hand: 3;") }) {
			t.Errorf("told %d of 3:\n%s", told, r)
		}
	})
}

// Before a network has started nothing can be done to it, and who asks is told so at once.
func TestNothingIsDoneToANetworkThatHasNotStarted(t *testing.T) {
	p := plan.Default()
	p.Fill()
	l, err := New(Config{Plan: p, Ground: memory{memnet.New(1)}})
	if err != nil {
		t.Fatal(err)
	}
	can := l.Actions()
	for _, err := range []error{can.Kill("relay1"), can.Freeze("relay1"), can.Restore("relay1"), can.SetWeather("storm")} {
		if !errors.Is(err, errEarly) {
			t.Errorf("refused with %v", err)
		}
	}
}

// Weather is offered where it can be had.
func TestWeatherIsOfferedWhereThereIsSome(t *testing.T) {
	p := plan.Default()
	p.Weather = plan.Calm
	p.Fill()
	l := &Lab{plan: p, ground: Namespaces(p)}
	if can := l.Actions(); can.SetWeather == nil || !slices.Contains(can.Weathers, "storm") {
		t.Errorf("between namespaces: %v", can.Weathers)
	}
	l.ground = Apart(p)
	if can := l.Actions(); can.SetWeather != nil || len(can.Weathers) > 0 || l.refuseWeather("storm") == nil {
		t.Errorf("over loopback as it is: %v", can.Weathers)
	}
}

// Goroutines of those who watch are not taken for some that a run left behind.
func TestGoroutinesOfWhoWatchesAreNotCounted(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	Watch(t.Context(), func(context.Context) {
		wg.Go(func() { wg.Go(func() { close(begun); <-end }); <-end })
	})
	<-begun
	var text bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&text, 1); err != nil {
		t.Fatal(err)
	}
	close(end)
	wg.Wait()
	first, _, _ := strings.Cut(text.String(), "\n") // goroutine profile: total N
	all, err := strconv.Atoi(first[strings.LastIndexByte(first, ' ')+1:])
	if err != nil {
		t.Fatal(err)
	}
	if n := unwatched(text.String()); n != all-2 {
		t.Errorf("%d of %d were counted, of which two watch:\n%s", n, all, &text)
	}
}
