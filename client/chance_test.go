package client

import (
	"math/rand/v2"
	"testing"
)

func TestChanceDrawsEveryNumberBelow(t *testing.T) {
	var seen [7]int
	for range 7000 {
		seen[chance(7)]++
	}
	for n, times := range seen {
		if times < 700 { // 1000 are expected; so few come once in 10^24 runs
			t.Errorf("%d was drawn %d times of 7000", n, times)
		}
	}
}

// What a laboratory gives decides everything: the same again, each throw apart from the others.
func TestChanceFromOutsideIsTheSameAgain(t *testing.T) {
	draw := func(paths int) (guards [8]uint64) {
		cfg := Config{Chance: rand.NewPCG(1, 2)}
		th := cfg.throws()
		for range paths {
			th.paths(1000)
		}
		for i := range guards {
			guards[i] = th.guards(1000)
		}
		return guards
	}
	if draw(0) != draw(5) {
		t.Error("how many paths were drawn decides on guards")
	}
	var none Config
	th := none.throws()
	if first, second := th.guards(1<<62), th.guards(1<<62); first == second {
		t.Error("the system's chance has drawn the same twice of 2^62")
	}
}
