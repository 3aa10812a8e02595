package plan

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Bounds of a plan.
const (
	MostAuthorities = 21
	MostRelays      = 4000
	MostClients     = 1000
	mostServices    = 100
	mostLoads       = 100
	mostEvents      = 1000
	mostSays        = 100
	mostActs        = 100_000 // of the timetable
	MostLength      = 400 * 24 * time.Hour
)

// What an event can do.
const (
	Kill    = "kill"    // the node is gone at once; undone: it is started again
	Restart = "restart" // the node ends, and is started again at once
	Freeze  = "freeze"  // the node neither hears nor is heard
	Part    = "part"    // the nodes hear only each other, and the others only the others
	Change  = "weather" // other weather
	Skew    = "skew"    // the node's clock is wrong
	Limit   = "limit"   // the node's machine sends slowly
	Corrupt = "villain" // the node misbehaves

	Fill = "fill"      // the node's disk is full
	Slow = "slow-disk" // the node's disk takes its time for each file
)

var deeds = []string{Kill, Restart, Freeze, Part, Change, Skew, Limit, Corrupt, Fill, Slow}

// Any is who may be drawn by chance.
var anyOf = []string{"any relay", "any middle", "any exit", "any authority"}

// Scripts are how a node can misbehave, by its role.
var Scripts = map[string][]string{
	"relay":     {"tag", "drop", "delay", "replay", "reorder", "inject", "stall", "flood", "boast", "lie"},
	"authority": {"mute", "lie", "stale", "equivocate"},
	"client":    {"circles", "flood"},
}

