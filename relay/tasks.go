package relay

import (
	"context"

	"peel/cell"
)

// A task is work for a circuit: a stream to the world or to the directory, or an extension. Its place is a circuit's, or, of an
// extension, a peer's. Streams cannot keep circuits from growing, nor the other way round.
type task struct {
	place
	name string
	do   func(context.Context)
	drop func(cell.EndReason) // ends early what it works for; called by another goroutine than that of do, at most once
}

func newTask(name string, of owner, do func(context.Context), drop func(cell.EndReason)) *task {
	return &task{place: place{owner: of}, name: name, do: do, drop: drop}
}

// later runs do in a goroutine that the relay waits for at its end, unless that has begun: then all circuits are ended anyway.
func (r *Relay) later(what string, do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closing {
		r.wg.Go(r.bug(what), do)
	}
}

// start runs t as a task of its kind until life ends, and the relay waits for it at its end. If it panics, only what drop
// ends is lost. False: there is no place for it, or the relay is closing.
func (r *Relay) start(life context.Context, kind *crowd, t *task) bool {
	ctx, stop := context.WithCancel(life)
	t.lose = func() {
		r.guard(t.name, func() { t.drop(cell.EndBusy) })
		stop()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var shed *place
	ok := !r.closing
	if ok {
		shed, ok = kind.enter(&t.place)
	}
	if !ok {
		stop()
		return false
	}
	if shed != nil { // in a goroutine of its own, as the caller holds locks of its circuit
		r.wg.Go(r.bug("a task that lost its place"), shed.lose)
	}
	r.wg.Go(r.bug(t.name), func() {
		defer stop()
		if !r.guard(t.name, func() { t.do(ctx) }) {
			r.guard(t.name, func() { t.drop(cell.EndInternal) })
		}
		r.mu.Lock()
		kind.leave(&t.place)
		r.mu.Unlock()
	})
	return true
}
