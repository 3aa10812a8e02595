package link

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

const msec = time.Millisecond

// TestWindowFindsItsSize is a table of what happens when, and the size then. The round trip is 50 ms.
func TestWindowFindsItsSize(t *testing.T) {
	type event struct {
		do   string // came, left (calm), left in a storm, grant all that is owed, given back
		n    int
		at   time.Duration
		size int64
	}
	for _, x := range []struct {
		name   string
		events []event
	}{
		{"half a window in a round trip, and nothing waits", []event{
			{"came", 31, 0, 64}, {"left", 31, 10 * msec, 64}, {"came", 1, 20 * msec, 64}, {"left", 1, 50 * msec, 96}}},
		{"the same, too slow", []event{
			{"came", 31, 0, 64}, {"left", 31, 0, 64}, {"came", 1, 0, 64}, {"left", 1, 51 * msec, 64}}},
		{"something waits", []event{{"came", 33, 0, 64}, {"left", 32, 0, 64}, {"left", 1, 1 * msec, 96}}},
		{"something waits where nobody sees it", []event{{"came", 64, 0, 64}, {"storm", 64, 0, 64}}},
		{"growth begins anew with each step", []event{
			{"came", 32, 0, 64}, {"left", 32, 0, 96}, {"came", 32, 0, 96}, {"left", 32, 0, 96}, {"grant", 0, 0, 96},
			{"came", 15, 0, 96}, {"left", 15, 0, 96}, {"came", 1, 0, 96}, {"left", 1, 0, 144}}},
		{"what stood through a turnaround is taken away, and growth is gentler then", []event{
			{"came", 64, 0, 64}, {"left", 40, 10 * msec, 64}, {"grant", 0, 10 * msec, 64}, // 24 wait
			{"left", 10, 110 * msec, 64},                             // 14 wait, 1 leaves in 10 ms
			{"came", 1, 110 * msec, 64}, {"left", 1, 110 * msec, 52}, // that one, and one more, are let be
			{"left", 14, 120 * msec, 52}, {"came", 1, 120 * msec, 52}, {"left", 1, 120 * msec, 52},
			{"came", 26, 150 * msec, 52}, {"left", 26, 150 * msec, 52}, {"grant", 0, 150 * msec, 52}, // not dry for long
			{"came", 26, 155 * msec, 52}, {"left", 26, 155 * msec, 53}, {"grant", 0, 155 * msec, 53}, // a sixty-fourth, or one
			{"came", 26, 165 * msec, 53}, {"left", 26, 165 * msec, 53}, {"grant", 0, 165 * msec, 53}, // not dry for long
			{"came", 27, 190 * msec, 53}, {"left", 27, 190 * msec, 54}, {"grant", 0, 190 * msec, 54}, // a thirty-second
			{"came", 27, 200 * msec, 54}, {"left", 27, 200 * msec, 54}, {"grant", 0, 200 * msec, 54},
			{"came", 28, 225 * msec, 54}, {"left", 28, 225 * msec, 57}, {"grant", 0, 225 * msec, 57}, // a sixteenth
			{"came", 28, 235 * msec, 57}, {"left", 28, 235 * msec, 57}, {"grant", 0, 235 * msec, 57},
			{"came", 29, 260 * msec, 57}, {"left", 29, 260 * msec, 64}}}, // an eighth
		{"no more than half is taken", []event{
			{"came", 64, 0, 64}, {"left", 4, 10 * msec, 64}, {"grant", 0, 10 * msec, 64},
			{"came", 1, 110 * msec, 64}, {"left", 1, 110 * msec, 32}}},
		{"a queue that was empty once is none", []event{
			{"came", 64, 0, 64}, {"left", 32, 60 * msec, 64}, {"grant", 0, 60 * msec, 64},
			{"storm", 32, 120 * msec, 64}, {"came", 32, 120 * msec, 64}, {"storm", 1, 130 * msec, 64}}},
		{"nothing leaves, nothing is judged", []event{
			{"came", 64, 0, 64}, {"left", 1, 0, 64}, {"grant", 0, 0, 64}, {"came", 1, time.Hour, 64}}},
		{"given back", []event{
			{"came", 32, 0, 64}, {"left", 32, 0, 96}, {"grant", 0, 0, 96}, {"back", 32, 0, 64}, {"back", 10, 0, 64}}},
	} {
		t.Run(x.name, func(t *testing.T) {
			var w window
			w.Open(64)
			for i, e := range x.events {
				switch e.do {
				case "came":
					if !w.Received(e.n) {
						t.Fatalf("event %d: no credit", i)
					}
				case "left", "storm":
					w.Left(e.n, plenty, e.at, 50*msec, e.do == "left")
				case "grant":
					n, _ := w.Owed(plenty)
					w.Grant(n, e.at)
				case "back":
					w.Returned(int64(e.n))
				}
				if w.size != e.size {
					t.Fatalf("event %d, %+v: size %d", i, e, w.size)
				}
			}
		})
	}
}

