package link_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// A ledger counts what is on a wire, by circuit and direction: what went in and has not come out.
type ledger struct {
	mu     sync.Mutex
	cells  [2]map[cell.CircID]int64 // up, down
	credit [2]map[cell.CircID]int64 // granted in this direction, less what came out
	back   [2]map[cell.CircID]int64 // given back in this direction
	given  int                      // how often
}

func newLedger() *ledger {
	l := new(ledger)
	for d := range 2 {
		l.cells[d], l.credit[d], l.back[d] = make(map[cell.CircID]int64), make(map[cell.CircID]int64), make(map[cell.CircID]int64)
	}
	return l
}

// tap sees cells that go in direction dir (in false) or come from the other.
func (l *ledger) tap(t *testing.T, dir int) func(bool, []cell.Cell) {
	return func(in bool, cells []cell.Cell) {
		l.mu.Lock()
		defer l.mu.Unlock()
		d, sign := dir, int64(1)
		if in {
			d, sign = 1-dir, -1
		}
		for i := range cells {
			switch cells[i].Command() {
			case cell.CmdRelay:
				l.cells[d][cells[i].Circ()] += sign
			case cell.CmdCredit:
				m, err := cell.ParseCreditCell(cells[i].Body())
				if err != nil {
					t.Error(err)
				}
				for _, g := range m.Grants {
					if g.Cells > 0 {
						l.credit[d][g.Circ] += sign * int64(g.Cells)
					} else {
						l.back[d][g.Circ] -= sign * int64(g.Cells)
						if !in {
							l.given++
						}
					}
				}
			}
		}
	}
}

// check compares the two ends of one direction of a circuit with what is on the wire between (spec/flow.md, section 7).
func (l *ledger) check(from, to *link.Circ, dir int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := from.ID()
	s, r := link.StateOf(from), link.StateOf(to)
	if !s.Open || !r.Open {
		return nil
	}
	onWire := l.cells[dir][id] + l.credit[1-dir][id] + l.back[dir][id]
	switch {
	case r.Left > r.Recv || r.Recv > r.Limit:
		return fmt.Errorf("I1: %+v", r)
	case r.Recv-r.Left > r.Limit-r.Left || r.Limit-r.Left > 4096: // no base here is larger
		return fmt.Errorf("I2: %+v", r)
	case s.Credit+onWire != r.Limit-r.Recv:
		return fmt.Errorf("I3: credit %d, on the wire %d, limit − recv %d", s.Credit, onWire, r.Limit-r.Recv)
	case s.Credit < 0:
		return fmt.Errorf("I6: the sender has credit %d", s.Credit)
	}
	return nil
}

// randomNetwork is a chain of wires of random delay and rate, some of whose nodes have a small budget.
type randomNetwork struct {
	*network
	rng     *rand.Rand
	ledgers []*ledger
	budgets map[*link.Budget][]*link.Conn
	last    map[*link.Circ]link.State // as of the last look
	looks   int
}

func newRandomNetwork(t *testing.T, seed uint64) *randomNetwork {
	n := &randomNetwork{network: &network{t: t}, rng: rand.New(rand.NewPCG(seed, 1)),
		budgets: make(map[*link.Budget][]*link.Conn), last: make(map[*link.Circ]link.State)}
	hops := 2 + n.rng.IntN(3)
	nodes := make([]*link.Config, hops+1)
	for i := range nodes {
		nodes[i] = n.node(fmt.Sprint("node", i))
		if i == 0 {
			nodes[i] = &link.Config{}
		}
		nodes[i].Credit = []uint16{0, 0, 0, 0, 1, 4, 16, 200}[n.rng.IntN(8)]
		if n.rng.IntN(3) > 0 {
			nodes[i].Budget = budget(int64([]int{100, 300, 1000, 5000}[n.rng.IntN(4)]))
			link.BoundQueued(nodes[i].Budget, 1<<20) // nothing is to be ended
		}
	}
	rate := func() float64 { return []float64{5, 10, 20, 50, 100, 0}[n.rng.IntN(6)] }
	for i := range hops {
		l := newLedger()
		a, b := *nodes[i], *nodes[i+1]
		a.Tap, b.Tap = l.tap(t, 0), l.tap(t, 1)
		w := n.join(&a, &b, time.Duration(n.rng.IntN(60))*ms, rate(), rate())
		n.ledgers = append(n.ledgers, l)
		if a.Budget != nil {
			n.budgets[a.Budget] = append(n.budgets[a.Budget], w.near)
		}
		if b.Budget != nil {
			n.budgets[b.Budget] = append(n.budgets[b.Budget], w.far)
		}
	}
	return n
}

