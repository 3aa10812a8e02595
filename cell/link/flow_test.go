package link_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
)

// The figures in brackets are those of the simulator that found the rule (spec/flow.md, section 9).

const ms = time.Millisecond

// flowTest runs f in virtual time, beside other tests. Under the race detector, which makes it ten times as long, only the
// long version does.
func flowTest(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if link.RaceEnabled && !slow {
		t.Skip("takes long under the race detector: PEEL_SLOW=1")
	}
	t.Parallel()
	synctest.Test(t, f)
}

// threeHops is client, guard, middle and exit, with wires of 30 ms and these rates in Mbit/s, from the client on.
func threeHops(t *testing.T, up, down [3]float64) (*network, []*wire) {
	n := &network{t: t}
	g, m := n.node("guard"), n.node("middle")
	return n, []*wire{
		n.join(&link.Config{}, g, 30*ms, up[0], down[0]),
		n.join(g, m, 30*ms, up[1], down[1]),
		n.join(m, n.node("exit"), 30*ms, up[2], down[2]),
	}
}

// sizes are the windows of a download: of the client, the guard and so on.
func (p *path) sizes() (s []int64) {
	for i := range p.wires {
		s = append(s, link.StateOf(p.near[i]).Size)
	}
	return s
}

// TestOneCircuitFindsTheRate: one download over three hops, 100 Mbit/s at one of them and 1 Gbit/s elsewhere.
func TestOneCircuitFindsTheRate(t *testing.T) {
	for _, x := range []struct {
		name     string
		slow     int // the wire, from the client on
		p95, sim time.Duration
	}{{"exit", 2, 20 * ms, 13 * ms}, {"middle", 1, 45 * ms, 31 * ms}, {"guard", 0, 80 * ms, 54 * ms}} {
		t.Run(x.name, func(t *testing.T) {
			flowTest(t, func(t *testing.T) {
				rates := [3]float64{1000, 1000, 1000}
				rates[x.slow] = 100
				n, wires := threeHops(t, rates, rates)
				p := n.open(wires...)
				p.client.restart()
				p.exit.send(forever)
				settle(2 * time.Second)
				util, p50, p95 := p.client.over(2*time.Second, 90*ms)
				util /= cellRate(100)
				t90 := p.client.reached(0.9 * cellRate(100))
				t.Logf("%.1f %% (99.9), 90 %% after %v (0.7 s), extra p50 %v p95 %v (%v), windows of client, guard, middle %v",
					100*util, t90, p50, p95, x.sim, p.sizes())
				if util < 0.98 || t90 > time.Second || t90 == 0 || p95 > x.p95 || p.client.bad {
					t.Error("too slow, late or long")
				}
				n.checkCredits(4*time.Second, 0.01)
			})
		})
	}
}

// checkCredits fails if there were more CREDIT cells than 120 a second on a wire, or more than a share of the cells that
// went the other way.
func (n *network) checkCredits(in time.Duration, share float64) {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, w := range n.wires {
		got := float64(w.credits[0]) / float64(w.cells[1])
		n.t.Logf("wire %d: %.0f CREDIT cells a second up (≤ 100), %.2f %% of the cells down", i, float64(w.credits[0])/in.Seconds(), 100*got)
		if float64(w.credits[0]) > 120*in.Seconds() || got > share {
			n.t.Error("too many")
		}
	}
}

// TestWindowsRest: once the rate is found windows stay, and off the bottleneck they are small.
func TestWindowsRest(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		span := 10 * time.Second
		if slow {
			span = time.Minute
		}
		rates := [3]float64{1000, 20, 1000}
		n, wires := threeHops(t, rates, rates)
		p := n.open(wires...)
		p.exit.send(forever)
		settle(5 * time.Second)
		changes, last := 0, p.sizes()
		for range span / (10 * ms) {
			settle(10 * ms)
			for i, s := range p.sizes() {
				if s != last[i] {
					changes++
					last[i] = s
				}
			}
		}
		bdp := int64(cellRate(20) * 0.06)
		t.Logf("%d changes in %v (0–1), windows %v, pace × RTT %d", changes, span, last, bdp)
		if changes > 5 || last[0] > max(1024, 4*bdp) || last[1] > 4*bdp {
			t.Error("windows are too large, or do not rest")
		}
	})
}

// TestThinLine: a download over a line of 10 Mbit/s down and 2 up.
func TestThinLine(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		n, wires := threeHops(t, [3]float64{2, 1000, 1000}, [3]float64{10, 1000, 1000})
		p := n.open(wires...)
		p.exit.send(forever)
		settle(2 * time.Second)
		up, down := wires[0].cells[0], wires[0].cells[1]
		rate, p50, p95 := p.client.over(8*time.Second, 90*ms)
		credit := float64(wires[0].cells[0]-up) / float64(wires[0].cells[1]-down)
		t.Logf("%.2f Mbit/s (9.9), extra p50 %v p95 %v (44ms), CREDIT %.2f %% of cells (0.8)", rate*cell.Size*8/1e6, p50, p95, 100*credit)
		if rate*cell.Size*8/1e6 < 9.7 || p95 > 70*ms || credit > 0.012 {
			t.Error("too slow or long, or too much CREDIT")
		}
	})
}

