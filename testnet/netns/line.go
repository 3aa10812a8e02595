package netns

import (
	"math/rand/v2"
	"time"

	"peel/testnet/memnet"
)

// What a line or a machine's card holds back when more comes than it carries: as much as it sends in queueTime, but no less than leastQueue
// unless that lasts longer than longestQueue, and no more than mostQueue, in bytes. One packet more is dropped, as a router does.
const (
	queueTime    = 100 * time.Millisecond
	leastQueue   = 32 << 10
	mostQueue    = 1 << 20
	longestQueue = 2 * time.Second
)

// fate is what becomes of a packet on its way.
type fate int

const (
	arrives    fate = iota
	lost            // by the weather
	full            // the queue before it was full
	unheard         // a machine is frozen, or in another part of the network
	broken          // with its connection: a reset arrives in its place
	notCarried      // nobody has its address, or it is none of IPv4
	fates
)

// pacer sends at a rate, from a queue that has a bound. It needs no queue for it: when it will be idle says how much is in it. Times are
// since any beginning.
type pacer struct {
	rate int // bytes a second; 0: without limit
	idle time.Duration
}

// take puts a packet into the queue and says when it has been sent; false: the queue is full.
func (p *pacer) take(now time.Duration, size int) (sent time.Duration, ok bool) {
	if p.rate == 0 {
		return now, true
	}
	p.idle = max(p.idle, now)
	longest := min(max(queueTime, p.lasts(leastQueue)), p.lasts(mostQueue), longestQueue)
	if wait := p.idle - now; wait > 0 && wait+p.lasts(size) > longest {
		return 0, false
	}
	p.idle += p.lasts(size)
	return p.idle, true
}

// lasts is how long it sends so many bytes.
func (p *pacer) lasts(size int) time.Duration {
	return time.Duration(float64(size) / float64(p.rate) * float64(time.Second))
}

// setRate changes the rate. What is in the queue goes at the old one; what comes does not wait for it.
func (p *pacer) setRate(rate int) {
	if rate != p.rate {
		p.rate, p.idle = rate, 0
	}
}

// flows is how many flows of a line are told apart; more share, and so wait for each other at times.
const flows = 64

// line is the way from one machine to another: what it does to a packet follows from its weather, the time, and chance.
type line struct {
	way     memnet.Way
	unheard bool
	pacer   pacer
	rng     *rand.Rand
	last    [flows]time.Duration // when the newest packet of a flow arrives
}

func (l *line) setWay(w memnet.Way) {
	l.way = w
	l.pacer.setRate(w.Rate)
}

// carry says what becomes of a packet that comes to the line at a time, and when it arrives. Packets of one flow do not overtake each
// other, whatever the jitter; packets of others do.
func (l *line) carry(at time.Duration, h *header) (due time.Duration, f fate) {
	if l.unheard {
		return 0, unheard
	}
	if l.way.Loss > 0 && l.rng.Float64() < l.way.Loss {
		return 0, lost
	}
	due, ok := l.pacer.take(at, h.size)
	if !ok {
		return 0, full
	}
	due += l.way.Delay
	if l.way.Jitter > 0 {
		due += time.Duration(l.rng.Int64N(int64(l.way.Jitter)))
	}
	newest := &l.last[h.flow%flows]
	due = max(due, *newest)
	*newest = due
	if h.data && l.way.Resets > 0 && l.rng.Float64() < l.way.Resets {
		return due, broken
	}
	return due, arrives
}
