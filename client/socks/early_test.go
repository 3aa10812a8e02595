package socks

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// dialFirst dials what is asked for and sends first, as DialEarly must.
func dialFirst(ctx context.Context, r Request, first []byte) (net.Conn, error) {
	c, err := dialDirect(ctx, r)
	if err == nil {
		_, err = c.Write(first)
	}
	return c, err
}

var early = Rules{Early: true}

// A client that speaks first hears that it is connected before it is, and what it says goes along.
func TestEarlyListenerAnswersFirst(t *testing.T) {
	to := listen(t, echo)
	said := make(chan string)
	addr := startRules(t, early, &Server{
		Dial: neverDial(t),
		DialEarly: func(ctx context.Context, r Request, first []byte) (net.Conn, error) {
			said <- string(first)
			return dialFirst(ctx, Request{Host: "127.0.0.1", Port: r.Port}, first)
		},
	})
	for language, in := range asks("far.example", to.Port()) {
		c := dialTCP(t, addr)
		io.WriteString(c, in+"hello, ")
		want(t, c, []byte(granted[language]))
		if got := <-said; got != "hello, " {
			t.Errorf("%s: %q went along", language, got)
		}
		io.WriteString(c, "world")
		c.CloseWrite()
		wantAll(t, c, "hello, world")
	}
}

// The answer is what the client waits for before it speaks.
func TestEarlyListenerWaitsForWhatIsSaid(t *testing.T) {
	to := listen(t, echo)
	said := make(chan string, 100)
	addr := startRules(t, early, &Server{
		Dial: func(ctx context.Context, r Request) (net.Conn, error) {
			said <- ""
			return dialDirect(ctx, r)
		},
		DialEarly: func(ctx context.Context, r Request, first []byte) (net.Conn, error) {
			said <- string(first)
			return dialFirst(ctx, r, first)
		},
	})
	hello := strings.Repeat("client hello", 150) // as long as one with a key of ML-KEM is
	went := 0
	for range cap(said) { // on a busy machine a client may be too slow, but not each time
		c := connect(t, addr, to)
		io.WriteString(c, hello)
		c.CloseWrite()
		wantAll(t, c, hello)
		went += len(<-said)
	}
	if went < len(hello) {
		t.Error("nothing went along with any request")
	}
	if c := connect(t, addr, to); <-said != "" {
		t.Error("a client that says nothing said something")
	} else {
		io.WriteString(c, "late")
		c.CloseWrite()
		wantAll(t, c, "late")
	}
	c := connect(t, addr, to)
	c.CloseWrite()
	if wantAll(t, c, ""); <-said != "" {
		t.Error("the end of what a client says is something")
	}
}

// Who has heard that it is connected gets a reset, as if the far end had, and no code.
func TestEarlyListenerResetsWhatFails(t *testing.T) {
	s := &Server{
		Dial:      func(context.Context, Request) (net.Conn, error) { return nil, syscall.ECONNREFUSED },
		DialEarly: func(context.Context, Request, []byte) (net.Conn, error) { return nil, syscall.ECONNREFUSED },
	}
	addr := startRules(t, early, s)
	failed := uint64(0)
	for language, in := range asks("far.example", 443) {
		for _, more := range []string{"", "hello"} {
			c := dialTCP(t, addr)
			io.WriteString(c, in)
			want(t, c, []byte(granted[language]))
			var err error
			if more != "" {
				_, err = io.WriteString(c, more) // the system tells of a reset once: here, where it came before that
			}
			var b []byte
			if err == nil {
				b, err = io.ReadAll(c)
			}
			if len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("%s: %q, %v", language, b, err)
			}
			failed++
			eventually(t, "the failure is counted", func() bool { return s.Stats().Failed == failed })
		}
	}
}

// Why a connection broke that was answered early is in the log, now and then, and says nothing of where to.
func TestLogSaysWhatEarlyAnswersHide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		var fails error
		s := &Server{Log: slog.New(slog.NewTextHandler(&log, nil)), Dial: func(context.Context, Request) (net.Conn, error) { return nil, fails }}
		s.DialEarly = func(ctx context.Context, r Request, _ []byte) (net.Conn, error) { return s.Dial(ctx, r) }
		var served sync.WaitGroup
		listening := func(r Rules) one {
			l := one{conns: make(chan net.Conn)}
			served.Go(func() { s.ServeRules(t.Context(), l, r) })
			return l
		}
		plain, port := listening(Rules{}), listening(early)
		defer served.Wait()
		defer close(plain.conns)
		defer close(port.conns)
		ask := func(l one, err error) {
			fails = err
			app, near := net.Pipe()
			l.conns <- near
			app.Write(ask("printer", 80))
			io.Copy(io.Discard, app)
			app.Close()
			synctest.Wait()
		}
		told := func(lines int, last string) {
			t.Helper()
			got := strings.Split(strings.TrimSpace(log.String()), "\n")
			if log.Len() == 0 {
				got = nil
			}
			if len(got) != lines || lines > 0 && !strings.Contains(got[lines-1], last) {
				t.Errorf("%d lines instead of %d that end with %s:\n%s", len(got), lines, last, log.String())
			}
		}
		ask(plain, syscall.ECONNREFUSED) // whose application was told
		ask(port, context.Canceled)      // whose application is gone
		told(0, "")
		for range 3 {
			ask(port, &net.DNSError{})
		}
		told(1, `level=INFO msg="socks: a connection came to nothing after an early answer: its application saw a reset, and not why (early_answer)" why="There is no such host." since_last=1`)
		time.Sleep(tellEvery)
		ask(port, syscall.ECONNREFUSED)
		told(2, `why="2: There is no such host. 1: The host refused the connection." since_last=3`)
		time.Sleep(tellEvery)
		ask(port, syscall.ECONNREFUSED)
		told(3, `why="The host refused the connection." since_last=1`)
		if strings.Contains(log.String(), "printer") {
			t.Error("the log says where to")
		}
	})
}

