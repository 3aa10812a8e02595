package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit"
	"peel/circuit/stream"
	"peel/client/path"
	"peel/client/socks"
	"peel/directory"
)

var errReason = errors.New("the caller's reason")

// endings are the ways in which a caller may say why its context ends, here after a second.
var endings = []struct {
	name    string
	with    func(context.Context) (context.Context, func())
	is      error
	timeout bool
	code    byte // of SOCKS, once the client is ready
}{
	{"WithCancelCause", func(ctx context.Context) (context.Context, func()) {
		ctx, cancel := context.WithCancelCause(ctx)
		t := time.AfterFunc(time.Second, func() { cancel(errReason) })
		return ctx, func() { t.Stop(); cancel(nil) }
	}, context.Canceled, false, socks.GeneralFailure},
	{"WithTimeoutCause", func(ctx context.Context) (context.Context, func()) {
		ctx, cancel := context.WithTimeoutCause(ctx, time.Second, errReason)
		return ctx, cancel
	}, context.DeadlineExceeded, true, socks.TTLExpired},
}

// An error says both that the caller's context ended, as errors.Is asks, and the cause that the caller gave.
func TestErrorsHoldHowAndWhyTheContextEnded(t *testing.T) {
	for _, e := range endings {
		check := func(t *testing.T, what string, code byte, do func(ctx context.Context) error) {
			t.Helper()
			ctx, stop := e.with(t.Context())
			defer stop()
			err := do(ctx)
			if err == nil {
				t.Fatalf("%s, %s: no error", e.name, what)
			}
			var ne net.Error
			timeout := errors.As(err, &ne) && ne.Timeout()
			if !errors.Is(err, e.is) || !errors.Is(err, errReason) || timeout != e.timeout || SOCKSCode(err) != code {
				t.Errorf("%s, %s: timeout %v, SOCKS code %d: %v", e.name, what, timeout, SOCKSCode(err), err)
			}
			if n := strings.Count(err.Error(), errReason.Error()); n > 1 {
				t.Errorf("%s, %s: says the reason %d times: %v", e.name, what, n, err)
			}
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 12)
			c := w.ready(Config{})
			dial := func(first string) func(context.Context) error {
				return func(ctx context.Context) error {
					_, err := c.DialEarly(ctx, "tcp", "silence.example:443", []byte(first))
					return err
				}
			}
			check(t, "DialContext", e.code, dial(""))
			check(t, "DialEarly", e.code, dial("first"))
			check(t, "Resolve", e.code, func(ctx context.Context) error {
				_, err := c.Resolve(ctx, "silence.example")
				return err
			})
			if err := c.NewIdentity(t.Context()); err != nil {
				t.Fatal(err)
			}
			check(t, "NewIdentity", e.code, c.NewIdentity)
		})
		synctest.Test(t, func(t *testing.T) { // no circuit is ever built
			w := newWorld(t, 12)
			c := w.ready(Config{})
			for _, n := range w.nodes {
				n.refuse.Store(true)
			}
			time.Sleep(time.Second) // until all that were begun are there
			for _, n := range w.nodes {
				n.destroy()
			}
			time.Sleep(time.Second)
			check(t, "waiting for a circuit", e.code, func(ctx context.Context) error {
				_, err := c.DialContext(ctx, "tcp", "www.example:443")
				return err
			})
		})
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 12)
			w.down.Store(true)
			c := w.client(Config{})
			run(t, c)
			check(t, "not ready", socks.GeneralFailure, c.Ready)
		})
	}
}

// A stream to which the first bytes are written behind another's refusal tells of the caller's context as well.
func TestFirstBytesThatCannotGoTellWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := stream.NewMux(stream.Config{Wake: func() {}})
		s, err := m.Open(cell.Begin{Host: "www.example", Port: 443})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errReason) })
		err = write(ctx, s, []byte("first"))
		if !errors.Is(err, context.Canceled) || !errors.Is(err, errReason) || !errors.As(err, new(*stream.SentError)) {
			t.Error(err)
		}
	})
}

