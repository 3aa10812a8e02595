package testnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	return &relay.Villain{Cells: m.Cells, Directory: m.Directory}
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
	places := map[netip.Addr]string{ClientAddr: p.PlaceOf("client1", len(n.layout.Authorities)+len(n.layout.Relays))}
	for i, a := range n.layout.Authorities {
		places[a.Addr.Addr()] = p.PlaceOf(a.Nickname, i)
	}
	for i, r := range n.layout.Relays {
		places[r.Addr.Addr()] = p.PlaceOf(r.Nickname, len(n.layout.Authorities)+i)
	}
	n.internet.SetWays(func(from, to netip.Addr) memnet.Way {
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
			switch {
			case a.Undo:
				err = act.Restore(name)
			case a.Do == plan.Kill:
				err = act.Kill(name)
			case a.Do == plan.Freeze:
				err = act.Freeze(name)
			case a.Do == plan.Restart:
				if err = act.Kill(name); err == nil {
					err = act.Restore(name)
				}
			}
			if s := n.cfg.Story; err != nil && s != nil {
				s.Tell(story.Event{At: time.Now(), Node: name, Kind: story.OfNode, Text: err.Error()})
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
