package plan

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"peel/directory/strict"
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
	"relay":     {"tag", "drop", "delay", "replay", "reorder", "inject", "stall", "flood", "boast", "claim", "lie", "stale"},
	"authority": {"mute", "lie", "stale", "equivocate"},
	"client":    {"circles", "flood"},
}

var (
	goodName    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	reserved    = regexp.MustCompile(`^(relay|authority|client)[0-9]*$`)
	goodText    = regexp.MustCompile(`^[\x20-\x7e]*$`)
	goodNetwork = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]{0,63}$`)
)

// Fault is a value of a plan that cannot be.
type Fault struct {
	Key string // as strict.At takes it
	Err error

	from []string // other keys that it follows from
}

func (f Fault) Error() string { return fmt.Sprintf("plan: %s: %v", f.Key, f.Err) }
func (f Fault) Unwrap() error { return f.Err }

// faults are those found so far, mostFaults at most.
type faults []Fault

const mostFaults = 100

// at takes in what is wrong with a key; nil: nothing. from are other keys that it follows from.
func (f *faults) at(key string, err error, from ...string) {
	if err != nil && len(*f) < mostFaults {
		*f = append(*f, Fault{key, err, from})
	}
}

// unless takes in that a key must be otherwise if it is not well.
func (f *faults) unless(well bool, key, text string, args ...any) {
	if !well {
		f.at(key, fmt.Errorf(text, args...))
	}
}

// Check says what is wrong with a plan that was not read from a file.
func (p *Plan) Check() error {
	if all := p.Faults(); len(all) > 0 {
		return all[0]
	}
	return nil
}

// nodes are the keys that say which nodes there are.
var nodes = []string{"authorities", "relays", "clients", "service"}

// Faults are all values that cannot be, up to so many.
func (p *Plan) Faults() []Fault {
	var f faults
	f.unless(goodNetwork.MatchString(p.Name), "name", "give 1 to 64 letters, digits, dots and dashes")
	f.unless(p.Seed <= 1<<63-1, "seed", "give 0 to 9223372036854775807")
	f.unless(len(p.About) <= 1000 && goodText.MatchString(p.About), "about", "give at most 1000 printable characters")
	f.unless(p.Length > 0 && p.Length <= Duration(MostLength), "length", "give more than 0s and at most %v", MostLength)
	f.unless(p.Period >= Duration(time.Second) && p.Period <= Duration(24*time.Hour) && p.Period%Duration(time.Second) == 0, "period", "give whole seconds, 1s to 24h")
	if p.Voting < Duration(100*time.Millisecond) || p.Voting > p.Period {
		f.at("voting", errors.New("give 100ms to the period"), "period")
	}
	f.unless(p.Authorities >= 1 && p.Authorities <= MostAuthorities, "authorities", "give 1 to %d", MostAuthorities)
	f.unless(p.Clients >= 1 && p.Clients <= MostClients, "clients", "give 1 to %d", MostClients)
	f.unless(p.Relays.Count >= 3 && p.Relays.Count <= MostRelays, "relays.count", "give 3 to %d; a path has three", MostRelays)
	if p.Relays.Exits < 1 || p.Relays.Exits > p.Relays.Count {
		f.at("relays.exits", fmt.Errorf("give 1 to the number of relays, %d", p.Relays.Count), "relays.count")
	}
	f.at("weather", p.checkWeather(p.Weather), "weathers")
	for _, at := range p.Relays.Places {
		f.at("relays.places", checkPlace(at))
	}
	all := p.Relays.Count + p.Authorities + p.Clients
	for _, list := range []struct {
		name    string
		n, most int
		check   func(f *faults, at string, i int)
	}{
		{"weathers", len(p.Weathers), mostServices, func(f *faults, at string, i int) { p.Weathers[i].check(f, at) }},
		{"relay", len(p.Relay), max(p.Relays.Count, 0), p.checkRelay},
		{"service", len(p.Services), mostServices, p.checkService},
		{"load", len(p.Loads), mostLoads, p.checkLoad},
		{"event", len(p.Events), mostEvents, p.checkEvent},
		{"villain", len(p.Villains), max(all, 0), func(f *faults, at string, i int) { p.Villains[i].check(f, p, at) }},
	} {
		if list.n > list.most {
			f.at(list.name, fmt.Errorf("%d of them, but at most %d are allowed", list.n, list.most), nodes...)
			continue
		}
		for i := range list.n {
			list.check(&f, fmt.Sprintf("%s[%d].", list.name, i), i)
		}
	}
	p.Expect.check(&f, p)
	return f
}

func (p *Plan) checkWeather(name string) error {
	if _, ok := p.WeatherCalled(name); !ok {
		return fmt.Errorf("there is no weather %q%s: give one of %s, or describe it in [[weathers]]", clip([]byte(name)), meant(name, p.WeatherNames()), strings.Join(p.WeatherNames(), ", "))
	}
	return nil
}

func checkPlace(name string) error {
	if _, ok := places[name]; !ok {
		return fmt.Errorf("there is no place %q on the map%s: give one of %s", clip([]byte(name)), meant(name, Places()), strings.Join(Places(), ", "))
	}
	return nil
}

// meant names the word that may have been meant; "": none is near.
func meant(s string, known []string) string {
	if near := strict.Near(s, known); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}

// noNode says that there is no node of a name, and which there are.
func (p *Plan) noNode(name string, also ...string) error {
	return fmt.Errorf("there is no node %q: give one of %s", clip([]byte(name)), strings.Join(append(p.names(), also...), ", "))
}

// upTo are the names of n nodes of a role, in short.
func upTo(role string, n int) string {
	if n > 1 {
		return fmt.Sprintf("%s1 to %[1]s%d", role, n)
	}
	return role + "1"
}

// names are the names of nodes, in short, and of services, of which some are enough.
func (p *Plan) names() (names []string) {
	for _, of := range []struct {
		role string
		n    int
	}{{"relay", p.Relays.Count}, {"authority", p.Authorities}, {"client", p.Clients}} {
		names = append(names, upTo(of.role, of.n))
	}
	for _, s := range p.Services[:min(len(p.Services), 5)] {
		names = append(names, s.Name)
	}
	return names
}

func (p *Plan) checkRelay(f *faults, at string, i int) {
	r := &p.Relay[i]
	if role, ok := p.RoleOf(r.Name); !ok || role != "relay" {
		f.at(at+"name", fmt.Errorf("there is no relay %q: give relay1 to relay%d", clip([]byte(r.Name)), p.Relays.Count), "relays")
	}
	f.unless(!slices.ContainsFunc(p.Relay[:i], func(o Relay) bool { return o.Name == r.Name }), at+"name", "%s is described twice", clip([]byte(r.Name)))
	f.unless(r.Family == "" || goodName.MatchString(r.Family), at+"family", "give 1 to 32 small letters, digits and dashes")
	if r.Place != "" {
		f.at(at+"place", checkPlace(r.Place))
	}
}

func (p *Plan) checkService(f *faults, at string, i int) {
	s := &p.Services[i]
	f.unless(goodName.MatchString(s.Name) && !reserved.MatchString(s.Name), at+"name", "give 1 to 32 small letters, digits and dashes, and not the name of a node")
	f.unless(!slices.ContainsFunc(p.Services[:i], func(o Service) bool { return o.Name == s.Name }), at+"name", "%s is described twice", clip([]byte(s.Name)))
	f.unless(slices.Contains([]string{"web", "echo", "sink"}, s.Kind), at+"kind", "give web, echo or sink")
	if s.Place != "" {
		f.at(at+"place", checkPlace(s.Place))
	}
}

func (p *Plan) checkLoad(f *faults, at string, i int) {
	l := &p.Loads[i]
	if !slices.ContainsFunc(p.Services, func(s Service) bool { return s.Name == l.To }) {
		f.at(at+"to", fmt.Errorf("there is no service %q: describe it in [[service]]", clip([]byte(l.To))), "service")
	}
	if l.From != "" && !p.is(l.From, "client") {
		f.at(at+"from", fmt.Errorf("there is no client %q: give %s", clip([]byte(l.From)), upTo("client", p.Clients)), "clients")
	}
	f.unless(l.Count >= 1 && l.Count <= 1_000_000, at+"count", "give 1 to 1000000")
	f.unless(l.AtOnce >= 1 && l.AtOnce <= 10_000, at+"at_once", "give 1 to 10000")
	if l.Count >= 1 && l.AtOnce > l.Count && l.AtOnce <= 10_000 {
		f.at(at+"at_once", fmt.Errorf("%d at once, but count says that there are %d in all: give at most that, or a larger count", l.AtOnce, l.Count), at+"count")
	}
	f.unless(l.Size >= 1 && l.Size <= 1<<30, at+"size", "give 1 byte to 1GiB")
	if l.At < 0 || l.At > p.Length {
		f.at(at+"at", p.outside(), "length")
	}
	f.unless(l.Pause >= 0 && l.Pause <= Duration(MostLength), at+"pause", "must not be negative")
	f.unless(l.Timeout > 0 && l.Timeout <= Duration(24*time.Hour), at+"timeout", "give more than 0s and at most 24h")
	f.unless(l.Tries >= 1 && l.Tries <= 100, at+"tries", "give 1 to 100; 1: what fails is not tried again")
}

func (p *Plan) outside() error { return fmt.Errorf("give 0s to the length of the run, %v", p.Length) }

func (p *Plan) checkEvent(f *faults, at string, i int) {
	e := &p.Events[i]
	if !slices.Contains(deeds, e.Do) {
		f.at(at+"do", fmt.Errorf("there is no event %q%s: give one of %s", clip([]byte(e.Do)), meant(e.Do, deeds), strings.Join(deeds, ", ")))
		if _, ok := p.RoleOf(e.Node); e.Node != "" && !ok && !slices.Contains(anyOf, e.Node) {
			f.at(at+"node", p.noNode(e.Node, anyOf...), nodes...)
		}
		return // nothing else can be told
	}
	if e.At < 0 || e.At > p.Length {
		f.at(at+"at", p.outside(), "length")
	}
	f.unless(e.For >= 0 && e.For <= Duration(MostLength), at+"for", "must not be negative")
	f.unless(e.Every == 0 || e.Every >= Duration(10*time.Millisecond), at+"every", "give at least 10ms")
	f.unless(e.Every <= Duration(MostLength), at+"every", "give at most %v", MostLength)
	if e.Every >= Duration(10*time.Millisecond) && int64(p.Length)/int64(e.Every) > mostActs {
		f.at(at+"every", fmt.Errorf("that is more than %d times", mostActs), "length")
	}
	f.unless(e.Until >= 0, at+"until", "must not be negative")
	if e.Do == Change {
		f.at(at+"weather", p.checkWeather(e.Weather), "weathers")
	} else {
		p.checkTargets(f, at, e)
	}
	switch {
	case e.Do == Skew:
		f.unless(e.By != 0 && time.Duration(e.By).Abs() <= 1000*time.Hour, at+"by", "give how far the clock is wrong, at most 1000h")
	case e.Do == Slow:
		f.unless(e.By > 0 && e.By <= Duration(time.Hour), at+"by", "give how much longer the disk takes for each file, at most 1h")
	case e.Do == Limit:
		f.unless(e.Rate >= 100 && e.Rate <= 1e12, at+"rate", "give bytes a second, at least 100")
	}
	if (e.Do == Fill || e.Do == Slow) && !p.Kept {
		f.at(at+"do", fmt.Errorf("nodes of this plan have no disk to %s: give kept = true", e.Do), "kept")
	}
}

// checkTargets looks at whom an event strikes.
func (p *Plan) checkTargets(f *faults, at string, e *Event) {
	switch {
	case len(e.Nodes) > p.Relays.Count+p.Authorities+p.Clients+len(p.Services):
		f.at(at+"nodes", errors.New("more than there are"), nodes...)
		return
	case e.Node != "" && len(e.Nodes) > 0:
		f.at(at+"node", errors.New("give node or nodes, not both"))
	case e.Node == "" && len(e.Nodes) == 0:
		f.at(at+"node", fmt.Errorf("say whom to %s", e.Do), at+"nodes")
	}
	key := at + "node"
	if e.Node == "" {
		key = at + "nodes"
	}
	for _, n := range e.Targets() {
		role, ok := p.RoleOf(n)
		switch {
		case e.Do == Corrupt && !ok && slices.Contains(anyOf, n):
			f.at(key, errors.New("name the villain: it cannot be drawn by chance"))
		case !ok && !slices.Contains(anyOf, n):
			f.at(key, p.noNode(n, anyOf...), nodes...)
		case role == "service" && e.Do != Part && e.Do != Freeze && e.Do != Limit:
			f.at(key, fmt.Errorf("a service cannot be made to %s", e.Do))
		case role == "client" && (e.Do == Kill || e.Do == Restart):
			f.at(key, fmt.Errorf("a client cannot be made to %s: it holds the loads", e.Do))
		case e.Do == Corrupt:
			p.checkScript(f, at, n, e.Script)
		}
	}
}

// Targets are the nodes of an event, or the kinds of which one is drawn.
func (e *Event) Targets() []string {
	if e.Node != "" {
		return []string{e.Node}
	}
	return e.Nodes
}

func (v *Villain) check(f *faults, p *Plan, at string) {
	p.checkScript(f, at, v.Node, v.Script)
	role, _ := p.RoleOf(v.Node)
	f.unless(v.Refused >= 0, at+"refused", "must not be negative")
	f.unless(v.Refused <= 0 || role == "client", at+"refused", "only what clients ask for is counted")
}

func (p *Plan) checkScript(f *faults, at, node, script string) {
	role, ok := p.RoleOf(node)
	if !ok {
		f.at(at+"node", p.noNode(node), nodes...)
		return
	}
	if Scripts[role] == nil {
		f.at(at+"node", fmt.Errorf("a %s cannot be a villain: give a relay, an authority or a client", role))
		return
	}
	f.unless(slices.Contains(Scripts[role], script), at+"script", "%s cannot %q%s: give one of %s",
		role, clip([]byte(script)), meant(script, Scripts[role]), strings.Join(Scripts[role], ", "))
}

func (x *Expect) check(f *faults, p *Plan) {
	for _, of := range []struct { // in the order that mistakes are told in
		key   string
		share float64
	}{{"complete", x.Complete}, {"first_try", x.FirstTry}, {"reconnect_share", x.ReconnectShare}} {
		f.unless(of.share >= 0 && of.share <= 1, "expect."+of.key, "give a share, 0 to 1")
	}
	for _, of := range []struct {
		key string
		n   int64
	}{
		{"first_byte", int64(x.FirstByte)}, {"slowest", int64(x.Slowest)}, {"reconnect", int64(x.Reconnect)}, {"missed_periods", int64(x.MissedPeriods)},
		{"breaches", int64(x.Breaches)}, {"deeds", int64(x.Deeds)}, {"ended", int64(x.Ended)}, {"torn", int64(x.Torn)}, {"again", int64(x.Again)}, {"behind", int64(x.Behind)}, {"ready", int64(x.Ready)}, {"refused", int64(x.Refused)},
	} {
		f.unless(of.n >= 0, "expect."+of.key, "must not be negative")
	}
	f.unless(len(x.Says) <= mostSays, "expect.says", "%d of them, but at most %d are allowed", len(x.Says), mostSays)
	for i, s := range x.Says[:min(len(x.Says), mostSays)] {
		at := fmt.Sprintf("expect.says[%d].", i)
		if role, ok := p.RoleOf(s.Node); !ok || role == "service" {
			f.at(at+"node", fmt.Errorf("there is no node %q that could say something", clip([]byte(s.Node))), nodes...)
		}
		f.unless(s.Text != "" && len(s.Text) <= 200 && goodText.MatchString(s.Text), at+"text", "give 1 to 200 printable characters")
	}
	for _, n := range x.Accused {
		if !p.is(n, "authority") {
			f.at("expect.accused", fmt.Errorf("there is no authority %q: give authority1 to authority%d", clip([]byte(n)), p.Authorities), "authorities")
		}
	}
}
