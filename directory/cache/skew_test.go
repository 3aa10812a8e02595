package cache

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

var skewSeed = flag.Uint64("skew-seed", 4, "of TestClocksOfAMonth")

// Clients with clocks up to thirty days off are given fresh, stale, future and replayed directories: each
// takes what it should, and who refuses one for its time is told of the clock. A client that hears other
// nodes' clocks is told by how much its own is wrong, and never that it is when it is right.
func TestClocksOfAMonth(t *testing.T) {
	cases := 400
	if os.Getenv("PEEL_SLOW") != "" {
		cases = 10_000
	}
	rng := rand.New(rand.NewPCG(*skewSeed, 4))
	world := dirtest.New(1, 1, dirtest.Authorities(1))
	base := world.Consensus.ValidAfter
	made := map[int][]byte{} // consensuses by hour, signed
	at := func(hour int) []byte {
		if made[hour] == nil {
			c := *world.Consensus
			c.ValidAfter = base.Add(time.Duration(hour) * time.Hour)
			c.FreshUntil, c.ValidUntil = c.ValidAfter.Add(time.Hour), c.ValidAfter.Add(3*time.Hour)
			made[hour] = world.Sign(&c, 1)
		}
		return made[hour]
	}
	const month = 30 * 24
	within := func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(2*int64(d))) - d }
	count := map[string]int{}
	for i := range cases {
		noon := base.Add(24*time.Hour + time.Duration(rng.IntN(3600))*time.Second)
		skew := within(month * time.Hour)
		if i%2 == 0 {
			skew = within(40 * time.Hour) // where it matters most
		}
		if i%8 == 0 {
			skew = within(10 * time.Minute)
		}
		now := noon.Add(skew)
		c, err := New(Config{Network: world.Network})
		if err != nil {
			t.Fatal(err)
		}
		// What it is given: the newest, and what is older or comes from the future of all.
		have := -1000 // none
		hours := []int{24, 24 - rng.IntN(48), 24 + rng.IntN(3), 24 - rng.IntN(5)}
		rng.Shuffle(len(hours), func(a, b int) { hours[a], hours[b] = hours[b], hours[a] })
		var clock directory.Clock
		for n := range 3 {
			clock.Heard(cell.NodeID{byte(n + 1)}, -skew+within(2*time.Second))
		}
		for _, h := range hours {
			after := base.Add(time.Duration(h) * time.Hour)
			changed, err := c.Put(at(h), now)
			want := "taken"
			switch {
			case now.Before(after.Add(-directory.MaxSkew)):
				want = "future"
			case now.After(after.Add(3*time.Hour + directory.Grace)):
				want = "expired"
			case have == h:
				want = "known"
			case have > h:
				want = "old"
			}
			got := "taken"
			switch {
			case errors.Is(err, directory.ErrFuture):
				got = "future"
			case errors.Is(err, directory.ErrExpired):
				got = "expired"
			case errors.Is(err, ErrOld):
				got = "old"
			case err != nil:
				got = err.Error()
			case !changed:
				got = "known"
			}
			count[want]++
			if got != want {
				t.Fatalf("case %d (repeat with -skew-seed=%d): clock %v off, directory of hour %d, has that of hour %d: %s, want %s", i, *skewSeed, skew, h, have, got, want)
			}
			if want == "taken" {
				have = h
			}
			if want != "future" && want != "expired" {
				continue
			}
			said := clock.Explain(err).Error()
			wrong := skew.Abs() > directory.MaxSkew+3*time.Second
			right := skew.Abs() < directory.MaxSkew-3*time.Second
			switch {
			case !strings.Contains(said, "clock"):
				t.Fatalf("case %d: clock %v off, not told of it: %s", i, skew, said)
			case wrong && (!strings.Contains(said, "this clock is wrong") || strings.Contains(said, "behind those") != (skew < 0)):
				t.Fatalf("case %d: clock %v off, told: %s", i, skew, said)
			case right && !strings.Contains(said, "agrees"):
				t.Fatalf("case %d: clock %v off, told: %s", i, skew, said)
			}
		}
	}
	t.Logf("%d cases: %v", cases, count)
	for _, kind := range []string{"taken", "future", "expired", "old", "known"} {
		if count[kind] < cases/100 {
			t.Errorf("%d directories %s: too few to say anything", count[kind], kind)
		}
	}
}

