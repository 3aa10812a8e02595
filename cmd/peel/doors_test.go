package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peel/client"
	"peel/cmd/peel/internal/conf"
	"peel/directory/dirtest"
)

// Every socket of a configuration answers by its own rules, and nothing is left of them afterwards.
func TestDoorsOfAConfiguration(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "socket")
	probe, err := net.Listen("unix", filepath.Join(dir, "probe"))
	if err != nil {
		t.Skip("no unix sockets here: ", err)
	}
	probe.Close()
	f := &conf.Client{SOCKS: "127.0.0.1:0", DNS: "127.0.0.1:0", Listen: []conf.Listen{
		{Address: "127.0.0.1:0", Safe: true, Extended: true}, {Address: "unix:" + socket}, {Address: "127.0.0.1:0", Early: true},
	}}
	var log bytes.Buffer
	d, err := openDoors(f, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if log.Len() > 0 {
		t.Errorf("a warning about loopback: %s", log.String())
	}
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st, err)
	}
	if _, err := openDoors(&conf.Client{Listen: f.Listen[1:2]}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another program listens") {
		t.Errorf("a second client on the socket: %v", err)
	}
	var out bytes.Buffer
	d.announce(&out)
	port := func(i int) string { return "ready: socks5://" + d.ports[i].Addr().String() }
	for _, want := range []string{port(0) + "\n", port(1) + "\n", port(3) + " (early_answer)\n", "ready: unix:" + socket + "\n", "ready: dns://" + d.tcp.Addr().String() + "\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("announced: %s", out.String())
		}
	}
	c, err := client.New(client.Config{Network: dirtest.New(1, 3).Network})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- together(ctx, d.servers(c, slog.New(slog.DiscardHandler))...) }()

	onion := "\x05\x01\x00\x05\x01\x00\x03\x07a.onion\x00\x50"
	address := "\x05\x01\x00\x05\x01\x00\x01\xc6\x12\x00\x01\x00\x50" // a virtual one, which no client may know yet
	elsewhere := "\x05\x01\x00\x05\x01\x00\x01\x08\x08\x08\x08\x00\x50"
	for _, x := range []struct {
		door int
		in   string
		code byte
	}{{0, onion, 4}, {1, onion, 0xF6}, {2, onion, 4}, {1, address, 4}, {1, elsewhere, 2}} {
		a := d.ports[x.door].Addr()
		nc, err := net.Dial(a.Network(), a.String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(nc, x.in)
		if b, err := io.ReadAll(nc); err != nil || len(b) != 12 || b[3] != x.code {
			t.Errorf("%v, % x: % x, %v; want code %#x", a, x.in, b, err, x.code)
		}
		nc.Close()
	}
	for _, network := range []string{"udp", "tcp"} {
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, d.tcp.Addr().String())
		}}
		var none *net.DNSError
		if _, err := r.LookupHost(ctx, "printer.local."); !errors.As(err, &none) || !none.IsNotFound {
			t.Errorf("%s: %v", network, err)
		}
		service := strings.Repeat("a2", 28) + ".peel.alt."
		if got, err := r.LookupHost(ctx, service); err != nil || len(got) != 2 || !strings.HasPrefix(got[0], "198.1") {
			t.Errorf("%s: %v, %v", network, got, err)
		}
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the doors stay open")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What a client that was killed left is replaced; what is no socket is not.
func TestSocketsThatWereLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Skip("no unix sockets here: ", err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Error(err)
	}
	if b, _ := os.ReadFile(path); string(b) != "mine" {
		t.Error("the file is gone")
	}
}

// [::] is IPv6 alone, so that 0.0.0.0 can be listened on at the same port, whatever the port is for.
func TestBothFamiliesAreListenedOnAtOnePort(t *testing.T) {
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here: ", err)
	} else {
		l.Close()
	}
	open := func() (all []net.Addr, closeAll func()) {
		d, err := openDoors(&conf.Client{SOCKS: "[::]:0", DNS: "[::]:0"}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		links, err := listenLinks([]string{"[::]:0"})
		if err != nil {
			t.Fatal(err)
		}
		return []net.Addr{d.ports[0].Addr(), d.tcp.Addr(), d.udp.LocalAddr(), links[0].Addr()}, func() { d.close(); links[0].Close() }
	}
	for try := 1; ; try++ { // others of this machine may have the port of IPv4
		six, closeAll := open()
		var failed error
		for _, a := range six {
			at, err := netip.ParseAddrPort(a.String())
			if err != nil || !at.Addr().Is6() {
				t.Errorf("%s %v: all of IPv6 was asked for", a.Network(), a)
			}
			four := netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()).String()
			if a.Network() == "udp" {
				if p, err := net.ListenPacket(networkOf("udp", four), four); err != nil {
					failed = err
				} else {
					p.Close()
				}
			} else if ls, err := listenLinks([]string{four}); err != nil {
				failed = err
			} else {
				ls[0].Close()
			}
		}
		closeAll()
		if failed == nil {
			return
		}
		if try == 10 {
			t.Fatalf("beside IPv6: %v", failed)
		}
	}
}

// An address is told to others in vain where links of its family do not arrive: peel doctor says so.
func TestDoctorSaysWhereAFamilyIsAdvertisedAndNotListenedOn(t *testing.T) {
	for _, c := range []struct{ listen, says string }{
		{"[::]:9001", "198.51.100.1:9001 is one of IPv4, and listen names only addresses of IPv6"},
		{"0.0.0.0:9001", "[2606:4700::1]:9001 is one of IPv6, and listen names only addresses of IPv4"},
		{"0.0.0.0:9001 [::]:9001", ""}, {":9001", ""}, {"name.example:9001", ""},
	} {
		var warned []string
		for _, f := range checkAddresses(&conf.Relay{Listen: strings.Fields(c.listen), Advertise: []string{"198.51.100.1:9001", "[2606:4700::1]:9001"}}) {
			if f.Level != "ok" {
				warned = append(warned, f.Says)
			}
		}
		if strings.Join(warned, "\n") != c.says {
			t.Errorf("listen %s: %q, want %q", c.listen, warned, c.says)
		}
	}
}

func TestPortsOpenToOthersAreSaid(t *testing.T) {
	var log bytes.Buffer
	d, err := openDoors(&conf.Client{SOCKS: "0.0.0.0:0", DNS: "0.0.0.0:0"}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	d.close()
	if n := strings.Count(log.String(), "level=WARN"); n != 2 {
		t.Error(log.String())
	}
	links, err := listenLinks([]string{"0.0.0.0:0"})
	if err != nil {
		t.Fatal(err)
	}
	links[0].Close()
	for _, a := range []net.Addr{d.ports[0].Addr(), d.udp.LocalAddr(), d.tcp.Addr(), links[0].Addr()} {
		if !strings.HasPrefix(a.String(), "0.0.0.0:") {
			t.Errorf("%s %v: all of IPv4 was asked for", a.Network(), a)
		}
	}
}
