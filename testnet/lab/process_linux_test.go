package lab

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"peel/directory"
	"peel/testnet/plan"
	"peel/testnet/story"
	"peel/testnet/villain"
)

// shells is a lab of one relay, which is a process that runs a script.
func shells(t *testing.T, script string) (*Lab, *node) {
	t.Helper()
	p := plan.Default()
	l := &Lab{plan: p, ground: Apart(p), story: story.New("shells", "as processes", time.Now()), starter: newStarter(), fell: make(chan string, 1)}
	l.outside = l.ground.(Outside)
	l.cfg.Processes, l.cfg.Progress = &Processes{Program: "/bin/sh"}, func(string) {}
	ctx, cancel := context.WithCancel(t.Context())
	l.ctx = ctx
	n := &node{lab: l, name: "relay1", role: roleRelay}
	l.story.Node(story.Node{Name: n.name, State: story.Starting})
	n.program = &program{lab: l, name: n.name, dir: t.TempDir() + "/relay1", args: []string{"-c", script}}
	l.nodes, l.byName = []*node{n}, map[string]*node{n.name: n}
	t.Cleanup(func() {
		cancel()
		n.stopProgram(true)
		l.running.Wait()
		l.starter.end()
	})
	if err := n.startProgram(); err != nil {
		t.Fatal(err)
	}
	return l, n
}

// until waits, for a minute at most, until something is so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !so() {
		if !sleepUntil(ctx, time.Now().Add(5*time.Millisecond)) {
			t.Fatalf("waited a minute until %s", what)
		}
	}
}

func (n *node) wrote(text string) bool {
	log, err := os.ReadFile(n.program.logFile())
	return err == nil && strings.Contains(string(log), text)
}

func (n *node) asked() bool {
	n.program.mu.Lock()
	defer n.program.mu.Unlock()
	return n.program.told
}

// Who is killed while a restart waits for its end stays down.
func TestARelayThatIsKilledWhileItRestartsStaysDown(t *testing.T) {
	l, n := shells(t, `trap "" TERM; echo ready; exec sleep 600`)
	until(t, "it does not heed SIGTERM", func() bool { return n.wrote("ready") })
	n.restartProgram()
	until(t, "it was asked to end", n.asked)
	n.stop(true)
	l.running.Wait()
	if n.up() {
		t.Error("it is back")
	}
	if len(l.result.Broken) > 0 {
		t.Error(l.result.Broken)
	}
	if err := n.start(); err != nil || !n.up() {
		t.Errorf("it cannot be restored: %v", err)
	}
}

// What a process said of itself does not count for the one that came after it.
func TestCountsAreOfTheProcessThatGaveThem(t *testing.T) {
	l, n := shells(t, `exec sleep 60`)
	again := true
	l.cfg.Processes.Ask = func(context.Context, string, string, int64) ([]byte, error) {
		if again {
			n.stop(true)
			if err := n.start(); err != nil {
				t.Error(err)
			}
		}
		return []byte("peel_relay_cells_total 5"), nil
	}
	for _, want := range []uint64{0, 5} {
		l.refresh(time.Minute)
		if c := n.counted().cells; c != want {
			t.Errorf("%d cells, want %d", c, want)
		}
		again = false
	}
}

// A process that begins anew may have an older list than the one before it had; one that goes on may not.
func TestAProcessThatBeginsAnewMayHaveAnOlderList(t *testing.T) {
	l, n := shells(t, `exec sleep 60`)
	n.mind, l.network, l.result.seen = villain.NewMind(1, time.Sleep), new(directory.Network), map[string]string{}
	l.cfg.Processes.Ask = func(context.Context, string, string, int64) ([]byte, error) {
		return []byte("peel_relay_cells_total 5"), nil
	}
	now := time.Now().Truncate(time.Second)
	has := func(age time.Duration) {
		c := new(directory.Consensus)
		c.Root, c.ValidAfter = directory.Root(nil), now.Add(-age)
		n.program.mu.Lock()
		n.program.seen.consensus = c
		n.program.mu.Unlock()
		l.look(time.Minute)
	}
	has(0)
	n.stop(true)
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	if has(time.Hour); len(l.result.Broken) > 0 {
		t.Errorf("it was started anew: %v", l.result.Broken)
	}
	if has(2 * time.Hour); len(l.result.Broken) != 1 {
		t.Errorf("it went back, and that is what was said: %v", l.result.Broken)
	}
}

