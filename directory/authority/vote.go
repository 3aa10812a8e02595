package authority

import (
	"slices"
	"time"

	"peel/directory"
)

// What the flags of our votes mean (spec/voting.md, section 5). Each threshold is the lesser of a
// number that is good enough anywhere and the median of the relays that run.
const (
	fastBandwidth  = 100_000   // bytes per second
	guardBandwidth = 2_000_000 // bytes per second
	stableTime     = 5 * 24 * time.Hour

	// newcomer is what a relay counts for, bytes per second, that has not carried as much yet:
	// without it nobody would use it, and it could never show more.
	newcomer = 100_000

	// defaultMaxBandwidth is what a relay that nobody measured counts for at most, bytes per second.
	defaultMaxBandwidth = 10_000_000
)

// knownFlags are the flags that our votes have an opinion on.
const knownFlags = directory.Exit | directory.Fast | directory.Guard | directory.HSDir |
	directory.Running | directory.Stable | directory.Valid

// entries makes the list of a vote from the candidates, which are in order. A relay's bandwidth is
// what it advertises, at least newcomer if it gives that much, at most limit. Of one that is running,
// the addresses are those at which it was reached.
func entries(list []candidate, period time.Duration, limit uint64) []directory.VoteEntry {
	var bandwidths []uint64
	var streaks []int
	for i := range list {
		if list[i].running {
			bandwidths = append(bandwidths, bandwidth(list[i].desc, limit))
			streaks = append(streaks, list[i].streak)
		}
	}
	fast, guard, stable := uint64(fastBandwidth), uint64(guardBandwidth), int(stableTime/period)
	if len(bandwidths) > 0 {
		median := lowMedian(bandwidths)
		fast, guard, stable = min(fast, median), min(guard, median), min(stable, lowMedian(streaks))
	}
	votes := make([]directory.VoteEntry, len(list))
	for i, c := range list {
		bw := bandwidth(c.desc, limit)
		flags := directory.Valid
		if isExit(c.desc.Policy) {
			flags |= directory.Exit
		}
		if c.running {
			flags |= directory.Running
			if bw >= fast {
				flags |= directory.Fast
			}
			if c.streak >= stable {
				flags |= directory.Stable
			}
			if flags.Has(directory.Fast | directory.Stable) {
				flags |= directory.HSDir
				if bw >= guard {
					flags |= directory.Guard
				}
			}
		}
		votes[i] = directory.VoteEntryOf(c.desc, c.text, flags)
		votes[i].Bandwidth = bw
		if c.running {
			votes[i].Addrs = c.there
		}
	}
	return votes
}

func bandwidth(d *directory.Descriptor, limit uint64) uint64 {
	return min(d.Bandwidth, max(d.Observed, newcomer), limit)
}

// isExit: it lets traffic out to the web, at some address at least.
func isExit(p directory.Policy) bool { return p.AllowsPort(80) || p.AllowsPort(443) }

// lowMedian returns the middle of the values, the lesser of the two if there are two. It sorts them.
func lowMedian[T int | int32 | uint64](values []T) T {
	slices.Sort(values)
	return values[(len(values)-1)/2]
}
