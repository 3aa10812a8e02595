package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit/stream"
	"peel/directory/cache"
)

// Whoever asks a directory for all he can, over one circuit or over many, on a stream for each request or on one for all, gets no more than there is for
// that, and a reader beside him gets what he asks for at once.
func TestReadersBesideAFloodOfADirectory(t *testing.T) {
	for _, f := range []struct {
		circuits int
		keep     bool // the stream, for as many requests as it takes
	}{{1, false}, {1, true}, {10, false}, {10, true}} {
		t.Run(fmt.Sprintf("%d circuits, keep %t", f.circuits, f.keep), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { floodDirectory(t, f.circuits, f.keep) })
		})
	}
}

func floodDirectory(t *testing.T, circuits int, keep bool) {
	const lasts, most, rate = 4, 20, 50 // seconds; for all a second; of one
	w := newWorld(t, 1, func(_ int, cfg *Config) {
		cfg.Limits = Limits{StreamRate: 10000} // of an address, which is not what this is about
	})
	w.relays[0].asking.most = most
	reader := w.mustBuild(0)
	var refused atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range circuits {
		c := w.mustBuild(0)
		wg.Go(func() {
			defer c.Close()
			var kept *stream.Stream
			for time.Since(began) < lasts*time.Second {
				ask := func(s *stream.Stream) bool {
					if _, err := io.WriteString(s, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
						return false
					}
					b := make([]byte, 1024)
					n, _ := s.Read(b)
					return strings.HasPrefix(string(b[:n]), "HTTP/1.1 404")
				}
				switch {
				case !keep:
					wg.Go(func() {
						s, err := c.DialDir(t.Context())
						if errors.Is(err, &stream.EndError{Reason: cell.EndBusy}) {
							refused.Add(1)
						}
						if err == nil {
							ask(s)
							s.Close()
						}
					})
				default:
					if kept == nil {
						kept, _ = c.DialDir(t.Context())
					}
					if kept != nil && !ask(kept) {
						refused.Add(1)
						kept.Close()
						kept = nil
					}
				}
				time.Sleep(time.Second / rate)
			}
		})
	}
	time.Sleep(lasts * time.Second / 2)
	for i := range 2 { // it has a circuit for this, as all do
		at := time.Now()
		if _, err := cache.Get(t.Context(), func(ctx context.Context) (net.Conn, error) { return reader.DialDir(ctx) }, cache.Path, 1<<20); err != nil || time.Since(at) > time.Second {
			t.Errorf("reader, request %d: %v, after %v", i, err, time.Since(at))
		}
	}
	wg.Wait()
	flood := int64(w.relays[0].stats.Asked.Counts()["other"])
	bound := int64(circuits*(askFew+1) + most*(lasts+1))
	if one := int64(circuits * (askBurst + askRate*lasts)); one < bound {
		bound = one
	}
	if flood > bound || flood < min(bound, int64(circuits)*rate*lasts)/8 {
		t.Errorf("%d requests of the flood were served, want at most %d", flood, bound)
	}
	if refused.Load() == 0 || w.relays[0].stats.Busy.Load() == 0 {
		t.Errorf("%d were refused, %d counted as such", refused.Load(), w.relays[0].stats.Busy.Load())
	}
	t.Logf("%d served, %d refused", flood, refused.Load())
}

// What a core spends on the requests of the most circuits there may be, of one address, of 200, and through relays, stays a part of it; whoever comes
// then has what a reader or a relay asks for.
func TestDirectoryRequestsOfManyCircuits(t *testing.T) {
	for name, circuits := range map[string]int{"one": 1, "one address's": 2048, "200 addresses'": 4000} {
		t.Run(name, func(t *testing.T) {
			const lasts, ticks = 24, 2 // seconds, of so many
			of, now := &opening{most: openAll, lends: askLend}, time.Unix(1e9, 0)
			var first, then float64
			all := make([]asks, circuits)
			for i := range all {
				all[i].of = of
			}
			for tick := range lasts * ticks {
				now = now.Add(time.Second / ticks)
				for i := range all {
					for range 4 {
						if !all[i].may(now, 1) {
							break
						}
						if first++; tick >= lasts*ticks/2 {
							then++
						}
					}
				}
			}
			second, most := then/(lasts/2), openAll+float64(circuits)*askFewRate
			if circuits == 1 {
				most = askRate
			}
			if second > 1.1*most || second < most/2 {
				t.Errorf("%.0f a second, want at most %.0f", second, most)
			}
			t.Logf("%.0f in all, then %.0f a second", first, second)
			for _, what := range []float64{1, 2, 2, 5, 17, 28, askMost} { // beside a stream: a request; the consensus, descriptors, a proof of many relays, a vote
				honest := asks{of: of}
				if !honest.may(now, 1) || !honest.may(now, what) {
					t.Errorf("a request that counts for %v is refused", what)
				}
			}
		})
	}
}

