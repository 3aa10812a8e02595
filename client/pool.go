package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/circuit"
	"peel/circuit/stream"
	"peel/client/guard"
	"peel/client/path"
)

const (
	retireAfter  = 10 * time.Minute // of use; then a circuit takes no new streams
	spareLife    = 30 * time.Minute // an unused circuit is replaced after this
	probeTimeout = 10 * time.Second
	guardTimeout = 10 * time.Second      // for a link to the first relay
	builds       = 16                    // at a time; what is more waits
	buildTries   = 8                     // builds waited for by one request
	upkeep       = 5 * time.Second       // between looks at the spare circuits
	firstRetry   = 25 * time.Millisecond // after a build that failed, doubled each time, before the next is begun
	lastRetry    = 10 * time.Second      // for spare circuits
	lastPause    = time.Second           // for requests
)

var errFull = errors.New("client: as many circuits as there may be, and each has streams: close some connections, or isolate less")

// pool keeps circuits: spare ones made ahead, and those in use, each for one token only.
type pool struct {
	core   *core
	build  func(context.Context, path.Path) (*circuit.Circuit, error)
	ask    func(context.Context, path.Path) answer // asks a guard itself
	relays atomic.Pointer[relays]
	wake   chan struct{}
	slots  chan struct{} // one per build at a time

	late chan struct{} // one per build that is not waited for any longer

	guardFile *guardFile
	timesName string // where build times are kept; "": nowhere

	closing sync.Mutex // goes before mu; held until all are closed

	mu      sync.Mutex // goes before the locks of circuits
	circs   map[*held]struct{}
	cut     map[cell.NodeID]bool // guards whose links were lost under a circuit, and no circuit has come about since
	guards  *guard.Set
	times   buildTimes
	answers answers
	ports   ports
	faults  faults
	ctx     context.Context // of run; nil before
	count   uint64          // circuits, ever
	ruled   uint64          // those of them that were begun under other rules than hold now
	era     uint64          // rises with each new identity
	renewed time.Time       // when it last did; zero: never
	closed  bool
	running contain.Group      // builds; none begins once closed
	fails   int                // builds that failed since one succeeded
	retry   time.Time          // no spare circuit is begun before
	ended   []*circuit.Circuit // dropped, to be closed when mu is let go
	arrived chan struct{}      // closed when a late build is there after all
	began   time.Time          // the first build
	coldly  int                // builds that were late before the first circuit was ready
	awoke   time.Time          // when the machine last woke or moved: what was begun before says nothing of relays
	noted   bool               // that it has none that holds now, since it had one

	aside           *aside // nil: there is none
	doubts          doubts
	races, racesWon uint64 // streams asked for on a second circuit; those whose second answered first
	again           uint64 // streams that were asked for on another circuit, as one had failed them
}

