package relay

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/circuit"
	"peel/directory"
	"peel/directory/authority"
)

// Data for measurements (spec/bandwidth.md, section 2): what a relay serves to whoever asks.
const (
	measurePath  = "/peel/measure/"
	measureMost  = 32 << 20  // bytes of one answer
	measureTotal = 256 << 20 // bytes at once, when nobody asked for long
	measureRate  = 256 << 10 // bytes a second that this is filled up by
	measureAtime = 4         // answers at a time

	measureLeast = 400 * time.Millisecond // that a measurement must take to count, if there are bytes enough
)

// meter serves data for measurements, and no more of it than its bounds.
type meter struct {
	now func() time.Time

	mu     sync.Mutex
	left   float64 // bytes; guarded by mu, as all below
	filled time.Time
	busy   int
}

func newMeter() *meter { return &meter{now: time.Now, left: measureTotal} }

// take books n bytes; false: not now.
func (m *meter) take(n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if passed := now.Sub(m.filled).Seconds(); !m.filled.IsZero() && passed > 0 {
		m.left = min(measureTotal, m.left+passed*measureRate)
	}
	m.filled = now
	if m.busy >= measureAtime || m.left < float64(n) {
		return false
	}
	m.busy++
	m.left -= float64(n)
	return true
}

// done ends an answer of which so many bytes were not sent.
func (m *meter) done(unsent int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.busy--
	m.left = min(measureTotal, m.left+float64(unsent))
}

// noise is what answers are made of.
var noise = sync.OnceValue(func() []byte {
	b := make([]byte, 0, 64<<10)
	for i := uint64(0); len(b) < cap(b); i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, i))
		b = append(b, sum[:]...)
	}
	return b
})

// ServeHTTP answers GET measurePath with as many bytes as the path says.
func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, measurePath), 10, 64)
	if err != nil || n < 1 || n > measureMost || r.Method != http.MethodGet {
		http.Error(w, fmt.Sprintf("want GET %sN, with N from 1 to %d", measurePath, measureMost), http.StatusBadRequest)
		return
	}
	if !m.take(n) {
		w.Header().Set("Retry-After", "60")
		http.Error(w, "busy: try again later", http.StatusServiceUnavailable)
		return
	}
	left := n
	defer func() { m.done(left) }()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	for b := noise(); left > 0; {
		sent, err := w.Write(b[:min(int64(len(b)), left)])
		left -= int64(sent)
		if err != nil {
			return
		}
	}
}

// withMeasure adds data for measurements to what a directory serves.
func withMeasure(directory http.Handler) http.Handler {
	m := http.NewServeMux()
	m.Handle(measurePath, newMeter())
	m.Handle("/", directory)
	return m
}

// measurement makes the MeasureFunc of an authority: as a client would, over a link and a circuit of its own each time.
func measurement(network cell.NetworkID, dial func(context.Context, string, string) (net.Conn, error), log *slog.Logger) authority.MeasureFunc {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return func(ctx context.Context, path []*directory.Entry, bytes int64) (uint64, error) {
		hops := make([]circuit.Hop, len(path))
		for i, e := range path {
			hops[i] = circuit.Hop{ID: e.ID, LinkKey: e.LinkKey, OnionKey: e.OnionKey, Addrs: e.Addrs}
		}
		// Without a key of its own it is a client's link: the relay does not learn whose.
		pool := link.NewPool(link.PoolConfig{Link: link.Config{Network: network, Log: log}, Dial: dial})
		defer pool.Close()
		lc, err := pool.Get(ctx, link.Peer{ID: hops[0].ID, Key: hops[0].LinkKey, Addrs: hops[0].Addrs})
		if err != nil {
			return 0, &authority.HopError{From: 0, To: 0, Err: err}
		}
		c, err := circuit.Build(ctx, lc, circuit.Config{Network: network, Log: log}, hops)
		if err != nil {
			last := 0
			var at *circuit.BuildError
			if errors.As(err, &at) {
				last = at.Hop
			}
			return 0, &authority.HopError{From: max(0, last-1), To: last, Err: err}
		}
		defer c.Close()
		for {
			began := time.Now()
			rate, err := fetch(ctx, c, bytes)
			took := time.Since(began)
			if err != nil || took >= measureLeast || bytes >= measureMost || ctx.Err() != nil {
				return rate, err
			}
			// That was too short to tell: more of it, as a page has more than one part.
			more := min(16, max(2, int64(2*measureLeast/max(took, time.Millisecond))))
			bytes = min(measureMost, bytes*more)
		}
	}
}

// fetch gets so many bytes from the last relay of a circuit and returns how fast the second half of them came: by then
// the circuit's windows have grown. When ctx ends meanwhile, what has come counts.
func fetch(ctx context.Context, c *circuit.Circuit, bytes int64) (uint64, error) {
	last := len(c.Hops()) - 1
	all := func(err error) error { return &authority.HopError{From: 0, To: last, Err: err} }
	s, err := c.DialDir(ctx)
	if err != nil {
		return 0, all(err)
	}
	defer s.Close()
	defer contain.AtEnd(ctx, nil, func() { s.SetDeadline(time.Unix(1, 0)) })()
	req := &http.Request{
		Method: http.MethodGet, URL: &url.URL{Path: measurePath + strconv.FormatInt(bytes, 10)}, Host: "directory", Close: true,
		Header: http.Header{"User-Agent": {""}},
	}
	if err := req.Write(s); err != nil {
		return 0, all(err)
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(s, 4<<10), req)
	if err != nil {
		return 0, all(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != bytes {
		err := fmt.Errorf("relay: measuring: the answer is %d of %d bytes instead of %d", resp.StatusCode, resp.ContentLength, bytes)
		return 0, &authority.HopError{From: last, To: last, Err: err}
	}
	began := time.Now()
	half := began
	var got, before int64 // before: what had come at half
	buf := make([]byte, 64<<10)
	for {
		n, err := resp.Body.Read(buf)
		got += int64(n)
		if before == 0 && got >= bytes/2 {
			half, before = time.Now(), got
		}
		switch {
		case err == io.EOF:
			return rate(got-before, time.Since(half)), nil
		case err != nil && ctx.Err() != nil && got > 0: // slow
			if before == 0 {
				half = began
			}
			return rate(got-before, time.Since(half)), nil
		case err != nil:
			return 0, all(err)
		}
	}
}

// rate is bytes a second.
func rate(bytes int64, in time.Duration) uint64 {
	return uint64(float64(bytes) / max(in, time.Microsecond).Seconds())
}
