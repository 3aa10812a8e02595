//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// dieOf ends the process by a signal, so that its parent sees that; where the signal is ignored, as an interrupt is by what a shell runs in the
// background, with the status that a shell gives such an end.
func dieOf(s os.Signal) {
	n, ok := s.(syscall.Signal)
	if !ok {
		os.Exit(1)
	}
	if signal.Reset(n); !signal.Ignored(n) && syscall.Kill(syscall.Getpid(), n) == nil {
		time.Sleep(time.Second) // it comes before
	}
	os.Exit(128 + int(n))
}
