package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"peel/circuit"
	"peel/client/guard"
)

const (
	coldTimeout = time.Second            // guardTimeout in the first coldFor of a client that has never used a guard
	coldRetry   = 250 * time.Millisecond // lastRetry then
	coldFor     = 10 * time.Second
	coldLimit   = 2 * time.Second // the client's first circuit: when others are begun beside it; after coldFor doubled with each round
)

// errLate is why a build is not waited for any longer.
var errLate = errors.New("client: the circuit takes longer than most do here: another is tried")

// make builds a circuit when there is a slot for it; the client's first it also proves.
func (p *pool) make(ctx context.Context, h *held) (*circuit.Circuit, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	p.core.boot.reach(stageCircuit)
	c, err := p.inTime(ctx, h)
	if err != nil {
		return nil, err
	}
	return c, p.prove(ctx, c)
}

// prove has the client's first circuit carry bytes; it is closed if it does not.
func (p *pool) prove(ctx context.Context, c *circuit.Circuit) error {
	if p.core.boot.progress().Percent == stageDone.Percent {
		return nil
	}
	p.core.boot.reach(stageProbe)
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := probe(ctx, c); err != nil {
		if lost := c.Err(); linkLost(lost) && !linkLost(err) {
			err = fmt.Errorf("%w: %w", err, lost)
		}
		c.Close()
		return err
	}
	p.core.boot.reach(stageDone)
	return nil
}

// adopt keeps a circuit that was built late, if a spare one is missing: what was begun in its place may take longer still.
func (p *pool) adopt(ctx context.Context, late *held, c *circuit.Circuit, now time.Time) {
	if p.prove(ctx, c) != nil {
		return
	}
	p.mu.Lock()
	defer p.unlock()
	p.judge(late.path, guard.Built, now)
	spare := 0
	for h := range p.circs {
		if h.isBuilt() && !h.taken && !h.gone {
			spare++
		}
	}
	p.count++
	h := &held{id: p.count, era: late.era, path: late.path, skipped: late.skipped, built: make(chan struct{}), born: late.born, last: now, circuit: c}
	close(h.built)
	if p.closed || spare >= p.core.cfg.Spare || len(p.circs) >= p.core.cfg.Circuits || late.era != p.era || late.id <= p.ruled || p.guards.Left(late.path[0].ID, p.core.cfg.Now()) || late.born.Before(p.awoke) || p.guardBuilt(h) != nil {
		p.ended = append(p.ended, c)
		return
	}
	p.fails = 0
	p.circs[h] = struct{}{}
	p.core.events.tell(Event{Kind: EventCircuitBuilt, Circuit: h.id, Path: h.path})
	close(p.arrived)
	p.arrived = make(chan struct{})
}

// guardWait is how long to wait for a link to a guard.
func (p *pool) guardWait() time.Duration {
	if p.core.boot.progress().Percent == stageDone.Percent {
		return guardTimeout
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cold(time.Now()) {
		return coldTimeout
	}
	return guardTimeout
}

// cold says whether the client has begun just now and has never used a guard: then it cannot know which are there, and tries
// fast. The caller holds mu.
func (p *pool) cold(now time.Time) bool {
	return !p.began.IsZero() && now.Sub(p.began) < coldFor && !p.guards.Used()
}

// limit is how long a build is waited for. The caller holds mu.
func (p *pool) limit(now time.Time) time.Duration {
	limit := p.times.limit()
	if p.core.boot.progress().Percent < stageDone.Percent {
		rounds := 0
		if now.Sub(p.began) >= coldFor {
			rounds = p.coldly / p.core.cfg.Spare
		}
		limit = min(limit, coldLimit<<min(rounds, 5))
	}
	return limit
}

// inTime builds a circuit, or fails with errLate when that takes longer than most builds do. A late one goes on, so that
// its time is learned, and is closed: unless as many do already, then it is given up.
func (p *pool) inTime(ctx context.Context, h *held) (*circuit.Circuit, error) {
	type built struct {
		c   *circuit.Circuit
		err error
	}
	outer := ctx
	ctx, quit := context.WithCancelCause(ctx)
	ctx, stop := context.WithTimeout(ctx, buildLimit)
	cancel := func() { stop(); quit(nil) }
	p.mu.Lock()
	limit, left := p.limit(time.Now()), h.left
	h.quit = quit
	p.mu.Unlock()
	if left {
		cancel()
		return nil, errLeft
	}
	done, begun := make(chan built, 1), time.Now()
	p.running.Go(p.core.bug("a circuit"), func() {
		var c *circuit.Circuit
		var err error
		if bug := p.core.contain("building a circuit", func() { c, err = p.build(ctx, h.path) }); bug != nil {
			c, err = nil, bug
		}
		done <- built{c, err}
	})
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case b := <-done:
		cancel()
		p.over(h)
		p.timed(time.Since(begun), false, b.err)
		return b.c, b.err
	case <-timer.C:
	}
	p.core.suspect()
	p.mu.Lock()
	h.quit = nil
	p.askGuard(h.path, time.Now())
	if limit >= p.times.limit() {
		p.times.ended(true)
	} else {
		p.coldly++
	}
	p.mu.Unlock()
	slot := false
	select {
	case p.late <- struct{}{}:
		slot = true
	default:
		cancel()
	}
	p.running.Go(p.core.bug("a circuit"), func() {
		b := <-done
		if slot {
			<-p.late
		}
		cancel()
		p.timed(time.Since(begun), true, b.err)
		if b.c != nil {
			p.adopt(outer, h, b.c, time.Now())
		} else {
			p.lateFailed(h, b.err, time.Now())
		}
	})
	return nil, errLate
}

