package testnet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"peel/client"
	"peel/client/socks"
	"peel/directory/cache"
)

// run starts a network for the time of a test and waits until its client is ready and knows all relays.
func run(t *testing.T, cfg Config) *Net {
	t.Helper()
	var log lockedBuffer
	log.showIfFailed(t)
	n, stop := start(t, cfg, &log)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// start starts a network and waits until its client is ready and knows all relays: on a busy machine some come too late for the first
// consensus, and a test that kills three of the five that are in it leaves no path. Who calls it stops it.
func start(t *testing.T, cfg Config, log *lockedBuffer) (n *Net, stop func() error) {
	t.Helper()
	cfg.Log = log.of
	return started(t, cfg, func(ctx context.Context, n *Net) error {
		if err := n.Ready(ctx); err != nil {
			return err
		}
		for len(n.Client().Consensus().Entries) < len(n.layout.Relays) {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("some relays are in no consensus: %w", ctx.Err())
			}
		}
		return nil
	})
}

// started starts a network and waits until it is ready, as long as it is given more and more time by itself.
func started(t *testing.T, cfg Config, ready func(context.Context, *Net) error) (n *Net, stop func() error) {
	t.Helper()
	n, stop = begin(t, cfg)
	if err := within(5*time.Minute, n, ready); err != nil {
		t.Fatalf("%v; the network: %v", err, stop())
	}
	return n, stop
}

// begin starts a network; stop stops it.
func begin(t *testing.T, cfg Config) (n *Net, stop func() error) {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	return n, func() error {
		cancel()
		return <-ended
	}
}

// within waits so long.
func within(d time.Duration, n *Net, ready func(context.Context, *Net) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return ready(ctx, n)
}

// shared is a small network for the tests that harm nothing in it: the first starts it, the last ends it.
var shared struct {
	mu    sync.Mutex
	users int
	net   *Net // nil: not running
	stop  func() error
	log   lockedBuffer
}

// share has a test run beside others, in the network that they share.
func share(t *testing.T) *Net {
	t.Helper()
	s := &shared
	s.mu.Lock()
	s.users++ // before the test is put off, so that the last is known to be the last
	s.mu.Unlock()
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.users--; s.users == 0 && s.net != nil {
			s.net = nil
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		}
	})
	t.Parallel()
	s.log.showIfFailed(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.net == nil {
		cfg := small
		cfg.Resolver = names{}
		s.net, s.stop = start(t, cfg, &s.log)
	}
	return s.net
}

// showIfFailed shows the end of what was logged if the test fails.
func (b *lockedBuffer) showIfFailed(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			lines := strings.Split(b.text(), "\n")
			t.Log(strings.Join(lines[max(0, len(lines)-3000):], "\n"))
		}
	})
}

// of is the log of a node.
func (b *lockedBuffer) of(node string) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", node)
}

type lockedBuffer struct {
	mu sync.Mutex
	strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Builder.Write(p)
}

func (b *lockedBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String()
}

// beside has a test with a network of its own run beside others.
var beside = (*testing.T).Parallel

// small is a network just large enough for the rules. Its authorities have time to vote in on a busy machine, and seldom need to begin anew.
var small = Config{Size: Size{Authorities: 4, Relays: 6, Exits: 2}, Period: 6 * time.Second, Voting: 3 * time.Second}

// web is a server that gives size bytes of a fixed noise and takes what is sent to it, answering with its hash.
func web(t *testing.T, page []byte) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			h := sha256.New()
			io.Copy(h, r.Body)
			fmt.Fprintf(w, "%x", h.Sum(nil))
			return
		}
		w.Write(page)
	}))
	t.Cleanup(s.Close)
	return s
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// over is an http.Client whose connections go through the network.
func over(t *testing.T, c *client.Client) *http.Client {
	tr := &http.Transport{DialContext: c.DialContext}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func sum(h hash.Hash) string { return fmt.Sprintf("%x", h.Sum(nil)) }

// 64 MiB with PEEL_SLOW=1.
func TestDownloadAndUpload(t *testing.T) {
	n := share(t)
	page := noise(16 << 20)
	if os.Getenv("PEEL_SLOW") == "1" {
		page = noise(64 << 20)
	}
	want := fmt.Sprintf("%x", sha256.Sum256(page))
	s := web(t, page)

	t.Run("client.Client", func(t *testing.T) {
		b := over(t, n.Client())
		r, err := b.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err != nil || sum(h) != want {
			t.Fatalf("download: %v, SHA-256 %s instead of %s", err, sum(h), want)
		}
		put, _ := http.NewRequest(http.MethodPut, s.URL, strings.NewReader(string(page)))
		r, err = b.Do(put)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if got, err := io.ReadAll(r.Body); err != nil || string(got) != want {
			t.Fatalf("upload: %v, SHA-256 %s instead of %s", err, got, want)
		}
	})

	t.Run("curl", func(t *testing.T) {
		curl, err := exec.LookPath("curl")
		if err != nil {
			t.Skip("curl is not installed")
		}
		proxy := "socks5h://" + proxy(t, n.Client())
		out := filepath.Join(t.TempDir(), "page")
		if b, err := exec.Command(curl, "-sS", "--noproxy", "", "--proxy", proxy, "-o", out, s.URL).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		got, err := os.ReadFile(out)
		if err != nil || fmt.Sprintf("%x", sha256.Sum256(got)) != want {
			t.Fatalf("download: %v, %d bytes of another SHA-256", err, len(got))
		}
		b, err := exec.Command(curl, "-sS", "--noproxy", "", "--proxy", proxy, "-T", out, s.URL).CombinedOutput()
		if err != nil || string(b) != want {
			t.Fatalf("upload: %v: %s instead of %s", err, b, want)
		}
	})
}

// proxy serves SOCKS5 for the time of the test.
func proxy(t *testing.T, c *client.Client) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &socks.Server{Code: client.SOCKSCode, Dial: func(ctx context.Context, r socks.Request) (net.Conn, error) {
		return c.Isolated(r.Isolation).DialContext(ctx, "tcp", net.JoinHostPort(r.Host, fmt.Sprint(r.Port)))
	}}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestFiftyStreamsSideBySide(t *testing.T) {
	n := share(t)
	page := noise(1 << 20)
	want := sha256.Sum256(page)
	s := web(t, page)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			r, err := over(t, n.Client()).Get(s.URL)
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
				return
			}
			defer r.Body.Close()
			b, err := io.ReadAll(r.Body)
			if err != nil || sha256.Sum256(b) != want {
				t.Errorf("stream %d: %v, %d bytes", i, err, len(b))
			}
		})
	}
	wg.Wait()
}

