package client

import "testing"

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
