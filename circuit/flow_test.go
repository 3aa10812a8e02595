package circuit

import (
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link/linktest"
	"peel/circuit/stream"
)

// The tests of this file run whole circuits, layers and streams included, over links with delay and rate. The figures in
// brackets are those of the simulator that found the rule of credit (spec/flow.md, section 9).

const ms = time.Millisecond

// flowTest runs f in virtual time, beside other tests; under the race detector, which makes it ten times as long, only if
// slow tests are asked for.
func flowTest(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if raceEnabled && os.Getenv("PEEL_SLOW") == "" {
		t.Skip("takes long under the race detector: PEEL_SLOW=1")
	}
	t.Parallel()
	synctest.Test(t, f)
}

// lines are wires of 30 ms with so many Mbit/s each way, from the client on.
func lines(mbits ...float64) func(i int) (a, b *linktest.Conn) {
	return func(i int) (a, b *linktest.Conn) {
		return linktest.Pipe(linktest.Options{Delay: 30 * ms, Window: 1 << 28, Rate: mbit(mbits[i])})
	}
}

// mbit is a rate of so many Mbit/s, in bytes a second.
func mbit(n float64) int { return int(n * 1e6 / 8) }

// payload is how many bytes of streams go over a line of so many Mbit/s in a while.
func payload(n float64, d time.Duration) float64 {
	return float64(mbit(n)) * cell.MaxData / cell.Size * d.Seconds()
}

// A meter reads a stream to its end and knows when what came.
type meter struct {
	mu    sync.Mutex
	total int
	at    []reading
}

// A reading is how many bytes there had been when.
type reading struct {
	total int
	at    time.Time
}

// drink reads s until it ends, in a goroutine that ends with the circuit.
func drink(s io.Reader) *meter {
	m := new(meter)
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := s.Read(b)
			m.mu.Lock()
			m.total += n
			m.at = append(m.at, reading{m.total, time.Now()})
			m.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return m
}

func (m *meter) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}

// over is how many bytes come in a while.
func over(d time.Duration, ms ...*meter) (n int) {
	for _, m := range ms {
		n -= m.count()
	}
	settle(d)
	for _, m := range ms {
		n += m.count()
	}
	return n
}

func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// ask sends one cell on a stream to a host that answers with n bytes, and says when the first and the last came.
func ask(t *testing.T, s *stream.Stream, n int) (first, last time.Duration) {
	t.Helper()
	began := time.Now()
	if _, err := s.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	for got := 0; got < n; {
		k, err := s.Read(b[got:])
		if err != nil {
			t.Fatal(err)
		}
		if got == 0 {
			first = time.Since(began)
		}
		got += k
	}
	return first, time.Since(began)
}

// asks asks many times, with pauses, and says what is above idle at the 95th percentile.
func asks(t *testing.T, s *stream.Stream, times, n int) (first, last time.Duration) {
	t.Helper()
	var firsts, lasts []time.Duration
	for i := range times {
		settle(time.Duration(100+37*i%100) * ms)
		f, l := ask(t, s, n)
		firsts, lasts = append(firsts, f), append(lasts, l)
	}
	return p95(firsts), p95(lasts)
}

func p95(d []time.Duration) time.Duration { return quantile(d, 0.95) }

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[int(float64(len(d)-1)*q)].Round(ms / 10)
}

// TestInteractiveBesideBulk: ten cells in answer to one, on a circuit of its own, beside 50 downloads on 20 Mbit/s.
func TestInteractiveBesideBulk(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		w := newWorldOver(t, 3, lines(1000, 20, 1000))
		first, last := later(t, open(t, w.mustBuild(), "answers-13800"), 20, func() (all []*meter) {
			for range 50 {
				all = append(all, drink(open(t, w.mustBuild(), "flood")))
			}
			return all
		})
		if first > 20*ms || last > 20*ms { // of some 12 and 15 ms
			t.Error("it waits too long")
		}
	})
}

// TestInteractiveOnBulksCircuit: the same on the circuit of one of 10 downloads on 100 Mbit/s.
func TestInteractiveOnBulksCircuit(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		w := newWorldOver(t, 3, lines(1000, 100, 1000))
		c := w.mustBuild()
		first, _ := later(t, open(t, c, "answers-13800"), 100, func() []*meter {
			all := []*meter{drink(open(t, c, "flood"))}
			for range 9 {
				all = append(all, drink(open(t, w.mustBuild(), "flood")))
			}
			return all
		})
		if first > 60*ms { // of some 23 ms
			t.Error("it waits too long")
		}
	})
}

