package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// twoSignals is a program that takes a minute to end in order, and gets two signals.
func twoSignals() {
	do := func() { time.Sleep(time.Minute) }
	onTerminate.Store(&do)
	if os.Args[1] == "stuck" {
		tell := func(os.Signal) { // whose log takes nothing more
			fmt.Println("a second signal (interrupt) ends it at once, which nobody reads")
			<-make(chan int)
		}
		onSecond.Store(&tell)
	}
	undo := watchTerminate(func() {})
	defer undo()
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(syscall.SIGTERM)
	}
	for !ending.Load() && err == nil {
		time.Sleep(time.Millisecond)
	}
	if err == nil {
		err = self.Signal(os.Interrupt)
	}
	fmt.Println(err)
	time.Sleep(time.Minute)
}

// A signal that is sent twice at once, as by timeout(1), is one.
func TestASignalThatComesTwiceAtOnceIsOne(t *testing.T) {
	for _, c := range []struct {
		first, s os.Signal
		after    time.Duration
		same     bool
	}{
		{syscall.SIGTERM, syscall.SIGTERM, 0, true},
		{os.Interrupt, os.Interrupt, 100 * time.Millisecond, true},
		{syscall.SIGTERM, os.Interrupt, 0, false},
		{os.Interrupt, os.Interrupt, time.Second, false},
	} {
		if got := echo(c.first, c.s, c.after); got != c.same {
			t.Errorf("%v, and %v after %v: %t", c.first, c.s, c.after, got)
		}
	}
}

// The second signal ends peel at once and says so, also the interrupt that a shell has what it runs in the background ignore, and also where
// saying so never ends.
func TestTheSecondSignalEndsPeelAtOnce(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs signals")
	}
	t.Parallel()
	for _, how := range []string{"heeded", "ignored", "stuck"} {
		cmd := exec.Command("two-signals", how)
		if how == "ignored" {
			cmd = exec.Command("sh", "-c", "trap '' INT; exec two-signals ignored")
		}
		out, err := cmd.CombinedOutput()
		var end *exec.ExitError
		if !errors.As(err, &end) || !strings.Contains(string(out), "a second signal (interrupt) ends it at once") {
			t.Errorf("%s: %v: %s", how, err, out)
			continue
		}
		if w := end.Sys().(syscall.WaitStatus); w.Signaled() && w.Signal() != syscall.SIGINT || !w.Signaled() && w.ExitStatus() != 130 {
			t.Errorf("%s: %v", how, err)
		}
	}
}
