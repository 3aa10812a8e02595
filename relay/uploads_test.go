package relay

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link/linktest"
	"peel/circuit"
)

// Who sends to hosts that read nothing fills the window of each stream, and all of them together no more than the budget's share, however often he
// begins anew; what others send to hosts that read comes.
func TestUploadsToHostsThatReadNothing(t *testing.T) {
	for _, c := range []struct {
		memory            int64
		circuits, streams int // of each
	}{{1 << 30, 1, 3}, {LeastMemory, 1, 20}, {LeastMemory, 8, 3}} {
		synctest.Test(t, func(t *testing.T) {
			var hosts sync.WaitGroup
			var took atomic.Int64
			reads, sink := netip.MustParseAddrPort("127.0.0.8:80"), netip.MustParseAddrPort("127.0.0.9:80")
			w := newWorld(t, 1, exits(0), func(_ int, cfg *Config) {
				cfg.Memory = c.memory
				cfg.Connect = func(_ context.Context, _, to string) (net.Conn, error) {
					at := netip.MustParseAddrPort(to)
					near, far := linktest.Pipe(linktest.Options{A: at, B: at, Window: 16 << 10})
					hosts.Go(func() {
						defer far.Close()
						if at == reads {
							n, _ := io.Copy(io.Discard, far)
							took.Add(n)
							return
						}
						<-t.Context().Done()
					})
					return near, nil
				}
			})
			t.Cleanup(hosts.Wait) // after the test's context
			r := w.relays[0]
			lc := w.mustConnectFrom(0, caller(1))
			var floods sync.WaitGroup
			var ended atomic.Bool
			var sent, begun atomic.Int64
			for range c.circuits {
				ci := w.mustBuildOver(lc, w.hops[:1])
				for range c.streams {
					floods.Go(func() {
						for !ended.Load() && ci.Err() == nil {
							s, err := ci.Dial(t.Context(), cell.Begin{Host: sink.Addr().String(), Port: sink.Port()})
							if err == nil {
								begun.Add(1)
								for chunk := make([]byte, 16<<10); err == nil; {
									var n int
									n, err = s.Write(chunk)
									sent.Add(int64(n))
								}
								s.Close()
							}
							time.Sleep(time.Second) // and again
						}
					})
				}
			}
			most := 0
			for range 20 {
				time.Sleep(100 * time.Millisecond)
				most = max(most, r.budget.Used())
			}
			const window, rest = 1 << 20, 16 << 10 // what is being written to a host counts
			full := c.circuits * c.streams * (window + rest)
			if bound := min(full, r.cfg.MaxUnread+c.circuits*cell.Size); most > bound || most < min(full, r.cfg.MaxUnread)/2 {
				t.Errorf("%d circuits of %d streams: %d bytes wait for hosts, want at most %d", c.circuits, c.streams, most, bound)
			}
			t.Logf("%d circuits of %d streams: %d MiB were sent on %d streams, %d bytes wait for hosts, of %d", c.circuits, c.streams, sent.Load()>>20, begun.Load(), most, r.cfg.MaxUnread)

			honest, err := circuit.Build(t.Context(), w.mustConnectFrom(0, caller(2)), circuit.Config{Network: w.net.Network.ID()}, w.hops[:1])
			if err != nil {
				t.Fatal(err)
			}
			s, err := honest.Dial(t.Context(), cell.Begin{Host: reads.Addr().String(), Port: reads.Port()})
			if err != nil {
				t.Fatal(err)
			}
			const size = 2 << 20
			began := time.Now()
			if n, err := io.Copy(s, io.LimitReader(strings.NewReader(strings.Repeat("x", size)), size)); err != nil || n != size {
				t.Errorf("an honest upload: %d bytes, %v", n, err)
			}
			s.CloseWrite()
			io.Copy(io.Discard, s)
			if took.Load() != size || time.Since(began) > 5*time.Second {
				t.Errorf("of an honest upload came %d bytes in %v", took.Load(), time.Since(began))
			}
			s.Close()
			ended.Store(true)
			lc.Close()
			floods.Wait()
			honest.Close()
			synctest.Wait()
			if n := r.budget.Used(); n != 0 {
				t.Errorf("%d bytes are held for streams that are over", n)
			}
			for _, stop := range w.stop {
				stop()
			}
		})
	}
}
