package directory

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"peel/cell"
)

// Limits of a proof (spec/directory.md, section 11).
const (
	MaxAsked = 32           // relays that one may ask for at a time
	MaxProof = 512 << 10    // bytes
	maxLeafs = 2 * MaxAsked // a relay that is not there takes its two neighbours
	maxSteps = 16           // of the way from a leaf to the root: 2^16 is more than MaxRelays
)

// ErrUnproved is in the error of Proof.Lookup when the proof says nothing of the relay.
var ErrUnproved = errors.New("directory: the proof says nothing of this relay")

// Proof shows some entries of a consensus to somebody who has only its header: each with the hashes
// that lead from it to the root. Two neighbours show that no relay is between them.
type Proof struct {
	Consensus Digest // names the consensus
	Leaves    []Leaf // ascending by index
}

// Leaf is one entry and its way to the root.
type Leaf struct {
	Index int
	Entry Entry
	Path  []Digest // from the leaf up; none in a tree of one leaf
}

// Append appends the text of the proof.
func (p *Proof) Append(b []byte) []byte {
	b = appendProofHead(b, p.Consensus)
	for i := range p.Leaves {
		b = p.Leaves[i].append(b)
	}
	return b
}

func appendProofHead(b []byte, consensus Digest) []byte {
	b = appendUint(b, "peel-proof", 1)
	return appendLine(b, "consensus", consensus.String())
}

func (l *Leaf) append(b []byte) []byte {
	b = appendUint(b, "leaf", uint64(l.Index))
	if len(l.Path) > 0 {
		words := make([]string, len(l.Path))
		for j, d := range l.Path {
			words[j] = d.String()
		}
		b = appendLine(b, "path", strings.Join(words, " "))
	}
	return l.Entry.Append(b)
}

// ParseProof parses a proof. It proves nothing until Verify says so.
func ParseProof(text []byte) (*Proof, error) {
	r := newReader("proof", text, MaxProof)
	r.title("peel-proof")
	p := &Proof{Consensus: r.digest("consensus")}
	var buf []byte
	for r.has("leaf") {
		if len(p.Leaves) == maxLeafs {
			r.failAt(r.line+1, "more than %d entries", maxLeafs)
			break
		}
		l := Leaf{Index: int(r.uint("leaf", MaxRelays-1))}
		if n := len(p.Leaves); n > 0 && r.err == nil && p.Leaves[n-1].Index >= l.Index {
			r.fail("entry %d is out of order or there twice", l.Index)
		}
		if r.has("path") {
			for _, w := range r.fields("path", maxSteps) {
				d, err := ParseDigest(w)
				l.Path = append(l.Path, parsed(r, d, err))
			}
		}
		buf = r.wholeEntry(&l.Entry, buf)
		if r.err != nil {
			break
		}
		p.Leaves = append(p.Leaves, l)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return p, nil
}

// Verify returns nil if every entry stands under the header's root where the proof says, and all are
// in order. The header must have been verified itself.
func (p *Proof) Verify(h *Header) error {
	if d := h.Digest(); p.Consensus != d {
		return fmt.Errorf("directory: proof: it is of consensus %s, not of %s", p.Consensus, d)
	}
	for i := range p.Leaves {
		l := &p.Leaves[i]
		if l.Index < 0 || l.Index >= h.Relays {
			return fmt.Errorf("directory: proof: entry %d of %d", l.Index, h.Relays)
		}
		if i > 0 {
			if p.Leaves[i-1].Index >= l.Index {
				return fmt.Errorf("directory: proof: entry %d is out of order", l.Index)
			}
			if err := inOrder(&p.Leaves[i-1].Entry.ID, &l.Entry.ID); err != nil {
				return fmt.Errorf("directory: proof: %w", err)
			}
		}
		if err := l.Entry.Check(); err != nil {
			return err
		}
		path := make(tlog.RecordProof, len(l.Path))
		for j, d := range l.Path {
			path[j] = tlog.Hash(d)
		}
		leaf := tlog.RecordHash(l.Entry.Append(nil))
		if err := tlog.CheckRecord(path, int64(h.Relays), tlog.Hash(h.Root), int64(l.Index), leaf); err != nil {
			return fmt.Errorf("%w: entry %d, relay %s, is not under root %s", ErrRoot, l.Index, l.Entry.ID, h.Root)
		}
	}
	return nil
}

// Lookup says what a proof that verified against the header shows of a relay: its entry, or nil and
// no error if the consensus does not list it. The error is ErrUnproved if it shows neither.
func (p *Proof) Lookup(h *Header, id cell.NodeID) (*Entry, error) {
	i := sort.Search(len(p.Leaves), func(i int) bool { return bytes.Compare(p.Leaves[i].Entry.ID[:], id[:]) >= 0 })
	if i < len(p.Leaves) && p.Leaves[i].Entry.ID == id {
		return &p.Leaves[i].Entry, nil
	}
	// Nobody is between the last leaf before and the first one after, if these are neighbours or the ends.
	before, after := -1, h.Relays
	if i > 0 {
		before = p.Leaves[i-1].Index
	}
	if i < len(p.Leaves) {
		after = p.Leaves[i].Index
	}
	if before+1 != after {
		return nil, ErrUnproved
	}
	return nil, nil
}

// Tree has the hashes of all entries of a consensus, from which proofs are made: 64 bytes a relay.
// It does not change, nor must the consensus.
type Tree struct {
	consensus *Consensus
	digest    Digest
	hashes    []tlog.Hash
}

// NewTree hashes the entries of a consensus that ParseConsensus took.
func NewTree(c *Consensus) (*Tree, error) {
	t := &Tree{consensus: c, digest: c.Header.Digest(), hashes: make([]tlog.Hash, 0, 2*len(c.Entries))}
	var buf []byte
	for i := range c.Entries {
		buf = c.Entries[i].Append(buf[:0])
		more, err := tlog.StoredHashes(int64(i), buf, tlog.HashReaderFunc(t.read))
		if err != nil {
			return nil, fmt.Errorf("directory: tree: %w", err)
		}
		t.hashes = append(t.hashes, more...)
	}
	return t, nil
}

func (t *Tree) read(indexes []int64) ([]tlog.Hash, error) {
	l := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(t.hashes)) {
			return nil, fmt.Errorf("there is no hash %d", x)
		}
		l[i] = t.hashes[x]
	}
	return l, nil
}

