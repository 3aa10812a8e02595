package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit/stream"
	"peel/directory/cache"
)

func begin(stream cell.StreamID, host string) cell.Message {
	return cell.Message{Type: cell.MsgBegin, Stream: stream, Data: cell.Begin{Host: host, Port: 80}.Append(nil)}
}

// names is a Resolver.
type names struct {
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
}

func (n names) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	return n.lookup(ctx, host)
}

func (names) LookupAddr(context.Context, string) ([]string, error) { return nil, errors.New("none") }

// resolves makes every relay an exit that looks names up so.
func resolves(lookup func(ctx context.Context, host string) ([]netip.Addr, error)) func(int, *Config) {
	return func(i int, cfg *Config) {
		exits(i)(i, cfg)
		cfg.Resolver = names{lookup}
	}
}

func TestARelayWithoutAPolicyExitsNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWorld(t, 1).mustBuild(0)
		if _, err := c.Dial(t.Context(), cell.Begin{Host: "127.0.0.1", Port: 80}); !errors.Is(err, &stream.EndError{Reason: cell.EndPolicy}) {
			t.Errorf("BEGIN: %v", err)
		}
		if _, err := c.Resolve(t.Context(), cell.Resolve{Name: "example.com"}); !errors.Is(err, &stream.EndError{Reason: cell.EndPolicy}) {
			t.Errorf("RESOLVE: %v", err)
		}
		if c.Err() != nil || c.Streams() != 0 {
			t.Errorf("%d streams are left, and the circuit says %v", c.Streams(), c.Err())
		}
	})
}

func TestRelaysHandOutTheDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		c := w.mustBuild(0, 1)
		dial := func(ctx context.Context) (net.Conn, error) { return c.DialDir(ctx) }
		for range 3 {
			text, err := cache.Get(t.Context(), dial, cache.Path, 1<<20)
			if err != nil || !bytes.Equal(text, w.net.Text) {
				t.Errorf("%d bytes came: %v", len(text), err)
			}
		}
		places := func() int {
			synctest.Wait()
			w.relays[1].mu.Lock()
			defer w.relays[1].mu.Unlock()
			return w.relays[1].streams.n
		}
		before := places()
		if _, err := c.DialDir(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := places() - before; n != 1 {
			t.Errorf("a stream that is open has %d places", n)
		}
		time.Sleep(time.Minute) // silent for too long
		if n := places(); n != 0 {
			t.Errorf("%d directory streams are left", n)
		}
	})
}

func TestExitsLookNamesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := netip.MustParseAddr("1.1.1.1")
		w := newWorld(t, 1, resolves(func(_ context.Context, host string) ([]netip.Addr, error) {
			switch host {
			case "example.com.":
				return []netip.Addr{want}, nil
			case "missing.example.":
				return nil, &net.DNSError{IsNotFound: true}
			}
			return nil, errors.New("no server answers")
		}))
		c := w.mustBuild(0)
		r, err := c.Resolve(t.Context(), cell.Resolve{Name: "example.com"})
		if err != nil || len(r.Answers) != 1 || r.Answers[0].Addr != want {
			t.Errorf("%v: %v", r, err)
		}
		for name, says := range map[string]string{"missing.example": "no such host", "broken.example": "could not be resolved"} {
			if _, err := c.Resolve(t.Context(), cell.Resolve{Name: name}); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v", name, err)
			}
		}
		n := &w.relays[0].Stats().Lookups
		if found, missing, failed := n.Found.Load(), n.Missing.Load(), n.Failed.Load(); found != 1 || missing != 1 || failed != 1 {
			t.Errorf("%d found, %d missing, %d failed", found, missing, failed)
		}
	})
}

func TestAPanicInAStreamEndsTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, resolves(func(context.Context, string) ([]netip.Addr, error) { panic("a bug") }))
		c := w.mustBuild(0)
		internal := &stream.EndError{Reason: cell.EndInternal}
		if _, err := c.Dial(t.Context(), cell.Begin{Host: "example.com", Port: 80}); !errors.Is(err, internal) {
			t.Errorf("BEGIN: %v", err)
		}
		if _, err := c.Resolve(t.Context(), cell.Resolve{Name: "example.com"}); !errors.Is(err, internal) {
			t.Errorf("RESOLVE: %v", err)
		}
		if n := w.relays[0].Stats().Panics.Load(); n != 2 {
			t.Errorf("%d panics were counted", n)
		}
		if _, err := c.DialDir(t.Context()); err != nil {
			t.Errorf("the circuit: %v", err)
		}
	})
}