var (
	goodName    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	reserved    = regexp.MustCompile(`^(relay|authority|client)[0-9]*$`)
	goodText    = regexp.MustCompile(`^[\x20-\x7e]*$`)
	goodNetwork = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$`)
)

// Check says what is wrong with a plan that was not read from a file.
func (p *Plan) Check() error {
	if key, err := p.check(); err != nil {
		return fmt.Errorf("plan: %s: %w", key, err)
	}
	return nil
}

// check says which key has a value that cannot be, and why.
func (p *Plan) check() (string, error) {
	switch {
	case !goodNetwork.MatchString(p.Name):
		return "name", errors.New("give 1 to 64 letters, digits, dots and dashes")
	case p.Seed > 1<<63-1:
		return "seed", errors.New("give 0 to 9223372036854775807")
	case len(p.About) > 1000 || !goodText.MatchString(p.About):
		return "about", errors.New("give at most 1000 printable characters")
	case p.Length <= 0 || p.Length > Duration(MostLength):
		return "length", fmt.Errorf("give more than 0s and at most %v", MostLength)
	case p.Period < Duration(time.Second) || p.Period > Duration(24*time.Hour) || p.Period%Duration(time.Second) != 0:
		return "period", errors.New("give whole seconds, 1s to 24h")
	case p.Voting < Duration(100*time.Millisecond) || p.Voting > p.Period:
		return "voting", errors.New("give 100ms to the period")
	case p.Authorities < 1 || p.Authorities > MostAuthorities:
		return "authorities", fmt.Errorf("give 1 to %d", MostAuthorities)
	case p.Clients < 1 || p.Clients > MostClients:
		return "clients", fmt.Errorf("give 1 to %d", MostClients)
	case p.Relays.Count < 3 || p.Relays.Count > MostRelays:
		return "relays.count", fmt.Errorf("give 3 to %d; a path has three", MostRelays)
	case p.Relays.Exits < 1 || p.Relays.Exits > p.Relays.Count:
		return "relays.exits", fmt.Errorf("give 1 to the number of relays, %d", p.Relays.Count)
	}
	if err := p.checkWeather(p.Weather); err != nil {
		return "weather", err
	}
	for _, at := range p.Relays.Places {
		if err := checkPlace(at); err != nil {
			return "relays.places", err
		}
	}
	for _, list := range []struct {
		name    string
		n, most int
		check   func(i int) (string, error)
	}{
		{"weathers", len(p.Weathers), mostServices, func(i int) (string, error) { return p.Weathers[i].check() }},
		{"relay", len(p.Relay), p.Relays.Count, p.checkRelay},
		{"service", len(p.Services), mostServices, p.checkService},
		{"load", len(p.Loads), mostLoads, p.checkLoad},
		{"event", len(p.Events), mostEvents, p.checkEvent},
		{"villain", len(p.Villains), p.Relays.Count + p.Authorities + p.Clients, func(i int) (string, error) {
			return p.checkScript(p.Villains[i].Node, p.Villains[i].Script)
		}},
	} {
		if list.n > list.most {
			return list.name, fmt.Errorf("%d of them, but at most %d are allowed", list.n, list.most)
		}
		for i := range list.n {
			if key, err := list.check(i); err != nil {
				return fmt.Sprintf("%s[%d].%s", list.name, i, key), err
			}
		}
	}
	return p.Expect.check(p)
}

func (p *Plan) checkWeather(name string) error {
	if _, ok := p.WeatherCalled(name); !ok {
		return fmt.Errorf("there is no weather %q: give one of %s, or describe it in [[weathers]]", name, strings.Join(p.WeatherNames(), ", "))
	}
	return nil
}

func checkPlace(name string) error {
	if _, ok := places[name]; !ok {
		return fmt.Errorf("there is no place %q on the map: give one of %s", name, strings.Join(Places(), ", "))
	}
	return nil
}

func (p *Plan) checkRelay(i int) (string, error) {
	r := &p.Relay[i]
	if role, ok := p.RoleOf(r.Name); !ok || role != "relay" {
		return "name", fmt.Errorf("there is no relay %q: give relay1 to relay%d", r.Name, p.Relays.Count)
	}
	if slices.ContainsFunc(p.Relay[:i], func(o Relay) bool { return o.Name == r.Name }) {
		return "name", fmt.Errorf("%s is described twice", r.Name)
	}
	if r.Family != "" && !goodName.MatchString(r.Family) {
		return "family", errors.New("give 1 to 32 small letters, digits and dashes")
	}
	if r.Place != "" {
		return "place", checkPlace(r.Place)
	}
	return "", nil
}

func (p *Plan) checkService(i int) (string, error) {
	s := &p.Services[i]
	switch {
	case !goodName.MatchString(s.Name) || reserved.MatchString(s.Name):
		return "name", errors.New("give 1 to 32 small letters, digits and dashes, and not the name of a node")
	case slices.ContainsFunc(p.Services[:i], func(o Service) bool { return o.Name == s.Name }):
		return "name", fmt.Errorf("%s is described twice", s.Name)
	case !slices.Contains([]string{"web", "echo", "sink"}, s.Kind):
		return "kind", errors.New("give web, echo or sink")
	case s.Place != "":
		return "place", checkPlace(s.Place)
	}
	return "", nil
}

func (p *Plan) checkLoad(i int) (string, error) {
	l := &p.Loads[i]
	switch {
	case !slices.ContainsFunc(p.Services, func(s Service) bool { return s.Name == l.To }):
		return "to", fmt.Errorf("there is no service %q", l.To)
	case l.From != "" && !p.is(l.From, "client"):
		return "from", fmt.Errorf("there is no client %q: give client1 to client%d", l.From, p.Clients)
	case l.Count < 1 || l.Count > 1_000_000:
		return "count", errors.New("give 1 to 1000000")
	case l.AtOnce < 1 || l.AtOnce > 10_000:
		return "at_once", errors.New("give 1 to 10000")
	case l.Size < 1 || l.Size > 1<<30:
		return "size", errors.New("give 1 byte to 1GiB")
	case l.At < 0 || l.At > p.Length:
		return "at", errors.New("give 0s to the length of the run")
	case l.Pause < 0 || l.Pause > Duration(MostLength):
		return "pause", errors.New("must not be negative")
	case l.Timeout <= 0 || l.Timeout > Duration(24*time.Hour):
		return "timeout", errors.New("give more than 0s and at most 24h")
	case l.Tries < 1 || l.Tries > 100:
		return "tries", errors.New("give 1 to 100")
	}
	return "", nil
}

func (p *Plan) checkEvent(i int) (string, error) {
	e := &p.Events[i]
	switch {
	case !slices.Contains(deeds, e.Do):
		return "do", fmt.Errorf("give one of %s", strings.Join(deeds, ", "))
	case e.At < 0 || e.At > p.Length:
		return "at", errors.New("give 0s to the length of the run")
	case e.For < 0 || e.For > Duration(MostLength):
		return "for", errors.New("must not be negative")
	case e.Every < 0 || e.Every > 0 && e.Every < Duration(10*time.Millisecond):
		return "every", errors.New("give at least 10ms")
	case e.Every > 0 && int64(p.Length)/int64(e.Every) > mostActs:
		return "every", fmt.Errorf("that is more than %d times", mostActs)
	case e.Until < 0:
		return "until", errors.New("must not be negative")
	case len(e.Nodes) > p.Relays.Count+p.Authorities+p.Clients+len(p.Services):
		return "nodes", errors.New("more than there are")
	case e.Node != "" && len(e.Nodes) > 0:
		return "node", errors.New("give node or nodes")
	case e.Do == Change:
		return "weather", p.checkWeather(e.Weather)
	case e.Node == "" && len(e.Nodes) == 0:
		return "node", fmt.Errorf("say whom to %s", e.Do)
	}
	for _, n := range e.Targets() {
		role, ok := p.RoleOf(n)
		if !ok && !slices.Contains(anyOf, n) {
			return "node", fmt.Errorf("there is no node %q", clip([]byte(n)))
		}
		switch {
		case role == "service" && e.Do != Part && e.Do != Freeze && e.Do != Limit:
			return "node", fmt.Errorf("a service cannot be made to %s", e.Do)
		case role == "client" && (e.Do == Kill || e.Do == Restart):
			return "node", fmt.Errorf("a client cannot be made to %s: it holds the loads", e.Do)
		case e.Do == Corrupt && !ok:
			return "node", errors.New("name the villain")
		}
		if e.Do == Corrupt {
			if key, err := p.checkScript(n, e.Script); err != nil {
				return key, err
			}
		}
	}
	if e.Do == Skew && (e.By == 0 || time.Duration(e.By).Abs() > 1000*time.Hour) {
		return "by", errors.New("give how far the clock is wrong, at most 1000h")
	}
	if e.Do == Slow && (e.By <= 0 || e.By > Duration(time.Hour)) {
		return "by", errors.New("give how much longer the disk takes for each file, at most 1h")
	}
	if (e.Do == Fill || e.Do == Slow) && !p.Kept {
		return "do", fmt.Errorf("nodes of this plan have no disk to %s: give kept = true", e.Do)
	}
	if e.Do == Limit && (e.Rate < 100 || e.Rate > 1e12) {
		return "rate", errors.New("give bytes a second, at least 100")
	}
	return "", nil
}

// Targets are the nodes of an event, or the kinds of which one is drawn.
func (e *Event) Targets() []string {
	if e.Node != "" {
		return []string{e.Node}
	}
	return e.Nodes
}

func (p *Plan) checkScript(node, script string) (string, error) {
	role, ok := p.RoleOf(node)
	if !ok || Scripts[role] == nil {
		return "node", fmt.Errorf("there is no node %q that could be a villain", clip([]byte(node)))
	}
	if !slices.Contains(Scripts[role], script) {
		return "script", fmt.Errorf("%s cannot %q: give one of %s", role, clip([]byte(script)), strings.Join(Scripts[role], ", "))
	}
	return "", nil
}

func (x *Expect) check(p *Plan) (string, error) {
	share := func(f float64) bool { return f >= 0 && f <= 1 }
	switch {
	case !share(x.Complete):
		return "expect.complete", errors.New("give a share, 0 to 1")
	case !share(x.FirstTry):
		return "expect.first_try", errors.New("give a share, 0 to 1")
	case !share(x.ReconnectShare):
		return "expect.reconnect_share", errors.New("give a share, 0 to 1")
	case x.FirstByte < 0:
		return "expect.first_byte", errors.New("must not be negative")
	case x.Slowest < 0:
		return "expect.slowest", errors.New("must not be negative")
	case x.Reconnect < 0:
		return "expect.reconnect", errors.New("must not be negative")
	case x.MissedPeriods < 0:
		return "expect.missed_periods", errors.New("must not be negative")
	case x.Breaches < 0:
		return "expect.breaches", errors.New("must not be negative")
	case x.Deeds < 0:
		return "expect.deeds", errors.New("must not be negative")
	case x.Ended < 0:
		return "expect.ended", errors.New("must not be negative")
	case x.Behind < 0:
		return "expect.behind", errors.New("must not be negative")
	case x.Refused < 0:
		return "expect.refused", errors.New("must not be negative")
	}
	if len(x.Says) > mostSays {
		return "expect.says", fmt.Errorf("%d of them, but at most %d are allowed", len(x.Says), mostSays)
	}
	for i, s := range x.Says {
		if role, ok := p.RoleOf(s.Node); !ok || role == "service" {
			return fmt.Sprintf("expect.says[%d].node", i), fmt.Errorf("there is no node %q that could say something", clip([]byte(s.Node)))
		}
		if s.Text == "" || len(s.Text) > 200 || !goodText.MatchString(s.Text) {
			return fmt.Sprintf("expect.says[%d].text", i), errors.New("give 1 to 200 printable characters")
		}
	}
	for _, n := range x.Accused {
		if !p.is(n, "authority") {
			return "expect.accused", fmt.Errorf("there is no authority %q", clip([]byte(n)))
		}
	}
	return "", nil
}
