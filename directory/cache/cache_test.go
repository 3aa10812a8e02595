package cache

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/directory"
	"peel/directory/dirtest"
)

var soon = dirtest.ValidAfter.Add(time.Minute)

// open makes a cache in memory.
func open(t *testing.T, n *dirtest.Net, dir string) *Cache {
	t.Helper()
	c, err := New(Config{Network: n.Network, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serving makes a cache that keeps past consensuses.
func serving(t *testing.T, n *dirtest.Net, dir string) *Cache {
	t.Helper()
	c, err := New(Config{Network: n.Network, Dir: dir, Past: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// next returns the text of the consensus of a later period.
func next(n *dirtest.Net, periods int) []byte {
	c := *n.Consensus
	by := time.Duration(periods) * time.Hour
	c.ValidAfter, c.FreshUntil, c.ValidUntil = c.ValidAfter.Add(by), c.FreshUntil.Add(by), c.ValidUntil.Add(by)
	return n.Sign(&c, len(n.Authorities))
}

// to dials an HTTP handler over a pipe in memory.
func to(h http.Handler) Dial {
	return raw(func(nc net.Conn) {
		l := &oneListener{nc: nc, done: make(chan struct{})}
		s := &http.Server{Handler: h}
		s.Serve(l)
	})
}

// raw dials something that speaks for itself.
func raw(serve func(net.Conn)) Dial {
	return func(context.Context) (net.Conn, error) {
		a, b := net.Pipe()
		go func() {
			defer b.Close()
			serve(b)
		}()
		return a, nil
	}
}

type oneListener struct {
	nc   net.Conn
	used bool
	done chan struct{}
}

type closing struct {
	net.Conn
	done chan struct{}
}

func (c closing) Close() error {
	select {
	case <-c.done:
	default:
		close(c.done)
	}
	return c.Conn.Close()
}

func (l *oneListener) Accept() (net.Conn, error) {
	if l.used {
		<-l.done
		return nil, io.EOF
	}
	l.used = true
	return closing{l.nc, l.done}, nil
}
func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return l.nc.LocalAddr() }

func TestPutKeepsOnlyWhatVerifiesAndIsNewer(t *testing.T) {
	n := dirtest.New(1, 6)
	c := open(t, n, "")
	if _, _, err := c.Usable(soon); !errors.Is(err, ErrNone) {
		t.Fatalf("an empty cache: %v", err)
	}
	if changed, err := c.Put(n.Text, soon); !changed || err != nil {
		t.Fatalf("a good one: %v, %v", changed, err)
	}
	first := c.Consensus()
	other := *n.Consensus
	other.Params = directory.Params{"relays-per-address": 4}
	bad := map[string]struct {
		text []byte
		now  time.Time
		want error
	}{
		"cut off":             {n.Text[:len(n.Text)-1], soon, nil},
		"changed entry":       {bytes.Replace(n.Text, []byte("relay3\n"), []byte("relay9\n"), 1), soon, directory.ErrRoot},
		"too few signatures":  {n.Sign(copyOf(n), 3), soon, directory.ErrSignatures},
		"another network's":   {dirtest.New(2, 6).Text, soon, directory.ErrNetwork},
		"expired":             {next(n, 1), soon.Add(48 * time.Hour), directory.ErrExpired},
		"of the future":       {next(n, 9), soon, directory.ErrFuture},
		"older":               {next(n, -1), soon, ErrOld},
		"a second one of now": {n.Sign(&other, 5), soon, ErrSplit},
	}
	for name, b := range bad {
		changed, err := c.Put(b.text, b.now)
		if changed || err == nil || b.want != nil && !errors.Is(err, b.want) {
			t.Errorf("%s: changed %v, error %v, want %v", name, changed, err, b.want)
		}
		if c.Consensus() != first {
			t.Fatalf("%s: took the place of the good one", name)
		}
	}
	if changed, err := c.Put(n.Text, soon); changed || err != nil {
		t.Errorf("the same again: %v, %v", changed, err)
	}
	if changed, err := c.Put(next(n, 1), soon.Add(time.Hour)); !changed || err != nil {
		t.Errorf("the next one: %v, %v", changed, err)
	}
}

func copyOf(n *dirtest.Net) *directory.Consensus { c := *n.Consensus; return &c }

func TestUsableSaysWhenTheConsensusHasExpired(t *testing.T) {
	n := dirtest.New(1, 3)
	c := open(t, n, "")
	if _, err := c.Put(n.Text, soon); err != nil {
		t.Fatal(err)
	}
	if _, note, err := c.Usable(soon); note != "" || err != nil {
		t.Errorf("in its time: %q, %v", note, err)
	}
	if _, note, err := c.Usable(soon.Add(20 * time.Hour)); !strings.Contains(note, "expired 17 hours ago") || err != nil {
		t.Errorf("in its grace: %q, %v", note, err)
	}
	if _, _, err := c.Usable(soon.Add(30 * time.Hour)); !errors.Is(err, directory.ErrExpired) {
		t.Errorf("after its grace: %v", err)
	}
}

func TestTheFolderKeepsTheNewestForTheNextStart(t *testing.T) {
	dir := t.TempDir()
	n := dirtest.New(1, 3, dirtest.At(time.Now().Truncate(time.Second)))
	c := open(t, n, dir)
	if _, err := c.Put(n.Text, time.Now()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "consensus")
	if info, err := os.Stat(name); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if again := open(t, n, dir); again.Consensus() == nil || again.Consensus().Root != n.Consensus.Root {
		t.Error("the next start did not find it")
	}
	if other := open(t, dirtest.New(2, 3), dir); other.Consensus() != nil {
		t.Error("another network's start took it")
	}
	for _, broken := range [][]byte{n.Text[:len(n.Text)/2], nil, bytes.Repeat([]byte{'\n'}, directory.MaxConsensus+1)} {
		if err := os.WriteFile(name, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		if again := open(t, n, dir); again.Consensus() != nil {
			t.Errorf("a broken file of %d bytes was taken", len(broken))
		}
	}
}

// A pipe in the place of a file, or a device that never ends, keeps nobody from starting.
func TestWhatIsReadIsAFileOfBoundedLength(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	if err := os.WriteFile(name, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(name, 3); err != nil || string(b) != "abc" {
		t.Errorf("%q, %v", b, err)
	}
	for name, most := range map[string]int64{name: 2, dir: 1 << 20, os.DevNull: 1 << 20} {
		if b, err := ReadFile(name, most); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s, at most %d bytes: %q, %v", name, most, b, err)
		}
	}
	n, state := dirtest.New(1, 3), t.TempDir()
	if err := os.Symlink(os.DevNull, filepath.Join(state, "consensus")); err != nil {
		t.Skip(err) // Windows lets not everybody
	}
	var log bytes.Buffer
	if _, err := New(Config{Network: n.Network, Dir: state, Log: slog.New(slog.NewTextHandler(&log, nil))}); err != nil || !strings.Contains(log.String(), "not a plain file") {
		t.Errorf("%v: %s", err, &log)
	}
}

func TestFetchOverAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := dirtest.New(1, 50, dirtest.At(time.Now()))
		server, client := open(t, n, ""), open(t, n, "")
		ctx := t.Context()
		var status *StatusError
		if _, err := client.Fetch(ctx, to(server)); !errors.As(err, &status) || status.Code != 404 || status.Text != "no consensus yet" {
			t.Fatalf("from an empty cache: %v", err)
		}
		if _, err := server.Put(n.Text, time.Now()); err != nil {
			t.Fatal(err)
		}
		if changed, err := client.Fetch(ctx, to(server)); !changed || err != nil {
			t.Fatalf("the first time: %v, %v", changed, err)
		}
		if changed, err := client.Fetch(ctx, to(server)); changed || err != nil {
			t.Fatalf("the second time: %v, %v", changed, err)
		}
		if text, err := Get(ctx, to(server), Path, directory.MaxConsensus); err != nil || !bytes.Equal(text, n.Text) {
			t.Fatalf("Get: %d bytes, %v", len(text), err)
		}
		if _, err := Get(ctx, to(server), Path, len(n.Text)-1); !errors.Is(err, ErrTooLong) {
			t.Errorf("a limit one byte too small: %v", err)
		}
		if _, err := Get(ctx, to(server), "/peel/other", 100); !errors.As(err, &status) || status.Code != 404 {
			t.Errorf("another path: %v", err)
		}
		if err := Post(ctx, to(server), Path, n.Text); !errors.As(err, &status) || status.Code != 405 {
			t.Errorf("POST: %v", err)
		}
		synctest.Wait()
	})
}

func TestPostDeliversADocument(t *testing.T) {
	var got []byte
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
	})
	if err := Post(t.Context(), to(h), "/peel/descriptor", []byte("text\n")); err != nil || string(got) != "text\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestHandlerCompressesWhenAccepted(t *testing.T) {
	n := dirtest.New(1, 20)
	c := open(t, n, "")
	if _, err := c.Put(n.Text, soon); err != nil {
		t.Fatal(err)
	}
	for accept, want := range map[string]string{"": "", "gzip": "gzip", "br, gzip;q=0.5": "gzip", "gzip;q=0": "", "br": ""} {
		r := httptest.NewRequest("GET", Path, nil)
		r.Header.Set("Accept-Encoding", accept)
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		if got := w.Header().Get("Content-Encoding"); got != want || w.Code != 200 {
			t.Errorf("accepting %q: encoding %q, status %d", accept, got, w.Code)
		}
		body := w.Body.Bytes()
		if want == "gzip" {
			var err error
			if body, err = gunzip(w.Body, directory.MaxConsensus); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(body, n.Text) {
			t.Errorf("accepting %q: another text", accept)
		}
		r.Header.Set("If-None-Match", w.Header().Get("Etag"))
		again := httptest.NewRecorder()
		c.ServeHTTP(again, r)
		if again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Errorf("asked again: status %d, %d bytes", again.Code, again.Body.Len())
		}
	}
}

// zeros compresses n zero bytes.
func zeros(n int) []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	piece := make([]byte, 1<<20)
	for ; n > 0; n -= len(piece) {
		z.Write(piece)
	}
	z.Close()
	return b.Bytes()
}

