package directory_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

func newTree(t testing.TB, c *directory.Consensus) *directory.Tree {
	t.Helper()
	tree, err := directory.NewTree(c)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// proof makes one, sends it as text, and verifies it.
func proof(t testing.TB, c *directory.Consensus, ids ...cell.NodeID) *directory.Proof {
	t.Helper()
	p, err := newTree(t, c).Prove(ids...)
	if err != nil {
		t.Fatal(err)
	}
	text := p.Append(nil)
	if p, err = directory.ParseProof(text); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if again := p.Append(nil); !bytes.Equal(again, text) {
		t.Fatalf("printed back as\n%s\nwas\n%s", again, text)
	}
	if err := p.Verify(&c.Header); err != nil {
		t.Fatal(err)
	}
	return p
}

// near returns an identity right after or before one.
func near(id cell.NodeID, by int) cell.NodeID {
	for i := len(id) - 1; i >= 0; i-- {
		was := id[i]
		id[i] += byte(by)
		if by > 0 && was != 0xff || by < 0 && was != 0 {
			break
		}
	}
	return id
}

func TestAProofShowsWhoIsThereAndWhoIsNot(t *testing.T) {
	for _, size := range []int{0, 1, 2, 3, 7, 8, 33} {
		c := dirtest.New(1, size).Consensus
		ids := []cell.NodeID{{}, {31: 1}}
		for _, e := range c.Entries {
			ids = append(ids, e.ID, near(e.ID, 1), near(e.ID, -1))
		}
		for _, id := range ids {
			p := proof(t, c, id)
			got, err := p.Lookup(&c.Header, id)
			if err != nil {
				t.Fatalf("%d relays, %s: %v", size, id, err)
			}
			want, _ := c.Lookup(id)
			if (got == nil) != (want == nil) || got != nil && !bytes.Equal(got.Append(nil), want.Append(nil)) {
				t.Errorf("%d relays, %s: got %v, want %v", size, id, got, want)
			}
			if len(p.Leaves) > 2 {
				t.Errorf("%d entries for one relay", len(p.Leaves))
			}
		}
	}
}

func TestAProofOfManyRelays(t *testing.T) {
	c := dirtest.New(1, 100).Consensus
	var ids []cell.NodeID
	for i := range directory.MaxAsked {
		ids = append(ids, near(c.Entries[3*i].ID, i%2)) // every second one is not there
	}
	p := proof(t, c, ids...)
	for i, id := range ids {
		if e, err := p.Lookup(&c.Header, id); err != nil || (e == nil) != (i%2 == 1) {
			t.Errorf("relay %d: %v, %v", i, e, err)
		}
	}
	if _, err := p.Lookup(&c.Header, c.Entries[99].ID); !errors.Is(err, directory.ErrUnproved) {
		t.Errorf("a relay that was not asked for: %v", err)
	}
	if _, err := newTree(t, c).Prove(append(ids, ids...)...); err == nil {
		t.Error("too many relays were asked for")
	}
}

func TestAFalseProofIsRefused(t *testing.T) {
	c := dirtest.New(1, 21).Consensus
	other := dirtest.New(2, 21).Consensus
	id, gone := c.Entries[9].ID, near(c.Entries[9].ID, 1)
	for name, forge := range map[string]func(*directory.Proof){
		"the next index":      func(p *directory.Proof) { p.Leaves[0].Index++ },
		"an index too high":   func(p *directory.Proof) { p.Leaves[0].Index += 21 },
		"a negative index":    func(p *directory.Proof) { p.Leaves[0].Index = -1 },
		"another entry":       func(p *directory.Proof) { p.Leaves[0].Entry = c.Entries[10] },
		"a changed entry":     func(p *directory.Proof) { p.Leaves[0].Entry.Bandwidth++ },
		"an impossible entry": func(p *directory.Proof) { p.Leaves[0].Entry.Addrs = nil },
		"a step less":         func(p *directory.Proof) { p.Leaves[0].Path = p.Leaves[0].Path[1:] },
		"no step":             func(p *directory.Proof) { p.Leaves[0].Path = nil },
		"a step more":         func(p *directory.Proof) { p.Leaves[0].Path = append(p.Leaves[0].Path, directory.Digest{}) },
		"a false step":        func(p *directory.Proof) { p.Leaves[0].Path[2][0]++ },
		"steps exchanged":     func(p *directory.Proof) { slices.Reverse(p.Leaves[0].Path) },
		"another consensus":   func(p *directory.Proof) { p.Consensus = other.Header.Digest() },
		"a leaf twice":        func(p *directory.Proof) { p.Leaves = append(p.Leaves, p.Leaves[0]) },
	} {
		p := proof(t, c, id)
		forge(p)
		if err := p.Verify(&c.Header); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	foreign := proof(t, other, other.Entries[9].ID)
	foreign.Consensus = c.Header.Digest()
	if err := foreign.Verify(&c.Header); !errors.Is(err, directory.ErrRoot) {
		t.Errorf("an entry under another root: %v", err)
	}
	// A relay is hidden by leaving it out, or by showing those around it.
	absent := proof(t, c, gone)
	absent.Leaves = absent.Leaves[:1]
	if err := absent.Verify(&c.Header); err != nil {
		t.Fatal(err)
	}
	if e, err := absent.Lookup(&c.Header, gone); e != nil || !errors.Is(err, directory.ErrUnproved) {
		t.Errorf("one neighbour only: %v, %v", e, err)
	}
	around := proof(t, c, c.Entries[8].ID, c.Entries[10].ID)
	if e, err := around.Lookup(&c.Header, id); e != nil || !errors.Is(err, directory.ErrUnproved) {
		t.Errorf("the neighbours of one that is there: %v, %v", e, err)
	}
	none := &directory.Proof{Consensus: c.Header.Digest()}
	if e, err := none.Lookup(&c.Header, id); none.Verify(&c.Header) != nil || e != nil || !errors.Is(err, directory.ErrUnproved) {
		t.Errorf("nothing at all: %v, %v", e, err)
	}
}

func TestProofTextsThatAreRefused(t *testing.T) {
	c := dirtest.New(1, 21).Consensus
	text := string(proof(t, c, c.Entries[4].ID, c.Entries[9].ID).Append(nil))
	for i := range text {
		p, err := directory.ParseProof([]byte(text[:i]))
		if err != nil {
			continue
		}
		if _, err := p.Lookup(&c.Header, c.Entries[9].ID); err == nil {
			t.Fatalf("cut off after %d of %d bytes: it still shows the second", i, len(text))
		}
	}
	if _, err := directory.ParseProof(append([]byte(text), make([]byte, directory.MaxProof)...)); err == nil {
		t.Error("too long: taken")
	}
	for name, change := range map[string][2]string{
		"a leaf number of two spellings": {"leaf 4\n", "leaf 04\n"},
		"out of order":                   {"leaf 4\n", "leaf 10\n"},
		"an empty path":                  {"path ", "path\npath "},
		"seventeen steps":                {"path ", "path " + string(bytes.Repeat([]byte("00 "), 17))},
		"another version":                {"proof 1", "proof 2"},
	} {
		bad := bytes.Replace([]byte(text), []byte(change[0]), []byte(change[1]), 1)
		if string(bad) == text {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := directory.ParseProof(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzProof(f *testing.F) {
	c := dirtest.New(1, 9).Consensus
	seeds(f, proof(f, c, c.Entries[3].ID, near(c.Entries[6].ID, 1)).Append(nil))
	seeds(f, proof(f, c, c.Entries[0].ID, c.Entries[8].ID).Append(nil))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := directory.ParseProof(text)
		if err != nil {
			return
		}
		printsBack(t, text, p.Append(nil))
		p.Consensus = c.Header.Digest() // another is refused at once
		if p.Verify(&c.Header) != nil {
			return
		}
		for i := range p.Leaves {
			e := &p.Leaves[i].Entry
			if have, ok := c.Lookup(e.ID); !ok || !bytes.Equal(have.Append(nil), e.Append(nil)) {
				t.Fatalf("shows relay %s, which is not there so", e.ID)
			}
		}
		for i := range c.Entries {
			if e, err := p.Lookup(&c.Header, c.Entries[i].ID); e == nil && err == nil {
				t.Fatalf("says that relay %s is not there", c.Entries[i].ID)
			}
		}
	})
}
