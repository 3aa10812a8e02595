package socks

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/link/linktest"
	"peel/cell/memtest"
)

// pipes is a listener whose connections are made in memory, so that a test may own the clock.
type pipes struct{ *linktest.Listener }

func newPipes() *pipes { return &pipes{linktest.Listen(netip.MustParseAddrPort("127.0.0.1:9250"))} }

func (p *pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.Conns <- b
	return a
}

func TestSlowClientsAreClosed(t *testing.T) {
	const timeout = 15 * time.Second
	for _, said := range []string{"", "\x05", "\x05\x01\x00", "\x05\x01\x02\x01\x05al", "GET", "\x05\x01\x00\x05\x01\x00\x03\x0bexa", "\x04\x01\x00", "CONNE", "CONNECT a"} {
		synctest.Test(t, func(t *testing.T) {
			s := &Server{Dial: neverDial(t), HandshakeTimeout: timeout}
			ln := newPipes()
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { s.Serve(ctx, ln) })
			c := ln.dial()
			wg.Go(func() { // one byte a second does not help
				for i := range said {
					time.Sleep(time.Second)
					c.Write([]byte{said[i]})
				}
			})
			began := time.Now()
			io.Copy(io.Discard, c)
			if d := time.Since(began); d != timeout {
				t.Errorf("%q: closed after %v", said, d)
			}
			synctest.Wait()
			if n := s.Stats().Refused; n != 1 {
				t.Errorf("%q: %d refused", said, n)
			}
			cancel()
			wg.Wait()
		})
	}
}

func TestSlowDialsAndIdleConnectionsAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far, near := net.Pipe()
		s := &Server{HandshakeTimeout: time.Second, Dial: func(context.Context, Request) (net.Conn, error) {
			time.Sleep(time.Minute)
			return near, nil
		}}
		ln := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.Serve(ctx, ln) })
		wg.Go(func() { io.Copy(far, far) })
		c := ln.dial()
		c.Write(ask("example.com", 80)[:3])
		want(t, c, []byte{5, 0})
		c.Write(ask("example.com", 80)[3:])
		want(t, c, reply(Succeeded))
		for range 3 {
			time.Sleep(24 * time.Hour)
			c.Write([]byte("x"))
			want(t, c, []byte("x"))
		}
		cancel()
		wg.Wait()
	})
}

// Those who have not said what they want make room for those who come; those in use never do.
func TestNoMoreThanMaxConns(t *testing.T) {
	const limit = 100
	to := listen(t, echo)
	s := &Server{Dial: dialDirect, MaxConns: limit}
	addr := start(t, s)
	var used []*net.TCPConn
	for range limit - 10 {
		used = append(used, connect(t, addr, to))
	}
	var silent []*net.TCPConn
	for i := range 10 {
		silent = append(silent, dialTCP(t, addr))
		eventually(t, "it is open", func() bool { return s.Stats().Open == uint64(limit-9+i) })
	}
	for i := range 10 { // the eldest of them goes first
		used = append(used, connect(t, addr, to))
		if b, _ := io.ReadAll(silent[i]); len(b) != 0 {
			t.Errorf("one that was closed got % x", b)
		}
	}
	for range 5 {
		c := dialTCP(t, addr)
		if b, _ := io.ReadAll(c); len(b) != 0 {
			t.Errorf("one too many got % x", b)
		}
	}
	for _, c := range used {
		io.WriteString(c, "still here")
		want(t, c, []byte("still here"))
	}
	used[0].Close()
	eventually(t, "one is gone", func() bool { return s.Stats().Open == limit-1 })
	connect(t, addr, to)
	if st := s.Stats(); st.Full != 5 || st.Evicted != 10 || st.Accepted != limit+16 {
		t.Errorf("%+v", st)
	}
}

func TestIdleConnectionsMakeRoomAfterTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		s := &Server{MaxConns: 2, Dial: func(context.Context, Request) (net.Conn, error) {
			far, near := net.Pipe()
			wg.Go(func() { io.Copy(far, far) })
			return near, nil
		}}
		ln := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { s.Serve(ctx, ln) })
		open := func() net.Conn {
			c := ln.dial()
			if _, err := c.Write(ask("example.com", 80)[:3]); err != nil {
				return nil
			}
			want(t, c, []byte{5, 0})
			c.Write(ask("example.com", 80)[3:])
			want(t, c, reply(Succeeded))
			return c
		}
		first, second := open(), open()
		time.Sleep(leaveIdle - time.Second)
		first.Write([]byte("x"))
		want(t, first, []byte("x"))
		if open() != nil {
			t.Error("a third one, and none was idle for ten minutes")
		}
		time.Sleep(time.Second)
		if open() == nil {
			t.Error("the idle one did not make room")
		}
		if _, err := second.Read(make([]byte, 1)); err == nil {
			t.Error("the idle one is open")
		}
		first.Write([]byte("x"))
		want(t, first, []byte("x"))
		cancel()
		wg.Wait()
	})
}

