package main

import (
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// slack is how late the kernel may wake a thread of ours whose time has come, in nanoseconds. No time that Peel keeps
	// is as fine: a millisecond is also what Go's timers come to.
	slack = 1_000_000
	// slackSet tells a program that it was started over.
	slackSet = "PEEL_TIMER_SLACK_SET"
)

// busy are the verbs that carry cells.
var busy = []string{"relay", "authority", "client", "testnet"}

// settle starts the program over, once, with a timer slack of a millisecond instead of 50 µs. A thread of Go's looks every
// 20 µs after the others while there is anything to do; with seldom more than a batch of cells at a time there always is.
// Each look is two switches of the processor: a quarter of what a relay used went there (docs/performance.md). A thread
// has its slack from the one that made it, and Go makes this one before any code of ours runs, so that only a new program
// can give it another. What goes wrong leaves all as it was.
func settle() {
	if len(os.Args) < 2 || !slices.Contains(busy, os.Args[1]) {
		return
	}
	if _, again := os.LookupEnv(slackSet); again {
		os.Unsetenv(slackSet) // it is not for the programs that we start
		return
	}
	runtime.LockOSThread() // the slack is the thread's, and the new program has it from the thread that starts it
	defer runtime.UnlockOSThread()
	now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || now == 0 || now >= slack { // 0: of a real-time thread, which has none
		return
	}
	program, err := os.Executable()
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, slack, 0, 0, 0) != nil {
		return
	}
	syscall.Exec(program, os.Args, append(os.Environ(), slackSet+"=1"))
	unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(now), 0, 0, 0)
}
