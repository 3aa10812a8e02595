package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/proxy"

	"peel/client/path"
	"peel/directory"
	"peel/testnet/bench"
	"peel/testnet/plan"
	"peel/testnet/story"
)

// setup is what the node's process is made of.
func (n *node) setup() *Setup {
	s := &Setup{
		Machine: Machine{Name: n.name, Role: n.role, Place: n.lab.places[n.addr], Addr: netip.AddrPortFrom(n.addr, n.port)},
		Network: n.lab.network, Keys: n.keys, Script: n.script, Seed: n.lab.plan.Seed, Shared: n.lab.ground.Traits().Shared,
	}
	if n.role == roleAuthority {
		s.Signing, s.Certificate, s.Params, s.Measure = n.signing, n.certificate, n.params(0), n.lab.plan.Measure
		return s
	}
	s.Family, s.Bandwidth = n.family, uint64(n.lab.bandwidth(n.name))
	if n.exit {
		s.Exit = n.lab.exitPolicy()
	}
	return s
}

// startProgram starts the node as a process, whose files are written before the first time.
func (n *node) startProgram() error {
	if n.program == nil {
		p, err := n.lab.newProgram(n.setup())
		if err != nil {
			return err
		}
		n.program = p
	}
	n.program.turn.Lock()
	defer n.program.turn.Unlock()
	return n.startAgain()
}

// startAgain is for who has the turn.
func (n *node) startAgain() error { return n.program.start() }

// stopProgram ends the process: at once with SIGKILL, or with SIGTERM, as an operator does.
func (n *node) stopProgram(atOnce bool) {
	with, within := syscall.SIGTERM, drainTime
	if atOnce {
		n.program.kills.Add(1)
		with, within = syscall.SIGKILL, endTime
	} else {
		n.program.turn.Lock()
		defer n.program.turn.Unlock()
	}
	if err := n.program.end(with, within); err != nil {
		n.lab.broken("a node ends when it is asked to", "%v", err)
	}
	n.lab.story.State(n.name, story.Down)
	n.lab.story.Unlink(n.name)
}

// restartProgram ends the process with SIGTERM, which lets what runs on it end first, and starts it again, unless it was killed meanwhile.
// It does not wait for that.
func (n *node) restartProgram() {
	kills := n.program.kills.Load()
	n.lab.running.Go(func() {
		n.stopProgram(false)
		n.program.turn.Lock()
		defer n.program.turn.Unlock()
		if n.lab.ctx.Err() != nil || n.program.up() || n.program.kills.Load() != kills {
			return
		}
		if err := n.startAgain(); err != nil && n.lab.ctx.Err() == nil {
			n.lab.broken("what befalls the network can be done", "restart %s: %v", n.name, err)
		}
		if n.program.kills.Load() != kills { // just before it was there
			n.stopProgram(true)
		}
	})
}

// programOf is the process of a node or a client; nil: it is none.
func (l *Lab) programOf(name string) *program {
	if n := l.byName[name]; n != nil {
		return n.program
	}
	for _, p := range l.doors {
		if p.name == name {
			return p.program
		}
	}
	return nil
}

// programs are all processes.
func (l *Lab) programs() (all []*program) {
	for _, n := range l.nodes {
		if n.program != nil {
			all = append(all, n.program)
		}
	}
	for _, d := range l.doors {
		all = append(all, d.program)
	}
	return all
}

// each does something to all processes, to some at a time.
func (l *Lab) each(most int, do func(*program)) {
	var wg sync.WaitGroup
	places := make(chan struct{}, most)
	for _, p := range l.programs() {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			do(p)
		})
	}
	wg.Wait()
}

// endPrograms ends all processes at once, as they are: the run is over.
func (l *Lab) endPrograms() {
	if l.starter == nil {
		return
	}
	l.each(len(l.machines), func(p *program) {
		if err := p.end(syscall.SIGINT, endTime); err != nil {
			l.broken("a node ends when it is asked to", "%v", err)
		}
		p.hear()
		if p.disk {
			p.answered() // or nobody asks any longer: who asks reads on the disk
			if err := unmount(p.dir); err != nil {
				l.broken("what befalls the network can be done", "%s: %v", p.name, err)
			}
		}
	})
	l.running.Wait()
	l.starter.end()
	l.starter = nil
}

// answered waits until the process is not being asked: askTime at most.
func (p *program) answered() {
	p.mu.Lock()
	asking := p.asking
	p.mu.Unlock()
	if asking != nil {
		<-asking
	}
}

// What is looked at of a process's log (spec/queues.md, section 7).
const (
	mostHeard     = 64 << 20 // bytes, from its beginning
	mostHeardLine = 64 << 10 // bytes of one line, with its end; the rest of a longer one counts as lines of their own
)