func TestTooManyStreamsAreBusy(t *testing.T) {
	blocked := resolves(func(ctx context.Context, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	for name, bound := range map[string]func(int, *Config){
		"of a circuit": func(_ int, cfg *Config) { cfg.MaxStreams = 3 },
		"in all":       func(_ int, cfg *Config) { cfg.MaxTasks = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, blocked, bound)
				x := w.mustOpen(0)
				for i := range 3 {
					x.send(cell.CmdRelay, 0, begin(cell.StreamID(i+1), "example.com"))
				}
				x.mustGoOn()
				x.send(cell.CmdRelay, 0, begin(4, "example.com"))
				if m := x.mustHear(cell.MsgEnd); m.Stream != 4 || m.Data[0] != byte(cell.EndBusy) {
					t.Errorf("END of stream %d: %v", m.Stream, cell.EndReason(m.Data[0]))
				}
				x.mustGoOn()

				// With the circuit end its streams, and others have room.
				x.circ.Close(cell.DestroyNone)
				synctest.Wait()
				y := w.mustOpen(0)
				y.send(cell.CmdRelay, 0, cell.Message{Type: cell.MsgBeginDir, Stream: 1})
				y.mustHear(cell.MsgConnected)
			})
		})
	}
}

func reset(stream cell.StreamID) cell.Message {
	return cell.Message{Type: cell.MsgEnd, Stream: stream, Data: cell.End{Reason: cell.EndReset}.Append(nil)}
}

// A number is free when the stream is reset; the work for it must not go on behind that.
func TestALookUpEndsWithItsStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		w := newWorld(t, 1, resolves(func(ctx context.Context, _ string) ([]netip.Addr, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		x := w.mustOpen(0)
		for i := range cell.StreamID(100) {
			x.send(cell.CmdRelay, 0, begin(i+1, "example.com"))
			x.send(cell.CmdRelay, 0, reset(i+1))
			x.mustHear(cell.MsgEnd)
			synctest.Wait()
			if n := running.Load(); n != 0 {
				t.Fatalf("after stream %d: %d look-ups go on", i+1, n)
			}
		}
		if most.Load() == 0 {
			t.Error("nothing was looked up")
		}
		x.mustGoOn()
	})
}

// A task that does not hear of the end of its stream keeps its place, so that no circuit has more than its share.
func TestTasksAreCountedNotStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf := make(chan struct{})
		defer close(deaf)
		var running atomic.Int32
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.MaxStreams = 3 },
			resolves(func(context.Context, string) ([]netip.Addr, error) {
				running.Add(1)
				<-deaf
				return nil, errors.New("none")
			}))
		x := w.mustOpen(0)
		for i := range cell.StreamID(10) {
			x.send(cell.CmdRelay, 0, begin(i+1, "example.com"))
			x.send(cell.CmdRelay, 0, reset(i+1))
			x.mustHear(cell.MsgEnd)
		}
		synctest.Wait()
		if n := running.Load(); n != 3 {
			t.Errorf("%d tasks of one circuit run", n)
		}
	})
}

func TestOneCircuitDoesNotTakeAllDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		w := newWorld(t, 1, resolves(func(ctx context.Context, _ string) ([]netip.Addr, error) {
			running.Add(1)
			defer running.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		x := w.mustOpen(0)
		for i := range cell.StreamID(mostPending) {
			x.send(cell.CmdRelay, 0, begin(i+1, "example.com"))
			synctest.Wait()
		}
		x.send(cell.CmdRelay, 0, begin(mostPending+1, "example.com"))
		if m := x.mustHear(cell.MsgEnd); m.Stream != mostPending+1 || m.Data[0] != byte(cell.EndBusy) {
			t.Errorf("END of stream %d: %v", m.Stream, cell.EndReason(m.Data[0]))
		}
		x.send(cell.CmdRelay, 0, cell.Message{Type: cell.MsgResolve, Stream: mostPending + 2, Data: cell.Resolve{Name: "example.com"}.Append(nil)})
		if m := x.mustHear(cell.MsgResolved); m.Data[0] != byte(cell.EndBusy) {
			t.Errorf("RESOLVED: %v", cell.EndReason(m.Data[0]))
		}
		if n := running.Load(); n != mostPending {
			t.Errorf("%d of one circuit are under way", n)
		}
		x.circ.Close(cell.DestroyNone)
		synctest.Wait()
		if n := running.Load(); n != 0 {
			t.Errorf("%d are left", n)
		}
	})
}

