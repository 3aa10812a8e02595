package client

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit"
	"peel/client/path"
	"peel/client/socks"
	"peel/directory"
	"peel/directory/dirtest"
)

// later is the consensus of the world as it would be so much later, signed by the first k authorities.
func (w *world) later(by time.Duration, k int) []byte {
	c := *w.Consensus
	c.ValidAfter, c.FreshUntil, c.ValidUntil = c.ValidAfter.Add(by), c.FreshUntil.Add(by), c.ValidUntil.Add(by)
	return w.Sign(&c, k)
}

// signedBy is the text of a consensus signed by these authorities.
func (w *world) signedBy(c directory.Consensus, authorities ...int) []byte {
	c.Signatures = nil
	for _, i := range authorities {
		a := w.Authorities[i]
		sig, err := c.Header.Sign(a.Certificate, a.Signing)
		if err != nil {
			w.t.Fatal(err)
		}
		c.Add(sig)
	}
	text, err := c.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

// refused is a client that gets only such a consensus, for a minute: it must not get further, and says why.
func (w *world) refused(t *testing.T) error {
	t.Helper()
	c := w.client(Config{})
	stop := run(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := c.Ready(ctx)
	if err == nil {
		t.Fatal("the client is ready")
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing says that the time ran out: %v", err)
	}
	p, why := c.Bootstrap()
	if p.Stage != "consensus" || why == nil || !strings.Contains(err.Error(), why.Error()) {
		t.Errorf("it says %v: %v", p, why)
	}
	if c.Consensus() != nil || len(c.Circuits()) > 0 {
		t.Error("it uses it")
	}
	if _, err := c.DialContext(ctx, "tcp", "www.example:80"); err == nil || SOCKSCode(err) != socks.GeneralFailure {
		t.Errorf("dial: %v, code %d", err, SOCKSCode(err))
	}
	stop()
	return err
}

func TestClientRefusesAConsensus(t *testing.T) {
	tests := map[string]struct {
		text func(w *world) []byte
		want error
		says string
	}{
		"with one signature too few": {
			func(w *world) []byte { return w.later(0, w.Network.Threshold-1) },
			directory.ErrSignatures, "3 good signatures of the 4 needed; missing: authority4 (did not sign), authority5",
		},
		"with a changed entry": {
			func(w *world) []byte { return bytes.Replace(w.Text, []byte("relay3\n"), []byte("relay9\n"), 1) },
			directory.ErrRoot, "an entry was changed",
		},
		"with an entry left out": {
			func(w *world) []byte {
				c := *w.Consensus
				c.Entries = c.Entries[1:]
				return c.Append(nil)
			},
			directory.ErrRoot, "entries were added or left out",
		},
		"that expired more than a day ago": {
			func(w *world) []byte { time.Sleep(28 * time.Hour); return w.Text },
			directory.ErrExpired, "the consensus expired at 2000-01-01T03:00:00Z, 25 hours ago by this clock",
		},
		"of another network": {
			func(w *world) []byte { return dirtest.New(2, 6, dirtest.At(time.Now())).Text },
			directory.ErrNetwork, "check that all use the same network.toml",
		},
		"from the future": {
			func(w *world) []byte { return w.later(2*time.Hour, 5) },
			directory.ErrFuture, "the clock is at least 2 hours behind; set it",
		},
		"signed by one dishonest authority for all": {
			func(w *world) []byte { return w.signedBy(*w.Consensus, 0, 0, 0, 0, 0) },
			directory.ErrSignatures, "1 good signatures of the 4 needed",
		},
	}
	for name, x := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 6)
				text := x.text(w)
				w.handOut = func(_ int, a http.ResponseWriter, _ *http.Request) { a.Write(text) }
				if err := w.refused(t); !errors.Is(err, x.want) || !strings.Contains(err.Error(), x.says) {
					t.Errorf("%v\nwant %v, saying %q", err, x.want, x.says)
				}
			})
		})
	}
}

