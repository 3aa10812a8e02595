package authority

import (
	"context"
	"math/rand/v2"
	"time"

	"peel/cell/contain"
	"peel/directory"
)

// Measurements under way.
const (
	probesAtOnce = 4           // more would measure our own line,
	relaysProbe  = 8           // and more than one for so many relays each other
	probeTime    = time.Minute // for one, with building its circuit
)

// measureRelays measures relays, all through each period, until ctx ends.
func (a *Authority) measureRelays(ctx context.Context) {
	for ctx.Err() == nil {
		now := a.now()
		p := PeriodAt(a.schedule, now)
		if c, _, err := a.cache.Usable(now); err == nil {
			a.samplesMu.Lock()
			probes := a.samples.plan(c, now, p.ValidAfter, rand.Uint64N)
			a.samplesMu.Unlock()
			a.runProbes(ctx, probes, min(probesAtOnce, max(1, len(c.Entries)/relaysProbe)), p.ValidAfter)
		}
		// The next consensus may be there a moment later. If not, the one there is does as well.
		pause(ctx, min(p.ValidAfter.Sub(a.now()), maxStep)+time.Millisecond)
	}
}

// runProbes makes each probe when it is due, or a little later if too many are under way, or not at
// all if that would be after the end. So many are under way at once.
func (a *Authority) runProbes(ctx context.Context, probes []probe, atOnce int, end time.Time) {
	var wg contain.Group
	var failed []failure // guarded by samplesMu
	made := 0
	defer func() {
		wg.Wait()
		a.samplesMu.Lock()
		defer a.samplesMu.Unlock()
		if !a.samples.takeFailed(failed, made) {
			a.log.Warn("most measurements failed: is the network of this authority in order?", "failed", len(failed), "of", made)
		}
	}()
	places := make(chan struct{}, atOnce)
	for i := range probes {
		p := &probes[i]
		if !pause(ctx, p.at.Sub(a.now())) {
			return
		}
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if !a.now().Before(end) {
			return
		}
		made++
		wg.Go(a.bug("measuring a relay"), func() {
			defer func() { <-places }()
			pctx, cancel := context.WithTimeout(ctx, probeTime)
			defer cancel()
			rate, err := a.cfg.Measure(pctx, p.path, p.bytes)
			if ctx.Err() != nil {
				return
			}
			a.samplesMu.Lock()
			defer a.samplesMu.Unlock()
			relay := p.path[p.target].ID
			if err != nil {
				failed = append(failed, failure{p, err, a.now()})
				a.log.Debug("relay not measured", "relay", relay, "why", err)
				return
			}
			counts := a.samples.take(p, rate, a.now())
			a.log.Debug("relay measured", "relay", relay, "rate", rate, "counts", counts, "estimate", a.samples.estimate(relay))
		})
	}
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}

// addMeasured puts into a vote's candidates what we measured.
func (a *Authority) addMeasured(list []candidate) {
	a.samplesMu.Lock()
	defer a.samplesMu.Unlock()
	for i := range list {
		list[i].measured = a.samples.estimate(list[i].desc.ID)
	}
}

// expireMeasured forgets what was measured too long ago.
func (a *Authority) expireMeasured(now time.Time) {
	a.samplesMu.Lock()
	defer a.samplesMu.Unlock()
	a.samples.expire(now)
}

// loadMeasured takes in what was measured in the life before.
func (a *Authority) loadMeasured() error {
	text, err := a.keep.load(keptMeasured)
	if err != nil {
		return err
	}
	if err := a.samples.load(text); err != nil {
		a.log.Warn("what was measured of the relays is lost: they are measured anew", "why", err)
	}
	return nil
}

func (a *Authority) saveMeasured() error {
	if a.cfg.Measure == nil {
		return nil
	}
	a.samplesMu.Lock()
	text := a.samples.bytes()
	a.samplesMu.Unlock()
	return a.keep.save(keptMeasured, text)
}

// MeasureFunc fetches so many bytes from the last relay of a path of two or three, by a circuit that
// looks like a client's, and returns how fast they came, in bytes per second. An error that is one of the
// relays' to answer for is a *HopError. It is called by a few goroutines.
type MeasureFunc func(ctx context.Context, path []*directory.Entry, bytes int64) (rate uint64, err error)
