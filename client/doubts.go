package client

import (
	"context"
	"errors"
	"io"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/circuit"
	"peel/circuit/stream"
	"peel/client/guard"
	"peel/client/path"
)

// How a client finds out whether a guard is to be left (spec/guard.md, section 6).
const (
	askWithin = 6 * time.Second  // for a guard's own answer, when it has had the question
	askMost   = time.Minute      // for all of it: then nothing is known
	askTimes  = 2                // answers that did not come, one after the other, and the guard is left
	askAgain  = 10 * time.Second // between askings of one that answers, doubled each time up to
	askSeldom = time.Minute
	askAnew   = 5 * time.Minute // so long none was asked: then as at first
	silent    = 5 * time.Second // so long nothing came although something is waited for: the guard is asked,
	lullLast  = 8 * time.Minute // and not again before askAgain, doubled each time up to this while nothing newer waits

	trials      = 8 // circuits by other guards that are tried before one is left in doubt,
	trialsGood  = 2 // and of these must work
	trialWithin = 10 * time.Second

	speakAfter = time.Minute // after its first stream it is known what becomes of a circuit, if nothing did before
	mostSpeak  = 1024        // such circuits; when there are more the oldest say nothing
)

// errLeft is why a circuit is given up whose guard was left.
var errLeft = errors.New("client: its guard was left: another is tried")

// answer is what came of asking a guard.
type answer uint8

const (
	unknown  answer = iota // it could not be asked, it is not known whether the question came there, or the link was lost
	answered               // it is there
	none                   // it has taken a circuit that ends at itself, had a question on it, and said nothing in time
)

// doubts are what a pool does to find out about its guard.
type doubts struct {
	asking, trying bool          // a guard is asked; others are tried
	next           time.Time     // no guard is asked before
	pause          time.Duration // and so long after
	alone          bool          // it was said that one gives no answer, and that there is no other
	heard          uint64        // cells that came on all circuits
	since          time.Time     // then that changed last, or something began to be waited for
	asked          bool          // after that
	newest         uint64        // the circuit that was begun last of those with streams that waited
	lull           time.Duration // so long none is asked because nothing comes
	lulled         time.Time     // after this
	spoken         []*used       // in the order of their first streams
}

// used is a circuit that was used, and is to say what became of it.
type used struct {
	h       *held
	at      time.Time
	carried bool // a stream was answered
	silent  bool // one was not, for as long as any is waited for
}

// askFirst asks the first relay of a path for its directory, on a circuit that ends there: so nobody else can be why there is no answer,
// but the network before it. Of that the link tells: when the relay has had the question, which is known by an echo, it has some time
// to answer; then all that it has sent has come with another echo. How long either takes is no matter.
func (c *core) askFirst(ctx context.Context, p path.Path) answer {
	building, cancel := context.WithTimeout(ctx, guardTimeout)
	defer cancel()
	made, err := c.build(building, p[:1])
	if err != nil {
		return unknown
	}
	defer made.Close()
	c.suspect()
	ctx, cancel = context.WithTimeout(ctx, askMost)
	defer cancel()
	if s, open := made.OpenDir(); open == nil {
		defer s.Close()
		// Whatever comes of both, what tells is the cells.
		within(ctx, s, func() { io.WriteString(s, probeRequest) }) // waits only if the relay takes no cells
		if err = made.Echo(ctx); err == nil {
			within(ctx, s, func() { s.Read(make([]byte, 1)) })
			err = made.Echo(ctx)
		}
	}
	_, received := made.Cells()
	var breach *circuit.ProtocolError
	switch over := made.Err(); {
	case linkLost(over):
		return unknown
	case errors.As(over, &breach):
		return none
	case received > 0, over != nil: // that it ends the circuit is an answer as well
		return answered
	case err != nil:
		return unknown
	}
	return none
}