// One authority of five signs two headers of one period; of the honest ones half sign the one and half the other. Neither
// is enough: two clients may go without a directory, but not with two.
func TestOneDishonestAuthorityCannotSplitTheView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		other := *w.Consensus
		other.Entries = other.Entries[1:]
		other.Relays, other.Root = len(other.Entries), directory.Root(other.Entries)
		views := [][]byte{w.signedBy(*w.Consensus, 0, 1, 2), w.signedBy(other, 0, 3, 4)}
		for i, text := range views {
			w.handOut = func(_ int, a http.ResponseWriter, _ *http.Request) { a.Write(text) }
			err := w.refused(t)
			if !errors.Is(err, directory.ErrSignatures) || !strings.Contains(err.Error(), "3 good signatures of the 4 needed") {
				t.Errorf("view %d: %v", i+1, err)
			}
		}
	})
}

// What authorities hand out that is of no use does not keep the client from finding one that is.
func TestOneHonestAuthorityIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		bad := w.later(0, 3)
		w.handOut = func(n int, a http.ResponseWriter, _ *http.Request) {
			if n == 3 {
				a.Write(w.Text)
			} else {
				a.Write(bad)
			}
		}
		start := time.Now()
		c := w.ready(Config{})
		if got := time.Since(start); got > 5*time.Second {
			t.Errorf("it took %v", got)
		}
		if c.Consensus() == nil {
			t.Error("no consensus")
		}
	})
}

// Once a client knows the relays, it fetches what is new from them, at the end of circuits that nothing else uses.
func TestTheNextConsensusComesFromRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 9)
		next, text := w.Churn(2, w.Consensus, 0.2)
		diff, err := directory.MakeDiff(w.Text, text)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var asked []string
		authorities := 0
		w.handOut = func(_ int, a http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			authorities++
			a.Write(w.Text)
		}
		w.caches = func(_ cell.NodeID, a http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				return // the probe
			}
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, r.URL.Path)
			a.Write(diff)
		}
		c := w.ready(Config{})
		if err := dialAndEcho(c, "www.example:80"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		mu.Lock()
		defer mu.Unlock()
		if got, want := strings.Join(asked, " "), "/peel/consensus/diff/"+w.Consensus.Header.Digest().String(); got != want {
			t.Errorf("relays were asked for %q, want %q", got, want)
		}
		if authorities != 1 {
			t.Errorf("authorities were asked %d times", authorities)
		}
		if got := c.Consensus(); got.Header.Digest() != next.Header.Digest() {
			t.Errorf("the client uses the consensus of %v", got.ValidAfter)
		}
		for _, i := range c.Circuits() {
			if i.Used && i.Streams > 0 {
				t.Error("the directory's circuit is still open")
			}
		}
	})
}

// Relays that were asked for the directory, and had nothing newer or failed, are not asked again while there are others.
func TestRelaysThatWereAskedForTheDirectoryAreAvoided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		var not []cell.NodeID
		for _, r := range w.Relays[2:] {
			not = append(not, r.Descriptor.ID)
		}
		for range 4 {
			nc, id, err := c.dialRelay(t.Context(), not)
			if err != nil {
				t.Fatal(err)
			}
			nc.Close()
			if slices.Contains(not, id) {
				t.Errorf("%v is asked again", id)
			}
		}
	})
}

// folderWith is a client's folder in which a consensus is from the start.
func folderWith(t *testing.T, consensus []byte) string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "consensus"), consensus, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestExpiredConsensusIsUsedForADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		time.Sleep(26*time.Hour + 50*time.Minute)
		var log lockedBuffer
		c := w.ready(Config{Dir: folderWith(t, w.Text), Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		const note = "the directory expired 23 hours ago"
		if strings.Count(log.String(), note) != 1 || strings.Count(log.String(), "level=WARN") != 1 {
			t.Errorf("it was not told once, and nothing else:\n%s", log.String())
		}

		for _, l := range []*slog.Logger{nil, slog.New(slog.NewTextHandler(&log, nil))} { // who has no log is told as the client starts
			var stages record
			w.ready(Config{Dir: folderWith(t, w.Text), Progress: stages.add, Log: l})
			want := 0
			if l == nil {
				want = 1
			}
			if n := strings.Count(stages.String(), note); n != want {
				t.Errorf("told %d times, want %d:\n%s", n, want, stages.String())
			}
		}

		time.Sleep(45 * time.Minute)
		err := dialAndEcho(c, "www.example:443")
		if !errors.Is(err, directory.ErrExpired) {
			t.Errorf("a day after its end: %v", err)
		}
		if n := len(c.Circuits()); n != 0 {
			t.Errorf("%d circuits are kept", n)
		}
	})
}

