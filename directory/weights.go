package directory

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// WeightScale is the weight that stands for 1.
const WeightScale = 10000

// Weights say how much of a relay's bandwidth counts in each position of a path, in parts of
// WeightScale: the first letter after W is the position (guard, middle, exit), the second the
// relay's kind (g: flag Guard, e: Exit, d: both, m: neither).
type Weights struct {
	Wed, Wee, Weg, Wem int
	Wgd, Wgg, Wgm      int
	Wmd, Wme, Wmg, Wmm int
}

// Position is a relay's place in a path.
type Position uint8

// The positions of a path.
const (
	PositionGuard Position = iota
	PositionMiddle
	PositionExit
)

// kind is what a relay's flags make it for the weights.
type kind uint8

const (
	kindPlain kind = iota
	kindGuard
	kindExit
	kindBoth
)

func kindOf(f Flags) kind {
	switch exit := f.Has(Exit) && !f.Has(BadExit); {
	case f.Has(MiddleOnly):
		return kindPlain
	case f.Has(Guard) && exit:
		return kindBoth
	case f.Has(Guard):
		return kindGuard
	case exit:
		return kindExit
	}
	return kindPlain
}

// Of returns the weight of a relay with the flags in a position, 0 to WeightScale. An exit without
// the flag Guard has no weight as a guard.
func (w *Weights) Of(pos Position, f Flags) int {
	k := kindOf(f)
	switch pos {
	case PositionGuard:
		return [...]int{kindPlain: w.Wgm, kindGuard: w.Wgg, kindExit: 0, kindBoth: w.Wgd}[k]
	case PositionMiddle:
		return [...]int{kindPlain: w.Wmm, kindGuard: w.Wmg, kindExit: w.Wme, kindBoth: w.Wmd}[k]
	case PositionExit:
		return [...]int{kindPlain: w.Wem, kindGuard: w.Weg, kindExit: w.Wee, kindBoth: w.Wed}[k]
	}
	return 0
}

// WeightsOf computes the weights of a list of relays from their flags and bandwidths.
func WeightsOf(entries []Entry) Weights {
	var sum [4]uint64
	for i := range entries {
		sum[kindOf(entries[i].Flags)] += min(entries[i].Bandwidth, MaxBandwidth)
	}
	return ComputeWeights(sum[kindGuard], sum[kindPlain], sum[kindExit], sum[kindBoth])
}

// ComputeWeights balances the bandwidth of guards only (g), plain relays (m), exits only (e) and
// relays that are both (d) over the three positions, so that each gets a third where that can be:
// the cases of Tor's dir-spec. A sum of 0 counts as 1. (spec/directory.md, section 8)
func ComputeWeights(g, m, e, d uint64) Weights {
	// Numbers below 2^44 let every product below fit into 64 bits.
	shift := max(0, bits.Len64(g|m|e|d)-44)
	at := func(v uint64) int64 { return max(1, int64(v>>shift)) }
	G, M, E, D := at(g), at(m), at(e), at(d)
	T := G + M + E + D

	var w weights
	switch {
	case 3*E >= T && 3*G >= T:
		w.neitherScarce(G, M, E)
	case 3*E < T && 3*G < T:
		w.bothScarce(G, M, E, D)
	default:
		w.oneScarce(G, M, E, D)
	}
	return Weights{
		Wed: int(w.ed), Wee: int(w.ee), Weg: int(w.ed), Wem: int(w.ee),
		Wgd: int(w.gd), Wgg: int(w.gg), Wgm: int(w.gg),
		Wmd: int(w.md), Wme: int(w.me), Wmg: int(w.mg), Wmm: WeightScale,
	}
}

// weights are those the cases below find.
type weights struct{ gg, gd, ee, ed, mg, me, md int64 }

const scale = int64(WeightScale)

// neitherScarce: guards and exits each have a third or more, what is above goes to the middle.
func (w *weights) neitherScarce(G, M, E int64) {
	w.gd, w.ed, w.md = scale/3, scale/3, scale/3
	w.ee = scale * (E + G + M) / (3 * E)
	w.me = scale - w.ee
	w.mg = scale * (2*G - E - M) / (3 * G)
	w.gg = scale - w.mg
}

