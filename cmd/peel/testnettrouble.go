package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peel/testnet"
	"peel/testnet/plan"
)

// trouble is what flags have befall a test network (docs/testnet.md).
type trouble struct {
	seed     string
	weather  string
	churn    time.Duration
	villains []string
}

func (r *trouble) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&r.seed, "seed", "", "`number` that chance follows from: whom events strike, what is lost")
	f.StringVar(&r.weather, "weather", "", "what lies between nodes: calm, fair, bad, storm or, of a file that has more, a `name` there")
	f.DurationVar(&r.churn, "churn", 0, "kill a relay every so much `time`; it comes back after twice as long")
	f.StringArrayVar(&r.villains, "villain", nil, "`NODE=SCRIPT`: a node that misbehaves, such as relay3=tag; may be given again")
}

// any says whether there is any.
func (r *trouble) any() bool {
	return r.seed != "" || r.weather != "" || r.churn != 0 || len(r.villains) > 0
}

// plan is the plan of a network over loopback; nil: nothing is to befall it.
func (r *trouble) plan(s testnet.Size) (*plan.Plan, error) {
	if !r.any() {
		return nil, nil
	}
	p := sized(s)
	if r.churn > 0 && r.churn < 5*time.Second {
		return nil, fmt.Errorf("--churn %v: give at least 5s", r.churn) // of which a day has as many as a plan may have
	}
	if err := r.change(p); err != nil {
		return nil, err
	}
	return p, testnet.CheckPlan(p)
}

// sized is a plan of a size in which nothing happens.
func sized(s testnet.Size) *plan.Plan {
	p := plan.Default()
	p.Authorities, p.Relays.Count, p.Relays.Exits, p.Length = s.Authorities, s.Relays, s.Exits, plan.Duration(24*time.Hour)
	return p
}

// calm is the plan of a network in which nothing happens but what those who watch do; nil: plans have no such size.
func calm(s testnet.Size) *plan.Plan {
	p := sized(s)
	p.Fill()
	if p.Check() != nil {
		return nil
	}
	return p
}

// change changes a plan, which is in order, by the flags. What is then wrong is said of these.
func (r *trouble) change(p *plan.Plan) error {
	if r.seed != "" {
		seed, err := strconv.ParseUint(r.seed, 10, 63)
		if err != nil {
			return fmt.Errorf("--seed %q: give a whole number from 0 to 9223372036854775807", r.seed)
		}
		p.Seed = seed
	}
	if r.weather != "" {
		if _, ok := p.WeatherCalled(r.weather); !ok {
			known := p.WeatherNames()
			return fmt.Errorf("--weather %q: there is no such weather: %sgive one of %s", r.weather, meantWord(r.weather, known), strings.Join(known, ", "))
		}
		p.SetWeather(r.weather)
	}
	if r.churn < 0 {
		return errors.New("--churn: must not be negative")
	}
	if r.churn > time.Duration(p.Length) {
		return fmt.Errorf("--churn %v: that is longer than the run, which takes %v", r.churn, p.Length)
	}
	events, villains := len(p.Events), len(p.Villains)
	if r.churn != 0 {
		p.Events = append(p.Events, plan.Churn(r.churn))
	}
	for _, s := range r.villains {
		v, err := plan.ParseVillain(s)
		if err != nil {
			return fmt.Errorf("--villain %w", err)
		}
		p.Villains = append(p.Villains, v)
	}
	p.Fill()
	wrong := p.Faults()
	if len(wrong) == 0 {
		return nil
	}
	f := wrong[0]
	for i, s := range r.villains {
		if strings.HasPrefix(f.Key, fmt.Sprintf("villain[%d].", villains+i)) {
			return fmt.Errorf("--villain %s: %w", s, f.Err)
		}
	}
	if strings.HasPrefix(f.Key, fmt.Sprintf("event[%d].", events)) {
		return fmt.Errorf("--churn %v: %w", r.churn, f.Err)
	}
	return f
}
