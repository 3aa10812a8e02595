//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// noInterrupt says that an interrupt is ignored as the program starts, as a shell has it be in what it runs in the background.
var noInterrupt = signal.Ignored(os.Interrupt)

// dieOf ends the process by a signal, so that its parent sees that; where the signal would be ignored, with the status that a shell gives such
// an end: that it was, package signal does not know any more once it was asked for.
func dieOf(s os.Signal) {
	n, ok := s.(syscall.Signal)
	if !ok {
		os.Exit(1)
	}
	if signal.Reset(n); (n != syscall.SIGINT || !noInterrupt) && syscall.Kill(syscall.Getpid(), n) == nil {
		time.Sleep(time.Second) // it comes before
	}
	os.Exit(128 + int(n))
}
