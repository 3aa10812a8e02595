package link

// creditMost is the most that a sender's credit may come to; a CREDIT beyond it is the peer's error.
const creditMost = 1 << 31

// A Window says how many cells the peer may send in one direction of one circuit of one link (spec/flow.md, section 2). It is
// of fixed size.
type Window struct {
	size              int64 // cells granted and not yet gone on
	limit, recv, left int64 // since the circuit began: allowed to come, came, went on
}

// newWindow is the window of a circuit whose peer was told an initial credit of size.
func newWindow(size uint16) Window { return Window{size: int64(size), limit: int64(size)} }

// Received counts n cells in; false: the peer had no credit for them, which ends the link.
func (w *Window) Received(n int) bool {
	w.recv += int64(n)
	return w.recv <= w.limit
}

// Left counts n cells out: written to the next link, or taken by their stream.
func (w *Window) Left(n int) { w.left += int64(n) }

// Owed is the credit that may be returned.
func (w *Window) Owed() int64 { return max(0, w.left+w.size-w.limit) }

// Due says whether it should be returned now: when the peer has half of its window left, or, once the last CREDIT cell of the
// link is a while ago, an eighth of it is owed. It never waits for more than can come: a peer without cells in our queue
// holds at least half of its window.
func (w *Window) Due(rested bool) bool {
	owed := w.Owed()
	return owed > 0 && (owed >= w.size/2 || owed >= w.size/8 && rested)
}

// Grant notes that n credits went out.
func (w *Window) Grant(n int64) { w.limit += n }

// Returned notes that the peer gave n credits back; false: it did not have them.
func (w *Window) Returned(n int64) bool {
	w.limit -= n
	return w.limit >= w.recv
}
