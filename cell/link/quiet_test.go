package link_test

import (
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// A link that was busy and is silent holds a small buffer at both ends, and no circuit that has ended; then it carries as much as before.
func TestSilentLinkHoldsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{take: true}
		la, lb := pair(t, h, nil, linktest.Options{Delay: 5 * time.Millisecond})
		for round := range 2 {
			busy := [2]bool{}
			var ends []*end
			for i := range 20 {
				e := openCirc(t, la)
				e.take = true
				e.sendAll(300)
				settle(20 * time.Millisecond)
				h.end(20*round + i).sendAll(300)
				for range 100 {
					settle(time.Millisecond)
					busy[0], busy[1] = busy[0] || link.Busy(la), busy[1] || link.Busy(lb)
				}
				ends = append(ends, e)
			}
			if !busy[0] || !busy[1] {
				t.Fatalf("round %d: big buffers were never needed: %v", round, busy)
			}
			for _, e := range ends[1:] {
				e.circ.Close(cell.DestroyFinished)
			}
			settle(time.Minute)
			if link.Busy(la) || link.Busy(lb) {
				t.Errorf("round %d: after a minute of silence the ends hold big buffers: %v %v", round, link.Busy(la), link.Busy(lb))
			}
			if a, b := link.Owing(la), link.Owing(lb); a > round+1 || b > round+1 {
				t.Errorf("round %d: %d and %d circuits are kept for credit, %d are open", round, a, b, round+1)
			}
			if got := len(ends[0].got()); got != 300 {
				t.Errorf("round %d: %d cells came", round, got)
			}
		}
		alive(t, la, lb)
	})
}
