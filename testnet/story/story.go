// Package story keeps what happens in a test network, within bounds, for those who watch it: a page, a terminal, a report.
//
// Whoever runs the network tells the Story of it: its nodes, links and circuits, the periods of its directory, downloads, events, running
// totals, and, once a second of its own clock, Sample. The package has no clock, socket or goroutine: times are arguments, so that a run in
// virtual time has a story as any other. All methods may be called by any goroutine. What is full drops the oldest (spec/queues.md, section 7).
package story

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of a Story.
const (
	mostNodes     = 4096 // more are not shown
	mostLinks     = 8192
	mostEvents    = 2000
	mostShown     = 500 // events in one Snapshot
	mostOpen      = 512 // circuits that are not over, of all clients
	mostOver      = 64  // circuits that are over
	mostLines     = 40  // of the story of one node or circuit
	mostPeriods   = 40
	mostDownloads = 200
	mostMarks     = 200
	mostText      = 400 // bytes of a text
	mostPurpose   = 40  // and of what a circuit is for
	mostOutcome   = 8000
)

// Roles of a node.
const (
	Authority = "authority"
	Relay     = "relay"
	Client    = "client"
	Server    = "server" // a destination outside the network
)

// States of a node.
const (
	Starting = "starting"
	Up       = "up"
	Frozen   = "frozen" // runs, and does nothing
	Silent   = "silent" // runs, and does not say how it is
	Down     = "down"
)

// States of a circuit.
const (
	Building = "building"
	Open     = "open"
	Closing  = "closing" // takes no more streams
	Closed   = "closed"
	Failed   = "failed" // was never open
)

// Kinds of events. An engine may have others: they are shown as they are.
const (
	OfStart     = "start"
	OfNode      = "node"
	OfCircuit   = "circuit"
	OfDirectory = "directory"
	OfDownload  = "download"
	OfWeather   = "weather"
	OfVillain   = "villain"
	OfInvariant = "invariant" // one is broken
	OfHand      = "hand"      // somebody who watches did something
)

// Event is something that happened.
type Event struct {
	Seq     uint64    `json:"seq"` // numbers all events, from 1; given by Tell
	At      time.Time `json:"at"`
	Node    string    `json:"node,omitempty"`    // whose it is
	Circuit string    `json:"circuit,omitempty"` // the key of a Circuit
	Kind    string    `json:"kind"`
	Text    string    `json:"text"`
}

// Node is one node of the network, or what it reaches.
type Node struct {
	Name      string   `json:"name"`
	Role      string   `json:"role"`
	Place     string   `json:"place,omitempty"` // where on earth, or in the network
	Addr      string   `json:"addr,omitempty"`
	Flags     []string `json:"flags,omitempty"`     // of the newest consensus: Guard, Exit, ...
	Bandwidth uint64   `json:"bandwidth,omitempty"` // bytes a second, as the consensus has it; 0: unknown
	State     string   `json:"state"`
	Villain   string   `json:"villain,omitempty"` // what it does that no honest node does
	Cells     uint64   `json:"cells"`             // carried, both ways, since it was started; given by Carried
	Rate      float64  `json:"rate"`              // cells a second, in the last span; given by Sample
}

// Link is one between two nodes, in either direction.
type Link struct {
	A string `json:"a"`
	B string `json:"b"`
}

// Circuit is a circuit as its client sees it.
type Circuit struct {
	Key      string     `json:"key"`    // client and ID: "client/7"; given by the Story
	Client   string     `json:"client"` // a node
	ID       uint64     `json:"id"`
	Path     []string   `json:"path"` // nodes, the first hop first
	State    string     `json:"state"`
	Purpose  string     `json:"purpose,omitempty"`
	Streams  int        `json:"streams"`
	Sent     uint64     `json:"sent"` // cells, away from the client
	Received uint64     `json:"received"`
	Out      float64    `json:"out"` // cells a second away from the client, in the last span; given by Sample
	In       float64    `json:"in"`
	Begun    time.Time  `json:"begun"`
	Ended    *time.Time `json:"ended,omitempty"`
	Why      string     `json:"why,omitempty"` // it ended
}

