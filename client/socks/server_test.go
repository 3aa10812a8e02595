package socks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// start serves s on a loopback port until the test ends, and then sees that nothing is left of it.
func start(t *testing.T, s *Server) string {
	t.Helper()
	addr, stop := startStop(t, s)
	t.Cleanup(stop)
	return addr
}

func startStop(t *testing.T, s *Server) (string, func()) {
	t.Helper()
	return startStopRules(t, Rules{}, s)
}

// startRules is start with rules for the listener.
func startRules(t *testing.T, r Rules, s *Server) string {
	t.Helper()
	addr, stop := startStopRules(t, r, s)
	t.Cleanup(stop)
	return addr
}

func startStopRules(t *testing.T, r Rules, s *Server) (string, func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.ServeRules(ctx, ln, r) }()
	var once sync.Once
	return ln.Addr().String(), func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Error("Serve:", err)
				}
			case <-time.After(time.Minute):
				buf := make([]byte, 1<<20)
				t.Errorf("Serve does not end:\n%s", buf[:runtime.Stack(buf, true)])
			}
			if n := s.Stats().Open; n != 0 {
				t.Errorf("%d connections are open after Serve", n)
			}
		})
	}
}

// dialDirect dials what is asked for, as an exit would.
func dialDirect(ctx context.Context, r Request) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", net.JoinHostPort(r.Host, fmt.Sprint(r.Port)))
}

// listen runs f for each connection to a new loopback port.
func listen(t *testing.T, f func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func echo(c *net.TCPConn) {
	io.Copy(c, struct{ io.Reader }{c})
	c.CloseWrite()
}

// ask is what a client sends to be connected to host and port, without a login.
func ask(host string, port uint16) []byte {
	b := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(host))}, host...)
	return append(b, byte(port>>8), byte(port))
}

func dialTCP(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c.(*net.TCPConn)
}

// connect goes through addr to to, and returns what is then the application's connection.
func connect(t *testing.T, addr string, to netip.AddrPort) *net.TCPConn {
	t.Helper()
	c := dialTCP(t, addr)
	if _, err := c.Write(ask(to.Addr().String(), to.Port())); err != nil {
		t.Fatal(err)
	}
	want(t, c, append([]byte{5, 0}, reply(Succeeded)...))
	return c
}

func want(t testing.TB, r io.Reader, b []byte) {
	t.Helper()
	got := make([]byte, len(b))
	if n, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, b) {
		t.Fatalf("got % x, %v; want % x", got[:n], err, b)
	}
}

func wantAll(t *testing.T, r io.Reader, b string) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != b {
		t.Fatalf("got %q, %v; want %q", got, err, b)
	}
}

// eventually waits for what other goroutines are about to bring about.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func TestRequestTellsWhoAsks(t *testing.T) {
	got := make(chan Request, 1)
	addr := start(t, &Server{Dial: func(_ context.Context, r Request) (net.Conn, error) {
		got <- r
		return nil, syscall.ECONNREFUSED
	}})
	c := dialTCP(t, addr)
	c.Write([]byte("\x05\x02\x00\x02\x01\x05alice\x02pw\x05\x01\x00\x03\x0bexample.com\x01\xbb"))
	wantAll(t, c, "\x05\x02\x01\x00"+string(reply(ConnectionRefused)))
	r := <-got
	iso := Isolation{Credentials: NewCredentials("alice", "pw"), Client: netip.MustParseAddr("127.0.0.1"), Listener: "tcp " + addr}
	if r.Host != "example.com" || r.Port != 443 || r.Isolation != iso {
		t.Errorf("%q %d %#v", r.Host, r.Port, r.Isolation.Listener)
	}
}

func TestEarlyDataArriveOnce(t *testing.T) {
	for _, size := range []int{1, 100, maxHead, 5 * maxHead, 300_000} {
		release := make(chan struct{})
		to := listen(t, echo)
		addr := start(t, &Server{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
			<-release
			return dialDirect(ctx, r)
		}})
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		c := dialTCP(t, addr)
		var wg sync.WaitGroup
		wg.Go(func() {
			if size > 100_000 {
				close(release) // so much may not be taken before
			}
			c.Write(append(ask("127.0.0.1", to.Port()), data...))
			if size <= 100_000 {
				close(release)
			}
			c.CloseWrite()
		})
		want(t, c, append([]byte{5, 0}, reply(Succeeded)...))
		wantAll(t, c, string(data))
		wg.Wait()
	}
}