// A consensus came when the clock was right, and does not hold yet now that it was set back: the cache asks whether there is another,
// seldom, and says what is wrong. The same is so before it has any.
func TestAClockThatIsSetBackIsToldOf(t *testing.T) {
	made := dirtest.New(1, 3)
	for _, kept := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			right := time.Until(made.Consensus.ValidAfter.Add(time.Minute))
			var wrong, asked, told atomic.Int64
			c, err := New(Config{Network: made.Network, Now: func() time.Time { return time.Now().Add(right + time.Duration(wrong.Load())) }})
			if err != nil {
				t.Fatal(err)
			}
			others, _ := New(Config{Network: made.Network})
			others.Put(made.Text, made.Consensus.ValidAfter)
			if kept {
				c.Put(made.Text, c.cfg.Now())
			}
			wrong.Store(int64(-3 * time.Hour))
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
			defer cancel()
			c.Follow(ctx, Sources{Client: true, Authority: func(ctx context.Context) (net.Conn, error) {
				asked.Add(1)
				return to(others)(ctx)
			}}, nil, func(err error) {
				var at *directory.TimeError
				if errors.As(err, &at) && at.Err == directory.ErrFuture {
					told.Add(1)
				}
			})
			if n := asked.Load(); told.Load() == 0 || n > 60 {
				t.Errorf("with one in hand %v: asked %d times, told %d times", kept, n, told.Load())
			}
		})
	}
}

// Some authorities hand out a list with good signatures that has ended. While they are fewer than would make one doubt the own clock, who
// has none asks on at once, and has it within a second; who is told so by three in a row asks as seldom as if none was out.
func TestAnAuthorityThatIsCutOffKeepsNobodyOut(t *testing.T) {
	for _, x := range []struct {
		stale  int
		client bool
		most   time.Duration
	}{
		{1, true, time.Second}, {1, false, time.Second}, {2, true, time.Second}, {2, false, time.Second}, {3, true, 10 * time.Minute}, {3, false, 10 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			world := dirtest.New(1, 3, dirtest.Authorities(5), dirtest.At(time.Now().Truncate(time.Hour)))
			later := *world.Consensus
			later.ValidAfter = later.ValidAfter.Add(72 * time.Hour)
			later.FreshUntil, later.ValidUntil = later.ValidAfter.Add(time.Hour), later.ValidAfter.Add(3*time.Hour)
			old, now := open(t, world, ""), open(t, world, "")
			if _, err := old.Put(world.Text, time.Now()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(72 * time.Hour)
			if _, err := now.Put(world.Sign(&later, 5), time.Now()); err != nil {
				t.Fatal(err)
			}
			c := open(t, world, "")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
			defer cancel()
			asked, told, begin, took := 0, 0, time.Now(), time.Duration(-1)
			c.Follow(ctx, Sources{Client: x.client, Authority: func(ctx context.Context) (net.Conn, error) {
				if asked++; asked <= x.stale {
					return to(old)(ctx)
				}
				return to(now)(ctx)
			}}, func(*directory.Consensus) { took = time.Since(begin); cancel() }, func(err error) {
				if !errors.Is(err, directory.ErrExpired) {
					t.Errorf("after %d: %v", asked, err)
				}
				told++
			})
			if took < 0 || took > x.most || x.most > time.Second && took < time.Minute/2 || asked != x.stale+1 || told != x.stale {
				t.Errorf("%d that are stale, client %v: %d were asked, it was told %d times, and had one after %v", x.stale, x.client, asked, told, took)
			}
		})
	}
}

// A machine starts with a clock that is years off, and is set right a while later. It has the directory a minute after that, however often
// authorities had told it before that theirs is of another time.
func TestAClockThatIsSetRightIsNoticed(t *testing.T) {
	made := dirtest.New(1, 3, dirtest.Authorities(4))
	for _, c := range []struct {
		off, lasting time.Duration
		client       bool
	}{{30 * year, 20 * time.Second, true}, {-30 * year, 20 * time.Second, true}, {30 * year, 20 * time.Minute, true}, {30 * year, 20 * time.Minute, false}, {-30 * year, 20 * time.Minute, false}, {-2 * time.Hour, 7 * time.Minute, true}} {
		synctest.Test(t, func(t *testing.T) {
			right := time.Until(made.Consensus.ValidAfter.Add(time.Minute))
			var wrong atomic.Int64
			now := func() time.Time { return time.Now().Round(0).Add(right + time.Duration(wrong.Load())) }
			wrong.Store(int64(c.off))
			self, err := New(Config{Network: made.Network, Now: now})
			if err != nil {
				t.Fatal(err)
			}
			others, _ := New(Config{Network: made.Network})
			others.Put(made.Text, made.Consensus.ValidAfter)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			began := time.Now()
			time.AfterFunc(c.lasting, func() { wrong.Store(0) })
			self.Follow(ctx, Sources{Client: c.client, Authority: to(others)}, func(*directory.Consensus) { cancel() }, nil)
			if took := time.Since(began) - c.lasting; self.Consensus() == nil || took > sleepMost+time.Second {
				t.Errorf("%v off for %v (client: %v): there is a directory %v after the clock was set right", c.off, c.lasting, c.client, took)
			}
		})
	}
}

const year = 365 * 24 * time.Hour
