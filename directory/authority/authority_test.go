package authority

import (
	"testing"
	"testing/synctest"
	"time"
)

func hour(n int) time.Time { return epoch.Add(time.Duration(n) * time.Hour) }

func sleepUntil(t time.Time) { time.Sleep(time.Until(t)); synctest.Wait() }

// minute is a moment of the first hour: votes are made at 50, fetched from 53:20, signed from 56:40.
func minute(m float64) time.Time { return epoch.Add(time.Duration(m * float64(time.Minute))) }

func TestFiveAuthoritiesPublishTheSameBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 5, 12)
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		sleepUntil(hour(1))
		if n := w.agreed(hour(1)); n != 5 {
			t.Fatalf("%d of 5 authorities have a consensus", n)
		}
		c := w.nodes[0].auth.Consensus()
		if len(c.Entries) != 12 || len(c.Signatures) != 5 {
			t.Errorf("%d relays, %d signatures; want 12 and 5", len(c.Entries), len(c.Signatures))
		}
		for _, n := range w.nodes[1:] {
			if w.text(n) != w.text(w.nodes[0]) {
				t.Errorf("authorities 0 and %d serve different bytes", n.i)
			}
		}
		w.checkSafety()
	})
}
