package link

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"unsafe"

	"peel/cell"
)

func numbered(i int) *cell.Cell {
	c := new(cell.Cell)
	binary.BigEndian.PutUint32(c.Body(), uint32(i))
	return c
}

func number(c *cell.Cell) int { return int(binary.BigEndian.Uint32(c.Body())) }

func TestQueueKeepsOrderAndOrigin(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	from := []*Circ{nil, new(Circ), new(Circ)}
	var q queue
	var c cell.Cell
	in, out := 0, 0
	for range 5000 {
		for range rng.IntN(20) {
			q.push(numbered(in), 7, from[in%3], 0)
			in++
		}
		for range rng.IntN(21) {
			if q.n == 0 {
				break
			}
			if got := q.pop(&c); got != from[out%3] || number(&c) != out || c.Circ() != 7 {
				t.Fatalf("cell %d came out as %d, of circuit %d", out, number(&c), c.Circ())
			}
			out++
		}
		if q.n != in-out {
			t.Fatalf("the queue says %d, and holds %d", q.n, in-out)
		}
		if q.n == 0 && q != (queue{}) {
			t.Fatal("an empty queue holds memory")
		}
	}
	if q.drop(); q != (queue{}) {
		t.Error("a dropped queue holds memory")
	}
}

func TestQueueAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool forgets on purpose under the race detector")
	}
	var q queue
	c := numbered(1)
	q.push(c, 1, nil, 0) // stays: the queue is never empty
	if n := testing.AllocsPerRun(1000, func() {
		for range chunkCells {
			q.push(c, 1, nil, 0)
		}
		for range chunkCells {
			q.pop(c)
		}
	}); n != 0 {
		t.Errorf("%v allocations a cell, want 0", n)
	}
	q.drop()
}

// TestQueuesTakeWhatTheBudgetCounts: a cell's part of a chunk, and no more beyond the cells than the slack at both ends.
func TestQueuesTakeWhatTheBudgetCounts(t *testing.T) {
	// The allocator gives memory in classes: that above 11264 bytes is 12288, eight times what is counted.
	if n := unsafe.Sizeof(chunk{}); n <= 11264 || n > chunkCells*queuedSize {
		t.Errorf("a chunk takes %d bytes", n)
	}
	for push := range 40 {
		for pop := range push {
			var q queue
			var c cell.Cell
			for range push {
				q.push(&c, 1, nil, 0)
			}
			for range pop {
				q.pop(&c)
			}
			chunks := 0
			for k := q.head; k != nil; k = k.next {
				chunks++
			}
			if chunks*chunkCells > q.n+queueSlack {
				t.Fatalf("%d pushed, %d popped: %d chunks", push, pop, chunks)
			}
		}
	}
}
