package lab

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/relay"
	"peel/testnet/bench"
	"peel/testnet/plan"
	"peel/testnet/story"
)

// Processes is how authorities, relays and clients run as processes of their own, on a ground that is an Outside.
type Processes struct {
	Program string // that they are
	// Write writes what a node needs into its folder, and returns the arguments of Program that run it.
	Write func(dir string, n *Setup) (args []string, err error)
	// Ask asks a node that runs, by its folder, for a page of its window: /metrics, /readyz, of an authority /authority, of a client /circuits and /status.
	// It reads no more than most bytes: a longer page is an error.
	Ask func(ctx context.Context, dir, page string, most int64) ([]byte, error)
}

// Setup is what a node is made of.
type Setup struct {
	Machine
	Network     *directory.Network
	Keys        relay.Keys            // of a relay and, without an onion key, of an authority
	Signing     ed25519.PrivateKey    // of an authority
	Certificate directory.Certificate // of an authority
	Params      directory.Params      // that it votes for
	Measure     bool                  // and it measures relays
	Family      []cell.NodeID         // of a relay
	Bandwidth   uint64                // of a relay: what it offers, and sends at most; 0: as usual
	Exit        []string              // of a relay that is an exit
	Script      string                // how it misbehaves
	Seed        uint64                // that its misdeeds follow from
	Shared      bool                  // all machines dial from one address, which must not count as one client
}

// What is waited for from a process.
const (
	endTime   = 30 * time.Second // its end, when the run is over
	drainTime = 40 * time.Second // its end, when it is restarted: it lets what runs on it end first
)

// mostFolder is how long the name of a node's folder may be: a socket below it has a name of some hundred bytes at most.
const mostFolder = 80

// program is a node as a process, or rather one after the other, in one folder.
type program struct {
	lab  *Lab
	name string
	dir  string
	on   Machine
	args []string
	disk bool // its folder is a disk of its own

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil: it does not run
	done   chan struct{} // closed when it has ended
	told   bool          // to end
	asked  bool          // to, by a signal that it heeds
	frozen bool
	gone   bool // it ended by itself
	born   int  // how often it was started
	seen   look // in the last of its answers
	past   counts
	age    time.Time     // of the file with its consensus
	asking chan struct{} // closed when it has answered, or not in time; nil: it is not being asked
	heard  time.Time     // when this process answered last; zero: not yet
	silent bool          // it did, and does no longer
	missed bool          // and that was told

	kills atomic.Int64 // how often it was ended at once

	turn sync.Mutex // of who ends it, starts it, or does one after the other
}

// newProgram writes the files of a node.
func (l *Lab) newProgram(s *Setup) (*program, error) {
	p := &program{lab: l, name: s.Name, dir: filepath.Join(l.cfg.Dir, s.Name), on: s.Machine}
	if n := len(p.dir); n > mostFolder {
		return nil, fmt.Errorf("lab: %s: the name of this folder is too long for a node's socket: set TMPDIR to a shorter one", p.dir)
	}
	if err := p.ownFolder(); err != nil {
		return nil, err
	}
	var err error
	if p.args, err = l.cfg.Processes.Write(p.dir, s); err != nil {
		if p.disk {
			err = errors.Join(err, unmount(p.dir))
		}
		return nil, fmt.Errorf("lab: %s: %w", s.Name, err)
	}
	return p, nil
}

// logFile is beside the folder, which may be full.
func (p *program) logFile() string { return p.dir + ".log" }

