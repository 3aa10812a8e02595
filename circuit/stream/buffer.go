package stream

import (
	"net"
	"sync"
)

const chunkSize = 8 << 10

// A chunk is a piece of what waits to be read.
type chunk struct {
	next *chunk
	r, w int // read to, written to
	data [chunkSize]byte
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

func freeChunk(c *chunk) {
	c.next, c.r, c.w = nil, 0, 0
	chunks.Put(c)
}

// A buffer is what waits to be read of one stream. It takes memory for what is in it, in chunks, and its owner bounds it.
type buffer struct {
	head, tail *chunk
	len        int
}

func (b *buffer) write(p []byte) {
	b.len += len(p)
	for len(p) > 0 {
		if b.tail == nil || b.tail.w == chunkSize {
			c := chunks.Get().(*chunk)
			if b.tail == nil {
				b.head = c
			} else {
				b.tail.next = c
			}
			b.tail = c
		}
		n := copy(b.tail.data[b.tail.w:], p)
		b.tail.w += n
		p = p[n:]
	}
}

func (b *buffer) read(p []byte) int {
	total := 0
	for len(p) > 0 && b.head != nil {
		c := b.head
		n := copy(p, c.data[c.r:c.w])
		c.r += n
		p = p[n:]
		total += n
		if c.r < c.w {
			break
		}
		b.head = c.next
		if b.head == nil {
			b.tail = nil
		}
		freeChunk(c)
	}
	b.len -= total
	return total
}

// take moves out up to most chunks, and says how many bytes are in them.
func (b *buffer) take(most int) (first *chunk, n int) {
	first = b.head
	var last *chunk
	for c := first; c != nil && most > 0; c = c.next {
		n += c.w - c.r
		last = c
		most--
	}
	if last == nil {
		return nil, 0
	}
	b.head = last.next
	last.next = nil
	if b.head == nil {
		b.tail = nil
	}
	b.len -= n
	return first, n
}

// drop empties the buffer.
func (b *buffer) drop() {
	first, _ := b.take(1 << 30)
	freeChunks(first)
}

// slices lists what is in the chunks.
func slices(first *chunk, to net.Buffers) net.Buffers {
	for c := first; c != nil; c = c.next {
		to = append(to, c.data[c.r:c.w])
	}
	return to
}

func freeChunks(c *chunk) {
	for c != nil {
		next := c.next
		freeChunk(c)
		c = next
	}
}
