package stream

// A queue is a list of streams that wait for their turn. A stream is in it at most once, so it is bounded by the number
// of streams.
type queue struct {
	head, tail *Stream
	place      func(*Stream) *place
}

// A place is where in a queue a stream stands.
type place struct {
	prev, next *Stream
	in         bool
}

// push puts s at the end, and says whether it was not in the queue before.
func (q *queue) push(s *Stream) bool {
	p := q.place(s)
	if p.in {
		return false
	}
	*p = place{prev: q.tail, in: true}
	if q.tail == nil {
		q.head = s
	} else {
		q.place(q.tail).next = s
	}
	q.tail = s
	return true
}

// pop takes the first stream; nil: there is none.
func (q *queue) pop() *Stream {
	s := q.head
	if s != nil {
		q.remove(s)
	}
	return s
}

// remove takes s out, if it is in.
func (q *queue) remove(s *Stream) {
	p := q.place(s)
	if !p.in {
		return
	}
	if p.prev == nil {
		q.head = p.next
	} else {
		q.place(p.prev).next = p.next
	}
	if p.next == nil {
		q.tail = p.prev
	} else {
		q.place(p.next).prev = p.prev
	}
	*p = place{}
}