// 64 circuits of 256 idle streams would otherwise shut everybody else out.
func TestWhoHoldsMostStreamsMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.MaxTasks = 4 })
		dir := func(id cell.StreamID) cell.Message { return cell.Message{Type: cell.MsgBeginDir, Stream: id} }
		greedy := w.mustOpen(0)
		for i := range cell.StreamID(4) {
			greedy.send(cell.CmdRelay, 0, dir(i+1))
			greedy.mustHear(cell.MsgConnected)
		}
		honest := w.mustOpen(0)
		for i := range cell.StreamID(2) { // until both hold the same
			honest.send(cell.CmdRelay, 0, dir(i+1))
			honest.mustHear(cell.MsgConnected)
			if m := greedy.mustHear(cell.MsgEnd); m.Stream != 4-i || m.Data[0] != byte(cell.EndBusy) {
				t.Errorf("END of stream %d: %v", m.Stream, cell.EndReason(m.Data[0]))
			}
		}
		for _, x := range []*raw{greedy, honest} {
			x.send(cell.CmdRelay, 0, dir(9))
			if m := x.mustHear(cell.MsgEnd); m.Stream != 9 || m.Data[0] != byte(cell.EndBusy) {
				t.Errorf("END of stream %d: %v", m.Stream, cell.EndReason(m.Data[0]))
			}
			x.mustGoOn()
		}
	})
}

// Hosts that read nothing cost the relay no more than it has set aside, whatever the number of circuits.
func TestHostsThatReadNothingStayWithinTheBudget(t *testing.T) {
	const most, circuits = 256 << 10, 4
	w := newWorld(t, 1, exits(0), func(_ int, cfg *Config) { cfg.MaxUnread = most })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() { // it takes connections and leaves them
		var all []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			c.(*net.TCPConn).SetReadBuffer(4096)
			all = append(all, c)
		}
		for _, c := range all {
			c.Close()
		}
	})
	a := l.Addr().(*net.TCPAddr)
	var ended atomic.Int32
	var writers sync.WaitGroup
	for range circuits {
		c := w.mustBuild(0)
		s, err := c.Dial(t.Context(), cell.Begin{Host: a.IP.String(), Port: uint16(a.Port)})
		if err != nil {
			t.Fatal(err)
		}
		writers.Go(func() { // until it is reset
			chunk := make([]byte, 64<<10)
			for {
				if _, err := s.Write(chunk); err != nil {
					if errors.Is(err, &stream.EndError{Reason: cell.EndBusy}) {
						ended.Add(1)
					}
					c.Close()
					return
				}
				if n := w.relays[0].budget.Used(); n > most+circuits*cell.MaxData {
					t.Errorf("%d bytes wait", n)
				}
			}
		})
	}
	s, err := w.mustBuild(0).Dial(t.Context(), server(t, func(s *net.TCPConn) { io.Copy(s, s) }))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		s.Write([]byte("hello"))
		if _, err := io.ReadFull(s, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	writers.Wait()
	if n := ended.Load(); n != circuits {
		t.Errorf("%d of %d streams were reset as busy", n, circuits)
	}
}

// server is a TCP server that handles one connection.
func server(t *testing.T, handle func(c *net.TCPConn)) (b cell.Begin) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		handle(c.(*net.TCPConn))
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	a := l.Addr().(*net.TCPAddr)
	return cell.Begin{Host: a.IP.String(), Port: uint16(a.Port)}
}

