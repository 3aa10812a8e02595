package link

import "math/bits"

// headStart is how many cells a circuit that has been quiet may send before the others get their turn again.
const headStart = 32

// sched says whose cell goes next: a circuit that has been quiet gets a bounded head start, then all take turns
// (spec/flow.md, section 5). In the long run all that want to send get the same share; a newcomer delays each of the
// others by at most headStart cells. It knows no clock. The zero value is ready.
type sched struct {
	now   int64              // V: the latest number that sent
	lists [headStart + 1]run // turns that wait, by at modulo the length: all are within [now+1−headStart, now+1]
	used  uint64             // bit i: lists[i] is not empty
}

// A turn is a circuit's place among those that want to send. Its zero value is that of a newcomer.
type turn struct {
	at      int64 // v: it goes before all with a higher number
	next    *turn
	waiting bool
	circ    *Circ
}

// A run is a queue of turns with the same number, oldest first.
type run struct{ head, tail *turn }

// Add lets t wait for its turn, if it does not already.
func (s *sched) Add(t *turn) {
	if t.waiting {
		return
	}
	t.at = max(t.at, s.now+1-headStart)
	t.waiting, t.next = true, nil
	i := s.list(t.at)
	l := &s.lists[i]
	if l.tail == nil {
		l.head = t
	} else {
		l.tail.next = t
	}
	l.tail = t
	s.used |= 1 << i
}

// Next takes out whoever goes next; nil: nobody wants to send. It is for the caller to say that a cell was Sent, and to
// Add it again if it has more.
func (s *sched) Next() *turn {
	if s.used == 0 {
		return nil
	}
	// The lists from that of now+1−headStart on, in order, are used rotated.
	first := s.list(s.now + 1 - headStart)
	rotated := s.used>>first | s.used<<(uint(len(s.lists))-first)
	i := (first + uint(bits.TrailingZeros64(rotated))) % uint(len(s.lists))
	l := &s.lists[i]
	t := l.head
	if l.head = t.next; l.head == nil {
		l.tail = nil
		s.used &^= 1 << i
	}
	t.waiting, t.next = false, nil
	return t
}

// Sent notes that t, which Next returned, sent a cell.
func (s *sched) Sent(t *turn) {
	s.now = max(s.now, t.at)
	t.at++
}

// list is the list of the turns numbered at.
func (s *sched) list(at int64) uint {
	return uint((at + headStart) % int64(len(s.lists))) // at > −headStart
}
