package gcm

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Records of 1, 4 and 46 cells; x-std is how long one takes as a multiple of what the standard library does, the median of
// short runs of the one and the other in turn.
func BenchmarkSeal(b *testing.B) {
	bench(b, func(a *AEAD, nonce, wire []byte) { a.Seal(wire[2:2], nonce, wire[2:len(wire)-TagSize], wire[:2]) })
}

// The records are none of the key's: both find it out at the end, and clear what they decrypted.
func BenchmarkOpen(b *testing.B) {
	bench(b, func(a *AEAD, nonce, wire []byte) { _, _ = a.Open(wire[2:2], nonce, wire[2:], wire[:2]) })
}

func bench(b *testing.B, op func(a *AEAD, nonce, wire []byte)) {
	key, nonce := (*[KeySize]byte)(random(1, KeySize)), random(2, NonceSize)
	theirs := newAEAD(key, std)
	for _, cells := range []int{1, 4, 46} {
		for i, kern := range supported() {
			name := fmt.Sprint(cells)
			if i > 0 {
				name = fmt.Sprintf("%d/%v", cells, kern)
			}
			b.Run(name, func(b *testing.B) {
				ours := newAEAD(key, kern)
				wire := make([]byte, 2+cells*1408+TagSize)
				b.SetBytes(int64(cells * 1408))
				b.ReportAllocs()
				for b.Loop() {
					op(ours, nonce, wire)
				}
				elapsed := func(a *AEAD) time.Duration {
					start := time.Now()
					for range 1 + 50/cells {
						op(a, nonce, wire)
					}
					return time.Since(start)
				}
				ratios := make([]float64, 101)
				for i := range ratios {
					ratios[i] = float64(elapsed(ours)) / float64(elapsed(theirs))
				}
				slices.Sort(ratios)
				b.ReportMetric(ratios[len(ratios)/2], "x-std")
			})
		}
	}
}
