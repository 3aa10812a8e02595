package netns

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"peel/testnet/memnet"
)

func newLine(w memnet.Way, seed uint64) *line {
	l := &line{rng: rand.New(rand.NewPCG(seed, 0))}
	l.setWay(w)
	return l
}

// trip is one packet's: when it was sent, and when it arrived.
type trip struct {
	sent, due time.Duration
	f         fate
	flow      uint32
}

// drive sends packets of 1500 bytes over a line, one every so often, of so many flows in turn.
func drive(l *line, n int, every time.Duration, of uint32) []trip {
	var all []trip
	for i := range n {
		at, h := time.Duration(i)*every, header{size: mtu, flow: uint32(i) % of, data: true}
		due, f := l.carry(at, &h)
		all = append(all, trip{at, due, f, h.flow})
	}
	return all
}

func TestPacketsTakeAsLongAsTheWaySays(t *testing.T) {
	for _, p := range drive(newLine(memnet.Way{Delay: 42 * time.Millisecond}, 1), 1000, time.Microsecond, 3) {
		if p.f != arrives || p.due-p.sent != 42*time.Millisecond {
			t.Fatalf("%+v", p)
		}
	}
}

// Jitter spreads what arrives, but packets of one flow stay in order; those of others overtake.
func TestJitterKeepsTheOrderOfAFlow(t *testing.T) {
	trips := drive(newLine(memnet.Way{Delay: 10 * time.Millisecond, Jitter: 30 * time.Millisecond}, 1), 5000, 5*time.Millisecond, 4)
	newest, overtaken := make(map[uint32]time.Duration), 0
	var least, most, any time.Duration = time.Hour, 0, 0
	for _, p := range trips {
		late := p.due - p.sent
		least, most = min(least, late), max(most, late)
		if p.f != arrives || p.due < newest[p.flow] {
			t.Fatalf("%+v after one that arrives at %v", p, newest[p.flow])
		}
		if p.due < any {
			overtaken++
		}
		newest[p.flow], any = p.due, max(any, p.due)
	}
	if least < 10*time.Millisecond || least > 11*time.Millisecond || most > 40*time.Millisecond || most < 39*time.Millisecond {
		t.Errorf("they took %v to %v, want 10 to 40 ms", least, most)
	}
	if overtaken < 1000 {
		t.Errorf("%d packets were overtaken by those of other flows", overtaken)
	}
}

// What comes faster than the rate waits, and what does not fit into the queue is dropped.
func TestRateAndItsQueue(t *testing.T) {
	const rate, n = 1_500_000, 10_000 // a packet a millisecond
	l := newLine(memnet.Way{Rate: rate}, 1)
	var arrived []trip
	for _, p := range drive(l, n, 500*time.Microsecond, 1) { // twice as many
		switch p.f {
		case arrives:
			arrived = append(arrived, p)
		case full:
		default:
			t.Fatalf("%+v", p)
		}
	}
	for i, p := range arrived {
		if wait := p.due - p.sent; wait > queueTime {
			t.Fatalf("packet %d waits %v; the queue is of %v", i, wait, queueTime)
		}
		if i > 0 && p.due-arrived[i-1].due != time.Millisecond {
			t.Fatalf("packet %d comes %v after the one before", i, p.due-arrived[i-1].due)
		}
	}
	if k := len(arrived); k < n/2 || k > n/2+101 {
		t.Errorf("%d of %d came through; want half, and the queue of 100", k, n)
	}
	if late := drive(newLine(memnet.Way{Rate: rate}, 1), n, 2*time.Millisecond, 1); late[n-1].due-late[n-1].sent != time.Millisecond {
		t.Error("a line that is idle lets wait")
	}
}

// However slow a line is, a packet goes over it, and no queue is so long that nobody would wait for its end.
func TestSlowLines(t *testing.T) {
	l := newLine(memnet.Way{Rate: 100}, 1)
	trips := drive(l, 40, 500*time.Millisecond, 1)
	if trips[0].f != arrives || trips[0].due != 15*time.Second || trips[1].f != full {
		t.Errorf("%+v", trips[:2])
	}
	if trips[39].f != full || trips[30].f != arrives {
		t.Errorf("%+v", trips[30:])
	}
	l.setWay(memnet.Way{})
	if due, f := l.carry(time.Minute, &header{size: mtu}); f != arrives || due != time.Minute {
		t.Errorf("a line that was made fast: %v, %v", due, f)
	}
}

func TestLossAndResetsAreAsOftenAsAsked(t *testing.T) {
	const n = 20_000
	counts := make([]float64, fates)
	for _, p := range drive(newLine(memnet.Way{Loss: 0.1, Resets: 0.05}, 7), n, time.Millisecond, 1) {
		counts[p.f]++
	}
	if math.Abs(counts[lost]/n-0.1) > 0.01 || math.Abs(counts[broken]/n-0.9*0.05) > 0.01 || counts[arrives]+counts[lost]+counts[broken] != n {
		t.Errorf("of %d: %v", n, counts)
	}
}

func TestTheSameSeedLosesTheSame(t *testing.T) {
	w := memnet.Way{Delay: time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 0.2}
	a, b := drive(newLine(w, 3), 200, time.Millisecond, 3), drive(newLine(w, 3), 200, time.Millisecond, 3)
	if !reflect.DeepEqual(a, b) {
		t.Error("one seed, two courses")
	}
	if reflect.DeepEqual(a, drive(newLine(w, 4), 200, time.Millisecond, 3)) {
		t.Error("another seed, the same course")
	}
}

func TestTheInboxHandsOutWhatIsDueInOrder(t *testing.T) {
	x := newInbox()
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range mostUnderWay {
		if !x.put(time.Duration(rng.IntN(500)), &buffer{n: i}) {
			t.Fatalf("no room for packet %d", i)
		}
	}
	if x.put(0, new(buffer)) {
		t.Error("there is no bound")
	}
	seen := 0
	for now := time.Duration(0); now < 500; now++ {
		before, next := -1, time.Duration(0)
		for {
			var due []*buffer
			due, next = x.take(now, make([]*buffer, 0, 8))
			for _, b := range due {
				if seen++; b.n < before {
					t.Fatal("of those that are due at one time the first is not the first to go")
				}
				before = b.n
			}
			if next != 0 {
				break
			}
		}
		if next == -1 && seen != mostUnderWay || next > 500-now {
			t.Fatalf("at %v, after %d, the next is due in %v", now, seen, next)
		}
	}
	if seen != mostUnderWay {
		t.Errorf("%d of %d came out", seen, mostUnderWay)
	}
}

func BenchmarkPacket(b *testing.B) {
	l, x := newLine(memnet.Way{Delay: time.Millisecond, Jitter: time.Millisecond, Rate: 1<<31 - 1, Loss: 0.01}, 1), newInbox()
	p := testPacket([4]byte{10, 1, 0, 1}, [4]byte{10, 2, 0, 1}, 1, 1400)
	due := make([]*buffer, 0, batch)
	buf := new(buffer)
	for i := 0; b.Loop(); i++ {
		h, _ := parse(p)
		if at, f := l.carry(time.Duration(i)*time.Microsecond, &h); f == arrives {
			x.put(at, buf)
		}
		if i%batch == 0 {
			for next := time.Duration(0); next == 0; {
				due, next = x.take(time.Duration(i)*time.Microsecond, due[:0])
			}
		}
	}
}
