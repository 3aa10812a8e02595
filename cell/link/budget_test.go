package link_test

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// budget is one of so many cells.
func budget(cells int64) *link.Budget { return link.NewBudget(cells * link.QueuedSize) }

// checkBudget fails unless b counts exactly what is held on its node's links, and no more than it may.
func checkBudget(t *testing.T, b *link.Budget, links ...*link.Conn) {
	t.Helper()
	var extra, queued, queues int64
	for _, l := range links {
		extra += link.Extra(l)
		queued += link.Queued(l)
		queues += link.Waiting(l)
	}
	if n := link.Queues(b); n != queues {
		t.Fatalf("counted %d queues, there are %d", n, queues)
	}
	if s := b.Stats(); s.Extra != extra || s.Queued != queued || extra > s.Cells || queued > s.Cells {
		t.Fatalf("counted %+v, there are %d and %d", s, extra, queued)
	}
}

// TestSniperHoldsNoMoreThanWasGranted: a client opens circuits, grants credit without end and never reads, while honest
// circuits go the same way.
func TestSniperHoldsNoMoreThanWasGranted(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		const bad, honest = 20, 5
		n := &network{t: t}
		g, m := n.node("guard"), n.node("middle")
		shared := n.join(g, m, 30*ms, 100, 100)
		last := n.join(m, n.node("exit"), 30*ms, 1000, 1000)
		first := n.join(&link.Config{}, g, 30*ms, 1000, 1000)
		var good []*path
		for range honest {
			p := n.open(first, shared, last)
			p.exit.send(forever)
			good = append(good, p)
		}
		settle(3 * time.Second)
		before := total(good, 2*time.Second)

		na, nb := linktest.Pipe(linktest.Options{Delay: 30 * ms, Window: 256 << 10})
		la, lb, erra, errb := linktest.Shake(na, nb, &link.Config{}, g, linktest.Peer(g))
		if erra != nil || errb != nil {
			t.Fatal(erra, errb)
		}
		defer la.Close()
		linktest.Serve(t, lb, n)
		raw := link.NewRaw(la)
		var paths []*path
		for i := range bad {
			p := &path{net: n, wires: []*wire{{near: la, far: lb}, shared, last}, near: make([]*link.Circ, 3), far: make([]*link.Circ, 3)}
			p.client, p.exit = &terminal{}, &terminal{}
			n.mu.Lock()
			p.id = len(n.paths)
			n.paths = append(n.paths, p)
			n.mu.Unlock()
			c := aCreate
			c.Credit = 65535
			binary.BigEndian.PutUint32(c.Key[:], uint32(p.id))
			raw.Send(pack(t, theirs+cell.CircID(i), cell.CmdCreate, c))
			paths = append(paths, p)
		}
		settle(time.Second)
		for i, p := range paths {
			raw.Send(pack(t, 0, cell.CmdCredit, cell.CreditCell{Grants: []cell.Grant{{Circ: theirs + cell.CircID(i), Cells: 1 << 30}}}))
			p.exit.send(forever)
		}
		sizes := make([]int64, 2*bad) // the largest there were
		for range 150 {
			settle(20 * ms)
			for i, p := range paths {
				sizes[2*i] = max(sizes[2*i], link.StateOf(p.near[1]).Size)
				sizes[2*i+1] = max(sizes[2*i+1], link.StateOf(p.near[2]).Size)
			}
		}
		after := total(good, 2*time.Second)
		var atGuard, atMiddle, granted int64
		for i, p := range paths {
			atGuard += int64(link.StateOf(p.far[0]).Queued)
			atMiddle += int64(link.StateOf(p.far[1]).Queued)
			granted += sizes[2*i] + sizes[2*i+1]
		}
		t.Logf("held for the sniper: %d at the middle, %d at the guard (644, 1280), sizes %d; honest %.1f %% before, %.1f %% after (99.4)",
			atMiddle, atGuard, granted, 100*before/cellRate(100), 100*after/cellRate(100))
		if atGuard+atMiddle > granted || after < 0.99*before {
			t.Error("too much, or others suffer")
		}
	})
}

// total is how many cells a second come on paths in all.
func total(paths []*path, span time.Duration) float64 {
	sum := 0
	for _, p := range paths {
		sum -= p.client.count()
	}
	settle(span)
	for _, p := range paths {
		sum += p.client.count()
	}
	return float64(sum) / span.Seconds()
}

