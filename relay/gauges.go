package relay

import (
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"peel/cell/link"
	"peel/directory/authority"
)

// Gauges say what a relay holds now, of how much that it may, and what went over its links since it began. They name nobody.
type Gauges struct {
	Circuits, MostCircuits     int
	Streams, MostStreams       int // to the world and to the directory
	Dials, MostDials           int // and look-ups, under way
	Extensions, MostExtensions int // of circuits, under way
	Waiting, MostWaiting       int // CREATEs that no worker has taken
	Links                      link.Kinds
	MostLinks                  int

	Queues []Queue // by what waits, always in the same order

	Traffic link.Stats
	Ended   uint64 // circuits that were ended to keep the cells that wait within their budget
}

// Queue is memory that waits for somebody, in bytes.
type Queue struct {
	Name       string // cells, hosts (data that they do not take)
	Used, Most int64
}

// queuedCell is what a cell that waits takes (spec/queues.md, section 6).
const queuedCell = 1536

// Gauges looks at everything once. It may be called at any time, and takes each lock for a moment.
func (r *Relay) Gauges() Gauges {
	g := Gauges{
		MostCircuits: r.cfg.MaxCircuits, MostStreams: r.streams.most, MostDials: r.dials.most, MostExtensions: r.extensions.most,
		Waiting: r.handshakes.len(), MostWaiting: r.handshakes.most(), Links: r.pool.Kinds(), MostLinks: r.cfg.MaxLinks, Traffic: r.pool.Stats(),
	}
	r.mu.Lock()
	g.Circuits, g.Streams, g.Dials, g.Extensions = len(r.transits), r.streams.n, r.dials.n, r.extensions.n
	r.mu.Unlock()
	b := r.pool.Budget()
	g.Ended = uint64(b.Ended)
	g.Queues = []Queue{{"cells", b.Queued * queuedCell, b.Cells * queuedCell}, {"hosts", int64(r.budget.Used()), int64(r.cfg.MaxUnread)}}
	return g
}

// WaitBounds are the classes of Waits, but for the last, which has none.
var WaitBounds = [...]time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second}

// Waits count how long something waited, in coarse classes.
type Waits struct {
	classes [len(WaitBounds) + 1]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

func (w *Waits) add(d time.Duration) {
	i := 0
	for i < len(WaitBounds) && d > WaitBounds[i] {
		i++
	}
	w.classes[i].Add(1)
	w.sum.Add(int64(d))
}

// Counts are those of each class, at most WaitBounds[i] and more than the one before, and the sum of all.
func (w *Waits) Counts() (n []uint64, sum time.Duration) {
	for i := range w.classes {
		n = append(n, w.classes[i].Load())
	}
	return n, time.Duration(w.sum.Load())
}

// documents are what a directory is asked for, by the beginning of the path; the first that fits counts.
var documents = [...]struct{ path, name string }{
	{"/peel/consensus/header", "header"}, {"/peel/consensus/diff/", "diff"}, {"/peel/consensus/relays/", "relays"}, {"/peel/consensus", "consensus"},
	{"/peel/descriptor", "descriptor"}, {"/peel/vote", "vote"}, {"/peel/signature", "signature"}, {"/peel/relay/", "relay"},
	{measurePath, "measurement"}, {authority.PathReach, "reach"}, {"", "other"},
}

// Asked counts requests to the directory by document.
type Asked struct{ counts [len(documents)]atomic.Uint64 }

// Counts are those of each document.
func (a *Asked) Counts() map[string]uint64 {
	n := make(map[string]uint64, len(documents))
	for i, d := range documents {
		n[d.name] = a.counts[i].Load()
	}
	return n
}

func (a *Asked) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i, d := range documents {
			if strings.HasPrefix(r.URL.Path, d.path) {
				a.counts[i].Add(1)
				break
			}
		}
		h.ServeHTTP(w, r)
	})
}
