package link

import (
	"sync"
	"time"

	"peel/cell"
)

// chunkCells is how many cells a chunk holds: a circuit with one cell waiting occupies 11 KiB, one without nothing.
const chunkCells = 8

// A chunk is a piece of a queue. The pointers stand first, so that the garbage collector does not look at the cells.
type chunk struct {
	next  *chunk
	from  [chunkCells]*Circ
	since [chunkCells]time.Duration // when it was queued
	cells [chunkCells]cell.Cell
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// A queue holds the cells of a circuit that wait to leave, in order, each with the circuit it came in on; nil: it began
// here. It bounds nothing itself: what may be in it was granted to somebody.
type queue struct {
	head, tail *chunk
	first, end int // of the first cell in head; behind the last one in tail
	n          int
}

// push appends a copy of c as a cell of circuit id, queued now.
func (q *queue) push(c *cell.Cell, id cell.CircID, from *Circ, now time.Duration) {
	if q.tail == nil || q.end == chunkCells {
		k := chunks.Get().(*chunk)
		if q.tail == nil {
			q.head, q.first = k, 0
		} else {
			q.tail.next = k
		}
		q.tail, q.end = k, 0
	}
	to := &q.tail.cells[q.end]
	copy(to[:], c[:]) // not *to = *c: that is compiled to REP MOVSQ, which takes twice as long
	to.SetCirc(id)
	q.tail.from[q.end], q.tail.since[q.end] = from, now
	q.end++
	q.n++
}

// since is when the first cell was queued. The queue must not be empty.
func (q *queue) since() time.Duration { return q.head.since[q.first] }

// pop moves the first cell to c. The queue must not be empty.
func (q *queue) pop(c *cell.Cell) (from *Circ) {
	k := q.head
	copy(c[:], k.cells[q.first][:])
	from, k.from[q.first] = k.from[q.first], nil
	q.first++
	q.n--
	switch {
	case q.n == 0:
		q.drop()
	case q.first == chunkCells:
		q.head, q.first = k.next, 0
		k.next = nil
		chunks.Put(k)
	}
	return from
}

// drop forgets what is queued.
func (q *queue) drop() {
	for k := q.head; k != nil; {
		next := k.next
		k.next = nil
		clear(k.from[:])
		chunks.Put(k)
		k = next
	}
	*q = queue{}
}
