package relay

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// held is what the process holds.
type held struct{ goroutines, fds, objects, heap int }

// holds is what the process holds when all that nobody uses is gone, and what the runtime keeps for later is as much as any other time: what is in
// sync.Pools, and what each processor has for those who wait.
func holds() (h held) {
	collect() // while all processors are there: what one that ends is to close, pipes in Pools, would wait for it to come back
	later := timers(runtime.GOMAXPROCS(0), 1)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // processors that end drop what they have; room for timers only if there are any
	stop(later)
	runtime.GC()                        // what is there for all processors is dropped
	together(512, func() {}, func() {}) // the one that is left has as much as it may
	collect()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h = held{goroutines: runtime.NumGoroutine(), objects: int(m.HeapObjects), heap: int(m.HeapAlloc)}
	if all, err := os.ReadDir("/proc/self/fd"); err == nil {
		h.fds = len(all)
	}
	return h
}

// collect finds all that nobody uses: what is in a Pool lives through one collection.
func collect() {
	for range 3 {
		runtime.GC()
	}
}

// Churn is of rounds: so many at least, that a third of its circuits is more than what comes and goes by itself.
const (
	leastRounds   = 20
	roundCircuits = 20
)

// beyond says what of h is more than two hundredths above what it was before, of what was more than there is in any case, and more than what comes and
// goes by itself: two of goroutines and descriptors, and of the runtime's own objects, of which 60 do, a third of one for each of the circuits there were; "": nothing.
func (h held) beyond(before, empty held, circuits int) (what string) {
	for _, x := range []struct {
		name                      string
		empty, before, now, floor int
	}{
		{"goroutines", empty.goroutines, before.goroutines, h.goroutines, 2},
		{"descriptors", empty.fds, before.fds, h.fds, 2},
		{"objects", empty.objects, before.objects, h.objects, min(150, circuits/3)},
		{"bytes of heap", empty.heap, before.heap, h.heap, 16 << 10},
	} {
		if most := x.before + max((x.before-x.empty)/50, x.floor); x.now > most {
			what += fmt.Sprintf("%d %s before, %d after, want at most %d; ", x.before, x.name, x.now, most)
		}
	}
	return what
}

// holdsAtLeast is for whoever looks at what is held: it has more goroutines, threads and timers at a time than there will be, since what the
// runtime knows one by, or has room for them, it keeps for ever. It returns what is held then.
func holdsAtLeast() held {
	together(10000, func() {}, func() {})
	together(64, runtime.LockOSThread, runtime.UnlockOSThread)
	before := runtime.GOMAXPROCS(1)
	stop(timers(1, 16384))
	runtime.GOMAXPROCS(before)
	return holds()
}

// timers starts timers on as many processors at a time, n on each.
func timers(processors, n int) (all []*time.Timer) {
	var running atomic.Int32
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range processors {
		wg.Go(func() {
			for running.Add(1); running.Load() < int32(processors); { // nobody leaves a processor to another
			}
			mine := make([]*time.Timer, n)
			for i := range mine {
				mine[i] = time.AfterFunc(time.Hour, func() {})
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, mine...)
		})
	}
	wg.Wait()
	return all
}

func stop(timers []*time.Timer) {
	for _, t := range timers {
		t.Stop()
	}
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
