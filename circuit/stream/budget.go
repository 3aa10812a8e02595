package stream

import (
	"container/list"
	"math/bits"
	"sync"
	"sync/atomic"
)

// A Budget bounds the bytes that wait to be read in all Muxes that share it: those of a process, whoever opened them. When
// more wait, a Mux that holds most (within a factor of two) has the stream that holds most in it reset as busy, until the
// bound is kept; each message may go beyond it by its own data for a moment. Above a quarter of it no window grows.
// Its methods may be called by any goroutine.
type Budget struct {
	most int64
	used atomic.Int64

	mu      sync.Mutex
	classes [64]list.List // of *Mux: by the length in bits of how many chunks' worth it holds; none in the first
}

// NewBudget returns a budget of so many bytes.
func NewBudget(most int) *Budget { return &Budget{most: int64(most)} }

// Used is how many bytes wait to be read.
func (b *Budget) Used() int { return int(b.used.Load()) }

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

func (b *Budget) exceeded() bool { return b != nil && b.used.Load() > b.most }

// tight says whether so much waits that no window may grow.
func (b *Budget) tight() bool { return b != nil && b.used.Load() > b.most/4 }

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

// yield resets the stream that holds most, if the budget is exceeded still, and says whether it did.
func (m *Mux) yield() bool {
	m.mu.Lock()
	defer m.unlock()
	return m.err == nil && m.cfg.Budget.exceeded() && m.shed()
}
