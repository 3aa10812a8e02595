package link_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// TestLossesCostLittle: on every wire and in both directions, something is lost once a second and sent again, which holds up all
// behind it for a round trip.
func TestLossesCostLittle(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		n, wires := threeHops(t, [3]float64{1000, 100, 1000}, [3]float64{1000, 100, 1000})
		rng := rand.New(rand.NewPCG(17, 1))
		lost := 0
		weather := func(span time.Duration) {
			for range span / (20 * ms) {
				for _, w := range wires {
					for _, end := range []*linktest.Conn{w.pipe, w.other} {
						if rng.IntN(50) == 0 {
							end.Lose(60 * ms)
							lost++
						}
					}
				}
				settle(20 * ms)
			}
		}
		p := n.open(wires...)
		p.exit.send(forever)
		weather(3 * time.Second)
		lost = 0
		p.client.measure()
		got := -p.client.count()
		weather(10 * time.Second)
		got += p.client.count()
		p50, p95 := quantiles(p.client.delays, 90*ms)
		use := float64(got) / 10 / cellRate(100)
		t.Logf("%d losses on 3 wires in 10 s: %.1f %% (95.1), extra p50 %v p95 %v (68ms), windows %v", lost, 100*use, p50, p95, p.sizes())
		if use < 0.9 || p.client.bad {
			t.Error("too slow")
		}
		if lost < 40 {
			t.Errorf("only %d losses", lost)
		}
	})
}

// TestDeadWireComesBack: a wire takes nothing for two seconds; after that the circuit is soon as fast as before.
func TestDeadWireComesBack(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		n, wires := threeHops(t, [3]float64{1000, 100, 1000}, [3]float64{1000, 100, 1000})
		p := n.open(wires...)
		p.exit.send(forever)
		settle(3 * time.Second)
		wires[1].other.Stall(2 * time.Second)
		settle(2 * time.Second)
		p.client.restart()
		settle(4 * time.Second)
		full := p.client.reached(0.98 * cellRate(100))
		t.Logf("at full speed %v after the wire came back (1.2 s)", full)
		if full == 0 || full > 2*time.Second || p.client.bad {
			t.Error("too late")
		}
	})
}

// TestThinLineBothWays: a download and an upload at once over a line of 10 Mbit/s down and 2 up.
func TestThinLineBothWays(t *testing.T) {
	for _, x := range []struct {
		name string
		two  bool
	}{{"two circuits", true}, {"one circuit", false}} {
		t.Run(x.name, func(t *testing.T) {
			flowTest(t, func(t *testing.T) {
				n, wires := threeHops(t, [3]float64{2, 1000, 1000}, [3]float64{10, 1000, 1000})
				down := n.open(wires...)
				up := down
				if x.two {
					up = n.open(wires...)
				}
				down.exit.send(forever)
				up.client.send(forever)
				settle(3 * time.Second)
				up.exit.measure()
				was := up.exit.count()
				rate, p50, p95 := down.client.over(10*time.Second, 90*ms)
				other := float64(up.exit.count()-was) / 10
				_, up95 := quantiles(up.exit.delays, 90*ms)
				mbits := func(cells float64) float64 { return cells * cell.Size * 8 / 1e6 }
				t.Logf("%.2f down, %.2f up (9.34, 1.76) Mbit/s, extra p50 %v p95 %v down (73ms), p95 %v up", mbits(rate), mbits(other), p50, p95, up95)
				if mbits(rate) < 9.0 || mbits(other) < 1.6 || down.client.bad || up.exit.bad {
					t.Error("too slow")
				}
			})
		})
	}
}

// TestSixHops: a download over six hops of 30 ms each, whose last line, to the client, has 20 Mbit/s.
func TestSixHops(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		n := &network{t: t}
		at := &link.Config{}
		var wires []*wire
		for i := range 6 {
			to, rate := n.node(string(rune('a'+i))), 1000.0
			if i == 0 {
				rate = 20
			}
			wires = append(wires, n.join(at, to, 30*ms, rate, rate))
			at = to
		}
		p := n.open(wires...)
		p.exit.send(forever)
		_, _, first := p.client.over(3*time.Second, 180*ms)
		settle(2 * time.Second)
		rate, p50, p95 := p.client.over(5*time.Second, 180*ms)
		t.Logf("%.1f %% (99.5), extra p50 %v (55ms) p95 %v, in the first 3 s p95 %v (1.1s), windows %v (client … 121 270 436 729 1619)",
			100*rate/cellRate(20), p50, p95, first, p.sizes())
		if p95 > 150*ms || rate < 0.98*cellRate(20) || p.client.bad {
			t.Error("too slow or long")
		}
	})
}
