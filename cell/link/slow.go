package link

import "time"

const (
	slowFree = time.Second     // of what Slow adds up to, so much is without effect
	slowMost = 2 * time.Second // that a reader waits at a time
)

// A brake says how long a reader is to wait before it reads on. It knows no clock.
type brake struct{ until time.Duration }

// Add makes it d more.
func (b *brake) Add(d, now time.Duration) {
	b.until = min(max(b.until, now)+d, now+slowFree+slowMost)
}

// Wait is how long.
func (b *brake) Wait(now time.Duration) time.Duration { return max(0, b.until-now-slowFree) }

// Slow has this end read later by d, for a peer that asks for what it cannot have: so that to refuse it costs little, however fast it
// asks. A second's worth of it is free and comes back as time passes; of more, 2 s are waited at a time. Meanwhile the link sends as ever.
func (c *Conn) Slow(d time.Duration) {
	c.mu.Lock()
	c.brake.Add(d, time.Since(c.born))
	c.mu.Unlock()
	c.slowed.Store(true)
}

// brakes waits before the reader reads on, if it is to, or until the link ends.
func (c *Conn) brakes() {
	if !c.slowed.Swap(false) {
		return
	}
	c.mu.Lock()
	d := c.brake.Wait(time.Since(c.born))
	c.mu.Unlock()
	if d == 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.stop:
	}
}
