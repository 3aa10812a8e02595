package relay

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/link"
)

func TestARelayCountsWhatItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		synctest.Wait()
		before := w.relays[1].Gauges()
		if before.Circuits != 0 || before.Links.Nodes != 0 || before.MostCircuits == 0 || before.MostLinks == 0 || len(before.Queues) != 2 || before.Queues[0].Most == 0 {
			t.Errorf("before: %+v", before)
		}
		first := w.mustBuild(0, 1)
		w.mustBuild(0, 1)
		synctest.Wait()
		at, end := w.relays[0].Gauges(), w.relays[1].Gauges()
		if at.Links.Clients != 2 || at.Links.Dialed < 1 || at.Circuits != 2 {
			t.Errorf("the first relay: %+v", at)
		}
		if end.Links != (link.Kinds{Dialed: end.Links.Dialed, Nodes: 1}) || end.Circuits != 2 || end.Traffic.BytesIn <= before.Traffic.BytesIn || end.Waiting != 0 {
			t.Errorf("the last relay: %+v", end)
		}
		n, sum := w.relays[1].Stats().Waits.Counts()
		if !slices.Equal(n, []uint64{2, 0, 0, 0, 0}) || sum != 0 {
			t.Errorf("waits: %v, %v", n, sum)
		}
		first.Close()
		synctest.Wait()
		if g := w.relays[1].Gauges(); g.Circuits != 1 {
			t.Errorf("%d circuits after one had ended", g.Circuits)
		}
	})
}

func TestTheDirectoryIsCountedByDocument(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		asked := w.relays[w.authority()].Stats().Asked.Counts()
		if asked["consensus"] != 1 || asked["header"] != 0 || asked["other"] != 0 {
			t.Errorf("%v", asked)
		}
	})
}

func TestWaitsAreCountedInClasses(t *testing.T) {
	var w Waits
	for _, d := range []time.Duration{0, 10 * time.Millisecond, 10*time.Millisecond + 1, time.Second, 2 * time.Second, time.Hour} {
		w.add(d)
	}
	if n, sum := w.Counts(); !slices.Equal(n, []uint64{2, 1, 1, 1, 1}) || sum != time.Hour+3*time.Second+20*time.Millisecond+1 {
		t.Errorf("%v, %v", n, sum)
	}
}
