package pipe

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// All tests in memory stand on that.
func TestAPipeIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := New(Options{})
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}
