package link

import (
	"sync/atomic"
	"time"

	"peel/cell"
)

// rateChunk is what a link may send at its turn: so much of the rate, so that others wait no longer for theirs.
const rateChunk = 10 * time.Millisecond

// A Rate bounds the bytes a second that all who share it send: the cells of circuits on the links of a node, and what else its owner
// counts. Who wants to send reserves a time for it, in the order of asking, so that all get the same. It has no lock. A nil Rate,
// and one of 0, bound nothing.
type Rate struct {
	born  time.Time
	set   atomic.Pointer[rate]
	spent atomic.Int64 // nanoseconds since born until which all is promised
}

type rate struct {
	byte  float64 // nanoseconds it takes
	burst int64   // nanoseconds' worth that may go at once after a calm
	chunk int     // cells
}

// NewRate makes a rate (Set).
func NewRate(bytes, burst uint64) *Rate {
	r := &Rate{born: time.Now()}
	r.Set(bytes, burst)
	return r
}

// Set makes it so many bytes a second, and so many at once after a calm; 0: those of a second. Bytes 0: without bound.
func (r *Rate) Set(bytes, burst uint64) {
	if bytes == 0 {
		r.set.Store(nil)
		return
	}
	if burst == 0 {
		burst = bytes
	}
	each := float64(time.Second) / float64(bytes)
	r.set.Store(&rate{
		byte: each, burst: int64(float64(burst) * each),
		chunk: min(max(int(float64(rateChunk)/each/cell.Size), 1), maxCells),
	})
}

// Bounded says whether there is a bound.
func (r *Rate) Bounded() bool { return r != nil && r.set.Load() != nil }

func (r *Rate) now() time.Duration { return time.Since(r.born) }

// reserve says when, at or after now, somebody may send how many of most cells.
func (r *Rate) reserve(most int, now time.Duration) (at time.Duration, cells int) {
	set := r.set.Load()
	if set == nil {
		return now, most
	}
	cells = min(most, set.chunk)
	return set.spend(&r.spent, cells*cell.Size, now), cells
}

// spend promises so many bytes, and says when they may go.
func (s *rate) spend(spent *atomic.Int64, bytes int, now time.Duration) time.Duration {
	for {
		was := spent.Load()
		begins := max(was, int64(now)-s.burst)
		if spent.CompareAndSwap(was, begins+int64(float64(bytes)*s.byte)) {
			return max(now, time.Duration(begins))
		}
	}
}

// giveBack takes back the promise of cells that were not there to be sent.
func (r *Rate) giveBack(cells int) { r.unspend(cells * cell.Size) }

func (r *Rate) unspend(bytes int) {
	if set := r.set.Load(); set != nil {
		r.spent.Add(-int64(float64(bytes) * set.byte))
	}
}

// Wait waits until so many bytes may be sent, or stop is closed: then they are not sent, and others need not wait for them.
func (r *Rate) Wait(bytes int, stop <-chan struct{}) {
	if r == nil {
		return
	}
	set := r.set.Load()
	if set == nil {
		return
	}
	now := r.now()
	wait := set.spend(&r.spent, bytes, now) - now
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-stop:
		r.unspend(bytes)
	}
}

// A pacing is what a link has reserved and not used.
type pacing struct {
	cells int           // reserved; 0: none
	at    time.Duration // from when on, by the rate's clock
	until time.Duration // the same since the link began; 0: it waits for nothing
}

// may is how many cells of circuits, of so many for which there is room, may be sent now. The caller holds mu and has the pen.
func (w *pen) may(room int, now time.Duration) int {
	r := w.cfg.Rate
	w.pacing.until = 0
	if r == nil || w.sched.used == 0 || room == 0 || w.pacing.cells == 0 && !r.Bounded() {
		return room
	}
	at := r.now()
	if w.pacing.cells == 0 {
		w.pacing.at, w.pacing.cells = r.reserve(room, at)
	}
	if wait := w.pacing.at - at; wait > 0 {
		w.pacing.until = now + wait
		return 0
	}
	return min(room, w.pacing.cells)
}

// sent notes that n of the cells that may be sent were, and that there are no more, or are.
func (w *pen) sent(n int) {
	if w.pacing.cells == 0 {
		return
	}
	w.pacing.cells -= n
	if w.sched.used == 0 || w.pacing.cells < 0 {
		w.cfg.Rate.giveBack(max(w.pacing.cells, 0))
		w.pacing.cells = 0
	}
}