func newPool(c *core, guards *guard.Set, f *guardFile) *pool {
	return &pool{
		core: c, guards: guards, guardFile: f, build: c.build, ask: c.askFirst, wake: make(chan struct{}, 1), slots: make(chan struct{}, builds), late: make(chan struct{}, builds), ports: make(ports),
		circs: make(map[*held]struct{}), cut: make(map[cell.NodeID]bool), faults: make(faults), arrived: make(chan struct{}),
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
	for ctx.Err() == nil {
		now := time.Now()
		p.noteExpiry(p.core.cfg.Now())
		p.tendGuards(now)
		timer := time.NewTimer(p.tend(now))
		select {
		case <-p.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	p.end()
	p.keepGuards()
	p.keepTimes()
}

// close closes the circuits that there are; none is begun after it. It returns when they are closed, by whomever: their links may end then.
func (p *pool) close() {
	p.closing.Lock()
	defer p.closing.Unlock()
	p.mu.Lock()
	defer p.unlock()
	p.closed = true
	for h := range p.circs {
		if h.isBuilt() {
			p.drop(h)
		}
	}
	p.dropAside()
}

// end is close, for those as well that are being built.
func (p *pool) end() {
	p.close()
	p.running.Wait()
	p.close()
}

// noteExpiry says once, until there is one that holds, that the consensus has expired.
func (p *pool) noteExpiry(now time.Time) {
	r := p.relays.Load()
	if r == nil {
		return
	}
	expired := now.After(r.index.Consensus().ValidUntil)
	if expired && !p.noted {
		note, err := r.index.Consensus().SignedHeader.Usable(p.core.cfg.Network, now)
		if err != nil {
			note = err.Error()
		}
		if _, n := p.core.clock.Skew(); n >= 2 { // else nothing is known of it
			note += "; " + p.core.clock.String()
		}
		p.core.log.Warn(note)
	}
	p.noted = expired
}

// tend drops what is dead or old and begins what spare circuits are missing; it says when to look again.
func (p *pool) tend(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.unlock()
	p.faults.forget(now)
	spare := p.clean(now)
	p.listen(now)
	p.hear(now)
	if wait := p.retry.Sub(now); wait > 0 {
		return min(wait, upkeep)
	}
	r := p.relays.Load()
	if r == nil {
		return upkeep
	}
	general := path.Usage{Port: r.port}
	for h := range p.circs { // those for other ports are besides
		if !h.taken && !h.gone && !general.Fits(h.path) {
			spare--
		}
	}
	for ; spare < p.core.cfg.Spare && len(p.circs) < p.core.cfg.Circuits; spare++ {
		if _, err := p.begin(request{usage: general, era: p.era}, now); err != nil {
			p.core.boot.failed(err)
			break
		}
	}
	p.ahead(now)
	return upkeep
}

// ahead begins a circuit for each port used lately that no spare circuit serves: at most portsMost besides the others. The
// caller holds mu.
func (p *pool) ahead(now time.Time) {
	for _, port := range p.ports.expected(now) {
		u := path.Usage{Port: port}
		served := false
		for h := range p.circs {
			served = served || !h.taken && !h.gone && u.Fits(h.path)
		}
		if served || len(p.circs) >= p.core.cfg.Circuits {
			continue
		}
		if _, err := p.begin(request{usage: u, era: p.era}, now); err != nil {
			delete(p.ports, port)
		}
	}
}

// clean drops what is dead or old, and counts the spare circuits that are left. The caller holds mu.
func (p *pool) clean(now time.Time) (spare int) {
	p.tendAside(now)
	lost := make(map[cell.NodeID]bool) // first relays whose link broke: once each, however many circuits it carried
	for h := range p.circs {
		switch {
		case h.dead():
			if linkLost(h.circuit.Err()) {
				lost[h.path[0].ID] = true
			}
			if !h.taken { // a relay that ends circuits as soon as they are there must not make us build without end
				p.retry = later(p.retry, now.Add(upkeep))
			}
			p.drop(h)
			continue
		case h.isBuilt() && (h.retires(now) || h.era != p.era):
			h.gone = true
		}
		if h.gone && h.idle() && (!h.lingers || h.retires(now)) {
			p.drop(h)
		} else if !h.gone && !h.taken {
			spare++
		}
	}
	for id := range lost {
		p.faults.blame(id, now)
	}
	return spare
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// retireAll has no circuit that there is take new streams.
func (p *pool) retireAll() {
	p.mu.Lock()
	defer p.unlock()
	for h := range p.circs {
		if h.gone = true; h.taken {
			h.linger()
		}
	}
	p.ruled = p.count
	p.dropAside()
	p.clean(time.Now())
}

// drop forgets a circuit, and closes it when mu is let go. The caller holds mu.
func (p *pool) drop(h *held) {
	delete(p.circs, h)
	if h.circuit != nil {
		p.ended = append(p.ended, h.circuit)
		p.core.events.tell(Event{Kind: EventCircuitClosed, Circuit: h.id, Path: h.path, Err: h.circuit.Err()})
	}
}

// unlock unlocks mu and closes what was dropped meanwhile.
func (p *pool) unlock() {
	ended, closed := p.ended, p.closed
	p.ended = nil
	p.mu.Unlock()
	for _, c := range ended {
		if closed {
			c.CloseFor(ErrClosed)
		} else {
			c.Close()
		}
	}
}

// get finds a circuit for one stream, waiting for one to be built if none serves. The caller releases it.
func (p *pool) get(ctx context.Context, r request) (*held, error) {
	if err := p.core.ready(ctx); err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // before a circuit is taken for it
		return nil, waiting(ctx, nil)
	}
	if r.usage.Port == 0 && !r.usage.Directory {
		r.usage.Port = p.relays.Load().port
	}
	var last error
	for i := range buildTries {
		if i > 0 {
			select {
			case <-time.After(backOff(i, lastPause)):
			case <-ctx.Done():
				return nil, waiting(ctx, last)
			}
		}
		h, err := p.queue(ctx, r)
		if err == nil {
			return h, nil
		}
		if h == nil {
			return nil, err
		}
		if ctx.Err() != nil {
			p.unjoin(h)
			return nil, waiting(ctx, last)
		}
		last = err
	}
	return nil, fmt.Errorf("client: %d circuits could not be built: %w", buildTries, last)
}

// queue takes a circuit for r and waits until it is built and r's turn has come on it, or on another, when the answers that are waited for
// are late, or the circuit is not to be used any more. With an error the circuit comes back if it could not be built, or may be yet.
func (p *pool) queue(ctx context.Context, r request) (*held, error) {
	for {
		h, err := p.take(r, time.Now())
		if err != nil && len(r.queued) > 0 { // then those that there are
			r.queued = nil
			h, err = p.take(r, time.Now())
		}
		if err != nil {
			return nil, err
		}
		if h, err = p.await(ctx, h, r); err != nil {
			return h, err
		}
		if h.enter() {
			return h, nil
		}
		switch turn := h.queue(ctx, p.lateAfter()); {
		case turn && p.lasts(h):
			return h, nil
		case turn:
			p.release(h)
		case ctx.Err() != nil:
			return h, context.Cause(ctx)
		default:
			p.unjoin(h)
		}
		r.queued = append(slices.Clip(r.queued), h)
	}
}

// lasts says whether a circuit, taken a while ago, may be asked for a stream still.
func (p *pool) lasts(h *held) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !h.gone && !h.dead() && !h.circuit.Lost() && !time.Now().Before(h.fullUntil)
}

// lateAfter is how long an answer takes before it is late.
func (p *pool) lateAfter() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answers.late()
}

// await waits until h is built, or one that was late is there and serves as well: that comes back then. With an error h comes back
// if it may be built yet.
func (p *pool) await(ctx context.Context, h *held, r request) (*held, error) {
	for {
		p.mu.Lock()
		arrived := p.arrived
		p.mu.Unlock()
		select {
		case <-h.built:
			return h, h.err
		case <-arrived:
			if other := p.instead(h, r, time.Now()); other != nil {
				return other, nil
			}
		case <-ctx.Done():
			return h, context.Cause(ctx)
		}
	}
}

// instead takes a circuit that is there in place of one that is being built; nil: none serves.
func (p *pool) instead(h *held, r request, now time.Time) *held {
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *held
	for o := range p.circs {
		if o.isBuilt() && o.serves(r, p.faults, now) && (best == nil || o.better(best)) {
			best = o
		}
	}
	if best == nil || h.isBuilt() {
		return nil
	}
	if h.users--; h.users == 0 { // nobody else waits for it, and nothing was sent on what is not there yet
		h.taken, h.token = false, nil
	}
	best.join(r, now)
	return best
}

func waiting(ctx context.Context, last error) error {
	if last != nil {
		return fmt.Errorf("client: waiting for a circuit: %w (one could not be built: %v)", stream.Ended(ctx), last)
	}
	return fmt.Errorf("client: waiting for a circuit: %w", stream.Ended(ctx))
}

// backOff is how long to wait after so many failures.
func backOff(fails int, most time.Duration) time.Duration {
	return min(firstRetry<<min(fails, 16), most)
}

// take picks a circuit, built or being built, that serves r: of its token, else a spare one, else a new one.
func (p *pool) take(r request, now time.Time) (*held, error) {
	p.mu.Lock()
	defer p.unlock()
	if p.closed {
		return nil, ErrClosed
	}
	var best *held
	for h := range p.circs {
		if h.serves(r, p.faults, now) && (best == nil || h.better(best)) {
			best = h
		}
	}
	if best == nil {
		if len(p.circs) >= p.core.cfg.Circuits && !p.evict() {
			return nil, errFull
		}
		var err error
		if best, err = p.begin(r, now); err != nil {
			return nil, err
		}
	}
	if !r.usage.Directory {
		p.ports.used(r.usage.Port, now)
	}
	if !best.taken {
		p.kick() // a spare one less
	}
	best.join(r, now)
	return best, nil
}

// evict drops the circuit without streams that was not used for longest; false: all have some. The caller holds mu.
func (p *pool) evict() bool {
	var old *held
	for h := range p.circs {
		if h.idle() && (old == nil || h.last.Before(old.last)) {
			old = h
		}
	}
	if old == nil {
		return false
	}
	p.drop(old)
	return true
}

// release says that the stream for which a circuit was got is on it, or will not be.
func (p *pool) release(h *held) {
	<-h.line
	p.unjoin(h)
}

// unjoin says that the request for which a circuit was taken will not be asked on it, or has been.
func (p *pool) unjoin(h *held) {
	p.mu.Lock()
	h.users--
	h.last = time.Now()
	p.mu.Unlock()
}

// discard takes a circuit that failed a stream out of use; streams that are on it may finish.
func (p *pool) discard(h *held) {
	p.mu.Lock()
	h.gone = true
	p.mu.Unlock()
	p.kick()
}

// begin starts to build a circuit for r. The caller holds mu.
func (p *pool) begin(r request, now time.Time) (*held, error) {
	relays := p.relays.Load()
	switch {
	case p.closed:
		return nil, ErrClosed
	case relays == nil || p.ctx == nil:
		return nil, ErrNotRunning
	}
	way, skipped, err := p.choose(relays, r.usage, r.excluded(), now)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if h := p.fromAside(r, way[0].ID, now); h != nil {
		return h, nil
	}
	p.count++
	h := &held{id: p.count, era: r.era, path: way, skipped: skipped, built: make(chan struct{}), born: now, last: now}
	p.circs[h] = struct{}{}
	p.core.events.tell(Event{Kind: EventCircuitBegun, Circuit: h.id, Path: h.path})
	if p.began.IsZero() {
		p.began = now
	}
	ctx := p.ctx
	p.running.Go(p.core.bug("a circuit"), func() {
		var c *circuit.Circuit
		var err error
		if bug := p.core.contain("making a circuit", func() { c, err = p.make(ctx, h) }); bug != nil {
			c, err = nil, bug
		}
		if bug := p.core.contain("settling a circuit", func() { p.settle(h, c, err, time.Now()) }); bug != nil {
			p.abandon(h, c, bug)
		}
		close(h.built)
		p.kick()
	})
	return h, nil
}

// list describes the circuits that are open.
func (p *pool) list(now time.Time) []CircuitInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	var cs []CircuitInfo
	for h := range p.circs {
		if h.isBuilt() && !h.dead() {
			sent, received := h.circuit.Cells()
			cs = append(cs, CircuitInfo{ID: h.id, Path: h.path, Streams: h.circuit.Streams(), Age: now.Sub(h.born), Used: h.taken, Purpose: h.purpose(), Closing: h.gone, Sent: sent, Received: received})
		}
	}
	slices.SortFunc(cs, func(a, b CircuitInfo) int { return int(b.Age - a.Age) })
	return cs
}
