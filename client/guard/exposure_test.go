package guard

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"peel/cell"
)

// world is a network whose relays come and go, a consensus a day.
type world struct {
	relays int     // at a time
	away   float64 // share that is away on any day, and back after that
	leave  float64 // share that leaves for good a day, each replaced by a new one
	evil   float64 // share that is hostile: never away, never leaving
	block  int     // honest guards that an attacker takes down for each client, each day: those the client prefers
	smear  int     // times a day that he makes the guard a client uses look bad, if it is honest
}

// days are two years.
const days = 730

// consensuses draws the lists of all days. Hostile relays have even numbers, so that a name tells.
func (w world) consensuses(r *rand.Rand) []*List {
	next := 0
	name := func(evil bool) cell.NodeID {
		next++
		if evil {
			return id(2 * next)
		}
		return id(2*next + 1)
	}
	evil := int(w.evil * float64(w.relays))
	all := make([]cell.NodeID, w.relays)
	for i := range all {
		all[i] = name(i < evil)
	}
	lists := make([]*List, days)
	for d := range lists {
		var there []Relay
		for i := range all {
			if i >= evil && d > 0 && r.Float64() < w.leave {
				all[i] = name(false)
			}
			if i < evil || r.Float64() >= w.away {
				there = append(there, Relay{all[i], 1000})
			}
		}
		lists[d] = NewList(there)
	}
	return lists
}

func hostile(n cell.NodeID) bool { return number(n)%2 == 0 }

// life is one client and what it met.
type life struct {
	set     *Set
	rng     *rand.Rand
	used    map[cell.NodeID]bool // guards that a circuit was built through
	window  map[cell.NodeID]bool // those of the last sixty days
	windows []int                // how many there were in each sixty days
	evil    bool                 // one was hostile
}

// live lets clients live for two years.
func (w world) live(lists []*List, lives []life) {
	for d, list := range lists {
		for i := range lives {
			w.day(d, list, &lives[i])
		}
	}
}

// day lets a client follow the consensus and build a circuit; the attacker takes down the guards that it prefers, as many
// as he can, and lets hostile ones be.
func (w world) day(d int, list *List, l *life) {
	s, r := l.set, l.rng
	now := t0.Add(time.Duration(d) * day)
	s.Update(list, nil, now, r.Uint64N)
	var blocked []cell.NodeID
	smeared := 0
	for tries := 0; tries < 300; tries++ {
		now = now.Add(time.Second)
		g, err := s.Pick(nil, now)
		if err != nil {
			break
		}
		bad := slices.Contains(blocked, g)
		if !bad && !hostile(g) && len(blocked) < w.block {
			blocked, bad = append(blocked, g), true
		}
		if bad {
			s.Failed(g, now, r.Uint64N)
			continue
		}
		if s.Succeeded(g, nil, now, r.Uint64N) == Keep {
			l.used[g], l.window[g] = true, true
			l.evil = l.evil || hostile(g)
			if smeared < w.smear && !hostile(g) {
				smeared++
				s.Leave(g, now, r.Uint64N)
				continue
			}
			break
		}
	}
	if d%60 == 59 {
		l.windows = append(l.windows, len(l.window))
		clear(l.window)
	}
}

// bound is how many different guards a client uses at most, on average, in so many days (spec/guard.md, section 7).
func (w world) bound(t float64) float64 {
	rate := 1/114.0 + w.leave*(1-w.evil) // at which one place of the order gets another guard
	best, block := math.Inf(1), w.block
	if w.smear > 0 {
		block += MostLeft
	}
	for m := block + 1; m <= MaxSample; m++ {
		e := float64(m) * (1 + rate*t)
		for j := m; j <= MaxSample; j++ {
			e += t * atLeast(j-block, j, w.away*(1-w.evil))
		}
		best = min(best, e)
	}
	return best
}

