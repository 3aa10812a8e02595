package link

import (
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
)

const (
	sweepPause = time.Second      // between two looks at who holds memory without need
	heldLong   = 20 * time.Second // so long nobody needs credit beyond the base: the peer had to give it back
	stoodLong  = 10 * time.Second // so long no cell stands in an honest circuit
)

// A Budget bounds the memory that cells on their way may take on all links of a node together: the credit granted above
// each circuit's base, and the cells that are queued (spec/flow.md, section 4). What it takes to keep within it ends single
// circuits, those that stand still first. Its methods may be called by any goroutine.
type Budget struct {
	cells  int64 // of credit above the bases
	most   int64 // cells that queues have memory for: as many
	born   time.Time
	extra  atomic.Int64 // credit granted above the bases
	queued atomic.Int64 // cells queued, those included that a reader is about to queue
	queues atomic.Int64 // that have cells
	swept  atomic.Int64 // when, since born
	ended  atomic.Int64 // circuits
	closed atomic.Int64 // circuits that are closed here, and whose DESTROYs have not both passed

	mostClosed int64

	mu    sync.Mutex // before that of a link
	conns map[*Conn]struct{}
	line  standing // guarded by mu
}

// A queue takes memory in chunks. So much a cell takes in a full one; and so many cells more than it has a queue has memory
// for, at its two ends.
const (
	queuedSize = 1536
	queueSlack = 2 * (chunkCells - 1)
)

// NewBudget makes a budget of so many bytes of memory for queues. All links of a node share one, by their Config.
func NewBudget(bytes int64) *Budget {
	cells := max(bytes/queuedSize, 1)
	return &Budget{cells: cells, most: cells, mostClosed: plenty, born: time.Now(), conns: make(map[*Conn]struct{})}
}

// LimitClosed bounds how many circuits of all links together may be closed at this end while their peers have not said DESTROY, or do not
// read ours: 512 bytes each. Beyond, the link that has most of them ends. It is to be called before the budget is used; without it there is no bound.
func (b *Budget) LimitClosed(n int) *Budget {
	b.mostClosed = int64(n)
	return b
}

// close counts n such circuits more, or fewer.
func (b *Budget) close(n int) {
	if b != nil && n != 0 {
		b.closed.Add(int64(n))
	}
}

// namedWeight is how many links of nobody known the link of a relay stands for: it carries the circuits of many.
const namedWeight = 64

// relieveClosed ends the link that has most of them for what it stands for, if there are too many, but for those of links that have ended. The caller holds no lock.
func (b *Budget) relieveClosed() {
	if b == nil || b.closed.Load() <= b.mostClosed {
		return
	}
	var worst *Conn
	all, most := int64(0), 0
	b.mu.Lock()
	for l := range b.conns {
		l.mu.Lock()
		if l.err == nil {
			all += int64(l.waiting)
			share := l.waiting * namedWeight
			if l.named {
				share = l.waiting
			}
			if share > most {
				worst, most = l, share
			}
		}
		l.mu.Unlock()
	}
	b.mu.Unlock()
	if all > b.mostClosed {
		worst.fail(fault(ReasonFlood, "the peer leaves too many circuits that are closed without an answer"))
	}
}

// BudgetStats says how a budget is used, in cells.
type BudgetStats struct {
	Cells  int64 // that Extra and Queued may be, each
	Extra  int64 // credit granted above the circuits' bases
	Queued int64 // cells that wait; 14 more count for each queue that has any
	Ended  int64 // circuits that were ended to keep within the budget, since it began
}

// Stats says how the budget is used. A nil Budget has no bounds and counts nothing.
func (b *Budget) Stats() BudgetStats {
	if b == nil {
		return BudgetStats{}
	}
	return BudgetStats{b.cells, b.extra.Load(), b.queued.Load(), b.ended.Load()}
}

func (b *Budget) join(c *Conn) {
	if b != nil {
		b.mu.Lock()
		b.conns[c] = struct{}{}
		b.mu.Unlock()
	}
}

func (b *Budget) leave(c *Conn) {
	if b != nil {
		b.mu.Lock()
		delete(b.conns, c)
		b.mu.Unlock()
	}
}

// room is how much credit may be granted above the bases.
func (b *Budget) room() int64 {
	if b == nil {
		return plenty
	}
	return b.cells - b.extra.Load()
}

