package path

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sort"
	"sync"

	"peel/cell"
	"peel/directory"
)

// Index is a consensus made ready for choosing. Any number of goroutines may use it.
type Index struct {
	consensus              *directory.Consensus
	relays                 []relay // running and valid ones
	exits, guards, middles position
	ends                   position              // those that may be the last of a path when no exit is needed
	at                     map[cell.NodeID]int32 // of relays
	flagged                bool                  // some relay has the flag Guard
	entrances              []Guard
	excluded               int    // relays, or exits, that the configuration excludes
	fallback               *Index // with fewer of them excluded; nil: there is none

	mu    sync.Mutex
	ports map[uint16]*position // of exits, by the port they may allow; at most maxPorts
}

// maxPorts bounds Index.ports; when it is full, all are forgotten.
const maxPorts = 32

// relay is one that may be in a path, with what it must not have in common with the others.
type relay struct {
	entry  *directory.Entry
	v4     uint32  // 1<<16 | its IPv4 /16; 0: none
	v6     uint64  // 1<<32 | its IPv6 /32; 0: none
	family []int32 // relays that name it and that it names, ascending
}

// position is who may stand at one place of a path, and with what weight.
type position struct {
	relays []int32  // indexes of Index.relays
	sums   []uint64 // sums[k] is the weight of relays[:k+1]
}

func (p *position) add(i int32, weight uint64) {
	if n := len(p.sums); n > 0 {
		weight += p.sums[n-1]
	}
	p.relays = append(p.relays, i)
	p.sums = append(p.sums, weight)
}

func (p *position) weight(k int) uint64 {
	if k == 0 {
		return p.sums[0]
	}
	return p.sums[k] - p.sums[k-1]
}

// NewIndex indexes c, which must not change afterwards. It refuses a consensus with fewer than three
// relays that are running and valid.
func NewIndex(c *directory.Consensus) (*Index, error) { return Rules{}.Index(c) }

// Index indexes c as NewIndex does, for paths that keep the rules.
func (r Rules) Index(c *directory.Consensus) (*Index, error) {
	x, err := r.index(c)
	if !r.Lenient || r.Exclude.empty() && r.Exits.empty() {
		return x, err
	}
	fallback, err2 := (&Rules{Own: r.Own}).index(c)
	switch {
	case err2 != nil:
		return nil, err2
	case err != nil:
		return fallback, nil
	}
	x.fallback = fallback
	return x, nil
}

func (r *Rules) index(c *directory.Consensus) (*Index, error) {
	if c == nil {
		return nil, errors.New("path: no consensus")
	}
	x := &Index{consensus: c, ports: map[uint16]*position{}, at: make(map[cell.NodeID]int32, len(c.Entries))}
	subnets := c.Params.Get(directory.ParamDistinctSubnets) != 0
	var sum, carry uint64 // of the bandwidths
	var usable []*directory.Entry
	for i := range c.Entries {
		e := &c.Entries[i]
		if !e.Flags.Has(directory.Running|directory.Valid) || len(e.Addrs) == 0 {
			continue
		}
		usable = append(usable, e)
		if r.excluded(e) {
			x.excluded++
		} else {
			node := relay{entry: e}
			if subnets {
				node.subnets()
			}
			x.at[e.ID] = int32(len(x.relays))
			x.relays = append(x.relays, node)
		}
		var over uint64
		sum, over = bits.Add64(sum, e.Bandwidth, 0)
		carry += over
	}
	if len(x.relays) < Hops {
		return nil, fmt.Errorf("path: %d of %s running and valid: a path needs %d%s", len(x.relays), count(len(c.Entries), "relay"), Hops, x.because())
	}
	x.families()

	// Bandwidths are scaled down, if need be, so that the sum of all weights stays below 2^63.
	length := bits.Len64(sum)
	if carry > 0 {
		length = 64 + bits.Len64(carry)
	}
	shift := max(0, length+bits.Len(directory.WeightScale)-63)
	weigh := func(pos directory.Position, e *directory.Entry) uint64 {
		return (e.Bandwidth >> shift) * uint64(c.Weights.Of(pos, e.Flags))
	}
	x.flagged = slices.ContainsFunc(usable, func(e *directory.Entry) bool { return mayGuard(e, true) })
	for _, e := range usable {
		if mayGuard(e, x.flagged) {
			x.entrances = append(x.entrances, Guard{e.ID, weigh(directory.PositionGuard, e), r.excluded(e)})
		}
	}
	for i := range x.relays {
		e, i := x.relays[i].entry, int32(i)
		x.middles.add(i, weigh(directory.PositionMiddle, e))
		if !e.Flags.Has(directory.MiddleOnly) && !r.Exits.Has(e) { // with the weights of the middle, which spare exits where these are few
			x.ends.add(i, weigh(directory.PositionMiddle, e))
		}
		if mayGuard(e, x.flagged) {
			x.guards.add(i, weigh(directory.PositionGuard, e))
		}
		if mayExit(e) && r.Exits.Has(e) {
			x.excluded++
		} else if mayExit(e) {
			x.exits.add(i, weigh(directory.PositionExit, e))
		}
	}
	return x, nil
}

