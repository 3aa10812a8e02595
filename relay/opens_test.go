package relay

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit"
	"peel/circuit/stream"
)

// Circuits that ask an exit for all they can do not keep it busy with refusing them, and one that asks for little beside them gets it.
func TestCircuitsThatFloodAnExitTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const floods, rate, lasts = 20, 200, 5 // a second each, and seconds
		w := newWorld(t, 1, resolves(slowNames))
		w.relays[0].opening.most = 300 // for all, of the 2,000 that a flood may ask for
		honest := w.mustBuild(0)
		var busy, answered atomic.Int64
		var wg sync.WaitGroup
		var all []*circuit.Circuit
		began := time.Now()
		for range floods {
			c := w.mustBuild(0)
			all = append(all, c)
			wg.Go(func() {
				for i := 0; time.Since(began) < lasts*time.Second; i++ {
					wg.Go(func() {
						_, err := c.Resolve(t.Context(), cell.Resolve{Name: fmt.Sprintf("name%d.example", i)})
						switch {
						case err == nil:
							answered.Add(1)
						case errors.Is(err, &stream.EndError{Reason: cell.EndBusy}):
							busy.Add(1)
						}
					})
					time.Sleep(time.Second / rate)
				}
			})
		}
		time.Sleep(time.Second)
		for i := range openFew { // at once, and then two a second
			wg.Go(func() {
				if _, err := honest.Resolve(t.Context(), cell.Resolve{Name: fmt.Sprintf("page%d.example", i)}); err != nil {
					t.Errorf("look-up %d at once: %v", i, err)
				}
			})
		}
		for i := range 2 * (lasts - 2) {
			time.Sleep(time.Second / 2)
			if _, err := honest.Resolve(t.Context(), cell.Resolve{Name: fmt.Sprintf("later%d.example", i)}); err != nil {
				t.Errorf("look-up %d: %v", i, err)
			}
		}
		time.Sleep(time.Until(began.Add(lasts * time.Second)))
		for _, c := range all {
			c.Close()
		}
		wg.Wait()
		if most := int64(floods*(openFew+openFewRate*lasts) + 300*(lasts+1)); answered.Load() > most || answered.Load() < 300*lasts {
			t.Errorf("%d were answered, want at most %d", answered.Load(), most)
		}
		// Besides what comes by the time, a window or two of cells.
		if most := int64(floods * (256 + refusedOpens*(lasts+1))); busy.Load() > most || busy.Load() < floods*refusedOpens*lasts {
			t.Errorf("%d were refused, want at most %d", busy.Load(), most)
		}
		t.Logf("%d answered, %d refused of %d", answered.Load(), busy.Load(), floods*rate*lasts)
	})
}
