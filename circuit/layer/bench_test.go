package layer

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// header is what stands between the bodies of cells.
const header = 5

// ratio measures op over bodies of n bytes, and reports as x-ctr how long it
// takes as a multiple of what the standard library's AES-128-CTR takes for as
// many bytes: the median of many short runs of the one and the other in turn, so
// that what else the machine does meets both.
func ratio(b *testing.B, n int, op func(body []byte)) {
	ratioOfRun(b, n, 1, op)
}

// ratioOfRun is ratio of an op over runs of count bodies, as they stand in cells.
func ratioOfRun(b *testing.B, n, count int, op func(run []byte)) {
	run := make([]byte, count*(n+header)-header)
	b.SetBytes(int64(count * n))
	b.ReportAllocs()
	for b.Loop() {
		op(run)
	}

	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	stream := cipher.NewCTR(block, make([]byte, 16))
	ratios := make([]float64, 201)
	for i := range ratios {
		ours := elapsed(count, func() { op(run) })
		theirs := elapsed(count, func() {
			for i := range count {
				body := run[i*(n+header):][:n]
				stream.XORKeyStream(body, body)
			}
		})
		ratios[i] = float64(ours) / float64(theirs)
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "x-ctr")
}

// elapsed is the time of some 100 bodies.
func elapsed(count int, f func()) time.Duration {
	start := time.Now()
	for range (100 + count - 1) / count {
		f()
	}
	return time.Since(start)
}

// lengths runs a benchmark for bodies of 509 and 1403 bytes on each kernel.
func lengths(b *testing.B, bench func(b *testing.B, kern kernel, n int)) {
	eachKernel(b, []int{509, 1403}, bench)
}

// runs runs a benchmark for runs of 1 to 46 bodies of 1403 bytes on each kernel.
func runs(b *testing.B, bench func(b *testing.B, kern kernel, count int)) {
	eachKernel(b, []int{1, 2, 4, 8, 46}, bench)
}

func eachKernel(b *testing.B, numbers []int, bench func(b *testing.B, kern kernel, n int)) {
	for _, n := range numbers {
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

// A relay that passes on what a record brought of one circuit, towards its end.
func BenchmarkPeelRun(b *testing.B) {
	runs(b, func(b *testing.B, kern kernel, count int) {
		l := newPair(kern, (*[KeySize]byte)(random(1, KeySize)), 1403).relay
		ratioOfRun(b, 1403, count, func(run []byte) { l.PeelRun(command, run, 1403+header) })
	})
}

// A relay that passes on what a record brought of one circuit, towards its client.
func BenchmarkWrapRun(b *testing.B) {
	runs(b, func(b *testing.B, kern kernel, count int) {
		l := newPair(kern, (*[KeySize]byte)(random(1, KeySize)), 1403).relay
		ratioOfRun(b, 1403, count, func(run []byte) { l.WrapRun(command, run, 1403+header) })
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

// A relay that passes on the cells of records, of 10,000 circuits in random
// order: cold without Prefetch, ahead with it three cells before, hot when all
// cells are of one circuit, each as nanoseconds a cell. The three take turns, so
// that what else the machine does meets them all.
func BenchmarkPeelOfManyCircuits(b *testing.B) {
	const circuits, inRecord, distance, n = 10_000, 46, 3, 1403
	layers := make([]*Layer, circuits)
	for i := range layers {
		layers[i] = NewRelay((*[KeySize]byte)(random(uint64(i), KeySize)), n)
	}
	bodies := make([]byte, inRecord*n)
	rng := rand.New(rand.NewPCG(1, 2))
	var record [inRecord]*Layer
	peel := func(ahead bool) time.Duration {
		start := time.Now()
		for i, l := range record {
			switch {
			case !ahead:
			case i == 0:
				for _, l := range record[1 : 1+distance] {
					l.Prefetch()
				}
			case i+distance < len(record):
				record[i+distance].Prefetch()
			}
			l.Peel(command, bodies[i*n:][:n])
		}
		return time.Since(start)
	}
	draw := func() {
		for i := range record {
			record[i] = layers[rng.IntN(circuits)]
		}
	}
	var cold, ahead, hot time.Duration
	records := 0
	b.ReportAllocs()
	for b.Loop() {
		draw()
		cold += peel(false)
		draw()
		ahead += peel(true)
		for i := range record {
			record[i] = layers[0]
		}
		hot += peel(false)
		records++
	}
	perCell := func(d time.Duration) float64 { return float64(d) / float64(records*inRecord) }
	b.ReportMetric(perCell(cold), "cold-ns/cell")
	b.ReportMetric(perCell(ahead), "ahead-ns/cell")
	b.ReportMetric(perCell(hot), "hot-ns/cell")
}
