package relay

import (
	"math"
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

	// When what there is for all is scarce, it is for those circuits that took less of it lately: of lateTime, in which what one took is
	// forgotten by and by. Of one that took openLate, a quarter of what may be there at once has to be left, and of any, half at most.
	openLate = 64
	lateTime = 10 * time.Second

	// Of requests to the directory: a reader makes one or two of a circuit. What one takes of the processor is a tenth of a millisecond, and so
	// a circuit that just asked for a stream of each kind costs about what it took to be made.
	askBurst   = 64
	askRate    = 8
	askFew     = 4
	askFewRate = 0.1

	// So much is lent to all circuits, for each core, a second and at once: 60 votes or proofs of many relays, or a thousand descriptors of 3 KiB.
	// What counts for more than one takes up to 0.07 ms for each.
	askLend = 2000

	// Of a circuit so many may be refused at once, and a second: for more the credit comes back no faster than this.
	refusedOpens = 20
	returnPause  = 250 * time.Millisecond // between two returns of it
)

// terms are what one circuit may begin of a kind: at once, and a second from then on, of what there is for all, and few whatever others do.
type terms struct{ burst, rate, few, fewRate float64 }

var (
	ofOpens = terms{openBurst, openRate, openFew, openFewRate}
	ofAsks  = terms{askBurst, askRate, askFew, askFewRate}
)

// A portion is what one circuit began of a kind. It has no lock and no clock.
type portion struct {
	all, few bucket
	recent   recent
}

// own says whether the circuit may, whatever there is for all.
func (p *portion) own(now time.Time, n float64, t *terms) bool {
	return p.all.takes(now, n, t.burst, t.rate)
}

// shared says whether there is so much for it: its few, of what there is for all, or, if that is too little for something large, on credit.
func (p *portion) shared(now time.Time, n float64, t *terms, of *opening) bool {
	return p.few.takes(now, n, t.few, t.fewRate) || of.take(now, n, &p.recent) || p.owes(now, n, t, of)
}

// owes says whether the circuit is lent what its few lacks of n, which is large. It pays that back before it has any of its few again.
func (p *portion) owes(now time.Time, n float64, t *terms, of *opening) bool {
	left := t.few - p.few.taken // now, as it was just asked for
	if n <= 1 || left <= 0 || !of.lend(now, n-left) {
		return false
	}
	p.few.taken += n
	return true
}

// opens bound what begins at the end of one circuit. They are of the link's reader alone, but for what mu guards.
type opens struct {
	portion
	refused bucket
	denied  bool // the message at hand asked for what could not be, or may not

	mu    sync.Mutex  // held while credit returns; before the link's
	owed  int         // cells for which credit is held back
	timer *time.Timer // returns some of it; nil: there is none
}

// opening bounds what begins on all circuits together.
type opening struct {
	most, lends float64 // a second and at once

	mu        sync.Mutex
	all, lent bucket
}

func newOpening() *opening {
	cores := float64(runtime.GOMAXPROCS(0))
	return &opening{most: openAll * cores, lends: askLend * cores}
}

// lend lets a circuit have n that are not there for it, or not: circuits that are new have asked for nothing lately, however many of them one makes.
func (a *opening) lend(now time.Time, n float64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lent.takes(now, n, a.lends, a.lends)
}

// take lets a circuit begin n more, or not: that depends on what it took lately.
func (a *opening) take(now time.Time, n float64, by *recent) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.all.takes(now, n, a.most*(1-by.share(now)), a.most) {
		return false
	}
	by.taken += n
	return true
}

// recent is how many a circuit took lately. It has no clock.
type recent struct {
	taken float64 // at the time
	at    time.Time
}

// share is the part that has to be left for others, so that the circuit may take one more.
func (l *recent) share(now time.Time) float64 {
	if passed := now.Sub(l.at); passed > 0 {
		l.taken, l.at = l.taken*math.Exp(-passed.Seconds()/lateTime.Seconds()), now
	}
	return l.taken / (l.taken + openLate) / 2
}

// begins says whether one more stream may begin on the circuit: by what the circuit began, then by what its peer did, and only then by what all
// did, so that a stream that is refused for the sake of the first two takes nothing from others.
func (t *transit) begins(now time.Time, dir bool) bool {
	r := t.relay
	own := func() bool { return t.opening().own(now, 1, &ofOpens) }
	shared := func() bool { return t.opening().shared(now, 1, &ofOpens, r.opening) }
	if a := t.asks; dir {
		a = t.asking()
		own, shared = func() bool { return a.own(now, 1) }, func() bool { return a.shared(now, 1) }
	}
	if !own() {
		r.stats.Busy.Add(1)
		return false
	}
	if _, ok := r.allow(t.prev.Conn(), ofStreams); !ok {
		return false
	}
	if !shared() {
		r.stats.Busy.Add(1)
		return false
	}
	return true
}

// opening is what bounds the circuit, which needs it from its first stream on.
func (t *transit) opening() *opens {
	if t.opens == nil {
		t.opens = new(opens)
	}
	return t.opens
}

// busy refuses a stream for which there is no place.
func (t *transit) busy(s *stream.Stream) { t.deny(s, cell.EndBusy) }

// deny refuses a stream, and has the circuit wait if that happens often.
func (t *transit) deny(s *stream.Stream, why cell.EndReason) {
	t.opening().denied = true
	s.Refuse(why)
}

// taken returns the credit for a cell that was handled: later, if it was denied, and that often. So a circuit that asks
// without end is refused no more often than this relay likes, and whoever sends on it waits.
func (t *transit) taken() {
	o := t.opens
	refused := o != nil && o.denied
	if refused {
		o.denied = false
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

// returnOwed returns some of the credit that is held back.
func (t *transit) returnOwed(o *opens) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owed == 0 {
		return // the circuit has ended
	}
	n := min(o.owed, int(refusedOpens*returnPause/time.Second))
	if o.owed -= n; o.owed > 0 {
		o.timer.Reset(returnPause)
	} else {
		o.timer = nil
	}
	t.prev.Taken(n)
}

// end forgets what is held back, as the circuit has ended, and waits for who is returning some. Nothing is held back after it.
func (o *opens) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.owed = 0; o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
}
