package guard

import (
	"fmt"
	"time"

	"peel/cell"
)

// What makes a client doubt a guard, and for how long it leaves one (spec/guard.md, sections 6 and 7).
const (
	MostLeft     = 2        // guards that are left at a time
	firstLeave   = 1 * day  // doubled each time, up to
	lastLeave    = 32 * day // and half as much again by chance
	leaveForgive = 60 * day // after its end a leave no longer makes the next one longer
	mostBlamed   = 256      // relays that a doubt remembers
)

// Outcome is what became of a circuit that a guard took. Each says something of other relays as well: what is told of the guard
// is told only where it holds for many of them.
type Outcome uint8

// The outcomes. A circuit has one of the first three, if it was used one of the next two, and if a directory was fetched over it one of the last two.
const (
	NotExtended Outcome = iota // no second relay came to it
	NotBuilt                   // no third
	Built                      // all were there
	Broken                     // it was used, and fell silent or ended before it was to
	Served                     // it was used, and did what it was there for
	Unanswered                 // its last relay took a stream to its directory, and no byte came on it
	Answered                   // some did
)

// step is how an outcome moves one doubt: by how much, and whether the circuit's last relay took part.
type step struct {
	by   int
	exit bool
}

// doubts are four sums, each of one kind of failure. A failure adds one, a success takes more away, and what is below zero is zero: so
// that a sum reaches its limit only while nearly every circuit fails.
var doubts = [...]struct {
	limit int
	steps map[Outcome]step
	text  string
}{
	{12, map[Outcome]step{NotExtended: {1, false}, NotBuilt: {-2, false}, Built: {-2, false}}, "nearly all circuits end before a second relay is there"},
	{24, map[Outcome]step{NotExtended: {1, true}, NotBuilt: {1, true}, Built: {-3, true}}, "nearly no circuit can be built to its end"},
	{24, map[Outcome]step{Broken: {1, true}, Served: {-3, true}}, "nearly all circuits that are used break, or fall silent"},
	{24, map[Outcome]step{Unanswered: {1, true}, Answered: {-3, true}}, "streams open, and nearly no directory that is asked on one gives an answer"},
}

// doubt is one of the sums. It is of the run, and not written.
type doubt struct {
	sum    int
	blamed map[cell.NodeID]int // how much of it each other relay is part of
}

// move adds to the sum or takes from it. No other relay counts for more than a third of the limit: so it takes three at least.
func (d *doubt) move(by, limit int, others ...cell.NodeID) {
	if by < 0 {
		if d.sum = max(0, d.sum+by); d.sum == 0 {
			d.blamed = nil
		}
		return
	}
	for _, o := range others {
		if d.blamed[o] >= limit/3 || d.blamed[o] == 0 && len(d.blamed)+len(others) > mostBlamed {
			return
		}
	}
	if d.blamed == nil {
		d.blamed = make(map[cell.NodeID]int)
	}
	for _, o := range others {
		d.blamed[o]++
	}
	d.sum += by
}

// Judge notes what became of a circuit through a guard, and says whether the guard is in doubt now. It is left only when another
// is found to do better: whoever asks looks for that, and tells by Leave or Clear.
func (s *Set) Judge(id cell.NodeID, o Outcome, middle, exit cell.NodeID, now time.Time) bool {
	m := s.find(id)
	if m == nil || m.left(now) {
		return false
	}
	for i, k := range doubts {
		step, ok := k.steps[o]
		switch {
		case !ok:
		case step.exit:
			m.doubts[i].move(step.by, k.limit, middle, exit)
		default:
			m.doubts[i].move(step.by, k.limit, middle)
		}
	}
	return m.doubtful() != ""
}

// doubtful says why a guard is in doubt; "": it is not.
func (m *member) doubtful() string {
	for i, k := range doubts {
		if m.doubts[i].sum >= k.limit {
			return k.text
		}
	}
	return ""
}

// Doubt says why a guard is in doubt; "": it is not.
func (s *Set) Doubt(id cell.NodeID) string {
	if m := s.find(id); m != nil {
		return m.doubtful()
	}
	return ""
}

// Clear forgets the doubts of a guard: others do no better.
func (s *Set) Clear(id cell.NodeID) {
	if m := s.find(id); m != nil {
		m.doubts = [len(doubts)]doubt{}
	}
}

// left says whether the guard is left now.
func (m *member) left(now time.Time) bool { return now.Before(m.until) }

// Left says whether a guard is left now.
func (s *Set) Left(id cell.NodeID, now time.Time) bool {
	m := s.find(id)
	return m != nil && m.left(now)
}

// Leave has circuits enter by the guards behind one, until the day it says, or until as many others are left as may be. It changes
// neither the set nor its order. false: there is no other, or it is left already.
func (s *Set) Leave(id cell.NodeID, now time.Time, rng func(uint64) uint64) (until time.Time, ok bool) {
	m := s.find(id)
	if m == nil || m.left(now) || len(s.order) < 2 {
		return time.Time{}, false
	}
	if m.leaves > 0 && now.Sub(m.until) >= leaveForgive {
		m.leaves = 0
	}
	d := min(firstLeave<<m.leaves, lastLeave)
	m.leaves = min(m.leaves+1, mostLeaves)
	m.until = toDay(now.Add(d + time.Duration(rng(uint64(d/2))))).Add(day)
	m.state, m.lately = untried, 0
	m.doubts = [len(doubts)]doubt{}
	s.changed = true
	s.takeBack(m, now)
	return m.until, true
}

// takeBack ends the leaves that come to their end first, until as few are left as may be: then those were no worse than others are.
// last is not among them; nil: each may be.
func (s *Set) takeBack(last *member, now time.Time) {
	for {
		var first *member
		n := 0
		for _, m := range s.order {
			if !m.left(now) {
				continue
			}
			if n++; m != last && (first == nil || m.until.Before(first.until)) {
				first = m
			}
		}
		if first == nil || n <= min(MostLeft, len(s.order)-1) {
			return
		}
		first.until = toDay(now)
		s.changed = true
	}
}

// soberLeave ends a leave that is longer than any: it was made by a clock that was wrong.
func (s *Set) soberLeave(m *member, now time.Time) {
	if m.until.Sub(now) > lastLeave+lastLeave/2+2*day {
		m.until, s.changed = toDay(now), true
	}
}

const mostLeaves = 16 // leaves that are counted

// leaves reads and checks how often, and until when, a guard is left.
func (w *written) leaves(m *member) error {
	if w.Leaves < 0 || w.Leaves > mostLeaves || (w.Leaves == 0) != m.until.IsZero() {
		return fmt.Errorf("leaves: %d: must be 0 to %d, and 0 if the guard was never left", w.Leaves, mostLeaves)
	}
	m.leaves = w.Leaves
	return nil
}
