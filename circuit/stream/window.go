package stream

import "time"

// A recvWindow is what the other end may send on a stream. It is granted in advance and moves when the reader has taken
// a quarter of it; it doubles when a quarter came within one round trip and was taken within one (spec/stream.md,
// section 4).
type recvWindow struct {
	size        uint64 // how far the limit is ahead of what was taken, when it is set
	limit       uint64 // bytes the other end may have sent in all
	came, taken uint64
	mark        uint64    // what had come when since was
	since       time.Time // when the quarter that is coming began
	fast        bool      // the last quarter came within one round trip
	granted     time.Time // when the limit was set
}

// received counts n bytes in; false: the other end had no leave for them. now is asked once a quarter.
func (w *recvWindow) received(n int, now func() time.Time, rtt time.Duration) bool {
	w.came += uint64(n)
	if w.came > w.limit {
		return false
	}
	if w.came-w.mark >= w.size/4 {
		t := now()
		w.fast = t.Sub(w.since) <= rtt
		w.mark, w.since = w.came, t
	}
	return true
}

// due says whether enough was taken for the limit to move.
func (w *recvWindow) due() bool { return w.taken+w.size-w.limit >= w.size/4 }

// begin says that the stream is open: from now on the other end sends.
func (w *recvWindow) begin(now time.Time) { w.since, w.granted = now, now }

// grant moves the limit, and returns it.
func (w *recvWindow) grant(now time.Time, rtt time.Duration, most uint64) uint64 {
	if w.fast && now.Sub(w.granted) <= rtt && 2*w.size <= most {
		w.size *= 2
	}
	w.granted, w.fast = now, false
	w.limit = w.taken + w.size
	return w.limit
}

// A sendWindow is what this end may send on a stream.
type sendWindow struct {
	limit, sent uint64
	updates     uint64 // WINDOW messages that came
}

// update takes the limit of a WINDOW message, and says what is wrong with it: each raises the limit by a quarter of the
// initial window at least, for as much that was sent and taken, and by no more than the largest window allows.
func (w *sendWindow) update(limit uint64) string {
	w.updates++
	switch {
	case limit < w.limit || limit-w.limit < quarter:
		return "raises the limit by less than a quarter of the initial window"
	case limit > w.sent+MaxWindow:
		return "grants more than the largest window"
	case w.updates*quarter > w.sent:
		return "comes before a quarter of the initial window was sent"
	}
	w.limit = limit
	return ""
}

// lateWindows is how many WINDOW messages may still be on their way when the stream is over.
func (w *sendWindow) lateWindows() int {
	return int(min(w.sent/quarter-w.updates, MaxWindow/quarter))
}