// A client that sends ahead of its own accord learns why it failed, on any listener.
func TestWhatIsSentAheadGoesAlong(t *testing.T) {
	said := make(chan string, 1)
	addr := start(t, &Server{Dial: neverDial(t), DialEarly: func(_ context.Context, _ Request, first []byte) (net.Conn, error) {
		said <- string(first)
		return nil, syscall.ECONNREFUSED
	}})
	c := dialTCP(t, addr)
	c.Write(append(ask("far.example", 443), "hello"...))
	want(t, c, append([]byte{5, 0}, reply(ConnectionRefused)...))
	if got := <-said; got != "hello" {
		t.Errorf("%q went along", got)
	}
}

// What comes while the connection is made goes behind what went along, and a client that is gone ends the attempt.
func TestMoreThanWhatWentAlong(t *testing.T) {
	to := listen(t, echo)
	dialling, release := make(chan struct{}), make(chan struct{})
	addr := start(t, &Server{Dial: neverDial(t), DialEarly: func(ctx context.Context, r Request, first []byte) (net.Conn, error) {
		dialling <- struct{}{}
		select {
		case <-release:
			return dialFirst(ctx, r, first)
		case <-ctx.Done():
			dialling <- struct{}{}
			return nil, ctx.Err()
		}
	}})
	c := dialTCP(t, addr)
	c.Write(append(ask("127.0.0.1", to.Port()), "one "...))
	<-dialling
	io.WriteString(c, strings.Repeat("two ", 2*maxHead))
	time.AfterFunc(2*watchAfter, func() { release <- struct{}{} })
	c.CloseWrite()
	want(t, c, append([]byte{5, 0}, reply(Succeeded)...))
	wantAll(t, c, "one "+strings.Repeat("two ", 2*maxHead))

	c = dialTCP(t, addr)
	c.Write(append(ask("127.0.0.1", to.Port()), "one "...))
	<-dialling
	c.SetLinger(0)
	c.Close()
	<-dialling
}

// What can be known without asking anybody is said before anything else, in the words of the code.
func TestEarlyListenerRefusesWhatCannotBe(t *testing.T) {
	addr := startRules(t, early, &Server{
		Dial: neverDial(t), DialEarly: func(context.Context, Request, []byte) (net.Conn, error) { return nil, errors.New("asked") },
		Check: func(r Request) error {
			if r.Host == "localhost" {
				return syscall.ECONNREFUSED
			}
			return nil
		},
	})
	c := dialTCP(t, addr)
	c.Write(append(ask("localhost", 443), "hello"...))
	want(t, c, append([]byte{5, 0}, reply(ConnectionRefused)...))
}

// one is a listener for one connection.
type one struct {
	net.Listener
	conns chan net.Conn
}

func (o one) Accept() (net.Conn, error) {
	if c, ok := <-o.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (one) Addr() net.Addr { return &net.TCPAddr{} }

func (one) Close() error { return nil }

// A hello of TLS in two packets goes along whole if both are there in time; of anything else what comes first goes.
func TestHelloInTwoPackets(t *testing.T) {
	hello := string([]byte{0x16, 3, 1, 0, 100}) + strings.Repeat("x", 100)
	for _, x := range []struct {
		name, first, second string
		after               time.Duration
		along               string
	}{
		{"in time", hello[:50], hello[50:], earlyWait / 2, hello},
		{"too late", hello[:50], hello[50:], 2 * earlyWait, hello[:50]},
		{"its first byte alone", hello[:1], hello[1:], earlyWait / 2, hello},
		{"whole, and more", hello, "more", earlyWait / 2, hello},
		{"something else", "GET /", " HTTP/1.1", earlyWait / 2, "GET /"},
		{"longer than can go along", "\x16\x03\x01\xff\xff" + strings.Repeat("x", mostEarly-5), "x", earlyWait / 2, "\x16\x03\x01\xff\xff" + strings.Repeat("x", mostEarly-5)},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				app, near := net.Pipe()
				far, target := net.Pipe()
				along := make(chan string, 1)
				s := &Server{Dial: neverDial(t), DialEarly: func(_ context.Context, _ Request, first []byte) (net.Conn, error) {
					along <- string(first)
					return far, nil
				}}
				l := one{conns: make(chan net.Conn, 1)}
				l.conns <- near
				served := make(chan error, 1)
				go func() { served <- s.ServeRules(t.Context(), l, early) }()
				app.Write(ask("far.example", 443))
				want(t, app, []byte{5, 0})
				want(t, app, reply(Succeeded))
				go func() {
					io.WriteString(app, x.first)
					time.Sleep(x.after)
					io.WriteString(app, x.second)
				}()
				if got := <-along; got != x.along {
					t.Errorf("%d bytes went along, not %d", len(got), len(x.along))
				}
				want(t, target, []byte((x.first + x.second)[len(x.along):]))
				app.Close()
				target.Close()
				close(l.conns)
				<-served
			})
		})
	}
}