// over notes that the build of a circuit has ended, so that nobody ends it any more.
func (p *pool) over(h *held) {
	p.mu.Lock()
	h.quit = nil
	p.mu.Unlock()
}

// timed counts how long a build took. One that failed says nothing, but that it did not succeed within buildLimit.
func (p *pool) timed(took time.Duration, late bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil && !late:
		p.times.ended(false)
		p.times.add(took)
	case err == nil || took >= buildLimit:
		p.times.add(took)
	}
}

// settle notes what came of a build.
func (p *pool) settle(h *held, c *circuit.Circuit, err error, now time.Time) {
	p.mu.Lock()
	defer p.unlock()
	switch {
	case h.left:
		p.unused(h, c, errLeft)
		return
	case err == nil && p.closed: // its link ends now, and streams on it would say that it was lost
		p.unused(h, c, ErrClosed)
		return
	}
	if err == nil {
		p.fails = 0
		p.faults.clear(h.path)
		p.judge(h.path, guard.Built, now)
		if err = p.guardBuilt(h); err == nil {
			h.circuit = c
			p.core.events.tell(Event{Kind: EventCircuitBuilt, Circuit: h.id, Path: h.path})
			return
		}
		p.putAside(h, c, now)
		h.err = err
		delete(p.circs, h)
		return
	}
	h.err = err
	delete(p.circs, h)
	kind := EventCircuitFailed
	if errors.Is(err, errLate) {
		kind = EventCircuitLate
	}
	p.core.events.tell(Event{Kind: kind, Circuit: h.id, Path: h.path, Err: err})
	if p.ctx.Err() != nil || kind == EventCircuitLate || h.born.Before(p.awoke) {
		return
	}
	p.fails++
	most := lastRetry
	if p.cold(now) {
		most = coldRetry
	}
	p.retry = later(p.retry, now.Add(backOff(p.fails, most)))
	p.faults.failed(h.path, err, now)
	p.guardFailed(h, err, now)
	p.core.boot.failed(err)
	p.core.log.Debug("circuit not built", "why", err)
}

// lateFailed notes that a build failed that nobody waited for any longer: that says as much of its guard as if it had been in time.
func (p *pool) lateFailed(h *held, err error, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var at *circuit.BuildError
	if p.ctx.Err() != nil || h.born.Before(p.awoke) || !errors.As(err, &at) || errors.Is(err, context.Canceled) {
		return
	}
	if at.Hop > 0 {
		if p.cutOff(h.path[0].ID, err) {
			return
		}
		p.judge(h.path, unbuilt(at.Hop), now)
		return
	}
	p.guardFailed(h, err, now)
	p.core.boot.failed(err)
}

// abandon gives up a circuit for which settle did not come to its end.
func (p *pool) abandon(h *held, c *circuit.Circuit, bug error) {
	p.mu.Lock()
	defer p.unlock()
	h.circuit, h.err = nil, bug
	delete(p.circs, h)
	if c != nil {
		p.ended = append(p.ended, c)
	}
}
