package relay

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link/linktest"
)

// Two minutes of a thousand streams a second, in virtual time and with hosts in memory, leave goroutines and the objects and bytes of the
// relays as they were, within two hundredths, or what comes and goes by itself (held.beyond). They are looked at when two minutes have passed in which nothing came, what is remembered for late messages is
// over, and the only links are those of a circuit that stays. PEEL_SLOW=1: twenty seconds; PEEL_SLOW=2m: two minutes.
func TestAfterChurnAllIsAsBefore(t *testing.T) {
	seconds := leastRounds
	switch v := os.Getenv("PEEL_SLOW"); v {
	case "":
		t.Skip("takes some seconds: PEEL_SLOW=1")
	case "1":
	default:
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		seconds = max(seconds, int(d.Seconds()))
	}
	synctest.Test(t, func(t *testing.T) {
		empty := holdsAtLeast()
		var hosts sync.WaitGroup
		echo := func(context.Context, string, string) (net.Conn, error) {
			near, far := linktest.Pipe(linktest.Options{A: netip.MustParseAddrPort("127.0.0.9:80"), B: netip.MustParseAddrPort("127.0.0.9:80")})
			hosts.Go(func() {
				defer far.Close()
				io.Copy(far, far)
			})
			return near, nil
		}
		w := newWorld(t, 3, exits(2), func(_ int, cfg *Config) { cfg.Connect = echo })
		lc := w.connect(0)
		var streams, failed atomic.Int64
		second := func(circuits int) { // fifty streams on each circuit, each ended in one way or another
			var all sync.WaitGroup
			for range circuits {
				all.Go(func() {
					c, err := w.buildOver(t.Context(), lc, w.hops[:3])
					if err != nil {
						failed.Add(1)
						return
					}
					defer c.Close()
					ctx, end := context.WithCancel(t.Context()) // each its own: they keep room for as many as there ever were
					defer end()
					var of sync.WaitGroup
					for i := range 50 {
						of.Go(func() {
							streams.Add(1)
							if !comeAndGo(ctx, c, cell.Begin{Host: "127.0.0.9", Port: 80}, i) {
								failed.Add(1)
							}
						})
					}
					of.Wait()
				})
			}
			all.Wait()
			time.Sleep(time.Second)
		}
		stays := w.mustBuildOver(lc, w.hops[:3])
		look := func() held {
			time.Sleep(2 * time.Minute)
			ends := func() (n int) { // of links, at relays
				for _, r := range w.relays {
					n += r.pool.Links()
				}
				return n
			}
			for range 1000 {
				if synctest.Wait(); ends() == 5 { // of the client's and two more
					return holds()
				}
				time.Sleep(time.Second)
			}
			t.Fatalf("%d ends of links stay, want 5", ends())
			panic("not reached")
		}
		for range 3 { // until pools and tables have the size they keep
			second(30)
		}
		before := look()
		for range seconds {
			second(roundCircuits)
		}
		after := look()
		t.Logf("%d streams; without relays: %+v; before: %+v; after: %+v", streams.Load(), empty, before, after)
		if n := failed.Load(); n != 0 {
			t.Errorf("%d of %d streams failed", n, streams.Load())
		}
		if more := after.beyond(before, empty, seconds*roundCircuits); more != "" {
			t.Error(more)
		}
		stays.Close()
		lc.Close()
		for _, stop := range w.stop {
			stop()
		}
		hosts.Wait()
	})
}
