package relay

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peel/cell"
	"peel/circuit"
)

// Thousands of streams that come and go to hosts behind sockets leave nothing behind: goroutines, descriptors and the objects and bytes of the relays are what
// they were, within two hundredths, or what comes and goes by itself (held.beyond). PEEL_SLOW=1: twenty times a thousand, one a second at most;
// PEEL_SLOW=2m: as many as there are seconds in two minutes.
func TestStreamsThatComeAndGoLeaveNothing(t *testing.T) {
	rounds := leastRounds
	switch v := os.Getenv("PEEL_SLOW"); v {
	case "":
		t.Skip("takes half a minute: PEEL_SLOW=1")
	case "1":
	default:
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		rounds = max(rounds, int(d.Seconds()))
	}
	empty := holdsAtLeast()
	target := hostOf(t, func(c net.Conn) { io.Copy(c, c) })
	w := newWorld(t, 3, exits(2))
	lc := w.connect(0)
	var streams, failed atomic.Int64
	// churn opens so many streams, on circuits of fifty, each with an answer, and closes them in one way or another.
	churn := func(n int) {
		var all sync.WaitGroup
		for range max(n/50, 1) {
			c := w.mustBuildOver(lc, w.hops[:3])
			all.Go(func() {
				defer c.Close()
				ctx, end := context.WithCancel(t.Context()) // each its own: they keep room for as many as there ever were
				defer end()
				var of sync.WaitGroup
				for i := range min(n, 50) {
					of.Go(func() {
						streams.Add(1)
						if !comeAndGo(ctx, c, target, i) {
							failed.Add(1)
						}
					})
				}
				of.Wait()
			})
		}
		all.Wait()
	}
	defer w.mustBuildOver(lc, w.hops[:3]).Close() // one stays, and so do its links
	for range 3 {                                 // until pools and tables have the size they keep
		churn(1500)
	}
	before, least := holds(), time.Now()
	for end := time.Now().Add(time.Minute); time.Since(least) < 11*time.Second && time.Now().Before(end); time.Sleep(200 * time.Millisecond) { // links pad by then
		if now := holds(); now.heap < before.heap-1<<10 {
			before, least = now, time.Now()
		} else { // of what is few, the most that there is in a rest
			before.goroutines, before.fds = max(before.goroutines, now.goroutines), max(before.fds, now.fds)
		}
	}
	began := time.Now()
	for i := range rounds { // by count: a busy machine has as many circuits, of each of which something might stay
		churn(50 * roundCircuits)
		time.Sleep(time.Until(began.Add(time.Duration(i+1) * time.Second)))
	}
	took := time.Since(began).Round(time.Second)
	after := holds()
	for end := time.Now().Add(time.Minute); after.beyond(before, empty, rounds*roundCircuits) != "" && time.Now().Before(end); after = holds() { // what closes takes a moment
		time.Sleep(200 * time.Millisecond)
	}
	t.Logf("%d streams in %v; without relays: %+v; before: %+v; after: %+v", streams.Load(), took, empty, before, after)
	if more := after.beyond(before, empty, rounds*roundCircuits); more != "" {
		t.Error(more)
	}
	if n := failed.Load(); n != 0 {
		t.Errorf("%d of %d streams failed", n, streams.Load())
	}
}

// comeAndGo opens a stream, with an answer or without, and ends it in the i-th of three ways; false: it failed.
func comeAndGo(ctx context.Context, c *circuit.Circuit, target cell.Begin, i int) (ok bool) {
	s, err := c.Dial(ctx, target)
	if err != nil {
		return false
	}
	defer s.Close()
	s.Write([]byte("hello"))
	if i%3 > 0 {
		_, err = io.ReadFull(s, make([]byte, 5))
	}
	if i%3 == 1 {
		s.CloseWrite()
		io.Copy(io.Discard, s)
	}
	return err == nil
}
