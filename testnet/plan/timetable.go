package plan

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RoleOf says what a name of the plan is: relay, authority, client or service.
func (p *Plan) RoleOf(name string) (role string, ok bool) {
	for role, n := range map[string]int{"relay": p.Relays.Count, "authority": p.Authorities, "client": p.Clients} {
		if digits, ok := strings.CutPrefix(name, role); ok {
			if i, err := strconv.Atoi(digits); err == nil && i >= 1 && i <= n && strconv.Itoa(i) == digits {
				return role, true
			}
		}
	}
	if slices.ContainsFunc(p.Services, func(s Service) bool { return s.Name == name }) {
		return "service", true
	}
	return "", false
}

func (p *Plan) is(name, role string) bool {
	r, ok := p.RoleOf(name)
	return ok && r == role
}

// Exit says whether relay i, from 1, is an exit.
func (p *Plan) Exit(i int) bool { return i > p.Relays.Count-p.Relays.Exits }

// Special is what is said of one relay.
func (p *Plan) Special(name string) Relay {
	for _, r := range p.Relay {
		if r.Name == name {
			return r
		}
	}
	return Relay{Name: name}
}

// PlaceOf is where node i of all, in the order authorities, relays, clients, services, stands: where the plan says, else relays in
// turn at those of the plan's list, and all others in turn all over the map.
func (p *Plan) PlaceOf(name string, i int) string {
	if role, _ := p.RoleOf(name); role == "relay" {
		if at := p.Special(name).Place; at != "" {
			return at
		}
		if n := len(p.Relays.Places); n > 0 {
			return p.Relays.Places[i%n]
		}
	}
	for _, s := range p.Services {
		if s.Name == name && s.Place != "" {
			return s.Place
		}
	}
	all := Places()
	return all[(i*7)%len(all)] // 7 and 16 have no common factor: neighbours are far apart
}

// Farthest is how long what authorities send each other takes one way at most in the plan's weather, when nothing is lost.
func (p *Plan) Farthest() time.Duration {
	w, _ := p.WeatherCalled(p.Weather)
	var way time.Duration
	n := min(p.Authorities, len(places)) // those after them stand where others do
	for i := range n {
		for j := range i {
			way = max(way, Delay(p.PlaceOf("", i), p.PlaceOf("", j)))
		}
	}
	return time.Duration(w.Delay) + time.Duration(w.Map*float64(way)) + time.Duration(w.Jitter)
}

// waysInPhase is how many ways between the farthest authorities a third of the voting is long: a request of theirs is six of them, as it
// makes a circuit, a stream, and asks; it is given up after half of a third (spec/voting.md, section 2).
const waysInPhase = 13

// usualTimes are the period and, for a period, the voting time of the plan's weather.
func (p *Plan) usualTimes() (period Duration, voting func(Duration) Duration) {
	if p.Weather == Calm {
		return Duration(5 * time.Second), func(period Duration) Duration { return min(period, Duration(1200*time.Millisecond)) }
	}
	period = Duration(10 * time.Second)
	if least := Duration(3 * waysInPhase * p.Farthest()); least > period/2 && least < Duration(12*time.Hour) { // a weather that cannot be may have any
		period = 2 * (least + Duration(time.Second) - 1) / Duration(time.Second) * Duration(time.Second)
	}
	return period, func(period Duration) Duration { return period / 2 }
}

// Settling is what the weather adds to the time that relays need, from their start, to be known to all authorities.
func (p *Plan) Settling() time.Duration {
	if p.Weather == Calm {
		return 0
	}
	return max(4*time.Second, 24*p.Farthest())
}

// SetWeather has another weather be from the beginning. Times that are the usual ones of that before become the usual ones of this.
func (p *Plan) SetWeather(name string) {
	period, voting := p.usualTimes()
	if p.Voting == voting(p.Period) {
		p.Voting = 0
	}
	if p.Period == period {
		p.Period = 0
	}
	p.Weather = name
	p.Fill()
}

// Act is one thing that befalls the network at a time, counted from when it is ready.
type Act struct {
	At    time.Duration
	Event      // with its nodes named
	Undo  bool // what was done is undone
	Names []string
}

func (a Act) String() string {
	var b strings.Builder
	if a.Undo {
		b.WriteString("end of ")
	}
	b.WriteString(a.Do)
	if len(a.Names) > 0 {
		b.WriteString(" " + strings.Join(a.Names, " "))
	}
	switch a.Do {
	case Change:
		b.WriteString(" " + a.Weather)
	case Skew, Slow:
		b.WriteString(" " + a.By.String())
	case Limit:
		b.WriteString(" " + a.Rate.String())
	case Corrupt:
		b.WriteString(" " + a.Script)
	}
	return b.String()
}

