package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
)

// asks are one request to connect, in every language, with a user where it can be said.
func asks(host string, port uint16) map[string]string {
	p := string([]byte{byte(port >> 8), byte(port)})
	return map[string]string{
		"SOCKS 5":  "\x05\x02\x00\x02\x01\x05alice\x00\x05\x01\x00\x03" + string([]byte{byte(len(host))}) + host + p,
		"SOCKS 4a": "\x04\x01" + p + "\x00\x00\x00\x01alice\x00" + host + "\x00",
		"CONNECT":  fmt.Sprintf("CONNECT %s:%d HTTP/1.1\r\nProxy-Authorization: Basic YWxpY2U6\r\n\r\n", host, port),
	}
}

var granted = map[string]string{
	"SOCKS 5": "\x05\x02\x01\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", "SOCKS 4a": "\x00\x5a\x00\x00\x00\x00\x00\x00",
	"CONNECT": "HTTP/1.1 200 Connection established\r\n\r\n",
}

// Early data in every language, cut at every byte, arrive once; the three languages ask for the same.
func TestEveryLanguageAtEveryCut(t *testing.T) {
	to := listen(t, echo)
	var isolation Isolation
	addr := start(t, &Server{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
		if isolation == (Isolation{}) {
			isolation = r.Isolation
		}
		if r.Isolation != isolation || r.Isolation.Credentials != NewCredentials("alice", "") || r.Host != "far.example" {
			return nil, errors.New("something else was asked for")
		}
		return dialDirect(ctx, Request{Host: "127.0.0.1", Port: r.Port})
	}})
	for language, in := range asks("far.example", to.Port()) {
		in += "hello"
		for cut := range in {
			c := dialTCP(t, addr)
			c.SetNoDelay(true)
			io.WriteString(c, in[:cut])
			io.WriteString(c, in[cut:])
			c.CloseWrite()
			b, err := io.ReadAll(c)
			if string(b) != granted[language]+"hello" || err != nil {
				t.Fatalf("%s, cut at %d: %q, %v", language, cut, b, err)
			}
			c.Close()
		}
	}
}

// What each code is in each language.
func TestCodeTable(t *testing.T) {
	for _, x := range []struct {
		code, plain byte
		status      string
		proxy       string
	}{
		{GeneralFailure, 1, "503", "proxy_internal_error"},
		{NotAllowed, 2, "403", "destination_ip_prohibited"},
		{NetworkUnreachable, 3, "502", "destination_ip_unroutable"},
		{HostUnreachable, 4, "502", "dns_error"},
		{ConnectionRefused, 5, "502", "connection_refused"},
		{TTLExpired, 6, "504", "connection_timeout"},
		{ServiceNotFound, 4, "502", "dns_error"},
		{ServiceInvalid, 4, "502", "dns_error"},
		{ServiceIntroFailed, 4, "502", "dns_error"},
		{ServiceRendezvousFailed, 4, "502", "dns_error"},
		{ServiceMissingAuth, 2, "403", "destination_ip_prohibited"},
		{ServiceWrongAuth, 2, "403", "destination_ip_prohibited"},
		{ServiceBadAddress, 4, "502", "dns_error"},
		{ServiceIntroTimeout, 4, "502", "dns_error"},
	} {
		for _, extended := range []bool{false, true} {
			s := &Server{Code: func(error) byte { return x.code }, Dial: func(context.Context, Request) (net.Conn, error) { return nil, timeoutError{} }}
			addr, stop := startStopRules(t, Rules{Extended: extended}, s)
			want := x.plain
			if extended {
				want = x.code
			}
			for language, in := range asks("far.example", 80) {
				c := dialTCP(t, addr)
				io.WriteString(c, in)
				b, err := io.ReadAll(c)
				if err != nil {
					t.Fatal(err)
				}
				switch language {
				case "SOCKS 5":
					if string(b) != "\x05\x02\x01\x00"+string(reply(want)) {
						t.Errorf("%#x: % x", x.code, b)
					}
				case "SOCKS 4a":
					if string(b) != "\x00\x5b\x00\x00\x00\x00\x00\x00" {
						t.Errorf("%#x: % x", x.code, b)
					}
				case "CONNECT":
					if !strings.HasPrefix(string(b), "HTTP/1.1 "+x.status+" ") || !strings.Contains(string(b), "\r\nProxy-Status: peel; error="+x.proxy+"\r\n") {
						t.Errorf("%#x: %q", x.code, b)
					}
				}
			}
			stop()
		}
	}
}

