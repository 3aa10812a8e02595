package relay

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link/linktest"
	"peel/circuit"
)

// Two minutes of a thousand streams a second, in virtual time and with hosts in memory, leave goroutines and the objects in memory as they were, within two
// hundredths, and the bytes or within what links hold more while they are busy. They are looked at when two minutes have passed in which nothing came: what is remembered for late messages is over then. PEEL_SLOW=1: ten seconds;
// PEEL_SLOW=2m: two minutes.
func TestAfterChurnAllIsAsBefore(t *testing.T) {
	seconds := 10
	switch v := os.Getenv("PEEL_SLOW"); v {
	case "":
		t.Skip("takes some seconds: PEEL_SLOW=1")
	case "1":
	default:
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		seconds = int(d.Seconds())
	}
	synctest.Test(t, func(t *testing.T) {
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
		second := func() { // a thousand streams on twenty circuits, each ended in one way or another
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					c, err := circuit.Build(t.Context(), lc, circuit.Config{Network: w.net.Network.ID()}, w.hops[:3])
					if err != nil {
						failed.Add(1)
						return
					}
					defer c.Close()
					var of sync.WaitGroup
					for i := range 50 {
						of.Go(func() {
							streams.Add(1)
							if !comeAndGo(t, c, cell.Begin{Host: "127.0.0.9", Port: 80}, i) {
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
		type state struct{ goroutines, objects, heap int }
		look := func() state {
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			heapNow()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return state{runtime.NumGoroutine(), int(m.HeapObjects), int(m.HeapAlloc)}
		}
		for range 3 { // until pools and tables have the size they keep
			second()
		}
		before := look()
		for range seconds {
			second()
		}
		after := look()
		t.Logf("%d streams; before: %+v; after: %+v", streams.Load(), before, after)
		if n := failed.Load(); n != 0 {
			t.Errorf("%d of %d streams failed", n, streams.Load())
		}
		near := func(was, is, slack int) bool { return is-was <= max(was/50, slack) }
		if !near(before.goroutines, after.goroutines, 1) || !near(before.objects, after.objects, 0) || !near(before.heap, after.heap, busyLinks) {
			t.Errorf("before: %+v; after: %+v", before, after)
		}
		lc.Close()
		for _, stop := range w.stop {
			stop()
		}
		hosts.Wait()
	})
}