func TestEarlyDataAtEveryCut(t *testing.T) {
	to := listen(t, echo)
	in := append(ask("127.0.0.1", to.Port()), "hello"...)
	for name, addr := range map[string]string{
		"late": start(t, &Server{Dial: dialDirect}), "along": start(t, &Server{Dial: dialDirect, DialEarly: dialFirst}),
		"early": startRules(t, early, &Server{Dial: dialDirect, DialEarly: dialFirst}),
	} {
		t.Log(name)
		for cut := range in {
			c := dialTCP(t, addr)
			c.SetNoDelay(true)
			c.Write(in[:cut])
			runtime.Gosched()
			c.Write(in[cut:])
			c.CloseWrite()
			wantAll(t, c, "\x05\x00"+string(reply(Succeeded))+"hello")
		}
	}
}

func TestHalfCloseBothWays(t *testing.T) {
	t.Run("client first", func(t *testing.T) {
		to := listen(t, func(c *net.TCPConn) {
			b, _ := io.ReadAll(c)
			fmt.Fprintf(c, "got %d", len(b))
		})
		c := connect(t, start(t, &Server{Dial: dialDirect}), to)
		c.Write(make([]byte, 100_000))
		c.CloseWrite()
		wantAll(t, c, "got 100000")
	})
	t.Run("client before it is connected", func(t *testing.T) {
		to := listen(t, echo)
		closed := make(chan struct{})
		addr := start(t, &Server{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
			<-closed
			return dialDirect(ctx, r)
		}})
		c := dialTCP(t, addr)
		c.Write(append(ask("127.0.0.1", to.Port()), "early"...))
		c.CloseWrite()
		close(closed)
		wantAll(t, c, "\x05\x00"+string(reply(Succeeded))+"early")
	})
	t.Run("far end first", func(t *testing.T) {
		got := make(chan string, 1)
		to := listen(t, func(c *net.TCPConn) {
			io.WriteString(c, "bye")
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			got <- string(b)
		})
		c := connect(t, start(t, &Server{Dial: dialDirect}), to)
		wantAll(t, c, "bye")
		io.WriteString(c, "and more")
		c.CloseWrite()
		if s := <-got; s != "and more" {
			t.Errorf("the far end got %q", s)
		}
	})
}

// plain hides what a connection can do beyond net.Conn and CloseWrite.
type plain struct{ net.Conn }

func (p plain) CloseWrite() error { return p.Conn.(closeWriter).CloseWrite() }

// direct counts the copies that a connection does itself.
type direct struct {
	plain
	to, from *atomic.Int32
}

func (d direct) WriteTo(w io.Writer) (int64, error) {
	d.to.Add(1)
	return io.Copy(onlyWriter{w}, onlyReader{d.Conn})
}

func (d direct) ReadFrom(r io.Reader) (int64, error) {
	d.from.Add(1)
	return io.Copy(onlyWriter{d.Conn}, onlyReader{r})
}

func TestCopiesBothWays(t *testing.T) {
	var to, from atomic.Int32
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"sockets":       func(c net.Conn) net.Conn { return c },
		"plain":         func(c net.Conn) net.Conn { return plain{c} },
		"with its own":  func(c net.Conn) net.Conn { return direct{plain{c}, &to, &from} },
		"no half-close": func(c net.Conn) net.Conn { return struct{ net.Conn }{c} },
	} {
		t.Run(name, func(t *testing.T) {
			target := listen(t, echo)
			addr := start(t, &Server{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
				c, err := dialDirect(ctx, r)
				if err != nil {
					return nil, err
				}
				return wrap(c), nil
			}})
			const size = 8 << 20
			data := make([]byte, size)
			rand.NewChaCha8([32]byte{}).Read(data)
			c := connect(t, addr, target)
			var wg sync.WaitGroup
			wg.Go(func() { c.Write(data) })
			h := sha256.New()
			if n, err := io.CopyN(h, c, size); err != nil {
				t.Fatal(n, err)
			}
			wg.Wait()
			if [32]byte(h.Sum(nil)) != sha256.Sum256(data) {
				t.Error("other bytes came back")
			}
			c.CloseWrite()
			if b, _ := io.ReadAll(c); len(b) != 0 {
				t.Errorf("%d bytes more", len(b))
			}
		})
	}
	if to.Load() != 1 || from.Load() != 1 {
		t.Errorf("own methods used: %d %d", to.Load(), from.Load())
	}
}

func TestFailureIsNoEnd(t *testing.T) {
	to := listen(t, func(c *net.TCPConn) {
		io.WriteString(c, "half of i")
		want := make([]byte, 2)
		io.ReadFull(c, want)
		c.SetLinger(0)
	})
	c := connect(t, start(t, &Server{Dial: dialDirect}), to)
	want(t, c, []byte("half of i"))
	io.WriteString(c, "go")
	if b, err := io.ReadAll(c); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a reset came as an orderly end: %q, %v", b, err)
	}
}

