package layer

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"slices"
	"testing"
	"time"
)

// ratio measures op over bodies of n bytes, and reports as x-ctr how long it
// takes as a multiple of what the standard library's AES-128-CTR takes for as
// many bytes: the median of many short runs of the one and the other in turn, so
// that what else the machine does meets both.
func ratio(b *testing.B, n int, op func(body []byte)) {
	body := make([]byte, n)
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		op(body)
	}

	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	stream := cipher.NewCTR(block, make([]byte, 16))
	ratios := make([]float64, 201)
	for i := range ratios {
		ours := elapsed(func() { op(body) })
		theirs := elapsed(func() { stream.XORKeyStream(body, body) })
		ratios[i] = float64(ours) / float64(theirs)
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "x-ctr")
}

func elapsed(f func()) time.Duration {
	start := time.Now()
	for range 100 {
		f()
	}
	return time.Since(start)
}

// lengths runs a benchmark for bodies of 509 and 1403 bytes on each kernel.
func lengths(b *testing.B, bench func(b *testing.B, kern kernel, n int)) {
	for _, n := range []int{509, 1403} {
		for i, kern := range supported() {
			name := fmt.Sprint(n)
			if i > 0 {
				name = fmt.Sprintf("%d/%v", n, kern)
			}
			b.Run(name, func(b *testing.B) { bench(b, kern, n) })
		}
	}
}

// A relay that passes a cell on, towards its end.
func BenchmarkPeel(b *testing.B) {
	lengths(b, func(b *testing.B, kern kernel, n int) {
		l := newPair(kern, (*[KeySize]byte)(random(1, KeySize)), n).relay
		ratio(b, n, func(body []byte) { l.Peel(command, body) })
	})
}

// A relay that passes a cell on, towards its client.
func BenchmarkWrap(b *testing.B) {
	lengths(b, func(b *testing.B, kern kernel, n int) {
		l := newPair(kern, (*[KeySize]byte)(random(1, KeySize)), n).relay
		ratio(b, n, func(body []byte) { l.Wrap(command, body) })
	})
}

// A relay that makes a cell.
func BenchmarkSeal(b *testing.B) {
	lengths(b, func(b *testing.B, kern kernel, n int) {
		l := newPair(kern, (*[KeySize]byte)(random(1, KeySize)), n).relay
		ratio(b, n, func(body []byte) { l.Seal(command, body) })
	})
}

// A relay that a cell is for: it recognises what its client sealed, so that the
// time of the client's Seal is in it.
func BenchmarkSealAndPeel(b *testing.B) {
	lengths(b, func(b *testing.B, kern kernel, n int) {
		p := newPair(kern, (*[KeySize]byte)(random(1, KeySize)), n)
		ratio(b, n, func(body []byte) {
			p.client.Seal(command, body)
			if !p.relay.Peel(command, body) {
				b.Fatal("not recognised")
			}
		})
	})
}

// A client that sends a cell through three layers.
func BenchmarkClientSend(b *testing.B) {
	lengths(b, func(b *testing.B, kern kernel, n int) {
		c := newCircuit(kern, 1, 3, n)
		ratio(b, n, func(body []byte) { c.send(2, body) })
	})
}

// A client that receives a cell through three layers. What relays do with it is
// left out: the bodies are noise, and an update is paid by hand.
func BenchmarkClientReceive(b *testing.B) {
	lengths(b, func(b *testing.B, kern kernel, n int) {
		c := newCircuit(kern, 1, 3, n)
		ratio(b, n, func(body []byte) {
			c.receive(body)
			c.clientBackward[2].update()
		})
	})
}
