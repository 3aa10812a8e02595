package link

import (
	"testing"
	"unsafe"
)

// Agree fails unless the accounts of both ends of a link that rests, with nothing on the wire, agree (spec/flow.md, section 7).
func Agree(t *testing.T, a, b *Conn) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(a.circs) != len(b.circs) {
		t.Errorf("%d circuits here, %d there", len(a.circs), len(b.circs))
	}
	for id, x := range a.circs {
		y := b.circs[id]
		if y == nil {
			t.Errorf("circuit %#x is here alone", uint32(id))
			continue
		}
		for range 2 {
			w := &y.window
			owed, _ := w.Owed(plenty)
			if x.queue.n != 0 || w.left != w.recv || w.recv > w.limit || w.limit-w.left > w.size {
				t.Errorf("circuit %#x: %d queued, left %d, received %d, limit %d, size %d", uint32(id), x.queue.n, w.left, w.recv, w.limit, w.size)
			}
			if x.credit != w.limit-w.recv || x.credit+owed != w.size {
				t.Errorf("circuit %#x: credit %d, limit %d, received %d, owed %d, size %d", uint32(id), x.credit, w.limit, w.recv, owed, w.size)
			}
			x, y = y, x
		}
	}
}

// Kept is how many circuits that are gone a link still keeps in its lists.
func Kept(c *Conn) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.owing {
		if x.state != open {
			n++
		}
	}
	for x := c.controls.head; x != nil; x = x.next {
		n++
	}
	return n + c.refused
}

// Closed is how many circuits the links of a budget keep that are closed.
func Closed(b *Budget) int { return int(b.closed.Load()) }

// CircSize is what a circuit takes, in bytes.
const CircSize = int(unsafe.Sizeof(Circ{}))
