package guard

import (
	"fmt"

	"peel/cell"
)

// Counts are what became of the circuits through a guard. They are halved when there are many, so that what was long ago
// counts less.
type Counts struct {
	Tried   int // circuits that the guard took
	Built   int // of these, those that were built to the end
	Used    int // circuits on which a stream was tried
	Carried int // of these, those that carried one
}

// When counts are halved, and from where on they say something (spec/guard.md, section 6).
const (
	halveAt  = 300
	enough   = 150 // circuits tried
	enoughOf = 30  // circuits used
)

// bias is how badly circuits through a guard fare.
type bias int

const (
	biasNone bias = iota
	biasNote
	biasWarn
	biasExtreme
)

// Note counts a circuit. built and used say how far it came; each circuit is noted once when it is built or has failed
// beyond the guard, and once when its first stream succeeded or the circuit failed it.
func (s *Set) Note(id cell.NodeID, tried, built, used, carried bool) {
	m := s.find(id)
	if m == nil {
		return
	}
	c := &m.counts
	add := func(n *int, yes bool) {
		if yes {
			*n++
		}
	}
	add(&c.Tried, tried)
	add(&c.Built, built)
	add(&c.Used, used)
	add(&c.Carried, carried)
	if c.Tried > halveAt || c.Used > halveAt {
		*c = Counts{c.Tried / 2, c.Built / 2, c.Used / 2, c.Carried / 2}
	}
}

// bias judges counts. What is below a level for long happens by chance less than once in a million guards at the failure
// rates of an honest network (a tenth of the circuits).
func (c Counts) bias() (bias, string) {
	level := func(part, of, least int, limits [3]int) bias {
		b := biasNone
		for i, percent := range limits {
			if of >= least && 100*part < percent*of {
				b = bias(i + 1)
			}
		}
		return b
	}
	built := level(c.Built, c.Tried, enough, [3]int{70, 50, 30})
	used := level(c.Carried, c.Used, enoughOf, [3]int{80, 70, 60})
	switch {
	case built == biasNone && used == biasNone:
		return biasNone, ""
	case built >= used:
		return built, fmt.Sprintf("of %d circuits that it took, %d could be built", c.Tried, c.Built)
	}
	return used, fmt.Sprintf("of %d circuits that were used, %d carried anything", c.Used, c.Carried)
}

// Warning says of a guard, once a level, that too many circuits through it fail: it may drop those that go on by relays it
// does not know. serious: it is well beyond what an overloaded relay does. "": there is nothing to say.
func (s *Set) Warning(id cell.NodeID) (text string, serious bool) {
	m := s.find(id)
	if m == nil {
		return "", false
	}
	b, text := m.counts.bias()
	if b <= m.told {
		if b == biasNone {
			m.told = biasNone
		}
		return "", false
	}
	m.told = b
	return text, b >= biasWarn
}
