package relay

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peel/cell"
	"peel/circuit"
)

// Thousands of streams that come and go leave nothing behind: goroutines, descriptors and memory are what they were, within two
// hundredths, or of memory what six links hold more while they are busy, which are buffers of 64 KiB. PEEL_SLOW=1: ten seconds of a thousand a second; PEEL_SLOW=2m: two minutes.
func TestStreamsThatComeAndGoLeaveNothing(t *testing.T) {
	length := 10 * time.Second
	switch v := os.Getenv("PEEL_SLOW"); v {
	case "":
		t.Skip("takes a quarter of a minute: PEEL_SLOW=1")
	case "1":
	default:
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		length = d
	}
	w := newWorld(t, 3, exits(2))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var hosts sync.WaitGroup
	defer hosts.Wait()
	defer l.Close()
	hosts.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			hosts.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	a := l.Addr().(*net.TCPAddr)
	target := cell.Begin{Host: a.IP.String(), Port: uint16(a.Port)}
	lc := w.connect(0)
	build := func() *circuit.Circuit {
		c, err := circuit.Build(t.Context(), lc, circuit.Config{Network: w.net.Network.ID()}, w.hops[:3])
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var streams, failed atomic.Int64
	// churn opens so many streams, on circuits of fifty, each with an answer, and closes them in one way or another.
	churn := func(n int) {
		var all sync.WaitGroup
		for range max(n/50, 1) {
			c := build()
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
	type state struct {
		goroutines, fds int
		objects, heap   uint64
	}
	look := func() (s state) {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		s.goroutines, s.objects, s.heap = runtime.NumGoroutine(), m.HeapObjects, m.HeapAlloc
		if all, err := os.ReadDir("/proc/self/fd"); err == nil {
			s.fds = len(all)
		}
		return s
	}
	// settled looks until it is within two hundredths of what was before, for a minute at most: what closes takes a moment.
	settled := func(before state) (s state, ok bool) {
		near := func(was, is, slack int) bool { return is-was <= max(was/50, slack) }
		for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			s = look()
			if near(before.goroutines, s.goroutines, 1) && near(before.fds, s.fds, 1) && near(int(before.heap), int(s.heap), busyLinks) {
				return s, true
			}
			if time.Now().After(end) {
				return s, false
			}
		}
	}
	churn(1000) // until pools and tables have the size they keep
	last := look()
	for range 20 { // it has come to rest
		churn(200)
		now, ok := settled(last)
		last = now
		if ok {
			break
		}
	}
	before := look()
	began, rounds := time.Now(), 0
	for time.Since(began) < length {
		churn(1000)
		rounds++
		if wait := time.Until(began.Add(time.Duration(rounds) * time.Second)); wait > 0 {
			time.Sleep(wait)
		}
	}
	after, ok := settled(before)
	if !ok {
		t.Errorf("before: %+v; after: %+v", before, after)
	}
	if n := failed.Load(); n != 0 {
		t.Errorf("%d of %d streams failed", n, streams.Load())
	}
	t.Logf("%d streams in %v; before: %+v; after: %+v", streams.Load(), time.Since(began).Round(time.Second), before, after)
}

// busyLinks is what six links take more while they are busy.
const busyLinks = 6 * 64 << 10

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