// socket is what a socket takes at once before its drain was measured; credit for that returns while all circuits' first cells
// still stand.
const socket = 92

// TestManyCircuitsShare: circuits whose round trips are 40 to 420 ms over one wire.
func TestManyCircuitsShare(t *testing.T) {
	for _, x := range []struct {
		circuits int
		rate     float64
		sim      time.Duration // p95
		credit   float64       // of the cells, at most
	}{{10, 20, 23 * ms, 0.016}, {10, 100, 41 * ms, 0.01}, {50, 20, 102 * ms, 0.01}, {50, 100, 39 * ms, 0.01}} {
		t.Run(fmt.Sprintf("%d circuits on %v Mbit", x.circuits, x.rate), func(t *testing.T) {
			if x.rate == 100 && !slow {
				t.Skip("takes seconds: PEEL_SLOW=1")
			}
			flowTest(t, func(t *testing.T) {
				n := &network{t: t}
				g, m := n.node("guard"), n.node("middle")
				shared := n.join(g, m, 10*ms, x.rate, x.rate)
				var paths []*path
				var idle []time.Duration
				for i := range x.circuits {
					rtt := 40*ms + 380*ms*time.Duration(i)/time.Duration(x.circuits-1)
					d := (rtt/2 - 10*ms) / 2
					paths = append(paths, n.open(n.join(&link.Config{}, g, d, 1000, 1000), shared,
						n.join(m, n.node(fmt.Sprint("exit", i)), d, 1000, 1000)))
					idle = append(idle, rtt/2)
				}
				queued := func() (n int) {
					for _, p := range paths {
						n += link.StateOf(p.far[1]).Queued
					}
					return n
				}
				for _, p := range paths {
					p.exit.send(forever)
				}
				first := 0
				for range 1000 {
					settle(5 * ms)
					first = max(first, queued())
				}
				for _, p := range paths {
					p.client.measure()
				}
				n.mu.Lock()
				shared.credits, shared.cells = [2]int{}, [2]int{}
				n.mu.Unlock()
				shares := make([]float64, len(paths))
				for i, p := range paths {
					shares[i] = -float64(p.client.count())
				}
				most := 0
				for range 200 {
					settle(25 * ms)
					most = max(most, queued())
				}
				var delays []time.Duration
				sum := 0.0
				for i, p := range paths {
					shares[i] += float64(p.client.count())
					sum += shares[i]
					for _, d := range p.client.delays {
						delays = append(delays, d-idle[i])
					}
				}
				index, _ := jain(shares)
				p50, p95 := quantiles(delays, 0)
				util := sum / 5 / cellRate(x.rate)
				credit := float64(shared.credits[0]) / float64(shared.cells[1])
				t.Logf("Jain %.4f (1.000), %.1f %% (99.6), extra p50 %v p95 %v (%v), at most %d queued (200), at first %d (%d), CREDIT %.1f a second (≤ 100), %.2f %% of the cells (0.2–1.4)",
					index, 100*util, p50, p95, x.sim, most, first, 55*x.circuits, float64(shared.credits[0])/5, 100*credit)
				if index < 0.995 || util < 0.98 || p95 > 150*ms || most > 400 || first > 64*x.circuits+socket {
					t.Error("unfair, slow or long")
				}
				if credit > x.credit || shared.credits[0] > 120*5 {
					t.Error("too much CREDIT")
				}
			})
		})
	}
}

// TestNewCircuitLeavesTheOldItsShare: a download starts beside one that runs.
func TestNewCircuitLeavesTheOldItsShare(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		n, wires := threeHops(t, [3]float64{1000, 100, 1000}, [3]float64{1000, 100, 1000})
		old, fresh := n.open(wires...), n.open(wires...)
		old.exit.send(forever)
		settle(4 * time.Second)
		old.client.measure()
		fresh.exit.send(forever)
		first := old.client.count()
		settle(time.Second)
		first = old.client.count() - first
		settle(time.Second)
		o, f := old.client.count(), fresh.client.count()
		settle(2 * time.Second)
		o, f = old.client.count()-o, fresh.client.count()-f
		share := float64(o) / float64(o+f)
		t.Logf("the old one has %.0f %% in the first second (≥ 40), %.1f %% from 2 s (50), longest gap %v (< 100ms)",
			100*float64(first)/cellRate(100), 100*share, old.client.gap)
		if float64(first) < 0.4*cellRate(100) || share < 0.45 || share > 0.55 || old.client.gap > 200*ms {
			t.Error("unfair")
		}
	})
}

