package memnet

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"

	"peel/cell/link/pipe"
)

// Carry takes the bytes of a connection that real sockets have, dialled by from, over a line of the net, so that they meet its weather: the
// connection returned is to be used instead. Wait waits for what it starts.
func (n *Net) Carry(from, to netip.Addr, real net.Conn) net.Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	pair := [2]netip.Addr{from, to}
	n.drawn[pair]++
	ln := &line{net: n, from: from, to: to, rng: rand.New(rand.NewPCG(n.seed, draw(pair, n.drawn[pair])))}
	ln.a.line, ln.b.line = ln, ln
	o := pipe.Options{Wiretap: ln.weather}
	if a, ok := real.LocalAddr().(*net.TCPAddr); ok {
		o.A = a.AddrPort()
	}
	if a, ok := real.RemoteAddr().(*net.TCPAddr); ok {
		o.B = a.AddrPort()
	}
	ln.a.Conn, ln.b.Conn = pipe.New(o)
	ln.setWays(n.way)
	n.lines[ln] = struct{}{}
	n.carrying.Go(func() {
		io.Copy(real, &ln.b)
		real.Close()
		ln.b.Close()
	})
	n.carrying.Go(func() {
		io.Copy(&ln.b, real)
		real.Close()
		ln.b.Close()
	})
	return &ln.a
}

// Wait waits until all connections that Carry carried have ended.
func (n *Net) Wait() { n.carrying.Wait() }

// Shake lets pass the time that a connection takes to be made.
func (n *Net) Shake(ctx context.Context, from, to netip.Addr) error {
	n.mu.Lock()
	there, back := n.way(from, to), n.way(to, from)
	n.mu.Unlock()
	return sleep(ctx, there.Delay+back.Delay)
}
