package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"peel/testnet/memnet"
	"peel/testnet/plan"
)

// ports are addresses of 127.0.0.0/8, each with a port that nobody else has.
type ports struct {
	mu   sync.Mutex
	held map[netip.AddrPort]net.Listener // from Place to Listen
}

// Ports are taken below those that systems give to connections, so that no connection has one while its node is down.
const (
	firstPort  = 10_000
	mostPorts  = 20_000
	portTries  = 50
	mostOfThem = 1 << 16 // addresses of machines
)

// Place gives each a /16 of its own, as long as there are such.
func (p *ports) Place(i int, role string) (netip.AddrPort, error) {
	if i >= mostOfThem-256 {
		return netip.AddrPort{}, errors.New("lab: more machines than loopback has networks: use --ground virtual")
	}
	a := netip.AddrFrom4([4]byte{127, byte(i), byte(i>>8) + 1, 1})
	p.mu.Lock()
	defer p.mu.Unlock()
	var failed error
	for range portTries {
		at := netip.AddrPortFrom(a, uint16(firstPort+rand.IntN(mostPorts)))
		l, err := net.Listen("tcp", at.String())
		if err != nil {
			failed = err
			continue
		}
		if p.held == nil {
			p.held = make(map[netip.AddrPort]net.Listener)
		}
		p.held[at] = l
		return at, nil
	}
	return netip.AddrPort{}, fmt.Errorf("lab: no port of %v can be had (%w): this ground needs all of 127.0.0.0/8, as Linux has it; elsewhere use --ground virtual", a, failed)
}

// Listen takes the port that Place found, or takes it again.
func (p *ports) Listen(at netip.AddrPort) (net.Listener, error) {
	p.mu.Lock()
	l := p.held[at]
	delete(p.held, at)
	p.mu.Unlock()
	if l != nil {
		return l, nil
	}
	return net.Listen("tcp", at.String())
}

// release gives up what is held of an address; none: all of it.
func (p *ports) release(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, l := range p.held {
		if at.Addr() == a || !a.IsValid() {
			l.Close()
			delete(p.held, at)
		}
	}
}

// loopback is the ground of sockets between nodes of this process, on 127.0.0.0/8. What is sent meets the weather in memory, on its way.
type loopback struct {
	memory
	ports
	settling time.Duration

	own       sync.Mutex
	listeners map[netip.AddrPort]net.Listener
}

// Loopback makes a ground of sockets, in real time, for nodes in this process.
func Loopback(p *plan.Plan) Ground {
	return &loopback{memory: memory{memnet.New(p.Seed)}, settling: max(time.Second, p.Settling()), listeners: make(map[netip.AddrPort]net.Listener)}
}

func (g *loopback) Traits() Traits {
	return Traits{Name: "over loopback, in one process", Settling: g.settling, Real: true}
}

func (g *loopback) Place(i int, role string) (netip.AddrPort, error) { return g.ports.Place(i, role) }

func (g *loopback) Listen(at netip.AddrPort) (net.Listener, error) {
	l, err := g.ports.Listen(at)
	if err == nil {
		g.own.Lock()
		g.listeners[at] = l
		g.own.Unlock()
	}
	return l, err
}

func (g *loopback) Dial(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	return g.Over(from, d.DialContext)(ctx, network, addr)
}

// Cut breaks connections, and keeps new ones from being made.
func (g *loopback) Cut(a netip.Addr) {
	g.own.Lock()
	for at, l := range g.listeners {
		if at.Addr() == a {
			l.Close()
			delete(g.listeners, at)
		}
	}
	g.own.Unlock()
	g.memory.Cut(a)
}

func (g *loopback) End() error {
	g.release(netip.Addr{})
	g.memory.Close()
	g.Wait()
	return nil
}
