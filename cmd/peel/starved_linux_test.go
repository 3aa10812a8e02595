package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A turn is what one thread of a process had of the processor and had to wait for it, up to a time.
type turn struct {
	had, waited time.Duration
	ready       bool // it runs, or waits for the processor
}

// turns are those of all threads of a process (proc(5): task/TID/schedstat and stat); nil where the system does not say.
func turns(pid int) map[string]turn {
	all := map[string]turn{}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, task := range tasks {
		text, err := os.ReadFile(task + "/schedstat")
		var t turn
		if _, bad := fmt.Sscan(string(text), &t.had, &t.waited); err != nil || bad != nil {
			continue // it is over
		}
		stat, _ := os.ReadFile(task + "/stat")
		t.ready = bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" R"))
		all[filepath.Base(task)] = t
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// A share is what a process had of the processor in some time, and what it had to wait for it: parts of a core.
type share struct{ had, waited float64 }

// since is the share from before to now; took is the time between.
func since(before, now map[string]turn, took time.Duration) (s share) {
	for id, t := range now {
		was := before[id]
		had, waited := t.had-was.had, t.waited-was.waited
		if _, there := before[id]; there && t.ready && had == 0 && waited == 0 {
			waited = took // the system counts what a thread waited when it gets its turn, and this one got none
		}
		s.had += had.Seconds() / took.Seconds()
		s.waited += waited.Seconds() / took.Seconds()
	}
	return s
}

// starved says whether a process had less than so much of a core because others had it. One that had less and did not wait either did not want more, or
// hangs.
func (s share) starved(of float64) bool { return s.had < of && s.had+s.waited >= of }

// What stops or waits for something is not taken for what others keep from the processor.
func TestAProcessThatHangsIsNotStarved(t *testing.T) {
	if turns(os.Getpid()) == nil {
		t.Skip("this system does not say how long threads wait for the processor")
	}
	one, _ := twoCores(t)
	start := func(script string) int {
		var c *exec.Cmd
		onCores(t, []int{one}, func() {
			c = exec.Command("/bin/sh", "-c", script)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
		})
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
		return c.Process.Pid
	}
	const spin = "while :; do :; done"
	hangs, pids := start(spin), []int{start(spin), start(spin), start(spin)}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(soon); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	until("a process does not begin", func() bool { return since(nil, turns(hangs), time.Second).had > 0 })
	if err := syscall.Kill(hangs, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until("a process does not stop", func() bool {
		for _, x := range turns(hangs) {
			if x.ready {
				return false
			}
		}
		return true
	})
	var before []map[string]turn
	for _, pid := range pids {
		before = append(before, turns(pid))
	}
	stopped := turns(hangs)
	until("of three that want a core none waits", func() bool {
		var all share
		for i, pid := range pids {
			s := since(before[i], turns(pid), time.Second)
			all.had, all.waited = all.had+s.had, all.waited+s.waited
		}
		return all.had > 0 && all.waited >= 0.1
	})
	if s := since(stopped, turns(hangs), time.Second); s.starved(0.1) {
		t.Errorf("one that was stopped is said to wait: %+v", s)
	}
	for _, c := range []struct {
		share
		want bool
	}{
		{share{0.9, 0.1}, false}, {share{0.3, 0.1}, false}, {share{0, 0}, false}, {share{0.4, 0.2}, true}, {share{0, 3}, true},
		{since(map[string]turn{"1": {1, 1, true}}, map[string]turn{"1": {1, 1, true}}, time.Second), true},
		{since(map[string]turn{"1": {1, 1, true}}, map[string]turn{"1": {1, 1, false}}, time.Second), false},
	} {
		if c.starved(0.5) != c.want {
			t.Errorf("%+v: starved is %t", c.share, !c.want)
		}
	}
}
