package testnet

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// A connection through a whole network, from a client to a host, keeps what net.Conn promises.
func TestAConnectionThroughANetworkIsANetConn(t *testing.T) {
	n := share(t)
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, nil, err
		}
		defer l.Close()
		c, err := n.Client().DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			return nil, nil, nil, err
		}
		host, err := l.Accept()
		if err != nil {
			c.Close()
			return nil, nil, nil, err
		}
		return c, host, func() { c.Close(); host.Close() }, nil
	})
}