func TestWindowHasBounds(t *testing.T) {
	for _, base := range []uint16{1, 2, 3, 4, 64, 4096, 65535} {
		var w window
		w.Open(base)
		var now time.Duration
		for range 100 { // everything leaves at once
			n := w.limit - w.recv
			w.Received(int(n))
			w.Left(int(n), plenty, now, tripLeast, true)
			owed, _ := w.Owed(plenty)
			w.Grant(owed, now)
		}
		if want := max(windowMost, int64(base)); w.size != want {
			t.Errorf("base %d: grew to %d, want %d", base, w.size, want)
		}
		for range 400 { // half of the queue in an hour
			w.Received(int(w.limit - w.recv))
			now += time.Hour
			w.Left(max(1, int(w.recv-w.left)/2), plenty, now, tripLeast, false)
			owed, _ := w.Owed(plenty)
			w.Grant(owed, now)
		}
		if w.size < min(windowLeast, int64(base)) || w.size > windowLeast+1 {
			t.Errorf("base %d: shrank to %d", base, w.size)
		}
	}
}

func TestWindowAllocatesNothing(t *testing.T) {
	var w window
	w.Open(64)
	var now time.Duration
	if n := testing.AllocsPerRun(1000, func() {
		now += msec
		w.Received(8)
		w.Left(8, plenty, now, 5*msec, true)
		if due, soon := w.Due(plenty); due || soon {
			owed, _ := w.Owed(plenty)
			w.Grant(owed, now)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// A mutant is a mistake that the rule's test must find.
type mutant int

const (
	none             mutant = iota
	thresholdOfSize         // Due looks at the size, not at what of it is in force
	noBase                  // the budget's room bounds all grants, not those above the base
	grantWithoutNote        // credit goes out that Grant does not hear of
	backAdds                // what is given back is added
	mutants
)

func (m mutant) due(w *window, room int64) (now, soon bool) {
	owed, _ := m.owed(w, room)
	if m == thresholdOfSize {
		return owed > 0 && owed >= w.size/2, owed > 0 && owed >= w.size/8
	}
	if m == noBase {
		size := min(w.size, room/roomShare)
		return owed > 0 && owed >= size/2, owed > 0 && owed >= size/8
	}
	return w.Due(room)
}

func (m mutant) owed(w *window, room int64) (owed, size int64) {
	if m == noBase {
		size = min(w.size, room/roomShare)
		return max(0, w.left+size-w.limit), size
	}
	return w.Owed(room)
}

func (m mutant) grant(w *window, n int64, now time.Duration) {
	if m != grantWithoutNote || w.left%5 != 0 {
		w.Grant(n, now)
	}
}

func (m mutant) returned(w *window, n int64) bool {
	if m == backAdds {
		n = -n
	}
	return w.Returned(n)
}

// A hop is one circuit over one link in the rule's test, from a sender to a queue that is emptied.
type hop struct {
	w      window
	credit int64
	toSend int64
	base   int64
	cells  []time.Duration // that are on the wire: when they come
	grants []struct {
		n  int64
		at time.Duration
	}
	backs []struct {
		n  int64
		at time.Duration
	}
	lastGrown int64 // left when it grew last
	shortest  int64 // the queue since a turnaround began
	most      int64 // the largest size
	idle      time.Duration
	starts    time.Duration
	moved     time.Duration
	extra     int64
	stalled   time.Duration // until then nothing leaves
}

// wires is the credit, less what was given back, and the cells on the wire.
func (h *hop) wires() (n int64) {
	n = int64(len(h.cells))
	for _, g := range h.grants {
		n += g.n
	}
	for _, b := range h.backs {
		n += b.n
	}
	return n
}

// runRule lets random circuits share a budget, with random paces and stalls, and returns the first thing that is wrong.
func runRule(seed uint64, m mutant) error {
	rng := rand.New(rand.NewPCG(seed, 23))
	budget := int64(10 + rng.IntN([]int{100, 2000, 20000}[rng.IntN(3)]))
	delay := time.Duration(1+rng.IntN(60)) * msec
	rtt := max(2*delay, tripLeast)
	end := 2 * time.Minute
	hops := make([]*hop, 1+rng.IntN(6))
	if seed%10 == 7 {
		hops = make([]*hop, 50)
	}
	for i := range hops {
		base := []uint16{1, 2, 4, 16, 64, 64, 64, 1024}[rng.IntN(8)]
		h := &hop{base: int64(base), credit: int64(base), toSend: int64(rng.IntN(20000 / len(hops))), starts: time.Duration(rng.IntN(3)*rng.IntN(2000)) * msec, most: int64(base), lastGrown: -1 << 40}
		h.w.Open(base)
		hops[i] = h
	}
	if seed%10 == 7 { // one grows alone, then a crowd takes the room and stands still
		budget, end = 3000, 6*time.Second
		for _, h := range hops {
			h.starts, h.toSend = 2*time.Second, 1<<40
		}
		hops[0].starts = 0
	}
	sum := int64(0)
	extra := func() int64 { return sum }
	check := func(h *hop) error {
		w := &h.w
		h.most = max(h.most, w.size)
		sum += w.Extra() - h.extra
		h.extra = w.Extra()
		switch {
		case w.left > w.recv || w.recv > w.limit:
			return fmt.Errorf("I1: left %d, recv %d, limit %d", w.left, w.recv, w.limit)
		case w.limit-w.left > h.most || w.size > max(windowMost, h.base):
			return fmt.Errorf("I2: limit − left = %d, size at most %d", w.limit-w.left, h.most)
		case h.credit+h.wires() != w.limit-w.recv:
			return fmt.Errorf("I3: credit %d, on the wire %d, limit − recv %d", h.credit, h.wires(), w.limit-w.recv)
		case extra() > budget:
			return fmt.Errorf("I4: extra %d of %d", extra(), budget)
		}
		if _, size := m.owed(w, budget-extra()); size < min(h.base, w.size) {
			return fmt.Errorf("I5: %d of a base of %d in force", size, h.base)
		}
		return nil
	}
	last := time.Duration(-creditPause)
	var now time.Duration
	pace := 1 + rng.IntN(60)
	for ; now < end; now += msec {
		if rng.IntN(500) == 0 {
			pace = 1 + rng.IntN(60)
		}
		if seed%10 == 7 && now == 3*time.Second {
			for _, h := range hops[1:] {
				h.stalled = end
			}
		}
		if rng.IntN(300) == 0 {
			h := hops[rng.IntN(len(hops))]
			h.stalled = max(h.stalled, now+time.Duration(rng.IntN(1000))*msec)
		}
		due, ended := 0, true
		for _, h := range hops {
			w := &h.w
			for len(h.cells) > 0 && h.cells[0] <= now {
				h.cells = h.cells[1:]
				if !w.Received(1) {
					return fmt.Errorf("I6: an honest sender overran: recv %d, limit %d", w.recv, w.limit)
				}
			}
			for len(h.backs) > 0 && h.backs[0].at <= now {
				if !m.returned(w, h.backs[0].n) {
					return fmt.Errorf("I6: credit that was there could not be given back")
				}
				h.backs = h.backs[1:]
			}
			for len(h.grants) > 0 && h.grants[0].at <= now {
				h.credit += h.grants[0].n
				h.grants = h.grants[1:]
			}
			n := min(h.credit, h.toSend, int64(1+rng.IntN(100)))
			if now < h.starts {
				n = 0
			}
			for range n {
				h.cells = append(h.cells, now+delay)
			}
			h.credit -= n
			h.toSend -= n
			if n > 0 || w.recv > w.left || h.toSend == 0 || h.wires() > 0 || now < h.starts {
				h.moved = now
			}
			if now-h.moved > time.Second {
				return fmt.Errorf("a circuit does not move, and %d cells wait", h.toSend)
			}
			if n > 0 {
				h.idle = now
			}
			if h.toSend == 0 && now-h.idle > 500*msec && h.credit > h.base && rng.IntN(50) == 0 {
				back := h.credit - h.base
				h.credit -= back
				h.backs = append(h.backs, struct {
					n  int64
					at time.Duration
				}{back, now + delay})
				if rng.IntN(3) > 0 && now < time.Minute {
					h.toSend = int64(rng.IntN(3000))
				}
			}
			if err := check(h); err != nil {
				return err
			}
			if now >= h.stalled {
				for range min(w.recv-w.left, int64(rng.IntN(pace+1))) {
					was := *w
					h.shortest = min(h.shortest, w.recv-w.left-1)
					w.Left(1, plenty, now, rtt, true)
					if err := changed(h, &was, now); err != nil {
						return err
					}
					if err := check(h); err != nil {
						return err
					}
				}
			}
			if isDue, soon := m.due(w, budget-extra()); isDue || soon && now-last >= creditPause {
				due++
			}
			ended = ended && h.toSend == 0 && w.recv == w.left && h.wires() == 0
		}
		if due > 0 {
			last = now
			for _, h := range hops {
				n, _ := m.owed(&h.w, budget-extra())
				if n == 0 {
					continue
				}
				if !h.w.judging {
					h.shortest = h.w.recv - h.w.left
				}
				m.grant(&h.w, n, now)
				h.grants = append(h.grants, struct {
					n  int64
					at time.Duration
				}{n, now + delay})
				if err := check(h); err != nil {
					return err
				}
			}
		}
		if ended && due == 0 {
			return nil
		}
	}
	return nil // with windows of 1 some take longer
}

// changed checks what one cell that left did to the size: I7 and I8.
func changed(h *hop, was *window, now time.Duration) error {
	w := &h.w
	switch {
	case w.size > was.size:
		if w.recv != w.left {
			return fmt.Errorf("I8: grew with %d queued", w.recv-w.left)
		}
		if 2*(w.left-max(h.lastGrown, 0)) < was.size {
			return fmt.Errorf("I7: grew twice in half a window")
		}
		h.lastGrown = w.left
	case w.size < was.size:
		if !was.judging || was.recv <= was.mark {
			return fmt.Errorf("I7: shrank within a turnaround")
		}
		if pace := float64(w.left-was.beganLeft) * float64(creditTarget) / float64(max(1, now-was.began)); float64(h.shortest) <= pace {
			return fmt.Errorf("I8: shrank, and the queue was %d at the least, the pace is %.1f in 10 ms", h.shortest, pace)
		}
	}
	return nil
}

// TestRuleHolds checks the invariants of spec/flow.md, section 7, after every event of random circuits.
func TestRuleHolds(t *testing.T) {
	runs := uint64(60)
	switch {
	case os.Getenv("PEEL_SLOW") != "":
		runs = 1000
	case raceEnabled:
		runs = 30
	}
	for seed := range runs {
		if err := runRule(seed, none); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestMistakesInTheRuleAreFound(t *testing.T) {
	for m := none + 1; m < mutants; m++ {
		found := 0
		var err error
		for seed := range uint64(100) {
			if e := runRule(seed, m); e != nil {
				found, err = found+1, e
				if found == 3 {
					break
				}
			}
		}
		t.Logf("mutant %d: found in %d of 100 runs: %v", m, found, err)
		if found == 0 {
			t.Errorf("mutant %d is not found", m)
		}
	}
}