// hear looks in the log of a process for what it is expected to tell its operator.
func (p *program) hear() {
	says := p.lab.plan.Expect.Says
	if !slices.ContainsFunc(says, func(s plan.Says) bool { return s.Node == p.name }) {
		return
	}
	f, err := os.Open(p.logFile())
	if err != nil {
		return
	}
	defer f.Close()
	for r := bufio.NewReaderSize(io.LimitReader(f, mostHeard), mostHeardLine); ; {
		text, err := r.ReadSlice('\n')
		line := strings.ReplaceAll(string(text), `\"`, `"`)
		for i, s := range says {
			if s.Node == p.name && (strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR")) && strings.Contains(line, s.Text) {
				p.lab.said[i].Store(true)
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

const ballast = "ballast" // what fills a disk

// fill fills the disk that the process's folder is on, or makes room on it again.
func (p *program) fill(full bool) error {
	if !p.disk {
		return fmt.Errorf("lab: the folder of %s is on no disk of its own, which could be filled", p.name)
	}
	name := filepath.Join(p.dir, ballast)
	if !full {
		return os.Remove(name)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 1} { // to the last byte
		for b := make([]byte, size); err == nil; {
			_, err = f.Write(b)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
		err = nil
	}
	return nil
}

// filled says whether an event of the plan fills the disk of a node.
func (l *Lab) filled(name string) bool {
	for i := range l.plan.Events {
		e := &l.plan.Events[i]
		if e.Do != plan.Fill {
			continue
		}
		for _, n := range e.Targets() {
			if n == name || strings.HasPrefix(n, "any ") {
				return true
			}
		}
	}
	return false
}

// door is a client that is a process, which programs use by way of its SOCKS port.
type door struct {
	*program
	told map[uint64]bool // circuits whose path was looked at; for who has the turn
}

// startDoor starts a client as a process.
func (l *Lab) startDoor(name string, at netip.AddrPort) error {
	m := Machine{Name: name, Role: roleClient, Place: l.places[at.Addr()], Addr: at}
	p, err := l.newProgram(&Setup{Machine: m, Network: l.network, Seed: l.plan.Seed})
	if err != nil {
		return err
	}
	d := &door{program: p, told: make(map[uint64]bool)}
	l.clients, l.doors = append(l.clients, d), append(l.doors, d)
	return p.start()
}

// Ready waits until the client is.
func (d *door) Ready(ctx context.Context) error {
	for {
		_, err := d.ask(ctx, "/readyz")
		if err == nil {
			return nil
		}
		if !sleepUntil(ctx, time.Now().Add(200*time.Millisecond)) {
			return fmt.Errorf("%w (%s)", err, bench.LastLines(d.logFile()))
		}
	}
}

// DialContext connects through the client.
func (d *door) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	at := d.on.Addr
	c, err := d.lab.ground.Dial(ctx, at.Addr(), network, at.String())
	if err != nil {
		return nil, err
	}
	way, err := proxy.SOCKS5(network, at.String(), nil, nil)
	if err == nil {
		_, err = way.(interface {
			DialWithConn(context.Context, net.Conn, string, string) (net.Addr, error)
		}).DialWithConn(ctx, c, network, addr)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (d *door) Consensus() *directory.Consensus {
	seen, _ := d.known()
	return seen.consensus
}

func (d *door) Panics() uint64 {
	_, all := d.known()
	return all.panics
}

// Again is as the client's window has it.
func (d *door) Again() uint64 {
	_, all := d.known()
	return all.again
}

func (d *door) pathOf(net.Conn) []string { return nil }

// circuits lists the circuits that the client had open when it was asked last, tells of those that are new or over, and looks at the paths of
// new ones. One that goes through what is no relay of the plan is left out: it is none of this network.
func (d *door) circuits(now time.Time) []story.Circuit {
	d.turn.Lock()
	defer d.turn.Unlock()
	seen, _ := d.known()
	list, told := make([]story.Circuit, 0, len(seen.circuits)), make(map[uint64]bool)
	for _, c := range seen.circuits {
		var names []string
		var p path.Path
		for _, hop := range c.Path {
			if n := d.lab.byName[hop.Nickname]; n != nil {
				names = append(names, n.name)
				p = append(p, &directory.Entry{Nickname: n.name, ID: n.id, Addrs: []netip.AddrPort{netip.AddrPortFrom(n.addr, n.port)}})
			}
		}
		if len(p) == 0 || len(p) < len(c.Path) || told[c.ID] {
			continue
		}
		s := story.Circuit{
			Client: d.name, ID: c.ID, Path: names, State: stateOf(c.Closing), Purpose: c.Purpose,
			Streams: max(c.Streams, 0), Sent: c.Sent, Received: c.Received, Begun: now.Add(-time.Duration(min(max(c.Age, 0), 1<<30)) * time.Second),
		}
		if told[c.ID] = true; !d.told[c.ID] {
			d.lab.checkPath(d.name, p)
			d.lab.story.Circuit(now, d.name, s, fmt.Sprintf("circuit %d is open: %s", c.ID, strings.Join(names, " → ")))
		}
		list = append(list, s)
	}
	for id := range d.told {
		if seen.open[id] { // it may be none of those listed
			told[id] = true
		} else {
			d.lab.story.Circuit(now, d.name, story.Circuit{ID: id, State: story.Closed}, fmt.Sprintf("circuit %d is closed", id))
		}
	}
	d.told = told
	return list
}

// ownFolder makes a program's folder, on a small disk of its own if it is to be filled.
func (p *program) ownFolder() error {
	if err := os.Mkdir(p.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("lab: %w", err)
	}
	if !p.lab.filled(p.name) {
		return nil
	}
	if err := mountSmall(p.dir); err != nil {
		return fmt.Errorf("lab: a small disk for %s: %w", p.name, err)
	}
	p.disk = true
	return nil
}