func TestStreamsToAServer(t *testing.T) {
	w := newWorld(t, 2, exits(1))
	c := w.mustBuild(0, 1)
	question := bytes.Repeat([]byte("what is it? "), 50000)

	t.Run("each side ends for itself", func(t *testing.T) {
		b := server(t, func(s *net.TCPConn) {
			all, err := io.ReadAll(s) // until the client has ended
			if err != nil {
				t.Error(err)
			}
			s.Write(all) // and still hears
		})
		s, err := c.Dial(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if to, ok := s.Destination(); !ok || to.Addr.String() != b.Host {
			t.Errorf("connected to %v", to)
		}
		if _, err := s.Write(question); err != nil {
			t.Error(err)
		}
		s.CloseWrite()
		if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, question) {
			t.Errorf("%d bytes came back of %d: %v", len(got), len(question), err)
		}
		s.Close()
	})
	t.Run("the server ends first", func(t *testing.T) {
		got := make(chan []byte, 1)
		s, err := c.Dial(t.Context(), server(t, func(s *net.TCPConn) {
			s.Write([]byte("hello"))
			s.CloseWrite()
			all, _ := io.ReadAll(s)
			got <- all
		}))
		if err != nil {
			t.Fatal(err)
		}
		if hello, err := io.ReadAll(s); err != nil || string(hello) != "hello" {
			t.Errorf("%q, %v", hello, err)
		}
		s.Write(question)
		s.Close()
		if all := <-got; !bytes.Equal(all, question) {
			t.Errorf("the server got %d bytes of %d", len(all), len(question))
		}
	})
	t.Run("the server resets", func(t *testing.T) {
		s, err := c.Dial(t.Context(), server(t, func(s *net.TCPConn) {
			io.ReadFull(s, make([]byte, 2))
			s.SetLinger(0)
		}))
		if err != nil {
			t.Fatal(err)
		}
		s.Write([]byte("hi"))
		if _, err := io.ReadAll(s); !errors.Is(err, &stream.EndError{Reason: cell.EndReset}) {
			t.Errorf("the client reads %v", err)
		}
		s.Close()
	})
	t.Run("nobody listens", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		b := cell.Begin{Host: "127.0.0.1", Port: uint16(l.Addr().(*net.TCPAddr).Port)}
		if _, err := c.Dial(t.Context(), b); !errors.Is(err, &stream.EndError{Reason: cell.EndRefused}) {
			t.Errorf("dial: %v", err)
		}
	})
	if c.Err() != nil {
		t.Error(c.Err())
	}
	if st := w.relays[1].Stats(); st.Exits.Load() != 3 || st.ExitsFailed.Load() != 1 {
		t.Errorf("%d exits and %d failures were counted", st.Exits.Load(), st.ExitsFailed.Load())
	}
}

func TestWhatIsCutOffNeverLooksWhole(t *testing.T) {
	for name, cut := range map[string]func(w *world, s *stream.Stream, end func()){
		"the client resets":         func(_ *world, s *stream.Stream, _ func()) { s.Reset(cell.EndReset) },
		"the client's circuit ends": func(_ *world, _ *stream.Stream, end func()) { end() },
		"a link breaks":             func(w *world, _ *stream.Stream, _ func()) { w.cut(1) },
		"the exit stops":            func(w *world, _ *stream.Stream, _ func()) { w.stop[1]() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2, exits(1))
			c := w.mustBuild(0, 1)
			began, seen := make(chan struct{}), make(chan error, 1)
			s, err := c.Dial(t.Context(), server(t, func(s *net.TCPConn) {
				io.ReadFull(s, make([]byte, 4))
				s.Write([]byte("well"))
				close(began)
				_, err := io.Copy(io.Discard, s)
				seen <- err
			}))
			if err != nil {
				t.Fatal(err)
			}
			s.Write([]byte("half of it"))
			io.ReadFull(s, make([]byte, 4))
			<-began
			cut(w, s, func() { c.Close() })
			if err := <-seen; err == nil {
				t.Error("the server sees an end in order")
			}
			if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
				t.Errorf("the client reads %v", err)
			}
		})
	}
}

// What a client sends along with its request, its last byte included, gets to the host that it is connected to, and to nobody else.
func TestFirstBytesGoToTheHost(t *testing.T) {
	w := newWorld(t, 2, exits(1))
	c := w.mustBuild(0, 1)
	echo := func(s *net.TCPConn) {
		all, err := io.ReadAll(s)
		if err != nil {
			t.Error(err)
		}
		s.Write(all)
	}
	back := func(s *stream.Stream) {
		if got, err := io.ReadAll(s); err != nil || string(got) != "hello" {
			t.Errorf("%q came back, %v", got, err)
		}
		s.Close()
	}
	for range 10 {
		s, err := c.Open(server(t, echo))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		s.CloseWrite()
		back(s)
		if s, err = c.DialEarly(t.Context(), server(t, echo), []byte("hello")); err != nil {
			t.Fatal(err)
		}
		s.CloseWrite()
		back(s)
	}
	refused := cell.Begin{Host: "10.0.0.1", Port: 80} // by the policy
	if _, err := c.DialEarly(t.Context(), refused, []byte("hello")); !errors.Is(err, &stream.EndError{Reason: cell.EndPolicy}) {
		t.Errorf("refused: %v", err)
	}
	if c.Err() != nil {
		t.Error(c.Err())
	}
}