// The far end may never say another word to an application that is gone: nobody who comes after it waits for that.
func TestIdleConnectionWithSilentFarEndMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far, near := net.Pipe()
		defer far.Close()
		s := &Server{MaxConns: 1, Dial: func(context.Context, Request) (net.Conn, error) { return halfOpen{near}, nil }}
		ln := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.Serve(ctx, ln) })
		gone := ln.dial()
		gone.Write(ask("example.com", 80)[:3])
		want(t, gone, []byte{5, 0})
		gone.Write(ask("example.com", 80)[3:])
		want(t, gone, reply(Succeeded))
		gone.Close()
		time.Sleep(leaveIdle)
		next := ln.dial()
		next.SetDeadline(time.Now().Add(time.Minute))
		if _, err := next.Write(ask("example.com", 80)[:3]); err != nil {
			t.Errorf("nobody takes the next connection: %v", err)
		}
		cancel()
		wg.Wait()
	})
}

// halfOpen takes an end of what is sent, and goes on.
type halfOpen struct{ net.Conn }

func (halfOpen) CloseWrite() error { return nil }

// Five thousand who say a byte in ten seconds are each gone by their deadline, and cost 8 KiB each at most.
func TestSlowloris(t *testing.T) {
	const clients, timeout = 5000, 30 * time.Second
	heads := []string{"\x05\x03\x00\x01\x02", "\x04\x01\x00\x50\x00\x00\x00\x01", "CONNECT example.com:443 HTTP/1.1\r\n", "GET / HTTP", "\x05\xff"}
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Dial: neverDial(t), HandshakeTimeout: timeout, MaxConns: clients + 1}
		ln := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { s.Serve(ctx, ln) })
		before := memtest.InUse()
		pipes := make([]net.Conn, 0, 2*clients)
		for range clients {
			a, b := net.Pipe()
			pipes = append(pipes, a, b)
		}
		pipe := (memtest.InUse() - before) / clients // which stands for a socket
		runtime.KeepAlive(pipes)
		pipes = nil
		before = memtest.InUse()
		began := time.Now()
		conns := make([]net.Conn, clients)
		for i := range conns {
			conns[i] = ln.dial()
		}
		for b := range 3 {
			for i, c := range conns {
				if h := heads[i%len(heads)]; b < len(h) {
					c.Write([]byte{h[b]})
				}
			}
			if b == 1 {
				synctest.Wait()
				each := (memtest.InUse()-before)/clients - pipe
				t.Logf("%d bytes a connection, besides the %d of its pipe", each, pipe)
				if each > 8<<10 && !underRace {
					t.Errorf("%d bytes a connection", each)
				}
			}
			if b < 2 {
				time.Sleep(10 * time.Second)
			}
		}
		for _, c := range conns {
			io.Copy(io.Discard, c)
		}
		if d := time.Since(began); d != timeout {
			t.Errorf("the last is closed after %v", d)
		}
		synctest.Wait()
		if st := s.Stats(); st.Open != 0 || st.Refused != clients || st.Requests != 0 {
			t.Errorf("%+v", st)
		}
		cancel()
		wg.Wait()
	})
}

// Who says nearly all of what he may, in each of the languages, takes 8 KiB at most.
func TestASlowClientIsSmall(t *testing.T) {
	if underRace {
		t.Skip("the race detector makes everything larger")
	}
	slowClients(t, []string{"C"}, 0) // what there is from then on in any case
	name := strings.Repeat("a", 254)
	connect := "CONNECT example.com:443 HTTP/1.1\r\nProxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+name)) + "\r\n"
	for i, says := range [][]string{
		{"\x05\x01\x02", "\x01\xff" + name + "a\xff" + name}, {"\x04\x01\x00\x50\x00\x00\x00\x01" + name + "\x00" + name}, {connect + "X: " + strings.Repeat("x", maxHead-len(connect)-10)},
	} {
		each := slowClients(t, says, i+1)
		for again := 1; each > 8<<10 && again < 4; again++ { // what the runtime keeps for itself adds to it by chance
			each = slowClients(t, says, i+again+1)
		}
		if t.Logf("after %.20q: %d bytes a connection", says, each); each > 8<<10 {
			t.Errorf("after %.20q: %d bytes a connection", says, each)
		}
	}
}

