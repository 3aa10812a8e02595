package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"peel/cell/contain"
	"peel/client"
	"peel/cmd/peel/internal/window"
	"peel/directory/cache"
	"peel/testnet"
	"peel/testnet/story"
)

// webServer is where the demonstration fetches its page from.
type webServer struct {
	url   string
	run   func(context.Context) error
	close func() error
}

func newWebServer(size int64) (*webServer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	body := make([]byte, size)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }), ReadHeaderTimeout: 10 * time.Second}
	return &webServer{url: l.Addr().String(), close: l.Close, run: func(ctx context.Context) error {
		stop := contain.OnDone(ctx, nil, func() { s.Close() })
		defer stop()
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}}, nil
}

// fetched is what came of a download.
type fetched struct {
	first time.Duration
	rate  float64 // MB/s after the first byte; 0: too soon over to be measured
	path  []hop
}

// fetchPage gets the page of a web server through three relays, and tells the story of it.
func fetchPage(ctx context.Context, c *client.Client, addr string, size int64, s *story.Story) (f fetched, err error) {
	d := story.Download{Client: testnet.ClientName}
	begin := time.Now()
	defer func() {
		d.At, d.Took = time.Now(), time.Since(begin)
		if err != nil {
			d.Err = story.Words(err)
		}
		s.Downloaded(d)
	}()
	conn, err := c.DialContext(ctx, "tcp", addr)
	if err != nil {
		return f, err
	}
	defer conn.Close()
	f.path = hops(client.PathOf(conn))
	for _, h := range f.path {
		d.Path = append(d.Path, h.Nickname)
	}
	stop := contain.OnDone(ctx, nil, func() { conn.Close() })
	defer stop()
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return f, err
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return f, err
	}
	f.first = time.Since(begin)
	d.FirstByte = f.first
	if d.Bytes, err = io.Copy(io.Discard, conn); err != nil {
		return f, err
	}
	if d.Bytes < size {
		return f, fmt.Errorf("%d bytes came instead of %d", d.Bytes, size)
	}
	if rest := time.Since(begin) - f.first; rest >= 5*time.Millisecond { // in less, nearly all was there with the first byte, and waited
		f.rate = float64(d.Bytes) / 1e6 / rest.Seconds()
	}
	return f, nil
}

// fetcher downloads for those who watch, one page at a time, and has the last one end with the network.
type fetcher struct {
	do func(context.Context) error

	mu     sync.Mutex
	ctx    context.Context // nil: not yet
	wg     contain.Group
	places chan struct{}
}

// mostFetches is how many downloads those who watch may have at a time.
const mostFetches = 8

var errNotYet = errors.New("the network is not ready yet, or has ended")

// begin has one download begin. It waits for none.
func (f *fetcher) begin() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx == nil || f.ctx.Err() != nil {
		return errNotYet
	}
	select {
	case f.places <- struct{}{}:
	default:
		return fmt.Errorf("%d downloads are under way: wait for one of them", mostFetches)
	}
	ctx := f.ctx
	f.wg.Go(nil, func() {
		defer func() { <-f.places }()
		f.do(ctx) // the story says what became of it
	})
	return nil
}

// run lets downloads begin until ctx ends, and waits for the last.
func (f *fetcher) run(ctx context.Context) {
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	<-ctx.Done()
	f.mu.Lock() // who begins one has done so, or sees the end
	defer f.mu.Unlock()
	f.wg.Wait()
}

// windowFile is where peel testnet top finds a network: in its folder, the address of its window, with the token.
const windowFile = "window.url"

func noWindow(addr string) bool { return addr == "" || addr == "off" }

// openWindow opens the window of a network at an address, and has peel testnet top find it until forget is called: in a folder of its own
// and, if it is not "", in dir. No window: there shall be none.
func openWindow(addr, dir string, s *story.Story, a story.Actions) (w *window.Window, forget func(), err error) {
	forget = func() {}
	if noWindow(addr) {
		return nil, forget, nil
	}
	if w, err = window.Open(addr, s, a, nil); err != nil {
		return nil, forget, fmt.Errorf("--web: %w, as in --web 127.0.0.1:0", err)
	}
	own, err := os.MkdirTemp("", "peel-testnet-")
	for _, in := range []string{own, dir} {
		if err == nil && in != "" {
			err = cache.WriteFile(filepath.Join(in, windowFile), []byte(w.Link()+"\n"))
		}
	}
	forget = func() {
		if own != "" {
			os.RemoveAll(own)
		}
		if dir != "" {
			os.Remove(filepath.Join(dir, windowFile))
		}
	}
	if err != nil {
		w.Close()
		forget()
		return nil, func() {}, fmt.Errorf("--web: %w", err)
	}
	return w, forget, nil
}

// writeReport writes the report of a run into a file.
func writeReport(name string, s *story.Story) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--report: %w: make the folder first, or choose another place", err)
	}
	if err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	if err := errors.Join(window.Report(f, s), f.Close()); err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return nil
}
