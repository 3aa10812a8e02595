package circuit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit/layer"
	"peel/circuit/stream"
)

// open opens a stream to a host of the world beyond.
func open(t *testing.T, c *Circuit, name string) *stream.Stream {
	t.Helper()
	s, err := c.Dial(t.Context(), host(name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// exchange sends bytes to the echo beyond the last hop and compares what returns.
func exchange(t *testing.T, c *Circuit, size int) {
	t.Helper()
	s := open(t, c, "echo")
	defer s.Close()
	sent := randomBytes(size)
	var wg sync.WaitGroup
	wg.Go(func() { s.Write(sent); s.CloseWrite() })
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d: %v", len(got), size, err)
	}
	wg.Wait()
}

func TestCircuitsOfEveryLength(t *testing.T) {
	w := newWorld(t, MaxHops)
	all := w.hops
	for n := 1; n <= MaxHops; n++ {
		w.hops = all[:n]
		before := w.early.Load()
		c := w.mustBuild()
		exchange(t, c, 10000)
		if got := w.early.Load() - before; got != int64(n-1) {
			t.Errorf("%d hops took %d RELAY_EARLY cells", n, got)
		}
		if got := c.Hops(); len(got) != n || got[n-1].ID != all[n-1].ID {
			t.Errorf("it says that it has %d hops", len(got))
		}
		c.Close()
	}
	w.hops = append(all, all[0])
	if _, err := w.build(t.Context()); err == nil {
		t.Errorf("%d hops were built", len(w.hops))
	}
	w.hops = nil
	if _, err := w.build(t.Context()); err == nil {
		t.Error("a circuit of no hops was built")
	}
}

func TestBulkArrivesUnchanged(t *testing.T) {
	const size, less = bulk, bulk / 4
	w := newWorld(t, 3)
	c := w.mustBuild()
	sent := randomBytes(size)
	want := sha256.Sum256(sent)

	down := open(t, c, fmt.Sprintf("source-%d", size))
	h := sha256.New()
	if n, err := io.Copy(h, down); n != size || err != nil {
		t.Fatalf("%d bytes came: %v", n, err)
	}
	if !bytes.Equal(h.Sum(nil), want[:]) {
		t.Error("a download changed on its way")
	}
	up := open(t, c, "sum")
	if n, err := io.Copy(up, bytes.NewReader(sent[:less])); n != less || err != nil {
		t.Fatalf("%d bytes went: %v", n, err)
	}
	up.CloseWrite()
	want = sha256.Sum256(sent[:less])
	if got, err := io.ReadAll(up); err != nil || !bytes.Equal(got, want[:]) {
		t.Errorf("an upload changed on its way: %v", err)
	}
	// So many cells passed the hops before the last that their keys had to move.
	for i, n := range w.nodes[:2] {
		if got := n.rekeys.Load(); got < (size+less)/cell.MaxData/rekeyCells/2 {
			t.Errorf("hop %d was asked for new keys %d times", i+1, got)
		}
	}
	if n := w.nodes[2].rekeys.Load(); n != 0 {
		t.Errorf("the last hop was asked for new keys %d times, which move with every cell", n)
	}
}

func TestManyStreamsAtATime(t *testing.T) {
	w := newWorld(t, 3)
	c := w.mustBuild()
	stuck, err := c.Dial(t.Context(), host("source-5000000")) // nobody reads it
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() { exchange(t, c, 50000+i) })
	}
	wg.Wait()
	if err := c.Err(); err != nil {
		t.Error(err)
	}
	stuck.Close()
}

func TestEndErrorsReachTheCaller(t *testing.T) {
	c := newWorld(t, 3).mustBuild()
	if _, err := c.Dial(t.Context(), host("refuse")); !errors.Is(err, &stream.EndError{Reason: cell.EndRefused}) {
		t.Errorf("dial: %v", err)
	}
	s, err := c.Open(host("refuse"))
	if err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("early"))
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, &stream.EndError{Reason: cell.EndRefused}) {
		t.Errorf("read: %v", err)
	}
	r, err := c.Resolve(t.Context(), cell.Resolve{Name: "example.net"})
	if err != nil || len(r.Answers) != 1 {
		t.Errorf("resolve: %v, %v", r, err)
	}
	exchange(t, c, 100)
}

