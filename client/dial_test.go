package client

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit/stream"
	"peel/client/path"
	"peel/client/socks"
)

func TestTargets(t *testing.T) {
	long := strings.Repeat("a", 255)
	for _, x := range []struct {
		network, addr string
		host          string // "": refused
		port          uint16
		flags         cell.BeginFlags
	}{
		{"tcp", "www.example:80", "www.example", 80, 0},
		{"tcp4", "www.example:80", "www.example", 80, cell.NoIPv6},
		{"tcp6", "www.example:80", "www.example", 80, cell.NoIPv4},
		{"tcp", "WWW.example.:443", "WWW.example.", 443, 0},
		{"tcp", "192.0.2.1:1", "192.0.2.1", 1, 0},
		{"tcp", "[2001:DB8:0:0::1]:65535", "2001:db8::1", 65535, 0},
		{"tcp", "[::ffff:192.0.2.1]:80", "192.0.2.1", 80, 0},
		{"tcp4", "[::ffff:192.0.2.1]:80", "192.0.2.1", 80, cell.NoIPv6},
		{"tcp6", "[2001:db8::1]:80", "2001:db8::1", 80, cell.NoIPv4},
		{"tcp", long + ":80", long, 80, 0},
		{"tcp", "127.1:80", "127.1", 80, 0}, // what it is, the exit says
		{"tcp", "localhost:80", "localhost", 80, 0},
		{"tcp", "onion:80x", "", 0, 0},
		{"tcp", "192.0.2.1", "", 0, 0},
		{"tcp", "2001:db8::1:80", "", 0, 0},
		{"tcp", "[fe80::1%eth0]:80", "", 0, 0},
		{"tcp", "www.example:0", "", 0, 0},
		{"tcp", "www.example:65536", "", 0, 0},
		{"tcp", "www.example:-1", "", 0, 0},
		{"tcp", "www.example:http", "", 0, 0},
		{"tcp", "www.example:", "", 0, 0},
		{"tcp", ":80", "", 0, 0},
		{"tcp", "", "", 0, 0},
		{"tcp", long + "a:80", "", 0, 0},
		{"tcp", "www example:80", "", 0, 0},
		{"tcp", "bücher.example:80", "", 0, 0},
		{"tcp", "a\x00b:80", "", 0, 0},
		{"tcp", "aaaa.onion:80", "", 0, 0},
		{"tcp", "aaaa.Onion.:80", "", 0, 0},
		{"tcp", "aaaa.peel.alt:80", "", 0, 0},
		{"tcp", "aaaa.onion..:80", "", 0, 0},
		{"tcp", "[aaaa.onion:80]:80", "", 0, 0}, // a port that went with the name, as some programs have it
		{"tcp", "aaaa.onion/:80", "", 0, 0},
		{"tcp", "a_b-c.x1.example:80", "a_b-c.x1.example", 80, 0},
		{"tcp4", "[2001:db8::1]:80", "", 0, 0},
		{"tcp6", "192.0.2.1:80", "", 0, 0},
		{"tcp6", "[::ffff:192.0.2.1]:80", "", 0, 0},
		{"udp", "www.example:80", "", 0, 0},
		{"", "www.example:80", "", 0, 0},
	} {
		b, err := target(x.network, x.addr)
		if x.host == "" {
			if err == nil {
				t.Errorf("%s %q: taken for %+v", x.network, x.addr, b)
			} else if len(x.addr) > 5 && strings.Contains(err.Error(), x.addr) {
				t.Errorf("%s %q: the error names it: %v", x.network, x.addr, err)
			}
			continue
		}
		if want := (cell.Begin{Host: x.host, Port: x.port, Flags: x.flags}); err != nil || b != want {
			t.Errorf("%s %q: %+v, %v", x.network, x.addr, b, err)
		}
		if err := b.Check(); err != nil {
			t.Errorf("%s %q: %v", x.network, x.addr, err)
		}
	}
	if _, err := target("tcp", "aaaa.peel.alt:80"); endReason(err) != cell.EndNotFound {
		t.Errorf("a service's address: %v", err)
	}
}

