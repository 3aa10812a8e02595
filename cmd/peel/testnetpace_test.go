package main

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/testnet/story"
)

// Whoever watches a run in virtual time from outside can have it stand still, has what they ask for done meanwhile, and lets it go on.
func TestVirtualTimeStandsStillWhileSomebodyWatches(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	p := newPacer(ctx, 3)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { p.run(ctx) })
	if p.name() != "3x" {
		t.Errorf("the pace is %s", p.name())
	}
	if p.set("warp") == nil {
		t.Error("there is a pace of warp")
	}
	if err := p.set(paused); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("no")
	var at []time.Duration // of what was asked for, in virtual time
	var begun time.Time
	can := story.Actions{Kill: func(node string) error {
		at = append(at, time.Since(begun))
		if node != "relay1" {
			return refused
		}
		return nil
	}}
	var errs []error
	watcher := make(chan struct{}) // ends with its goroutine
	go func() {
		defer close(watcher)
		ask := p.actions(nil)
		errs = append(errs, ask.Kill("relay1"), ask.Kill("relay2"), p.set("1x"), p.set("100x"), p.set(fullPace))
	}()
	looks := 0
	synctest.Test(t, func(t *testing.T) {
		begun = time.Now()
		for range 5 {
			time.Sleep(time.Second)
			if !p.second(can, func() { looks++ }) {
				t.Fatal("it is to end")
			}
		}
		if d := time.Since(begun); d != 5*time.Second {
			t.Errorf("%v have passed", d)
		}
	})
	<-watcher
	if len(at) != 2 || at[0] != time.Second || at[1] != time.Second || looks == 0 {
		t.Errorf("done at %v; looked at %d times", at, looks)
	}
	if errs[0] != nil || !errors.Is(errs[1], refused) || errs[2] != nil || errs[3] != nil || errs[4] != nil {
		t.Errorf("what those who asked heard: %v", errs)
	}
	p.end()
	if err := p.actions(nil).Kill("relay1"); !errors.Is(err, errRunOver) {
		t.Errorf("after the end: %v", err)
	}
}

// A run that stands still can be ended.
func TestARunThatStandsStillCanBeEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := newPacer(ctx, 0)
	p.set(paused)
	inside := make(chan struct{})
	go func() {
		<-inside
		cancel()
	}()
	synctest.Test(t, func(t *testing.T) {
		if p.second(story.Actions{}, func() { close(inside) }) {
			t.Error("it goes on")
		}
	})
}

// Of what the run does not come to do, only so much waits.
func TestOrdersThatNobodyTakesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(t.Context(), 0)
		kill := p.actions(nil).Kill
		for range mostOrders {
			if err := kill("relay1"); !errors.Is(err, errSlow) {
				t.Errorf("with room: %v", err)
			}
		}
		if err := kill("relay1"); !errors.Is(err, errFull) {
			t.Errorf("without: %v", err)
		}
		done := 0
		p.second(story.Actions{Kill: func(string) error { done++; return nil }}, func() {})
		if err := kill("relay1"); done != mostOrders || !errors.Is(err, errSlow) {
			t.Errorf("%d done, and then %v", done, err)
		}
	})
}
