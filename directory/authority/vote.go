package authority

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"peel/directory"
)

// What the flags of our votes mean (spec/voting.md, section 5). Days are for periods of an hour, and
// as many periods in every network. What is good enough anywhere gives way to what the relays that
// run have, where these have less: the network is young, or small.
const (
	fastBandwidth  = 100_000   // bytes per second
	leastFast      = 10_000    // below it nobody is Fast, unless it is alone with its like
	guardBandwidth = 2_000_000 // bytes per second
	guardUptime    = 0.98
	guardDays      = 8
	stableDays     = 5
	hsdirDays      = 4

	// newcomer is what a relay counts for, bytes per second, that has not carried as much yet:
	// without it nobody would use it, and it could never show more.
	newcomer = 100_000

	// A relay is new for newDays. It counts for newcomer at first, and twice as much after every
	// newDays/newDoublings; and the new ones of one network (IPv4 /16, IPv6 /32) together for no more
	// than one part in newShare of what the relays that are not new count for, or, where these are of
	// few networks, a quarter of what they have in one.
	newDays      = 28
	newDoublings = 14
	newShare     = 200

	// defaultMaxBandwidth is what a relay that nobody measured counts for at most, bytes per second.
	defaultMaxBandwidth = 10_000_000
)

// entries makes the list of a vote from the candidates, which are in order. limit is what a relay that
// was not measured counts for at most. Of one that is running, the addresses are those at which it
// was reached.
func entries(list []candidate, period time.Duration, limit uint64) []directory.VoteEntry {
	limits := limitNew(list, period, limit)
	t := thresholdsOf(list, limits, period, limit)
	votes := make([]directory.VoteEntry, len(list))
	for i := range list {
		c := &list[i]
		votes[i] = directory.VoteEntryOf(c.desc, c.text, t.flags(c, min(c.value(limit), limits[i])))
		votes[i].Bandwidth = min(bandwidth(c.desc, limit), limits[i])
		if c.measured > 0 {
			votes[i].Measured = max(1, min(c.measured, c.desc.Bandwidth, limits[i]))
		}
		if c.running {
			votes[i].Addrs = c.there
		}
	}
	return votes
}

// thresholds are what a relay must have for a flag.
type thresholds struct {
	fast, guard      uint64        // bytes per second
	run              time.Duration // for Stable
	uptime           float64       // for Guard
	known, knownLong time.Duration // for HSDir and for Guard
}

// thresholdsOf finds them from the relays that are running and not marked.
func thresholdsOf(list []candidate, limits []uint64, period time.Duration, limit uint64) thresholds {
	t := thresholds{
		fast: fastBandwidth, guard: guardBandwidth, run: scaled(period, stableDays), uptime: guardUptime,
		known: scaled(period, hsdirDays), knownLong: scaled(period, guardDays),
	}
	var bandwidths []uint64
	var uptimes []float64
	var runs []time.Duration
	for i := range list {
		if c := &list[i]; c.running && c.marks == 0 {
			bandwidths = append(bandwidths, min(c.value(limit), limits[i]))
			uptimes = append(uptimes, c.past.Uptime)
			runs = append(runs, c.past.Run)
		}
	}
	if len(bandwidths) == 0 {
		return t
	}
	slices.Sort(bandwidths)
	// An eighth are not Fast, where not all have enough; and leastFast is asked where half have it.
	t.fast = max(min(t.fast, quantile(bandwidths, 8)), min(leastFast, quantile(bandwidths, 2)))
	t.guard = min(t.guard, quantile(bandwidths, 2))
	t.uptime = min(t.uptime, lowMedian(uptimes))
	// What began within one period is told apart by chance only.
	t.run = max(0, min(t.run, lowMedian(runs)-period))
	age := networkAge(list, period)
	t.known, t.knownLong = min(t.known, age/2), min(t.knownLong, age/2)
	return t
}

// quantile returns what one part in n of the sorted values is below.
func quantile[T any](sorted []T, n int) T { return sorted[(len(sorted)-1)/n] }

// networkAge is for how long, at least, a quarter of the relays that run have been known, less a
// period. Who wants to make the network look younger must bring three times as many relays as it has.
func networkAge(list []candidate, period time.Duration) time.Duration {
	var known []time.Duration
	for i := range list {
		if list[i].running {
			known = append(known, list[i].past.Known)
		}
	}
	if len(known) == 0 {
		return 0
	}
	slices.Sort(known)
	return max(0, known[(len(known)-1)*3/4]-period)
}

// flags returns the flags of a relay with a bandwidth.
func (t *thresholds) flags(c *candidate, bandwidth uint64) directory.Flags {
	flags := directory.Valid | c.marks
	middle := c.marks.Has(directory.MiddleOnly)
	if isExit(c.desc.Policy) && !middle {
		flags |= directory.Exit
	}
	if !c.running {
		return flags
	}
	flags |= directory.Running
	if bandwidth >= t.fast {
		flags |= directory.Fast
	}
	if c.past.Run >= t.run {
		flags |= directory.Stable
	}
	if middle || !flags.Has(directory.Fast|directory.Stable) {
		return flags
	}
	if c.past.Known >= t.known {
		flags |= directory.HSDir
	}
	if bandwidth >= t.guard && c.past.Uptime >= t.uptime && c.past.Known >= t.knownLong {
		flags |= directory.Guard
	}
	return flags
}