// hosts are all that the exits were asked for, in no order.
func (w *world) hosts() (all []string) {
	for _, h := range w.asked() {
		all = append(all, h...)
	}
	return all
}

func TestDialTriesWhereItMayHelp(t *testing.T) {
	for _, x := range []struct {
		host  string
		tries int
		end   cell.EndReason
	}{
		{"end-2.example", 3, cell.EndMisc},
		{"end-3.example", 3, cell.EndResolveFailed},
		{"end-4.example", 1, cell.EndNotFound},
		{"end-5.example", 1, cell.EndRefused},
		{"end-6.example", 3, cell.EndPolicy},
		{"end-7.example", 1, cell.EndTimeout},
		{"end-8.example", 1, cell.EndUnreachable},
		{"end-9.example", 1, cell.EndReset},
		{"end-10.example", 3, cell.EndBusy},
		{"end-12.example", 3, cell.EndInternal},
		{"end-13.example", 1, cell.EndProtocol},
		{"destroy.example", 3, 0},
		{"silence.example", 3, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 12)
			c := w.ready(Config{})
			_, err := c.DialContext(t.Context(), "tcp", x.host+":443")
			if err == nil || endReason(err) != x.end {
				t.Errorf("%s: %v", x.host, err)
			}
			if got := w.hosts(); len(got) != x.tries {
				t.Errorf("%s: %d tries instead of %d", x.host, len(got), x.tries)
			}
			if len(w.asked()) != x.tries || c.Again() != uint64(x.tries-1) {
				t.Errorf("%s: tried on %d circuits, and %d times again", x.host, len(w.asked()), c.Again())
			}
			if err := dialAndEcho(c, "www.example:443"); err != nil {
				t.Errorf("after %s: %v", x.host, err)
			}
		})
	}
}

// What an exit says of a name is asked of another exit, and the circuit is kept for others.
func TestAnotherExitIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		c.DialContext(t.Context(), "tcp", "end-6.example:443")
		exits := 0
		for _, n := range w.nodes {
			if len(n.askedFor()) > 0 {
				exits++
			}
		}
		if exits != 3 {
			t.Errorf("%d exits were asked", exits)
		}
		used := 0
		for _, i := range c.Circuits() {
			if i.Used {
				used++
			}
		}
		if used != 3 {
			t.Errorf("%d circuits of 3 are kept", used)
		}
		// With two exits the second's word is the answer, not that there is no third.
		w = newWorld(t, 6)
		c = w.ready(Config{})
		if _, err := c.DialContext(t.Context(), "tcp", "end-6.example:443"); endReason(err) != cell.EndPolicy || len(w.hosts()) != 2 {
			t.Errorf("%v after %d tries", err, len(w.hosts()))
		}
	})
}

func TestWhatNoExitAllowsIsSaidAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWorld(t, 6).ready(Config{})
		start := time.Now()
		_, err := c.DialContext(t.Context(), "tcp", "mail.example:25")
		if !errors.Is(err, path.ErrNoExit) || SOCKSCode(err) != socks.NotAllowed || !time.Now().Equal(start) {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// A circuit that says nothing is left after 25 s; a caller's own end comes first, and says so.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		start := time.Now()
		if _, err := c.DialContext(t.Context(), "tcp", "silence.example:443"); !errors.Is(err, context.DeadlineExceeded) || SOCKSCode(err) != socks.TTLExpired {
			t.Error(err)
		}
		if got := time.Since(start).Round(time.Second); got != 3*answerWithin {
			t.Errorf("after %v", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start = time.Now()
		if _, err := c.DialContext(ctx, "tcp", "silence.example:443"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("after %v", got)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := c.DialContext(ctx, "tcp", "silence.example:443"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		want := []netip.Addr{netip.MustParseAddr("52.0.2.7"), netip.MustParseAddr("2600:db8::7")}
		if got, err := c.Resolve(t.Context(), "www.example"); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v", got, err)
		}
		for _, a := range want {
			if got, err := c.Resolve(t.Context(), a.String()); err != nil || !slices.Equal(got, []netip.Addr{a}) {
				t.Errorf("%v: %v, %v", a, got, err)
			}
		}
		if got := w.hosts(); !slices.Equal(got, []string{"www.example"}) {
			t.Errorf("exits were asked for %v", got)
		}
		for host, reason := range map[string]cell.EndReason{
			"end-4.example": cell.EndNotFound, "end-3.example": cell.EndResolveFailed, "nameless.example": cell.EndNotFound,
			"aaaa.onion": cell.EndNotFound, "aaaa.onion..": cell.EndNotFound, "aaaa.onion:80": cell.EndNotFound, "printer.local..": cell.EndNotFound, ".": cell.EndNotFound, "": 0, "a b": 0, "fe80::1%eth0": 0,
		} {
			if got, err := c.Resolve(t.Context(), host); err == nil || endReason(err) != reason {
				t.Errorf("%q: %v, %v", host, got, err)
			}
		}
		if asked := strings.Join(w.hosts(), " "); strings.Contains(asked, "onion") || strings.Contains(asked, "local") {
			t.Errorf("exits were asked for %s", asked)
		}
	})
}

// An exit that says that a name is of this machine, or of the network around it, is not believed: programs would connect there by
// themselves, with what a web page of that name told them to say.
func TestExitsDoNotPointInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		if got, err := c.Resolve(t.Context(), "inside-1.example"); err != nil || !slices.Equal(got, []netip.Addr{netip.MustParseAddr("52.0.2.7")}) {
			t.Errorf("%v, %v", got, err)
		}
		if got, err := c.Resolve(t.Context(), "inside.example"); err == nil || endReason(err) != cell.EndNotFound {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// When Run ends, whoever waits is told, and connections fail; nothing of the client is left (the bubble would not end).
func TestEndOfRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.client(Config{})
		stop := run(t, c)
		conn := mustDial(t, c, "www.example:443")
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) && !errors.As(err, new(*stream.EndError)) && err == nil {
				t.Errorf("read: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := c.DialContext(t.Context(), "tcp", "silence.example:443"); !errors.Is(err, ErrClosed) || strings.Count(err.Error(), "client:") != 1 {
				t.Errorf("dial, under way: %v", err)
			}
		})
		synctest.Wait()
		if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "before") {
			t.Errorf("Run a second time: %v", err)
		}
		stop()
		wg.Wait()
		if _, err := c.DialContext(t.Context(), "tcp", "www.example:443"); !errors.Is(err, ErrClosed) {
			t.Errorf("dial, later: %v", err)
		}
		if _, err := c.Resolve(t.Context(), "www.example"); !errors.Is(err, ErrClosed) {
			t.Errorf("resolve, later: %v", err)
		}
		if len(c.Circuits()) != 0 {
			t.Error("circuits are left")
		}
		if err := c.Run(t.Context()); err == nil {
			t.Error("it ran again")
		}
	})
}

func TestRunThatEndsBeforeItIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		w.down.Store(true)
		c := w.client(Config{})
		stop := run(t, c)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.DialContext(t.Context(), "tcp", "www.example:443"); !errors.Is(err, ErrClosed) {
				t.Errorf("dial: %v", err)
			}
		})
		time.Sleep(time.Second)
		stop()
		wg.Wait()
		if PathOf(conn(t)) != nil {
			t.Error("a path of a connection from elsewhere")
		}
	})
}

func conn(t *testing.T) net.Conn {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a
}

func TestConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		for _, x := range []struct {
			cfg  Config
			says string
		}{
			{Config{}, "network file"},
			{Config{Network: w.Network, Spare: -1}, "-1 spare"},
			{Config{Network: w.Network, Spare: 65}, "65 spare"},
			{Config{Network: w.Network, Circuits: 3}, "more than that"},
			{Config{Network: w.Network, Circuits: -1}, "more than that"},
		} {
			if _, err := New(x.cfg); err == nil || !strings.Contains(err.Error(), x.says) {
				t.Errorf("%+v: %v", x.cfg, err)
			}
		}
	})
}
