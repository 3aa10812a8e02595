package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/circuit"
	"peel/client/path"
)

// A slowed world has relays that are very slow for a while. Each circuit has a link of its own, as slow as the relays that
// it would go through.
type slowed struct {
	*world
	mu    sync.Mutex
	slow  map[cell.NodeID]bool
	lines []line
}

type line struct {
	path path.Path
	conn *linktest.Conn
}

const (
	usualDelay = 60 * time.Millisecond // of three hops, one way
	slowDelay  = 2 * time.Second       // of one slow relay, one way
)

func (s *slowed) delay(p path.Path) time.Duration {
	d := usualDelay
	for _, e := range p {
		if s.slow[e.ID] {
			d += slowDelay
		}
	}
	return d
}

// turn draws which relays are slow from now on: none that is a guard in use, whom racing is no help against.
func (s *slowed) turn(rng *rand.Rand, share float64, guards []GuardInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow = map[cell.NodeID]bool{}
	var may []cell.NodeID
	for _, r := range s.Relays {
		if !slices.ContainsFunc(guards, func(g GuardInfo) bool { return g.Used && g.ID == r.Descriptor.ID }) {
			may = append(may, r.Descriptor.ID)
		}
	}
	rng.Shuffle(len(may), func(i, j int) { may[i], may[j] = may[j], may[i] })
	for _, id := range may[:int(share*float64(len(s.Relays))+0.5)] {
		s.slow[id] = true
	}
	for _, l := range s.lines {
		l.conn.SetDelay(s.delay(l.path))
	}
}

func (s *slowed) build(c *Client) func(context.Context, path.Path) (*circuit.Circuit, error) {
	return func(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
		n := s.nodeOf(p, path.Hops-1)
		links := link.NewPool(link.PoolConfig{Link: link.Config{Network: c.network}, Idle: time.Second, Dial: func(context.Context, string, string) (net.Conn, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			a, b := linktest.Pipe(linktest.Options{Delay: s.delay(p)})
			s.lines = append(s.lines, line{p, a}, line{p, b})
			s.running.Go(func() {
				if c, err := link.Accept(context.Background(), b, &n.cfg); err == nil {
					n.links().Add(c)
				}
			})
			return a, nil
		}})
		s.t.Cleanup(func() { links.Close() })
		last := p[path.Hops-1]
		conn, err := links.Get(ctx, link.Peer{ID: last.ID, Key: last.LinkKey, Addrs: last.Addrs})
		if err != nil {
			return nil, &circuit.BuildError{Hop: 1, Err: err}
		}
		return circuit.Build(ctx, conn, circuit.Config{Network: c.network, Budget: c.unread},
			[]circuit.Hop{{ID: last.ID, LinkKey: last.LinkKey, OnionKey: last.OnionKey, Addrs: last.Addrs}})
	}
}

// firstBytes is how long streams wait for their answer, five of a token, while other relays are slow each time; and how many
// more circuits were built than there were tokens.
func firstBytes(t *testing.T, share float64, cfg Config) (waits []time.Duration, c *Client, builds int64) {
	rng := rand.New(rand.NewPCG(7, 7))
	s := &slowed{world: newWorld(t, 60)}
	c = s.client(cfg)
	c.pool.build = s.build(c)
	b := counted(c)
	run(t, c)
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Second)
	before := b.begun.Load()
	streams, perToken := 300, 5
	if os.Getenv("PEEL_SLOW") != "" {
		streams = 600
	}
	for i := range streams {
		s.turn(rng, share, c.Guards())
		begin := time.Now()
		conn, err := c.Isolated(i/perToken).DialContext(t.Context(), "tcp", "www.example:443")
		if err != nil {
			t.Fatal(err)
		}
		waits = append(waits, time.Since(begin))
		if err := echo(conn); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		time.Sleep(6 * time.Second)
	}
	slices.Sort(waits)
	return waits, c, b.begun.Load() - before - int64(streams/perToken)
}

func quantile(d []time.Duration, q float64) time.Duration { return d[int(q*float64(len(d)-1))] }

func TestRacingHalvesTheWaitForSlowRelays(t *testing.T) {
	var with, without time.Duration
	synctest.Test(t, func(t *testing.T) {
		waits, _, _ := firstBytes(t, 0.05, Config{NoRacing: true})
		without = quantile(waits, 0.95)
		t.Logf("without racing: half within %v, 95 %% within %v", quantile(waits, 0.5), without)
	})
	synctest.Test(t, func(t *testing.T) {
		waits, c, _ := firstBytes(t, 0.05, Config{})
		with = quantile(waits, 0.95)
		begun, won := c.Races()
		t.Logf("with racing: half within %v, 95 %% within %v; %d of %d streams raced, %d won", quantile(waits, 0.5), with, begun, len(waits), won)
		if won == 0 || int(begun) > len(waits)/racePrice+raceSaving/racePrice {
			t.Errorf("%d races, %d won", begun, won)
		}
	})
	if without < slowDelay {
		t.Fatalf("nothing was slow: the test shows nothing")
	}
	if 2*with > without {
		t.Errorf("95 %% of the streams are answered within %v instead of %v: not half", with, without)
	}
}

func TestNothingSlowMeansHardlyAnyRaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waits, c, more := firstBytes(t, 0, Config{})
		begun, _ := c.Races()
		t.Logf("%d races and %d circuits more than tokens, for %d streams", begun, more, len(waits))
		if int(begun) > len(waits)*3/100 || int(more) > len(waits)*3/100+2*defaultSpare {
			t.Errorf("%d races, %d circuits more than tokens", begun, more)
		}
	})
}

// A target that is slow for everybody is asked twice at most, and seldom: what a bad network gets more of is bounded.
func TestRacesAreBoundedWhenAllIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24)
		c := w.ready(Config{})
		const streams = 150
		for i := range streams {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			if _, err := c.Isolated(i%20).DialContext(ctx, "tcp", "silence.example:443"); err == nil {
				t.Fatal("it answered")
			}
			cancel()
		}
		begun, won := c.Races()
		if most := uint64(streams / racePrice); begun == 0 || begun > most || won != 0 {
			t.Errorf("%d races for %d streams, %d won: at most %d may be", begun, streams, won, most)
		}
		asked := len(w.hosts())
		if asked > streams+int(begun) {
			t.Errorf("exits were asked %d times for %d streams and %d races, %d of them as a circuit failed", asked, streams, begun, c.Again())
		}
	})
}

// What is sent once is not sent twice: the loser of a race gets no byte of the application's.
func TestLoserOfARaceGetsNothing(t *testing.T) {
	for _, slow := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 24)
			c := w.readyToRace(Config{NoRacing: !slow})
			var mu sync.Mutex
			n := 0
			w.delayed = func() time.Duration { // the first is slow
				mu.Lock()
				defer mu.Unlock()
				if n++; n == 1 {
					return 5 * time.Second
				}
				return 0
			}
			begin := time.Now()
			conn := mustDial(t, c, "www.example:443")
			took := time.Since(begin)
			exit := PathOf(conn)[path.Hops-1].ID
			if err := echo(conn); err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Second)
			if !slow {
				if asked := w.hosts(); len(asked) != 1 || took < 5*time.Second {
					t.Errorf("turned off, it is asked for %d times, and answered after %v", len(asked), took)
				}
				return
			}
			if asked := w.hosts(); len(asked) != 2 || took > raceUntold+time.Second {
				t.Errorf("asked for %d times, answered after %v", len(asked), took)
			}
			for _, node := range w.nodes {
				if len(node.askedFor()) > 0 && (node.taken.Load() > 0) != (node.cfg.ID == exit) {
					t.Errorf("an exit that lost got %d bytes, or the one that won none", node.taken.Load())
				}
			}
			if n := len(c.Circuits()); n < 2 {
				t.Errorf("%d circuits", n)
			}
			// The slow circuit gets no other stream.
			other := mustDial(t, c, "www.example:443")
			if PathOf(other)[path.Hops-1].ID != exit {
				t.Error("the circuit that lost is used again")
			}
		})
	}
}

// The guard of the second circuit is that of the first: nobody can make a client use more guards by being slow.
func TestRacesKeepTheGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 40)
		c := w.ready(Config{})
		for i := range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			c.Isolated(i).DialContext(ctx, "tcp", "silence.example:443")
			cancel()
		}
		if begun, _ := c.Races(); begun < 10 {
			t.Fatalf("%d races", begun)
		}
		used := 0
		for _, g := range c.Guards() {
			if g.Used {
				used++
			}
		}
		if used != 1 {
			t.Errorf("%d guards were used", used)
		}
	})
}

func TestLateIsLearned(t *testing.T) {
	for _, x := range []struct {
		name string
		took []time.Duration
		want string
	}{
		{"nothing known", nil, "3s"},
		{"hardly anything known", slices.Repeat([]time.Duration{time.Millisecond}, raceEnough-1), "3s"},
		{"fast", slices.Repeat([]time.Duration{time.Millisecond}, raceEnough), "300ms"},
		{"usual", slices.Repeat([]time.Duration{400 * time.Millisecond}, raceEnough), "920.1ms"},
		{"a fifth slow", append(slices.Repeat([]time.Duration{20 * time.Second}, 20), slices.Repeat([]time.Duration{400 * time.Millisecond}, 80)...), "920.1ms"},
		{"slow", slices.Repeat([]time.Duration{20 * time.Second}, 100), "10s"},
		{"slow until lately", append(slices.Repeat([]time.Duration{20 * time.Second}, 1000), slices.Repeat([]time.Duration{400 * time.Millisecond}, 500)...), "920.1ms"},
		{"slower than there are bins", slices.Repeat([]time.Duration{time.Hour}, 100), "10s"},
	} {
		var a answers
		for _, d := range x.took {
			a.add(d)
		}
		if got := fmt.Sprint(a.late().Round(100 * time.Microsecond)); got != x.want {
			t.Errorf("%s: %s, want %s", x.name, got, x.want)
		}
		if a.total > raceMemory {
			t.Errorf("%s: %d answers are remembered", x.name, a.total)
		}
	}
}

func TestRacesArePaidFor(t *testing.T) {
	var a answers
	raced := 0
	for range 10_000 {
		a.begun()
		if a.race() {
			raced++
		}
	}
	if raced != 10_000/racePrice {
		t.Errorf("%d races", raced)
	}
	for range 10_000 {
		a.begun()
	}
	raced = 0
	for a.race() {
		raced++
	}
	if raced != raceSaving/racePrice {
		t.Errorf("%d races at once, after a long calm", raced)
	}
}
