package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/circuit"
	"peel/client/path"
)

const (
	retireAfter  = 10 * time.Minute // of use; then a circuit takes no new streams
	spareLife    = 30 * time.Minute // an unused circuit is replaced after this
	buildTimeout = 10 * time.Second
	builds       = 16                    // at a time; one more request waits
	avoidFor     = time.Minute           // a fault of a relay is remembered for so long
	mostBlame    = 6                     // levels of blame: the worst is chosen only when nothing else keeps the rules
	buildTries   = 8                     // paths tried for one request
	upkeep       = 5 * time.Second       // between looks at the spare circuits
	firstRetry   = 25 * time.Millisecond // after a build that failed, doubled each time, before a spare one is begun
	lastRetry    = 10 * time.Second
)

// pool keeps circuits: spare ones made ahead, and those in use, each for one token only.
type pool struct {
	core  *core
	index atomic.Pointer[path.Index]
	wake  chan struct{}
	slots chan struct{} // one per build at a time

	mu      sync.Mutex
	circs   map[*held]struct{}
	faults  map[cell.NodeID]fault
	ctx     context.Context // of run; nil before
	running sync.WaitGroup
	closed  bool
	fails   int       // builds that failed since one succeeded
	retry   time.Time // no spare circuit is begun before
}

// fault is what a relay is blamed for: circuits that failed where it should have joined. A circuit that is built through
// it clears it.
type fault struct {
	n     int
	until time.Time // when it is forgotten
}

// held is a circuit of the pool, or one being built.
type held struct {
	path    path.Path
	built   chan struct{} // closed when circuit or err is set
	circuit *circuit.Circuit
	err     error

	taken bool // belongs to token
	token any
	born  time.Time
	first time.Time // when the first stream was put on it
	gone  bool      // takes no new streams
}

func newPool(c *core) *pool {
	return &pool{
		core: c, wake: make(chan struct{}, 1), slots: make(chan struct{}, builds),
		circs: make(map[*held]struct{}), faults: make(map[cell.NodeID]fault),
	}
}

// kick makes the upkeep look now.
func (p *pool) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run keeps spare circuits until ctx ends, then closes all.
func (p *pool) run(ctx context.Context) {
	p.mu.Lock()
	p.ctx = ctx
	p.mu.Unlock()
	for {
		timer := time.NewTimer(p.tend(time.Now()))
		select {
		case <-p.wake:
			timer.Stop()
		case <-timer.C:
		case <-ctx.Done():
			p.mu.Lock()
			p.closed = true
			p.mu.Unlock()
			p.running.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			for h := range p.circs {
				p.drop(h)
			}
			return
		}
	}
}

// tend drops what is dead or old and begins what spare circuits are missing; it says when to look again.
func (p *pool) tend(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	spare := 0
	for h := range p.circs {
		if h.circuit == nil {
			if !h.taken {
				spare++
			}
			continue
		}
		switch {
		case h.circuit.Err() != nil:
			var d *circuit.DestroyedError
			if errors.As(h.circuit.Err(), &d) && d.Reason == cell.DestroyLinkClosed {
				p.blame(h.path[0].ID, now)
			}
			p.drop(h)
		case h.taken && now.Sub(h.first) > retireAfter, !h.taken && now.Sub(h.born) > spareLife:
			h.gone = true
		case !h.taken && !h.gone:
			spare++
		}
		if h.gone && h.circuit.Streams() == 0 {
			p.drop(h)
		}
	}
	for id, f := range p.faults {
		if now.After(f.until) {
			delete(p.faults, id)
		}
	}
	if wait := p.retry.Sub(now); wait > 0 {
		return min(wait, upkeep)
	}
	for ; spare < p.core.cfg.Spare && p.index.Load() != nil; spare++ {
		if _, err := p.begin(path.Usage{Port: 443}); err != nil {
			p.core.boot.failed(err)
			break
		}
	}
	return upkeep
}

// drop closes a circuit and forgets it. The caller holds mu.
func (p *pool) drop(h *held) {
	delete(p.circs, h)
	if h.circuit != nil {
		h.circuit.Close()
	}
}

// discard takes a circuit that failed a stream out of use; streams that are on it may finish.
func (p *pool) discard(h *held) {
	p.mu.Lock()
	h.gone = true
	p.mu.Unlock()
	p.kick()
}

