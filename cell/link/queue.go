package link

import (
	"sync"

	"peel/cell"
)

// chunkCells is how many cells a queue takes memory for at a time.
const chunkCells = 8

// chunk is a part of a queue.
type chunk struct {
	cells     [chunkCells]cell.Cell
	forwarded [chunkCells]bool // came in on the circuit's source, whose credit returns when it has been written
	begin, n  int              // the cells from begin to n wait
	next      *chunk
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// queue holds the cells of one circuit that wait for the link. Its bound is its owner's: see Circ.Send and Circ.Forward.
type queue struct {
	first, last *chunk
	n           int
}

// push copies cells in.
func (q *queue) push(cells []cell.Cell, id cell.CircID, forwarded bool) {
	q.n += len(cells)
	for len(cells) > 0 {
		if q.last == nil || q.last.n == chunkCells {
			c := chunks.Get().(*chunk)
			c.begin, c.n, c.next = 0, 0, nil
			if q.last == nil {
				q.first = c
			} else {
				q.last.next = c
			}
			q.last = c
		}
		c := q.last
		k := copy(c.cells[c.n:], cells)
		for i := c.n; i < c.n+k; i++ {
			c.cells[i].SetCirc(id)
			c.forwarded[i] = forwarded
		}
		c.n += k
		cells = cells[k:]
	}
}

// pop copies the first cell to where it goes and says whether it was forwarded. The queue is not empty.
func (q *queue) pop(to *cell.Cell) (forwarded bool) {
	c := q.first
	*to = c.cells[c.begin]
	forwarded = c.forwarded[c.begin]
	c.begin++
	q.n--
	if c.begin == c.n {
		q.first = c.next
		if q.first == nil {
			q.last = nil
		}
		chunks.Put(c)
	}
	return forwarded
}

// drop empties the queue.
func (q *queue) drop() {
	for c := q.first; c != nil; {
		next := c.next
		chunks.Put(c)
		c = next
	}
	*q = queue{}
}
