package dirtest

import (
	"bytes"
	"testing"
	"time"

	"peel/directory"
)

func TestTheSameSeedMakesTheSameNetwork(t *testing.T) {
	a, b, c := New(1, 8), New(1, 8), New(2, 8)
	if !bytes.Equal(a.Text, b.Text) {
		t.Error("seed 1 made two different consensuses")
	}
	if bytes.Equal(a.Text, c.Text) || a.Network.ID() == c.Network.ID() {
		t.Error("seeds 1 and 2 made the same network")
	}
}

func TestNewMakesAConsensusThatVerifies(t *testing.T) {
	for _, n := range []int{0, 1, 12} {
		for _, authorities := range []int{1, 3, 5, 9} {
			net := New(7, n, Authorities(authorities))
			c, err := directory.ParseConsensus(net.Text)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Verify(net.Network, ValidAfter.Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			if len(net.Relays) != n || len(c.Entries) != n {
				t.Fatalf("%d relays and %d entries, want %d", len(net.Relays), len(c.Entries), n)
			}
			for i := range net.Relays {
				if net.Relays[i].Descriptor.ID != c.Entries[i].ID {
					t.Fatalf("relay %d is not entry %d", i, i)
				}
				if _, err := directory.ParseDescriptor(net.Relays[i].Text); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func TestVotesVerify(t *testing.T) {
	net := New(7, 5)
	for i := range net.Authorities {
		_, text := net.Vote(i)
		v, err := directory.ParseVote(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(net.Network); err != nil {
			t.Fatal(err)
		}
	}
}
