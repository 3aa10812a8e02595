package link

import (
	"time"

	"peel/cell"
)

const (
	drainTarget = 10 * time.Millisecond // how much may wait in the socket, by the rate at which it drains
	drainSpan   = 20 * time.Millisecond // what it is measured over, at least
	drainLeast  = 4                     // cells
	drainMost   = 2 * maxCells          // cells: two records
	recordLeast = 2                     // cells of a record, if so many wait
)

// A drain measures how fast a socket takes cells, and says how many it may hold unsent and a record may have: 10 ms and
// 4 ms of them, so that nobody waits longer where no scheduler reaches (spec/flow.md, section 6). It measures while more
// wait than the socket holds; and, as a sender that is short of credit may have all of it in the socket, also by what of
// it is unsent from one look to the next. Before anything was measured it says the most. It knows no clock.
type drain struct {
	pace    int // cells in 10 ms; 0: not measured
	filling int // cells that the backlog began with: they only fill the socket
	since   time.Duration
	cells   int // written since
	timing  bool

	looked time.Duration // at what is unsent
	unsent int           // bytes, then
	wrote  int           // cells since
}

// Hold is how many cells the socket may hold unsent.
func (d *drain) Hold() int {
	if d.pace == 0 {
		return drainMost
	}
	return min(d.pace, drainMost)
}

// Record is how many cells a record may have. One that is made waits until the socket holds half of what it may, so that
// whoever comes then waits for it as well.
func (d *drain) Record() int {
	if d.pace == 0 {
		return maxCells
	}
	return min(max(d.pace*2/5, recordLeast), maxCells)
}

// Wrote notes that n cells were written, with more waiting; it says whether Hold changed.
func (d *drain) Wrote(n int, now time.Duration) bool {
	d.wrote += n
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
	cells := d.cells
	d.since, d.cells = now, 0
	return d.set(int64(cells)*cell.Size, span)
}

// Looked notes that so many bytes have not been sent, before more are written; it says whether Hold changed. It takes notice
// only if more than goes in 20 ms stood there both times: then it was not empty meanwhile, or not for long.
func (d *drain) Looked(unsent int, now time.Duration) bool {
	gone, span := int64(d.unsent+d.wrote*cell.Size-unsent), now-d.looked
	stood := !d.timing && gone > 0 && span >= drainSpan && int64(min(unsent, d.unsent))*int64(span) > 2*gone*int64(drainTarget)
	d.looked, d.unsent, d.wrote = now, unsent, 0
	return stood && d.set(gone, span)
}

// set takes over that so many bytes went in a while.
func (d *drain) set(bytes int64, span time.Duration) bool {
	was := d.Hold()
	d.pace = min(max(int(bytes*int64(drainTarget)/cell.Size/int64(span)), drainLeast), 2*drainMost)
	return d.Hold() != was
}

// Idle notes that nothing waits any more.
func (d *drain) Idle() { d.timing, d.filling = false, 0 }
