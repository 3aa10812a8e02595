package relay

import (
	"context"
	"time"

	"peel/cell"
	"peel/directory"
)

const (
	observeSpan = 10 * time.Second
	observeTime = 24 // hours for which the most is remembered
)

// keepObserved measures what the relay carries, for its descriptor.
func (r *Relay) keepObserved(ctx context.Context) {
	tick := time.NewTicker(observeSpan)
	defer tick.Stop()
	o := observed{at: time.Now()} // all counts begin with the relay
	for {
		select {
		case <-tick.C:
			if o.overload.look(r.stats.Circuits.Load(), r.stats.Crowded.Load()) {
				r.overloaded.Store(r.cfg.Now().Truncate(time.Hour).Unix())
			}
			r.observed.Store(o.add(time.Now(), r.stats.Cells.Load()*cell.Size))
		case <-ctx.Done():
			return
		}
	}
}

// observed is the most that was carried in one span of the last day, hour by hour.
type observed struct {
	overload
	at    time.Time // of the last look
	bytes uint64    // carried until then
	hours [observeTime]struct {
		hour int64 // since 1970
		best uint64
	}
}

// add looks at how many bytes were carried in all, and returns the most a second between two looks of the last 24 hours.
func (o *observed) add(now time.Time, bytes uint64) uint64 {
	span := now.Sub(o.at).Seconds()
	rate := uint64(0)
	if span > 0 {
		rate = min(uint64(float64(bytes-o.bytes)/span), directory.MaxBandwidth)
	}
	o.at, o.bytes = now, bytes
	this := now.Unix() / 3600
	slot := &o.hours[this%observeTime]
	if slot.hour != this {
		slot.hour, slot.best = this, 0
	}
	slot.best = max(slot.best, rate)
	most := uint64(0)
	for _, h := range o.hours {
		if this-h.hour < observeTime {
			most = max(most, h.best)
		}
	}
	return most
}
