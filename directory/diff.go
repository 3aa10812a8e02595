package directory

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"peel/cell"
)

// ErrBase is in the error of a diff that is applied to another consensus than the one it begins at.
var ErrBase = errors.New("directory: the diff is for another consensus than this")

// Diff leads from one consensus to another: the header and signatures of the other, what becomes of
// the relays of the first, and the relays that are new (spec/directory.md, section 10).
type Diff struct {
	Base         Digest // names the consensus that it begins at
	SignedHeader        // of the one that it leads to
	Changes      []Change
	Added        []Entry // ascending by identity
}

// Change is what becomes of one relay of the base.
type Change struct {
	Index int      // of the relay in the base; they ascend
	Lines []string // that take the place of those with the same keywords; none: the relay is dropped
}

// changeable are the keywords of an entry's lines that a change may replace, in the order in which
// they stand. An entry that differs in any other line is dropped and added.
var changeable = []string{"addresses", "link-key", "onion-key", "flags", "bandwidth", "version", "family"}

// Append appends the text of the diff.
func (d *Diff) Append(b []byte) []byte {
	b = appendUint(b, "peel-consensus-diff", 1)
	b = appendLine(b, "base", d.Base.String())
	b = d.SignedHeader.Append(b)
	for i := range d.Changes {
		b = d.Changes[i].append(b)
	}
	for i := range d.Added {
		b = d.Added[i].Append(b)
	}
	return b
}

func (c *Change) append(b []byte) []byte {
	if len(c.Lines) == 0 {
		return appendUint(b, "drop", uint64(c.Index))
	}
	b = appendUint(b, "change", uint64(c.Index))
	for _, l := range c.Lines {
		b = append(b, l...)
		b = append(b, '\n')
	}
	return b
}

