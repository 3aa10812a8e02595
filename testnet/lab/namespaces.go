package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"sync"
	"time"

	"peel/testnet/memnet"
	"peel/testnet/netns"
	"peel/testnet/plan"
)

// namespaces is the ground of real kernels: each machine is a network namespace of Linux, and between them lines carry packets.
type namespaces struct {
	calm    bool
	packets *netns.Net
	spaces  map[netip.Addr]*netns.Space
	cancel  context.CancelFunc
	carried chan error // of the lines, when they have ended

	mu        sync.Mutex
	listeners map[*spaceListener]struct{}
	conns     map[*spaceConn]struct{}
}

// Namespaces makes a ground of network namespaces, in real time. It needs Linux, and root.
func Namespaces(p *plan.Plan) Outside {
	return &namespaces{
		calm: p.Weather == plan.Calm, packets: netns.New(p.Seed), spaces: make(map[netip.Addr]*netns.Space),
		listeners: make(map[*spaceListener]struct{}), conns: make(map[*spaceConn]struct{}),
	}
}

func (g *namespaces) Traits() Traits {
	t := Traits{Name: "in network namespaces", Settling: time.Second, Real: true}
	if !g.calm { // relays are in the first consensus, though they are far from all authorities
		t.Settling = 4 * time.Second
	}
	return t
}

// mostSpaces is how many machines there may be: each is a network of the kernel's, and holds three descriptors.
const mostSpaces = 250

func (g *namespaces) Refuse(p *plan.Plan) error {
	if n := p.Authorities + p.Relays.Count + p.Clients + len(p.Services); n > mostSpaces {
		return fmt.Errorf("lab: %d machines, but at most %d network namespaces: make the plan smaller, or take --ground virtual", n, mostSpaces)
	}
	return nil
}

// clientPort is where a client that is a process has its door.
const clientPort = 9050

func (g *namespaces) Place(i int, role string) (netip.AddrPort, error) {
	at, err := memory{}.Place(i, role)
	if role == roleClient {
		at = netip.AddrPortFrom(at.Addr(), clientPort)
	}
	return at, err
}

func (g *namespaces) Begin(_ context.Context, machines []Machine) error {
	for _, m := range machines {
		s, err := netns.NewSpace(m.Addr.Addr())
		if err != nil {
			return fmt.Errorf("lab: %w; or take another --ground", err)
		}
		g.spaces[s.Addr()] = s
		if err := g.packets.Add(s.Addr(), s.Wire()); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background()) // until End
	g.cancel, g.carried = cancel, make(chan error, 1)
	go func() { g.carried <- g.packets.Run(ctx) }()
	return nil
}

func (g *namespaces) space(a netip.Addr) (*netns.Space, error) {
	s := g.spaces[a]
	if s == nil {
		return nil, fmt.Errorf("lab: there is no machine %v", a)
	}
	return s, nil
}

func (g *namespaces) Listen(at netip.AddrPort) (net.Listener, error) {
	s, err := g.space(at.Addr())
	if err != nil {
		return nil, err
	}
	l, err := s.Listen(at)
	if err != nil {
		return nil, err
	}
	sl := &spaceListener{Listener: l, ground: g, on: at.Addr()}
	g.mu.Lock()
	g.listeners[sl] = struct{}{}
	g.mu.Unlock()
	return sl, nil
}

func (g *namespaces) Dial(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
	s, err := g.space(from)
	if err != nil {
		return nil, err
	}
	c, err := s.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return g.keep(c, from), nil
}

// Command is that of Outside.
func (g *namespaces) Command(on netip.Addr, name string, args ...string) *exec.Cmd {
	s, err := g.space(on)
	if err != nil {
		return &exec.Cmd{Path: name, Err: err}
	}
	return s.Command(name, args...)
}

func (g *namespaces) SetWays(way func(from, to netip.Addr) memnet.Way) error {
	g.packets.SetWays(way)
	return nil
}

func (g *namespaces) SetRate(a netip.Addr, rate int) error {
	g.packets.SetRate(a, rate)
	return nil
}

func (g *namespaces) Part(parts map[netip.Addr]int) error {
	g.packets.Part(parts)
	return nil
}

func (g *namespaces) Freeze(a netip.Addr, frozen bool) error {
	g.packets.Freeze(a, frozen)
	return nil
}

// Cut ends the machine's connections that are this process's as a kernel does when a process is killed that has not read all.
func (g *namespaces) Cut(a netip.Addr) {
	var ls []*spaceListener
	var cs []*spaceConn
	g.mu.Lock()
	for l := range g.listeners {
		if l.on == a {
			ls = append(ls, l)
		}
	}
	for c := range g.conns {
		if c.on == a {
			cs = append(cs, c)
		}
	}
	g.mu.Unlock()
	for _, l := range ls {
		l.Close()
	}
	for _, c := range cs {
		c.SetLinger(0)
		c.Close()
	}
}

// Counts are of the packets up to now.
func (g *namespaces) Counts() netns.Counts { return g.packets.Counts() }

func (g *namespaces) End() error {
	for a := range g.spaces {
		g.Cut(a)
	}
	var errs []error
	if g.cancel != nil {
		g.cancel()
		errs = append(errs, <-g.carried)
	}
	for _, s := range g.spaces {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// spaceListener is one on a machine.
type spaceListener struct {
	net.Listener
	ground *namespaces
	on     netip.Addr
}

// Accept implements net.Listener.
func (l *spaceListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.ground.keep(c, l.on), nil
}

// Close implements net.Listener.
func (l *spaceListener) Close() error {
	l.ground.mu.Lock()
	delete(l.ground.listeners, l)
	l.ground.mu.Unlock()
	return l.Listener.Close()
}

// spaceConn is a connection of a machine's that this process has.
type spaceConn struct {
	*net.TCPConn
	ground *namespaces
	on     netip.Addr
}

// keep remembers a connection until it is closed.
func (g *namespaces) keep(c net.Conn, on netip.Addr) net.Conn {
	sc := &spaceConn{c.(*net.TCPConn), g, on}
	g.mu.Lock()
	g.conns[sc] = struct{}{}
	g.mu.Unlock()
	return sc
}

// Close implements net.Conn.
func (c *spaceConn) Close() error {
	c.ground.mu.Lock()
	delete(c.ground.conns, c)
	c.ground.mu.Unlock()
	return c.TCPConn.Close()
}
