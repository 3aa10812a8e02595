package lab

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"peel/testnet/story"
)

var (
	errOver  = errors.New("the run is over")
	errEarly = errors.New("the network has not started yet: try again in a moment")
)

// Actions are what those who watch may do, while it runs. Each is told, and stands in the trace.
func (l *Lab) Actions() story.Actions {
	a := story.Actions{
		Kill: func(name string) error {
			return l.byHand("kill", name, func(n *node) error {
				if !n.up() {
					return fmt.Errorf("%s is down already", name)
				}
				return nil
			}, func(*node) error { return l.kill(name) })
		},
		Freeze: func(name string) error {
			return l.byHand("freeze", name, func(n *node) error {
				if !n.up() {
					return fmt.Errorf("%s is down: restore it first", name)
				}
				return nil
			}, func(n *node) error { return l.freeze(name, n.addr, true) })
		},
		Restore: func(name string) error {
			return l.byHand("restore", name, func(n *node) error {
				if n.program != nil && n.program.runs() {
					return fmt.Errorf("%s runs, and nobody froze it: kill it, and then restore it, to have it begin anew", name)
				}
				return nil
			}, func(*node) error { return l.restore(name) })
		},
		SetWeather: func(name string) error {
			if err := l.refuseWeather(name); err != nil {
				return err
			}
			return l.byHand("weather "+name, "", func(*node) error { return nil }, func(*node) error { return l.setWeather(name) })
		},
		Weathers: slices.DeleteFunc(l.plan.WeatherNames(), func(name string) bool { return l.refuseWeather(name) != nil }),
	}
	if len(a.Weathers) < 2 { // there is nothing to choose from
		a.SetWeather, a.Weathers = nil, nil
	}
	return a
}

// refuseWeather says why the weather cannot be had: the plan does not know it, or the ground has no such.
func (l *Lab) refuseWeather(name string) error {
	if !slices.Contains(l.plan.WeatherNames(), name) {
		return fmt.Errorf("there is no weather %q", name)
	}
	p := l.plan.Clone()
	p.Weather = name
	return l.ground.Refuse(p)
}

// byHand does what somebody who watches asked for, to a node or, if it has no name, to all, if it can be done.
func (l *Lab) byHand(what, name string, can, do func(*node) error) error {
	if !l.started.Load() {
		return errEarly
	}
	if _, goesOn := <-l.hand; !goesOn {
		return errOver
	}
	defer func() { l.hand <- struct{}{} }()
	var n *node
	if name != "" {
		var err error
		if n, err = l.node(name); err != nil {
			return err
		}
	}
	if err := can(n); err != nil {
		return err
	}
	text := what
	if name != "" {
		text += " " + name
	}
	l.trace("%v %s, by hand", time.Since(l.begin()).Round(time.Millisecond), text)
	l.mu.Lock()
	l.result.ByHand++
	l.mu.Unlock()
	l.say(story.OfHand, name, "by hand: %s", what)
	return do(n)
}

// up says whether the node runs.
func (n *node) up() bool {
	if n.program != nil {
		return n.program.up()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.live != nil
}