// Timetable is all that befalls the network within the length of the run, in order. Who "any" is follows from the seed; it is nobody who
// is down or frozen at that time.
func (p *Plan) Timetable() []Act {
	type begun struct {
		at time.Duration
		i  int
	}
	var starts []begun
	for i := range p.Events {
		e := &p.Events[i]
		until := p.Length
		if e.Until > 0 {
			until = min(until, e.Until)
		}
		for at := e.At; at <= until && len(starts) < mostActs; at += e.Every {
			starts = append(starts, begun{time.Duration(at), i})
			if e.Every == 0 {
				break
			}
		}
	}
	slices.SortStableFunc(starts, func(a, b begun) int { return cmp.Compare(a.at, b.at) })
	rng := rand.New(rand.NewPCG(p.Seed, 0x7e57))
	away := make(map[string]time.Duration) // until when
	var acts []Act
	for _, s := range starts {
		a := Act{At: s.at, Event: p.Events[s.i]}
		end := s.at + time.Duration(a.For)
		for _, n := range a.Targets() {
			if slices.Contains(anyOf, n) {
				if n = p.draw(rng, n, s.at, away); n == "" {
					continue
				}
			}
			a.Names = append(a.Names, n)
			switch {
			case a.Do == Kill && a.For == 0:
				away[n] = time.Duration(MostLength)
			case a.Do == Kill, a.Do == Freeze:
				away[n] = max(away[n], end+1)
			}
		}
		if len(a.Names) == 0 && a.Do != Change {
			continue
		}
		acts = append(acts, a)
		if a.For > 0 && end <= time.Duration(p.Length) {
			u := a
			u.At, u.Undo, u.Names = end, true, slices.Clone(a.Names)
			acts = append(acts, u)
		}
	}
	slices.SortStableFunc(acts, func(a, b Act) int { return cmp.Compare(a.At, b.At) })
	return acts
}

// draw draws one of a kind that is there; "": there is none.
func (p *Plan) draw(rng *rand.Rand, kind string, at time.Duration, away map[string]time.Duration) string {
	first, n, role := 0, p.Relays.Count, "relay"
	switch kind {
	case "any authority":
		n, role = p.Authorities, "authority"
	case "any middle":
		n = p.Relays.Count - p.Relays.Exits
	case "any exit":
		first, n = p.Relays.Count-p.Relays.Exits, p.Relays.Exits
	}
	if n == 0 || away[kind] > at {
		return ""
	}
	begin, earliest := rng.IntN(n), time.Duration(MostLength)
	for i := range n {
		name := role + strconv.Itoa(first+(begin+i)%n+1)
		if away[name] <= at {
			return name
		}
		earliest = min(earliest, away[name])
	}
	away[kind] = earliest // nobody before
	return ""
}

// Churn is the event of --churn: every so often a relay is killed, and comes back after twice as long.
func Churn(every time.Duration) Event {
	return Event{Do: Kill, Node: "any relay", At: Duration(every), Every: Duration(every), For: Duration(2 * every)}
}

// ParseVillain reads the value of --villain: node=script.
func ParseVillain(s string) (Villain, error) {
	node, script, ok := strings.Cut(s, "=")
	if !ok {
		return Villain{}, fmt.Errorf("%q: give NODE=SCRIPT, as in relay3=tag", clip([]byte(s)))
	}
	return Villain{Node: node, Script: script}, nil
}

// Shrink leaves out of a plan whatever is not needed for it to fail: events, villains and loads, one after the other. fails runs a plan;
// it is called at most `most` times.
func Shrink(p *Plan, most int, fails func(*Plan) bool) *Plan {
	p = p.Clone()
	runs := 0
	try := func(q *Plan) bool {
		if runs == most {
			return false
		}
		runs++
		if !fails(q) {
			return false
		}
		p = q
		return true
	}
	for again := true; again && runs < most; {
		again = false
		for i := len(p.Events) - 1; i >= 0; i-- {
			q := p.Clone()
			q.Events = slices.Delete(q.Events, i, i+1)
			again = try(q) || again
		}
		for i := len(p.Villains) - 1; i >= 0; i-- {
			q := p.Clone()
			q.Villains = slices.Delete(q.Villains, i, i+1)
			again = try(q) || again
		}
		for i := len(p.Loads) - 1; i >= 0; i-- {
			q := p.Clone()
			q.Loads = slices.Delete(q.Loads, i, i+1)
			again = try(q) || again
		}
	}
	return p
}
