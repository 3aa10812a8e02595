package dns

import (
	"container/list"
	"time"
)

// Bounds of the cache (spec/exit.md, section 5).
const (
	cacheEntries = 8192
	cacheBytes   = 4 << 20

	leastLife  = time.Minute // an answer is kept for what its records say, between these,
	mostLife   = 30 * time.Minute
	absentLife = time.Minute // or, where there is none, for this; all of it blurred by a quarter either way
)

type entry struct {
	question
	answer
	until time.Time
	size  int
}

// cache keeps answers for a time, those used last for longest when there is no room. It has no lock, no clock and no chance.
type cache struct {
	entries, bytes int // at most

	by    map[question]*list.Element
	order list.List // of *entry, the one used last first
	size  int       // bytes
}

func newCache(entries, bytes int) *cache {
	return &cache{entries: entries, bytes: bytes, by: make(map[question]*list.Element)}
}

func (c *cache) get(q question, now time.Time) (answer, bool) {
	el := c.by[q]
	if el == nil {
		return answer{}, false
	}
	e := el.Value.(*entry)
	if !now.Before(e.until) {
		c.remove(el)
		return answer{}, false
	}
	c.order.MoveToFront(el)
	return e.answer, true
}

func (c *cache) put(q question, a answer, now time.Time, chance float64) {
	if el := c.by[q]; el != nil {
		c.remove(el)
	}
	e := &entry{question: q, answer: a, until: now.Add(life(a, chance)), size: 256 + len(q.name) + 32*cap(a.addrs)}
	for _, n := range a.names {
		e.size += 16 + len(n)
	}
	c.size += e.size
	c.by[q] = c.order.PushFront(e)
	for c.order.Len() > c.entries || c.size > c.bytes {
		c.remove(c.order.Back())
	}
}

func (c *cache) remove(el *list.Element) {
	e := c.order.Remove(el).(*entry)
	c.size -= e.size
	delete(c.by, e.question)
}

// life is how long an answer is kept; chance is drawn from [0, 1). So neither who asks nor who answers can tell from when
// an answer is fetched again when it was fetched before.
func life(a answer, chance float64) time.Duration {
	d := absentLife
	if len(a.addrs)+len(a.names) > 0 {
		d = min(max(time.Duration(a.ttl)*time.Second, leastLife), mostLife)
	}
	return time.Duration(float64(d) * (0.75 + chance/2))
}
