package relay

import (
	"fmt"
	"os"
	"runtime"
	"sync"
)

// held is what the process holds.
type held struct{ goroutines, fds, objects, heap int }

// holds is what the process holds when all that nobody uses is gone, and what the runtime keeps for later is as much as any other time: what is in
// sync.Pools, and what each processor has for those who wait.
func holds() (h held) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // processors that end drop what they have
	runtime.GC()                                    // and then what is there for all of them is dropped
	together(512, func() {}, func() {})             // the one that is left has as much as it may
	for range 3 {                                   // what is in a Pool lives through one
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h = held{goroutines: runtime.NumGoroutine(), objects: int(m.HeapObjects), heap: int(m.HeapAlloc)}
	if all, err := os.ReadDir("/proc/self/fd"); err == nil {
		h.fds = len(all)
	}
	return h
}

// beyond says what of h is more than two hundredths above what it was before, of what was more than there is in any case; "": nothing.
func (h held) beyond(before, empty held) (what string) {
	for _, x := range []struct {
		name               string
		empty, before, now int
	}{
		{"goroutines", empty.goroutines, before.goroutines, h.goroutines},
		{"descriptors", empty.fds, before.fds, h.fds},
		{"objects", empty.objects, before.objects, h.objects},
		{"bytes of heap", empty.heap, before.heap, h.heap},
	} {
		if most := x.before + (x.before-x.empty)/50; x.now > most {
			what += fmt.Sprintf("%d %s before, %d after, want at most %d; ", x.before, x.name, x.now, most)
		}
	}
	return what
}

// holdsAtLeast is for whoever looks at what is held: it has more goroutines and threads at a time than there will be, since what the
// runtime knows one by it keeps for another for ever. It returns what is held then.
func holdsAtLeast() held {
	together(10000, func() {}, func() {})
	together(64, runtime.LockOSThread, runtime.UnlockOSThread)
	return holds()
}

// together has n goroutines at a time that all have begun, and wait.
func together(n int, first, last func()) {
	var begun, all sync.WaitGroup
	end := make(chan struct{})
	begun.Add(n)
	for range n {
		all.Go(func() {
			first()
			begun.Done()
			<-end
			last()
		})
	}
	begun.Wait()
	for range 100 {
		runtime.Gosched() // they come to where they wait
	}
	close(end)
	all.Wait()
}