// A stream that nobody reads holds up to its window and harms no other on its circuit.
func TestUnreadStreamHarmsNobody(t *testing.T) {
	page := noise(8 << 20)
	n := share(t)
	own, _ := another(t, client.Config{Network: n.Layout().Network, NoRacing: true}) // a race would lead to another circuit
	s := web(t, page)
	addr := strings.TrimPrefix(s.URL, "http://")
	stuck, err := own.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	fmt.Fprintf(stuck, "GET / HTTP/1.0\r\n\r\n")
	for range 3 {
		c, err := own.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if client.PathOf(c) == nil || fmt.Sprint(client.PathOf(c)) != fmt.Sprint(client.PathOf(stuck)) {
			t.Fatal("the streams are not on one circuit")
		}
		fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
		if b, err := io.ReadAll(c); err != nil || len(b) < len(page) {
			t.Fatalf("%v after %d bytes", err, len(b))
		}
		c.Close()
	}
}

func TestKilledRelayEndsItsStreams(t *testing.T) {
	const soon = time.Minute // it is a matter of milliseconds, but on a busy machine; TestAfterAKillTheNextConnectionComesSoon looks how soon
	beside(t)
	cfg := small
	cfg.Size = Size{Authorities: 4, Relays: 9, Exits: 3}
	n := run(t, cfg)
	never := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/never" {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			select {
			case <-never:
			case <-r.Context().Done():
			}
		}
	}))
	defer s.Close()
	defer close(never)
	addr := strings.TrimPrefix(s.URL, "http://")
	for hop := range 3 {
		c, err := n.Client().DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /never HTTP/1.0\r\n\r\n")
		if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		if err := n.Kill(client.PathOf(c)[hop].Nickname); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(soon))
		if _, err := io.Copy(io.Discard, c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("hop %d killed: the stream says %v within %v", hop+1, err, soon)
		}
		c.Close()
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		next, err := n.Client().DialContext(ctx, "tcp", addr)
		cancel()
		if err != nil {
			t.Fatalf("hop %d killed: the next connection: %v", hop+1, err)
		}
		next.Close()
	}
}

// doesNotRun fails unless who would kill or restore a relay is told that the network does not run.
func doesNotRun(t *testing.T, n *Net) {
	t.Helper()
	for what, do := range map[string]func(string) error{"killed": n.Kill, "restored": n.Restore} {
		if err := do(n.layout.Relays[0].Nickname); err == nil || !strings.Contains(err.Error(), "the network does not run") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	n, stop := started(t, small, func(ctx context.Context, n *Net) error { return n.Ready(ctx) })
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "before") {
		t.Errorf("it runs, and ran again: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err == nil {
		t.Error("it ran again after its end")
	}
	doesNotRun(t, n)
	// Timers and the runtime's own goroutines may take a moment to go.
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines instead of %d:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// Who has no use for a network that was made ends it by a Run that is over at once.
func TestNetThatNeverRanIsEnded(t *testing.T) {
	n, err := New(Config{Size: Size{Authorities: 1, Relays: 3, Exits: 1}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx); err != nil {
		t.Error(err)
	}
	for _, l := range n.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v: was open: %v", l.Addr(), err)
		}
	}
}

// A network of which one node cannot be made gives back what those before it took: their folders, and their ports.
func TestANetworkThatCannotBeMadeHoldsNothing(t *testing.T) {
	dir := t.TempDir()
	size := Size{Authorities: 2, Relays: 3, Exits: 1}
	last, err := Plan("local", size, Loopback(9000), time.Time{}, 0, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	release, err := cache.Hold(filepath.Join(dir, last.Relays[2].Nickname), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := New(Config{Size: size, Dir: dir}); !errors.Is(err, cache.ErrInUse) {
		t.Fatalf("made in a folder that is in use: %v", err)
	}
	made := 0
	for _, name := range []string{last.Authorities[0].Nickname, last.Authorities[1].Nickname, last.Relays[0].Nickname, last.Relays[1].Nickname} {
		if _, err := os.Stat(filepath.Join(dir, name, "lock")); err == nil {
			made++
		}
		if cache.Held(filepath.Join(dir, name)) {
			t.Errorf("the folder of %s is held", name)
		}
	}
	if made != 4 {
		t.Errorf("%d of 4 nodes were made before: the test shows little", made)
	}
}
