package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is also the node that the tests start, and the parts of the benchmark's chain.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "node" {
		os.Exit(node(os.Args[2]))
	}
	if len(os.Args) == 4 && os.Args[1] == "chain" {
		fmt.Println("error:", runChain(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func node(how string) int {
	if how == "fails" {
		fmt.Println("error: the address is taken")
		return 3
	}
	fmt.Println("ready: " + how)
	<-time.After(time.Minute)
	return 0
}

func commands(t *testing.T, how ...string) (cs []Command) {
	for i, h := range how {
		cs = append(cs, Command{Name: fmt.Sprint("node", i), Role: RoleRelay, Dir: t.TempDir(), Args: []string{"node", h}})
	}
	return cs
}

// An error shows how a log ends, however long it is.
func TestTheLastLinesOfALogAreShown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for text, want := range map[string]string{
		"a\nb\n": "a\nb", strings.Repeat("line\n", 8) + "end": strings.Repeat("line\n", 4) + "end",
		strings.Repeat("x", 3*mostLast) + "\nend\n": strings.Repeat("x", mostLast-5) + "\nend", "": "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := LastLines(file); got != want {
			t.Errorf("%d bytes: %.40q, want %.40q", len(text), got, want)
		}
	}
	if got := LastLines(file + "x"); !strings.Contains(got, "no such file") {
		t.Error(got)
	}
}

func TestNodesRunUntilTheyAreEnded(t *testing.T) {
	cs := commands(t, "well", "well")
	ctx, cancel := context.WithCancel(t.Context())
	n := NewNodes(cs)
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	ps, err := n.Ready(ctx)
	if err != nil || len(ps) != 2 || ps[1].Name != "node1" || ps[1].Role != RoleRelay {
		t.Fatalf("%v, %v", ps, err)
	}
	for i := range cs {
		if got, err := cs[i].WaitFor(ctx, "ready: ", 1); err != nil || got[0] != "well" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if runtime.GOOS == "linux" {
		if cpu, err := cpuTime(ps[0].PID); err != nil || cpu <= 0 {
			t.Errorf("processor time of a node: %v, %v", cpu, err)
		}
		if now, peak, err := memory(ps[0].PID); err != nil || now <= 0 || peak < now {
			t.Errorf("memory of a node: %v of %v, %v", now, peak, err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, p := range ps {
		if p, err := os.FindProcess(p.PID); err == nil && p.Signal(syscall.Signal(0)) == nil {
			t.Errorf("process %d is still there", p.Pid)
		}
	}
}

func TestNodeThatEndsEndsAllAndSaysWhy(t *testing.T) {
	n := NewNodes(commands(t, "well", "fails"))
	err := n.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "node1 ended (exit status 3): error: the address is taken") {
		t.Errorf("%v", err)
	}
}

func TestNodesThatWereNotReadyInTimeShowTheirLog(t *testing.T) {
	c := commands(t, "")[0]
	if err := os.WriteFile(c.LogFile(), []byte("waiting for relays\nready"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	if _, err := c.WaitFor(ctx, "ready", 1); err == nil || !strings.Contains(err.Error(), "waiting for relays") {
		t.Errorf("half a line was taken for a whole one, or nothing was said: %v", err)
	}
	ended := errors.New("the network ended")
	other, end := context.WithCancelCause(t.Context())
	end(ended)
	if _, err := c.WaitFor(other, "no such", 1); !errors.Is(err, ended) {
		t.Errorf("%v", err)
	}
}