func TestTwoCircuitsOnOneLink(t *testing.T) {
	w := newWorld(t, 3)
	a, b := w.mustBuild(), w.mustBuild()
	var wg sync.WaitGroup
	wg.Go(func() { exchange(t, a, 1<<20) })
	wg.Go(func() { exchange(t, b, 1<<20) })
	wg.Wait()
	a.Close()
	exchange(t, b, 1<<20)
	if b.Err() != nil {
		t.Error("one circuit took the other with it")
	}
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		c := w.mustBuild()
		s := open(t, c, "silent")
		if c.Streams() != 1 || c.Err() != nil {
			t.Errorf("%d streams, %v", c.Streams(), c.Err())
		}
		go func() { time.Sleep(time.Second); c.Close() }()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
		<-c.Done()
		if err := c.Err(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the circuit ended with %v", err)
		}
		if _, err := c.Dial(t.Context(), host("echo")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial: %v", err)
		}
		synctest.Wait()
		for _, h := range c.hops {
			if *h.forward != (layer.Layer{}) || *h.backward != (layer.Layer{}) {
				t.Error("a key is left")
			}
		}
		for i, n := range w.nodes {
			n.mu.Lock()
			if len(n.over) != 1 || n.over[0] != cell.DestroyNone {
				t.Errorf("hop %d heard %v", i+1, n.over)
			}
			n.mu.Unlock()
		}
		if n := w.link.Circuits(); n != 0 {
			t.Errorf("%d circuits are left on the link", n)
		}
	})
}

// A stream that the relay has ended, and the application after it, wakes no relay by itself: its END goes a little later, and with those of
// others. One that the application ends first wakes them at once.
func TestLastEndsGoLaterAndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		c := w.mustBuild()
		defer c.Close()
		var streams []net.Conn
		for range 5 {
			s := open(t, c, "source-1000")
			if _, err := io.Copy(io.Discard, s); err != nil {
				t.Fatal(err)
			}
			streams = append(streams, s)
		}
		synctest.Wait()
		before, _ := c.Cells()
		for _, s := range streams {
			s.Close()
		}
		time.Sleep(patience - time.Millisecond)
		synctest.Wait()
		if now, _ := c.Cells(); now != before || c.Streams() != 0 || c.Quiet() {
			t.Errorf("%d cells went at once, %d streams are left", now-before, c.Streams())
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if now, _ := c.Cells(); now != before+5 || !c.Quiet() {
			t.Errorf("%d cells went later, %d streams are left", now-before, c.Streams())
		}
		s := open(t, c, "silent")
		before, _ = c.Cells()
		s.Close()
		synctest.Wait()
		if now, _ := c.Cells(); now != before+1 {
			t.Errorf("%d cells went when the application ended first", now-before)
		}
	})
}

// Hops before the last are asked for new keys every ten minutes in which anything is sent.
func TestKeysMoveWithTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		c := w.mustBuild()
		for range 60 {
			time.Sleep(time.Minute)
			exchange(t, c, 10)
		}
		for i, want := range []int64{6, 6, 0} {
			if got := w.nodes[i].rekeys.Load(); got != want {
				t.Errorf("hop %d was asked %d times in an hour", i+1, got)
			}
		}
	})
}

// No cell is sealed for which there is no credit: what is not sent yet can still be overtaken by what is urgent.
func TestNothingIsSealedWithoutCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		c := w.mustBuild()
		s := open(t, c, "silent")
		var came int
		last := w.nodes[0]
		last.hold = func(_ *transit, cells []cell.Cell) bool {
			came += len(cells)
			return true
		}
		go s.Write(make([]byte, 1<<23))
		synctest.Wait()
		before := c.sent.Load()
		if came == 0 || came > 1024 || before > 1024+32+10 {
			t.Errorf("%d cells came, %d were sealed", came, before)
		}
		c.mux.Close(errClosed)
	})
}

func TestDirectoryOverACircuitOfItsOwn(t *testing.T) {
	w := newWorld(t, 1)
	conn, err := DialDirectory(t.Context(), w.link, Config{Network: testNetwork}, w.hops[0])
	if err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequest("GET", "http://directory/", nil)
	r.Write(conn)
	if n, err := io.ReadFull(conn, make([]byte, 14)); err != nil { // the echo
		t.Errorf("%d bytes, %v", n, err)
	}
	conn.Close()
	if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
	if d := conn.(*directoryStream); d.circuit.Err() == nil {
		t.Error("the circuit goes on")
	}
}

func TestBuildEndsWithItsContext(t *testing.T) {
	for hop := range 3 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 3)
			w.nodes[hop].answer = func([]byte) []byte { return nil }
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			start := time.Now()
			_, err := w.build(ctx)
			var be *BuildError
			if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &be) || be.Hop != hop {
				t.Errorf("hop %d does not answer: %v", hop+1, err)
			}
			if took := time.Since(start); took != 10*time.Second {
				t.Errorf("it took %v", took)
			}
			synctest.Wait()
			for _, n := range w.nodes[:hop+1] {
				n.mu.Lock()
				if len(n.over) != 1 {
					t.Errorf("a relay heard nothing of the end: %v", n.over)
				}
				n.mu.Unlock()
			}
		})
	}
}