// Period is one period of the directory. Names are those of authorities.
type Period struct {
	ValidAfter time.Time `json:"valid_after"`
	Phase      string    `json:"phase"` // voting, signing, or whatever the authorities call it; "done" when it is over
	Votes      []string  `json:"votes"`
	Signatures []string  `json:"signatures"`
	Differ     []string  `json:"differ,omitempty"` // signed something else
	Twice      []string  `json:"twice,omitempty"`  // of whom two votes came: neither counts
	Needed     int       `json:"needed"`           // signatures
	Of         int       `json:"of"`               // authorities
	Digest     string    `json:"digest,omitempty"`
}

// Made says whether the period has a consensus.
func (p *Period) Made() bool { return p.Needed > 0 && len(p.Signatures) >= p.Needed }

// Download is one that went through the network.
type Download struct {
	At        time.Time     `json:"at"` // its end
	Client    string        `json:"client"`
	Path      []string      `json:"path,omitempty"`
	Bytes     int64         `json:"bytes"`
	FirstByte time.Duration `json:"first_byte_ns"` // from the request; 0: none came
	Took      time.Duration `json:"took_ns"`
	Err       string        `json:"error,omitempty"`
}

// Outcome is what came of a run.
type Outcome struct {
	Well bool   `json:"well"` // what was expected came, and what must always hold did
	Text string `json:"text"`
}

// Mark is a moment that belongs beside the curves: a change of weather, a node that was killed.
type Mark struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"`
	Text string    `json:"text"`
}

// Actions are what those who watch may do. nil: this run cannot. They are called by any goroutine and return when it is done.
type Actions struct {
	Kill, Freeze, Restore func(node string) error
	SetWeather            func(name string) error
	Weathers              []string     // what SetWeather takes
	Fetch                 func() error // a download through the network, so that there is something to see
	SetPace               func(name string) error
	Paces                 []string      // what SetPace takes: of a run in virtual time, how fast it goes
	Pace                  func() string // which of them it is
}

// Can names the actions that there are.
func (a Actions) Can() []string {
	can := []string{}
	for name, there := range map[string]bool{"kill": a.Kill != nil, "freeze": a.Freeze != nil, "restore": a.Restore != nil, "fetch": a.Fetch != nil, "weather": a.SetWeather != nil, "pace": a.SetPace != nil} {
		if there {
			can = append(can, name)
		}
	}
	slices.Sort(can)
	return can
}

// Story is made by New.
type Story struct {
	mu        sync.Mutex
	network   string
	ground    string
	started   time.Time
	now       time.Time
	over      bool
	outcome   *Outcome
	weather   string
	seq       uint64
	events    []Event // the newest last
	nodes     map[string]*told
	order     []string // of nodes, as they came
	links     map[Link]struct{}
	circuits  map[string]*followed
	past      []string // keys of circuits that are over, the oldest first
	periods   []Period
	downloads []Download
	marks     []Mark
	series    series
}

// told is a node and its own story.
type told struct {
	Node
	lines []Event
	rates []float64 // of the last spans
	cells counter
}

// followed is a circuit and its own story.
type followed struct {
	Circuit
	lines     []Event
	sent, got counter
	missed    int // lists in a row that it was not in
}

// New begins the story of a network at a time. Ground is how it runs, in a few words: "in one process".
func New(network, ground string, at time.Time) *Story {
	s := &Story{
		network: network, ground: ground, started: at, now: at, nodes: map[string]*told{}, links: map[Link]struct{}{}, circuits: map[string]*followed{},
	}
	s.series.begin(at)
	return s
}

// Tell adds an event, to the stories of its node and its circuit as well.
func (s *Story) Tell(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell(e)
}

func (s *Story) tell(e Event) {
	s.seq++
	e.Seq, e.Text = s.seq, cut(e.Text, mostText)
	s.events = keep(append(s.events, e), mostEvents)
	if n := s.nodes[e.Node]; n != nil {
		n.lines = keep(append(n.lines, e), mostLines)
	}
	c := s.circuits[e.Circuit]
	if c == nil {
		return
	}
	c.lines = keep(append(c.lines, e), mostLines)
	if c.State == Building {
		return
	}
	for _, name := range c.Path { // it is a part of their stories too
		if n := s.nodes[name]; n != nil {
			n.lines = keep(append(n.lines, e), mostLines)
		}
	}
}

