package client

import (
	"context"
	"slices"
	"time"

	"peel/cell"
	"peel/circuit"
	"peel/client/path"
)

// request is what a circuit is wanted for.
type request struct {
	usage path.Usage    // without a port: any exit
	token any           // of whom
	not   []cell.NodeID // exits that would not do
	era   uint64        // in which it was asked for (NewIdentity)

	once bool // bytes go along with it: no second circuit may be asked while the first is

	besides *held   // a circuit that is asked already; nil: none. Its exit would not do either
	queued  []*held // circuits on which it has waited for others long enough
}

// excluded are the exits that would not do.
func (r *request) excluded() []cell.NodeID {
	if r.besides == nil || len(r.besides.path) == 0 {
		return r.not
	}
	return append(slices.Clone(r.not), r.besides.path[len(r.besides.path)-1].ID)
}

// held is a circuit of the pool, or one being built.
type held struct {
	id    uint64
	path  path.Path
	born  time.Time     // when it was begun
	built chan struct{} // closed when circuit or err is set; they do not change after that

	circuit *circuit.Circuit
	err     error
	skipped map[cell.NodeID]bool // preferred guards with which no path could be made

	// Under the pool's mu.
	era       uint64 // of the streams that may go on it
	taken     bool   // belongs to token; once it does it is never another's
	token     any
	first     time.Time     // when it was first taken
	last      time.Time     // when it was last taken or let go
	users     int           // requests that have it and have not put their stream on it
	line      chan struct{} // has one for each of them that is being asked now; nil: nobody took it yet
	gone      bool          // takes no new streams
	lingers   bool          // and, without any, ends only when it would have
	fullUntil time.Time     // for so long it takes none
	noted     bool          // whether its first stream was answered is known

	spoken *used // what it is to say of its guard, or has said; nil: nothing

	quit context.CancelCauseFunc // ends its build; nil: that has not begun, or no longer matters
	left bool                    // its guard was left while it was built: it is of no use, and says nothing
}

// isBuilt says whether the circuit is there. It stays in the pool only then or until that is known.
func (h *held) isBuilt() bool { return h.circuit != nil }

// dead says whether the circuit has ended.
func (h *held) dead() bool { return h.circuit != nil && h.circuit.Err() != nil }

// idle says whether nobody would miss the circuit.
func (h *held) idle() bool {
	return h.users == 0 && h.circuit != nil && (h.circuit.Err() != nil || h.circuit.Quiet())
}

// retires says whether the circuit has done its time: ten minutes of use, or half an hour without.
func (h *held) retires(now time.Time) bool {
	if h.taken {
		return now.Sub(h.first) >= retireAfter
	}
	return now.Sub(h.born) >= spareLife
}

// serves says whether a stream for r may go on the circuit. A spare one serves every token.
func (h *held) serves(r request, f faults, now time.Time) bool {
	if h.gone || h.era != r.era || h.taken && h.token != r.token || h.retires(now) || h.dead() || len(h.path) == 0 {
		return false
	}
	u := r.usage
	blamed := f.after(h.born)
	u.Avoid = func(id cell.NodeID) bool { return id != h.path[0].ID && blamed(id) } // another circuit would enter by the same guard
	if !u.Fits(h.path) || h == r.besides || h.full(now) || slices.Contains(r.queued, h) || slices.Contains(r.excluded(), h.path[len(h.path)-1].ID) {
		return false
	}
	return !h.isBuilt() || !h.circuit.Lost() // all circuits of a link end with it, one after the other: the next is not to be tried meanwhile
}

// better orders circuits that serve: a built one before one being built, one in use for the token before a spare one,
// one on which nobody has to wait for others, then the older.
func (h *held) better(than *held) bool {
	if a, b := h.isBuilt(), than.isBuilt(); a != b {
		return a
	}
	if h.taken != than.taken {
		return h.taken
	}
	if a, b := h.users < mostAsked, than.users < mostAsked; a != b {
		return a
	}
	return h.born.Before(than.born)
}

// CircuitInfo describes one open circuit.
type CircuitInfo struct {
	ID      uint64
	Path    path.Path
	Streams int
	Age     time.Duration
	Used    bool // a stream has been put on it
	Purpose Purpose
	Closing bool // it takes no more streams, and goes when it has none: at once, or ten minutes after its first (NewIdentity, Change)

	Sent, Received uint64 // cells
}

// Purpose is what a circuit is for.
type Purpose string

const (
	PurposeSpare     Purpose = "spare"     // kept ready; whoever comes next gets it
	PurposeStreams   Purpose = "streams"   // of one isolation
	PurposeDirectory Purpose = "directory" // one fetch of the directory
)

// purpose is that of a circuit. The caller holds the pool's mu.
func (h *held) purpose() Purpose {
	if !h.taken {
		return PurposeSpare
	}
	if _, ok := h.token.(*fetch); ok {
		return PurposeDirectory
	}
	return PurposeStreams
}

// Counts are what a client has now.
type Counts struct {
	Circuits int // that are open
	Spare    int // those of them that served nobody yet
	Building int // besides
	Streams  int // that are open
}

// Counts counts circuits and streams.
func (c *Client) Counts() (n Counts) {
	p := c.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for h := range p.circs {
		switch {
		case !h.isBuilt():
			n.Building++
			continue
		case h.dead():
			continue
		case !h.taken:
			n.Spare++
		}
		n.Circuits++
		n.Streams += h.circuit.Streams()
	}
	return n
}

// Circuits lists the circuits that are open now, the oldest first.
func (c *Client) Circuits() []CircuitInfo { return c.pool.list(time.Now()) }
