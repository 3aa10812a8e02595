package path

import (
	"strings"
	"testing"

	"peel/cell"
	"peel/directory"
)

// A directory is fetched from any relay, by its bandwidth, and not from exits where these are few.
func TestTheEndForADirectoryNeedBeNoExit(t *testing.T) {
	entries := []directory.Entry{entry(0, directory.Guard), entry(1, directory.Guard), entry(2, directory.Exit), entry(3, 0), entry(4, 0), entry(5, directory.MiddleOnly)}
	entries[2].Policy = policy(t, "accept *:443")
	entries[4].Bandwidth = 3000
	x := indexed(t, consensus(entries...))
	rng := seeded(3)
	ends := map[string]int{}
	const rounds = 8000
	for range rounds {
		p, err := x.Choose(Usage{Directory: true, Guard: id(0)}, rng.Uint64N)
		if err != nil {
			t.Fatal(err)
		}
		if p[0].ID != id(0) {
			t.Fatalf("it begins with %s", p[0].Nickname)
		}
		ends[p[2].Nickname]++
		if (Usage{Directory: true}).Fits(p) || p[2].Nickname != "r2" && (Usage{Port: 443}).Fits(p) {
			t.Fatalf("%s is taken for something else", names(p))
		}
	}
	if ends["r5"] > 0 || ends["r0"] > 0 || ends["r3"] == 0 || ends["r4"] < 2*ends["r3"] || ends["r4"] > 4*ends["r3"] {
		t.Errorf("the last relays were %v", ends)
	}
	if w := x.Consensus().Weights.Wme; w == 0 && ends["r2"] > 0 {
		t.Errorf("a rare exit was taken: %v", ends)
	}
	if _, err := x.Choose(Usage{Directory: true, Avoid: func(cell.NodeID) bool { return true }}, rng.Uint64N); err == nil || !strings.Contains(err.Error(), "to ask for the directory") {
		t.Error(err)
	}
	// A network without any exit has a directory all the same.
	if p, err := choose(consensus(entry(0, 0), entry(1, 0), entry(2, 0)), Usage{Directory: true}, rng.Uint64N); err != nil || len(p) != Hops {
		t.Error(p, err)
	}
}