// A node that is down stays so, whatever is frozen and thawed.
func TestANodeThatIsDownIsNotShownAsUpWhenItIsThawed(t *testing.T) {
	l, n := shells(t, `exec sleep 60`)
	for _, want := range []string{story.Up, story.Down} {
		for _, frozen := range []bool{true, false} {
			if err := l.freeze(n.name, n.addr, frozen); err != nil {
				t.Fatal(err)
			}
		}
		if got := l.story.Snapshot(0).Nodes[0].State; got != want {
			t.Errorf("it is %s, not %s", got, want)
		}
		n.stop(true)
	}
}

// Who watches restores what was frozen or is down, and nothing that runs, which would be shown as if something had been done.
func TestWhatRunsIsNotRestored(t *testing.T) {
	l, n := shells(t, `exec sleep 60`)
	l.hand = make(chan struct{}, 1)
	l.hand <- struct{}{}
	l.started.Store(true)
	can := l.Actions()
	l.story.State(n.name, story.Silent)
	if err := can.Restore(n.name); err == nil || l.stateOf(n.name) != story.Silent {
		t.Errorf("one that is silent: %v, and it is shown as %s", err, l.stateOf(n.name))
	}
	for _, undo := range []func(string) error{can.Freeze, can.Kill} {
		if err := undo(n.name); err != nil {
			t.Fatal(err)
		}
		if err := can.Restore(n.name); err != nil || l.stateOf(n.name) != story.Up || !n.up() {
			t.Errorf("%v, and it is shown as %s", err, l.stateOf(n.name))
		}
	}
}

// How a process ends that was asked to is looked at; a signal is no status.
func TestANodeThatEndsBadlyWhenItIsAskedToIsReported(t *testing.T) {
	for do, want := range map[string]int{"exit 1": 1, "exit 0": 0, "trap - TERM; kill -TERM $$": 0} {
		l, n := shells(t, `sleep 60 & trap "kill $!; `+do+`" TERM; echo ready; wait`)
		until(t, "it heeds SIGTERM", func() bool { return n.wrote("ready") })
		n.stop(false)
		l.running.Wait()
		if n.up() || len(l.result.Broken) != want {
			t.Errorf("%s: %v", do, l.result.Broken)
		}
	}
}

// A network is not waited for, of which a node has ended; what the node said is told.
func TestANodeThatEndsAtItsStartEndsTheWait(t *testing.T) {
	l, n := shells(t, `echo no room; exit 3`)
	l.clients = []user{never{}}
	if err := l.await(l.ctx); err == nil || !strings.Contains(err.Error(), "relay1: exit status 3: no room") {
		t.Error(err)
	}
	if got := l.stateOf(n.name); got != story.Down {
		t.Errorf("it is %s", got)
	}
}

// never is a client that is never ready.
type never struct{ user }

func (never) Ready(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// A process that a service manager's unit starts is no unit of its own.
func TestProcessesDoNotTakeTheFoldersOfTheUnitThatStartsThem(t *testing.T) {
	got := ownEnv([]string{"HOME=/root", "STATE_DIRECTORY=/var/lib/peel", "NOTIFY_SOCKET=@x", "PATH=/bin", "WATCHDOG_USEC=1"})
	if !slices.Equal(got, []string{"HOME=/root", "PATH=/bin"}) {
		t.Error(got)
	}
}
