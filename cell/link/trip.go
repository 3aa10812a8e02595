package link

import "time"

const (
	tripLeast = 2 * time.Millisecond // a round trip counts as this at least: shorter ones are noise
	tripMost  = time.Second          // and as this at most
	tripSlack = 30 * time.Millisecond
	askPause  = 20 * time.Millisecond // between two asks, at least
	tripRenew = time.Minute           // echoes that were long for so long mean that the way has become longer
)

// A trip is how long a link takes there and back: as the kernel measures it, else by the least echo of an ask in a CREDIT
// cell. An echo that takes much longer shows cells that stand where we do not see them: in the peer, or in the kernel's
// buffers (spec/flow.md, section 2). It knows no clock: now is the time since the link began.
type trip struct {
	kernel bool          // rtt is the kernel's
	rtt    time.Duration // 0: not known
	echo   time.Duration // the latest

	serial  uint16 // of the latest ask
	waiting bool   // for its answer
	asked   time.Duration

	long      time.Duration // since when every echo was long; 0: the latest was not
	longLeast time.Duration // the least of those
}

// RTT is the round trip, within bounds.
func (p *trip) RTT() time.Duration { return min(max(p.rtt, tripLeast), tripMost) }

// Measured takes over what the kernel says; 0: nothing.
func (p *trip) Measured(d time.Duration) {
	if d > 0 {
		p.kernel, p.rtt = true, d
	}
}

// Ask is the serial number to ask with now; 0: not now. One ask is under way at a time.
func (p *trip) Ask(now time.Duration) uint16 {
	if p.waiting || p.serial != 0 && now-p.asked < max(askPause, 2*p.RTT()) {
		return 0
	}
	return p.AskNow(now)
}

// AskNow is Ask without a pause: for who must know whether the peer is there. 0: it is being asked.
func (p *trip) AskNow(now time.Duration) uint16 {
	if p.waiting {
		return 0
	}
	if p.serial++; p.serial == 0 {
		p.serial = 1
	}
	p.waiting, p.asked = true, now
	return p.serial
}

// Answer takes the answer to an ask. One that does not belong to the latest says nothing.
func (p *trip) Answer(serial uint16, now time.Duration) {
	if !p.waiting || serial != p.serial {
		return
	}
	p.waiting, p.echo = false, now-p.asked
	if p.kernel {
		return
	}
	switch {
	case p.rtt == 0 || p.echo < p.rtt:
		p.rtt, p.long = p.echo, 0
	case p.echo <= p.bound():
		p.long = 0
	case p.long == 0:
		p.long, p.longLeast = now, p.echo
	default:
		p.longLeast = min(p.longLeast, p.echo)
		if now-p.long >= tripRenew {
			p.rtt, p.long = p.longLeast, 0
		}
	}
}

// bound is the longest echo of a link on which nothing stands.
func (p *trip) bound() time.Duration { return 2*p.RTT() + tripSlack }

// Calm says that the latest echo was no longer than that, nor is the one that is awaited.
func (p *trip) Calm(now time.Duration) bool {
	return p.echo <= p.bound() && (!p.waiting || now-p.asked <= p.bound())
}
