package authority

import (
	"cmp"
	"container/heap"
	"time"
)

// An agenda holds relays by when their next try is due, then by identity. It is a heap, which the
// functions below keep.
type agenda []*known

func (a agenda) Len() int { return len(a) }

func (a agenda) Less(i, j int) bool {
	return cmp.Or(a[i].due.Compare(a[j].due), compareID(&a[i].desc.ID, &a[j].desc.ID)) < 0
}

func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].at, a[j].at = i, j
}

// Push is for container/heap.
func (a *agenda) Push(x any) {
	k := x.(*known)
	k.at = len(*a)
	*a = append(*a, k)
}

// Pop is for container/heap.
func (a *agenda) Pop() any {
	last := len(*a) - 1
	k := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	return k
}

// plan sets when a relay is tried next, on the agenda it belongs to.
func (s *store) plan(k *known, due time.Time) {
	s.unplan(k)
	k.due, k.on = due, &s.fresh
	if s.reachedLately(k) {
		k.on = &s.lately
	}
	heap.Push(k.on, k)
}

// unplan takes a relay off its agenda, if it is on one.
func (s *store) unplan(k *known) {
	if k.on != nil {
		heap.Remove(k.on, k.at)
		k.on = nil
	}
}

// reachedLately: in this period or the one before. Such a relay is tried before all others, and keeps
// its place in a full store.
func (s *store) reachedLately(k *known) bool {
	return !k.reached.IsZero() && !k.reached.Before(s.since)
}
