package testnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"peel/relay"
	"peel/testnet/memnet"
	"peel/testnet/plan"
	"peel/testnet/story"
	"peel/testnet/villain"
)

// CheckPlan says what of a plan a Net cannot do.
func CheckPlan(p *plan.Plan) error {
	for _, a := range p.Events {
		switch a.Do {
		case plan.Kill, plan.Restart, plan.Freeze, plan.Change:
		default:
			return fmt.Errorf("testnet: the network of peel testnet has no event %q: peel testnet run --ground loopback FILE has it, of a file (docs/testnet.md)", a.Do)
		}
	}
	for _, v := range p.Villains {
		if role, _ := p.RoleOf(v.Node); role == "client" || v.Script == "equivocate" {
			return fmt.Errorf("testnet: the network of peel testnet has no villain %s=%s: peel testnet run --ground loopback FILE has it, of a file (docs/testnet.md)", v.Node, v.Script)
		}
	}
	return nil
}

// plan takes up what the plan says.
func (n *Net) plan() error {
	p := n.cfg.Plan
	if p == nil {
		return nil
	}
	if err := errors.Join(p.Check(), CheckPlan(p)); err != nil {
		return err
	}
	n.internet = memnet.New(p.Seed)
	n.minds = make(map[string]*villain.Mind)
	for _, v := range p.Villains {
		m := villain.NewMind(p.Seed, time.Sleep)
		m.Set(v.Script)
		n.minds[v.Node] = m
	}
	return nil
}

// villain is how a node misbehaves; nil: it does not.
func (n *Net) villain(nickname string) *relay.Villain {
	m := n.minds[nickname]
	if m == nil {
		return nil
	}
	return &relay.Villain{Cells: m.Cells, Directory: m.Directory, Observed: m.Claim}
}

func (n *Net) script(nickname string) string {
	if m := n.minds[nickname]; m != nil {
		return m.Script()
	}
	return ""
}

// tellPlan lets the weather begin, and tells of it and of villains.
func (n *Net) tellPlan() {
	if n.internet == nil {
		return
	}
	n.setWeather(n.cfg.Plan.Weather)
	if s := n.cfg.Story; s != nil {
		for _, v := range n.cfg.Plan.Villains {
			s.Villain(time.Now(), v.Node, v.Script)
		}
	}
}

// SetWeather changes what lies between the nodes.
func (n *Net) SetWeather(name string) error {
	if n.internet == nil {
		return errors.New("testnet: this network has no weather")
	}
	if _, ok := n.cfg.Plan.WeatherCalled(name); !ok {
		return fmt.Errorf("testnet: there is no weather %q", name)
	}
	n.setWeather(name)
	return nil
}

func (n *Net) setWeather(name string) {
	p := n.cfg.Plan
	w, _ := p.WeatherCalled(name)
	if name != plan.Calm {
		defer n.plain.end() // when the ways are set
	}
	places := map[netip.Addr]string{ClientAddr: p.PlaceOf("client1", len(n.layout.Authorities)+len(n.layout.Relays))}
	for i, a := range n.layout.Authorities {
		places[a.Addr.Addr()] = p.PlaceOf(a.Nickname, i)
	}
	for i, r := range n.layout.Relays {
		places[r.Addr.Addr()] = p.PlaceOf(r.Nickname, len(n.layout.Authorities)+i)
	}
	var council map[netip.Addr]bool
	if n.cfg.Late && n.whole { // authorities stay in one room: their schedule, which stands, leaves them no time to hear each other round the world
		council = make(map[netip.Addr]bool)
		for _, a := range n.layout.Authorities {
			council[a.Addr.Addr()] = true
		}
	}
	n.internet.SetWays(func(from, to netip.Addr) memnet.Way {
		if council[from] && council[to] {
			return memnet.Way{}
		}
		d := time.Duration(w.Delay)
		if from, to := places[from], places[to]; w.Map > 0 && from != "" && to != "" {
			d += time.Duration(w.Map * float64(plan.Delay(from, to)))
		}
		return memnet.Way{Delay: d, Jitter: time.Duration(w.Jitter), Rate: int(w.Rate), Loss: w.Loss, Resets: w.Resets}
	})
	if s := n.cfg.Story; s != nil {
		s.Weather(time.Now(), name)
	}
}

// plain are the connections of a network in which there is no weather yet.
type plain struct {
	mu    sync.Mutex
	ended bool
	conns []net.Conn
	prune int // when there are so many, those that are closed are let go
}

func (p *plain) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// add takes a connection up; false: there is weather now.
func (p *plain) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	if len(p.conns) >= max(p.prune, 64) {
		p.conns = slices.DeleteFunc(p.conns, closed)
		p.prune = 2 * len(p.conns)
	}
	p.conns = append(p.conns, c)
	return true
}

// closed says whether a connection is closed at this end.
func closed(c net.Conn) bool {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	return err != nil || errors.Is(raw.Control(func(uintptr) {}), net.ErrClosed)
}

// end closes them all: what comes after them meets the weather.
func (p *plain) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// befall does what the timetable says, from when the client is ready until ctx ends.
func (n *Net) befall(ctx context.Context) {
	if n.cfg.Plan == nil || n.client.Ready(ctx) != nil {
		return
	}
	begin := time.Now()
	act := n.Actions()
	for _, a := range n.cfg.Plan.Timetable() {
		t := time.NewTimer(time.Until(begin.Add(a.At)))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
		for _, name := range a.Names {
			var err error
			does := "is back"
			switch {
			case a.Undo:
				err = act.Restore(name)
			case a.Do == plan.Kill:
				does, err = "is killed", act.Kill(name)
			case a.Do == plan.Freeze:
				does, err = "is frozen", act.Freeze(name)
			case a.Do == plan.Restart:
				does = "restarts"
				if err = act.Kill(name); err == nil {
					err = act.Restore(name)
				}
			}
			if s := n.cfg.Story; err != nil && s != nil {
				s.Tell(story.Event{At: time.Now(), Node: name, Kind: story.OfNode, Text: story.Words(err)})
			}
			if n.cfg.Befell != nil && err == nil && ctx.Err() == nil {
				n.cfg.Befell(time.Since(begin), name+" "+does)
			}
		}
		if a.Do == plan.Change {
			name := a.Weather
			if a.Undo {
				name = n.cfg.Plan.Weather
			}
			n.setWeather(name)
		}
	}
}