// A client that is ready does not say that it is not, whatever the context is.
func TestReadyIsReadyThoughTheContextEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 50 {
			if err := c.Ready(ctx); err != nil {
				t.Fatal(err)
			}
			_, err := c.DialContext(ctx, "tcp", "www.example:443")
			if !errors.Is(err, context.Canceled) || errors.As(err, new(*notReadyError)) {
				t.Fatal(err)
			}
		}
		if len(w.asked()) > 0 {
			t.Errorf("asked all the same: %v", w.asked())
		}
	})
}

// Streams that are open when Run ends say that it has, and not that a relay failed; and so they do later.
func TestStreamsSayThatTheClientEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.client(Config{})
		stop := run(t, c)
		conn := mustDial(t, c, "www.example:443")
		defer conn.Close()
		if err := echo(conn); err != nil {
			t.Fatal(err)
		}
		read, written := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			read <- err
		}()
		stalled := mustDial(t, c, "unread.example:443")
		defer stalled.Close()
		go func() {
			_, err := io.Copy(stalled, endless{})
			written <- err
		}()
		synctest.Wait()
		stop()
		for range 2 {
			_, later := conn.Read(make([]byte, 1))
			_, behind := conn.Write([]byte("x"))
			for what, err := range map[string]error{"a read under way": <-read, "a write under way": <-written, "a later read": later, "a later write": behind} {
				if !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) || errors.As(err, new(*circuit.DestroyedError)) {
					t.Errorf("%s: %v", what, err)
				}
			}
			read <- later
			written <- behind
		}
	})
}

// A circuit that is there in the moment in which Run ends takes no streams: they would say that its link was lost.
func TestCircuitThatComesAtTheEndServesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWorld(t, 12).client(Config{Spare: 1})
		var held atomic.Bool
		made := make(chan *circuit.Circuit, 10)
		next, there := c.pool.build, make(chan struct{})
		c.pool.build = func(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
			last := held.Load()
			ci, err := next(ctx, p)
			if last && err == nil {
				made <- ci
				<-there
			}
			return ci, err
		}
		run(t, c)
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		c.pool.mu.Lock()
		for h := range c.pool.circs {
			h.gone = true
		}
		c.pool.mu.Unlock()
		held.Store(true)
		said := make(chan error, 1)
		go func() {
			_, err := c.DialEarly(t.Context(), "tcp", "www.example:443", []byte("hello"))
			said <- err
		}()
		synctest.Wait()
		c.pool.close() // as Run does when it ends
		close(there)
		if err := <-said; !errors.Is(err, ErrClosed) {
			t.Errorf("a dial that waited for it: %v", err)
		}
		synctest.Wait()
		for range len(made) {
			if err := (<-made).Err(); !errors.Is(err, ErrClosed) {
				t.Errorf("a circuit: %v", err)
			}
		}
	})
}

// endless is bytes without end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestNewRefusesANetworkThatCannotBe(t *testing.T) {
	if _, err := New(Config{Network: &directory.Network{Name: "empty"}}); err == nil || !strings.Contains(err.Error(), "authorities") {
		t.Error(err)
	}
}

// A Dial of the embedding program that breaks its promise is told of by name, and is no bug of the client.
func TestDialThatReturnsNothingIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.client(Config{})
		c.cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, nil }
		run(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Ready(ctx); err == nil || !strings.Contains(err.Error(), "Config.Dial") || c.Panics() != 0 {
			t.Errorf("%d panics: %v", c.Panics(), err)
		}
	})
}

// A relative folder is the one that New made, wherever the program goes later.
func TestFolderStaysWhereNewMadeIt(t *testing.T) {
	began, later := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		t.Chdir(began)
		c := w.client(Config{Dir: "state"})
		t.Chdir(later)
		stop := run(t, c)
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop()
		if _, err := os.Stat(filepath.Join(began, "state", GuardsFile(w.Network.ID()))); err != nil {
			t.Error(err)
		}
		if there, err := os.ReadDir(later); err != nil || len(there) > 0 {
			t.Errorf("elsewhere: %v, %v", there, err)
		}
	})
}