// Of an old list that one directory hands out nobody is told, while the one in hand is of use.
func TestAnOldListIsToldOfOnlyWhenThereIsNone(t *testing.T) {
	var log bytes.Buffer
	world := dirtest.New(1, 0)
	now := world.Consensus.ValidAfter
	c, err := New(Config{Network: world.Network, Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.cache.Put(world.Text, now); err != nil {
		t.Fatal(err)
	}
	old := &directory.TimeError{Err: directory.ErrExpired, ValidAfter: now.Add(-51 * time.Hour), ValidUntil: now.Add(-48 * time.Hour), Now: now}
	c.tellStale(old)
	if log.Len() != 0 {
		t.Errorf("told, though there is one to use:\n%s", &log)
	}
	now = world.Consensus.ValidUntil.Add(directory.Grace + time.Second)
	c.tellStale(errors.New("no answer"))
	c.tellStale(old)
	c.tellStale(old)
	if n := strings.Count(log.String(), "no relay list that holds now"); n != 1 {
		t.Errorf("told %d times:\n%s", n, &log)
	}
}

func TestStagesGoForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		var stages record
		var c *Client
		c = w.client(Config{Progress: func(p Progress) {
			if now, _ := c.Bootstrap(); now != p { // who is told may ask
				t.Errorf("told of %v at %v", p, now)
			}
			stages.add(p)
		}})
		if p, err := c.Bootstrap(); p.Percent != 0 || p.Stage != "none" || err != nil {
			t.Errorf("before Run: %v, %v", p, err)
		}
		run(t, c)
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		want := "start directory consensus checked circuit probe done"
		if got := strings.Join(stages.words, " "); got != want {
			t.Errorf("%s", got)
		}
		if p, err := c.Bootstrap(); p.Percent != 100 || err != nil {
			t.Errorf("at the end: %v, %v", p, err)
		}
	})
}

// startsAmong is a client that runs in a world whose relays, but no authorities, have been spoilt before.
func startsAmong(t *testing.T, spoil func(relay *node)) *Client {
	w := newWorld(t, 6)
	for _, n := range w.nodes {
		if n.authority == 0 {
			spoil(n)
		}
	}
	c := w.client(Config{})
	run(t, c)
	return c
}

