package relay

import (
	"runtime"
	"sync"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/circuit/stream"
)

const (
	// Of one circuit, so many streams to the world and look-ups may begin at once, and a second. Whoever opens a page with
	// hundreds of parts stays below.
	openBurst = 256
	openRate  = 100

	// Of all circuits, for each core, a second and at once: less than a tenth of its time, as each takes up to 70 µs. Of a circuit so
	// many at once, and a second, begin whatever the others do.
	openAll     = 1000
	openFew     = 16
	openFewRate = 2

	// Of a circuit so many may be refused at once, and a second: for more the credit comes back no faster than this.
	refusedOpens = 20
	returnPause  = 250 * time.Millisecond // between two returns of it
)

// opens bound what begins at the end of one circuit. They are of the link's reader alone, but for what mu guards.
type opens struct {
	all, few, refused bucket
	busy              bool // the message at hand was refused as busy

	mu    sync.Mutex
	owed  int         // cells for which credit is held back
	timer *time.Timer // returns some of it; nil: there is none
}

// opening bounds what begins on all circuits together.
type opening struct {
	most float64 // a second and at once

	mu  sync.Mutex
	all bucket
}

func newOpening() *opening { return &opening{most: float64(openAll * runtime.GOMAXPROCS(0))} }

func (a *opening) take(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all.take(now, a.most, a.most)
}

// mayOpen says whether one more stream to the world or look-up may begin on the circuit.
func (t *transit) mayOpen(now time.Time) bool {
	o := t.opening()
	return o.all.take(now, openBurst, openRate) && (o.few.take(now, openFew, openFewRate) || t.relay.opening.take(now))
}

// opening is what bounds the circuit, which needs it from its first stream on.
func (t *transit) opening() *opens {
	if t.opens == nil {
		t.opens = new(opens)
	}
	return t.opens
}

// busy refuses a stream for which there is no place.
func (t *transit) busy(s *stream.Stream) {
	t.opening().busy = true
	s.Refuse(cell.EndBusy)
}

// taken returns the credit for a cell that was handled: later, if it asked for what could not be, and that often. So a circuit that asks
// without end is refused no more often than this relay likes, and whoever sends on it waits.
func (t *transit) taken() {
	o := t.opens
	refused := o != nil && o.busy
	if refused {
		o.busy = false
		refused = !o.refused.take(time.Now(), refusedOpens, refusedOpens)
	}
	if !refused {
		t.prev.Taken(1)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owed++; o.timer == nil {
		o.timer = contain.After(returnPause, t.relay.bug("credit"), func() { t.returnOwed(o) })
	}
}

// returnOwed returns some of the credit that is held back. After the circuit's end that is to no effect.
func (t *transit) returnOwed(o *opens) {
	o.mu.Lock()
	n := min(o.owed, int(refusedOpens*returnPause/time.Second))
	if o.owed -= n; o.owed > 0 {
		o.timer.Reset(returnPause)
	} else {
		o.timer = nil
	}
	o.mu.Unlock()
	t.prev.Taken(n)
}