func TestBombsAreRefusedWithinTheLimit(t *testing.T) {
	const limit = 1 << 20
	big, small := zeros(16<<20), zeros(1<<20)
	head := "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
	plain := "HTTP/1.1 200 OK\r\n\r\n"
	answers := map[string]struct {
		text string
		want error
	}{
		"a bomb":                       {head + string(big), ErrTooLong},
		"a bomb of many members":       {head + strings.Repeat(string(small), 32), nil},
		"two members":                  {head + string(small) + string(small), nil},
		"a member cut off":             {head + string(small[:len(small)-9]), io.ErrUnexpectedEOF},
		"bytes after the member":       {head + string(small) + "x", nil},
		"an endless head":              {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20), ErrTooLong},
		"a head of many lines":         {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 1<<16), ErrTooLong},
		"a plain text too long":        {plain + strings.Repeat("x", limit+1), ErrTooLong},
		"a length too long":            {"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\nx", ErrTooLong},
		"chunks too long":              {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\nx\r\n", limit+2), ErrTooLong},
		"an encoding not asked for":    {"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\nx", nil},
		"garbage":                      {"SSH-2.0-x\r\n\r\n", nil},
		"nothing":                      {"", io.ErrUnexpectedEOF},
		"a length that is not reached": {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx", io.ErrUnexpectedEOF},
	}
	for name, a := range answers {
		t.Run(name, func(t *testing.T) {
			text := []byte(a.text)
			dial := raw(func(nc net.Conn) {
				buf := make([]byte, 4096)
				nc.Read(buf)
				nc.Write(text)
			})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			body, err := Get(t.Context(), dial, Path, limit)
			runtime.ReadMemStats(&after)
			if err == nil || a.want != nil && !errors.Is(err, a.want) {
				t.Fatalf("%d bytes, error %v, want %v", len(body), err, a.want)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 2*limit+128<<10 { // gzip and HTTP need some themselves
				t.Errorf("%d bytes were allocated, with a limit of %d", got, limit)
			}
		})
	}
}

func TestASlowDirectoryIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		for name, serve := range map[string]func(net.Conn){
			"silent":       func(nc net.Conn) { io.Copy(io.Discard, nc) },
			"never reads":  func(nc net.Conn) { time.Sleep(time.Hour) },
			"drips slowly": func(nc net.Conn) { go io.Copy(io.Discard, nc); drip(nc) },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err := Get(ctx, raw(serve), Path, 1000)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
			cancel()
			start = time.Now()
		}
		time.Sleep(2 * time.Hour) // what serves ends
	})
}

