package directory_test

import (
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"peel/directory"
	"peel/directory/dirtest"
)

// hashes are the stored hashes of a tree, as package tlog wants them.
type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var l []tlog.Hash
	for _, i := range indexes {
		l = append(l, h[i])
	}
	return l, nil
}

func TestRootIsThatOfATransparencyLog(t *testing.T) {
	n := dirtest.New(1, 40)
	var stored hashes
	for i := 0; i <= 40; i++ {
		want, err := tlog.TreeHash(int64(i), stored)
		if err != nil {
			t.Fatal(err)
		}
		if got := directory.Root(n.Consensus.Entries[:i]); got != directory.Digest(want) {
			t.Fatalf("%d entries: %v, want %v", i, got, want)
		}
		if i == 40 {
			break
		}
		more, err := tlog.StoredHashes(int64(i), n.Consensus.Entries[i].Append(nil), stored)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
	}
	// Its proofs show one entry without the others.
	proof, err := tlog.ProveRecord(40, 17, stored)
	if err != nil {
		t.Fatal(err)
	}
	leaf := tlog.RecordHash(n.Consensus.Entries[17].Append(nil))
	if err := tlog.CheckRecord(proof, 40, tlog.Hash(n.Consensus.Root), 17, leaf); err != nil {
		t.Error(err)
	}
}

func TestLookupFindsEachRelayAndNoOther(t *testing.T) {
	n := dirtest.New(1, 40)
	for i := range n.Consensus.Entries {
		e := &n.Consensus.Entries[i]
		if got, ok := n.Consensus.Lookup(e.ID); !ok || got != e {
			t.Errorf("entry %d is not found", i)
		}
		id := e.ID
		id[31]++
		if got, ok := n.Consensus.Lookup(id); ok {
			t.Errorf("found %v for an id that is not there", got)
		}
	}
}