// get finds a circuit for one stream, waiting for one to be built if none fits.
func (p *pool) get(ctx context.Context, u path.Usage, token any) (*held, error) {
	select {
	case <-p.core.boot.done: // the first circuit is there
	default:
		c := Client{core: p.core}
		if err := c.Ready(ctx); err != nil {
			return nil, err
		}
	}
	var last error
	for range buildTries {
		h, err := p.take(u, token, time.Now())
		if err != nil {
			return nil, err
		}
		select {
		case <-h.built:
			if h.err == nil {
				return h, nil
			}
			last = h.err
		case <-ctx.Done():
			return nil, fmt.Errorf("client: waiting for a circuit: %w", ctx.Err())
		}
	}
	return nil, fmt.Errorf("client: %d circuits could not be built: %w", buildTries, last)
}

// take picks a circuit, built or being built, that fits: of this token, else a spare one, else a new one.
func (p *pool) take(u path.Usage, token any, now time.Time) (*held, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	u.Avoid = p.avoids
	var best *held
	for h := range p.circs {
		if h.gone || h.taken && (h.token != token || now.Sub(h.first) > retireAfter) || !u.Fits(h.path) {
			continue
		}
		if h.circuit != nil && h.circuit.Err() != nil {
			continue
		}
		if best == nil || h.better(best) {
			best = h
		}
	}
	if best == nil {
		var err error
		if best, err = p.begin(u); err != nil {
			return nil, err
		}
	}
	if !best.taken {
		best.taken, best.token, best.first = true, token, now
		p.kick() // a spare one less
	}
	return best, nil
}

// better orders circuits that fit: one in use for the token before a spare one, a built one before one being built, then
// the older.
func (h *held) better(than *held) bool {
	if a, b := h.circuit != nil, than.circuit != nil; a != b {
		return a
	}
	if h.taken != than.taken {
		return h.taken
	}
	return h.born.Before(than.born)
}

// begin starts to build a circuit for u. The caller holds mu.
func (p *pool) begin(u path.Usage) (*held, error) {
	x := p.index.Load()
	if x == nil || p.ctx == nil {
		return nil, ErrNotRunning
	}
	if p.closed {
		return nil, errors.New("client: closed")
	}
	var way path.Path
	err := error(nil)
	for most := range mostBlame { // better a relay that is seldom blamed than none
		u.Avoid = func(id cell.NodeID) bool { return p.faults[id].n > most }
		if way, err = x.Choose(u, rand.Uint64N); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	h := &held{path: way, built: make(chan struct{}), born: time.Now()}
	p.circs[h] = struct{}{}
	ctx := p.ctx
	p.running.Go(func() { p.build(ctx, h) })
	return h, nil
}

// avoids says whether a relay is blamed for anything. The caller holds mu.
func (p *pool) avoids(id cell.NodeID) bool { return p.faults[id].n > 0 }

// blame notes a fault of a relay. The caller holds mu.
func (p *pool) blame(id cell.NodeID, now time.Time) {
	f := p.faults[id]
	p.faults[id] = fault{min(f.n+1, mostBlame-1), now.Add(avoidFor)}
}

// build builds a circuit and says so to those that wait.
func (p *pool) build(ctx context.Context, h *held) {
	defer p.kick()
	defer close(h.built)
	var c *circuit.Circuit
	err := context.Canceled
	select {
	case p.slots <- struct{}{}:
		p.core.boot.reach(stageCircuit)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, buildTimeout)
		defer cancel()
		if c, err = p.core.build(ctx, h.path); err == nil {
			err = p.first(ctx, c)
		}
		<-p.slots
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h.circuit, h.err = c, err
	if err == nil {
		p.fails = 0
		for _, e := range h.path {
			delete(p.faults, e.ID)
		}
		return
	}
	p.fails++
	p.retry = time.Now().Add(min(firstRetry<<min(p.fails, 16), lastRetry))
	if c != nil {
		c.Close()
		h.circuit = nil
	}
	delete(p.circs, h)
	p.core.boot.failed(err)
	var be *circuit.BuildError
	if errors.As(err, &be) && be.Hop < len(h.path) {
		p.blame(h.path[be.Hop].ID, time.Now())
		if be.Hop > 0 { // or the one whose task it was to reach it
			p.blame(h.path[be.Hop-1].ID, time.Now())
		}
	}
	p.core.log.Debug("circuit not built", "why", err)
}

// first proves the client's first circuit, which ends its start.
func (p *pool) first(ctx context.Context, c *circuit.Circuit) error {
	select {
	case <-p.core.boot.done:
		return nil
	default:
	}
	p.core.boot.reach(stageProbe)
	if err := probe(ctx, c); err != nil {
		return err
	}
	p.core.boot.reach(stageDone)
	return nil
}

func (p *pool) list() []CircuitInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	var cs []CircuitInfo
	for h := range p.circs {
		if h.circuit != nil && h.circuit.Err() == nil {
			cs = append(cs, CircuitInfo{Path: h.path, Streams: h.circuit.Streams(), Age: time.Since(h.born), Used: h.taken})
		}
	}
	return cs
}