// slowClients has a server full of clients that said so much, each but the last thing answered, and says what memory one takes.
func slowClients(t *testing.T, says []string, time int) (each int64) {
	defer memtest.Fill(time)()
	const clients = 512
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Dial: neverDial(t), MaxConns: clients}
		ln := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { s.Serve(ctx, ln) })
		near, far := make([]net.Conn, clients), make([]net.Conn, clients)
		for i := range near {
			near[i], far[i] = net.Pipe()
		}
		synctest.Wait()
		before := memtest.InUse()
		for i, c := range near {
			ln.Conns <- far[i]
			for i, what := range says {
				if i > 0 {
					io.ReadFull(c, make([]byte, 2))
				}
				for ; len(what) > 100; what = what[100:] {
					io.WriteString(c, what[:100])
				}
				io.WriteString(c, what)
			}
		}
		synctest.Wait()
		each = (memtest.InUse() - before) / clients
		if open := s.Stats().Open; open != clients {
			t.Errorf("%d are open", open)
		}
		cancel()
		all.Wait()
	})
	return each
}

// underRace: the race detector makes everything larger.
var underRace bool

// panicky fails in its own way after the dial.
type panicky struct {
	net.Conn
	on string
}

func (p panicky) Read(b []byte) (int, error) {
	if p.on == "read" {
		panic("in read")
	}
	return p.Conn.Read(b)
}

func (p panicky) Write(b []byte) (int, error) {
	if p.on == "write" {
		panic("in write")
	}
	return p.Conn.Write(b)
}

func TestPanicEndsOneConnectionOnly(t *testing.T) {
	to := listen(t, echo)
	var log bytes.Buffer
	s := &Server{Log: slog.New(slog.NewTextHandler(&log, nil)), Dial: func(ctx context.Context, r Request) (net.Conn, error) {
		switch r.Port {
		case 1:
			panic("in dial")
		case 2, 3:
			on := map[uint16]string{2: "read", 3: "write"}[r.Port]
			r.Port = to.Port()
			c, err := dialDirect(ctx, r)
			return panicky{c, on}, err
		}
		return dialDirect(ctx, r)
	}}
	addr, stop := startStop(t, s)
	good := connect(t, addr, to)
	for port := uint16(1); port <= 3; port++ {
		c := dialTCP(t, addr)
		c.Write(append(ask("127.0.0.1", port), "data"...))
		io.Copy(io.Discard, c)
		eventually(t, "the panic is counted", func() bool { return s.Stats().Panics == uint64(port) })
	}
	io.WriteString(good, "alive")
	want(t, good, []byte("alive"))
	stop()
	if !strings.Contains(log.String(), "in dial") || !strings.Contains(log.String(), "in write") {
		t.Error(log.String())
	}
}

func TestNothingIsLeftAfterServe(t *testing.T) {
	before := runtime.NumGoroutine()
	hang := make(chan struct{})
	tln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var ends sync.WaitGroup
	ends.Go(func() {
		for {
			c, err := tln.Accept()
			if err != nil {
				return
			}
			ends.Go(func() { echo(c.(*net.TCPConn)); c.Close() })
		}
	})
	s := &Server{Dial: func(ctx context.Context, r Request) (net.Conn, error) {
		if r.Host == "slow" {
			hang <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return dialDirect(ctx, r)
	}}
	addr, stop := startStop(t, s)
	var open []net.Conn
	for i := range 30 {
		switch i % 3 {
		case 0: // says nothing
			c := dialTCP(t, addr)
			eventually(t, "it is accepted", func() bool { return s.Stats().Accepted == uint64(i+1) })
			open = append(open, c)
		case 1: // is being connected
			c := dialTCP(t, addr)
			c.Write(ask("slow", 80))
			<-hang
			open = append(open, c)
		case 2: // is carried
			open = append(open, connect(t, addr, tln.Addr().(*net.TCPAddr).AddrPort()))
		}
	}
	stop()
	for _, c := range open {
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
			t.Error("a connection is still open")
		}
	}
	tln.Close()
	ends.Wait()
	eventually(t, "the goroutines are gone", func() bool { return runtime.NumGoroutine() <= before })
}

type brokenListener struct {
	net.Listener
	errs chan error
}

func (b brokenListener) Accept() (net.Conn, error) {
	if err, ok := <-b.errs; ok {
		return nil, err
	}
	return b.Listener.Accept()
}

func TestServeOutlivesPassingErrors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 3)
	errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
	errs <- &net.OpError{Op: "accept", Err: syscall.ECONNABORTED}
	errs <- errors.New("broken for good")
	err = (&Server{Dial: neverDial(t)}).Serve(context.Background(), brokenListener{ln, errs})
	if err == nil || !strings.Contains(err.Error(), "broken for good") {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}