// TestFastWires: the window does not limit, up to its cap.
func TestFastWires(t *testing.T) {
	for _, x := range []struct {
		rate   float64
		rtt    time.Duration
		span   time.Duration
		sim    float64 // Mbit/s
		credit float64
		least  float64 // of what the window allows
	}{
		{10000, 100 * time.Microsecond, 50 * ms, 10000, 0.005, 0.99},
		{1000, 100 * time.Microsecond, 200 * ms, 999, 0.01, 0.98},
		{1000, 2 * ms, 200 * ms, 999, 0.01, 0.98},
		{1000, 20 * ms, 300 * ms, 1000, 0.01, 0.98},
		{1000, 40 * ms, 400 * ms, 922, 0.01, 0.98},
		{1000, 80 * ms, 400 * ms, 468, 0.01, 0.98},
	} {
		t.Run(fmt.Sprintf("%v Mbit %v", x.rate, x.rtt), func(t *testing.T) {
			flowTest(t, func(t *testing.T) {
				n := &network{t: t}
				a, b := n.node("guard"), n.node("exit")
				wires := []*wire{n.join(&link.Config{}, a, x.rtt/2, x.rate, x.rate), n.join(a, b, x.rtt/2, x.rate, x.rate)}
				p := n.open(wires...)
				p.exit.send(forever)
				settle(max(50*ms, 20*x.rtt))
				for _, w := range wires {
					w.credits, w.cells = [2]int{}, [2]int{}
				}
				rate, _, p95 := p.client.over(x.span, x.rtt)
				got := rate * cell.Size * 8 / 1e6
				w := wires[1]
				credit := float64(w.credits[0]) / float64(w.cells[1])
				t.Logf("%.0f Mbit/s (%.0f), extra p95 %v, CREDIT %.2f %%, windows %v", got, x.sim, p95, 100*credit, p.sizes())
				allows := min(x.rate, 46/(x.rtt+15*ms).Seconds())
				if got < x.least*allows || credit > x.credit {
					t.Errorf("want %.0f Mbit/s", allows)
				}
			})
		})
	}
}

// TestWayChanges: while cells flow, the rate falls to a fifth and returns, and the round trip of a wire grows from 60 to 200 ms. How long
// a cell waits follows from the round trip of the wire that brings it to the slow one, not from how the rate came to be.
func TestWayChanges(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		n, wires := threeHops(t, [3]float64{1000, 100, 1000}, [3]float64{1000, 100, 1000})
		p := n.open(wires...)
		p.exit.send(forever)
		settle(3 * time.Second)
		phase := func(what, sim string, mbits float64, idle, most time.Duration) {
			settle(time.Second)
			rate, _, p95 := p.client.over(time.Second, idle)
			t.Logf("from 1 s after %s: %.1f %%, extra p95 %v (%s)", what, 100*rate/cellRate(mbits), p95, sim)
			settle(2 * time.Second)
			rate, _, p95 = p.client.over(time.Second, idle)
			t.Logf("from 4 s after %s: %.1f %%, extra p95 %v", what, 100*rate/cellRate(mbits), p95)
			if rate < 0.95*cellRate(mbits) || p95 > most {
				t.Error("too slow, or long")
			}
		}
		wires[1].other.SetRate(mbit(20))
		phase("rate ÷ 5", "25ms", 20, 90*ms, 40*ms)
		wires[1].other.SetRate(mbit(100))
		phase("its return", "31ms", 100, 90*ms, 45*ms)
		wires[2].pipe.SetDelay(100 * ms)
		wires[2].other.SetDelay(100 * ms)
		phase("RTT × 3.3", "within 1 s", 100, 160*ms, 80*ms)
		wires[1].other.SetRate(mbit(20))
		phase("rate ÷ 5 with it", "no figure", 20, 160*ms, 80*ms)
	})
}

// TestIdleCreditIsGivenBack: after a download all credit above the bases is free again.
func TestIdleCreditIsGivenBack(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		n, wires := threeHops(t, [3]float64{1000, 100, 1000}, [3]float64{1000, 100, 1000})
		p := n.open(wires...)
		p.exit.send(5000)
		settle(5 * time.Second)
		was := [3]int64{}
		for i := range was {
			was[i] = link.StateOf(p.near[i]).Extra
		}
		settle(16 * time.Second)
		for i := range was {
			if is := link.StateOf(p.near[i]).Extra; is != 0 || i > 0 && was[i] == 0 {
				t.Errorf("wire %d: %d above the base, then %d", i, was[i], is)
			}
		}
		p.exit.send(5000) // and it still works
		settle(5 * time.Second)
		if p.client.count() != 10000 {
			t.Errorf("%d cells came", p.client.count())
		}
	})
}
