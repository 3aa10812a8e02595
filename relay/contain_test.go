package relay

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/circuit"
)

// panicking are the points where a test lets the program panic, and what may be lost by it.
var panicking = []struct{ point, ends string }{
	{"circuit: receive", "circuit"}, {"circuit: send", "circuit"},
	{"relay: create", "circuit"}, {"relay: forward", "circuit"}, {"relay: backward", "circuit"}, {"relay: pump", "circuit"}, {"relay: copy", "circuit"},
	{"stream: receive", "circuit"}, {"stream: next", "circuit"}, {"stream: lend", "circuit"}, {"stream: read", "circuit"}, {"stream: write", "circuit"},
	{"link: handshake", "link"}, {"link: read", "link"}, {"link: receive", "link"}, {"link: send", "link"}, {"link: enqueue", "link"},
	{"link: compose", "link"}, {"link: write", "link"}, {"link: give on", "link"},
}

// side is a client's link and three circuits of it, through relays and over links that no other side uses.
type side struct {
	path  []int
	link  *link.Conn
	circs []*circuit.Circuit
}

// A panic in a circuit's, a stream's or a link's code ends that, and is counted; all other traffic keeps its bytes, and what was ended is told
// so and does not look whole.
func TestAPanicEndsOnlyWhatItIsIn(t *testing.T) {
	text := make([]byte, 256<<10)
	for i := range text {
		text[i] = byte(i>>8 ^ i*7)
	}
	var log lockedLog
	port := hostOf(t, echo).Port
	w := newWorld(t, 6, exits(2), exits(5), func(_ int, cfg *Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, p := range panicking { // in one network, which lives through all of them
		t.Run(strings.ReplaceAll(p.point, ": ", "_"), func(t *testing.T) { panicAt(t, w, &log, port, p.point, p.ends, text) })
	}
}

func panicAt(t *testing.T, w *world, log *lockedLog, port uint16, point, ends string, text []byte) {
	sides := []*side{{path: []int{0, 1, 2}}, {path: []int{3, 4, 5}}}
	for _, s := range sides {
		s.link = w.connect(s.path[0])
		for range 3 {
			c, err := w.over(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			s.circs = append(s.circs, c)
		}
	}

	// Each circuit echoes the text once; when all have begun, somebody panics.
	before := contain.Total()
	began := make(chan struct{})
	var ready, all sync.WaitGroup
	lost := make([]error, 6)
	for i, s := range sides {
		for k, c := range s.circs {
			ready.Add(1)
			all.Go(func() { lost[3*i+k] = echoed(t.Context(), c, port, text, ready.Done, began) })
		}
	}
	ready.Wait()
	var hit atomic.Bool
	disarm := contain.Arm(func(name string) {
		if name == point && hit.CompareAndSwap(false, true) {
			panic("a bug for the test")
		}
	})
	close(began)
	extra := &side{path: sides[0].path}
	if bug := contain.Do(func() { // for what happens when circuits and links begin
		nc, err := w.dial(t.Context(), "tcp", w.hops[0].Addrs[0].String())
		if err != nil {
			t.Fatal(err)
		}
		h := w.hops[0]
		lc, err := link.Dial(t.Context(), nc, &link.Config{Network: w.net.Network.ID()}, link.Peer{ID: h.ID, Key: h.LinkKey})
		if err != nil {
			return
		}
		defer lc.Close()
		all.Go(func() { lc.Serve(nil) })
		extra.link = lc
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if c, err := w.over(ctx, extra); err == nil {
			_ = echoed(ctx, c, port, text[:1000], func() {}, began)
			c.Close()
		}
	}); bug != nil {
		t.Error(bug)
	}
	all.Wait()
	disarm()
	if !hit.Load() {
		t.Fatal("nothing came to this point")
	}
	if n := contain.Total() - before; n != 1 {
		t.Errorf("%d panics were counted: %s", n, log.String())
	}
	for i := range sides {
		n := 0
		for k, err := range lost[3*i : 3*i+3] {
			if err != nil {
				n++
				t.Logf("side %d, circuit %d: %v", i, k, err)
			}
			if errors.Is(err, errBytes) {
				t.Error("other bytes came than were sent, or too few without an error")
			}
		}
		if most := map[string]int{"circuit": 1, "link": 3}[ends]; n > most {
			t.Errorf("%d circuits were lost of one side", n)
		}
		if n > 0 && i > 0 && errors.Join(lost[:3]...) != nil {
			t.Error("both sides lost circuits")
		}
	}
	// All of it works again.
	for i, s := range sides {
		if s.link.Err() != nil {
			s.link = w.connect(s.path[0])
		}
		var err error
		for until := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // a link between relays that ended is dialled anew
			var c *circuit.Circuit
			if c, err = w.over(t.Context(), s); err == nil {
				err = echoed(t.Context(), c, port, text[:1000], func() {}, began)
				c.Close()
				break
			}
			if time.Now().After(until) {
				break
			}
		}
		if err != nil {
			t.Errorf("side %d afterwards: %v", i, err)
		}
		s.link.Close()
	}
	if s := log.String(); strings.Contains(s, "0x") || strings.Contains(s, fmt.Sprint(port)) {
		t.Errorf("the log tells of arguments or of ports: %s", s)
	}
}

// over builds a circuit of a side.
func (w *world) over(ctx context.Context, s *side) (*circuit.Circuit, error) {
	hops := make([]circuit.Hop, len(s.path))
	for i, p := range s.path {
		hops[i] = w.hops[p]
	}
	return w.buildOver(ctx, s.link, hops)
}

var errBytes = errors.New("not what was sent")

// echoed sends text to an echo and says what came of it. It waits, when half has come back.
func echoed(ctx context.Context, c *circuit.Circuit, port uint16, text []byte, ready func(), began <-chan struct{}) (err error) {
	var once sync.Once
	defer once.Do(ready)
	bug := contain.Do(func() {
		s, e := c.Dial(ctx, cell.Begin{Host: "127.0.0.1", Port: port})
		if e != nil {
			err = e
			return
		}
		defer s.Close()
		s.SetDeadline(time.Now().Add(time.Minute))
		half := len(text) / 2
		got := sha256.New()
		for _, part := range [][]byte{text[:half], text[half:]} {
			var up contain.Group
			var sent error
			up.Go(func(p *contain.Panic) { sent = p; s.Close() }, func() { _, sent = s.Write(part) })
			back := make([]byte, len(part))
			n, e := io.ReadFull(s, back)
			if e != nil {
				s.Close()
			}
			up.Wait()
			got.Write(back[:n])
			switch {
			case !bytes.Equal(back[:n], part[:n]), e == io.EOF, e == io.ErrUnexpectedEOF:
				err = errBytes
				return
			case e != nil || sent != nil:
				err = errors.Join(e, sent)
				return
			}
			once.Do(ready)
			<-began
		}
		if s.CloseWrite(); true {
			rest, e := io.ReadAll(s)
			if err = e; len(rest) > 0 || e == nil && [32]byte(got.Sum(nil)) != sha256.Sum256(text) {
				err = errBytes
			}
		}
	})
	if bug != nil {
		return bug
	}
	return err
}

type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
