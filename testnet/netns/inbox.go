package netns

import (
	"sync"
	"time"
)

// mostUnderWay is how many packets may be on their way to one machine; one more is dropped. That is 12 MB, and 48 MB a second when each
// is under way for a quarter of one.
const mostUnderWay = 8192

// packet is one that is on its way. Its bytes come from the net's pool.
type packet struct {
	due time.Duration
	seq uint64
	buf *buffer
}

type buffer struct {
	b [mtu]byte
	n int
}

// inbox holds the packets that are on their way to one machine, until they are due.
type inbox struct {
	wake chan struct{} // has room for one

	mu      sync.Mutex
	packets packets
	seq     uint64
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

// put puts a packet in; false: there is no room.
func (x *inbox) put(due time.Duration, b *buffer) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.packets) == mostUnderWay {
		return false
	}
	x.seq++
	x.packets.push(packet{due, x.seq, b})
	if x.packets[0].seq == x.seq { // sooner than what is waited for
		select {
		case x.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// take appends the packets that are due, first those that are so for longest, up to the capacity of all. next is how long it is until
// there is another; negative: none is under way.
func (x *inbox) take(now time.Duration, all []*buffer) (_ []*buffer, next time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(x.packets) > 0 && len(all) < cap(all) && x.packets[0].due <= now {
		all = append(all, x.packets.pop())
	}
	if len(x.packets) == 0 {
		return all, -1
	}
	return all, max(0, x.packets[0].due-now)
}

// packets are a heap of them, the one that is due first on top. (That of the standard library makes garbage of each packet.)
type packets []packet

func (p packets) before(i, j int) bool {
	return p[i].due < p[j].due || p[i].due == p[j].due && p[i].seq < p[j].seq
}

func (p *packets) push(x packet) {
	*p = append(*p, x)
	all := *p
	for i := len(all) - 1; i > 0; {
		up := (i - 1) / 2
		if !all.before(i, up) {
			return
		}
		all[i], all[up] = all[up], all[i]
		i = up
	}
}

func (p *packets) pop() *buffer {
	all := *p
	first, end := all[0].buf, len(all)-1
	all[0], all[end] = all[end], packet{}
	all = all[:end]
	*p = all
	for i := 0; ; {
		down := 2*i + 1
		if down >= end {
			return first
		}
		if down+1 < end && all.before(down+1, down) {
			down++
		}
		if !all.before(down, i) {
			return first
		}
		all[i], all[down] = all[down], all[i]
		i = down
	}
}
