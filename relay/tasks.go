package relay

import (
	"container/heap"
	"context"
	"slices"

	"peel/cell"
)

// A task is work for a circuit: a stream to the world or to the directory, or an extension.
type task struct {
	name string
	of   any // who holds its place: a circuit, or a link
	do   func(context.Context)
	drop func(cell.EndReason) // ends early what it works for; called by another goroutine than that of do, at most once
	stop context.CancelFunc
}

// tasks are the places for what runs of one kind. When all are taken, a holder that would still have fewer takes one from
// him who has most, the newest of his. Streams cannot keep circuits from growing, nor the other way round.
type tasks struct {
	most, each int // places in all; of one holder, 0: as many

	n    int // places taken
	of   map[any]*holder
	rank ranking // the same, the one with most first
}

// A holder has places; none is left without any.
type holder struct {
	of    any
	tasks []*task // in the order in which they came
	at    int     // in the ranking
}

func newTasks(most, each int) *tasks {
	return &tasks{most: most, each: each, of: make(map[any]*holder)}
}

// enter gives a place to t, and says whose place that was, if it was somebody's. Not ok: there is none.
func (k *tasks) enter(t *task) (shed *task, ok bool) {
	own := k.of[t.of]
	has := 0
	if own != nil {
		has = len(own.tasks)
	}
	if k.each > 0 && has >= k.each {
		return nil, false
	}
	if k.n >= k.most {
		if k.n == 0 || len(k.rank[0].tasks) <= has+1 {
			return nil, false
		}
		all := k.rank[0].tasks
		shed = all[len(all)-1]
		k.leave(shed)
	}
	if own == nil {
		own = &holder{of: t.of}
		k.of[t.of] = own
		heap.Push(&k.rank, own)
	}
	own.tasks = append(own.tasks, t)
	heap.Fix(&k.rank, own.at)
	k.n++
	return shed, true
}

// leave gives the place of t back, unless it was taken away.
func (k *tasks) leave(t *task) {
	h := k.of[t.of]
	if h == nil {
		return
	}
	i := slices.Index(h.tasks, t)
	if i < 0 {
		return
	}
	k.n--
	if h.tasks = slices.Delete(h.tasks, i, i+1); len(h.tasks) > 0 {
		heap.Fix(&k.rank, h.at)
		return
	}
	heap.Remove(&k.rank, h.at)
	delete(k.of, h.of)
}

// A ranking is a heap of holders with the one that has most places on top.
type ranking []*holder

func (r ranking) Len() int           { return len(r) }
func (r ranking) Less(i, j int) bool { return len(r[i].tasks) > len(r[j].tasks) }
func (r ranking) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	r[i].at, r[j].at = i, j
}

func (r *ranking) Push(h any) {
	h.(*holder).at = len(*r)
	*r = append(*r, h.(*holder))
}

func (r *ranking) Pop() any {
	last := len(*r) - 1
	h := (*r)[last]
	(*r)[last] = nil
	*r = (*r)[:last]
	return h
}

// start runs t as a task of its kind until life ends, and the relay waits for it at its end. If it panics, only what drop
// ends is lost. False: there is no place for it, or the relay is closing.
func (r *Relay) start(life context.Context, kind *tasks, t *task) bool {
	ctx, stop := context.WithCancel(life)
	t.stop = stop
	r.mu.Lock()
	defer r.mu.Unlock()
	var shed *task
	ok := !r.closing
	if ok {
		shed, ok = kind.enter(t)
	}
	if !ok {
		stop()
		return false
	}
	if shed != nil { // in a goroutine of its own, as the caller holds locks of its circuit
		r.wg.Go(func() {
			r.guard(shed.name, func() { shed.drop(cell.EndBusy) })
			shed.stop()
		})
	}
	r.wg.Go(func() {
		defer stop()
		if !r.guard(t.name, func() { t.do(ctx) }) {
			r.guard(t.name, func() { t.drop(cell.EndInternal) })
		}
		r.mu.Lock()
		kind.leave(t)
		r.mu.Unlock()
	})
	return true
}