// bothScarce: neither guards nor exits have a third.
func (w *weights) bothScarce(G, M, E, D int64) {
	rare, other := min(E, G), max(E, G)
	if rare+D < other { // all that is both goes where less is
		w.gg, w.ee = scale, scale
		if E < G {
			w.ed = scale
		} else {
			w.gd = scale
		}
		return
	}
	*w = weights{
		gg: scale,
		ee: scale * (E - G + M) / E,
		ed: scale * (D - 2*E + 4*G - 2*M) / (3 * D),
		me: scale * (G - M) / E,
	}
	w.md = (scale - w.ed) / 2
	w.gd = w.md
	if w.inRange() {
		return
	}
	*w = weights{
		gg: scale,
		ee: scale,
		ed: scale * (D - 2*E + G + M) / (3 * D),
		md: max(0, scale*(D-2*M+G+E)/(3*D)), // below 0 when plain relays have more than a third
	}
	w.gd = scale - w.ed - w.md
	if w.inRange() {
		return
	}
	// The middle has more than enough: divide what is both so that guards and exits have the same.
	*w = weights{gg: scale, ee: scale, ed: scale * (G - E + D) / (2 * D)}
	w.gd = scale - w.ed
}

// oneScarce: guards or exits have less than a third, the others not.
func (w *weights) oneScarce(G, M, E, D int64) {
	T := G + M + E + D
	switch guards := G < E; {
	case guards && 3*(G+D) < T:
		w.gg, w.gd = scale, scale
		if E >= M {
			w.me = scale * (E - M) / (2 * E)
		}
		w.ee = scale - w.me
	case guards:
		w.gg = scale
		w.gd = scale * (D - 2*G + E + M) / (3 * D)
		w.ee = scale * (E + M) / (2 * E)
		w.me = scale - w.ee
		w.md = (scale - w.gd) / 2
		w.ed = w.md
	case 3*(E+D) < T:
		w.ee, w.ed = scale, scale
		if G >= M {
			w.mg = scale * (G - M) / (2 * G)
		}
		w.gg = scale - w.mg
	default:
		w.ee = scale
		w.ed = scale * (D - 2*E + G + M) / (3 * D)
		w.gg = scale * (G + M) / (2 * G)
		w.mg = scale - w.gg
		w.md = (scale - w.ed) / 2
		w.gd = w.md
	}
}

func (w *weights) inRange() bool {
	for _, v := range [...]int64{w.gg, w.gd, w.ee, w.ed, w.mg, w.me, w.md} {
		if v < 0 || v > scale {
			return false
		}
	}
	return true
}

// named lists the weights in the order in which they are written.
func (w *Weights) named() [11]namedWeight {
	return [11]namedWeight{
		{"Wed", &w.Wed}, {"Wee", &w.Wee}, {"Weg", &w.Weg}, {"Wem", &w.Wem},
		{"Wgd", &w.Wgd}, {"Wgg", &w.Wgg}, {"Wgm", &w.Wgm},
		{"Wmd", &w.Wmd}, {"Wme", &w.Wme}, {"Wmg", &w.Wmg}, {"Wmm", &w.Wmm},
	}
}

type namedWeight struct {
	name  string
	value *int
}

// String returns the weights as they stand in a header: "Wed=3333 Wee=10000 …".
func (w Weights) String() string {
	var s []string
	for _, n := range w.named() {
		s = append(s, n.name+"="+strconv.Itoa(*n.value))
	}
	return strings.Join(s, " ")
}

func parseWeights(s string) (Weights, error) {
	var w Weights
	named := w.named()
	words := strings.SplitN(s, " ", len(named)+1)
	if len(words) != len(named) {
		return Weights{}, fmt.Errorf("%d weights, but there must be %d", len(words), len(named))
	}
	for i, n := range named {
		val, ok := strings.CutPrefix(words[i], n.name+"=")
		if !ok {
			return Weights{}, fmt.Errorf("weight %q stands where %s must", clip(words[i]), n.name)
		}
		v, err := parseUint(val, WeightScale)
		if err != nil {
			return Weights{}, fmt.Errorf("weight %s: %w", n.name, err)
		}
		*n.value = int(v)
	}
	return w, nil
}
