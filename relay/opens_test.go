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
		const floods, rate, lasts, most, page = 20, 200, 6, 1000, 60 // a second each, and seconds
		w := newWorld(t, 1, resolves(slowNames))
		w.relays[0].opening.most = most // for all, of the 2,000 that a flood may ask for
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
		time.Sleep(4 * time.Second)
		for i := range page { // at once, and then two a second
			wg.Go(func() {
				if _, err := honest.Resolve(t.Context(), cell.Resolve{Name: fmt.Sprintf("page%d.example", i)}); err != nil {
					t.Errorf("look-up %d at once: %v", i, err)
				}
			})
		}
		for i := range 2 * (lasts - 5) {
			time.Sleep(time.Second / 2)
			if _, err := honest.Resolve(t.Context(), cell.Resolve{Name: fmt.Sprintf("later%d.example", i)}); err != nil {
				t.Errorf("look-up %d: %v", i, err)
			}
		}
		time.Sleep(time.Until(began.Add(lasts * time.Second)))
		var bounds []*opens
		for _, x := range w.relays[0].all() {
			x.fmu.Lock()
			bounds = append(bounds, x.opening())
			x.fmu.Unlock()
		}
		for _, c := range all {
			c.Close()
		}
		wg.Wait()
		synctest.Wait()
		owing := 0
		for _, o := range bounds {
			o.mu.Lock()
			if o.owed != 0 || o.timer != nil {
				owing++
			}
			o.mu.Unlock()
		}
		if owing != 0 {
			t.Errorf("%d circuits that have ended still hold credit back", owing)
		}
		if bound := int64(floods*(openFew+openFewRate*lasts) + most*(lasts+1)); answered.Load() > bound || answered.Load() < most*(lasts-1) {
			t.Errorf("%d were answered, want at most %d", answered.Load(), bound)
		}
		// Besides what comes by the time, a window or two of cells.
		if most := int64(floods * (256 + refusedOpens*(lasts+1))); busy.Load() > most || busy.Load() < floods*refusedOpens*lasts {
			t.Errorf("%d were refused, want at most %d", busy.Load(), most)
		}
		t.Logf("%d answered, %d refused of %d", answered.Load(), busy.Load(), floods*rate*lasts)
	})
}

// When many circuits ask for all they can, one that takes a page's worth has it, and when few do, none is kept short.
func TestPlacesThatAreScarceAreSharedByCircuits(t *testing.T) {
	for _, floods := range []int{0, 1, 10, 20, 40} {
		t.Run(fmt.Sprint(floods), func(t *testing.T) {
			a, now := &opening{most: openAll}, time.Unix(1e9, 0)
			may := func(o *opens) bool { return o.own(now, 1, &ofOpens) && o.shared(now, 1, &ofOpens, a) }
			all, taken := make([]opens, floods), 0
			for range 500 { // 5 s, of 200 a second each
				now = now.Add(10 * time.Millisecond)
				for range 2 {
					for i := range all {
						if may(&all[i]) {
							taken++
						}
					}
				}
			}
			if want := min(floods*(openBurst+5*openRate), 5*openAll); taken < want-floods || taken > 6*openAll+floods*(openFew+5*openFewRate) {
				t.Errorf("the flood took %d, could have %d", taken, want)
			}
			for range 2 { // honest ones
				var o opens
				n, want := 0, 60
				if floods < 2 {
					want = openBurst
				}
				for n < want && may(&o) {
					n++
				}
				if n < want {
					t.Errorf("%d circuits flood: one that asks for %d at once gets %d", floods, want, n)
				}
			}
		})
	}
}
