package dns

import (
	"container/list"
	"net/netip"
	"time"
)

// Bounds of the cache (spec/dns.md, section 5).
const (
	cacheEntries = 4096
	cacheBytes   = 1 << 20
	leastTTL     = 10 // seconds
	mostTTL      = 300
	negativeTTL  = 10
)

// key is what was asked, and by whom: nobody learns from the cache what others asked for, and no exit that gave one an
// address meant to be recognised meets it again at another.
type key struct {
	host     string
	addr     netip.Addr
	client   netip.Addr
	listener string
	epoch    uint64
}

// outcome is what came of a lookup: answers, or that there is no such name, or neither: it failed.
type outcome struct {
	found []Answer
	none  bool
	err   error
}

type entry struct {
	key     key
	outcome outcome
	since   time.Time
	until   time.Time // the shortest of the TTLs after that
	size    int
}

// cache keeps outcomes for a time, those used last for longest when there is no room. It has no lock and no clock.
type cache struct {
	byKey map[key]*list.Element
	order list.List // of *entry, the one used last first
	size  int       // bytes
}

// get finds an outcome; the TTLs in it are what is left.
func (c *cache) get(k key, now time.Time) (outcome, bool) {
	el := c.byKey[k]
	if el == nil {
		return outcome{}, false
	}
	e := el.Value.(*entry)
	if !now.Before(e.until) {
		c.remove(el)
		return outcome{}, false
	}
	c.order.MoveToFront(el)
	o := outcome{none: e.outcome.none}
	passed := uint32(now.Sub(e.since) / time.Second)
	for _, a := range e.outcome.found {
		a.TTL -= passed // less than the shortest of them
		o.found = append(o.found, a)
	}
	return o, true
}

// put keeps an outcome that is no failure for as long as the shortest of its TTLs.
func (c *cache) put(k key, o outcome, now time.Time) {
	if o.err != nil {
		return
	}
	ttl := uint32(negativeTTL)
	size := 256 + len(k.host)
	if len(o.found) > 0 {
		ttl = mostTTL
	}
	for _, a := range o.found {
		ttl = min(ttl, a.TTL)
		size += 64 + len(a.Name)
	}
	if c.byKey == nil {
		c.byKey = make(map[key]*list.Element)
	}
	if el := c.byKey[k]; el != nil {
		c.remove(el)
	}
	c.byKey[k] = c.order.PushFront(&entry{k, o, now, now.Add(time.Duration(ttl) * time.Second), size})
	c.size += size
	for len(c.byKey) > cacheEntries || c.size > cacheBytes {
		c.remove(c.order.Back())
	}
}

func (c *cache) remove(el *list.Element) {
	e := c.order.Remove(el).(*entry)
	delete(c.byKey, e.key)
	c.size -= e.size
}

// clip keeps the TTLs of answers within bounds.
func clip(found []Answer) []Answer {
	out := make([]Answer, len(found))
	for i, a := range found {
		a.TTL = min(max(a.TTL, leastTTL), mostTTL)
		out[i] = a
	}
	return out
}
