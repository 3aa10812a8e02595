package link

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peel/cell"
)

// Who fills the memory for cells with many circuits has them ended, the one that waits longest first, and not all of them looked at for each
// that ends. One that moved meanwhile is passed over.
func TestManyThatStandAreNotLookedAtForEachThatEnds(t *testing.T) {
	const links, each, few = 5, 200, 10
	b := NewBudget(1 << 30)
	var x cell.Cell
	var all []*Circ // the one that waits longest first
	for range links {
		l := &Conn{cfg: Config{Budget: b}, circs: make(map[cell.CircID]*Circ)}
		b.join(l)
		for i := range cell.CircID(each) {
			l.circs[i] = &Circ{conn: l, id: i, state: open}
			all = append(all, l.circs[i])
		}
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, c := range all {
		for n := range 2 {
			c.queue.push(&x, c.id, nil, time.Duration(i+n*len(all)))
		}
		b.hold(1)
		b.queue(2)
	}
	all[3].queue.pop(&x) // its second cell came behind the first ones of all others
	b.queue(-1)
	last := append(append([]*Circ(nil), all[:3]...), all[4:]...)
	for i, want := range last[:len(last)-few] {
		if i == 20 { // found, and moves then
			all[30].queue.pop(&x)
			b.queue(-1)
		}
		if want == all[30] {
			continue
		}
		b.most = b.queued.Load() + queueSlack*b.queues.Load() - 1
		b.relieve()
		if want.state != closing {
			t.Fatalf("circuit %d is not the next that ended", i)
		}
	}
	ended := int(b.Stats().Ended)
	if ended != len(last)-few-1 || all[3].state != open || all[30].state != open {
		t.Errorf("%d ended, of %d", ended, len(last)-few-1)
	}
	if most := ended/mostStanding + 2; b.line.looks > most {
		t.Errorf("all were looked at %d times, want at most %d", b.line.looks, most)
	}
}

// Many readers find at the same moment that there is too much. One circuit is ended if that does.
func TestManyReadersEndNoMoreThanNeed(t *testing.T) {
	b := NewBudget(1 << 30)
	l := &Conn{cfg: Config{Budget: b}, circs: make(map[cell.CircID]*Circ)}
	b.join(l)
	var x cell.Cell
	for i := range cell.CircID(200) {
		l.circs[i] = &Circ{conn: l, id: i, state: open}
		l.circs[i].queue.push(&x, i, nil, time.Duration(i))
		b.hold(1)
		b.queue(1)
	}
	b.most = b.queued.Load() + queueSlack*b.queues.Load() - 1
	b.mu.Lock()
	var readers sync.WaitGroup
	var found atomic.Int32
	for range 50 {
		readers.Go(func() {
			if b.full() {
				found.Add(1)
			}
			b.relieve()
		})
	}
	for found.Load() < 50 {
		runtime.Gosched()
	}
	b.mu.Unlock()
	readers.Wait()
	if n := b.Stats().Ended; n != 1 {
		t.Errorf("%d were ended", n)
	}
}
