package link

import "time"

const (
	defaultCredit = 1024                  // cells granted per circuit and direction
	maxCredit     = 1 << 31               // more credit than this a peer cannot mean
	creditPause   = 10 * time.Millisecond // CREDIT cells of a link are this far apart, unless a circuit is about to run dry
)

// A window says how many RELAY cells the peer may send in one direction of one circuit of one link (spec/flow.md,
// section 3). Its size is fixed when it opens. It knows no time: durations are arguments. One holds
//
//	left ≤ recv ≤ limit and limit − left ≤ size
//
// as long as Received and Returned report true. The zero window lets nothing come.
type window struct {
	size              int64 // cells granted and not yet gone on
	limit, recv, left int64 // since the circuit began: allowed to come, came, went on
}

// Open grants the first credit, as CREATE or CREATED tells it.
func (w *window) Open(size uint16) { w.size, w.limit = int64(size), int64(size) }

// Received counts n cells in; false: the peer had no credit for them, which ends the link.
func (w *window) Received(n int) bool {
	w.recv += int64(n)
	return w.recv <= w.limit
}

// Left counts n cells out: they were written to the next link, or taken by their stream.
func (w *window) Left(n int) { w.left += int64(n) }

// Owed is the credit that may be returned.
func (w *window) Owed() int64 { return max(0, w.left+w.size-w.limit) }

// Due says whether a CREDIT cell should go out for this circuit now, sinceLast after the link's last; it then carries
// what every circuit of the link is owed. No timer is needed to come back here: a peer out of credit has cells queued
// with us, and the last of them to leave makes it due.
func (w *window) Due(sinceLast time.Duration) bool {
	owed := w.Owed()
	return owed > 0 && (owed >= w.size/2 || owed >= w.size/8 && sinceLast >= creditPause)
}

// Grant notes that n credits went out.
func (w *window) Grant(n int64) { w.limit += n }

// Returned notes that the peer gave n credits back; false: it did not have them, which ends the link.
func (w *window) Returned(n int64) bool {
	w.limit -= n
	return w.limit >= w.recv
}
