//go:build race

package authority

import "runtime"

// In a synctest bubble two threads may use the race detector's state of the timers at once, and the
// detector crashes (golang/go issue 78156). With one thread at a time it does not; it finds races by
// the order of events, which one thread shows as well. It is slow, so fewer schedules are run.
func init() {
	runtime.GOMAXPROCS(1)
	*schedules, *seeds, *malformed = 10, 20, 400
}