// atLeast is the chance that k or more of n are away.
func atLeast(k, n int, p float64) (sum float64) {
	for i := k; i <= n; i++ {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(i + 1))
		c, _ := math.Lgamma(float64(n - i + 1))
		sum += math.Exp(a - b - c + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return sum
}

// meets is the share of clients, at most, that use a hostile guard in so many days. Hostile ones do not leave, so that
// their share of a set grows while it waits.
func (w world) meets(t float64) float64 {
	evil := min(1, w.evil*math.Exp(60*w.leave))
	return 1 - math.Pow(1-evil, w.bound(t))
}

func TestExposureStaysWithinTheBound(t *testing.T) {
	const seed = 11
	slow := os.Getenv("PEEL_SLOW") != ""
	if !slow {
		t.Log("20 clients and 300 relays a world; PEEL_SLOW=1 has 1,000 of these, and 2,500 and 400")
	}
	for _, x := range []struct {
		clients int // slow
		world
		p95 int // guards in sixty days, for nearly all
	}{
		{2500, world{relays: 1000, away: 0.05, leave: 0.001, evil: 0.05}, 4},
		{400, world{relays: 1000, away: 0.05, leave: 0.001, evil: 0.01, block: 1}, 5},
		{400, world{relays: 1000, away: 0.05, leave: 0.001, evil: 0.01, block: 3}, 8},
		{400, world{relays: 1000, away: 0.05, leave: 0.001, evil: 0.01, smear: 10}, 9}, // whoever he likes looks bad
		{400, world{relays: 1000, away: 1e-9, leave: 0.05}, 8},                         // 5 % a day leave for good
		{400, world{relays: 1000, away: 1e-9, leave: 0.05, block: 3}, 20},
	} {
		clients := 20
		if slow {
			clients = x.clients
		} else {
			x.relays = 300
		}
		t.Run(fmt.Sprintf("%+v", x.world), func(t *testing.T) {
			lists := x.consensuses(rand.New(rand.NewPCG(seed, 0)))
			lives := make([]life, clients)
			for i := range lives {
				lives[i] = life{set: New(network), rng: rand.New(rand.NewPCG(seed, uint64(i)+1)), used: map[cell.NodeID]bool{},
					window: map[cell.NodeID]bool{}}
			}
			var wg sync.WaitGroup
			const chunk = 250 // more do not fit into a processor's cache
			turn := make(chan struct{}, runtime.GOMAXPROCS(0))
			for part := range slices.Chunk(lives, chunk) {
				turn <- struct{}{}
				wg.Go(func() {
					x.live(lists, part)
					<-turn
				})
			}
			wg.Wait()
			used, met := 0, 0
			var windows []int
			for _, l := range lives {
				used += len(l.used)
				if l.evil {
					met++
				}
				windows = append(windows, l.windows...)
			}
			slices.Sort(windows)
			mean, share := float64(used)/float64(clients), float64(met)/float64(clients)
			p50, p95 := windows[len(windows)/2], windows[len(windows)*95/100]
			t.Logf("seed %d, %d clients: %.2f guards a client (bound %.2f), %.3f met a hostile one (bound %.3f); in sixty days half %d, 95 %% at most %d, all %d",
				seed, clients, mean, x.bound(days), share, x.meets(days), p50, p95, windows[len(windows)-1])
			if mean > 1.1*x.bound(days) || mean < x.bound(days)/3 {
				t.Errorf("%.2f guards a client: the page says %.2f", mean, x.bound(days))
			}
			// With few clients the share itself is a matter of chance: three standard deviations.
			chance := 3 * math.Sqrt(x.meets(days)*(1-x.meets(days))/float64(clients))
			if share > 1.1*x.meets(days) && share > x.meets(days)+chance {
				t.Errorf("%.3f met a hostile guard: the page says %.3f", share, x.meets(days))
			}
			if p95 > x.p95 {
				t.Errorf("95 %% use up to %d guards in sixty days, want %d", p95, x.p95)
			}
		})
	}
}
