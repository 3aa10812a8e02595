package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"time"

	"peel/testnet/memnet"
	"peel/testnet/netns"
	"peel/testnet/plan"
)

// namespaces is the ground of processes on machines that are network namespaces of Linux: between them lines carry packets.
type namespaces struct {
	settling time.Duration
	packets  *netns.Net
	spaces   map[netip.Addr]*netns.Space
	cancel   context.CancelFunc
	carried  chan error // of the lines, when they have ended
}

// Namespaces makes a ground of network namespaces for nodes that are processes of their own (Config.Processes), in real time. It needs
// Linux, and root.
func Namespaces(p *plan.Plan) Outside {
	return &namespaces{
		settling: timeToStart(p.Authorities+p.Relays.Count+p.Clients) + p.Settling(), packets: netns.New(p.Seed), spaces: make(map[netip.Addr]*netns.Space),
	}
}

func (g *namespaces) Traits() Traits {
	return Traits{Name: "as processes, in network namespaces", Settling: g.settling, Real: true}
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
	return s.Listen(at)
}

func (g *namespaces) Dial(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
	s, err := g.space(from)
	if err != nil {
		return nil, err
	}
	return s.DialContext(ctx, network, addr)
}

func (g *namespaces) Start(on netip.Addr, cmd *exec.Cmd) error {
	s, err := g.space(on)
	if err != nil {
		return err
	}
	return s.Start(cmd)
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

// Cut has nothing to do: what a process had ends with it.
func (g *namespaces) Cut(netip.Addr) {}

func (g *namespaces) End() error {
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