// What the package's documentation says that can be asked of errors.
func TestErrorsAreWhatTheDocumentationSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		for host, is := range map[string]error{
			"end-5.example":     &stream.EndError{Reason: cell.EndRefused},
			"end-4.example":     &stream.EndError{Reason: cell.EndNotFound},
			"no.such.invalid":   &stream.EndError{Reason: cell.EndNotFound},
			"a.onion":           &stream.EndError{Reason: cell.EndNotFound},
			"end-9.example":     &stream.EndError{Reason: cell.EndReset},
			"silence.example":   context.DeadlineExceeded,
			"www.example.":      nil,
			"localhost":         nil, // left to the exit
			"printer.home.arpa": &stream.EndError{Reason: cell.EndNotFound},
		} {
			conn, err := c.DialContext(t.Context(), "tcp", host+":443")
			if timeout := (&url.Error{Err: err}).Timeout(); timeout != (is == context.DeadlineExceeded) { // what net/http makes of it
				t.Errorf("%s: timeout %v: %v", host, timeout, err)
			}
			if !errors.Is(err, is) {
				t.Errorf("%s: %v", host, err)
			}
			if err == nil {
				conn.Close()
			}
		}
		if _, err := c.Resolve(t.Context(), "localhost"); !errors.Is(err, &stream.EndError{Reason: cell.EndNotFound}) {
			t.Error(err)
		}
		// What is refused before anybody is asked is a net.Error as well, for programs that ask nothing else of errors.
		for what, do := range map[string]func() (any, error){
			"a name":    func() (any, error) { return c.DialContext(t.Context(), "tcp", "a.onion:80") },
			"no host":   func() (any, error) { return c.DialContext(t.Context(), "tcp", "80") },
			"a network": func() (any, error) { return c.DialContext(t.Context(), "udp", "www.example:80") },
			"much at once": func() (any, error) {
				return c.DialEarly(t.Context(), "tcp", "www.example:80", make([]byte, stream.MaxFirst+1))
			},
			"a name to look up":  func() (any, error) { return c.Lookup(t.Context(), "localhost") },
			"an address of ours": func() (any, error) { return c.LookupAddr(t.Context(), netip.MustParseAddr("127.0.0.1")) },
		} {
			_, err := do()
			if ne, ok := err.(net.Error); !ok || ne.Timeout() {
				t.Errorf("%s: %T: %v", what, err, err)
			}
		}

		conn := mustDial(t, c, "www.example:443")
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(time.Second))
		var ne net.Error
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
			t.Error(err)
		}
		conn.SetReadDeadline(time.Time{})
		for _, n := range w.nodes {
			n.destroy()
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.As(err, new(*circuit.DestroyedError)) || errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		conn.Close()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) || errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// A second client of a folder is refused and does no harm, while the first runs and before; when that has ended, or was never to run, the folder is free.
func TestAFolderIsForOneClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		cfg := Config{Dir: filepath.Join(t.TempDir(), "state"), Network: w.Network}
		refused := func(when string) {
			t.Helper()
			if c, err := New(cfg); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), cfg.Dir) || c != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		c := w.client(cfg)
		refused("before it runs")
		stop := run(t, c)
		refused("while it starts")
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		refused("while it runs")
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Error(err)
		}
		stop()
		again := w.client(cfg)
		if c.Run(t.Context()) == nil {
			t.Error("a client runs twice")
		}
		refused("when the first was told to run again")
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := again.Run(ended); err != nil {
			t.Error(err)
		}
		os.WriteFile(filepath.Join(cfg.Dir, GuardsFile(w.Network.ID())), []byte("broken"), 0o600)
		for _, want := range []string{"is broken", ""} { // a New that fails gives the folder back
			if _, err := New(cfg); want != "" && (err == nil || !strings.Contains(err.Error(), want)) || want == "" && err != nil {
				t.Errorf("want %q: %v", want, err)
			}
		}
	})
}