func TestReadySaysWhatItWaitsFor(t *testing.T) {
	ask := func(t *testing.T, c *Client) error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		return c.Ready(ctx)
	}
	t.Run("Run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newWorld(t, 6).client(Config{})
			if err := ask(t, c); !errors.Is(err, ErrNotRunning) || !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			stop := run(t, c)
			if err := ask(t, c); err != nil {
				t.Error(err)
			}
			stop()
			if err := ask(t, c); !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
				t.Errorf("afterwards: %v", err)
			}
		})
	})
	t.Run("the authorities", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 6)
			w.down.Store(true)
			c := w.client(Config{})
			run(t, c)
			if err := ask(t, c); err == nil || !strings.Contains(err.Error(), "10 % (directory): reaching a directory authority") ||
				!strings.Contains(err.Error(), "refused") {
				t.Error(err)
			}
			w.down.Store(false)
			if err := ask(t, c); err != nil {
				t.Errorf("when they are there: %v", err)
			}
		})
	})
	t.Run("a first consensus", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 6)
			w.handOut = func(_ int, a http.ResponseWriter, r *http.Request) { http.Error(a, "no consensus yet", 404) }
			c := w.client(Config{})
			run(t, c)
			if err := ask(t, c); err == nil || !strings.Contains(err.Error(), "no consensus yet") {
				t.Error(err)
			}
		})
	})
	t.Run("enough relays", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 4, dirtest.Entries(func(i int, e *directory.Entry) {
				if i > 1 {
					e.Flags &^= directory.Running
				}
			}))
			c := w.client(Config{})
			run(t, c)
			if err := ask(t, c); err == nil || !strings.Contains(err.Error(), "2 of 4 relays running and valid") {
				t.Error(err)
			}
		})
	})
	t.Run("what comes next, not what is over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 6)
			w.down.Store(true)
			c := w.client(Config{})
			c.pool.build = func(ctx context.Context, _ path.Path) (*circuit.Circuit, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			run(t, c)
			time.Sleep(time.Second)
			w.down.Store(false)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if err := c.Ready(ctx); err == nil || strings.Contains(err.Error(), "refused") || !strings.Contains(err.Error(), "(circuit)") {
				t.Error(err)
			}
		})
	})
	t.Run("the relays", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := startsAmong(t, func(relay *node) { relay.refuse.Store(true) })
			if err := ask(t, c); err == nil || !strings.Contains(err.Error(), "60 % (circuit)") || !strings.Contains(err.Error(), "ended by a relay") {
				t.Error(err)
			}
			if _, err := c.DialContext(t.Context(), "tcp", "bad target"); err == nil || strings.Contains(err.Error(), "not ready") {
				t.Errorf("what is wrong anyway is said at once: %v", err)
			}
		})
	})
	t.Run("bytes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := startsAmong(t, func(relay *node) { relay.mute.Store(true) })
			if err := ask(t, c); err == nil || !strings.Contains(err.Error(), "85 % (probe)") || !strings.Contains(err.Error(), "probe: ") {
				t.Error(err)
			}
		})
	})
}

// The start waits for something, and what waits for the start fails after a while, again and again: the reason stays what it was.
func TestTheReasonDoesNotGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startsAmong(t, func(relay *node) { relay.refuse.Store(true) })
		time.Sleep(time.Second)
		for range 3 {
			_, _, err := c.dialRelay(t.Context(), nil)
			if err == nil || !strings.Contains(err.Error(), "ended by a relay") {
				t.Fatal(err)
			}
			c.tellStale(err)
			if _, why := c.Bootstrap(); why == nil || strings.Contains(why.Error(), "not ready") {
				t.Errorf("the reason: %v", why)
			}
		}
	})
}

// A network whose exits open neither 443 nor 80 is one that the client can start in.
func TestExitsForOtherPortsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6, dirtest.Relays(func(i int, d *directory.Descriptor) {
			for j := range d.Policy {
				d.Policy[j] = directory.Rule{Accept: true, Lo: 6667 + uint16(j), Hi: 6667 + uint16(j)}
			}
		}))
		c := w.ready(Config{})
		if err := dialAndEcho(c, "irc.example:6668"); err != nil {
			t.Error(err)
		}
		if _, err := c.Resolve(t.Context(), "irc.example"); err != nil {
			t.Error(err)
		}
	})
}

func TestKeptConsensusSparesTheAuthorities(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		cfg := Config{Dir: t.TempDir()}
		c := w.client(cfg)
		stop := run(t, c)
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		stop()
		var stages record
		cfg.Progress = stages.add
		w.ready(cfg)
		if got := strings.Join(stages.words, " "); got != "start checked circuit probe done" {
			t.Error(got)
		}
	})
}

// record keeps the stages told.
type record struct {
	mu    sync.Mutex
	words []string
	lines []string
}

func (r *record) add(p Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.words, r.lines = append(r.words, p.Stage), append(r.lines, p.String())
}

func (r *record) String() string { return strings.Join(r.lines, "\n") }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// mustDial is DialContext over TCP, without an error.
func mustDial(t *testing.T, c *Client, addr string) net.Conn {
	t.Helper()
	conn, err := c.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// dialAndEcho opens a connection, uses it and closes it.
func dialAndEcho(c *Client, addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := c.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	return echo(conn)
}
