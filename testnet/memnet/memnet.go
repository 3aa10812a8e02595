// Package memnet is an internet in memory, for networks that run in one process and, in a bubble of testing/synctest, in virtual
// time: machines with addresses, lines between them with delay, rate and loss, and all that can befall them.
package memnet

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"peel/cell/link/pipe"
)

// Way is what lies between two machines, in one direction.
type Way struct {
	Delay  time.Duration
	Jitter time.Duration // bytes take up to so much longer, at random
	Rate   int           // bytes a second of one connection; 0: without limit
	Loss   float64       // of segments of 1448 bytes, 0 to 1; what is lost is sent again, as TCP does, and comes late
	Resets float64       // of writes, 0 to 1, at which the connection breaks
}

const (
	segmentSize = 1448
	leastRetry  = 200 * time.Millisecond // TCP waits so long at least before it sends again what nothing follows
	waiting     = 256                    // connections that wait for an Accept; one more is refused
	synTime     = 2 * time.Minute        // how long a dial tries a machine that is silent
)

// Net is an internet. Its methods may be called from any goroutine, at any time.
type Net struct {
	seed uint64

	mu       sync.Mutex
	way      func(from, to netip.Addr) Way
	ports    map[netip.AddrPort]*listener
	hosts    map[netip.Addr]*host
	lines    map[*line]struct{}
	apart    map[netip.Addr]int // parts of a divided network; nil: it is whole
	drawn    map[[2]netip.Addr]uint64
	heard    chan struct{}  // closed and made anew when somebody who was silent may be heard again
	carrying sync.WaitGroup // of Carry
	free     uint16         // the port that the next dial comes from
}

// host is what is known of one machine.
type host struct {
	card   *pipe.Card
	frozen bool
}

// New makes an internet without delays; what is drawn at random follows from seed and from what the machines do.
func New(seed uint64) *Net {
	return &Net{
		seed: seed, way: func(_, _ netip.Addr) Way { return Way{} },
		ports: make(map[netip.AddrPort]*listener), hosts: make(map[netip.Addr]*host), lines: make(map[*line]struct{}),
		drawn: make(map[[2]netip.Addr]uint64), heard: make(chan struct{}), free: 40000,
	}
}

// SetWays says what lies between machines from now on, also for connections there are.
func (n *Net) SetWays(way func(from, to netip.Addr) Way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.way = way
	for l := range n.lines {
		l.setWays(way)
	}
}

// SetRate limits what a machine sends in all to so many bytes a second; 0: without limit.
func (n *Net) SetRate(a netip.Addr, rate int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.host(a).card.SetRate(rate)
}

// host is the machine at an address. The caller holds mu.
func (n *Net) host(a netip.Addr) *host {
	h := n.hosts[a]
	if h == nil {
		h = &host{card: pipe.NewCard(0)}
		n.hosts[a] = h
	}
	return h
}

// Listen listens at an address of the internet.
func (n *Net) Listen(at netip.AddrPort) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ports[at] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(at), Err: syscall.EADDRINUSE}
	}
	l := &listener{net: n, addr: at, conns: make(chan net.Conn, waiting), closed: make(chan struct{})}
	n.ports[at] = l
	return l, nil
}

// Dialer dials as the machine at from.
func (n *Net) Dialer(from netip.Addr) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := n.dial(ctx, from, addr)
		if err != nil {
			return nil, &net.OpError{Op: "dial", Net: network, Err: err}
		}
		return c, nil
	}
}

func (n *Net) dial(ctx context.Context, from netip.Addr, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("memnet: %q: an address and a port are needed", addr)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, synTime, syscall.ETIMEDOUT)
	defer cancel()
	n.mu.Lock()
	there, back := n.way(from, to.Addr()), n.way(to.Addr(), from)
	n.mu.Unlock()
	if err := sleep(ctx, there.Delay); err != nil {
		return nil, err
	}
	l, err := n.reach(ctx, from, to)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, back.Delay); err != nil {
		return nil, err
	}
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	return n.connect(from, l)
}

