package authority

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"peel/cell"
	"peel/directory"
)

// Method is the one consensus method of this version (spec/voting.md, section 6).
const Method = 1

// measurers returns how many of n authorities must have measured a relay before what they found
// counts: three, where there are as many, and so many that most of them are honest.
func measurers(n int) int { return max(min(3, n), 2*((n-1)/3)+1) }

// ErrFewVotes says that fewer votes count than signatures are needed: there is no consensus.
var ErrFewVotes = errors.New("authority: too few votes count")

// Tally computes the consensus of a period from the votes that count, at most one of each authority
// and each of the network and the period: the same from the same votes, whatever their order. It is
// not signed. (spec/voting.md, section 6)
func Tally(n *directory.Network, p Period, votes []*directory.Vote) (*directory.Consensus, error) {
	if len(votes) < n.Threshold {
		return nil, fmt.Errorf("%w: %d, but %d are needed", ErrFewVotes, len(votes), n.Threshold)
	}
	votes = slices.SortedFunc(slices.Values(votes), func(a, b *directory.Vote) int {
		return compareID(&a.Certificate.Identity, &b.Certificate.Identity)
	})
	for i := range votes[1:] {
		if votes[i].Certificate.Identity == votes[i+1].Certificate.Identity {
			return nil, fmt.Errorf("authority: two votes of %v", votes[i].Certificate.Identity)
		}
	}
	if m := tallyMethod(votes); m != Method {
		return nil, fmt.Errorf("authority: more than two thirds of the authorities use consensus method %d, which this version does not know: update it", m)
	}
	params := tallyParams(votes)
	entries := tallyRelays(votes, honest(n), measurers(len(n.Authorities)))
	limitUnmeasured(entries)
	entries = limitPlaces(entries, int(params.Get(directory.ParamRelaysPerAddr)))
	entries = limitSize(entries, directory.MaxConsensus-directory.MaxHeader)
	list := make([]directory.Entry, len(entries))
	for i := range entries {
		list[i] = entries[i].Entry
	}
	return &directory.Consensus{
		SignedHeader: directory.SignedHeader{Header: directory.Header{
			Network:    n.ID(),
			Method:     Method,
			ValidAfter: p.ValidAfter,
			FreshUntil: p.FreshUntil,
			ValidUntil: p.ValidUntil,
			Params:     params,
			Shared:     tallyShared(n, p.ValidAfter, votes),
			Weights:    directory.WeightsOf(list),
			Relays:     len(list),
			Root:       directory.Root(list),
		}},
		Entries: list,
	}, nil
}

func compareID(a, b *cell.NodeID) int { return bytes.Compare(a[:], b[:]) }

// tallyMethod returns the highest method that more than two thirds of the votes name, or 1.
func tallyMethod(votes []*directory.Vote) int {
	count := map[int]int{}
	best := 1
	for _, v := range votes {
		for _, m := range v.Methods {
			count[m]++
			if 3*count[m] > 2*len(votes) {
				best = max(best, m)
			}
		}
	}
	return best
}