// ParseDiff parses a diff. Whether it leads anywhere is found out by Apply, and whether to what the
// authorities signed by verifying what that returns.
func ParseDiff(text []byte) (*Diff, error) {
	r := newReader("consensus diff", text, MaxConsensus)
	r.title("peel-consensus-diff")
	d := &Diff{Base: r.digest("base")}
	d.SignedHeader = *r.signedHeader()
	for r.has("drop") || r.has("change") {
		c := r.change()
		if n := len(d.Changes); n > 0 && r.err == nil && d.Changes[n-1].Index >= c.Index {
			r.fail("relay %d is out of order or there twice", c.Index)
		}
		if r.err != nil {
			break
		}
		d.Changes = append(d.Changes, c)
	}
	var buf []byte
	for r.has("relay") {
		if len(d.Added) == MaxRelays {
			r.failAt(r.line+1, "more than %d relays", MaxRelays)
			break
		}
		var e Entry
		buf = r.wholeEntry(&e, buf)
		if n := len(d.Added); n > 0 && r.err == nil {
			if err := inOrder(&d.Added[n-1].ID, &e.ID); err != nil {
				r.fail("%w", err)
			}
		}
		if r.err != nil {
			break
		}
		d.Added = append(d.Added, e)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return d, nil
}

// change takes what becomes of one relay.
func (r *reader) change() Change {
	if r.has("drop") {
		return Change{Index: int(r.uint("drop", MaxRelays))}
	}
	c := Change{Index: int(r.uint("change", MaxRelays))}
	for _, key := range changeable {
		if r.has(key) {
			line := key // flags alone may have no value
			if v := r.take(key); v != "" {
				line += " " + v
			}
			c.Lines = append(c.Lines, line)
		}
	}
	if len(c.Lines) == 0 {
		r.fail("a change without a line")
	}
	return c
}

// wholeEntry takes an entry that is spelled in the one way allowed, and returns its text in buf.
func (r *reader) wholeEntry(e *Entry, buf []byte) []byte {
	from := r.pos
	r.entry(e)
	if r.err == nil {
		buf = e.Append(buf[:0])
		r.same(from, buf)
	}
	return buf
}

// Apply returns the consensus that the diff leads to from base, which it does not change; the two
// share what is the same in both. It fails unless base is the one the diff begins at and the result
// is what the header in the diff says. Signatures are left to Verify.
func (d *Diff) Apply(base *Consensus) (*Consensus, error) {
	if base.Header.Digest() != d.Base {
		return nil, ErrBase
	}
	c := &Consensus{SignedHeader: d.SignedHeader}
	if c.Relays > len(base.Entries)+len(d.Added) {
		return nil, &RootError{Want: c.Root, HaveRelays: len(base.Entries) + len(d.Added), WantRelays: c.Relays}
	}
	c.Entries = make([]Entry, 0, c.Relays)
	changes, added := d.Changes, d.Added
	put := func(e *Entry) error {
		if n := len(c.Entries); n > 0 {
			if err := inOrder(&c.Entries[n-1].ID, &e.ID); err != nil {
				return fmt.Errorf("directory: consensus diff: %w", err)
			}
		}
		if len(c.Entries) == c.Relays {
			return &RootError{Want: c.Root, HaveRelays: c.Relays + 1, WantRelays: c.Relays}
		}
		c.Entries = append(c.Entries, *e)
		return nil
	}
	for i := range base.Entries {
		e := &base.Entries[i]
		if len(changes) > 0 && changes[0].Index == i {
			lines := changes[0].Lines
			changes = changes[1:]
			if len(lines) == 0 {
				continue
			}
			var err error
			if e, err = changed(e, lines); err != nil {
				return nil, err
			}
		}
		for ; len(added) > 0 && bytes.Compare(added[0].ID[:], e.ID[:]) < 0; added = added[1:] {
			if err := put(&added[0]); err != nil {
				return nil, err
			}
		}
		if err := put(e); err != nil {
			return nil, err
		}
	}
	for i := range added {
		if err := put(&added[i]); err != nil {
			return nil, err
		}
	}
	if len(changes) > 0 {
		return nil, fmt.Errorf("directory: consensus diff: relay %d of %d is to change", changes[0].Index, len(base.Entries))
	}
	return c, c.checkRoot()
}

// changed returns an entry with some of its lines replaced.
func changed(e *Entry, lines []string) (*Entry, error) {
	var text []byte
	for line := range bytes.Lines(e.Append(nil)) {
		if len(lines) > 0 && keyword(string(line)) == keyword(lines[0]) {
			if string(line) == lines[0]+"\n" {
				return nil, fmt.Errorf("directory: consensus diff: the %q of relay %s does not change", keyword(lines[0]), e.ID)
			}
			line = append([]byte(lines[0]), '\n')
			lines = lines[1:]
		}
		text = append(text, line...)
	}
	if len(lines) > 0 {
		return nil, fmt.Errorf("directory: consensus diff: relay %s has no %q to change", e.ID, keyword(lines[0]))
	}
	r := newReader("consensus diff", text, MaxConsensus)
	next := new(Entry)
	r.wholeEntry(next, nil)
	if err := r.end(); err != nil {
		return nil, err
	}
	return next, nil
}

// keyword is the first word of a line.
func keyword(line string) string {
	key, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	return key
}

// MakeDiff returns the text of the diff from one consensus to another, of the texts of both, which
// must be such as ParseConsensus takes. It is an error if there is none that fits the limit.
func MakeDiff(base, target []byte) ([]byte, error) {
	from, old, err := splitEntries(base)
	if err != nil {
		return nil, err
	}
	to, new, err := splitEntries(target)
	if err != nil {
		return nil, err
	}
	b := appendUint(nil, "peel-consensus-diff", 1)
	b = appendLine(b, "base", from.Header.Digest().String())
	b = to.Append(b)
	var added []byte
	for i := 0; i < len(old) || len(new) > 0; {
		order := 0 // of the next old one against the next new one
		switch {
		case i == len(old):
			order = 1
		case len(new) == 0:
			order = -1
		default:
			order = bytes.Compare(old[i].id[:], new[0].id[:])
		}
		switch {
		case order > 0:
			added = append(added, new[0].text...)
			new = new[1:]
			continue
		case order < 0:
			b = (&Change{Index: i}).append(b)
		case !bytes.Equal(old[i].text, new[0].text):
			c := Change{Index: i}
			var ok bool
			if c.Lines, ok = changedLines(old[i].text, new[0].text); !ok {
				added = append(added, new[0].text...)
			}
			b = c.append(b)
			new = new[1:]
		default:
			new = new[1:]
		}
		i++
	}
	b = append(b, added...)
	if len(b) > MaxConsensus {
		return nil, fmt.Errorf("directory: consensus diff: %d bytes, but at most %d are allowed", len(b), MaxConsensus)
	}
	return b, nil
}

// entryText is one entry of a consensus and its text.
type entryText struct {
	id   cell.NodeID
	text []byte
}

// splitEntries finds the header and the entries of a consensus without reading all of these.
func splitEntries(text []byte) (*SignedHeader, []entryText, error) {
	r := newReader("consensus", text, MaxConsensus)
	s := r.signedHeader()
	if r.err != nil {
		return nil, nil, r.err
	}
	rest := text[r.pos:]
	entries := make([]entryText, 0, min(s.Relays, len(rest)/minEntry))
	for len(rest) > 0 {
		n := bytes.Index(rest, []byte("\nrelay "))
		if n < 0 {
			n = len(rest) - 1
		}
		e := entryText{text: rest[:n+1]}
		word := bytes.TrimPrefix(e.text, []byte("relay "))
		word, _, _ = bytes.Cut(word, []byte(" "))
		var err error
		if e.id, err = cell.ParseNodeID(string(word)); err != nil {
			return nil, nil, fmt.Errorf("directory: consensus: %w", err)
		}
		entries, rest = append(entries, e), rest[n+1:]
	}
	return s, entries, nil
}

// changedLines returns the lines of an entry that differ, if a change can replace them all.
func changedLines(old, new []byte) (lines []string, ok bool) {
	a, b := strings.Split(string(old), "\n"), strings.Split(string(new), "\n")
	if len(a) != len(b) {
		return nil, false
	}
	for i := range a {
		if keyword(a[i]) != keyword(b[i]) {
			return nil, false
		}
		if a[i] == b[i] {
			continue
		}
		if !slices.Contains(changeable, keyword(b[i])) {
			return nil, false
		}
		lines = append(lines, b[i])
	}
	return lines, true
}