// reach waits until the machine can be heard, and says who listens there; nil: nobody.
func (n *Net) reach(ctx context.Context, from netip.Addr, to netip.AddrPort) (*listener, error) {
	for {
		n.mu.Lock()
		l, mute, heard := n.ports[to], n.mute(from, to.Addr()), n.heard
		n.mu.Unlock()
		if !mute {
			return l, nil
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// mute says whether nothing gets from one machine to another. The caller holds mu.
func (n *Net) mute(a, b netip.Addr) bool {
	if h := n.hosts[a]; h != nil && h.frozen {
		return true
	}
	if h := n.hosts[b]; h != nil && h.frozen {
		return true
	}
	pa, oka := n.apart[a]
	pb, okb := n.apart[b]
	return oka && okb && pa != pb
}

// connect makes the connection, and hands its far end to the listener.
func (n *Net) connect(from netip.Addr, l *listener) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.free++; n.free < 40000 {
		n.free = 40000
	}
	pair := [2]netip.Addr{from, l.addr.Addr()}
	n.drawn[pair]++
	ln := &line{net: n, from: from, to: l.addr.Addr(), rng: rand.New(rand.NewPCG(n.seed, draw(pair, n.drawn[pair])))}
	ln.a.line, ln.b.line = ln, ln
	ln.a.Conn, ln.b.Conn = pipe.New(pipe.Options{
		A: netip.AddrPortFrom(from, n.free), B: l.addr, Wiretap: ln.weather,
		CardA: n.host(from).card, CardB: n.host(l.addr.Addr()).card,
	})
	ln.setWays(n.way)
	if n.mute(ln.from, ln.to) {
		ln.hold(true)
	}
	if !l.offer(&ln.b) {
		return nil, syscall.ECONNREFUSED
	}
	n.lines[ln] = struct{}{}
	return &ln.a, nil
}

// draw is a number that two addresses and a count make.
func draw(pair [2]netip.Addr, count uint64) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, pair[0], pair[1], count)
	return h.Sum64()
}

// Cut breaks all connections of a machine and closes its listeners: what others notice when it crashes.
func (n *Net) Cut(a netip.Addr) {
	n.mu.Lock()
	var ls []*listener
	for at, l := range n.ports {
		if at.Addr() == a {
			ls = append(ls, l)
		}
	}
	var lines []*line
	for l := range n.lines {
		if l.from == a || l.to == a {
			lines = append(lines, l)
			delete(n.lines, l)
		}
	}
	n.mu.Unlock()
	for _, l := range ls {
		l.Close()
	}
	for _, l := range lines {
		l.cut()
	}
}

// Freeze keeps a machine from being heard and from hearing, without a word to anybody, until it is thawed.
func (n *Net) Freeze(a netip.Addr, frozen bool) {
	n.change(func() { n.host(a).frozen = frozen })
}

// Part divides the network: machines that are in different parts no longer hear each other; those in none hear all. nil makes it
// whole again.
func (n *Net) Part(parts map[netip.Addr]int) {
	n.change(func() { n.apart = parts })
}

func (n *Net) change(do func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	do()
	for l := range n.lines {
		l.hold(n.mute(l.from, l.to))
	}
	close(n.heard)
	n.heard = make(chan struct{})
}

// Connections is how many there are.
func (n *Net) Connections() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.lines)
}

// sleep lets time pass; the error is why it ended early.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Close breaks all connections and closes all listeners that are left.
func (n *Net) Close() {
	n.mu.Lock()
	var all []netip.Addr
	for at := range n.ports {
		all = append(all, at.Addr())
	}
	for l := range n.lines {
		all = append(all, l.from)
	}
	n.mu.Unlock()
	for _, a := range all {
		n.Cut(a)
	}
}
