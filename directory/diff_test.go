package directory_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

// apply makes the diff from one text to another and applies it.
func apply(t *testing.T, base *directory.Consensus, from, to []byte) (*directory.Consensus, []byte) {
	t.Helper()
	text, err := directory.MakeDiff(from, to)
	if err != nil {
		t.Fatal(err)
	}
	d, err := directory.ParseDiff(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	printsBack(t, text, d.Append(nil))
	c, err := d.Apply(base)
	if err != nil {
		t.Fatal(err)
	}
	return c, text
}

func TestADiffLeadsToTheSameBytes(t *testing.T) {
	n := dirtest.New(1, 60)
	base := n.Consensus
	second, secondText := n.Churn(2, base, 0.1)
	third, thirdText := n.Churn(3, second, 0.5)
	empty := *base
	empty.Entries = nil
	emptyText := n.Sign(&empty, 5)
	for _, c := range []struct {
		name     string
		base     *directory.Consensus
		from, to []byte
	}{
		{"one period", base, n.Text, secondText},
		{"two periods", base, n.Text, thirdText},
		{"back", third, thirdText, n.Text},
		{"to itself", base, n.Text, n.Text},
		{"from nothing", &empty, emptyText, n.Text},
		{"to nothing", base, n.Text, emptyText},
		{"nothing to nothing", &empty, emptyText, emptyText},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.base.Append(nil)
			got, _ := apply(t, c.base, c.from, c.to)
			if !bytes.Equal(got.Append(nil), c.to) {
				t.Error("another text")
			}
			if err := got.Verify(n.Network, got.ValidAfter); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(c.base.Append(nil), before) {
				t.Error("the base was changed")
			}
		})
	}
}

// Every kind of change of one relay comes over, and what few lines can say takes few.
func TestADiffCarriesEveryChangeOfARelay(t *testing.T) {
	n := dirtest.New(1, 9, dirtest.Relays(func(i int, d *directory.Descriptor) {
		d.Policy = nil
		if i == 4 {
			d.Family = []cell.NodeID{dirtest.New(9, 1).Relays[0].Descriptor.ID}
		}
	}))
	other := dirtest.New(5, 9).Consensus.Entries
	at := slices.IndexFunc(n.Consensus.Entries, func(e directory.Entry) bool { return e.Family != nil })
	for name, c := range map[string]struct {
		change func(*directory.Entry)
		lines  int // after the header: "change" and those that it changes
	}{
		"bandwidth":       {func(e *directory.Entry) { e.Bandwidth++ }, 2},
		"all flags":       {func(e *directory.Entry) { e.Flags = 0 }, 2},
		"keys":            {func(e *directory.Entry) { e.LinkKey, e.OnionKey = other[0].LinkKey, other[0].OnionKey }, 3},
		"address":         {func(e *directory.Entry) { e.Addrs = other[1].Addrs }, 2},
		"version":         {func(e *directory.Entry) { e.Version = "9" }, 2},
		"family":          {func(e *directory.Entry) { e.Family = []cell.NodeID{other[3].ID} }, 2},
		"family left out": {func(e *directory.Entry) { e.Family = nil }, 8},
		"nickname":        {func(e *directory.Entry) { e.Nickname = "renamed" }, 9},
		"rules": {func(e *directory.Entry) {
			e.Policy = directory.Policy{{Accept: true, Lo: 80, Hi: 80}}
		}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			next := *n.Consensus
			next.Entries = slices.Clone(next.Entries)
			c.change(&next.Entries[at])
			to := n.Sign(&next, 5)
			got, text := apply(t, n.Consensus, n.Text, to)
			if !bytes.Equal(got.Append(nil), to) {
				t.Error("another text")
			}
			head := len("peel-consensus-diff 1\n") + len("base \n") + 64 + len(next.SignedHeader.Append(nil))
			if lines := bytes.Count(text[head:], []byte{'\n'}); lines != c.lines {
				t.Errorf("%d lines instead of %d:\n%s", lines, c.lines, text[head:])
			}
		})
	}
}

