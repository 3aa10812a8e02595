package relay

import (
	"testing"

	"pgregory.net/rapid"
)

func TestPlacesAreSharedEvenly(t *testing.T) {
	k := newCrowd(12, 10)
	enter := func(of string) (*place, bool) {
		shed, ok := k.enter(&place{owner: owner{of: of}})
		return shed, ok
	}
	for range 10 {
		if shed, ok := enter("first"); shed != nil || !ok {
			t.Fatal("no place though there are some")
		}
	}
	if _, ok := enter("first"); ok {
		t.Error("more than one holder may have")
	}
	for _, of := range []string{"second", "third"} {
		for range 4 {
			if _, ok := enter(of); !ok {
				t.Errorf("no place for the %s, who has fewer than the first", of)
			}
		}
	}
	for _, of := range []string{"first", "second", "third"} {
		if n := k.of[of].n; n != 4 {
			t.Errorf("the %s has %d places", of, n)
		}
		if _, ok := enter(of); ok {
			t.Errorf("the %s got more than the others have", of)
		}
	}
}

func TestNobodysOnlyPlaceIsTaken(t *testing.T) {
	k := newCrowd(2, 0)
	k.enter(&place{owner: owner{of: 1}})
	k.enter(&place{owner: owner{of: 2}})
	if shed, ok := k.enter(&place{owner: owner{of: 3}}); ok || shed != nil {
		t.Error("it was")
	}
}

// When all places are taken, who has half as many as another is sated, and who has one or none is not.
func TestWhoHasEnough(t *testing.T) {
	k := newCrowd(16, 0)
	enter := func(of string, weight, n int) {
		for range n {
			k.enter(&place{owner: owner{of: of, weight: weight}})
		}
	}
	enter("most", 1, 6)
	enter("half", 1, 3)
	enter("fewer", 1, 2)
	enter("one", 1, 1)
	if k.sated(owner{of: "most"}) {
		t.Error("somebody is sated though there are places")
	}
	enter("relay", 64, 4)
	for of, want := range map[string]bool{"most": true, "half": true, "fewer": false, "one": false, "relay": false, "nobody": false} {
		if got := k.sated(owner{of: of}); got != want {
			t.Errorf("%s: %v", of, got)
		}
	}
	if newCrowd(0, 0).sated(owner{of: 1}) {
		t.Error("nobody has enough of nothing")
	}
}

// Whatever comes and goes, the counts stay true and the first of the ranking has most.
func TestPlacesAreNeverLost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := newCrowd(rapid.IntRange(1, 8).Draw(t, "most"), rapid.IntRange(0, 4).Draw(t, "each"))
		k.oldest = rapid.Bool().Draw(t, "oldest")
		var all []*place // that were let in, even if their place was taken since
		placed := make(map[*place]bool)
		for range 40 {
			if len(all) > 0 && rapid.Bool().Draw(t, "leave") {
				i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				k.leave(all[i])
				delete(placed, all[i])
				all = append(all[:i], all[i+1:]...)
			} else {
				of := rapid.IntRange(1, 5).Draw(t, "of")
				w := &place{owner: owner{of: of, weight: (of + 1) / 2}}
				shed, ok := k.enter(w)
				if shed != nil && (!ok || !placed[shed]) {
					t.Fatal("a place was taken from nobody, or for nothing")
				}
				delete(placed, shed)
				if ok {
					all = append(all, w)
					placed[w] = true
				}
			}
			n, top := 0, 0.0
			for of, h := range k.of {
				if h.n == 0 || k.each > 0 && h.n > k.each || k.rank[h.at] != h || h.of != of {
					t.Fatalf("holder %v: %d places", of, h.n)
				}
				has := 0
				for p := h.first; p != nil; p = p.next {
					if has++; p.in != h || !placed[p] {
						t.Fatalf("holder %v has a place that is not his", of)
					}
				}
				if has != h.n {
					t.Fatalf("holder %v: %d places are counted, %d held", of, h.n, has)
				}
				n += h.n
				top = max(top, float64(h.n)/float64(h.weight))
			}
			if n != k.n || n != len(placed) || n > k.most || len(k.rank) != len(k.of) || n > 0 && float64(k.rank[0].n)/float64(k.rank[0].weight) != top {
				t.Fatalf("%d places are counted, %d held, %d expected", k.n, n, len(placed))
			}
		}
	})
}
