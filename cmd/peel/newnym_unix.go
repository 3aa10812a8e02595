//go:build unix

package main

import (
	"os"
	"syscall"
)

var newnymSignals = []os.Signal{syscall.SIGUSR2}
