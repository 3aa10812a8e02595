package testnet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"peel/testnet/memnet"
)

// later is a listener that takes connections when the last word of TCP's own handshake has come, as machines do, half a round trip after the caller
// has them. The network in memory hands them over at once: so the time for a link's handshake, which begins then, ends later.
type later struct {
	net.Listener
	half func(from netip.Addr) time.Duration
}

func (l later) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &laterConn{Conn: c, by: l.half(netip.MustParseAddrPort(c.RemoteAddr().String()).Addr())}, nil
}

type laterConn struct {
	net.Conn
	by time.Duration
}

func (c *laterConn) SetDeadline(t time.Time) error {
	if !t.IsZero() {
		t = t.Add(c.by)
	}
	return c.Conn.SetDeadline(t)
}

// A client works where its own line takes nearly 5 s there and back, which is what a link's handshake may take, or each line between all nodes 1.6 s
// (spec/client.md, section 9). Beyond it does not, and says at what it fails.
func TestHowLongALineMayBe(t *testing.T) {
	if os.Getenv("PEEL_SLOW") != "1" {
		t.Skip("needs some seconds of CPU: PEEL_SLOW=1 runs it")
	}
	for _, c := range []struct {
		all   bool // lines are so long, and not the client's alone
		rtt   time.Duration
		works bool
	}{{false, 4800 * time.Millisecond, true}, {false, 5200 * time.Millisecond, false}, {true, 1600 * time.Millisecond, true}, {true, 1800 * time.Millisecond, false}} {
		t.Run(fmt.Sprintf("%v, all %t", c.rtt, c.all), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				way := func(a, b netip.Addr) memnet.Way {
					if c.all || a == clientAddr || b == clientAddr {
						return memnet.Way{Delay: c.rtt / 2}
					}
					return memnet.Way{Delay: 20 * time.Millisecond}
				}
				m := newInMemory(t, make([]harm, 3), make([]harm, 6), func(l net.Listener) net.Listener {
					return later{l, func(from netip.Addr) time.Duration { return way(from, netip.Addr{}).Delay }}
				})
				time.Sleep(time.Minute) // the relays have their directory
				m.internet.SetWays(way)
				const size = 100_000
				m.serve("20.0.0.7:80", func(c net.Conn) {
					c.Write(make([]byte, size))
					c.Close()
				})
				cl := m.client()
				fetch := func(within time.Duration) (time.Duration, error) {
					at := time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), within)
					defer cancel()
					nc, err := cl.DialContext(ctx, "tcp", "20.0.0.7:80")
					if err != nil {
						return 0, err
					}
					defer nc.Close()
					if n, err := io.Copy(io.Discard, nc); err != nil || n != size {
						return 0, fmt.Errorf("%d bytes: %w", n, err)
					}
					return time.Since(at), nil
				}
				took, err := fetch(3 * time.Minute)
				if (err == nil) != c.works {
					t.Fatalf("the first page took %v: %v", took, err)
				}
				t.Logf("the first page took %v: %v", took, err)
				for range 3 {
					if !c.works {
						break
					}
					time.Sleep(time.Minute)
					if took, err := fetch(time.Minute); err != nil || took > 6*c.rtt {
						t.Errorf("another page took %v: %v", took, err)
					}
				}
			})
		})
	}
}
