package relay

import (
	"sync"

	"peel/cell/link"
)

// waiting holds the CREATEs that no worker has taken yet: those of one link in order, the links by turns, so that a
// link that floods waits behind itself. When it is full, the link that has most in it loses its newest.
type waiting struct {
	most int

	mu     sync.Mutex
	some   sync.Cond // there is one, or no more will be
	lines  map[*link.Conn]*line
	turns  []*line // those of lines, in turn; none is empty
	n      int
	closed bool
}

// line is what waits of one link, in order.
type line struct {
	from *link.Conn
	all  []*handshake
}

func newWaiting(most int) *waiting {
	w := &waiting{most: most, lines: make(map[*link.Conn]*line)}
	w.some.L = &w.mu
	return w
}

// push adds a CREATE that came on a link, and returns the one there is no room for: h itself, another's, or nil.
func (w *waiting) push(from *link.Conn, h *handshake) (shed *handshake) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return h
	}
	own := w.lines[from]
	if w.n >= w.most {
		worst := own
		for _, l := range w.turns {
			if worst == nil || len(l.all) > len(worst.all) {
				worst = l
			}
		}
		if worst == nil || worst == own || len(worst.all) == 1 {
			return h
		}
		last := len(worst.all) - 1
		shed, worst.all[last] = worst.all[last], nil
		worst.all = worst.all[:last]
		w.n--
	}
	if own == nil {
		own = &line{from: from}
		w.lines[from] = own
		w.turns = append(w.turns, own)
	}
	own.all = append(own.all, h)
	w.n++
	w.some.Signal()
	return shed
}

// pop waits for the next CREATE; nil: there will be none.
func (w *waiting) pop() *handshake {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.n == 0 && !w.closed {
		w.some.Wait()
	}
	if w.closed {
		return nil
	}
	l := w.turns[0]
	w.turns[0] = nil
	w.turns = w.turns[1:]
	h := l.all[0]
	l.all[0] = nil
	l.all = l.all[1:]
	w.n--
	if len(l.all) > 0 {
		w.turns = append(w.turns, l)
	} else {
		delete(w.lines, l.from)
	}
	return h
}

// close lets the workers go and takes no more. What waits goes with its links.
func (w *waiting) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.some.Broadcast()
}
