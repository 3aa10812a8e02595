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
	"peel/directory/cache"
)

// Thousands of directory streams on which half a request comes, or whose answer nobody reads, are each ended by their deadline, and whoever
// asks meanwhile is answered at once.
func TestSlowReadersOfTheDirectory(t *testing.T) {
	const each, slow = 30, 167
	circuits := 14
	if os.Getenv("PEEL_SLOW") == "1" {
		circuits = slow
	} else {
		t.Logf("%d streams: PEEL_SLOW=1 makes it %d", circuits*each, slow*each)
	}
	for name, c := range map[string]struct {
		says string
		most time.Duration
	}{
		"silent":          {"", 10 * time.Second},
		"half a head":     {"GET /peel/consensus HTTP/1.1\r\nHost: directory\r\n", 10 * time.Second},
		"a body for ever": {"POST /peel/reach HTTP/1.1\r\nHost: directory\r\nContent-Length: 500\r\n\r\npeel-reach 1\n", 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				r := w.relays[0]
				r.asking.most = 4 * slow * each // as if they had come one after the other
				var all sync.WaitGroup
				var longest, begun atomic.Int64
				for i := range circuits {
					lc := w.mustConnectFrom(0, netip.AddrPortFrom(caller(i).Addr(), 40000))
					ci := w.mustBuildOver(lc, w.hops[:1])
					for range each {
						all.Go(func() {
							s, err := ci.DialDir(t.Context())
							if err != nil {
								t.Error(err)
								return
							}
							begun.Add(1)
							began := time.Now()
							io.WriteString(s, c.says)
							io.Copy(io.Discard, s)
							for took := int64(time.Since(began)); ; {
								if was := longest.Load(); took <= was || longest.CompareAndSwap(was, took) {
									break
								}
							}
							s.Close()
						})
					}
				}
				synctest.Wait()
				r.mu.Lock()
				n := r.streams.n
				r.mu.Unlock()
				if n < circuits*each {
					t.Errorf("%d streams are there", n)
				}
				began := time.Now()
				honest := w.mustConnectFrom(0, caller(1000))
				ci := w.mustBuildOver(honest, w.hops[:1])
				if _, err := cache.Get(t.Context(), func(ctx context.Context) (net.Conn, error) { return ci.DialDir(ctx) }, cache.Path, 16<<20); err != nil {
					t.Errorf("an honest request: %v", err)
				}
				if took := time.Since(began); took > time.Second {
					t.Errorf("an honest request took %v", took)
				}
				ci.Close()
				all.Wait()
				if took := time.Duration(longest.Load()); begun.Load() != int64(circuits*each) || took > c.most+time.Second {
					t.Errorf("of %d, one was there for %v", begun.Load(), took)
				}
				synctest.Wait()
				r.mu.Lock()
				defer r.mu.Unlock()
				if r.streams.n != 0 {
					t.Errorf("%d streams still have a place", r.streams.n)
				}
			})
		})
	}
}

// A relay asks each other relay once for the directory before it asks any again, and never itself.
func TestARelayThatWasAskedForTheDirectoryIsAvoided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		for range 8 {
			nc, id, err := w.relays[0].dialRelay(t.Context(), []cell.NodeID{w.hops[1].ID, w.hops[3].ID})
			if err != nil {
				t.Fatal(err)
			}
			nc.Close()
			if id != w.hops[2].ID {
				t.Errorf("%v is asked", id)
			}
		}
		if _, id, err := w.relays[0].dialRelay(t.Context(), []cell.NodeID{w.hops[1].ID, w.hops[2].ID, w.hops[3].ID}); err == nil || !id.IsZero() {
			t.Errorf("%v is asked again: %v", id, err)
		}
	})
}
