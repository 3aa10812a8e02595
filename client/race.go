package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"peel/cell/contain"
	"peel/circuit"
	"peel/circuit/stream"
)

// When a stream that was not answered yet is tried on a second circuit as well (spec/client.md, section 6).
const (
	raceShare  = 0.8                    // of the streams are answered within some time;
	raceTimes  = 2                      // one that takes so many times that is late
	raceLeast  = 300 * time.Millisecond // what is quicker than this need not be raced
	raceMost   = 10 * time.Second       // what takes longer is late anywhere
	raceUntold = 3 * time.Second        // late, before enough is known
	raceEnough = 20                     // answers, and the time is learned
	raceMemory = 200                    // answers that count: when there are more, all are halved

	racePrice  = 5              // streams that pay for one race
	raceSaving = 10 * racePrice // that may be saved up
)

// answers learns how long streams wait for their answer here, and keeps races few.
type answers struct {
	durations
	saved int // streams that have not been spent on a race
}

// late is how long a stream waits before another circuit is tried.
func (a *answers) late() time.Duration {
	if a.total < raceEnough {
		return raceUntold
	}
	return min(max(raceTimes*a.within(raceShare), raceLeast), raceMost)
}

// add counts an answer that took so long, or one that was not waited for any longer.
func (a *answers) add(d time.Duration) { a.count(d, raceMemory) }

// begun notes a stream that is asked for.
func (a *answers) begun() { a.saved = min(a.saved+1, raceSaving) }

// race says whether a stream may be raced now, and takes what that costs.
func (a *answers) race() bool {
	if a.saved < racePrice {
		return false
	}
	a.saved -= racePrice
	return true
}

// tried is what came of asking something of one circuit.
type tried[T any] struct {
	h      *held // nil: there was none to be had
	got    T
	err    error
	took   time.Duration
	second bool // it is the one that was begun because the first was late
	won    bool // it decided the race
	beaten bool // the other had, before it ended
}

// answered says whether it decides the race: somebody at the far end answered, and another would say no better.
func (t *tried[T]) answered(r request) bool {
	return t.err == nil || t.h != nil && other(t.err, r.usage) == nothing
}

// race is one question, asked of one circuit or of two.
type race[T any] struct {
	p       *pool
	r       request
	do      func(context.Context, *circuit.Circuit) (T, error)
	drop    func(T) // ends what was got and is not needed
	decided atomic.Bool
}

// ask has do ask something of h, which the pool gave for r. When the answer is late it asks another circuit as well, with
// the same guard unless the guards say otherwise; the first answer counts, drop ends what came of the other, and a circuit that lost
// although it was first takes no more streams. It returns when both are through.
func ask[T any](ctx context.Context, p *pool, r request, h *held, do func(context.Context, *circuit.Circuit) (T, error), drop func(T)) tried[T] {
	caller := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := &race[T]{p: p, r: r, do: do, drop: drop}
	seconds := make(chan tried[T], 1)
	late := contain.After(p.begun(), func(bug *contain.Panic) {
		p.core.panicked("asking a circuit", bug)
		seconds <- tried[T]{err: errPanic, second: true}
	}, func() { seconds <- q.another(ctx, cancel, h) })
	first := q.on(ctx, cancel, h, false) // here, for nearly always that is all
	if !late.Stop() {
		if second := <-seconds; second.h != nil {
			if second.won {
				first, second = second, first
			}
			q.lost(caller, &second)
		}
	}
	var end *stream.EndError
	if first.err == nil || errors.As(first.err, &end) {
		p.won(first.took, first.second)
	}
	return first
}

// on asks one circuit. An answer that decides the race ends the other by cancel.
func (q *race[T]) on(ctx context.Context, cancel func(), h *held, second bool) tried[T] {
	ctx, stop := context.WithTimeout(ctx, answerWithin)
	defer stop()
	begun := time.Now()
	t := tried[T]{h: h, second: second}
	if bug := q.p.core.contain("asking a circuit", func() { t.got, t.err = q.do(ctx, h.circuit) }); bug != nil {
		t.err = bug
	}
	q.p.release(h)
	t.took = time.Since(begun)
	if t.answered(q.r) && q.decided.CompareAndSwap(false, true) {
		t.won = true
		cancel()
	}
	t.beaten = !t.won && q.decided.Load()
	return t
}

// another asks a second circuit, besides h, if that may be.
func (q *race[T]) another(ctx context.Context, cancel func(), h *held) tried[T] {
	q.p.core.suspect()
	q.p.waits(h)
	if q.decided.Load() || !q.p.mayRace(q.r.once) {
		return tried[T]{second: true}
	}
	if q.r.once {
		q.p.passOver(h)
		return tried[T]{second: true}
	}
	r := q.r
	r.besides = h
	var second *held
	var err error
	if bug := q.p.core.contain("a second circuit", func() { second, err = q.p.get(ctx, r) }); bug != nil {
		err = bug
	}
	if err != nil {
		return tried[T]{err: err, second: true}
	}
	return q.on(ctx, cancel, second, true)
}

// lost ends what came of the circuit that was asked and does not count: the other was sooner, or it failed.
func (q *race[T]) lost(ctx context.Context, t *tried[T]) {
	switch {
	case t.beaten:
		if t.err == nil {
			q.drop(t.got)
		}
		q.p.lost(t.h, t.took, t.second)
	case ctx.Err() == nil && other(t.err, q.r.usage) == otherCircuit:
		q.p.failed(t.h, t.err)
	}
}

// begun notes a stream, and says after which time its answer is late.
func (p *pool) begun() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers.begun()
	return p.answers.late()
}

// mayRace says whether a stream that is late may be tried on a second circuit.
// One that may be asked for once only is paid for as well, but is no race.
func (p *pool) mayRace(once bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.core.cfg.NoRacing || !p.answers.race() {
		return false
	}
	if !once {
		p.races++
	}
	return true
}

// passOver has the next streams go on another circuit than one that is late.
func (p *pool) passOver(h *held) {
	p.mu.Lock()
	h.gone = true
	p.mu.Unlock()
	p.kick()
}

// anew notes that a stream is asked for on another circuit, as one has failed it.
func (p *pool) anew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.again++
}

// won counts the time of an answer.
func (p *pool) won(took time.Duration, second bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers.add(took)
	if second {
		p.racesWon++
	}
}

// lost notes that a circuit was not as fast as another. One that was asked first is slow: it takes no more streams.
func (p *pool) lost(h *held, took time.Duration, second bool) {
	if second {
		return
	}
	p.mu.Lock()
	p.answers.add(took)
	p.mu.Unlock()
	p.passOver(h)
}

// Again counts how often a stream was asked for on another circuit because one had failed it, before a byte of the caller's can have arrived.
func (c *Client) Again() uint64 {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.pool.again
}

// Races counts the streams that were asked for on a second circuit because the first was late, and those of them
// whose second answered first.
func (c *Client) Races() (begun, won uint64) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	return c.pool.races, c.pool.racesWon
}
