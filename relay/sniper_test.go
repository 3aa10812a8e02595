package relay

import (
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"peel/cell"
	"peel/cell/link"
)

// A thousand streams of clients that ask for all there is and read nothing, neither the streams nor their links, cost a relay no more
// than is set aside for them, and others nothing. What that comes to for a process is tested in a control group.
func TestSnipersStayWithinTheMemory(t *testing.T) {
	const memory = LeastMemory
	target := hostOf(t, func(c net.Conn) { // it sends for ever
		for chunk := make([]byte, 64<<10); ; {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	})
	w := newWorld(t, 1, exits(0), func(_ int, cfg *Config) { cfg.Memory = memory })
	r := w.relays[0]

	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := heap()
	stop := make(chan struct{})
	var snipers sync.WaitGroup
	var links []*link.Conn
	defer func() {
		close(stop)
		for _, lc := range links {
			lc.Close()
		}
		snipers.Wait()
	}()
	var streams, refused, ended atomic.Int64
	for range 10 {
		var aim atomic.Bool // from now on nothing is read
		lc := w.connectAs(0, &link.Config{Network: w.net.Network.ID(), Tap: func(in bool, _ []cell.Cell) {
			if in && aim.Load() {
				<-stop
			}
		}})
		links = append(links, lc)
		var all sync.WaitGroup
		for range 4 {
			c := w.mustBuildOver(lc, w.hops[:1])
			for range 25 {
				all.Go(func() {
					s, err := c.Dial(t.Context(), target)
					streams.Add(1)
					if err != nil {
						refused.Add(1)
						return
					}
					snipers.Go(func() {
						<-s.Context().Done()
						ended.Add(1)
					})
				})
			}
		}
		all.Wait()
		aim.Store(true)
	}
	most := uint64(0)
	honest := w.mustBuild(0)
	for range 4 {
		s, err := honest.Dial(t.Context(), target)
		if err != nil {
			t.Fatalf("an honest stream: %v", err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1<<20)); err != nil {
			t.Errorf("an honest download: %v", err)
		}
		s.Close()
		b := r.pool.Budget()
		r.mu.Lock()
		places := r.streams.n
		r.mu.Unlock()
		if n := b.Queued * 1536; n > int64(r.cfg.MaxQueued) || r.budget.Used() > r.cfg.MaxUnread || places > r.cfg.MaxTasks {
			t.Errorf("%d bytes wait for links, %d for hosts; there are %d streams", n, r.budget.Used(), places)
		}
		most = max(most, heap())
	}
	if honest.Err() != nil {
		t.Errorf("the honest circuit ended: %v", honest.Err())
	}
	t.Logf("of %d streams %d were refused and %d lost; the process, with all clients, grew by %d MiB", streams.Load(), refused.Load(), ended.Load(), (most-min(before, most))>>20)
	if streams.Load() != 1000 {
		t.Errorf("%d streams", streams.Load())
	}
}