// within does something that waits for a stream, for askWithin at most.
func within(ctx context.Context, s *stream.Stream, do func()) {
	s.SetDeadline(time.Now().Add(askWithin))
	stop := contain.OnDone(ctx, nil, func() { s.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	do()
}

// linkLost says whether something came to nothing because a link was lost: so a circuit or its building ends that was on it.
func linkLost(err error) bool {
	var d *circuit.DestroyedError
	return errors.As(err, &d) && d.Reason == cell.DestroyLinkClosed || errors.Is(err, link.ErrClosed)
}

// ended says whether a circuit was ended by a relay of it.
func ended(c *circuit.Circuit) bool {
	var d *circuit.DestroyedError
	var breach *circuit.ProtocolError
	return errors.As(c.Err(), &breach) || errors.As(c.Err(), &d) && !linkLost(c.Err())
}

// waits has the guard of a circuit asked, since the answer of a stream is late.
func (p *pool) waits(h *held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.askGuard(h.path, time.Now())
}

// askGuard asks the first relay of a path whether it is there; false: it is asked already, or was just now. The caller holds mu.
func (p *pool) askGuard(way path.Path, now time.Time) bool {
	d := &p.doubts
	if d.asking || p.closed || p.ctx == nil || len(way) == 0 || now.Before(d.next) || p.guards.Left(way[0].ID, p.core.cfg.Now()) {
		return false
	}
	if now.Sub(d.next) >= askAnew {
		d.pause = 0
	}
	d.asking = true
	ctx := p.ctx
	p.running.Go(p.core.bug("asking a guard"), func() {
		a := unknown
		bug := p.core.contain("asking a guard", func() {
			for range askTimes {
				if a = p.ask(ctx, way); a != none {
					return
				}
			}
		})
		if bug != nil {
			a = unknown
		}
		p.wasAsked(way[0].ID, a, now, time.Now())
	})
	return true
}

// noAnswer is why a guard is left that was asked.
const noAnswer = "it takes circuits, and gives no answer on one that ends at itself"

// wasAsked takes the answer of a guard that was asked at begun.
func (p *pool) wasAsked(id cell.NodeID, a answer, begun, now time.Time) {
	p.mu.Lock()
	defer p.unlock()
	d := &p.doubts
	d.asking = false
	seldom := min(max(2*d.pause, askAgain), askSeldom)
	switch {
	case a == answered:
		d.pause, d.alone = seldom, false
	case a != none || begun.Before(p.awoke):
		d.pause = askAgain
	case p.leave(id, noAnswer, true):
		d.pause, d.alone = 0, false
	default:
		d.pause = seldom
		if !d.alone {
			d.alone = true
			p.core.log.Warn("a guard is of no use, and there is no other that may be used: see what the configuration excludes", "why", noAnswer)
		}
	}
	d.next = now.Add(d.pause)
}

// listen has the guard asked when nothing came for long although something is waited for. The caller holds mu.
func (p *pool) listen(now time.Time) {
	var came uint64
	var waits *held // the last to be begun that waits
	for h := range p.circs {
		w := !h.isBuilt()
		if h.isBuilt() && !h.dead() {
			_, received := h.circuit.Cells()
			came += received
			w = h.users > 0 || h.circuit.Streams() > 0
		}
		if w && (waits == nil || h.id > waits.id) {
			waits = h
		}
	}
	d := &p.doubts
	if waits == nil || came != d.heard {
		d.heard, d.since, d.asked = came, now, false
	}
	if waits == nil {
		return
	}
	if waits.isBuilt() && waits.id > d.newest {
		d.newest, d.lull = waits.id, 0
	}
	if !d.asked && now.Sub(d.since) >= silent && now.Sub(d.lulled) >= d.lull {
		if d.asked = p.askGuard(waits.path, now); d.asked {
			d.lull, d.lulled = min(max(2*d.lull, askAgain), lullLast), now
		}
	}
}

// speaks notes that a circuit was used for a stream, and is to say what became of it, unless it has or is not asked any more. The caller
// holds mu.
func (p *pool) speaks(h *held, carried, silent bool, now time.Time) {
	d := &p.doubts
	if u := h.spoken; u != nil {
		u.carried, u.silent = u.carried || carried, u.silent || silent
		return
	}
	if h.noted {
		return
	}
	if len(d.spoken) >= mostSpeak {
		d.spoken[0] = nil
		d.spoken = d.spoken[1:]
	}
	h.spoken = &used{h: h, at: now.Add(speakAfter), carried: carried, silent: silent}
	d.spoken = append(d.spoken, h.spoken)
}

// hear judges guards by what became of circuits that were used. They speak in the order in which they were first used: or those that broke,
// which is known soon, would come before those that serve, and of many that are used at once all would seem to break. The caller holds mu.
func (p *pool) hear(now time.Time) {
	d := &p.doubts
	for len(d.spoken) > 0 {
		u := d.spoken[0]
		c := u.h.circuit
		failed := u.silent || ended(c)
		if !failed && now.Before(u.at) && !linkLost(c.Err()) && !(u.carried && u.h.idle()) {
			return
		}
		d.spoken[0] = nil
		d.spoken = d.spoken[1:]
		switch {
		case u.h.born.Before(p.awoke) || linkLost(c.Err()):
		case failed:
			p.judge(u.h.path, guard.Broken, now)
		case u.carried:
			p.judge(u.h.path, guard.Served, now)
		}
	}
}

// fetched judges a guard by a directory stream that was open for so long: whether any of the answer came. Circuits of fetches carry nothing
// else, and what they ask for is there, so that one which gets no answer is the fault of a relay, and nobody can join it to another.
func (p *pool) fetched(h *held, came bool, open time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch {
	case came:
		p.judge(h.path, guard.Answered, now)
	case open >= trialWithin && p.ctx.Err() == nil && !h.born.Before(p.awoke) && !linkLost(h.circuit.Err()):
		p.judge(h.path, guard.Unanswered, now)
	}
}

// judge tells what became of a circuit, and has others tried if that puts its guard in doubt. The caller holds mu.
func (p *pool) judge(way path.Path, o guard.Outcome, now time.Time) {
	if len(way) < 2 || !p.guards.Judge(way[0].ID, o, way[1].ID, way[len(way)-1].ID, p.core.cfg.Now()) {
		return
	}
	d := &p.doubts
	if d.trying || p.closed || p.ctx == nil {
		return
	}
	d.trying = true
	ctx, id := p.ctx, way[0].ID
	p.running.Go(p.core.bug("trying other guards"), func() {
		better := false
		if bug := p.core.contain("trying other guards", func() { better = p.othersDo(ctx, id) }); bug != nil {
			better = false
		}
		p.wereTried(id, better, now)
	})
}

// wereTried ends the doubts of a guard, one way or the other, after others were tried from begun on.
func (p *pool) wereTried(id cell.NodeID, better bool, begun time.Time) {
	p.mu.Lock()
	defer p.unlock()
	p.doubts.trying = false
	why := p.guards.Doubt(id)
	if why != "" && better && !begun.Before(p.awoke) && p.leave(id, why, false) {
		return
	}
	p.guards.Clear(id)
	if why != "" && p.ctx.Err() == nil {
		p.core.log.Warn("nearly all circuits fail, and no better by another guard: it is the network, or what is asked for", "why", why)
	}
}

// othersDo says whether circuits work that enter by other guards than one. They carry nothing but a question to their last relay.
func (p *pool) othersDo(ctx context.Context, id cell.NodeID) bool {
	good := 0
	for i := range trials {
		way := p.trial(id, time.Now())
		if way == nil || good+trials-i < trialsGood {
			return false
		}
		if p.works(ctx, way) {
			if good++; good == trialsGood {
				return true
			}
		}
	}
	return false
}

// trial is a path by the guard that would be next if one were left; nil: there is none.
func (p *pool) trial(id cell.NodeID, now time.Time) path.Path {
	r := p.relays.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	g, err := p.guards.Pick(func(n cell.NodeID) bool { return n == id }, p.core.cfg.Now())
	if r == nil || err != nil {
		return nil
	}
	way, err := p.faults.choose(r, path.Usage{Port: r.port, Guard: g}, nil, now, p.core.chance.paths)
	if err != nil {
		return nil
	}
	return way
}

// works builds a circuit and has its last relay answer.
func (p *pool) works(ctx context.Context, way path.Path) bool {
	ctx, cancel := context.WithTimeout(ctx, trialWithin)
	defer cancel()
	c, err := p.build(ctx, way)
	if err != nil {
		var at *circuit.BuildError
		if errors.As(err, &at) && at.Hop == 0 {
			p.mu.Lock()
			p.guards.Failed(way[0].ID, p.core.cfg.Now(), p.core.chance.guards)
			p.mu.Unlock()
		}
		return false
	}
	defer c.Close()
	return probe(ctx, c) == nil
}

// leave has circuits enter by another guard for some days. Those of this one that are being built are given up; of the others, those in
// use carry on, unless it is known that nothing comes. false: there is no other, or it is left already. The caller holds mu.
func (p *pool) leave(id cell.NodeID, why string, lost bool) bool {
	until, ok := p.guards.Leave(id, p.core.cfg.Now(), p.core.chance.guards)
	if !ok {
		return false
	}
	p.core.log.Warn("a guard is left for now, and the next of those chosen before is used: it is broken, overloaded, or drops what it does not like",
		"why", why, "until", until.UTC().Format("2006-01-02 UTC"))
	for h := range p.circs {
		if len(h.path) == 0 || h.path[0].ID != id {
			continue
		}
		h.linger()
		switch {
		case !h.isBuilt():
			h.left = true
			if h.quit != nil {
				h.quit(errLeft)
			}
		case lost || !h.taken:
			p.drop(h)
		}
	}
	if p.aside != nil && p.aside.h.path[0].ID == id {
		p.dropAside()
	}
	p.fails, p.retry = 0, time.Time{}
	p.kick()
	return true
}

// unused ends a circuit, if there is one, that became of no use while it was built. The caller holds mu.
func (p *pool) unused(h *held, c *circuit.Circuit, why error) {
	h.err = why
	delete(p.circs, h)
	if c != nil {
		p.ended = append(p.ended, c)
	}
	p.core.events.tell(Event{Kind: EventCircuitFailed, Circuit: h.id, Path: h.path, Err: why})
}
