package relay

import "container/heap"

// A crowd is places for things of one kind, which are somebody's: a circuit's, a link's, an address's. When all are taken, a
// holder that would still have fewer takes one from him who has most, each counted by his weight. It has no lock.
type crowd struct {
	most, each int  // places in all; of one holder, 0: as many
	oldest     bool // who loses a place loses the one he has had longest, to himself too; else the newest, and never to himself

	n    int // places taken
	of   map[any]*holder
	rank ranking // the same, the one with most first
}

// A place is what one thing has in a crowd.
type place struct {
	owner
	lose func() // ends what the place is for, as another has it now; called once at most, without locks

	in         *holder // nil: it has none, or none any more
	prev, next *place  // older and newer ones of the same holder
}

// An owner is whose a place is.
type owner struct {
	of     any  // comparable
	weight int  // as how many he counts; 0: 1
	free   bool // crowd.each is not for him
}

// A holder has places; none is left without any.
type holder struct {
	of          any
	weight, n   int
	first, last *place // in the order in which they came
	at          int    // in the ranking
	turn        int    // for waiting: how many may go before it is another's turn
}

func newCrowd(most, each int) *crowd {
	return &crowd{most: most, each: each, of: make(map[any]*holder)}
}

// victim is whose place one more of o's would take: nil if there is a free one. Not ok: it gets none.
func (k *crowd) victim(o owner) (p *place, ok bool) {
	own, has := k.of[o.of], k.has(o)
	switch {
	case k.each > 0 && !o.free && has >= k.each:
	case k.n < k.most:
		return nil, true
	case k.n > 0 && k.rank[0].n > 1 && k.rank[0].n*max(o.weight, 1) > (has+1)*k.rank[0].weight:
		own = k.rank[0]
		if !k.oldest {
			return own.last, true
		}
	}
	if k.oldest && own != nil {
		return own.first, true
	}
	return nil, false
}

// has is how many places o has.
func (k *crowd) has(o owner) int {
	if own := k.of[o.of]; own != nil {
		return own.n
	}
	return 0
}

// full says whether enter would find no place for one more of o's.
func (k *crowd) full(o owner) bool {
	_, ok := k.victim(o)
	return !ok
}

// sated says whether all places are taken, and o has half as many as he who has most, and more than one.
func (k *crowd) sated(o owner) bool {
	own := k.of[o.of]
	return k.n >= k.most && own != nil && own.n > 1 && 2*own.n*k.rank[0].weight >= k.rank[0].n*own.weight
}

// enter gives a place to p, and says whose place that was, if it was somebody's. Not ok: there is none.
func (k *crowd) enter(p *place) (shed *place, ok bool) {
	shed, ok = k.victim(p.owner)
	if !ok {
		return nil, false
	}
	k.add(p)
	if shed != nil {
		k.leave(shed)
	}
	return shed, true
}

// add gives p a place, whether there is one or not.
func (k *crowd) add(p *place) {
	own := k.of[p.of]
	if own == nil {
		own = &holder{of: p.of, weight: max(p.weight, 1)}
		k.of[p.of] = own
		heap.Push(&k.rank, own)
	}
	p.in, p.prev, p.next = own, own.last, nil
	if own.last != nil {
		own.last.next = p
	} else {
		own.first = p
	}
	own.last = p
	own.n++
	heap.Fix(&k.rank, own.at)
	k.n++
}

// leave gives the place of p back, unless it was taken away.
func (k *crowd) leave(p *place) {
	h := p.in
	if h == nil {
		return
	}
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		h.first = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		h.last = p.prev
	}
	p.in, p.prev, p.next = nil, nil, nil
	k.n--
	if h.n--; h.n > 0 {
		heap.Fix(&k.rank, h.at)
		return
	}
	heap.Remove(&k.rank, h.at)
	cross(&k.of, h.of)
}

// cross crosses somebody off a list. One that is empty then gives back the memory of its most.
func cross[K comparable, V any](list *map[K]V, who K) {
	delete(*list, who)
	if len(*list) == 0 {
		*list = make(map[K]V)
	}
}

// A ranking is a heap of holders with the one that has most places on top.
type ranking []*holder

func (r ranking) Len() int           { return len(r) }
func (r ranking) Less(i, j int) bool { return r[i].n*r[j].weight > r[j].n*r[i].weight }
func (r ranking) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].at, r[j].at = i, j
}

func (r *ranking) Push(h any) {
	h.(*holder).at = len(*r)
	*r = append(*r, h.(*holder))
}

func (r *ranking) Pop() any {
	last := len(*r) - 1
	h := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return h
}
