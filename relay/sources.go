package relay

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// mostSources is how many addresses are remembered, half a KiB each at most.
const mostSources = 16384

// kind is what is counted by address.
type kind int

const (
	ofLinks kind = iota
	ofCreates
	ofExtends
	ofStreams
	kinds
)

// sources count by address. When there are too many, the one that was heard of longest ago is forgotten, and begins anew: what
// all of them ask for together is bounded by places, not here.
type sources struct {
	rates [kinds]float64

	mu   sync.Mutex
	most int
	of   map[netip.Prefix]*list.Element
	used list.List // of *source, the one heard of last in front
}

type source struct {
	at      netip.Prefix
	buckets [kinds]bucket
}

func newSources(l *Limits) *sources {
	s := &sources{most: mostSources, of: make(map[netip.Prefix]*list.Element)}
	s.rates = [kinds]float64{float64(l.LinkRate), float64(l.CreateRate), float64(l.ExtendRate), float64(l.StreamRate)}
	return s
}

// take counts one of a kind; false: that is too much.
func (s *sources) take(at netip.Prefix, of kind, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.of[at]
	if e != nil {
		s.used.MoveToFront(e)
	} else {
		if s.used.Len() >= s.most {
			last := s.used.Back()
			delete(s.of, last.Value.(*source).at)
			s.used.Remove(last)
		}
		e = s.used.PushFront(&source{at: at})
		s.of[at] = e
	}
	rate := s.rates[of]
	return e.Value.(*source).buckets[of].take(now, burstTime*rate, rate)
}

// A bucket lets so much come at once, and so much a second from then on. It has no lock and no clock.
type bucket struct {
	taken float64 // of the burst
	at    time.Time
}

func (b *bucket) take(now time.Time, burst, rate float64) bool { return b.takes(now, 1, burst, rate) }

func (b *bucket) takes(now time.Time, n, burst, rate float64) bool {
	if passed := now.Sub(b.at); passed > 0 {
		b.taken, b.at = max(0, b.taken-passed.Seconds()*rate), now
	}
	if b.taken > burst-n {
		return false
	}
	b.taken += n
	return true
}
