package relay

import "sync"

// A job is a key exchange that waits for a worker: of a CREATE, or of a link. Its place is a peer's.
type job struct {
	place
	do    func()      // by a worker
	gone  func() bool // says that nobody waits for it any more; nil: somebody does
	kept  bool        // another authority asks for it: it has a place of that one's own
	nth   uint64      // of all that were pushed
	drop  func()      // ends it where that is so, or a bug kept it from being done: as lose does for want of a place
	whole bool        // set by do: a circuit's key exchange came to its end
}

// keptOfVoter is how many jobs of another authority, known by its link key or only by its address, have places of its own.
const keptOfVoter = 16

// waiting holds the jobs that no worker has taken yet: those of one peer in order, the peers by turns, so that a peer that
// floods waits behind itself. A peer with a weight has so many at its turn. Every other job is the first of a peer that had none
// waiting: so those who ask for little need not wait for a turn of all who ask for much, nor these for ever. When all places are taken, whoever has most for
// his weight, the newcomer included, loses his oldest: the one for which the wait has been longest, and may be in vain. Jobs that are kept
// have other places, of which each peer has a few, and go before all others, but for every other time; among themselves in the order in which
// they came, so that no authority waits for another that floods.
type waiting struct {
	mu     sync.Mutex
	some   sync.Cond // there is one, or no more will be
	places *crowd
	kept   *crowd
	jobs   map[*place]*job
	fresh  []*holder // those of places that had no job done since they came, in order
	turns  []*holder // the others, in turn
	odd    bool      // the last was one of turns
	before bool      // the last was one that is kept
	pushed uint64    // how many were
	closed bool
}

// newWaiting has places for so many jobs, and for those that are kept of so many peers.
func newWaiting(most, peers int) *waiting {
	w := &waiting{places: newCrowd(most, 0), kept: newCrowd(keptOfVoter*peers, keptOfVoter), jobs: make(map[*place]*job)}
	w.places.oldest, w.kept.oldest = true, true
	w.some.L = &w.mu
	return w
}

// sated says whether a client has so many jobs here that one more is better refused: else those who flood would take places from each
// other without end, each with a message to another link. A relay's, which are of many people, rather lose the oldest.
func (w *waiting) sated(o owner) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return o.weight <= 1 && w.places.sated(o)
}

// push adds a job, and returns the one there is no room for: j itself, another, or nil.
func (w *waiting) push(j *job) (shed *job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return j
	}
	places := w.places
	if j.kept {
		places, j.free = w.kept, false
	}
	p, ok := places.enter(&j.place)
	if !ok {
		return j
	}
	if p != nil {
		shed = w.jobs[p]
		delete(w.jobs, p)
	}
	w.jobs[&j.place] = j
	w.pushed++
	j.nth = w.pushed
	if h := j.in; h.turn == 0 && !j.kept { // it has just come
		h.turn = 1
		w.fresh = append(w.fresh, h)
	}
	w.some.Signal()
	return shed
}

// pop waits for the next job; nil: there will be none.
func (w *waiting) pop() *job {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.places.n+w.kept.n == 0 && !w.closed {
		w.some.Wait()
	}
	if w.closed {
		return nil
	}
	if w.before = w.kept.n > 0 && !(w.before && w.places.n > 0); w.before {
		return w.take(w.kept, w.eldest())
	}
	line := &w.fresh
	if w.odd = len(w.fresh) == 0 || len(w.turns) > 0 && !w.odd; w.odd {
		line = &w.turns
	}
	h := (*line)[0] // who is in line has some
	j := w.take(w.places, h.first)
	if h.turn--; h.turn == 0 || h.n == 0 {
		(*line)[0] = nil
		*line = (*line)[1:]
		if h.n > 0 {
			h.turn = h.weight
			w.turns = append(w.turns, h)
		}
	}
	return j
}

// eldest is the place, of those that are kept, whose job came first. The caller holds mu, and there is one.
func (w *waiting) eldest() (p *place) {
	for _, h := range w.kept.rank {
		if p == nil || w.jobs[h.first].nth < w.jobs[p].nth {
			p = h.first
		}
	}
	return p
}

// take takes a job out of its place. The caller holds mu.
func (w *waiting) take(from *crowd, p *place) *job {
	j := w.jobs[p]
	delete(w.jobs, p)
	from.leave(p)
	return j
}

// len is how many jobs wait.
func (w *waiting) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.places.n + w.kept.n
}

// most is how many may wait.
func (w *waiting) most() int { return w.places.most + w.kept.most }

// close lets the workers go and takes no more. It returns what waits.
func (w *waiting) close() (left []*job) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.some.Broadcast()
	for _, j := range w.jobs {
		left = append(left, j)
	}
	clear(w.jobs)
	return left
}
