package directory_test

import (
	"math/rand/v2"
	"testing"

	"peel/directory"
)

// The cases of Tor's dir-spec, worked by hand. Only the seven weights that are free are listed: Weg
// is Wed, Wem is Wee, Wgm is Wgg and Wmm is 10000.
func TestWeightsOfEachCase(t *testing.T) {
	for _, c := range []struct {
		name                       string
		g, m, e, d                 uint64
		gg, gd, mg, me, md, ee, ed int
	}{
		{"1: neither scarce", 400, 100, 400, 100, 7500, 3333, 2500, 2500, 3333, 7500, 3333},
		{"2b: nearly even", 100, 100, 100, 1, 10000, 3333, 0, 0, 3333, 10000, 3333},
		{"2a: both scarce, exits more", 100, 400, 10, 50, 10000, 0, 0, 0, 0, 10000, 10000},
		{"2a: both scarce, guards more", 10, 400, 100, 50, 10000, 10000, 0, 0, 0, 10000, 0},
		{"2b: balanced", 250, 250, 200, 300, 10000, 2778, 0, 0, 2778, 10000, 4444},
		{"2b: first way out of range", 100, 200, 300, 400, 10000, 5834, 0, 0, 3333, 10000, 833},
		{"2b: plain above a third", 310, 340, 300, 50, 10000, 3334, 0, 0, 0, 10000, 6666},
		{"2b: plain far above a third", 200, 500, 200, 100, 10000, 5000, 0, 0, 0, 10000, 5000},
		{"3a: guards scarce, exits below plain", 100, 450, 400, 50, 10000, 10000, 0, 0, 0, 10000, 0},
		{"3a: guards scarce, exits above plain", 100, 250, 600, 50, 10000, 10000, 0, 2916, 0, 7084, 0},
		{"3a: exits scarce, guards below plain", 400, 450, 100, 50, 10000, 0, 0, 0, 0, 10000, 10000},
		{"3a: exits scarce, guards above plain", 600, 250, 100, 50, 7084, 0, 2916, 0, 0, 10000, 10000},
		{"3b: guards scarce", 200, 100, 400, 300, 10000, 4444, 0, 3750, 2778, 6250, 2778},
		{"3b: exits scarce", 400, 100, 200, 300, 6250, 2778, 3750, 0, 2778, 10000, 4444},
	} {
		want := directory.Weights{
			Wgg: c.gg, Wgd: c.gd, Wgm: c.gg, Wmg: c.mg, Wme: c.me, Wmd: c.md, Wmm: 10000,
			Wee: c.ee, Wed: c.ed, Weg: c.ed, Wem: c.ee,
		}
		if got := directory.ComputeWeights(c.g, c.m, c.e, c.d); got != want {
			t.Errorf("case %s:\n\tgot  %v\n\twant %v", c.name, got, want)
		}
	}
}

func TestWeightsOfAnyNetworkAreInRangeAndAddUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 0))
	draw := func() uint64 { return rng.Uint64() >> rng.IntN(65) >> 1 }
	for range 20000 {
		g, m, e, d := draw(), draw(), draw(), draw()
		w := directory.ComputeWeights(g, m, e, d)
		for _, v := range []int{w.Wgg, w.Wgd, w.Wgm, w.Wmg, w.Wme, w.Wmd, w.Wmm, w.Wee, w.Wed, w.Weg, w.Wem} {
			if v < 0 || v > directory.WeightScale {
				t.Fatalf("g %d m %d e %d d %d: %v", g, m, e, d, w)
			}
		}
		for _, sum := range []int{w.Wgg + w.Wmg, w.Wee + w.Wme, w.Wgd + w.Wmd + w.Wed} {
			if sum < directory.WeightScale-2 || sum > directory.WeightScale+1 {
				t.Fatalf("g %d m %d e %d d %d: a kind's weights add up to %d: %v", g, m, e, d, sum, w)
			}
		}
	}
}

func TestWeightsGiveEachPositionAThirdWhereThatCanBe(t *testing.T) {
	for _, c := range [][4]uint64{{400, 100, 400, 100}, {250, 250, 200, 300}, {100, 200, 300, 400}, {200, 100, 400, 300}, {400, 100, 200, 300}} {
		w := directory.ComputeWeights(c[0], c[1], c[2], c[3])
		guard := c[0]*uint64(w.Wgg) + c[3]*uint64(w.Wgd)
		middle := c[0]*uint64(w.Wmg) + c[1]*uint64(w.Wmm) + c[2]*uint64(w.Wme) + c[3]*uint64(w.Wmd)
		exit := c[2]*uint64(w.Wee) + c[3]*uint64(w.Wed)
		for _, got := range []uint64{guard, middle, exit} {
			if got < 3330000 || got > 3336000 { // of 1000 * 10000
				t.Errorf("%v: guard %d, middle %d, exit %d", c, guard, middle, exit)
			}
		}
	}
}

func TestWeightOfARelayFollowsItsFlags(t *testing.T) {
	w := directory.Weights{Wed: 1, Wee: 2, Weg: 3, Wem: 4, Wgd: 5, Wgg: 6, Wgm: 7, Wmd: 8, Wme: 9, Wmg: 10, Wmm: 11}
	const g, e = directory.Guard, directory.Exit
	for _, c := range []struct {
		flags               directory.Flags
		guard, middle, exit int
	}{
		{directory.Running, 7, 11, 4},
		{g, 6, 10, 3},
		{e, 0, 9, 2},
		{g | e, 5, 8, 1},
		{g | e | directory.BadExit, 6, 10, 3},
		{g | e | directory.MiddleOnly, 7, 11, 4},
	} {
		guard, middle, exit := w.Of(directory.PositionGuard, c.flags), w.Of(directory.PositionMiddle, c.flags), w.Of(directory.PositionExit, c.flags)
		if guard != c.guard || middle != c.middle || exit != c.exit {
			t.Errorf("%v: %d %d %d", c.flags, guard, middle, exit)
		}
	}
	entries := []directory.Entry{{Flags: g, Bandwidth: 400}, {Bandwidth: 100}, {Flags: e, Bandwidth: 400}, {Flags: g | e, Bandwidth: 60}, {Flags: g | e, Bandwidth: 40}}
	if directory.WeightsOf(entries) != directory.ComputeWeights(400, 100, 400, 100) {
		t.Error("the sums of a list are wrong")
	}
}
