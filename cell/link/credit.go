package link

import "time"

const (
	relayBase   = 64      // cells a relay grants on a new circuit and direction: 90 KB, an ordinary object at once
	clientBase  = 1024    // a client, which takes cells as they come
	maxCredit   = 1 << 31 // more credit than this a peer cannot mean
	windowLeast = 4       // no window shrinks below this
	windowMost  = 4096    // nor grows above: 46 Mbit in one round trip

	creditTarget = 10 * time.Millisecond // how long cells may stand in a queue
	dryGap       = 15 * time.Millisecond // lumps of credit are closer than this
	drySlack     = 20 * time.Millisecond // and a quarter of the round trip: so long a circuit is dry before its window grows again
	gentleSteps  = 5                     // growth of a window that has shrunk begins at a half by 2 to this
	creditPause  = 10 * time.Millisecond // CREDIT cells of a link are this far apart, unless a circuit is about to run dry
)

// plenty is the room of a budget that knows no bounds.
const plenty = 1 << 40

// A window says how many RELAY cells the peer may send in one direction of one circuit of one link, and finds its size by
// what leaves and what stands (spec/flow.md, section 3). It knows no clock: now is the time since the link began. As long
// as Received and Returned report true, and grants come from Owed,
//
//	left ≤ recv ≤ limit and limit − left ≤ the largest size there was
//
// The zero window lets nothing come.
type window struct {
	size, base        int64 // cells granted and not yet gone on, at most; what it began with
	limit, recv, left int64 // since the circuit began: allowed to come, came, went on
	shrunk            bool  // it has been: from now on it grows more gently
	steps             int   // how often it grew since it shrank last

	since     time.Duration // growth: from when,
	sinceLeft int64         // and how many had left then

	// Growth of one that has been too large: how it was when cells last left, and since when it is dry.
	at           time.Duration
	stood, spare int64
	dry          bool
	drySince     time.Duration
	lack         int64 // the least that could have gone on at such a moment
	dryAt        time.Duration
	dryLeft      int64

	// Shrinking: one turnaround of credit, from a grant until a cell comes that needed it.
	judging   bool
	mark      int64         // the limit before that grant
	began     time.Duration // when it was,
	beganLeft int64         // and how many had left then
	least     int64         // the shortest the queue has been since
}

// Open grants the first credit, as CREATE or CREATED tells it.
func (w *window) Open(base uint16) { w.size, w.base, w.limit = int64(base), int64(base), int64(base) }

// Received counts n cells in; false: the peer had no credit for them, which ends the link.
func (w *window) Received(n int) bool {
	w.recv += int64(n)
	return w.recv <= w.limit
}

// Left counts n cells out, one after the other: they were written to the next link, or taken by their stream. spare is how
// many more could have gone there, for all that the next neighbour granted; rtt is the round trip of the link they came by;
// calm, that nothing stands on that link where we cannot see it.
func (w *window) Left(n int, spare int64, now, rtt time.Duration, calm bool) {
	if now != w.at {
		w.lookBack(now)
	}
	w.at, w.stood, w.spare = now, w.recv-w.left-int64(n), spare
	for range n {
		w.left1(now, rtt, calm)
	}
}

// lookBack notes whether the circuit was dry when cells last left: nothing waited, and more could have gone on. It is not any
// more if cells stood for longer than credit comes in lumps.
func (w *window) lookBack(now time.Duration) {
	switch {
	case w.stood == 0 && w.spare > 0:
		if !w.dry {
			w.dry, w.drySince, w.lack = true, w.at, w.spare
		}
		w.dryAt, w.dryLeft = w.at, w.left
		w.lack = min(w.lack, w.spare)
	case w.dry && now-w.dryAt > dryGap && w.left-w.dryLeft > w.size/4:
		w.dry = false
	}
}

func (w *window) left1(now, rtt time.Duration, calm bool) {
	w.left++
	queue := w.recv - w.left
	w.least = min(w.least, queue)
	if now-w.since > rtt {
		w.since, w.sinceLeft = now, w.left-1
	}
	switch {
	case w.limit-w.left > w.size: // what was granted before it shrank is still out
		w.judging = false
	case queue == 0 && calm && 2*(w.left-w.sinceLeft) >= w.size && w.grow(now, rtt): // half of it left in a round trip, and nothing waits
		w.since, w.sinceLeft = now, w.left
	case w.judging && w.recv > w.mark: // a turnaround is over
		w.judge(now)
	}
}

// grow makes the window half as large again. Once it has been too large it does so by a sixty-fourth, and by twice that share each
// further time in a row, up to a half; but by no more than could have gone on all the time, and only if it was dry for longer than a
// burst leaves it: the credit for a burst brings the cells back, and whoever answers it with a larger window hands on a
// larger burst. False: it stays.
func (w *window) grow(now, rtt time.Duration) bool {
	step := max(w.size/2, 1)
	if w.shrunk {
		if !w.dry || now-w.drySince < rtt/4+drySlack {
			return false
		}
		step = min(max(step>>max(gentleSteps-w.steps, 0), 1), w.lack)
		w.steps++
	}
	w.size = max(w.size, min(w.size+step, windowMost))
	w.judging, w.dry = false, false
	return true
}

// judge takes from the window the cells that stood through the whole turnaround, beyond those that leave within the
// target, and one.
func (w *window) judge(now time.Duration) {
	pace := (w.left - w.beganLeft) * int64(creditTarget) / max(1, int64(now-w.began))
	if stood := w.least - pace - 1; stood > 0 && w.size > windowLeast {
		w.size = max(w.size-min(stood, w.size/2), windowLeast)
		w.shrunk, w.steps = true, 0
	}
	w.judging = false
}

// Owed is the credit that may be returned, and the size in force, given how much room the budget has above all bases.
func (w *window) Owed(room int64) (owed, size int64) {
	size = min(w.size, w.base+room/roomShare)
	return max(0, w.left+size-w.limit), size
}

// roomShare is the part of a budget's room that one window may take: so none takes all, and newcomers find some.
const roomShare = 8

// Due says whether a CREDIT cell should go out for this circuit now, or when creditPause has passed since the link's
// last; it then carries what every circuit of the link is owed. If neither, nothing need come back here: a peer out of
// credit has cells queued with us, and the last of them to leave makes it due.
func (w *window) Due(room int64) (now, soon bool) {
	owed, size := w.Owed(room)
	return owed > 0 && owed >= size/2, owed > 0 && owed >= size/8
}

// Grant notes that n credits go out.
func (w *window) Grant(n int64, now time.Duration) {
	if !w.judging {
		w.judging, w.mark = true, w.limit
		w.began, w.beganLeft, w.least = now, w.left, w.recv-w.left
	}
	w.limit += n
}

// Returned notes that the peer, which was idle, gave n credits back; false: it did not have them, which ends the link.
func (w *window) Returned(n int64) bool {
	w.limit -= n
	w.size = max(w.base, w.limit-w.left)
	w.judging = false
	return w.limit >= w.recv
}

// Extra is what the window holds of a budget: the credit that is out, beyond its base.
func (w *window) Extra() int64 { return max(0, w.limit-w.left-w.base) }
