package client

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/circuit"
	"peel/client/path"
	"peel/directory"
	"peel/directory/dirtest"
)

func TestLimitIsWhatFourOfFiveBuildsTake(t *testing.T) {
	var b buildTimes
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 5000 {
		if want := i >= timesEnough; (b.limit() != buildLimit) != want {
			t.Fatalf("after %d builds the limit is %v", i, b.limit())
		}
		// Half a second to ten and a half, each as likely: four of five within 8.5.
		b.add(500*time.Millisecond + time.Duration(rng.Int64N(int64(10*time.Second))))
		if b.total > timesMost {
			t.Fatalf("%d count", b.total)
		}
	}
	if l := b.limit(); l < 8*time.Second || l > 10500*time.Millisecond {
		t.Errorf("the limit is %v", l)
	}
	// Quick ones: a second at least. Slow ones: a minute at most. What is new counts more than what is old.
	for range 3 * timesMost {
		b.add(time.Millisecond)
	}
	if l := b.limit(); l != leastLimit {
		t.Errorf("the limit is %v", l)
	}
	for range 3 * timesMost {
		b.add(time.Hour)
	}
	if l := b.limit(); l != buildLimit {
		t.Errorf("the limit is %v", l)
	}
}

func TestAnotherNetworkIsLearnedAnew(t *testing.T) {
	var b buildTimes
	for range 200 {
		b.add(time.Second)
		b.ended(false)
	}
	for i := range lateMost {
		if b.limit() == buildLimit {
			t.Fatalf("forgotten after %d late ones", i)
		}
		b.ended(true)
	}
	if b.limit() != buildLimit {
		t.Error("nearly all are late, and the limit stays")
	}
}

func TestBuildTimesAreReadBack(t *testing.T) {
	var b buildTimes
	for i := range 300 {
		b.add(time.Duration(i*i) * time.Millisecond)
	}
	got, err := parseTimes(b.encode())
	if err != nil || got != b {
		t.Errorf("%v: %+v, want %+v", err, got, b)
	}
	for _, bad := range []string{"", "counts = [1, 2]", "x = 1", string(b.encode()[:80]),
		strings.Replace(string(b.encode()), "[", "[-", 1), "counts = [" + strings.Repeat("1000, ", timeBins) + "]"} {
		if _, err := parseTimes([]byte(bad)); err == nil {
			t.Errorf("accepted: %.60s", bad)
		}
	}
}

func FuzzParseTimes(f *testing.F) {
	none := string((&buildTimes{}).encode())
	f.Add([]byte(none))
	for _, with := range []string{"-1", "1000", "1001", "1000, 1", "1.5", "07"} {
		f.Add([]byte(strings.Replace(none, "[0", "["+with, 1)))
	}
	var b buildTimes
	for i := range 3 * timesMost {
		b.add(time.Duration(i) * 20 * time.Millisecond)
	}
	f.Add(b.encode())
	f.Add([]byte("counts = [1]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := parseTimes(text)
		if err != nil {
			return
		}
		total := 0
		for _, n := range b.counts {
			total += max(n, 0)
		}
		if b.total != total || total > timesMost || b.limit() > buildLimit || b.limit() < leastLimit {
			t.Errorf("%+v", b)
		}
		if again, err := parseTimes(b.encode()); err != nil || again != b {
			t.Errorf("%+v became %+v, %v", b, again, err)
		}
	})
}

// Once it is known how long builds take, a stream does not wait for one that takes much longer; and no guard is blamed.
func TestLateBuildIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24)
		dir := t.TempDir()
		c := w.client(Config{Dir: dir, Spare: 1})
		stuck, next := make(chan int, 1), c.pool.build // how many of the next builds come to no end
		stuck <- 0
		took := make(chan time.Duration, 1000)
		c.pool.build = func(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
			s := <-stuck
			stuck <- max(0, s-1)
			if s > 0 {
				begin := time.Now()
				<-ctx.Done()
				took <- time.Since(begin)
				return nil, &circuit.BuildError{Hop: 1, Err: ctx.Err()}
			}
			time.Sleep(500 * time.Millisecond)
			return next(ctx, p)
		}
		stop := run(t, c)
		for i := range timesEnough {
			if err := dialAndEcho(c.Isolated(i), "www.example:443"); err != nil {
				t.Fatal(err)
			}
		}
		c.pool.mu.Lock()
		limit := c.pool.times.limit()
		for h := range c.pool.circs {
			h.gone = true
		}
		c.pool.mu.Unlock()
		if limit != leastLimit {
			t.Fatalf("the limit is %v", limit)
		}
		<-stuck
		stuck <- 2 // the one for the stream, and the spare one that is begun with it
		begin := time.Now()
		if err := dialAndEcho(c.Isolated("late"), "www.example:443"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < leastLimit || took > 2*time.Second {
			t.Errorf("the stream waited %v", took)
		}
		time.Sleep(2 * time.Second)
		c.pool.mu.Lock()
		if n := len(c.pool.faults); n != 0 {
			t.Errorf("%d relays are blamed", n)
		}
		c.pool.mu.Unlock()
		time.Sleep(2 * buildLimit)
		if d := <-took; d < buildLimit {
			t.Errorf("the late one was given up after %v: its time is not learned", d)
		}
		if g := preferred(t, c); !g.Up || g.Down || g.Suspect {
			t.Errorf("the guard is blamed: %+v", g)
		}
		stop()
		// The next run knows.
		again := w.client(Config{Dir: dir})
		if l := again.pool.times.limit(); l != leastLimit {
			t.Errorf("after a restart the limit is %v", l)
		}
		run(t, again)()
		if err := os.WriteFile(filepath.Join(dir, timesName), []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		if l := w.client(Config{Dir: dir}).pool.times.limit(); l != buildLimit {
			t.Errorf("from a broken file: %v", l)
		}
	})
}

