package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"peel/testnet/story"
)

// pacer lets a run in virtual time go on no faster than somebody wants to watch it, and brings into it what they ask for. All its channels
// are made outside of the run's bubble: time stands still while somebody in there waits for one of them.
type pacer struct {
	tick    chan struct{} // lets a virtual second begin
	poke    chan struct{} // has the run look at orders and pace again
	changed chan struct{} // has run look at the pace again
	done    <-chan struct{}
	names   []string

	mu     sync.Mutex
	pace   float64 // virtual seconds a real one; 0: none, +Inf: as many as the machine can
	orders []order // of those who watch, mostOrders at most
	over   bool
}

// order is something to be done to the network, at the next virtual second.
type order struct {
	do    func(story.Actions) error
	reply chan error
}

const (
	paused   = "paused"
	fullPace = "full"
)

var (
	errRunOver = errors.New("the run is over")
	errFull    = errors.New("what was asked for before has not been done yet: wait for it")
	errSlow    = errors.New("it will be done when the next second of virtual time begins, which takes a while")
)

// What those who watch may ask for at a time, and how long they wait for it.
const (
	mostOrders = 8
	mostReply  = 5 * time.Second
)

func paceName(n float64) string {
	if math.IsInf(n, 1) {
		return fullPace
	}
	return strconv.FormatFloat(n, 'g', 4, 64) + "x"
}

// newPacer makes one for a pace; 0: as fast as the machine can.
func newPacer(ctx context.Context, pace float64) *pacer {
	if pace == 0 {
		pace = math.Inf(1)
	}
	paces := []float64{1, 5, 20, 100, pace, math.Inf(1)}
	slices.Sort(paces)
	names := []string{paused}
	for _, n := range slices.Compact(paces) {
		names = append(names, paceName(n))
	}
	return &pacer{
		tick: make(chan struct{}), poke: make(chan struct{}, 1), changed: make(chan struct{}, 1), done: ctx.Done(), pace: pace, names: names,
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// set sets the pace to one of the names.
func (p *pacer) set(name string) error {
	if !slices.Contains(p.names, name) {
		return fmt.Errorf("there is no pace %q", name)
	}
	pace := 0.0
	switch name {
	case paused:
	case fullPace:
		pace = math.Inf(1)
	default:
		pace, _ = strconv.ParseFloat(name[:len(name)-1], 64) // one of ours
	}
	p.mu.Lock()
	p.pace = pace
	p.mu.Unlock()
	nudge(p.poke)
	nudge(p.changed)
	return nil
}

func (p *pacer) now() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pace
}

func (p *pacer) name() string {
	if n := p.now(); n > 0 {
		return paceName(n)
	}
	return paused
}

// run ticks until ctx ends. Seconds that the machine was too slow for are not made up for.
func (p *pacer) run(ctx context.Context) {
	next := time.Now()
	for ctx.Err() == nil {
		pace := p.now()
		if pace == 0 || math.IsInf(pace, 1) {
			select {
			case <-p.changed:
			case <-ctx.Done():
			}
			next = time.Now()
			continue
		}
		next = next.Add(time.Duration(float64(time.Second) / pace))
		if now := time.Now(); next.Before(now) {
			next = now
		}
		t := time.NewTimer(time.Until(next))
		select {
		case <-t.C:
			select {
			case p.tick <- struct{}{}:
			case <-p.changed:
			case <-ctx.Done():
			}
		case <-p.changed:
			next = time.Now()
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// second is lab.Config.Second: it waits until another second of virtual time may begin, and does meanwhile what was asked for.
func (p *pacer) second(can story.Actions, look func()) bool {
	first := true
	for {
		p.mu.Lock()
		orders, pace := p.orders, p.pace
		p.orders = nil
		p.mu.Unlock()
		for _, o := range orders {
			o.reply <- o.do(can)
		}
		if len(orders) > 0 || first && !math.IsInf(pace, 1) {
			look()
		}
		first = false
		select {
		case <-p.done:
			return false
		default:
		}
		if math.IsInf(pace, 1) {
			return true
		}
		select {
		case <-p.tick:
			return true
		case <-p.poke:
		case <-p.done:
			return false
		}
	}
}

// ask has something done to the network, and says what came of it.
func (p *pacer) ask(do func(story.Actions) error) error {
	o := order{do, make(chan error, 1)}
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		return errRunOver
	}
	if len(p.orders) >= mostOrders {
		p.mu.Unlock()
		return errFull
	}
	p.orders = append(p.orders, o)
	p.mu.Unlock()
	nudge(p.poke)
	t := time.NewTimer(mostReply)
	defer t.Stop()
	select {
	case err := <-o.reply:
		return err
	case <-t.C:
		return errSlow
	case <-p.done:
		return errRunOver
	}
}

// end answers who waits: the run is over.
func (p *pacer) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	for _, o := range p.orders {
		o.reply <- errRunOver
	}
	p.orders = nil
}

// actions are what those who watch may ask for.
func (p *pacer) actions(weathers []string) story.Actions {
	to := func(of func(story.Actions) func(string) error) func(string) error {
		return func(name string) error { return p.ask(func(a story.Actions) error { return of(a)(name) }) }
	}
	return story.Actions{
		Kill:       to(func(a story.Actions) func(string) error { return a.Kill }),
		Freeze:     to(func(a story.Actions) func(string) error { return a.Freeze }),
		Restore:    to(func(a story.Actions) func(string) error { return a.Restore }),
		SetWeather: to(func(a story.Actions) func(string) error { return a.SetWeather }),
		Weathers:   weathers, SetPace: p.set, Paces: p.names, Pace: p.name,
	}
}
