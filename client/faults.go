package client

import (
	"errors"
	"slices"
	"time"

	"peel/cell"
	"peel/circuit"
	"peel/client/path"
	"peel/directory"
)

const (
	avoidFor  = time.Minute // a fault of a relay is remembered for so long after the last
	mostBlame = 6           // levels of blame, 0 to 5: the worst are chosen only when nothing else keeps the rules
)

// faults says which relays are blamed: those where circuits failed that they should have joined. It holds no more relays
// than the consensus names, and forgets them in time.
type faults map[cell.NodeID]fault

type fault struct {
	level int // 1 to mostBlame-1
	last  time.Time
}

// blame notes a fault of a relay.
func (f faults) blame(id cell.NodeID, now time.Time) {
	f[id] = fault{min(f[id].level+1, mostBlame-1), now}
}

// clear forgets the faults of relays that a circuit was built through.
func (f faults) clear(p path.Path) {
	for _, e := range p {
		delete(f, e.ID)
	}
}

// forget drops what is old.
func (f faults) forget(now time.Time) {
	for id, x := range f {
		if now.Sub(x.last) > avoidFor {
			delete(f, id)
		}
	}
}

// failed blames for a circuit that could not be built along p: the hop where it failed, and the one whose task it was to
// reach it.
func (f faults) failed(p path.Path, err error, now time.Time) {
	var be *circuit.BuildError
	if !errors.As(err, &be) {
		if len(p) > 0 { // it was built, and carried nothing
			f.blame(p[len(p)-1].ID, now)
		}
		return
	}
	for i := max(0, be.Hop-1); i <= be.Hop && i < len(p); i++ {
		f.blame(p[i].ID, now)
	}
}

// after says which relays were blamed after a moment: a circuit begun before that is not to be trusted with more.
func (f faults) after(t time.Time) func(cell.NodeID) bool {
	return func(id cell.NodeID) bool { return f[id].last.After(t) }
}

// choose draws a path with as little blame in it as can be. An expired consensus is used until its grace is over.
func (f faults) choose(r *relays, u path.Usage, not []cell.NodeID, now time.Time, rng func(uint64) uint64) (path.Path, error) {
	c := r.index.Consensus()
	if now.After(c.ValidUntil.Add(directory.Grace)) {
		return nil, &directory.TimeError{Err: directory.ErrExpired, ValidAfter: c.ValidAfter, ValidUntil: c.ValidUntil, Now: now}
	}
	var way path.Path
	var err error
	for most := range mostBlame {
		u.Avoid = func(id cell.NodeID) bool { return f[id].level > most || slices.Contains(not, id) }
		if way, err = r.index.Choose(u, rng); err == nil || errors.Is(err, path.ErrNoExit) {
			break
		}
	}
	return way, err
}