func TestClientThatResetsEndsTheFarEnd(t *testing.T) {
	gone := make(chan struct{})
	to := listen(t, func(c *net.TCPConn) {
		io.Copy(io.Discard, c)
		close(gone)
	})
	c := connect(t, start(t, &Server{Dial: dialDirect}), to)
	c.SetLinger(0)
	c.Close()
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Error("the far end still waits")
	}
}

func TestClientThatIsGoneEndsTheDial(t *testing.T) {
	dialing, ended := make(chan struct{}), make(chan struct{})
	addr := start(t, &Server{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
		close(dialing)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}})
	c := dialTCP(t, addr)
	c.Write(ask("example.com", 80))
	<-dialing
	c.SetLinger(0)
	c.Close()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the dial goes on for a client that is gone")
	}
}

type timeoutError struct{}

func (timeoutError) Error() string { return "later" }
func (timeoutError) Timeout() bool { return true }

func TestCodes(t *testing.T) {
	six := func(error) byte { return TTLExpired }
	for _, c := range []struct {
		code func(error) byte
		err  error
		want byte
	}{
		{nil, errors.New("x"), GeneralFailure},
		{nil, &net.OpError{Err: syscall.ECONNREFUSED}, ConnectionRefused},
		{nil, &net.OpError{Err: syscall.ENETUNREACH}, NetworkUnreachable},
		{nil, &net.OpError{Err: syscall.EHOSTUNREACH}, HostUnreachable},
		{nil, &net.DNSError{IsNotFound: true}, HostUnreachable},
		{nil, context.DeadlineExceeded, HostUnreachable},
		{func(error) byte { return 0xF0 }, errors.New("x"), HostUnreachable}, // extended codes are for those who want them
		{func(error) byte { return 0xF4 }, errors.New("x"), NotAllowed},
		{func(error) byte { return Succeeded }, errors.New("x"), GeneralFailure},
		{six, errors.New("for ever"), GeneralFailure},
		{six, fmt.Errorf("y: %w", timeoutError{}), TTLExpired},
	} {
		addr, stop := startStop(t, &Server{Code: c.code, Dial: func(context.Context, Request) (net.Conn, error) { return nil, c.err }})
		conn := dialTCP(t, addr)
		conn.Write(ask("example.com", 80))
		wantAll(t, conn, "\x05\x00"+string(reply(c.want)))
		stop()
	}
}

func TestDialThatReturnsNothingFails(t *testing.T) {
	addr := start(t, &Server{Dial: func(context.Context, Request) (net.Conn, error) { return nil, nil }})
	c := dialTCP(t, addr)
	c.Write(ask("example.com", 80))
	wantAll(t, c, "\x05\x00"+string(reply(GeneralFailure)))
}

func neverDial(t *testing.T) func(context.Context, Request) (net.Conn, error) {
	return func(context.Context, Request) (net.Conn, error) {
		t.Error("something was connected")
		return nil, errors.New("never")
	}
}

func TestWarnsOnceAboutAddresses(t *testing.T) {
	var log bytes.Buffer
	addr, stop := startStop(t, &Server{
		Log:  slog.New(slog.NewTextHandler(&log, nil)),
		Dial: func(context.Context, Request) (net.Conn, error) { return nil, errors.New("no") },
	})
	for _, req := range []string{
		"\x05\x01\x00\x05\x01\x00\x03\x07" + "8.8.4.4" + "\x00\x50", // as text: torsocks, which does not look up
		"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50",
	} {
		c := dialTCP(t, addr)
		io.WriteString(c, req)
		io.Copy(io.Discard, c)
	}
	quiet := log.Len()
	for range 3 {
		c := dialTCP(t, addr)
		io.WriteString(c, "\x05\x01\x00\x05\x01\x00\x01\x08\x08\x04\x04\x00\x50")
		io.Copy(io.Discard, c)
	}
	stop()
	if quiet != 0 || strings.Count(log.String(), "level=WARN") != 1 || strings.Contains(log.String(), "8.8.4.4") {
		t.Error(log.String())
	}
}

func TestLogSaysWhyARequestFailed(t *testing.T) {
	var log bytes.Buffer
	addr, stop := startStop(t, &Server{
		Log:  slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Dial: func(context.Context, Request) (net.Conn, error) { return nil, &net.DNSError{Name: "printer"} },
	})
	c := dialTCP(t, addr)
	c.Write(ask("printer", 80))
	io.Copy(io.Discard, c)
	stop()
	if !strings.Contains(log.String(), `level=DEBUG msg="socks: request failed" why="There is no such host." code=4`) || strings.Contains(log.String(), "printer") {
		t.Error(log.String())
	}
}

type onlyWriter struct{ io.Writer }
type onlyReader struct{ io.Reader }