// A device or a pipe in the place of what was learned keeps nobody from starting.
func TestBuildTimesAreReadFromAPlainFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Symlink(os.DevNull, filepath.Join(dir, timesName)); err != nil {
			t.Skip(err) // Windows lets not everybody
		}
		var log lockedBuffer
		newWorld(t, 6).client(Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if !strings.Contains(log.String(), "not a plain file") {
			t.Errorf("it was read: %s", log.String())
		}
	})
}

// buildsInAMillisecond has a client think that all builds took so long until now.
func buildsInAMillisecond(c *Client) {
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	for range timesEnough {
		c.pool.times.add(time.Millisecond)
	}
}

// Late builds are bounded: more than that are given up.
func TestManyLateBuilds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24)
		c := w.client(Config{})
		b := counted(c)
		run(t, c)
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		buildsInAMillisecond(c)
		b.takes.Store(int64(10 * time.Minute))
		for i := range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			_, err := c.Isolated(i).DialContext(ctx, "tcp", "www.example:443")
			cancel()
			if err == nil && i > defaultSpare {
				t.Fatal("it has a circuit")
			}
			if n := b.now.Load(); n > 2*builds {
				t.Fatalf("%d builds at a time", n)
			}
		}
	})
}

func TestCircuitsAreMadeAheadForPortsUsedLately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24, dirtest.Entries(func(i int, e *directory.Entry) {
			e.Policy = nil
			switch i % 6 {
			case 0:
				e.Policy, _ = directory.ParsePolicy([]string{"accept *:443"})
			case 3:
				e.Policy, _ = directory.ParsePolicy([]string{"accept *:22"})
			}
		}))
		c, b := start(t, w, Config{})
		b.takes.Store(int64(time.Second))
		waits := func(token any, target string) time.Duration {
			begin := time.Now()
			if err := dialAndEcho(c.Isolated(token), target); err != nil {
				t.Fatal(err)
			}
			return time.Since(begin)
		}
		if d := waits(1, "www.example:22"); d < time.Second {
			t.Fatalf("%v: nobody could know", d)
		}
		for i := range 5 {
			time.Sleep(10 * time.Second)
			if d := waits(10+i, "www.example:22"); d > 100*time.Millisecond {
				t.Errorf("the port was used lately, and a stream waited %v", d)
			}
			if d := waits(20+i, "www.example:443"); d > 100*time.Millisecond {
				t.Errorf("the others are not kept: %v", d)
			}
		}
		time.Sleep(10 * time.Second)
		if spare, _ := counts(c); spare != defaultSpare+1 {
			t.Errorf("%d spare circuits", spare)
		}
		time.Sleep(2 * time.Hour) // and those made ahead have done their time
		spare, _ := counts(c)
		if spare < defaultSpare { // one is just being replaced
			time.Sleep(10 * time.Second)
			spare, _ = counts(c)
		}
		if spare != defaultSpare {
			t.Errorf("%d spare circuits, two hours later", spare)
		}
	})
}

func TestPortsAreBounded(t *testing.T) {
	p, now := make(ports), time.Now()
	for i := range 100 {
		p.used(uint16(1+i), now.Add(time.Duration(i)*time.Second))
	}
	got := p.expected(now.Add(100 * time.Second))
	if len(got) != portsMost || got[0] != 93 || got[portsMost-1] != 100 {
		t.Errorf("%v", got)
	}
	p.used(93, now.Add(101*time.Second))
	p.used(200, now.Add(102*time.Second))
	if got := p.expected(now.Add(102 * time.Second)); len(got) != portsMost || got[0] != 93 || got[1] != 95 {
		t.Errorf("one used again is kept: %v", got)
	}
	if got := p.expected(now.Add(2 * time.Hour)); len(got) != 0 || len(p) != 0 {
		t.Errorf("%v", got)
	}
}

func TestFirstCircuitComesAlthoughRelaysAreMute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWorld(t, 24).client(Config{Spare: 3})
		var n atomic.Int64
		next := c.pool.build
		c.pool.build = func(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
			if n.Add(1) > 9 { // three rounds of builds meet such ones
				return next(ctx, p)
			}
			<-ctx.Done()
			return nil, &circuit.BuildError{Hop: 1, Err: ctx.Err()}
		}
		begin := time.Now()
		run(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took < 3*coldLimit || took > 4*coldLimit {
			t.Errorf("it took %v", took)
		}
	})
}

func TestFirstCircuitIsWaitedForLongerWhenTheStartIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWorld(t, 24).client(Config{Spare: 3})
		now := time.Now()
		p := c.pool
		p.mu.Lock()
		defer p.mu.Unlock()
		p.began = now
		for _, x := range []struct {
			after  time.Duration
			coldly int
			want   time.Duration
		}{{0, 0, coldLimit}, {coldFor - 1, 12, coldLimit}, {coldFor, 2, coldLimit}, {coldFor, 3, 2 * coldLimit}, {coldFor, 12, 16 * coldLimit}, {time.Hour, 1000, buildLimit}} {
			if p.coldly = x.coldly; p.limit(now.Add(x.after)) != x.want {
				t.Errorf("after %v and %d late builds: %v, not %v", x.after, x.coldly, p.limit(now.Add(x.after)), x.want)
			}
		}
	})
}
