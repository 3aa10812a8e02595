package authority

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

// world is a network's authorities, joined by HTTP over connections in memory. It lives in a
// synctest bubble, where it is 2000-01-01T00:00:00Z at first.
type world struct {
	t     testing.TB
	net   *dirtest.Net
	nodes []*node

	serving sync.WaitGroup // requests under way

	mu    sync.Mutex
	link  func(from, to int) (delay time.Duration, lost bool) // guarded by mu, as all below; nil: no delay
	signs map[time.Time]map[int]map[directory.Digest]bool     // period, authority → headers it sent signatures for
}

// node is an authority of a world, running or not.
type node struct {
	w    *world
	i    int
	cfg  Config
	keep *keep
	skew time.Duration // its clock is ahead

	mu      sync.Mutex
	handler http.Handler // guarded by mu; nil: it is down
	auth    *Authority
	stop    func()
}

var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// newWorld makes authorities that are not running yet, and relays that have not published.
func newWorld(t testing.TB, seed uint64, authorities, relays int, opts ...dirtest.Option) *world {
	opts = append([]dirtest.Option{
		dirtest.Authorities(authorities), dirtest.At(hour(1)), dirtest.Schedule(directory.Schedule{Start: hour(1)}),
	}, opts...)
	w := &world{t: t, net: dirtest.New(seed, relays, opts...), signs: map[time.Time]map[int]map[directory.Digest]bool{}}
	for i := range authorities {
		k, err := openKeep("")
		if err != nil {
			t.Fatal(err)
		}
		n := &node{w: w, i: i, keep: k}
		n.cfg = Config{
			Network: w.net.Network, Certificate: w.net.Authorities[i].Certificate, SigningKey: w.net.Authorities[i].Signing,
			Dial:  func(ctx context.Context, to directory.AuthorityInfo) (net.Conn, error) { return w.dial(ctx, i, to.ID) },
			Reach: func(context.Context, *directory.Descriptor, netip.AddrPort) error { return nil },
			Now:   func() time.Time { return time.Now().Add(n.skew) },
		}
		w.nodes = append(w.nodes, n)
	}
	return w
}

// start lets an authority run, on what its last life kept.
func (n *node) start() {
	n.w.t.Helper()
	a, err := newAuthority(n.cfg, n.keep, true)
	if err != nil {
		n.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			n.w.t.Error(err)
		}
	}()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.handler, n.auth = a, a
	n.stop = func() { cancel(); <-done }
}

// crash ends an authority; what it did not keep is lost.
func (n *node) crash() {
	n.mu.Lock()
	stop := n.stop
	n.handler, n.stop = nil, nil
	n.mu.Unlock()
	if stop != nil {
		stop()
	}
}

func (w *world) startAll() {
	w.t.Helper()
	for _, n := range w.nodes {
		n.start()
	}
}

// stopAll ends all that runs.
func (w *world) stopAll() {
	for _, n := range w.nodes {
		n.crash()
	}
	w.serving.Wait()
}

func (w *world) setLink(link func(from, to int) (time.Duration, bool)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.link = link
}

var errDown = errors.New("connection refused")

// dial connects to an authority; from is the number of the one that dials, -1 for anybody else.
func (w *world) dial(ctx context.Context, from int, to cell.NodeID) (net.Conn, error) {
	i := 0
	for w.net.Network.Authorities[i].ID != to {
		i++
	}
	n := w.nodes[i]
	w.mu.Lock()
	link := w.link
	w.mu.Unlock()
	var delay time.Duration
	var lost bool
	if link != nil {
		delay, lost = link(from, i)
	}
	if lost || !sleep(ctx, delay) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	n.mu.Lock()
	h := n.handler
	n.mu.Unlock()
	if h == nil {
		return nil, errDown
	}
	near, far := net.Pipe()
	w.serving.Go(func() { w.serve(far, from, h, delay) })
	return near, nil
}

