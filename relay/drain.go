package relay

import (
	"context"
	"fmt"
	"time"
)

const (
	drainLook  = 100 * time.Millisecond
	drainQuiet = 10 * time.Second // without a cell, after which circuits that pass through count as unused
)

// Drain has the relay take no new links, circuits, extensions and streams, and returns when what runs has ended: when no circuit is
// left, or when no stream ends here and no cell has passed through for ten seconds, as a relay does not see the streams of
// others. It returns ctx's error if that ends before. Then it is time to end Run. It may be called once Run runs.
func (r *Relay) Drain(ctx context.Context) error {
	r.draining.Store(true)
	look := time.NewTicker(drainLook)
	defer look.Stop()
	cells, since := r.stats.Cells.Load(), time.Now()
	for {
		r.mu.Lock()
		circuits, streams := len(r.transits), r.streams.n
		r.mu.Unlock()
		if now := r.stats.Cells.Load(); now != cells {
			cells, since = now, time.Now()
		}
		if circuits == 0 || streams == 0 && time.Since(since) >= drainQuiet {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Summary says in a few words what the relay does: safe to show to anybody on the machine.
func (r *Relay) Summary() string {
	r.mu.Lock()
	n := len(r.transits)
	r.mu.Unlock()
	r.listing.mu.Lock()
	listed := r.listing.listed && r.listing.missed == 0
	r.listing.mu.Unlock()
	where := "not listed in the directory yet"
	if listed {
		where = "listed in the directory"
	}
	if p := r.pausing.Load(); !p.until.IsZero() {
		where = "paused until " + p.until.UTC().Format("2006-01-02 15:04 UTC") + ", as the traffic quota is used up"
	}
	return fmt.Sprintf("%s; %d circuits or more", where, n/64*64)
}