// Prove returns a proof that says of each relay asked for, at most MaxAsked, what its entry is or
// that it has none.
func (t *Tree) Prove(ids ...cell.NodeID) (*Proof, error) {
	at, err := t.find(ids)
	if err != nil {
		return nil, err
	}
	p := &Proof{Consensus: t.digest}
	for _, i := range at {
		l, err := t.leaf(i)
		if err != nil {
			return nil, err
		}
		p.Leaves = append(p.Leaves, l)
	}
	return p, nil
}

// WriteProof writes the text of that proof, one leaf after the other: where the reader is slow no more than one is held.
func (t *Tree) WriteProof(w io.Writer, ids ...cell.NodeID) error {
	at, err := t.find(ids)
	if err != nil {
		return err
	}
	b := appendProofHead(nil, t.digest)
	for _, i := range at {
		l, err := t.leaf(i)
		if err != nil {
			return err
		}
		if _, err := w.Write(l.append(b)); err != nil {
			return err
		}
		b = b[:0]
	}
	_, err = w.Write(b) // the head, if there is no leaf
	return err
}

// find returns which leaves say of each relay whether it is there, in order.
func (t *Tree) find(ids []cell.NodeID) (at []int, err error) {
	if len(ids) > MaxAsked {
		return nil, fmt.Errorf("directory: proof: %d relays, but at most %d can be asked for", len(ids), MaxAsked)
	}
	entries := t.consensus.Entries
	for _, id := range ids {
		i := sort.Search(len(entries), func(i int) bool { return bytes.Compare(entries[i].ID[:], id[:]) >= 0 })
		there := i < len(entries) && entries[i].ID == id
		if i < len(entries) {
			at = append(at, i)
		}
		if !there && i > 0 {
			at = append(at, i-1)
		}
	}
	slices.Sort(at)
	return slices.Compact(at), nil
}

// leaf is one entry and its way to the root.
func (t *Tree) leaf(i int) (Leaf, error) {
	path, err := tlog.ProveRecord(int64(len(t.consensus.Entries)), int64(i), tlog.HashReaderFunc(t.read))
	if err != nil {
		return Leaf{}, fmt.Errorf("directory: proof: %w", err)
	}
	l := Leaf{Index: i, Entry: t.consensus.Entries[i]}
	for _, h := range path {
		l.Path = append(l.Path, Digest(h))
	}
	return l, nil
}
