// Package memtest says, for tests, what memory something takes.
package memtest

import (
	"runtime"
	"sync"
)

// InUse is the memory of objects and stacks, when all that nobody uses has been found.
func InUse() int64 {
	for range 3 { // what is in a Pool lives through one
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// Fill has goroutines with stacks of each size, more of them each time it is called in a process (time counts from 0), until the function that it
// returns is called: so what comes has stacks in pages of its own, and not where there was room by chance, and the runtime knows none
// of it yet. What is measured then is what the first to come would take, whatever other tests did.
func Fill(time int) (stop func()) {
	var begun, all sync.WaitGroup
	end := make(chan struct{})
	for _, of := range []struct{ n, frames int }{{128, 5}, {256, 2}, {1024 + 512*time, 0}} { // in 8, 4 and 2 KiB
		for range of.n {
			begun.Add(1)
			all.Go(func() { deep(of.frames, func() { begun.Done(); <-end }) })
		}
		begun.Wait()
	}
	return func() { close(end); all.Wait() }
}

// deep waits in so many frames of a KiB.
//
//go:noinline
func deep(frames int, wait func()) byte {
	if frames == 0 {
		wait()
		return 0
	}
	var room [900]byte
	room[frames] = deep(frames-1, wait)
	return room[frames/2]
}