// settle notes what w, which changed by other means than grant, holds now; held is what it held. The caller holds w.
func (b *Budget) settle(w *window, held *int64) {
	if b == nil {
		return
	}
	if now := w.Extra(); now != *held {
		b.extra.Add(now - *held)
		*held = now
	}
}

// grant grants what w is owed, and returns it. The caller holds w.
func (b *Budget) grant(w *window, held *int64, now time.Duration) int64 {
	if b == nil {
		n, _ := w.Owed(plenty)
		w.Grant(n, now)
		return n
	}
	for {
		used := b.extra.Load()
		n, _ := w.Owed(b.cells - used)
		if n == 0 {
			return 0
		}
		more := max(0, w.limit+n-w.left-w.base) - *held
		if b.extra.CompareAndSwap(used, used+more) {
			*held += more
			w.Grant(n, now)
			return n
		}
	}
}

// release gives back all that c holds, which is about to be dropped. The caller holds c's link's mu.
func (b *Budget) release(c *Circ) {
	if b != nil {
		b.queued.Add(-int64(c.queue.n))
		if c.queue.n > 0 {
			b.queues.Add(-1)
		}
		b.extra.Add(-c.held)
		c.held = 0
	}
}

// queue counts n cells more, or fewer, that are queued.
func (b *Budget) queue(n int) {
	if b != nil && n != 0 {
		b.queued.Add(int64(n))
	}
}

// hold counts n queues more, or fewer, that have cells.
func (b *Budget) hold(n int) {
	if b != nil && n != 0 {
		b.queues.Add(int64(n))
	}
}

// full says whether queues take more memory than they may.
func (b *Budget) full() bool { return b.queued.Load()+queueSlack*b.queues.Load() > b.most }

// now is the time since the budget began; what stands in queues is stamped with it.
func (b *Budget) now() time.Duration {
	if b == nil {
		return 0
	}
	return time.Since(b.born)
}

// relieve ends circuits, the one whose first cell waits longest first, until what is queued is within the budget, and now
// and then those that hold memory without need while it is short. The caller holds no lock.
func (b *Budget) relieve() {
	if b == nil {
		return
	}
	for b.full() {
		r, ok := b.endLongest()
		if r != nil {
			r.Closed(cell.DestroyBusy)
		}
		if !ok {
			break
		}
	}
	if b.room() >= b.cells/4 {
		return
	}
	now, last := b.now(), b.swept.Load()
	if now-time.Duration(last) < sweepPause || !b.swept.CompareAndSwap(last, int64(now)) {
		return
	}
	var idle []*Circ
	b.each(func(c *Circ) {
		if c.held > 0 && now-c.came > heldLong || c.queue.n > 0 && now-c.queue.since() > stoodLong {
			idle = append(idle, c)
		}
	})
	for _, c := range idle {
		c.kill()
	}
}

// endLongest ends the circuit whose first cell waits longest, and returns who is to hear of it, unless what is queued is within the budget by
// now: of many readers that find too much, each would end one otherwise. false: none waits.
func (b *Budget) endLongest() (told Receiver, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.full() {
		return nil, true
	}
	worst := b.longest()
	if worst == nil {
		return nil, false
	}
	return worst.killed(), true
}

// each calls do for every circuit of every link, with the link's lock held.
func (b *Budget) each(do func(c *Circ)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.eachOf(do)
}

// eachOf is each, whose caller holds mu.
func (b *Budget) eachOf(do func(c *Circ)) {
	for l := range b.conns {
		l.each(do)
	}
}

// each calls do for every circuit, with mu held.
func (c *Conn) each(do func(c *Circ)) {
	c.mu.Lock()
	defer c.unlock()
	for _, circ := range c.circs {
		do(circ)
	}
}

// kill ends a circuit for the sake of the others. The caller holds no lock.
func (c *Circ) kill() {
	if r := c.killed(); r != nil {
		r.Closed(cell.DestroyBusy)
	}
}

// killed is kill but for telling r of it, if it is not nil. The caller holds the budget's lock, or none.
func (c *Circ) killed() (r Receiver) {
	l := c.conn
	l.mu.Lock()
	defer l.unlock()
	if c.state != open {
		return nil
	}
	l.cfg.Budget.ended.Add(1)
	r = c.recv
	c.end(l.busy())
	c.told = cell.DestroyBusy
	if c.telling > 0 { // somebody calls the Receiver: whoever it is calls Closed then
		c.parting, r = true, nil
	}
	return r
}