// value is what a relay counts for, as far as that is up to what it shows.
func (c *candidate) value(limit uint64) uint64 {
	if c.measured > 0 {
		return min(c.measured, c.desc.Bandwidth)
	}
	return bandwidth(c.desc, limit)
}

// limitNew returns what each relay may count for at most, because it is new: so a thousand relays
// that come in one night are not half of the network the next day, however fast they are.
func limitNew(list []candidate, period time.Duration, limit uint64) []uint64 {
	limits := make([]uint64, len(list))
	still := min(scaled(period, newDays), networkAge(list, period)/2) // as long a relay is new
	var all, exits limiter
	for i := range list {
		c := &list[i]
		limits[i] = directory.MaxBandwidth
		if c.past.Known >= still {
			if c.running {
				all.old(c, c.value(limit))
				if isExit(c.desc.Policy) {
					exits.old(c, c.value(limit))
				}
			}
			continue
		}
		grown := math.Exp2(newDoublings * float64(c.past.Known) / float64(still))
		limits[i] = min(limits[i], uint64(newcomer*grown))
		limits[i] = min(limits[i], c.value(limit))
		if c.running {
			all.add(c, i)
			if isExit(c.desc.Policy) {
				exits.add(c, i)
			}
		}
	}
	exits.hold(limits)
	all.hold(limits)
	return limits
}

// A limiter holds what new relays of each network count for against what the others do: of all
// relays, or of all exits.
type limiter struct {
	sum      uint64 // of those that are not new
	networks map[netip.Prefix]bool
	fresh    map[netip.Prefix][]int
}

func (l *limiter) old(c *candidate, value uint64) {
	if l.networks == nil {
		l.networks = map[netip.Prefix]bool{}
	}
	l.sum += value
	for _, a := range c.there {
		l.networks[directory.NetworkOf(a.Addr())] = true
	}
}

func (l *limiter) add(c *candidate, i int) {
	if l.fresh == nil {
		l.fresh = map[netip.Prefix][]int{}
	}
	for _, a := range c.there {
		n := directory.NetworkOf(a.Addr())
		l.fresh[n] = append(l.fresh[n], i)
	}
}

// hold lowers the limits of new relays, in proportion, where those of a network have too much together.
func (l *limiter) hold(limits []uint64) {
	if l.sum == 0 {
		return
	}
	most := max(l.sum/newShare, l.sum/uint64(4*max(1, len(l.networks))))
	for _, n := range slices.SortedFunc(maps.Keys(l.fresh), comparePrefix) {
		sum := uint64(0)
		for _, i := range l.fresh[n] {
			sum += limits[i]
		}
		if sum > most {
			share := float64(most) / float64(sum)
			for _, i := range l.fresh[n] {
				limits[i] = uint64(share * float64(limits[i]))
			}
		}
	}
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func bandwidth(d *directory.Descriptor, limit uint64) uint64 {
	return min(d.Bandwidth, max(d.Observed, newcomer), limit)
}

// isExit: it lets traffic out to the web, at some address at least.
func isExit(p directory.Policy) bool { return p.AllowsPort(80) || p.AllowsPort(443) }

// lowMedian returns the middle of the values, the lesser of the two if there are two. It sorts them.
func lowMedian[T cmp.Ordered](values []T) T {
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// mostEntries is how long the entries of a vote are together at most, in bytes: what stands before them takes less than the rest.
const mostEntries = directory.MaxVote - 64<<10

// fit leaves out of a vote what would make it longer than it may be, and says how many: anybody may publish relays that nobody reaches.
// Those stay that are running, first those that are known for longest.
func fit(votes []directory.VoteEntry, list []candidate) ([]directory.VoteEntry, int) {
	size := func(i int, b []byte) []byte { return votes[i].Append(b) }
	keep := within(len(votes), mostEntries, size, func(i, j int) int {
		a, b := &list[i], &list[j]
		return cmp.Or(compareBool(b.running, a.running), cmp.Compare(b.past.Known, a.past.Known), compareID(&votes[i].ID, &votes[j].ID))
	})
	if keep == nil {
		return votes, 0
	}
	var kept []directory.VoteEntry
	for i := range votes {
		if keep[i] {
			kept = append(kept, votes[i])
		}
	}
	return kept, len(votes) - len(kept)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// within says which of n texts there is room for, of so many bytes, those first in order first; nil: for all.
func within(n, room int, text func(i int, b []byte) []byte, order func(i, j int) int) (keep []bool) {
	sizes, which, all := make([]int, n), make([]int, n), 0
	var b []byte
	for i := range n {
		b = text(i, b[:0])
		sizes[i], which[i] = len(b), i
		all += len(b)
	}
	if all <= room {
		return nil
	}
	slices.SortFunc(which, order)
	keep = make([]bool, n)
	for _, i := range which {
		if sizes[i] <= room {
			keep[i] = true
			room -= sizes[i]
		}
	}
	return keep
}