// However many circuits are made to ask for something large, what they get beside their few and what there is for all has a bound.
func TestLargeRequestsOfNewCircuits(t *testing.T) {
	const each, lasts = 1000, 10 // a second, of so many
	of, now := &opening{most: openAll, lends: askLend}, time.Unix(1e9, 0)
	var began float64
	for range lasts * each {
		now = now.Add(time.Second / each)
		c := asks{of: of}
		for _, n := range []float64{1, askMost, askMost, 1, 1, 1, 1} {
			if c.may(now, n) {
				began += n
			}
		}
	}
	if most := float64((lasts+1)*(openAll+askLend) + lasts*each*askFew); began > most || began < most/2 {
		t.Errorf("%.0f began, want at most %.0f", began, most)
	}
	now = now.Add(time.Second)
	of.all = bucket{taken: of.most, at: now} // all of it is gone
	c := asks{of: of}
	for _, ask := range []struct {
		n    float64
		want bool
	}{{1, true}, {askMost, true}, {1, false}, {2, false}} { // it has to pay back
		if got := c.may(now, ask.n); got != ask.want {
			t.Errorf("a request that counts for %v: %v, want %v", ask.n, got, ask.want)
		}
	}
}

// What an address is refused is not taken from what there is for all.
func TestAnAddressThatIsRefusedTakesNothingFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.Limits = Limits{StreamRate: 1} })
		r := w.relays[0]
		r.asking.most = 500
		before, lc, began := r.asking.taken(), w.mustConnectFrom(0, caller(1)), time.Now()
		var granted, refused atomic.Int64
		var wg sync.WaitGroup
		for range 60 {
			c := w.mustBuildOver(lc, w.hops[:1])
			for range 30 {
				wg.Go(func() {
					if s, err := c.DialDir(t.Context()); err == nil {
						granted.Add(1)
						s.Close()
					} else if errors.Is(err, &stream.EndError{Reason: cell.EndBusy}) {
						refused.Add(1)
					}
				})
			}
		}
		wg.Wait()
		most := int64(burstTime + time.Since(began)/time.Second + 1)
		if n := granted.Load(); n < burstTime || n > most || n+refused.Load() != 60*30 {
			t.Errorf("%d began and %d were refused", n, refused.Load())
		}
		if took := r.asking.taken() - before; took > float64(most) {
			t.Errorf("of what there is for all %v were taken", took)
		}
		if l, b := r.stats.Limited.Load(), r.stats.Busy.Load(); l != uint64(refused.Load()) || b != 0 {
			t.Errorf("%d count as refused by address, %d by circuit, of %d", l, b, refused.Load())
		}
	})
}

func (a *opening) taken() float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.all.taken
}

// Who is refused is not waited for, whatever he had still to send.
func TestARequestTooMuchIsNotReadOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		c := w.mustBuild(0)
		soon := 0
		for range 5 { // of which two or three are what there is for them
			s, err := c.DialDir(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(s, "POST /peel/x HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\nhalf of it")
			s.SetReadDeadline(time.Now().Add(time.Second))
			if answer, err := io.ReadAll(s); err == nil && strings.HasPrefix(string(answer), "HTTP/1.1 503 ") {
				soon++
			}
			s.Close()
		}
		if soon < 2 {
			t.Errorf("%d were refused within a second each", soon)
		}
	})
}

// What takes long counts for more.
func TestWhatARequestCountsFor(t *testing.T) {
	for _, c := range []struct {
		path string
		body int
		want float64
	}{{cache.Path, 0, 1}, {cache.Path + "/diff/" + strings.Repeat("0", 64), 0, 2}, {cache.Path + "/relays/" + strings.Repeat("0", 32*53+64), 0, 28},
		{"/peel/descriptor", 1500, 2}, {"/peel/descriptor", 16 << 10, 17}, {"/peel/vote", 16 << 20, askMost}, {"/peel/vote", -1, askMost}} {
		r := httptest.NewRequest("POST", c.path, nil)
		r.ContentLength = int64(c.body)
		if got := counts(r); got != c.want {
			t.Errorf("%.30s with %d bytes: %v, want %v", c.path, c.body, got, c.want)
		}
	}
}

// What the web server would answer by itself counts as well.
func TestEveryRequestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2 * askBurst
		w := newWorld(t, 1)
		s, err := w.mustBuild(0).DialDir(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var asking sync.WaitGroup
		defer asking.Wait()
		defer s.Close()
		asking.Go(func() { io.WriteString(s, strings.Repeat("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", n)) })
		s.SetReadDeadline(time.Now().Add(time.Minute))
		answers, _ := io.ReadAll(s)
		last := string(answers[max(0, strings.LastIndex(string(answers), "HTTP/1.1 ")):])
		if got := strings.Count(string(answers), "HTTP/1.1 "); got > askBurst+1 || !strings.HasPrefix(last, "HTTP/1.1 4") && !strings.HasPrefix(last, "HTTP/1.1 503 ") {
			t.Errorf("%d of %d were answered, the last with %.40q", got, n, last)
		}
	})
}