// keep drops the oldest of what is more than n; that some more stay for a while saves moving all of them each time.
func keep[T any](all []T, n int) []T {
	if len(all) > n+n/4 {
		all = slices.Delete(all, 0, len(all)-n)
	}
	return all
}

// tail is a copy of the last n, and never nil.
func tail[T any](all []T, n int) []T { return append([]T{}, all[max(0, len(all)-n):]...) }

// cut makes a text fit into so many bytes, at a whole character.
func cut(text string, most int) string {
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// Node adds a node, or changes what was said of one of this name. What Carried and Sample say of it stays.
func (s *Story) Node(n Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.nodes[n.Name]
	if t == nil {
		if len(s.nodes) >= mostNodes {
			return
		}
		t = new(told)
		s.nodes[n.Name] = t
		s.order = append(s.order, n.Name)
	}
	n.Cells, n.Rate = t.Cells, t.Rate
	n.Flags = slices.Clone(n.Flags)
	t.Node = n
}

// Change changes a node; nothing happens where there is none of this name, or after the end. The func must not keep or call anything.
func (s *Story) Change(name string, change func(*Node)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.nodes[name]; t != nil && !s.over {
		change(&t.Node)
		t.Name = name
	}
}

// State sets the state of a node.
func (s *Story) State(name, state string) { s.Change(name, func(n *Node) { n.State = state }) }

// Link says that two nodes are linked, or no longer. Links of open circuits are there without it.
func (s *Story) Link(a, b string, there bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := linked(a, b)
	if !there {
		delete(s.links, l)
	} else if len(s.links) < mostLinks {
		s.links[l] = struct{}{}
	}
}

// Unlink says that a node has no links any longer.
func (s *Story) Unlink(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.links, func(l Link, _ struct{}) bool { return l.A == node || l.B == node })
}

func linked(a, b string) Link { return Link{min(a, b), max(a, b)} }

// Period says how far a period of the directory came.
func (s *Story) Period(p Period) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.Votes, p.Signatures, p.Differ, p.Twice = named(p.Votes), named(p.Signatures), named(p.Differ), named(p.Twice)
	i, there := slices.BinarySearchFunc(s.periods, p.ValidAfter, func(p Period, at time.Time) int { return p.ValidAfter.Compare(at) })
	if there {
		s.periods[i] = p
		return
	}
	s.periods = keep(slices.Insert(s.periods, i, p), mostPeriods)
}

// named is a copy, and never nil.
func named(names []string) []string { return append([]string{}, names...) }

// Downloaded tells of a download, whether it came to its end or not.
func (s *Story) Downloaded(d Download) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.Path, d.Err = slices.Clone(d.Path), cut(d.Err, mostText)
	s.downloads = keep(append(s.downloads, d), mostDownloads)
	s.series.downloaded(d)
}

// Mark puts a mark beside the curves.
func (s *Story) Mark(m Mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mark(m)
}

func (s *Story) mark(m Mark) {
	m.Text = cut(m.Text, mostText)
	s.marks = keep(append(s.marks, m), mostMarks)
}

// Weather says what the weather is from now on, marks and tells it.
func (s *Story) Weather(at time.Time, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.weather == name {
		return
	}
	s.weather = name
	s.mark(Mark{at, OfWeather, name})
	s.tell(Event{At: at, Kind: OfWeather, Text: "the weather is " + name})
}

// Villain says what a node does that no honest one does; "": it has become honest.
func (s *Story) Villain(at time.Time, node, does string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.nodes[node]
	if t == nil || t.Villain == does {
		return
	}
	t.Villain = does
	text := "is a villain: " + does
	if does == "" {
		text = "is honest again"
	}
	s.mark(Mark{at, OfVillain, node + " " + text})
	s.tell(Event{At: at, Node: node, Kind: OfVillain, Text: text})
}

// Conclude says what came of the run, in some lines, and whether that is what was expected.
func (s *Story) Conclude(well bool, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(text) > mostOutcome {
		text = strings.ToValidUTF8(text[:mostOutcome], "") + "…"
	}
	s.outcome = &Outcome{Well: well, Text: text}
}

// End says that the run is over: nodes and circuits stay as they are, whatever is told of them.
func (s *Story) End(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over, s.now = true, at
}
