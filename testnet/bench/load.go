package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"peel/cell/contain"
)

// patience bounds what comes before a load: connections, circuits.
const patience = 30 * time.Second

// outcome is what a load carried.
type outcome struct {
	bytes int64
	took  time.Duration
}

// rate is in MB/s, of a million bytes.
func (o outcome) rate() float64 { return float64(o.bytes) / 1e6 / o.took.Seconds() }

// load opens a connection by each dial and then carries size bytes over all of them together, each its part, all at once.
// The time runs from the first request to the last byte. What is not through at the limit is cut off and not counted.
func (b *bencher) load(ctx context.Context, upload bool, dials ...dial) (outcome, error) {
	conns, err := b.connect(ctx, dials)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	if err != nil {
		return outcome{}, err
	}
	part := b.cfg.Size / int64(len(dials))
	var (
		wg    contain.Group
		mu    sync.Mutex
		total int64
		fault error
	)
	before := b.web.received.Load()
	begin := time.Now()
	for _, c := range conns {
		c.SetDeadline(begin.Add(b.cfg.Limit))
		wg.Go(func(p *contain.Panic) {
			mu.Lock()
			defer mu.Unlock()
			fault = errors.Join(fault, p)
		}, func() {
			defer until(ctx, c)()
			carry := download
			if upload {
				carry = send
			}
			n, err := carry(c, part)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = nil
			}
			mu.Lock()
			defer mu.Unlock()
			total += n
			fault = errors.Join(fault, err)
		})
	}
	wg.Wait()
	o := outcome{total, time.Since(begin)}
	if upload {
		o.bytes = b.web.received.Load() - before // not what stands in buffers
	}
	if ctx.Err() != nil {
		return o, context.Cause(ctx)
	}
	if fault == nil && o.bytes == 0 {
		fault = fmt.Errorf("no byte came within %v", b.cfg.Limit)
	}
	return o, fault
}

// connect dials all at once. Where it fails, those that are open come back with the error.
func (b *bencher) connect(ctx context.Context, dials []dial) ([]net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conns := make([]net.Conn, len(dials))
	errs := make([]error, len(dials))
	var wg contain.Group
	for i, d := range dials {
		wg.Go(func(p *contain.Panic) { errs[i] = p }, func() { conns[i], errs[i] = d(ctx) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return conns, err
		}
	}
	return conns, nil
}

// get asks for a page of n bytes.
func get(c net.Conn, n int64) error {
	_, err := fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n", n)
	return err
}

// download fetches n bytes and says how many came.
func download(c net.Conn, n int64) (int64, error) {
	if err := get(c, n); err != nil {
		return 0, err
	}
	return page(bufio.NewReader(c), n)
}

// page reads the answer to get.
func page(r *bufio.Reader, n int64) (int64, error) {
	a, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	defer a.Body.Close()
	got, err := drain(a.Body)
	if err == nil && (got != n || a.StatusCode != http.StatusOK) {
		err = fmt.Errorf("%d bytes came instead of %d (%s)", got, n, a.Status)
	}
	return got, err
}

// send uploads n bytes and waits for the server to say that it has them.
func send(c net.Conn, n int64) (int64, error) {
	if _, err := fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", n); err != nil {
		return 0, err
	}
	buf := ioBuffers.Get().(*[chunk]byte)
	defer ioBuffers.Put(buf)
	for left := n; left > 0; {
		m, err := c.Write(buf[:min(left, chunk)])
		left -= int64(m)
		if err != nil {
			return n - left, err
		}
	}
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return n, err
	}
	defer a.Body.Close()
	said, err := io.ReadAll(io.LimitReader(a.Body, 64))
	if err == nil && string(said) != strconv.FormatInt(n, 10) {
		err = fmt.Errorf("the server has %q bytes instead of %d", said, n)
	}
	return n, err
}

// small is the page that the first byte of is waited for.
const small = 1024

// first is how long it takes from dialling to the first byte of a small page. The page is then read to its end.
func first(ctx context.Context, d dial) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	begin := time.Now()
	c, err := d(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer until(ctx, c)()
	if err := get(c, small); err != nil {
		return 0, err
	}
	r := bufio.NewReader(c)
	if _, err := r.Peek(1); err != nil {
		return 0, err
	}
	took := time.Since(begin)
	_, err = page(r, small)
	return took, err
}