// start starts a process, and has somebody wait for its end.
func (p *program) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && !p.gone {
		return fmt.Errorf("lab: %s runs already", p.name)
	}
	if p.lab.ctx.Err() != nil { // whoever ends all has been here, or will see what is started now
		return context.Cause(p.lab.ctx)
	}
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(p.lab.cfg.Processes.Program, p.args...)
	cmd.Args[0] = os.Args[0] // by which this one was called
	cmd.Stdout, cmd.Stderr, cmd.Env = log, log, ownEnv(os.Environ())
	bench.EndWithParent(cmd)
	if err := p.lab.starter.do(func() error { return p.lab.outside.Start(p.on.Addr.Addr(), cmd) }); err != nil {
		return fmt.Errorf("lab: starting %s: %w", p.name, err)
	}
	done := make(chan struct{})
	p.forget()
	p.born++
	p.cmd, p.done, p.told, p.asked, p.frozen, p.gone = cmd, done, false, false, false, false
	p.lab.story.State(p.name, story.Up) // before its end is waited for
	p.lab.running.Go(func() {
		err := cmd.Wait()
		p.mu.Lock()
		told, asked := p.told, p.asked
		if !told {
			p.gone, p.seen.circuits = true, nil
			p.lab.story.State(p.name, story.Down)
			p.lab.story.Unlink(p.name)
		}
		p.mu.Unlock()
		switch {
		case !told:
			p.lab.endedByItself("%s: %v: %s", p.name, ended(err), bench.LastLines(p.logFile()))
		case asked && cmd.ProcessState.ExitCode() > 0: // a second signal, or one before it heeds any, ends it without a status
			p.lab.broken("a node ends well when it is asked to", "%s: %v: %s", p.name, ended(err), bench.LastLines(p.logFile()))
		}
		close(done)
	})
	return nil
}

// ofUnit are variables that a service manager gives to this process, and to none that it starts: folders and sockets are its own.
var ofUnit = []string{
	"RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY", "CONFIGURATION_DIRECTORY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET",
	"WATCHDOG_USEC", "WATCHDOG_PID",
}

// ownEnv is an environment without these.
func ownEnv(all []string) []string {
	return slices.DeleteFunc(all, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(ofUnit, name)
	})
}

func ended(err error) string {
	if err == nil {
		return "status 0"
	}
	return err.Error()
}

// end ends the process with a signal, or by force if that takes too long, and waits until it is gone. The error says that it took too long.
func (p *program) end(with os.Signal, within time.Duration) error {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.told = true
	p.asked = p.asked || with != syscall.SIGKILL
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	err := cmd.Process.Signal(with)
	if with != syscall.SIGKILL {
		goOn(cmd) // one that is frozen hears of it only then
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		cmd.Process.Kill()
	}
	var late error
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
		late = fmt.Errorf("%s did not end within %v of %v", p.name, within, with)
		cmd.Process.Kill()
		<-done
	}
	p.mu.Lock()
	if p.cmd == cmd { // and nobody else has waited for the same
		p.cmd = nil
		p.forget()
	}
	p.mu.Unlock()
	return late
}

// forget forgets what was seen of a process that has ended, but for what it counted. The caller holds mu.
func (p *program) forget() {
	p.past.plus(p.seen.counts)
	p.seen, p.heard, p.silent, p.missed = look{}, time.Time{}, false, false
}

// freeze stops the process, or lets it go on.
func (p *program) freeze(frozen bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.gone {
		return nil
	}
	if p.frozen = frozen; !frozen && !p.heard.IsZero() {
		p.heard = time.Now() // it could not answer, and was not asked
	}
	if frozen {
		return halt(p.cmd)
	}
	return goOn(p.cmd)
}

func (p *program) up() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil && !p.gone
}

// runs says that the process runs, and is not kept from it by us.
func (p *program) runs() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil && !p.gone && !p.frozen
}

func (c *counts) plus(o counts) {
	c.breaches += o.breaches
	c.panics += o.panics
	c.faults += o.faults
	c.cells += o.cells
	c.deeds += o.deeds
	c.again += o.again
}

// refuseOutside says what of a plan cannot be had where nodes are processes.
func refuseOutside(p *plan.Plan) error {
	for _, e := range p.Events {
		switch e.Do {
		case plan.Skew, plan.Slow:
			return fmt.Errorf("lab: event %q: processes share the machine's clock and disk: use --ground virtual or loopback", e.Do)
		case plan.Corrupt:
			return fmt.Errorf("lab: event %q: a process misbehaves from its start or not at all: use [[villain]], or --ground virtual or loopback", e.Do)
		case plan.Fill:
			if os.Geteuid() != 0 {
				return fmt.Errorf("lab: event %q: the folder of a process is put on a small disk in memory, which only root can do: run it as root, or with --ground virtual", e.Do)
			}
		}
	}
	for _, v := range p.Villains {
		if v.Script == equivocate {
			return fmt.Errorf("lab: villain %s=%s: a process has one face: use --ground virtual or loopback", v.Node, v.Script)
		}
	}
	return nil
}
