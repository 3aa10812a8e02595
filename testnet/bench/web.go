package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"peel/cell/contain"
)

// chunk is what the ends read and write at a time.
const chunk = 256 << 10

// web is a web server on loopback: GET /N is N bytes; what is sent by POST is counted and thrown away.
type web struct {
	listener net.Listener
	server   http.Server
	received atomic.Int64 // bytes by POST, ever
	page     []byte
	running  contain.Group
}

func newWeb() (*web, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	w := &web{listener: l, page: make([]byte, chunk)}
	for i := range w.page {
		w.page[i] = byte(i*7 + i>>8)
	}
	w.server = http.Server{Handler: w, ReadHeaderTimeout: time.Minute}
	w.running.Go(nil, func() { w.server.Serve(l) })
	return w, nil
}

func (w *web) addr() string { return w.listener.Addr().String() }

// close ends the server and waits for its listener; what is still being served is cut off.
func (w *web) close() {
	w.server.Close()
	w.running.Wait()
}

func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		buf := make([]byte, chunk)
		total := int64(0)
		for {
			n, err := r.Body.Read(buf)
			total += int64(n)
			w.received.Add(int64(n))
			if err != nil {
				break
			}
		}
		fmt.Fprint(rw, total)
		return
	}
	n, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/"), 10, 64)
	if err != nil || n < 0 {
		http.Error(rw, "a number of bytes", http.StatusBadRequest)
		return
	}
	rw.Header().Set("Content-Type", "application/octet-stream")
	rw.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	for n > 0 {
		m, err := rw.Write(w.page[:min(n, chunk)])
		if err != nil {
			return
		}
		n -= int64(m)
	}
}

// dial opens a connection to the web server, one way or another.
type dial func(context.Context) (net.Conn, error)

func (w *web) direct(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", w.addr())
}

// until makes a connection end with ctx.
func until(ctx context.Context, c net.Conn) (stop func() bool) {
	return contain.OnDone(ctx, nil, func() { c.Close() })
}

var ioBuffers = sync.Pool{New: func() any { return new([chunk]byte) }}

// drain reads r to its end, or until the time is up.
func drain(r io.Reader) (int64, error) {
	buf := ioBuffers.Get().(*[chunk]byte)
	defer ioBuffers.Put(buf)
	total := int64(0)
	for {
		n, err := r.Read(buf[:])
		total += int64(n)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
