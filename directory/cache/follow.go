package cache

import (
	"context"
	"math/rand/v2"
	"time"

	"peel/directory"
)

// How long Follow waits after a failure: from the first, doubled up to the last.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Follow keeps the consensus fresh until ctx ends: it fetches when there is none, and at a moment of
// its own in the first quarter of the period in which a newer one is due; after a failure again,
// soon and then less often. It calls got, if not nil, with the consensus here at the start (if it
// may still be used) and with each newer one, and failed, if not nil, with each error; both from its
// own goroutine.
func (c *Cache) Follow(ctx context.Context, dial Dial, got func(*directory.Consensus), failed func(error)) {
	if cons, note, err := c.Usable(time.Now()); err == nil {
		if note != "" {
			c.cfg.Log.Warn(note)
		}
		if got != nil {
			got(cons)
		}
	}
	period := c.cfg.Network.WithDefaults().Period
	last := min(lastRetry, period/4)
	retry := min(firstRetry, last)
	for {
		wait := jitter(retry)
		if cons := c.Consensus(); cons != nil && time.Now().Before(cons.FreshUntil) {
			wait = time.Until(cons.FreshUntil) + rand.N(period/4)
			retry = min(firstRetry, last)
		} else {
			changed, err := c.Fetch(ctx, dial)
			if ctx.Err() != nil {
				return
			}
			if err != nil && failed != nil {
				failed(err)
			}
			if changed {
				if got != nil {
					got(c.Consensus())
				}
				continue
			}
			retry = min(2*retry, last)
			if c.Consensus() == nil { // the next may well be the first there is
				wait = min(wait, time.Until(c.cfg.Network.Schedule.Next(time.Now()))+rand.N(period/20))
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// jitter returns a moment in the second half of d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
