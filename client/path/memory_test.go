package path

import (
	"fmt"
	"runtime"
	"testing"

	"peel/directory"
	"peel/directory/dirtest"
)

// live is how many bytes of heap are in use after a collection.
func live() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what finalizers and pools held
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// directoryMemory is what a client keeps of a directory: the consensus as parsed from a text that is dropped, and the index over it.
func directoryMemory(t testing.TB, text []byte) (bytes uint64) {
	t.Helper()
	before := live()
	c, err := directory.ParseConsensus(text)
	if err != nil {
		t.Fatal(err)
	}
	x, err := NewIndex(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range []uint16{80, 443, 22} {
		x.exitsFor(port)
	}
	after := live()
	runtime.KeepAlive(x)
	runtime.KeepAlive(text)
	return after - before
}

// mostMemory is what a client may need for a directory of 10,000 relays.
const mostMemory = 12 << 20

// TestADirectoryTakesLittleMemory asks it of 1,000 relays; BenchmarkMemory shows that it grows with their number.
func TestADirectoryTakesLittleMemory(t *testing.T) {
	const relays = 1000
	if got := directoryMemory(t, dirtest.New(1, relays).Text); got > mostMemory*relays/10_000 {
		t.Errorf("%d bytes for %d relays, %d each", got, relays, got/relays)
	}
}

// BenchmarkMemory reports what a client keeps of a directory.
func BenchmarkMemory(b *testing.B) {
	for _, size := range []int{10, 100, 1000, 10000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			text := dirtest.New(1, size).Text
			var most uint64
			for b.Loop() {
				most = max(most, directoryMemory(b, text))
			}
			b.ReportMetric(float64(most)/(1<<20), "MiB-live")
			b.ReportMetric(float64(most)/float64(size), "B/relay")
			if size == 10_000 && most > mostMemory {
				b.Errorf("%d bytes, but at most %d may be", most, mostMemory)
			}
		})
	}
}
