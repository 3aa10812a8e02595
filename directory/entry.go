package directory

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"peel/cell"
)

// Entry is a relay as the consensus knows it: all that a client needs to use it.
type Entry struct {
	ID        cell.NodeID
	Nickname  string
	Addrs     []netip.AddrPort
	LinkKey   cell.Key
	OnionKey  cell.Key
	Flags     Flags
	Bandwidth uint64 // its weight in path selection: bytes per second, measured where that is known
	Version   string
	Family    []cell.NodeID
	Policy    Policy
}

// Append appends the entry's text: the bytes that the tree's leaf is the hash of.
func (e *Entry) Append(b []byte) []byte {
	b = append(b, "relay "...)
	b, _ = e.ID.AppendText(b)
	b = append(b, ' ')
	b = append(b, e.Nickname...)
	b = append(b, '\n')
	b = appendAddrs(b, "addresses", e.Addrs)
	b = appendKey(b, "link-key", e.LinkKey)
	b = appendKey(b, "onion-key", e.OnionKey)
	b = appendFlags(b, "flags", e.Flags)
	b = appendUint(b, "bandwidth", e.Bandwidth)
	b = appendLine(b, "version", e.Version)
	b = appendFamily(b, "family", e.Family)
	return appendRules(b, e.Policy)
}

// Check refuses an entry that has no text.
func (e *Entry) Check() error {
	if err := e.check(); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	return nil
}

func (e *Entry) check() error {
	if err := e.checkFields(); err != nil {
		return fmt.Errorf("entry %s: %w", e.ID, err)
	}
	return nil
}

func (e *Entry) checkFields() error {
	if e.ID.IsZero() || e.LinkKey.IsZero() || e.OnionKey.IsZero() {
		return fmt.Errorf("identity, link key or onion key missing")
	}
	if err := CheckNickname(e.Nickname); err != nil {
		return err
	}
	if err := CheckAddrs(e.Addrs); err != nil {
		return err
	}
	if e.Flags&^AllFlags != 0 {
		return fmt.Errorf("there is no such flag: %#x", uint16(e.Flags&^AllFlags))
	}
	if e.Bandwidth > MaxBandwidth {
		return fmt.Errorf("bandwidth %d is above the limit of %d", e.Bandwidth, uint64(MaxBandwidth))
	}
	if err := checkVersion(e.Version); err != nil {
		return err
	}
	if err := checkFamily(e.ID, e.Family); err != nil {
		return err
	}
	return e.Policy.check()
}

// entry takes an entry's lines into e. Whether they are spelled in the one way allowed is left to
// the caller.
func (r *reader) entry(e *Entry) {
	words := r.fields("relay", 2)
	if r.err == nil && len(words) != 2 {
		r.fail("a relay has an identity and a nickname")
	}
	if r.err != nil {
		return
	}
	id, err := cell.ParseNodeID(words[0])
	e.ID = parsed(r, id, err)
	e.Nickname = strings.Clone(parsed(r, words[1], CheckNickname(words[1])))
	e.Addrs = r.addrs("addresses")
	e.LinkKey = r.key32("link-key")
	e.OnionKey = r.key32("onion-key")
	e.Flags = r.flags("flags")
	e.Bandwidth = r.uint("bandwidth", MaxBandwidth)
	e.Version = r.version("version")
	e.Family = r.family("family", e.ID)
	e.Policy = r.rules()
	if r.err == nil && (e.ID.IsZero() || e.LinkKey.IsZero() || e.OnionKey.IsZero()) {
		r.fail("relay %s: identity, link key or onion key is zero", e.ID)
	}
}

// inOrder returns an error unless one identity comes before the next, by their bytes.
func inOrder(before, id *cell.NodeID) error {
	switch bytes.Compare(before[:], id[:]) {
	case 0:
		return fmt.Errorf("relay %s is there twice", id)
	case 1:
		return fmt.Errorf("relay %s is out of order", id)
	}
	return nil
}

// tree computes the root over leaves that are added one by one, keeping one hash for each full
// subtree: RFC 6962, as package tlog has it, which leaves garbage behind with every hash.
type tree struct {
	n     int64
	roots []Digest
	buf   []byte
}

func (t *tree) add(text []byte) {
	t.buf = append(append(t.buf[:0], 0), text...)
	h := DigestOf(t.buf)
	for n := t.n; n&1 == 1; n >>= 1 {
		last := len(t.roots) - 1
		h = node(t.roots[last], h)
		t.roots = t.roots[:last]
	}
	t.roots = append(t.roots, h)
	t.n++
}

func (t *tree) root() Digest {
	if t.n == 0 {
		return DigestOf(nil)
	}
	h := t.roots[len(t.roots)-1]
	for i := len(t.roots) - 2; i >= 0; i-- {
		h = node(t.roots[i], h)
	}
	return h
}

func node(left, right Digest) Digest {
	var b [1 + 2*len(left)]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+len(left):], right[:])
	return DigestOf(b[:])
}

// Root returns the Merkle root over the entries' texts, in the order given.
func Root(entries []Entry) Digest {
	var t tree
	var buf []byte
	for i := range entries {
		buf = entries[i].Append(buf[:0])
		t.add(buf)
	}
	return t.root()
}
