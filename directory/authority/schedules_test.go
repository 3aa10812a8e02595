package authority

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"peel/directory"
	"peel/directory/dirtest"
)

var (
	seeds = flag.Int("seeds", 0, "random schedules of voters to run; 0: some in the quick test, 2,500 with PEEL_SLOW=1")
	seed  = flag.Int("seed", -1, "the only random schedule of voters to run")
)

func slow() bool { return os.Getenv("PEEL_SLOW") != "" }

// Whatever is delayed, lost or crashes at whatever write, and whatever one dishonest authority of 5 or
// two of 9 say: no authority signs twice for a period, and no two headers can have enough signatures.
// With at most F faulty and links that lose at most half of what is sent, there is a consensus.
func TestRandomSchedules(t *testing.T) {
	first, last := 0, 32
	if slow() {
		last = 2500
	}
	if *seeds > 0 {
		last = *seeds
	}
	if *seed >= 0 {
		first, last = *seed, *seed+1
	}
	nets := [2]*dirtest.Net{}
	for i, n := range []int{5, 9} {
		nets[i] = dirtest.New(uint64(n), 2, dirtest.Authorities(n), dirtest.At(hour(1)), dirtest.Schedule(directory.Schedule{Start: hour(1)}))
	}
	var mu sync.Mutex
	var calm, published, steps int
	t.Run("seeds", func(t *testing.T) {
		const parts = 2
		for part := range parts {
			t.Run(fmt.Sprint(part), func(t *testing.T) {
				t.Parallel()
				for n := first + part; n < last; n += parts {
					c, p, k := runSchedule(t, n, nets[max(0, n/parts%4-2)]) // every fourth with nine
					mu.Lock()
					calm, published, steps = calm+c, published+p, steps+k
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("seeds %d to %d: %d periods with at most F faults, %d consensuses; %d steps", first, last-1, calm, published, steps)
	if published*1000 < calm*999 {
		t.Errorf("%d of %d periods with at most F faults have a consensus", published, calm)
	}
}

// runSchedule runs one schedule over two periods. It returns how many of them had at most F faulty
// authorities and fair links, how many of those had a consensus, and how many steps that took.
func runSchedule(t *testing.T, seed int, net *dirtest.Net) (calm, published, steps int) {
	s := newSim(t, fmt.Sprintf("repeat it with go test ./directory/authority -run TestRandomSchedules -seed=%d -v", seed), net, uint64(seed))
	n := len(s.nodes)
	faults := (n - 1) / 3
	rng := s.rng
	loss := []float64{0, 0.1, 0.25, 0.5, 0.8}[rng.IntN(5)] // of requests, on their way or that of the answer
	slowest := []time.Duration{10 * time.Millisecond, time.Second, 5 * time.Second, time.Minute}[rng.IntN(4)]
	s.link = func(int, int) (time.Duration, bool) {
		return time.Duration(rng.Int64N(int64(slowest))), rng.Float64() < loss/2
	}
	for _, n := range s.nodes {
		n.skew = time.Duration(rng.IntN(21)-10) * time.Second
	}
	faulty := rng.IntN(2 * (faults + 1))
	order := rng.Perm(n)
	for k, i := range order[:min(faulty, faults)] {
		if x := s.nodes[i]; rng.IntN(2) == 0 || k == 0 && rng.IntN(2) == 0 {
			x.evil = &simTraitor{n: x}
		}
	}
	crashing := map[int]bool{}
	for _, i := range order[:faulty] {
		if s.nodes[i].evil == nil {
			crashing[i] = true
		}
	}
	s.crashAt = func(n *simNode) (before, after bool) {
		if !crashing[n.i] || rng.IntN(4) > 0 {
			return false, false
		}
		before = rng.IntN(2) == 0
		s.after(time.Duration(rng.Int64N(int64(5*time.Minute))), n.start)
		return before, !before
	}
	for _, n := range s.nodes {
		s.at(minute(30).Add(time.Duration(rng.IntN(600))*time.Second), n.start)
	}
	for period := range 2 {
		p := PeriodAt(s.net.Network.Schedule, hour(period))
		for _, n := range s.nodes {
			if n.evil != nil {
				s.at(p.Collect.Add(time.Minute), func() { n.evil.betray(p) })
			}
		}
		for i := range crashing {
			down := p.Vote.Add(-5*time.Minute + time.Duration(rng.Int64N(int64(16*time.Minute))))
			s.at(down, s.nodes[i].crash)
			s.at(down.Add(time.Duration(rng.Int64N(int64(8*time.Minute)))), s.nodes[i].start)
		}
	}
	for period := range 2 {
		after := hour(period + 1)
		s.runUntil(after.Add(12 * time.Minute))
		if faulty <= faults && loss <= 0.5 && slowest <= 5*time.Second {
			calm++
			if len(s.published[after]) > 0 {
				published++
			} else {
				t.Logf("seed %d: no consensus in period %d: %d authorities, loss %v, delay %v, faulty %d of which crash %v", seed, period+1, n, loss, slowest, faulty, crashing)
			}
		}
	}
	return calm, published, s.steps
}

// For an hour hardly anything gets through to one authority more than may be missing, or from it: there is
// no consensus then, and one at the latest in the second period after it. The last one before can be
// used for much longer than that.
func TestFloodedAuthorities(t *testing.T) {
	for _, n := range []int{5, 9} {
		net := dirtest.New(uint64(n), 2, dirtest.Authorities(n), dirtest.At(hour(1)), dirtest.Schedule(directory.Schedule{Start: hour(1)}))
		missed := 0
		rounds := 3
		if slow() {
			rounds = 10
		}
		for seed := range rounds {
			s := newSim(t, fmt.Sprintf("seed %d of %d authorities", seed, n), net, uint64(seed))
			flooded := n - net.Network.Threshold + 1
			begin := hour(2).Add(time.Duration(s.rng.IntN(3600)) * time.Second)
			end := begin.Add(time.Hour)
			s.link = func(from, to int) (time.Duration, bool) {
				if (from < flooded || to < flooded) && !s.now.Before(begin) && s.now.Before(end) {
					return time.Minute + time.Duration(s.rng.Int64N(int64(5*time.Minute))), s.rng.IntN(10) > 0
				}
				return time.Duration(s.rng.Int64N(int64(time.Second))), s.rng.IntN(50) == 0
			}
			for _, node := range s.nodes {
				s.at(minute(30), node.start)
			}
			last := hour(0)
			for h := 1; h <= 6; h++ {
				s.runUntil(hour(h).Add(10 * time.Minute))
				if len(s.published[hour(h)]) > 0 {
					last = hour(h)
				} else {
					missed++
				}
				old := hour(h).Sub(last)
				if hour(h).Before(begin) && old > 0 || old > 3*time.Hour+directory.Grace {
					s.fatal("the newest consensus at %v is of %v", hour(h), last)
				}
				if hour(h).Sub(end) >= 2*time.Hour && old > 0 {
					s.fatal("two periods after the flood, at %v, there is no consensus", hour(h))
				}
			}
		}
		t.Logf("%d authorities: %d of %d periods without a consensus", n, missed, 6*rounds)
		if missed == 0 || missed > 2*rounds {
			t.Errorf("%d authorities: %d periods without a consensus: it was no flood, or it did not end", n, missed)
		}
	}
}
