package link

// headStart is how many cells a circuit that has been quiet may send before it waits for its turn (spec/flow.md, section 4).
const headStart = 32

// turns is how many values an entry's turn can have: from now − headStart to now + 1.
const turns = headStart + 2

// sched says whose cell goes next. Each circuit has a turn, the scheduler its own, now: a circuit that becomes sendable is at
// most headStart behind it, the least turn goes first (ties: the oldest), and each cell moves the circuit's turn on by one.
// So quiet circuits go first for a bounded number of cells, then all take turns; nobody starves. There is no clock, and
// every step takes constant time.
type sched struct {
	now   int64
	lists [turns]list // by turn modulo turns
	count int
}

// entry is a circuit's place in the scheduler.
type entry struct {
	turn int64
	next *entry
	in   bool
	circ *Circ
}

type list struct{ first, last *entry }

// add makes an entry wait for its turn, if it does not already.
func (s *sched) add(e *entry) {
	if e.in {
		return
	}
	e.turn = max(e.turn, s.now-headStart)
	e.in, e.next = true, nil
	l := &s.lists[uint64(e.turn)%turns]
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
	s.count++
}

// take returns the entry whose turn it is, having counted its cell, and forgets it until it is added again; nil: none waits.
func (s *sched) take() *entry {
	if s.count == 0 {
		return nil
	}
	for turn := s.now - headStart; ; turn++ { // finds one: every turn lies from now − headStart to now + 1
		l := &s.lists[uint64(turn)%turns]
		if l.first == nil {
			continue
		}
		e := l.first
		l.first = e.next
		if l.first == nil {
			l.last = nil
		}
		s.count--
		e.in, e.next = false, nil
		s.now = max(s.now, e.turn)
		e.turn++
		return e
	}
}
