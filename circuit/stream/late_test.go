package stream

import (
	"runtime"
	"testing"

	"peel/cell"
)

// TestStreamsThatAreOverTakeLittle: no more than 16 bytes each, which is what a relay counts for them.
func TestStreamsThatAreOverTakeLittle(t *testing.T) {
	var before, after runtime.MemStats
	const sets, each = 8, 1<<16 - 1
	all := make([]lateSet, sets)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range all {
		for id := range each {
			all[i].add(cell.StreamID(id+1), 3, 0)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	took := float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)) / sets / each
	t.Logf("%.1f bytes each", took)
	if took > 16 {
		t.Error("too much")
	}
	runtime.KeepAlive(all)
}