// tallyParams returns the parameters that more than half of the votes set, each with the low median
// of its values. Beyond the number that a document may have, the last by name are dropped.
func tallyParams(votes []*directory.Vote) directory.Params {
	values := map[string][]int32{}
	for _, v := range votes {
		for name, value := range v.Params {
			values[name] = append(values[name], value)
		}
	}
	var names []string
	for name, v := range values {
		if 2*len(v) > len(votes) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var params directory.Params
	for _, name := range names[:min(len(names), directory.MaxParams)] {
		if params == nil {
			params = directory.Params{}
		}
		params[name] = lowMedian(values[name])
	}
	return params
}

// tallied is a relay of the consensus.
type tallied struct {
	directory.Entry
	votes    int // that say it is running
	measured bool
}

// tallyRelays merges the votes' lists, each of which is in order.
func tallyRelays(votes []*directory.Vote, honest, measurers int) []tallied {
	var list []tallied
	next := make([]int, len(votes)) // in each vote's list
	t := relayTally{honest: honest, measurers: measurers}
	for {
		var id *cell.NodeID
		for i, v := range votes {
			if next[i] < len(v.Relays) {
				if r := &v.Relays[next[i]]; id == nil || compareID(&r.ID, id) < 0 {
					id = &r.ID
				}
			}
		}
		if id == nil {
			return list
		}
		t.reset()
		for i, v := range votes {
			if next[i] < len(v.Relays) {
				if r := &v.Relays[next[i]]; r.ID == *id {
					t.add(v.KnownFlags, r)
					next[i]++
				}
			}
		}
		if e, ok := t.result(len(votes)); ok {
			if len(list) == directory.MaxRelays {
				return list
			}
			list = append(list, e)
		}
	}
}

// relayTally collects what the votes say of one relay.
type relayTally struct {
	honest    int // as many of all authorities that one of them must be honest
	measurers int // as many measured it before that counts

	entries   []*directory.VoteEntry
	known     []directory.Flags // of the vote of each
	texts     []byte            // of what the entries take from the relay's descriptor but for its addresses, one after another
	ends      []int             // of each in texts
	bandwidth []uint64
	measured  []uint64
}

func (t *relayTally) reset() {
	t.entries, t.known, t.texts, t.ends = t.entries[:0], t.known[:0], t.texts[:0], t.ends[:0]
	t.bandwidth, t.measured = t.bandwidth[:0], t.measured[:0]
}

func (t *relayTally) add(known directory.Flags, e *directory.VoteEntry) {
	t.entries = append(t.entries, e)
	t.known = append(t.known, known)
	said := e.Entry // not the descriptor's digest and time: one published again says the same
	said.Flags, said.Bandwidth, said.Addrs = 0, 0, nil
	t.texts = said.Append(t.texts)
	t.ends = append(t.ends, len(t.texts))
	t.bandwidth = append(t.bandwidth, e.Bandwidth)
	if e.Measured > 0 {
		t.measured = append(t.measured, e.Measured)
	}
}

// result returns the relay's entry if it is to be listed.
func (t *relayTally) result(votes int) (tallied, bool) {
	if 2*len(t.entries) <= votes {
		return tallied{}, false
	}
	flags := t.flags()
	if !flags.Has(directory.Running | directory.Valid) {
		return tallied{}, false
	}
	said, n := t.descriptor()
	if n < t.honest {
		return tallied{}, false
	}
	e := tallied{Entry: t.entries[said].Entry}
	if e.Addrs = t.addrs(said); len(e.Addrs) == 0 {
		return tallied{}, false
	}
	e.Flags = flags
	e.Bandwidth = lowMedian(t.bandwidth)
	e.Bandwidth = min(e.Bandwidth, t.bandwidth[len(t.bandwidth)-t.honest]) // sorted: so much an honest one says at least
	if len(t.measured) >= t.measurers {
		e.Bandwidth, e.measured = lowMedian(t.measured), true
	}
	for _, r := range t.entries {
		if r.Flags.Has(directory.Running) {
			e.votes++
		}
	}
	return e, true
}

// flags returns the flags that more than half of those votes give that list the relay and know the
// flag, and so many that one of them must be honest: few may list it.
func (t *relayTally) flags() directory.Flags {
	var flags directory.Flags
	for _, f := range directory.AllFlags.List() {
		yes, all := 0, 0
		for i, e := range t.entries {
			if t.known[i].Has(f) {
				all++
			}
			if e.Flags.Has(f) {
				yes++
			}
		}
		if 2*yes > all && yes >= t.honest {
			flags |= f
		}
	}
	return flags
}

// text is what an entry takes from the relay's descriptor, but for its addresses: not which one it is.
func (t *relayTally) text(i int) []byte {
	if i == 0 {
		return t.texts[:t.ends[0]]
	}
	return t.texts[t.ends[i-1]:t.ends[i]]
}

// descriptor returns which entry says of the relay's descriptor what most votes say, and how many
// they are. Of equals it takes what was published later, then the greater digest, then the greater
// text.
func (t *relayTally) descriptor() (best, most int) {
	for i, e := range t.entries {
		n := 0
		for j := range t.entries {
			if bytes.Equal(t.text(i), t.text(j)) {
				n++
			}
		}
		b := t.entries[best]
		if cmp.Or(cmp.Compare(n, most), e.Published.Compare(b.Published),
			bytes.Compare(e.Descriptor[:], b.Descriptor[:]), bytes.Compare(t.text(i), t.text(best))) > 0 {
			best, most = i, n
		}
	}
	return best, most
}

// addrs returns at most one address of each family: that at which most votes reached the relay of
// the descriptor that said speaks of, if so many did that one of them must be honest. Of equals it
// takes the lesser. There may be none.
func (t *relayTally) addrs(said int) []netip.AddrPort {
	count := map[netip.AddrPort]int{}
	for i, e := range t.entries {
		if e.Flags.Has(directory.Running) && bytes.Equal(t.text(i), t.text(said)) {
			for _, a := range e.Addrs {
				count[a]++
			}
		}
	}
	var best [2]netip.AddrPort // IPv4, IPv6
	for a, n := range count {
		b := &best[0]
		if a.Addr().Is6() {
			b = &best[1]
		}
		if n >= t.honest && (!b.IsValid() || cmp.Or(cmp.Compare(n, count[*b]), b.Compare(a)) > 0) {
			*b = a
		}
	}
	return slices.DeleteFunc(best[:], func(a netip.AddrPort) bool { return !a.IsValid() })
}

// limitUnmeasured holds relays that were not measured, where a quarter of all were, to what one
// counts for that just came: else who keeps from being measured would go by its own word.
func limitUnmeasured(entries []tallied) {
	n := 0
	for i := range entries {
		if entries[i].measured {
			n++
		}
	}
	if n == 0 || 4*n < len(entries) {
		return
	}
	for i := range entries {
		if e := &entries[i]; !e.measured {
			e.Bandwidth = min(e.Bandwidth, newcomer)
		}
	}
}

// best orders relays where not all can stay: those first that most authorities reached, then those with more bandwidth, then those of
// the lesser identity.
func best(a, b *tallied) int {
	return cmp.Or(cmp.Compare(b.votes, a.votes), cmp.Compare(b.Bandwidth, a.Bandwidth), compareID(&a.ID, &b.ID))
}

// limitSize drops relays of which the entries would be longer together than so many bytes.
func limitSize(entries []tallied, room int) []tallied {
	keep := within(len(entries), room, func(i int, b []byte) []byte { return entries[i].Append(b) }, func(i, j int) int { return best(&entries[i], &entries[j]) })
	if keep == nil {
		return entries
	}
	kept := entries[:0]
	for i := range entries {
		if keep[i] {
			kept = append(kept, entries[i])
		}
	}
	return kept
}

// limitPlaces drops relays from addresses (IPv4) and networks (IPv6 /64) with more than limit of
// them: the best stay.
func limitPlaces(entries []tallied, limit int) []tallied {
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return best(&entries[i], &entries[j]) })
	taken := map[netip.Prefix]int{}
	drop := make([]bool, len(entries))
	for _, i := range order {
		for _, a := range entries[i].Addrs {
			drop[i] = drop[i] || taken[directory.SourceOf(a.Addr())] >= limit
		}
		if drop[i] {
			continue
		}
		for _, a := range entries[i].Addrs {
			taken[directory.SourceOf(a.Addr())]++
		}
	}
	kept := entries[:0]
	for i := range entries {
		if !drop[i] {
			kept = append(kept, entries[i])
		}
	}
	return kept
}