// subnets finds the networks that one operator is likely to have as a whole.
func (r *relay) subnets() {
	for _, ap := range r.entry.Addrs {
		if a := ap.Addr().Unmap(); a.Is4() {
			b := a.As4()
			r.v4 = 1<<16 | uint32(b[0])<<8 | uint32(b[1])
		} else {
			b := a.As16()
			r.v6 = 1<<32 | uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
		}
	}
}

// Consensus returns the consensus that the index is of.
func (x *Index) Consensus() *directory.Consensus { return x.consensus }

// mayGuard: those with the flag; in a network where no relay has it yet, all.
func mayGuard(e *directory.Entry, flagged bool) bool {
	return !e.Flags.Has(directory.MiddleOnly) && (!flagged || e.Flags.Has(directory.Guard))
}

// mayExit: those with a policy, whatever it allows.
func mayExit(e *directory.Entry) bool {
	return len(e.Policy) > 0 && !e.Flags.Has(directory.BadExit) && !e.Flags.Has(directory.MiddleOnly)
}

// families finds the relays that name each other. What only one of two says does not count: else a
// relay could keep others from being chosen together with it.
func (x *Index) families() {
	named := make([][]int32, len(x.relays))
	for i := range x.relays {
		for _, id := range x.relays[i].entry.Family {
			if j, ok := x.at[id]; ok && j != int32(i) {
				named[i] = append(named[i], j)
			}
		}
		slices.Sort(named[i])
	}
	for i := range named {
		for _, j := range named[i] {
			if _, ok := slices.BinarySearch(named[j], int32(i)); ok {
				x.relays[i].family = append(x.relays[i].family, j)
			}
		}
	}
}

// conflict reports whether two relays must not be in one path.
func (x *Index) conflict(i, j int32) bool {
	a, b := &x.relays[i], &x.relays[j]
	if i == j || a.v4 != 0 && a.v4 == b.v4 || a.v6 != 0 && a.v6 == b.v6 {
		return true
	}
	if len(a.family) == 0 || len(b.family) == 0 {
		return false
	}
	_, ok := slices.BinarySearch(a.family, j)
	return ok
}

// exitsFor returns the exits that allow the port for at least one address.
func (x *Index) exitsFor(port uint16) *position {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p, ok := x.ports[port]; ok {
		return p
	}
	p := &position{}
	for k, i := range x.exits.relays {
		if x.relays[i].entry.Policy.AllowsPort(port) {
			p.add(i, x.exits.weight(k))
		}
	}
	if len(x.ports) >= maxPorts {
		clear(x.ports)
	}
	x.ports[port] = p
	return p
}

// drawing is the chance and the patience of one choice.
type drawing struct {
	rng  func(uint64) uint64
	work int // relays that may still be looked at
}

// rejections is how often a relay is drawn and refused before all are looked at.
const rejections = 32

// draw returns one of p's relays that fit, by weight; when all of these have weight 0, each is as
// likely as any other. It returns false when there is none, or no work is left.
func (d *drawing) draw(p *position, fits func(int32) bool) (int32, bool) {
	n := len(p.relays)
	if n == 0 || d.work <= 0 {
		return 0, false
	}
	if total := p.sums[n-1]; total > 0 {
		for range rejections {
			at := d.rng(total)
			i := p.relays[sort.Search(n, func(k int) bool { return p.sums[k] > at })]
			if fits(i) {
				return i, true
			}
		}
	}
	// Drawing from those that fit has the same chances as drawing until one fits.
	d.work -= n
	var left position
	for k, i := range p.relays {
		if fits(i) {
			left.add(i, p.weight(k))
		}
	}
	m := len(left.relays)
	if m == 0 {
		return 0, false
	}
	if total := left.sums[m-1]; total > 0 {
		at := d.rng(total)
		return left.relays[sort.Search(m, func(k int) bool { return left.sums[k] > at })], true
	}
	return left.relays[d.rng(uint64(m))], true
}