// later is how much longer the first and the last byte of an answer take when bulk is under way, which fills a line of so many Mbit/s.
func later(t *testing.T, s *stream.Stream, mbits float64, bulk func() []*meter) (first, last time.Duration) {
	t.Helper()
	idle, idleLast := asks(t, s, 10, 13800)
	all := bulk()
	sum := func() (n int) {
		for _, m := range all {
			n += m.count()
		}
		return n
	}
	settle(3 * time.Second)
	began, was := time.Now(), sum()
	first, last = asks(t, s, 12, 13800)
	use := float64(sum()-was) / payload(mbits, time.Since(began))
	t.Logf("idle %v, last byte %v; beside the bulk: +%v, last byte +%v p95; the bulk has %.1f %%", idle, idleLast, first-idle, last-idleLast, 100*use)
	if use < 0.9 {
		t.Error("the bulk does not fill the line: there is nothing to wait for")
	}
	return first - idle, last - idleLast
}

// TestObjectsComeAtOnce: 50 KB on a fresh circuit, and 280 KB on one that was used, from when the exit has them.
func TestObjectsComeAtOnce(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		w := newWorldOver(t, 3, lines(1000, 100, 1000))
		fetch := func(c *Circuit, name string, size int) (oneWay, all time.Duration) {
			s := open(t, c, name)
			defer s.Close()
			_, all = ask(t, s, size)
			return all - 90*ms, all
		}
		fresh, _ := fetch(w.mustBuild(), "answers-50000", 50000)
		c := w.mustBuild()
		fetch(c, "answers-1000000", 1000000)
		settle(2 * time.Second)
		_, warm := fetch(c, "answers-280000", 280000)
		transfer := time.Duration(280000 / payload(100, time.Second) * float64(time.Second))
		ideal := 180*ms + transfer
		t.Logf("50 KB on a fresh circuit: %v after the request came (94ms); 280 KB on a warm one: %v = %.2f × ideal (1 RTT + transfer = %v)",
			fresh.Round(ms/10), warm.Round(ms/10), float64(warm)/float64(ideal), ideal.Round(ms/10))
		if fresh > 100*ms {
			t.Error("50 KB take too long")
		}
		if float64(warm) > 1.2*float64(ideal) {
			t.Error("280 KB take too long")
		}
	})
}

// TestStoppedReaderHarmsNoOtherStream: an application stops reading one stream; another on its circuit goes on, and no relay
// holds anything of the first.
func TestStoppedReaderHarmsNoOtherStream(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		w := newWorldOver(t, 3, lines(1000, 100, 1000))
		c := w.mustBuild()
		m := drink(open(t, c, "flood"))
		settle(2 * time.Second)
		alone := over(2*time.Second, m)
		const read = 100 << 10
		stopped := open(t, c, "flood")
		if _, err := io.ReadFull(stopped, make([]byte, read)); err != nil { // and no more
			t.Fatal(err)
		}
		settle(2 * time.Second)
		beside := over(2*time.Second, m)
		waits := c.mux.Unread() // all of it of the one that nobody reads
		onWay := stream.InitialWindow - read - waits
		t.Logf("the other stream has %.1f %% of its speed; %d KiB wait at the client, %d bytes of it at relays (0)", 100*float64(beside)/float64(alone), waits>>10, onWay)
		if float64(beside) < 0.95*float64(alone) {
			t.Error("the other stream suffers")
		}
		if onWay != 0 {
			t.Error("what the window allows has not come to the client, or more has")
		}
	})
}

// TestSixHops: a download over six hops of 30 ms, whose last line, to the client, has 20 Mbit/s.
func TestSixHops(t *testing.T) {
	flowTest(t, func(t *testing.T) {
		w := newWorldOver(t, 6, lines(20, 1000, 1000, 1000, 1000, 1000))
		var mu sync.Mutex
		var sealed []reading // of data, in bytes from the first
		w.nodes[5].sealed = func(_ *transit, body []byte) {
			m, err := cell.ParseMessage(body)
			if err != nil || m.Type != cell.MsgData {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			n := len(m.Data)
			if len(sealed) > 0 {
				n += sealed[len(sealed)-1].total
			}
			sealed = append(sealed, reading{n, time.Now()})
		}
		m := drink(open(t, w.mustBuild(), "flood"))
		// extra is what a cell takes on top of the way, from sealing until it is read.
		extra := func(d time.Duration) (rate float64, p50, p95 time.Duration) {
			m.mu.Lock()
			first := len(m.at)
			m.mu.Unlock()
			rate = float64(over(d, m)) / payload(20, d)
			mu.Lock()
			defer mu.Unlock()
			m.mu.Lock()
			defer m.mu.Unlock()
			var all []time.Duration
			for _, came := range m.at[first:] {
				i, _ := slices.BinarySearchFunc(sealed, came.total, func(x reading, n int) int { return x.total - n })
				all = append(all, came.at.Sub(sealed[i].at)-180*ms)
			}
			return rate, quantile(all, 0.5), quantile(all, 0.95)
		}
		_, _, early := extra(3 * time.Second)
		settle(2 * time.Second)
		rate, p50, p95 := extra(5 * time.Second)
		t.Logf("%.1f %% (99.5), extra p50 %v (55ms) p95 %v, in the first 3 s p95 %v (1.1s)", 100*rate, p50, p95, early)
		if p95 > 150*ms || rate < 0.98 {
			t.Error("too slow or long")
		}
	})
}
