package relay

import (
	"context"
	"maps"
	"slices"
	"time"

	"peel/cell"
	"peel/cell/link"
)

// What waits is ended after a quarter of an hour in which nothing of it was taken and no leave for any was given (spec/flow.md, section 4;
// spec/stream.md, section 4, says why so late). When memory is short a circuit ends long before (link.Budget).
const (
	stillLook   = 30 * time.Second // between two looks
	stillLooks  = 30               // in a row at which it stood, after the first
	behindLooks = 4 * stillLooks   // where another relay is in between, which ends it itself, and gives credit in lumps of many cells
)

// A standstill is how often in a row something was seen to stand. Looks are counted, not time, so that no time counts in which the relay itself
// stood still.
type standstill struct {
	mark  uint64
	looks uint8
	seen  bool
}

// look says for how many looks what stands now has stood: since mark, which changes whenever it moves, was first seen.
func (s *standstill) look(stands bool, mark uint64) int {
	switch {
	case !stands:
		*s = standstill{}
	case !s.seen || s.mark != mark:
		*s = standstill{mark: mark, seen: true}
	case s.looks < behindLooks:
		s.looks++
	}
	return int(s.looks)
}

// keepMoving looks now and then at all circuits and streams, and ends those that have stood still for long.
func (r *Relay) keepMoving(ctx context.Context) {
	tick := time.NewTicker(stillLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.guard("what stands still", func() {
				r.endStuckStreams()
				r.endStuckCircuits()
			})
		case <-ctx.Done():
			return
		}
	}
}

// endStuckStreams ends the streams to the world whose client reads nothing.
func (r *Relay) endStuckStreams() {
	r.mu.Lock()
	all := slices.Collect(maps.Keys(r.outlets))
	r.mu.Unlock()
	for _, o := range all {
		if o.still.look(o.stream.Held()) >= stillLooks {
			r.stats.Stuck.Add(1)
			r.guard("stream", func() { o.cut(cell.EndTimeout) })
		}
	}
}

// endStuckCircuits ends the circuits to one side of which cells wait that has given no credit.
func (r *Relay) endStuckCircuits() {
	for _, t := range r.all() {
		if t.stuck() {
			r.stats.Stuck.Add(1)
			r.guard("circuit", t.destroy)
		}
	}
}

func (t *transit) stuck() bool {
	t.mu.Lock()
	next, answers := t.next, t.extended != nil || t.rekeys > 0
	t.mu.Unlock()
	return t.stands(t.prev, answers || t.mux.Pending(), &t.stills[0]) || next != nil && t.stands(next, false, &t.stills[1])
}

// stands says whether cells have waited too long for credit on one side; others: there are some beside those that are queued.
func (t *transit) stands(c *link.Circ, others bool, s *standstill) bool {
	starved, last := c.Starved(others)
	n := s.look(starved, uint64(last))
	if n < stillLooks {
		return false
	}
	o, _, _ := t.relay.peer(c.Conn())
	return !o.free || n >= behindLooks
}
