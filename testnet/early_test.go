package testnet

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	xproxy "golang.org/x/net/proxy"

	"peel/client/socks"
	"peel/testnet/memnet"
)

// Where an application is answered early, what it asks for comes one way through the network and back sooner: 40 ms for each of the three
// lines between client and exit. The time is virtual.
func TestAnEarlyAnswerSavesAWayThereAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newInMemory(t, make([]harm, 3), make([]harm, 6))
		const line = 20 * time.Millisecond
		m.internet.SetWays(func(a, b netip.Addr) memnet.Way {
			if a == b {
				return memnet.Way{} // an application is where its client is
			}
			return memnet.Way{Delay: line}
		})
		m.serve("20.0.0.7:80", func(c net.Conn) {
			asked, _ := bufio.NewReader(c).ReadString('\n')
			fmt.Fprintf(c, "you asked %s", asked)
			c.Close()
		})
		server := m.client().SOCKSServer(nil)
		ports := map[bool]net.Listener{}
		for i, early := range []bool{false, true} {
			port, err := m.internet.Listen(netip.AddrPortFrom(clientAddr, 9250+uint16(i)))
			if err != nil {
				t.Fatal(err)
			}
			ports[early] = port
			m.until(func(ctx context.Context) error { return server.ServeRules(ctx, port, socks.Rules{Early: early}) })
		}
		time.Sleep(5 * time.Minute)
		wait := func(early bool) time.Duration {
			d, err := xproxy.SOCKS5("tcp", ports[early].Addr().String(), nil, dialer(m.internet.Dialer(clientAddr)))
			if err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			conn, err := d.Dial("tcp", "20.0.0.7:80")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "for this\n")
			first := make([]byte, 1)
			if _, err := io.ReadFull(conn, first); err != nil {
				t.Fatal(err)
			}
			took := time.Since(begun)
			if rest, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(rest), "ou asked for this\n") {
				t.Errorf("%q, %v", rest, err)
			}
			return took
		}
		for _, early := range []bool{false, true} {
			wait(early) // a circuit is taken
		}
		late, early := wait(false), wait(true)
		t.Logf("first byte after %v, answered early after %v", late, early)
		if late-early < 5*line {
			t.Errorf("first byte after %v, answered early after %v", late, early)
		}
	})
}

// dialer is a Dialer of x/net/proxy.
type dialer memnet.Dial

func (d dialer) Dial(network, addr string) (net.Conn, error) {
	return d(context.Background(), network, addr)
}
