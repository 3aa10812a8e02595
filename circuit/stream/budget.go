package stream

import (
	"container/list"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
)

// A Budget bounds what all Muxes that share it hold: those of a process, whoever opened them. Streams that are over for the end that
// accepted them count as 768 bytes until they are for the other. When more bytes wait to be read,
// a Mux that holds most (within a factor of two) has the stream that holds most in it reset as busy, until the bound is
// kept; each message may go beyond it by its own data for a moment. Above a quarter of it no window grows. Its methods may
// be called by any goroutine.
type Budget struct {
	limits Limits
	used   atomic.Int64
	copies atomic.Int64
	late   atomic.Int64

	mu      sync.Mutex
	classes [64]list.List // of *Mux: by the length in bits of how many chunks' worth it holds; none in the first
}

// Limits are the bounds of a Budget; 0: none.
type Limits struct {
	Unread int // bytes that came and wait to be read
	Copies int // bytes that ReadFrom read and that wait to go, where much comes; beyond, it reads 4 KiB at a time
	Late   int // accepted streams that are over and are remembered for what may still come; beyond, a circuit that has one more remembers none, and lets it come
}

// NewBudget returns a budget with these limits.
func NewBudget(l Limits) *Budget {
	for _, most := range []*int{&l.Unread, &l.Copies, &l.Late} {
		if *most == 0 {
			*most = math.MaxInt
		}
	}
	return &Budget{limits: l}
}

// Used is how many bytes wait to be read.
func (b *Budget) Used() int { return int(b.used.Load()) }

// borrow takes one of the larger buffers of ReadFrom; false: there are as many as may be. repay gives it back.
func (b *Budget) borrow() bool {
	if b == nil {
		return true
	}
	if b.copies.Add(bulkCopy) > int64(b.limits.Copies) {
		b.copies.Add(-bulkCopy)
		return false
	}
	return true
}

func (b *Budget) repay() {
	if b != nil {
		b.copies.Add(-bulkCopy)
	}
}

// remember counts n streams more, or fewer, that are over; false: they are too many.
func (b *Budget) remember(n int) bool {
	return b == nil || b.late.Add(int64(n)) <= int64(b.limits.Late)
}

// A share is what one Mux holds of its Budget. It is guarded by the lock of the Mux, its place by that of the Budget.
type share struct {
	held  int
	class int
	place *list.Element // in its class; nil: in none
}

// add counts n bytes more, or less, that m holds. The caller holds mu of m, and b may be nil.
func (b *Budget) add(m *Mux, n int) {
	if b == nil || n == 0 {
		return
	}
	b.used.Add(int64(n))
	s := &m.share
	s.held += n
	class := bits.Len(uint(s.held / chunkSize))
	if class == s.class {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.place != nil {
		b.classes[s.class].Remove(s.place)
		s.place = nil
	}
	if s.class = class; class > 0 {
		s.place = b.classes[class].PushBack(m)
	}
}

func (b *Budget) exceeded() bool { return b != nil && b.used.Load() > int64(b.limits.Unread) }

// tight says whether so much waits that no window may grow.
func (b *Budget) tight() bool { return b != nil && b.used.Load() > int64(b.limits.Unread/4) }

// fullest is a Mux that holds most; nil: none holds so much as a chunk.
func (b *Budget) fullest() *Mux {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := len(b.classes) - 1; i > 0; i-- {
		if first := b.classes[i].Front(); first != nil {
			return first.Value.(*Mux)
		}
	}
	return nil
}

// keep resets streams until the bound is kept, after own got data. The caller holds no lock of a Mux.
func (b *Budget) keep(own *Mux) {
	for b.exceeded() {
		m := b.fullest()
		if (m == nil || !m.yield()) && !own.yield() {
			return // it was read meanwhile
		}
	}
}

// yield resets the stream that holds most, or if none holds any has the circuit end, if the budget is exceeded still, and says
// whether it did.
func (m *Mux) yield() bool {
	m.mu.Lock()
	exceeded := m.err == nil && m.cfg.Budget.exceeded()
	shed := exceeded && m.shed()
	ends := exceeded && !shed && m.giveUp()
	m.unlock()
	if ends {
		m.cfg.Full()
	}
	return shed || ends
}