// check looks at everything while nothing runs.
func (n *randomNetwork) check() error {
	n.looks++
	for _, p := range n.paths {
		for i, l := range n.ledgers {
			for dir, ends := range [2][2]*link.Circ{{p.near[i], p.far[i]}, {p.far[i], p.near[i]}} {
				to := ends[1]
				r, was := link.StateOf(to), n.last[to]
				n.last[to] = r
				if err := l.check(ends[0], to, dir); err != nil {
					return fmt.Errorf("circuit %d, wire %d, direction %d: %w", p.id, i, dir, err)
				}
				if r.Size > was.Size*3/2+1 && 2*(r.Left-was.Left) < was.Size && r.Limit >= was.Limit {
					return fmt.Errorf("I7: %+v, then %+v", was, r)
				}
			}
		}
	}
	for b, links := range n.budgets {
		var extra, queued, queues int64
		for _, l := range links {
			extra += link.Extra(l)
			queued += link.Queued(l)
			queues += link.Waiting(l)
		}
		if n := link.Queues(b); n != queues {
			return fmt.Errorf("counted %d queues, there are %d", n, queues)
		}
		if s := b.Stats(); s.Extra != extra || s.Queued != queued || extra > s.Cells || s.Ended > 0 {
			return fmt.Errorf("I4: counted %+v, there are %d and %d", s, extra, queued)
		}
	}
	return nil
}

// run lets circuits come, flows start and wires change, and returns the first thing that is wrong.
func (n *randomNetwork) run() error {
	want := make(map[*terminal]int)
	for range 1 + n.rng.IntN(5) {
		n.open(n.wires...)
	}
	for range 40 + n.rng.IntN(60) {
		p := n.paths[n.rng.IntN(len(n.paths))]
		w := n.wires[n.rng.IntN(len(n.wires))]
		end := []*linktest.Conn{w.pipe, w.other}[n.rng.IntN(2)]
		switch n.rng.IntN(8) {
		case 0, 1:
			from, to := p.client, p.exit
			if n.rng.IntN(2) == 0 {
				from, to = to, from
			}
			k := n.rng.IntN(200)
			want[to] += k
			from.send(k)
		case 2:
			end.Stall(time.Duration(n.rng.IntN(300)) * ms)
		case 3:
			end.SetRate(mbit(2 + 50*n.rng.Float64()))
		case 4:
			if n.rng.IntN(4) == 0 {
				settle(time.Duration(n.rng.IntN(20)) * time.Second) // idle credit goes back
			}
		}
		settle(time.Duration(n.rng.IntN(30)) * ms)
		if err := n.check(); err != nil {
			return err
		}
	}
	for range 600 {
		settle(time.Second)
		if err := n.check(); err != nil {
			return err
		}
		ended := true
		for e, k := range want {
			ended = ended && e.count() == k
		}
		if ended {
			break
		}
	}
	for e, k := range want {
		if e.count() != k || e.bad {
			return fmt.Errorf("%d of %d cells came, in order: %v", e.count(), k, !e.bad)
		}
	}
	settle(20 * time.Second)
	for b := range n.budgets {
		if s := b.Stats(); s.Extra != 0 || s.Queued != 0 {
			return fmt.Errorf("at rest: %+v", s)
		}
	}
	for i, w := range n.wires {
		link.Agree(n.t, w.near, w.far)
		for d := range 2 {
			for id := range n.ledgers[i].cells[d] {
				if l := n.ledgers[i]; l.cells[d][id]+l.credit[d][id]+l.back[d][id] != 0 {
					return fmt.Errorf("at rest there is something on wire %d", i)
				}
			}
		}
	}
	alive(n.t)
	return n.check()
}

// TestRandomNetworks checks the invariants in networks of real links, again and again while cells flow. Every flow ends,
// and no credit is lost.
func TestRandomNetworks(t *testing.T) {
	const groups = 8
	runs := uint64(6)
	switch {
	case slow:
		runs = 75
	case link.RaceEnabled:
		runs = 2
	}
	for g := range uint64(groups) {
		t.Run(fmt.Sprint(g), func(t *testing.T) {
			t.Parallel()
			looks, given := 0, 0
			for seed := g; seed < groups*runs; seed += groups {
				synctest.Test(t, func(t *testing.T) {
					n := newRandomNetwork(t, seed)
					if err := n.run(); err != nil {
						t.Errorf("seed %d: %v", seed, err)
					}
					looks += n.looks
					for _, l := range n.ledgers {
						given += l.given
					}
				})
				if t.Failed() {
					return
				}
			}
			t.Logf("%d runs, looked %d times; credit was given back %d times", runs, looks, given)
			if given == 0 {
				t.Error("no credit was ever given back")
			}
		})
	}
}
