package link

import (
	"cmp"
	"container/heap"
	"slices"
	"time"
)

// mostStanding is how many circuits a look at all of them finds: with many circuits it takes milliseconds, and who fills the memory on
// purpose would have it taken for each that is to end.
const mostStanding = 64

// standing are the circuits whose first cells had waited longest when somebody looked last, and since when. A heap with the one that
// waited least on top while it is made; then the one that waited longest is the last.
type standing struct {
	all   []stands
	looks int // since the budget began
}

type stands struct {
	circ  *Circ
	since time.Duration
}

func (s *standing) Len() int           { return len(s.all) }
func (s *standing) Less(i, j int) bool { return s.all[i].since > s.all[j].since }
func (s *standing) Swap(i, j int)      { s.all[i], s.all[j] = s.all[j], s.all[i] }
func (s *standing) Push(x any)         { s.all = append(s.all, x.(stands)) }
func (s *standing) Pop() any           { return s.take() }

// take takes out the last one.
func (s *standing) take() stands {
	last := len(s.all) - 1
	x := s.all[last]
	s.all[last] = stands{}
	s.all = s.all[:last]
	return x
}

// longest is the circuit whose first cell waits longest; nil: none waits. As the first cell of a circuit is its oldest, none waits longer that
// did not when there was a look, and those that a look found and that stand still are the next. The caller holds mu.
func (b *Budget) longest() *Circ {
	for len(b.line.all) > 0 {
		if x := b.line.take(); x.still() {
			return x.circ
		}
	}
	if b.look(); len(b.line.all) == 0 {
		return nil
	}
	return b.line.take().circ
}

// still says whether the circuit has not moved.
func (x stands) still() bool {
	l := x.circ.conn
	l.mu.Lock()
	defer l.mu.Unlock()
	return x.circ.state == open && x.circ.queue.n > 0 && x.circ.queue.since() == x.since
}

// look finds those that wait longest. The caller holds mu.
func (b *Budget) look() {
	s := &b.line
	s.looks++
	b.eachOf(func(c *Circ) {
		switch {
		case c.queue.n == 0:
		case len(s.all) < mostStanding:
			heap.Push(s, stands{c, c.queue.since()})
		case c.queue.since() < s.all[0].since:
			s.all[0] = stands{c, c.queue.since()}
			heap.Fix(s, 0)
		}
	})
	slices.SortFunc(s.all, func(a, b stands) int { return cmp.Compare(b.since, a.since) })
}