func TestAWrongDiffIsRefused(t *testing.T) {
	n := dirtest.New(1, 20)
	next, to := n.Churn(2, n.Consensus, 0.1)
	text, err := directory.MakeDiff(n.Text, to)
	if err != nil {
		t.Fatal(err)
	}
	d := parseDiff(t, text)
	if _, err := d.Apply(next); !errors.Is(err, directory.ErrBase) {
		t.Errorf("applied to another base: %v", err)
	}
	for name, spoil := range map[string]func(*directory.Diff){
		"a relay not dropped": func(d *directory.Diff) {
			d.Changes = slices.DeleteFunc(d.Changes, func(c directory.Change) bool { return len(c.Lines) == 0 })
		},
		"a relay not added":         func(d *directory.Diff) { d.Added = d.Added[1:] },
		"a relay added twice":       func(d *directory.Diff) { d.Added = slices.Insert(d.Added, 0, d.Added[0]) },
		"a relay that was there":    func(d *directory.Diff) { d.Added = n.Consensus.Entries[:1] },
		"more relays than there is": func(d *directory.Diff) { d.Relays = 1000 },
		"fewer relays":              func(d *directory.Diff) { d.Relays-- },
		"no relays":                 func(d *directory.Diff) { d.Relays = 0 },
		"another root":              func(d *directory.Diff) { d.Root[3]++ },
		"drops beyond the end": func(d *directory.Diff) {
			d.Changes = append(slices.Clone(d.Changes), directory.Change{Index: 20})
		},
		"changes nothing": func(d *directory.Diff) {
			d.Changes = []directory.Change{{Index: 0, Lines: []string{fmt.Sprintf("bandwidth %d", n.Consensus.Entries[0].Bandwidth)}}}
		},
		"changes a line that is not there": func(d *directory.Diff) {
			d.Changes = []directory.Change{{Index: 0, Lines: []string{"family " + n.Consensus.Entries[1].ID.String()}}}
		},
		"a line that is none": func(d *directory.Diff) {
			d.Changes = []directory.Change{{Index: 0, Lines: []string{"bandwidth 01"}}}
		},
	} {
		spoiled := parseDiff(t, text)
		spoil(spoiled)
		if _, err := spoiled.Apply(n.Consensus); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, bad := range map[string]string{
		"out of order":           strings.Replace(string(text), "\ndrop ", "\ndrop 19\ndrop ", 1),
		"a change without lines": strings.Replace(string(text), "\ndrop ", "\nchange ", 1),
		"a drop after a relay":   string(text) + "drop 19\n",
		"a strange line":         strings.Replace(string(text), "\ndrop ", "\nnickname x\ndrop ", 1),
		"another version":        strings.Replace(string(text), "diff 1", "diff 2", 1),
		"lines out of order":     strings.Replace(string(text), "\ndrop ", "\nchange 0\nbandwidth 1\nflags Fast\ndrop ", 1),
	} {
		if bad == string(text) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := directory.ParseDiff([]byte(bad)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for i := range text {
		d, err := directory.ParseDiff(text[:i])
		if err != nil {
			continue
		}
		if _, err := d.Apply(n.Consensus); err == nil {
			t.Errorf("cut off after %d of %d bytes: taken", i, len(text))
		}
	}
}

func parseDiff(t *testing.T, text []byte) *directory.Diff {
	t.Helper()
	d, err := directory.ParseDiff(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Whatever happened to the relays, the diff leads to the very text, and nothing else verifies.
func TestDiffsOfRandomHistories(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	n := dirtest.New(1, 30)
	var all []*directory.Consensus
	var texts [][]byte
	c, text := n.Consensus, n.Text
	for i := range 12 {
		all, texts = append(all, c), append(texts, text)
		c, text = n.Churn(uint64(i), c, rng.Float64()*0.6)
	}
	for i := range all {
		for j := range all {
			if got, _ := apply(t, all[i], texts[i], texts[j]); !bytes.Equal(got.Append(nil), texts[j]) {
				t.Fatalf("from %d to %d: another text", i, j)
			}
		}
	}
}

func FuzzDiff(f *testing.F) {
	n := dirtest.New(1, 6, dirtest.Authorities(1))
	next, to := n.Churn(2, n.Consensus, 0.2)
	for _, to := range [][]byte{to, n.Text} { // the second leads nowhere
		text, err := directory.MakeDiff(n.Text, to)
		if err != nil {
			f.Fatal(err)
		}
		seeds(f, text)
		first, _, _ := bytes.Cut(n.Text[bytes.Index(n.Text, []byte("\nrelay "))+1:], []byte("\nrelay "))
		for _, changes := range []string{"", "drop 0\n", "drop 5\n", "drop 6\n", "drop 1\ndrop 1\n", "change 0\n", "change 0\nbandwidth 1\n", "change 0\nflags\nbandwidth 1\n", "change 0\nbandwidth 1\nflags\n", "change 5\nversion x\nchange 6\nversion x\n",
			"change 0\nonion-key x\n", "change 0\nfamily x\n", "drop 0\n" + string(first) + "\n", string(first) + "\n"} {
			f.Add([]byte(string(text[:bytes.Index(text, []byte("\nheader-signature "))+1+len("header-signature ")+86+1]) + changes))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := directory.ParseDiff(text)
		if err != nil {
			return
		}
		printsBack(t, text, d.Append(nil))
		for i := 1; i < len(d.Changes); i++ {
			if d.Changes[i-1].Index >= d.Changes[i].Index {
				t.Fatalf("changes out of order:\n%s", text)
			}
		}
		if c, err := d.Apply(n.Consensus); err == nil && c.Verify(n.Network, c.ValidAfter) == nil && c.Header.Digest() != next.Header.Digest() && c.Header.Digest() != n.Consensus.Header.Digest() {
			t.Fatal("it leads to a header that nobody signed")
		}
		// What it leads to if it begins here and the header fits, which a fuzzer cannot bring about.
		d.Base, d.Relays = n.Consensus.Header.Digest(), len(n.Consensus.Entries)+len(d.Added)
		for _, c := range d.Changes {
			if len(c.Lines) == 0 {
				d.Relays--
			}
		}
		d.Relays = min(max(d.Relays, 0), directory.MaxRelays)
		var wrong *directory.RootError
		c, err := d.Apply(n.Consensus)
		if errors.As(err, &wrong) && wrong.HaveRelays == wrong.WantRelays {
			d.Root = wrong.Have
			c, err = d.Apply(n.Consensus)
		}
		if err != nil {
			return
		}
		led := c.Append(nil)
		if again, err := directory.ParseConsensus(led); err != nil || !bytes.Equal(again.Append(nil), led) {
			t.Fatalf("it leads to what is no consensus: %v\n%s", err, led)
		}
		made, err := directory.MakeDiff(n.Text, led)
		if err != nil {
			t.Fatalf("there is no diff to where it leads: %v", err)
		}
		if c, err := parseDiff(t, made).Apply(n.Consensus); err != nil || !bytes.Equal(c.Append(nil), led) {
			t.Fatalf("the diff that is made leads elsewhere: %v", err)
		}
	})
}