func drip(nc net.Conn) {
	for _, err := io.WriteString(nc, "HTTP/1.1 200 OK\r\nX: "); err == nil; _, err = io.WriteString(nc, "x") {
		time.Sleep(time.Second)
	}
}

func TestFollowFetchesOnceAPeriodAndAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		n := dirtest.New(1, 3, dirtest.At(start))
		server, client := serving(t, n, ""), open(t, n, "")
		var mu sync.Mutex // over what follows, which the goroutine of Follow shares
		var got []string
		fail, dials, failures := true, 0, 0
		dial := func(ctx context.Context) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			dials++
			if fail {
				return nil, errors.New("no way")
			}
			return to(server)(ctx)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			client.Follow(ctx, Sources{Authority: dial}, func(c *directory.Consensus) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, fmt.Sprint(c.ValidAfter.Sub(start)))
			}, func(error) {
				mu.Lock()
				defer mu.Unlock()
				failures++
			})
		}()
		time.Sleep(time.Minute)
		mu.Lock()
		if failures < 5 || failures > 20 || failures != dials {
			t.Errorf("%d failures of %d dials in the first minute", failures, dials)
		}
		if _, err := server.Put(n.Text, time.Now()); err != nil {
			t.Fatal(err)
		}
		fail, dials = false, 0
		mu.Unlock()
		time.Sleep(time.Until(start.Add(time.Hour)))
		mu.Lock()
		if dials != 1 {
			t.Errorf("%d dials for the first consensus", dials)
		}
		mu.Unlock()
		for i := 1; i <= 3; i++ {
			if _, err := server.Put(next(n, i), time.Now()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		cancel()
		<-done
		if dials != 4 || fmt.Sprint(got) != "[0s 1h0m0s 2h0m0s 3h0m0s]" {
			t.Errorf("%d dials, got %v", dials, got)
		}
	})
}

// A directory may answer an error with as much as a consensus has, and with nothing that can be shown: only its beginning is looked at.
func TestLongErrorsAreNotReadThrough(t *testing.T) {
	long := append(bytes.Repeat([]byte{0x80}, 1<<20), "the end"...)
	if got := said(long); got != "" {
		t.Errorf("of a long one: %q", got)
	}
	if got := said([]byte("\x80a reason\nand more")); got != "a reason" {
		t.Errorf("of a short one: %q", got)
	}
}
