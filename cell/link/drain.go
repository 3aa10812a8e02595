package link

import "time"

const (
	drainTarget = 10 * time.Millisecond // how much may wait in the socket, by the rate at which it drains
	drainSpan   = 20 * time.Millisecond // what it is measured over, at least
	drainLeast  = 4                     // cells
	drainMost   = 2 * maxCells          // cells: two records
)

// A drain measures how fast a socket takes cells while more wait, and says how many it may hold unsent and a record may
// have: 10 ms of them, so that nobody waits longer where no scheduler reaches (spec/flow.md, section 6). Before anything
// was measured it says the most. It knows no clock.
type drain struct {
	hold    int // 0: not measured
	filling int // cells that the backlog began with: they only fill the socket
	since   time.Duration
	cells   int // written since
	timing  bool
}

// Hold is how many cells the socket may hold unsent.
func (d *drain) Hold() int {
	if d.hold == 0 {
		return drainMost
	}
	return d.hold
}

// Record is how many cells a record may have: what the socket takes when half of that has gone.
func (d *drain) Record() int { return d.Hold() / 2 }

// Wrote notes that n cells were written, with more waiting; it says whether Hold changed.
func (d *drain) Wrote(n int, now time.Duration) bool {
	if !d.timing {
		if d.filling += n; d.filling >= d.Hold() {
			d.timing, d.since, d.cells = true, now, 0
		}
		return false
	}
	d.cells += n
	span := now - d.since
	if span < drainSpan {
		return false
	}
	was := d.Hold()
	d.hold = min(max(int(int64(d.cells)*int64(drainTarget)/int64(span)), drainLeast), drainMost)
	d.since, d.cells = now, 0
	return d.hold != was
}

// Idle notes that nothing waits any more.
func (d *drain) Idle() { d.timing, d.filling = false, 0 }