// TestStuckUploadsEnd: uploads fill a relay and then stand still. Others go on within the budget, and in the end without them.
func TestStuckUploadsEnd(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		const bad, honest, cells = 20, 4, 2000
		n := &network{t: t}
		g, m := n.node("guard"), n.node("middle")
		b := budget(cells)
		m.Budget = b
		var over atomic.Int64
		m.Tap = func(bool, []cell.Cell) { // at every batch of cells
			if b.Stats().Extra > cells {
				over.Add(1)
			}
		}
		up := n.join(&link.Config{}, g, 10*ms, 0, 0)
		in := n.join(g, m, 10*ms, 1000, 50)
		out := n.join(m, n.node("exit"), 10*ms, 1000, 1000)
		var stuck, good []*path
		for range honest {
			p := n.open(up, in, out)
			p.exit.send(forever)
			good = append(good, p)
		}
		for range bad {
			stuck = append(stuck, n.open(up, in, out))
		}
		settle(time.Second)
		for _, p := range stuck {
			p.client.send(forever)
		}
		settle(time.Second)
		for _, p := range stuck {
			p.exit.mu.Lock()
			p.exit.stuck = true
			p.exit.mu.Unlock()
		}
		most := int64(0)
		watch := func(span time.Duration) float64 {
			was := 0
			for _, p := range good {
				was -= p.client.count()
			}
			for range span / (50 * ms) {
				settle(50 * ms)
				checkBudget(t, b, in.far, out.near)
				most = max(most, b.Stats().Extra)
			}
			for _, p := range good {
				was += p.client.count()
			}
			return float64(was) / span.Seconds() / cellRate(50) * 100
		}
		during := watch(3 * time.Second)
		ended := 0
		watch(11 * time.Second)
		after := watch(2 * time.Second)
		for _, p := range stuck {
			if p.isClosed() {
				ended++
			}
		}
		t.Logf("Σ extra at most %d of %d (15356 of 16000); honest %.1f %% during (40), %.1f %% after %d of %d stuck circuits were ended (100)", most, cells, during, after, ended, bad)
		if over.Load() > 0 {
			t.Errorf("Σ extra was above the budget at %d batches", over.Load())
		}
		for _, p := range good {
			if p.isClosed() {
				t.Error("an honest circuit was ended")
			}
		}
		if ended == 0 || after < 98 {
			t.Error("the stuck ones still hold memory")
		}
	})
}

// TestSmallBudgetIsShared: 30 downloads with a budget of a fortieth of what they would take.
func TestSmallBudgetIsShared(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		n := &network{t: t}
		g, m := n.node("guard"), n.node("middle")
		b := budget(1000)
		m.Budget = b
		shared := n.join(g, m, 30*ms, 1000, 1000)
		out := n.join(m, n.node("exit"), 30*ms, 1000, 1000)
		first := n.join(&link.Config{}, g, 30*ms, 0, 0)
		var paths []*path
		for range 30 {
			p := n.open(first, shared, out)
			p.exit.send(forever)
			paths = append(paths, p)
		}
		settle(time.Second)
		shares := make([]float64, len(paths))
		for i, p := range paths {
			shares[i] = -float64(p.client.count())
		}
		for range 10 {
			settle(100 * ms)
			checkBudget(t, b, shared.far, out.near)
		}
		sum := 0.0
		for i, p := range paths {
			shares[i] += float64(p.client.count())
			sum += shares[i]
		}
		index, least := jain(shares)
		t.Logf("%.0f Mbit/s (395), Jain %.4f (1.000), least by mean %.2f (0.98), %+v", sum*cell.Size*8/1e6, index, least, b.Stats())
		if index < 0.99 || least < 0.8 || b.Stats().Ended != 0 {
			t.Error("unfair")
		}
	})
}

// TestQueuedCellsHaveABound: what is queued never passes the budget, and who waits longest makes room.
func TestQueuedCellsHaveABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		g, m := n.node("guard"), n.node("middle")
		b := budget(200)
		m.Budget = b
		up := n.join(&link.Config{}, g, ms, 0, 0)
		in := n.join(g, m, ms, 0, 0)
		out := n.join(m, n.node("exit"), ms, 0, 0)
		var paths []*path
		for i := range 10 {
			p := n.open(up, in, out)
			paths = append(paths, p)
			p.exit.mu.Lock()
			p.exit.stuck = true
			p.exit.mu.Unlock()
			p.client.send(64 + 30) // 64 go to the exit, 30 stay here
			settle(50 * ms)
			checkBudget(t, b, in.far, out.near)
			if i < 3 && b.Stats().Ended != 0 {
				t.Fatalf("%d circuits ended, and there was room", b.Stats().Ended)
			}
		}
		ended := int(b.Stats().Ended)
		if ended < 4 || ended > 7 { // what is being read counts as queued
			t.Errorf("%d circuits ended", ended)
		}
		for i, p := range paths {
			if p.isClosed() != (i < ended) {
				t.Errorf("circuit %d of 10, the oldest waits longest: ended: %v", i, p.isClosed())
			}
		}
		// A circuit that moves is not ended for one that stands still.
		p := n.open(up, in, out)
		p.client.send(2000)
		settle(time.Second)
		checkBudget(t, b, in.far, out.near)
		if p.isClosed() || p.exit.count() != 2000 {
			t.Errorf("%d cells came", p.exit.count())
		}
		alive(t, in.far, out.near)
	})
}

