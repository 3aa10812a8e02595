// Package plan describes a test network and what is to befall it: nodes, places, weather, events on a timetable or at random from a
// seed, villains, loads, and what is expected of it all. It is pure: the same file and seed make the same plan (docs/testnet.md).
package plan

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"peel/directory/strict"
)

// Plan is a description, as its file has it. Keys are explained in docs/testnet.md.
type Plan struct {
	Name    string   `toml:"name"`
	About   string   `toml:"about,omitempty"`
	Seed    uint64   `toml:"seed"`
	Length  Duration `toml:"length"` // from when the first client is ready
	Period  Duration `toml:"period"`
	Voting  Duration `toml:"voting"`
	Weather string   `toml:"weather"`

	Authorities int  `toml:"authorities"`
	Clients     int  `toml:"clients"`
	Kept        bool `toml:"kept"`    // nodes have a folder, and find it again when they start anew
	Measure     bool `toml:"measure"` // authorities measure relays

	Relays   Relays    `toml:"relays"`
	Expect   Expect    `toml:"expect"`
	Relay    []Relay   `toml:"relay,omitempty"`
	Weathers []Weather `toml:"weathers,omitempty"`
	Services []Service `toml:"service,omitempty"`
	Loads    []Load    `toml:"load,omitempty"`
	Events   []Event   `toml:"event,omitempty"`
	Villains []Villain `toml:"villain,omitempty"`
}

// Relays are all relays, called relay1 and so on, of which the last are exits.
type Relays struct {
	Count     int      `toml:"count"`
	Exits     int      `toml:"exits"`
	Bandwidth Bytes    `toml:"bandwidth"` // a second, that each offers and its machine sends at most; 0: 10 MB, and no limit
	Places    []string `toml:"places,omitempty"`
}

// Relay is what is special about one relay.
type Relay struct {
	Name      string `toml:"name"`
	Place     string `toml:"place,omitempty"`
	Bandwidth Bytes  `toml:"bandwidth,omitempty"`
	Family    string `toml:"family,omitempty"` // relays with the same name here are of one family
}

// Service is a plain TCP server outside the network.
type Service struct {
	Name  string `toml:"name"`
	Kind  string `toml:"kind"` // web, echo, sink
	Place string `toml:"place,omitempty"`
}

// Load is what clients do.
type Load struct {
	To      string   `toml:"to"`             // a service
	From    string   `toml:"from,omitempty"` // a client; "": all of them in turn
	At      Duration `toml:"at,omitempty"`
	Count   int      `toml:"count"`
	AtOnce  int      `toml:"at_once"`
	Size    Bytes    `toml:"size"`
	Pause   Duration `toml:"pause,omitempty"` // of each of those at once, before the next
	Timeout Duration `toml:"timeout"`         // of one try
	Tries   int      `toml:"tries"`           // 1: what fails has failed
}

// Event is what befalls the network.
type Event struct {
	Do      string   `toml:"do"`
	Node    string   `toml:"node,omitempty"`  // a name, or "any relay", "any middle", "any exit", "any authority"
	Nodes   []string `toml:"nodes,omitempty"` // several of these
	At      Duration `toml:"at"`
	For     Duration `toml:"for,omitempty"` // then it is undone; 0: it is not
	Every   Duration `toml:"every,omitempty"`
	Until   Duration `toml:"until,omitempty"` // of what is repeated; 0: to the end
	Weather string   `toml:"weather,omitempty"`
	By      Duration `toml:"by,omitempty"`   // how far a clock is wrong, or how much longer a disk takes
	Rate    Bytes    `toml:"rate,omitempty"` // bytes a second
	Script  string   `toml:"script,omitempty"`
}

// Villain is a node that misbehaves.
type Villain struct {
	Node    string `toml:"node"`
	Script  string `toml:"script"`
	Refused int    `toml:"refused,omitempty"` // of a client: requests of it that honest nodes refused, at least; 0: as is expected of all
}

// Expect is what a run must show. Shares are from 0 to 1.
type Expect struct {
	Complete       float64  `toml:"complete"`        // of downloads, tries of the loader's included
	FirstTry       float64  `toml:"first_try"`       // of downloads
	FirstByte      Duration `toml:"first_byte"`      // of half of the downloads, at most; 0: not looked at
	Slowest        Duration `toml:"slowest"`         // download, at most; 0: not looked at
	MissedPeriods  int      `toml:"missed_periods"`  // without a consensus, at most; those that should have one, by their authorities
	Reconnect      Duration `toml:"reconnect"`       // after a relay was killed, a new connection works within; 0: not looked at
	ReconnectShare float64  `toml:"reconnect_share"` // of those
	Breaches       int      `toml:"breaches"`        // that honest relays saw, at least
	Refused        int      `toml:"refused"`         // requests of each client that is a villain that honest nodes refused, at least
	Accused        []string `toml:"accused,omitempty"`
	Deeds          int      `toml:"deeds,omitempty"`  // of each villain that does something again and again, at least
	Ended          int      `toml:"ended,omitempty"`  // links that honest nodes ended for what came on them, at least
	Again          int      `toml:"again,omitempty"`  // streams that clients asked for on another circuit by themselves, at least
	Torn           int      `toml:"torn,omitempty"`   // circuits that clients ended for what came on them, at least; not of clients that are processes
	Counts         Bytes    `toml:"counts,omitempty"` // what a relay counts for in any consensus, a second, at most; 0: not looked at
	Behind         Duration `toml:"behind,omitempty"` // how old the list of an honest relay or a client is, at most, whenever it is looked at; 0: not looked at
	Ready          Duration `toml:"ready,omitempty"`  // from the first list there could be each client is ready within; 0: not looked at
	Says           []Says   `toml:"says,omitempty"`
}

