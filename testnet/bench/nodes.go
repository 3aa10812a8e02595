package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"peel/cell/contain"
)

// Command is how a node is started as a process of its own.
type Command struct {
	Name string // of the node
	Role string
	Dir  string   // an existing folder, where its log goes
	Args []string // of this program
}

// Nodes are processes of this program, one a node.
type Nodes struct {
	commands []Command
	cmds     []*exec.Cmd
	ready    chan struct{} // closed when all have been started
}

// NewNodes makes nodes of commands. It starts nothing.
func NewNodes(commands []Command) *Nodes {
	return &Nodes{commands: commands, ready: make(chan struct{})}
}

// LogFile is where a node writes what it has to say, and its standard output.
func (c *Command) LogFile() string { return filepath.Join(c.Dir, "log") }

// endTime is how long a node may take to end when it is asked to; then it is killed.
const endTime = 5 * time.Second

// Run starts the processes and keeps them until ctx ends or one of them ends by itself, which is an error. It returns when
// all are gone. Where the system can do it, they end even if this process is killed.
func (n *Nodes) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A process that is to end with its parent ends with the parent's thread: this one must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var wg contain.Group
	err := n.start(ctx, &wg, cancel)
	if err == nil {
		close(n.ready)
		<-ctx.Done()
	} else {
		cancel(err)
	}
	n.end(&wg)
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) {
		err = cause
	}
	return err
}

// start starts all, and watches each until it ends.
func (n *Nodes) start(ctx context.Context, wg *contain.Group, cancel context.CancelCauseFunc) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	for _, c := range n.commands {
		cmd := exec.Command(program, c.Args...)
		cmd.Args[0] = os.Args[0]
		EndWithParent(cmd)
		log, err := os.OpenFile(c.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		cmd.Stdout, cmd.Stderr = log, log
		err = cmd.Start()
		log.Close()
		if err != nil {
			return fmt.Errorf("bench: starting %s: %w", c.Name, err)
		}
		n.cmds = append(n.cmds, cmd)
		wg.Go(func(p *contain.Panic) { cancel(p) }, func() {
			err := cmd.Wait()
			if ctx.Err() == nil {
				cancel(fmt.Errorf("bench: %s ended (%v): %s", c.Name, or(err, "status 0"), LastLines(c.LogFile())))
			}
		})
	}
	return nil
}

func or(err error, otherwise string) string {
	if err == nil {
		return otherwise
	}
	return err.Error()
}

// end asks all to end, kills those that do not, and waits for them.
func (n *Nodes) end(wg *contain.Group) {
	for _, cmd := range n.cmds {
		if cmd.Process.Signal(os.Interrupt) != nil { // gone already, or a system without signals
			cmd.Process.Kill()
		}
	}
	kill := contain.After(endTime, nil, func() {
		for _, cmd := range n.cmds {
			cmd.Process.Kill()
		}
	})
	defer kill.Stop()
	wg.Wait()
}

// Ready waits until all have been started, and says which process each is.
func (n *Nodes) Ready(ctx context.Context) ([]Process, error) {
	select {
	case <-n.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var ps []Process
	for i, c := range n.commands {
		ps = append(ps, Process{Name: c.Name, Role: c.Role, PID: n.cmds[i].Process.Pid})
	}
	return ps, nil
}

// WaitFor waits until a node has printed n lines that begin so, and returns the rest of each.
func (c *Command) WaitFor(ctx context.Context, prefix string, n int) ([]string, error) {
	tick := time.NewTicker(often / 5)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(c.LogFile())
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("bench: %w", err)
		}
		var found []string
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, prefix); ok && strings.HasSuffix(rest, "\n") {
				found = append(found, strings.TrimSpace(rest))
			}
		}
		if len(found) >= n {
			return found, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.DeadlineExceeded) {
				return nil, err
			}
			return nil, fmt.Errorf("bench: %s is not ready: %s", c.Name, LastLines(c.LogFile()))
		}
	}
}

// mostLast is how many bytes from the end of a log LastLines looks at.
const mostLast = 16 << 10

// LastLines are the last lines of a node's log, for an error.
func LastLines(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > mostLast {
		_, err = f.Seek(-mostLast, io.SeekEnd)
		if err != nil {
			return err.Error()
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, mostLast))
	if err != nil {
		return err.Error()
	}
	lines := slices.Collect(strings.Lines(strings.TrimSpace(string(text))))
	return strings.TrimSpace(strings.Join(lines[max(0, len(lines)-5):], ""))
}
