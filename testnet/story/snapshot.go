package story

import (
	"cmp"
	"slices"
	"time"
)

// Snapshot is a network at one moment, with what led to it. It shares nothing with the Story (docs/window.md).
type Snapshot struct {
	Network   string     `json:"network"`
	Ground    string     `json:"ground"`
	Started   time.Time  `json:"started"`
	Now       time.Time  `json:"now"`
	Over      bool       `json:"over"`
	Outcome   *Outcome   `json:"outcome,omitempty"`
	Run       int        `json:"run,omitempty"` // of those that a window shows one after the other
	Pace      string     `json:"pace,omitempty"`
	Paces     []string   `json:"paces,omitempty"` // that can be asked for
	Weather   string     `json:"weather,omitempty"`
	Weathers  []string   `json:"weathers"` // that can be asked for
	Can       []string   `json:"can"`      // Actions.Can
	Nodes     []Node     `json:"nodes"`
	Links     []Link     `json:"links"`
	Circuits  []Circuit  `json:"circuits"` // the oldest first
	Periods   []Period   `json:"periods"`
	Downloads []Download `json:"downloads"`
	Marks     []Mark     `json:"marks"`
	Series    Series     `json:"series"`
	Events    []Event    `json:"events"`
}

// Snapshot is how things are; of the events, those after one, and of these the newest.
func (s *Story) Snapshot(after uint64) Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := Snapshot{
		Network: s.network, Ground: s.ground, Started: s.started, Now: s.now, Over: s.over, Outcome: s.outcome, Weather: s.weather, Weathers: []string{}, Can: []string{},
		Nodes: []Node{}, Links: []Link{}, Circuits: []Circuit{}, Series: s.series.clone(),
		Periods: tail(s.periods, mostPeriods), Downloads: tail(s.downloads, mostDownloads), Marks: tail(s.marks, mostMarks),
	}
	for _, name := range s.order {
		n := s.nodes[name].Node
		n.Flags = slices.Clone(n.Flags)
		v.Nodes = append(v.Nodes, n)
	}
	links := make(map[Link]struct{}, len(s.links))
	for l := range s.links {
		links[l] = struct{}{}
	}
	for _, c := range s.circuits {
		v.Circuits = append(v.Circuits, c.Circuit)
		if c.State == Open || c.State == Closing {
			for i, before := 0, c.Client; i < len(c.Path); i++ {
				links[linked(before, c.Path[i])] = struct{}{}
				before = c.Path[i]
			}
		}
	}
	slices.SortFunc(v.Circuits, func(a, b Circuit) int {
		return cmp.Or(a.Begun.Compare(b.Begun), cmp.Compare(a.Client, b.Client), cmp.Compare(a.ID, b.ID))
	})
	for l := range links {
		v.Links = append(v.Links, l)
	}
	slices.SortFunc(v.Links, func(a, b Link) int { return cmp.Or(cmp.Compare(a.A, b.A), cmp.Compare(a.B, b.B)) })
	i, _ := slices.BinarySearchFunc(s.events, after+1, func(e Event, seq uint64) int { return cmp.Compare(e.Seq, seq) })
	v.Events = tail(s.events[i:], mostShown)
	return v
}

// Lines are the story of one node or circuit, the newest last.
type Lines struct {
	Lines []Event   `json:"lines"`
	Rates []float64 `json:"rates,omitempty"` // of a node: cells a second, in the last spans
}

// OfNode is the story of a node; false: there is none of this name.
func (s *Story) OfNode(name string) (Lines, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.nodes[name]
	if t == nil {
		return Lines{}, false
	}
	return Lines{tail(t.lines, mostLines), tail(t.rates, mostRates)}, true
}

// OfCircuit is the story of the circuit with a key; false: it is not known, or no longer.
func (s *Story) OfCircuit(key string) (Lines, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.circuits[key]
	if c == nil {
		return Lines{}, false
	}
	return Lines{Lines: tail(c.lines, mostLines)}, true
}
