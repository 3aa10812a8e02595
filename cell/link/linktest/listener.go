package linktest

import (
	"net"
	"net/netip"
	"sync"
)

// A Listener accepts the connections that are sent to Conns, until it is closed. Conns has no room: who sends waits.
type Listener struct {
	At     netip.AddrPort
	Conns  chan net.Conn
	Closed chan struct{} // is closed when it is

	once sync.Once
}

// Listen makes one.
func Listen(at netip.AddrPort) *Listener {
	return &Listener{At: at, Conns: make(chan net.Conn), Closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.Conns:
		return c, nil
	case <-l.Closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.Closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.At) }
