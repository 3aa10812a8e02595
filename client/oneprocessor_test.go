//go:build race

package client

import "runtime"

// Up to Go 1.26 all timers of a bubble of testing/synctest share one context of the race detector, also when two threads let two of them go
// off at once (runtime/time.go, unlockAndRun): then the detector itself fails. It does so here more often than in any other package, though
// not on one processor. What one goroutine does and another sees without an order between them is found there too.
func init() { runtime.GOMAXPROCS(1) }