// serve answers one request.
func (w *world) serve(nc net.Conn, from int, h http.Handler, delay time.Duration) {
	defer nc.Close()
	req, err := http.ReadRequest(bufio.NewReader(nc))
	if err != nil {
		return
	}
	var body []byte
	if req.Body != nil {
		if body, err = io.ReadAll(req.Body); err != nil {
			return
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	if from >= 0 {
		req = req.WithContext(WithCaller(req.Context(), Caller{Key: w.net.Network.Authorities[from].LinkKey}))
	}
	w.watch(from, req.URL.Path, body)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	time.Sleep(delay)
	resp := rec.Result()
	resp.ContentLength = int64(rec.Body.Len())
	_ = resp.Write(nc) // the other side may be gone
}

// watch notes what authorities sign.
func (w *world) watch(from int, path string, body []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if path != pathSignature || from < 0 {
		return
	}
	s, err := directory.ParseSignedHeader(body)
	if err != nil {
		return
	}
	if w.signs[s.ValidAfter] == nil {
		w.signs[s.ValidAfter] = map[int]map[directory.Digest]bool{}
	}
	if w.signs[s.ValidAfter][from] == nil {
		w.signs[s.ValidAfter][from] = map[directory.Digest]bool{}
	}
	w.signs[s.ValidAfter][from][s.Header.Digest()] = true
}

// do asks an authority for something, as anybody may, and returns the answer.
func (n *node) do(method, path string, body []byte) (int, string) {
	n.mu.Lock()
	h := n.handler
	n.mu.Unlock()
	if h == nil {
		return 0, ""
	}
	req := httptest.NewRequest(method, path, bytes.NewReader(body))
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec.Code, rec.Body.String()
}

// publishAll posts all relays' descriptors to all authorities that run.
func (w *world) publishAll() {
	w.t.Helper()
	for _, n := range w.nodes {
		for i := range w.net.Relays {
			if code, text := n.do("POST", pathDescriptor, w.net.Relays[i].Text); code != 0 && code != http.StatusNoContent {
				w.t.Fatalf("authority %d refuses relay %d: %d %s", n.i, i, code, text)
			}
		}
	}
}

// header names the consensus for a time that an authority has, "" for none.
func (n *node) header(after time.Time) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.handler == nil || n.auth == nil {
		return ""
	}
	c := n.auth.Consensus()
	if c == nil || !c.ValidAfter.Equal(after) {
		return ""
	}
	return c.Header.Digest().String()
}

// agreed returns how many authorities have the consensus for a time, and fails if two have different
// ones or one that does not verify.
func (w *world) agreed(after time.Time) int {
	w.t.Helper()
	count, first := 0, ""
	for _, n := range w.nodes {
		h := n.header(after)
		if h == "" {
			continue
		}
		if first == "" {
			first = h
			if err := n.auth.Consensus().Verify(w.net.Network, time.Now()); err != nil {
				w.t.Fatalf("authority %d has a consensus that does not verify: %v", n.i, err)
			}
		}
		if h != first {
			w.t.Fatalf("two consensuses for %v", after)
		}
		count++
	}
	return count
}

// checkSafety fails if one of the honest authorities signed two headers for one period, or if two
// headers of one period could have enough signatures when the dishonest sign everything.
func (w *world) checkSafety(dishonest ...int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	bad := map[int]bool{}
	for _, i := range dishonest {
		bad[i] = true
	}
	for after, by := range w.signs {
		count := map[directory.Digest]int{}
		for i, digests := range by {
			if bad[i] {
				continue
			}
			if len(digests) > 1 {
				w.t.Fatalf("authority %d signed %d headers for %v", i, len(digests), after)
			}
			for d := range digests {
				count[d]++
			}
		}
		valid := 0
		for _, n := range count {
			if n+len(dishonest) >= w.net.Network.Threshold {
				valid++
			}
		}
		if valid > 1 {
			w.t.Fatalf("%d valid consensuses for %v", valid, after)
		}
	}
}

func (w *world) text(n *node) string {
	code, text := n.do("GET", "/peel/consensus", nil)
	if code != http.StatusOK {
		return fmt.Sprintf("%d %s", code, text)
	}
	return text
}

// retry calls f until it returns true or ctx ends, in a phase of the length given: each call may take
// half of it, and the pauses grow from a 32nd to a quarter.
func retry(ctx context.Context, length time.Duration, f func(context.Context) bool) {
	for pause := length / 32; ; pause = min(2*pause, length/4) {
		fctx, cancel := context.WithTimeout(ctx, length/2)
		done := f(fctx)
		cancel()
		if done || !sleep(ctx, pause) {
			return
		}
	}
}

// poll calls f again and again until ctx ends: after a call that returned true in a whole pause, else
// in a quarter of one.
func poll(ctx context.Context, length, pause time.Duration, f func(context.Context) bool) {
	for {
		fctx, cancel := context.WithTimeout(ctx, length/2)
		wait := pause
		if !f(fctx) {
			wait /= 4
		}
		cancel()
		if !sleep(ctx, wait) {
			return
		}
	}
}

// sleep waits, and returns false if ctx ended before it was over.
func sleep(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
