package dirtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"peel/directory"
)

// Churn makes the consensus of the period after one, and its text, signed by all authorities: a share
// of the relays has left, as many have joined, and as many have another bandwidth and flag; at least
// one each unless the share is 0.
func (t *Net) Churn(seed uint64, from *directory.Consensus, share float64) (*directory.Consensus, []byte) {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], 1) // not what New draws from the same seed
	src := rand.NewChaCha8(key)
	rng := rand.New(src)
	n := 0
	if share > 0 {
		n = max(1, int(share*float64(len(from.Entries))))
	}
	entries := slices.Clone(from.Entries)
	rng.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	entries = entries[min(n, len(entries)):]
	for i := range entries[:min(n, len(entries))] {
		entries[i].Bandwidth = 1_000_000 + rng.Uint64N(99_000_000)
		entries[i].Flags ^= directory.Stable
	}
	o := options{validAfter: from.FreshUntil}
	for i := range n {
		r := newRelay(src, rng.IntN(200*256), from.Network, &o)
		r.Descriptor.Nickname = fmt.Sprintf("new%d", i)
		entries = append(entries, newEntry(i, &r, &o))
	}
	slices.SortFunc(entries, func(a, b directory.Entry) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	c := &directory.Consensus{SignedHeader: from.SignedHeader, Entries: entries}
	period := from.FreshUntil.Sub(from.ValidAfter)
	c.ValidAfter, c.FreshUntil, c.ValidUntil = from.ValidAfter.Add(period), from.FreshUntil.Add(period), from.ValidUntil.Add(period)
	c.Weights = directory.WeightsOf(entries)
	return c, t.Sign(c, len(t.Authorities))
}
