package exit

import (
	"context"
	"net"
	"testing"

	"peel/cell"
	"peel/directory"
)

// Whoever connects for an exit is asked for nothing that the policy refuses.
func TestThePolicyGoesBeforeConnect(t *testing.T) {
	p, err := directory.ParsePolicy([]string{"accept 10.0.0.0/8:80", "reject *:*"})
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	d, err := New(Config{Policy: p, Connect: func(_ context.Context, _, addr string) (net.Conn, error) {
		asked = append(asked, addr)
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		return addressed{a}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{"10.1.2.3": true, "192.168.1.1": false, "127.0.0.1": false} {
		_, _, err := d.Dial(t.Context(), cell.Begin{Host: host, Port: 80})
		if (err == nil) != want {
			t.Errorf("%s: %v", host, err)
		}
	}
	if len(asked) != 1 || asked[0] != "10.1.2.3:80" {
		t.Errorf("asked for %v", asked)
	}
}

// addressed is a connection to 10.1.2.3.
type addressed struct{ net.Conn }

func (addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 80} }