// TestUnusedCreditEnds: who keeps credit above the base that it does not use, and does not give it back, is ended when
// memory is short.
func TestUnusedCreditEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget(640)
		h := &host{take: true}
		r, l := rawPair(t, h, func(c *link.Config) { c.Budget, c.Credit = b, 64 })
		asks := make(chan uint16, 10000)
		go func() {
			for {
				cells, err := r.Receive()
				if err != nil {
					return
				}
				for i := range cells {
					if m, err := cell.ParseCreditCell(cells[i].Body()); err == nil && m.Ask != 0 {
						asks <- m.Ask
					}
				}
			}
		}()
		for i := range cell.CircID(40) {
			r.Send(pack(t, theirs+i, cell.CmdCreate, aCreate))
			settle(time.Millisecond)
			for range 8 {
				for range 48 {
					r.Send(relayCell(theirs + i))
				}
				settle(20 * ms)
				select {
				case a := <-asks:
					r.Send(pack(t, 0, cell.CmdCredit, cell.CreditCell{Answer: a}))
				default:
				}
			}
		}
		settle(time.Second)
		s := b.Stats()
		if s.Extra < s.Cells*3/4 || s.Extra > s.Cells {
			t.Fatalf("no shortage: %+v %+v", s, link.StateOf(h.end(0).circ))
		}
		checkBudget(t, b, l)
		for range 30 { // some of them are used
			settle(time.Second)
			for i := range cell.CircID(3) {
				r.Send(relayCell(theirs + i))
			}
		}
		settle(time.Second)
		s = b.Stats()
		if s.Ended == 0 || s.Extra > s.Cells*3/4 {
			t.Errorf("%+v", s)
		}
		for i := range 3 {
			if c := h.end(i).ended(); len(c) != 0 {
				t.Errorf("circuit %d, which is used, was ended: %v", i, c)
			}
		}
		checkBudget(t, b, l)
		alive(t, l)
	})
}

// TestEndedForMemoryHearsItOnce: the Receiver of a circuit that is ended for the sake of others hears Closed once, last.
func TestEndedForMemoryHearsItOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget(50 + 2*14)
		h := &host{take: true}
		la, lb := pair(t, h, func(x, y *link.Config) { y.Budget, x.Credit = b, 16 }, linktest.Options{})
		var ends []*end
		for i := range 4 {
			e := openCirc(t, la)
			settle(time.Millisecond)
			ends = append(ends, e)
			o := h.end(i)
			o.circ.Send(numberCells(0, 16)) // all the credit there is: nobody takes them
			synctest.Wait()
			o.circ.Forward(o.circ, numberCells(16, 20))
		}
		settle(time.Second)
		e := ends[3]
		e.circ.Send(numberCells(0, 1)) // a cell comes: now somebody looks
		settle(time.Second)
		if s := b.Stats(); s.Ended != 2 || s.Queued != 40 {
			t.Errorf("%+v", s)
		}
		for i := range 4 {
			want := []cell.DestroyReason{}
			if i < 2 {
				want = append(want, cell.DestroyBusy)
			}
			if got := h.end(i).ended(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("circuit %d heard %v", i, got)
			}
			if i < 2 {
				want[0] = cell.DestroyNone // what has no name is told no reasons
			}
			if got := ends[i].ended(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("circuit %d heard %v at the other end", i, got)
			}
		}
		alive(t, la, lb)
	})
}

// TestPoolBoundsAcceptedLinksToo: what a pool's links hold counts in its budget, whoever dialled them.
func TestPoolBoundsAcceptedLinksToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{take: true}
		cfg := linktest.Config(t, "b")
		cfg.Budget = budget(1000)
		p := link.NewPool(link.PoolConfig{Link: *cfg, Handler: h})
		defer p.Close()
		na, nb := linktest.Pipe(linktest.Options{})
		la, lb, erra, errb := linktest.Shake(na, nb, &link.Config{}, cfg, linktest.Peer(cfg))
		if erra != nil || errb != nil {
			t.Fatal(erra, errb)
		}
		p.Add(lb)
		linktest.Serve(t, la, nil)
		e := openCirc(t, la)
		e.sendAll(10000)
		settle(time.Second)
		if s := p.Budget(); s.Cells != 1000 || s.Extra == 0 || s.Extra > 1000 || s.Extra != link.Extra(lb) {
			t.Errorf("%+v", s)
		}
		la.Close()
		settle(time.Second)
		if s := p.Budget(); s.Extra != 0 || s.Queued != 0 {
			t.Errorf("without links: %+v", s)
		}
	})
}
