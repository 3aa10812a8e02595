package memnet

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"

	"peel/cell/link/pipe"
)

// Dial is how connections are made.
type Dial = func(ctx context.Context, network, addr string) (net.Conn, error)

// Over dials as the machine at from, with sockets that dial makes, and has what is sent meet the weather of the net.
func (n *Net) Over(from netip.Addr, dial Dial) Dial {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, fmt.Errorf("memnet: %w", err)
		}
		if err := n.shake(ctx, from, to); err != nil {
			return nil, err
		}
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return n.Carry(from, to.Addr(), c), nil
	}
}

// Carry takes the bytes of a connection that real sockets have, dialled by from, over a line of the net, so that they meet its weather: the
// connection returned is to be used instead. Wait waits for what it starts.
func (n *Net) Carry(from, to netip.Addr, real net.Conn) net.Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	pair := [2]netip.Addr{from, to}
	n.drawn[pair]++
	ln := &line{net: n, from: from, to: to, gone: make(chan struct{}), rng: rand.New(rand.NewPCG(n.seed, draw(pair, n.drawn[pair])))}
	ln.a.line, ln.b.line = ln, ln
	o := pipe.Options{Wiretap: ln.weather, CardA: n.host(from).card, CardB: n.host(to).card}
	if a, ok := real.LocalAddr().(*net.TCPAddr); ok {
		o.A = a.AddrPort()
	}
	if a, ok := real.RemoteAddr().(*net.TCPAddr); ok {
		o.B = a.AddrPort()
	}
	ln.a.Conn, ln.b.Conn = pipe.New(o)
	ln.setWays(n.way)
	if n.mute(from, to) {
		ln.hold(true)
	}
	n.lines[ln] = struct{}{}
	n.carrying.Go(func() {
		_, err := io.Copy(real, &ln.b)
		if w, ok := real.(interface{ CloseWrite() error }); err == nil && ok && w.CloseWrite() == nil {
			<-ln.gone // the far end may still have something to say
		}
		real.Close()
		ln.b.Close()
	})
	n.carrying.Go(func() {
		if _, err := io.Copy(&ln.b, real); err == nil {
			ln.b.CloseWrite()
			return
		}
		select {
		case <-ln.gone:
		default:
			ln.cut() // as the real one was
		}
	})
	return &ln.a
}

// Wait waits until all connections that Carry carried have ended.
func (n *Net) Wait() { n.carrying.Wait() }

// shake lets pass the time that a connection takes to be made: as long as the other end cannot be heard, it is not.
func (n *Net) shake(ctx context.Context, from netip.Addr, to netip.AddrPort) error {
	n.mu.Lock()
	there, back := n.way(from, to.Addr()), n.way(to.Addr(), from)
	n.mu.Unlock()
	if _, err := n.reach(ctx, from, to); err != nil {
		return err
	}
	return sleep(ctx, there.Delay+back.Delay)
}