func TestResolve(t *testing.T) {
	s := &Server{Dial: neverDial(t), Resolve: func(_ context.Context, r Request) (Answer, error) {
		switch {
		case r.Command == ResolvePTR && r.Host == "192.0.2.1":
			return Answer{Name: "one.example"}, nil
		case r.Command == Resolve && r.Host == "four.example":
			return Answer{Addr: netip.MustParseAddr("192.0.2.1")}, nil
		case r.Command == Resolve && r.Host == "six.example":
			return Answer{Addr: netip.MustParseAddr("2001:db8::1")}, nil
		case r.Command == Resolve && r.Host == "nothing.example":
			return Answer{}, nil
		}
		return Answer{}, &net.DNSError{IsNotFound: true}
	}}
	addr := start(t, s)
	for _, x := range []struct{ in, out string }{
		{"\x05\x01\x00\x05\xf0\x00\x03\x0cfour.example\x00\x2a", "\x05\x00\x05\x00\x00\x01\xc0\x00\x02\x01\x00\x00"},
		{"\x05\x01\x00\x05\xf0\x00\x03\x0bsix.example\x00\x00", "\x05\x00\x05\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00"},
		{"\x05\x01\x00\x05\xf1\x00\x01\xc0\x00\x02\x01\x00\x00", "\x05\x00\x05\x00\x00\x03\x0bone.example\x00\x00"},
		{"\x05\x01\x00\x05\xf0\x00\x03\x04none\x00\x00", "\x05\x00" + string(reply(HostUnreachable))},
		{"\x05\x01\x00\x05\xf0\x00\x03\x0fnothing.example\x00\x00", "\x05\x00" + string(reply(GeneralFailure))},
		{"\x04\xf0\x00\x00\x00\x00\x00\x01\x00four.example\x00", "\x00\x5a\x00\x00\xc0\x00\x02\x01"},
		{"\x04\xf0\x00\x00\x00\x00\x00\x01\x00six.example\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00"},
	} {
		c := dialTCP(t, addr)
		io.WriteString(c, x.in)
		wantAll(t, c, x.out)
	}
	without := start(t, &Server{Dial: neverDial(t)})
	c := dialTCP(t, without)
	io.WriteString(c, "\x05\x01\x00\x05\xf0\x00\x03\x0cfour.example\x00\x2a")
	wantAll(t, c, "\x05\x00"+string(reply(CommandNotSupported)))
}

// Safe listeners refuse who looked a name up elsewhere; addresses that came from here, and text, are none of that.
func TestSafeListeners(t *testing.T) {
	var log bytes.Buffer
	s := &Server{
		Log:   slog.New(slog.NewTextHandler(&log, nil)),
		Known: func(a netip.Addr) bool { return a == netip.MustParseAddr("198.18.0.1") },
		Dial:  func(context.Context, Request) (net.Conn, error) { return nil, errors.New("tried") },
	}
	addr, stop := startStopRules(t, Rules{Safe: true}, s)
	for in, code := range map[string]byte{
		"\x05\x01\x00\x05\x01\x00\x01\x08\x08\x04\x04\x00\x50": NotAllowed,
		"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50": NotAllowed,
		"\x05\x01\x00\x05\x01\x00\x01\xc6\x12\x00\x01\x00\x50": GeneralFailure, // tried
		"\x05\x01\x00\x05\x01\x00\x03\x078.8.4.4\x00\x50":      GeneralFailure,
	} {
		c := dialTCP(t, addr)
		io.WriteString(c, in)
		wantAll(t, c, "\x05\x00"+string(reply(code)))
	}
	c := dialTCP(t, addr)
	io.WriteString(c, "\x04\x01\x00\x50\x08\x08\x04\x04\x00")
	wantAll(t, c, "\x00\x5b\x00\x00\x00\x00\x00\x00")
	stop()
	if strings.Count(log.String(), "level=WARN") != 1 || strings.Contains(log.String(), "8.8.4.4") {
		t.Error(log.String())
	}
	if st := s.Stats(); st.Requests != 2 || st.Refused != 3 {
		t.Errorf("%+v", st)
	}
}

func TestRulesIsolate(t *testing.T) {
	a := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	b := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 1}
	ask := func(r Rules, user, host string, port uint16, listener string, from net.Addr) Isolation {
		req := Request{Host: host, Port: port, Isolation: Isolation{Credentials: NewCredentials(user, "")}}
		r.isolate(&req, listener, from)
		return req.Isolation
	}
	for _, x := range []struct {
		name                           string
		rules                          Rules
		user, client, host, port, door bool // whether another one is another isolation
	}{
		{"default", Rules{}, true, true, false, false, true},
		{"users share", Rules{ShareUsers: true}, false, true, false, false, true},
		{"clients share", Rules{ShareClients: true}, true, false, false, false, true},
		{"by host", Rules{IsolateHosts: true}, true, true, true, false, true},
		{"by port", Rules{IsolatePorts: true}, true, true, false, true, true},
		{"one group", Rules{Group: "g"}, true, true, false, false, false},
	} {
		base := ask(x.rules, "u", "h", 1, "l", a)
		for what, got := range map[string]bool{
			"user":     (ask(x.rules, "v", "h", 1, "l", a) != base) == x.user,
			"client":   (ask(x.rules, "u", "h", 1, "l", b) != base) == x.client,
			"host":     (ask(x.rules, "u", "i", 1, "l", a) != base) == x.host,
			"port":     (ask(x.rules, "u", "h", 2, "l", a) != base) == x.port,
			"listener": (ask(x.rules, "u", "h", 1, "m", a) != base) == x.door,
			"the same": ask(x.rules, "u", "h", 1, "l", a) == base,
		} {
			if !got {
				t.Errorf("%s: %s", x.name, what)
			}
		}
	}
	if ask(Rules{Group: "g"}, "u", "h", 1, "l", a) == ask(Rules{}, "u", "h", 1, "g", a) {
		t.Error("a group is taken for a listener")
	}
}

func TestUnixSocket(t *testing.T) {
	to := listen(t, echo)
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Skip("no unix sockets here: ", err)
	}
	got := make(chan Isolation, 3)
	s := &Server{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
		got <- r.Isolation
		return dialDirect(ctx, Request{Host: "127.0.0.1", Port: r.Port})
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ln) }()
	for language, in := range asks("far.example", to.Port()) {
		c, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, in+"hello")
		c.(*net.UnixConn).CloseWrite()
		wantAll(t, c, granted[language]+"hello")
		if i := <-got; i.Client.IsValid() || !strings.HasPrefix(i.Listener, "unix ") {
			t.Errorf("%s: isolation of the listener %q, client %v", language, i.Listener, i.Client)
		}
		c.Close()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
