package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"peel/testnet/plan"
	"peel/testnet/story"
)

// act does what the timetable says, in time.
func (l *Lab) act(ctx context.Context) {
	for _, a := range l.plan.Timetable() {
		if !sleepUntil(ctx, l.begin().Add(a.At)) {
			return
		}
		if a.At >= time.Duration(l.plan.Length) { // whether it still comes would be nobody's choice
			return
		}
		l.trace("%s %s", a.At, a.String())
		<-l.hand
		err := l.do(a)
		l.hand <- struct{}{}
		if err != nil && l.ctx.Err() == nil { // else it was not done as the run is over
			l.broken("what befalls the network can be done", "%s: %v", a.String(), err)
		}
	}
}

func (l *Lab) do(a plan.Act) error {
	if a.Do == plan.Change {
		name := a.Weather
		if a.Undo {
			name = l.plan.Weather
		}
		if err := l.setWeather(name); err != nil {
			return err
		}
		l.cfg.Progress(fmt.Sprintf("%9s  the weather is %s", a.At, name))
		return nil
	}
	if a.Do == plan.Part {
		return l.part(a)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(a.Names))
	for i, name := range a.Names {
		wg.Go(func() { errs[i] = l.doTo(a, name) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// doTo does something to one node.
func (l *Lab) doTo(a plan.Act, name string) error {
	n := l.byName[name]
	addr := l.addrOf(name)
	switch a.Do {
	case plan.Kill:
		if a.Undo {
			return l.restore(name)
		}
		return l.kill(name)
	case plan.Restart:
		l.say(story.OfNode, name, "restarts")
		if n.program != nil {
			n.restartProgram()
			return nil
		}
		n.stop(false)
		return n.start()
	case plan.Freeze:
		return l.freeze(name, addr, !a.Undo)
	case plan.Skew:
		skew := time.Duration(a.By)
		if a.Undo {
			skew = 0
		}
		l.hostOf(name).skew.Store(int64(skew))
		l.say(story.OfNode, name, "has a clock that is wrong by %v", skew)
	case plan.Fill:
		if p := l.programOf(name); p != nil {
			if err := p.fill(!a.Undo); err != nil {
				return err
			}
		} else {
			l.hostOf(name).full.Store(!a.Undo)
		}
		text := "has a full disk"
		if a.Undo {
			text = "has room on its disk again"
		}
		l.say(story.OfNode, name, "%s", text)
	case plan.Slow:
		d := time.Duration(a.By)
		if a.Undo {
			d = 0
		}
		l.hostOf(name).slow.Store(int64(d))
		l.say(story.OfNode, name, "has a disk that takes %v longer for each file", d)
	case plan.Limit:
		rate := a.Rate
		if a.Undo {
			rate = 0
		}
		var err error
		if n == nil {
			err = l.ground.SetRate(addr, int(rate))
		} else {
			err = l.limit(n, rate)
		}
		if err != nil {
			return err
		}
		l.say(story.OfNode, name, "sends %v a second at most", rate)
	case plan.Corrupt:
		script := a.Script
		if a.Undo {
			script = ""
		}
		if n != nil {
			n.mind.Set(script)
			l.story.Villain(time.Now(), name, script)
		}
	}
	return nil
}

// limit limits what a relay's machine sends: to rate, or, if that is 0, to what the plan says.
func (l *Lab) limit(n *node, rate plan.Bytes) error {
	if rate == 0 {
		rate = l.bandwidth(n.name)
	}
	return l.ground.SetRate(n.addr, int(rate))
}

// part divides the network, or makes it whole.
func (l *Lab) part(a plan.Act) error {
	if a.Undo {
		if err := l.ground.Part(nil); err != nil {
			return err
		}
		l.story.Mark(story.Mark{At: time.Now(), Kind: story.OfWeather, Text: "the network is whole"})
		l.say(story.OfWeather, "", "the network is whole")
		return nil
	}
	parts := make(map[netip.Addr]int)
	for addr := range l.places {
		parts[addr] = 1
	}
	for _, name := range a.Names {
		parts[l.addrOf(name)] = 2
	}
	if err := l.ground.Part(parts); err != nil {
		return err
	}
	l.story.Mark(story.Mark{At: time.Now(), Kind: story.OfWeather, Text: "the network is divided"})
	l.say(story.OfWeather, "", "the network is divided: %v on one side", a.Names)
	return nil
}

// addrOf is where a node, a client or a service is.
func (l *Lab) addrOf(name string) netip.Addr {
	if n := l.byName[name]; n != nil {
		return n.addr
	}
	if s := l.services[name]; s != nil {
		return s.addr
	}
	var i int
	fmt.Sscanf(name, "client%d", &i)
	return l.clientAddrs[i-1].Addr()
}

// kill is one relay that was killed, for Expect.Reconnect.
type kill struct {
	took time.Duration // until the next new connection of a client worked; 0: not yet
	cut  bool          // the run was over before it was late
}

// kill ends a node at once, as kill -9 does.
func (l *Lab) kill(name string) error {
	n, err := l.node(name)
	if err != nil {
		return err
	}
	l.story.Mark(story.Mark{At: time.Now(), Kind: "kill", Text: name + " is killed"})
	l.say(story.OfNode, name, "is killed")
	n.stop(true)
	if n.role == roleRelay && l.plan.Expect.Reconnect > 0 {
		l.running.Go(func() { l.reconnect(name, time.Now()) })
	}
	return nil
}

// restore starts a node that was killed, or lets one go on that was frozen.
func (l *Lab) restore(name string) error {
	n, err := l.node(name)
	if err != nil {
		return err
	}
	if err := l.hold(name, n.addr, false); err != nil {
		return err
	}
	l.story.Mark(story.Mark{At: time.Now(), Kind: "restore", Text: name + " is back"})
	l.say(story.OfNode, name, "is back")
	if n.up() {
		l.goesOn(name)
		return nil
	}
	return n.start()
}

func (l *Lab) freeze(name string, addr netip.Addr, frozen bool) error {
	if err := l.hold(name, addr, frozen); err != nil {
		return err
	}
	kind, text := "restore", "goes on"
	if frozen {
		kind, text = "freeze", "is frozen"
	}
	l.story.Mark(story.Mark{At: time.Now(), Kind: kind, Text: name + " " + text})
	if !frozen {
		l.goesOn(name)
	} else if l.up(name) {
		l.story.State(name, story.Frozen)
	}
	l.say(story.OfNode, name, "%s", text)
	return nil
}

// goesOn shows one that was frozen as up.
func (l *Lab) goesOn(name string) {
	l.story.Change(name, func(n *story.Node) {
		if n.State == story.Frozen {
			n.State = story.Up
		}
	})
}

// hold keeps a machine, or the process on it, from doing anything, or lets it go on.
func (l *Lab) hold(name string, addr netip.Addr, held bool) error {
	if p := l.programOf(name); p != nil {
		return p.freeze(held)
	}
	return l.ground.Freeze(addr, held)
}

// up says whether a node, a client or a service runs.
func (l *Lab) up(name string) bool {
	if n := l.byName[name]; n != nil {
		return n.up()
	}
	p := l.programOf(name)
	return p == nil || p.up()
}

func (l *Lab) node(name string) (*node, error) {
	n := l.byName[name]
	if n == nil {
		return nil, fmt.Errorf("lab: no relay or authority is called %q", name)
	}
	return n, nil
}
