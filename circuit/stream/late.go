package stream

import "peel/cell"

// A lateSet knows what may still come on streams that are over. The other end learns of our END only when it gets there;
// if it had only said "done" itself, it may until then have sent WINDOW messages and a reset, and these are no breach
// (spec/stream.md, section 3). Bounded by the number of stream ids, and for accepted streams by the Budget.
type lateSet struct {
	lax     bool                    // there was no memory for them: whatever could be late is let be
	streams map[cell.StreamID]uint8 // how many WINDOW messages
	order   []lateStream            // in the order in which they were over
}

const silent = 0xff // nothing may come any more; far above the number of windows

type lateStream struct {
	id     cell.StreamID
	opened uint64
}

// add notes a stream that is over, and how many streams had been opened then.
func (l *lateSet) add(id cell.StreamID, windows int, opened uint64) {
	if l.streams == nil {
		l.streams = make(map[cell.StreamID]uint8)
	}
	l.streams[id] = uint8(windows)
	if opened > 0 { // at the end that opens streams; the other forgets a stream when its id is used again
		l.order = append(l.order, lateStream{id, opened})
	}
}

func (l *lateSet) has(id cell.StreamID) bool {
	_, ok := l.streams[id]
	return ok
}

// remove forgets one stream: its id is used again, so that what was said before has come.
func (l *lateSet) remove(id cell.StreamID) { delete(l.streams, id) }

// proven forgets the streams that were over when the stream with this number was opened: its BEGIN went behind their
// END, so that an answer to it is behind all that could still come.
func (l *lateSet) proven(number uint64) {
	n := 0
	for n < len(l.order) && l.order[n].opened < number {
		delete(l.streams, l.order[n].id)
		n++
	}
	if n > 0 {
		l.order = append(l.order[:0], l.order[n:]...)
	}
}

// lose forgets all, for want of memory.
func (l *lateSet) lose() { *l = lateSet{lax: true} }

// takeWindow says whether a WINDOW may come, and counts it.
func (l *lateSet) takeWindow(id cell.StreamID) bool {
	n := l.streams[id]
	if n == 0 || n == silent {
		return l.lax
	}
	l.streams[id] = n - 1
	return true
}

// takeReset says whether a reset may come; nothing may after it.
func (l *lateSet) takeReset(id cell.StreamID) bool {
	if n, ok := l.streams[id]; !ok || n == silent {
		return l.lax
	}
	l.streams[id] = silent
	return true
}
