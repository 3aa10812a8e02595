package link_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// Links of one node that has a rate come to that rate, not more and hardly less, and each gets its share.
func TestLinksShareTheRateOfTheirNode(t *testing.T) {
	for _, bytes := range []uint64{200e3, 5e6, 20e6} {
		t.Run(fmt.Sprintf("%d kB a second", bytes/1000), func(t *testing.T) {
			if bytes > 10e6 && !slow {
				t.Skip("takes long: PEEL_SLOW=1")
			}
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := &network{t: t}
				m, exit := n.node("middle"), n.node("exit")
				m.Rate = link.NewRate(bytes, 0)
				far := n.join(m, exit, 10*ms, 1000, 1000)
				var all []*path
				for i := range 4 {
					g := n.node(fmt.Sprint("guard", i))
					p := n.open(n.join(&link.Config{}, g, 10*ms, 1000, 1000), n.join(g, m, 10*ms, 1000, 1000), far)
					p.exit.send(forever)
					all = append(all, p)
				}
				settle(5 * time.Second) // what went at once is through
				var was []int
				for _, p := range all {
					was = append(was, p.client.count())
				}
				const span = 10 * time.Second
				settle(span)
				var sum float64
				var each []float64
				for i, p := range all {
					got := float64(p.client.count() - was[i])
					sum += got
					each = append(each, got)
				}
				index, _ := jain(each)
				share := sum * cell.Size / span.Seconds() / float64(bytes)
				t.Logf("%.2f of the rate, fairness %.3f", share, index)
				if share > 1.02 || share < 0.95 || index < 0.95 {
					t.Errorf("cells: %v", each)
				}
			})
		})
	}
}

// What is promised is what may be sent, whoever asks, and after a calm only so much at once.
func TestRatePromisesNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := link.NewRate(1e6, 100e3)
		began := time.Now()
		for range 100 {
			r.Wait(10e3, nil)
		}
		if took := time.Since(began); took != 990*time.Millisecond { // the last goes when what is before it is through
			t.Errorf("1 MB took %v", took)
		}
		time.Sleep(time.Hour)
		began = time.Now()
		for range 20 {
			r.Wait(10e3, nil)
		}
		if took := time.Since(began); took != 90*time.Millisecond {
			t.Errorf("after a calm 200 kB took %v", took)
		}
		stop := make(chan struct{})
		close(stop)
		began = time.Now()
		r.Wait(1e9, nil)
		r.Wait(1, stop)
		if took := time.Since(began); took > time.Second {
			t.Errorf("who is told to stop waited %v", took)
		}
		r.Wait(1e9, stop)
		began = time.Now()
		r.Wait(1, nil)
		if took := time.Since(began); took > 1000*time.Second { // by what was promised before
			t.Errorf("others waited %v for who was told to stop", took)
		}
		r.Set(0, 0)
		r.Wait(1<<31-1, nil)
		if r.Bounded() || (*link.Rate)(nil).Bounded() {
			t.Error("there is a bound")
		}
		(*link.Rate)(nil).Wait(1<<31-1, nil)
	})
}

// Links that end give back what they had reserved and not sent: others do not wait for them.
func TestLinksThatEndGiveTheirRateBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const links = 30
		h := &host{take: true}
		node := linktest.Config(t, "node")
		node.Rate = link.NewRate(100e3, cell.Size) // a cell in 14 ms
		join := func() (*link.Conn, *end) {
			lc, _ := linktest.Pair(t, linktest.Config(t, "client"), node, linktest.Handlers{B: h}, linktest.Options{})
			e := openCirc(t, lc)
			e.take = true
			settle(ms)
			return lc, e
		}
		var all []*link.Conn
		for range links {
			lc, _ := join()
			all = append(all, lc)
		}
		for i := range links {
			h.end(i).sendAll(3)
		}
		settle(ms)
		for _, lc := range all {
			lc.Close()
		}
		settle(ms)
		_, e := join()
		h.end(links).sendAll(1)
		settle(100 * ms)
		if got := e.got(); len(got) != 1 {
			t.Errorf("%d cells came: the link waits for those that are gone", len(got))
		}
	})
}