// Says is what a node is to tell its operator: a warning, or worse, that holds a text.
type Says struct {
	Node string `toml:"node"`
	Text string `toml:"text"`
}

// Duration is a length of time, written as 5s or 1h30m.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q: give a time, such as 5s, 200ms or 1h30m", clip(b))
	}
	*d = Duration(v)
	return nil
}

// Bytes is a size, or a rate a second, written as 500, 20kB, 1MiB or 10MB.
type Bytes int64

var units = []struct {
	name string
	n    int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}, {"", 1}}

// mostBytes is the largest size.
const mostBytes = 1 << 50

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

func (b Bytes) String() string {
	for _, u := range units {
		if n := int64(b); n != 0 && n%u.n == 0 && u.n > 1 {
			return strconv.FormatInt(n/u.n, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > mostBytes/u.n {
			break
		}
		*b = Bytes(n * u.n)
		return nil
	}
	return fmt.Errorf("%q: give a size, such as 500, 20kB, 1MiB or 10MB", clip(text))
}

func clip(b []byte) string { return string(b[:min(len(b), 40)]) }

// Default is the network that is run when nothing is said, before Fill: calm, of 5 authorities and 12 relays, with a web server and no load.
func Default() *Plan {
	return &Plan{
		Name: "local", Seed: 1, Length: Duration(time.Minute),
		Weather: Calm, Authorities: 5, Clients: 1, Relays: Relays{Count: 12, Exits: 4},
		Expect: Expect{Complete: 1, ReconnectShare: 1},
	}
}

// Parse reads a file. What it leaves out is as in Default; the error says of all that is wrong on which line it is.
func Parse(text []byte) (*Plan, error) {
	p := Default()
	err := strict.Decode(text, p)
	p.zeros(text)
	p.Fill()
	var found *strict.Error
	var wrong []*strict.Error
	for _, f := range p.Faults() {
		if !errors.As(err, &found) || !slices.ContainsFunc(f.from, found.About) {
			wrong = append(wrong, strict.At(text, f.Key, f.Err).(*strict.Error))
		}
	}
	if err := strict.With(err, wrong); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return p, nil
}

// zeros makes what a file says is 0, and means something else where it is left out, what no value can be: then it is refused and not
// taken for what it does not say.
func (p *Plan) zeros(text []byte) {
	var given struct {
		Period, Voting any
		Load           []map[string]any
	}
	if len(text) > strict.MostBytes || toml.Unmarshal(text, &given) != nil || len(given.Load) != len(p.Loads) {
		return // what it is otherwise is said
	}
	refuse := func(d *Duration, given any) {
		if given != nil && *d == 0 {
			*d = -1
		}
	}
	refuse(&p.Period, given.Period)
	refuse(&p.Voting, given.Voting)
	for i, l := range given.Load {
		q := &p.Loads[i]
		refuse(&q.Timeout, l["timeout"])
		if l["size"] != nil && q.Size == 0 {
			q.Size = -1
		}
		for key, n := range map[string]*int{"count": &q.Count, "at_once": &q.AtOnce, "tries": &q.Tries} {
			if l[key] != nil && *n == 0 {
				*n = -1
			}
		}
	}
}

// Fill gives what was left out and has no default of its own a value: Parse has done it.
func (p *Plan) Fill() {
	period, voting := p.usualTimes()
	if p.Period == 0 {
		p.Period = period
	}
	if p.Voting == 0 {
		p.Voting = voting(p.Period)
	}
	for i := range p.Loads {
		p.Loads[i].fill()
	}
}

func (l *Load) fill() {
	if l.Count == 0 {
		l.Count = 1
	}
	if l.AtOnce == 0 {
		l.AtOnce = 1
	}
	if l.Size == 0 {
		l.Size = 64 << 10
	}
	if l.Timeout == 0 {
		l.Timeout = Duration(time.Minute)
	}
	if l.Tries == 0 {
		l.Tries = 1
	}
}

// Encode writes the plan as a file that Parse reads as the same.
func (p *Plan) Encode() ([]byte, error) {
	var b bytes.Buffer
	e := toml.NewEncoder(&b)
	e.Indent = ""
	if err := e.Encode(p); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return b.Bytes(), nil
}

// Clone is a copy that shares nothing with p.
func (p *Plan) Clone() *Plan {
	c := *p
	c.Relays.Places, c.Expect.Accused = slices.Clone(p.Relays.Places), slices.Clone(p.Expect.Accused)
	c.Expect.Says = slices.Clone(p.Expect.Says)
	c.Relay, c.Weathers, c.Services = slices.Clone(p.Relay), slices.Clone(p.Weathers), slices.Clone(p.Services)
	c.Loads, c.Villains, c.Events = slices.Clone(p.Loads), slices.Clone(p.Villains), slices.Clone(p.Events)
	for i := range c.Events {
		c.Events[i].Nodes = slices.Clone(c.Events[i].Nodes)
	}
	return &c
}
