package link_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// prompt is a connection that takes no more than some bytes at once; what the link writes so is counted.
type prompt struct {
	*linktest.Conn
	most  int
	err   error
	calls atomic.Int64
	short atomic.Int64
}

func (p *prompt) WriteNow(b []byte) (int, error) {
	p.calls.Add(1)
	if p.err != nil {
		return 0, p.err
	}
	if len(b) > p.most {
		p.short.Add(1)
		b = b[:p.most]
	}
	return p.Conn.Write(b)
}

// promptChain is client – relay – exit, where the relay's ends of both links are prompt.
func promptChain(t *testing.T, h *host, most int) (client, exit *link.Conn, prev, next *prompt) {
	t.Helper()
	join := func(ha, hb link.Handler, relayDials bool) (la, lb *link.Conn, p *prompt) {
		na, nb := linktest.Pipe(linktest.Options{Window: 4 << 20})
		p = &prompt{Conn: nb, most: most}
		var a, b net.Conn = na, p
		if relayDials {
			p.Conn = na
			a, b = p, nb
		}
		la, lb = linktest.Join(t, a, b, linktest.Config(t, "a"), linktest.Config(t, "b"), linktest.Handlers{A: ha, B: hb})
		return la, lb, p
	}
	out, exit, next := join(nil, h, true)
	client, _, prev = join(nil, &transit{t, out}, false)
	return client, exit, prev, next
}

// TestReadersWriteWhatConnectionsTakeAtOnce: a reader writes on what comes; what the next connection does not take at once
// follows, in order, from the writer. Own cells keep their place.
func TestReadersWriteWhatConnectionsTakeAtOnce(t *testing.T) {
	for _, most := range []int{1 << 20, 2000, 1} {
		t.Run(fmt.Sprintf("at most %d bytes", most), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &host{take: true}
				client, exit, prev, next := promptChain(t, h, most)
				e := openCirc(t, client)
				e.take = true
				settle(time.Second)
				e.sendAll(3000)
				settle(5 * time.Second)
				h.end(0).sendAll(3000)
				settle(5 * time.Second)
				if !slices.Equal(h.end(0).got(), count(3000)) || !slices.Equal(e.got(), count(3000)) {
					t.Errorf("%d and %d cells came", len(h.end(0).got()), len(e.got()))
				}
				for _, p := range []*prompt{prev, next} {
					if p.calls.Load() == 0 || (p.short.Load() > 0) != (most < 1<<20) {
						t.Errorf("%d writes at once, %d of them short", p.calls.Load(), p.short.Load())
					}
				}
				alive(t, client, exit)
			})
		})
	}
}

// TestTrafficMovesNoTimers: a timer that is moved for each cell costs more than the cell.
func TestTrafficMovesNoTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{take: true}
		var links []*link.Conn
		var ends []*end
		for range 10 {
			near, far := pair(t, h, nil, linktest.Options{})
			links, ends = append(links, near, far), append(ends, openCirc(t, near))
			settle(time.Second)
		}
		seen := make([]map[time.Time]bool, len(links))
		for i := range 5 {
			for _, e := range ends {
				if err := e.circ.Send(numberCells(i, 1)); err != nil {
					t.Fatal(err)
				}
			}
			settle(100 * time.Millisecond)
			for k, l := range links {
				if seen[k] == nil {
					seen[k] = map[time.Time]bool{}
				}
				seen[k][link.Timed(l)] = true
			}
		}
		for k := range links {
			if len(seen[k]) > 2 { // one that was set before may go off meanwhile
				t.Errorf("link %d: its timer was set %d times for 5 cells in half a second", k, len(seen[k]))
			}
		}
	})
}

// sleepy is a connection that takes its time for so many looks at it: as if who writes to it were not run for a while, after having looked
// at the clock.
type sleepy struct {
	*prompt
	looks atomic.Int64
}

func (s *sleepy) RTT() time.Duration {
	if s.looks.Add(-1) >= 0 {
		time.Sleep(30 * time.Millisecond)
	}
	return s.prompt.RTT()
}

// TestTimerThatGoesOffWhileSomebodyWritesIsSetAnew: the writer cannot act on it then, and nothing else would wake it.
func TestTimerThatGoesOffWhileSomebodyWritesIsSetAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := linktest.Pipe(linktest.Options{Window: 4 << 20})
		p := &sleepy{prompt: &prompt{Conn: near, most: 1 << 20}}
		next, _ := linktest.Join(t, p, far, linktest.Config(t, "relay"), linktest.Config(t, "exit"), linktest.Handlers{B: &host{take: true}})
		client, _ := linktest.Pair(t, linktest.Config(t, "client"), linktest.Config(t, "relay"), linktest.Handlers{B: &transit{t, next}}, linktest.Options{})
		e := openCirc(t, client)
		settle(time.Second)
		send := func(i int) {
			if err := e.circ.Send(numberCells(i, 1)); err != nil {
				t.Fatal(err)
			}
		}
		send(0)
		settle(25 * time.Millisecond)
		send(1)
		settle(time.Until(link.Timed(next)) - 45*time.Millisecond)
		p.looks.Store(2) // before it writes the cell, and before it finds that there is no more
		send(2)          // the relay's reader writes it on, and is at it when the timer goes off
		settle(100 * time.Millisecond)
		if n := p.looks.Load(); n > 0 {
			t.Fatalf("%d looks at the connection were not made", n)
		}
		if left := time.Until(link.Timed(next)); left <= 0 {
			t.Errorf("the timer went off %v ago, and was not set anew", -left)
		}
	})
}

// TestWriteErrorEndsTheLinkThatHasIt: a reader that cannot write to another link ends that link, and goes on.
func TestWriteErrorEndsTheLinkThatHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{take: true}
		client, exit, _, next := promptChain(t, h, 1<<20)
		e := openCirc(t, client)
		settle(time.Second)
		next.err = errors.New("broken")
		e.sendAll(10)
		settle(time.Second)
		over(t, exit, link.ReasonLost)
		alive(t, client)
		if got := e.ended(); len(got) != 1 {
			t.Errorf("the circuit over it ended %d times", len(got))
		}
	})
}

// TestCellsOfOurOwnDoNotOvertake: a circuit that forwards cells, and sends some itself from within Receive, keeps the order
// in which it did so, and hears of room when they are queued.
func TestCellsOfOurOwnDoNotOvertake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{take: true}
		out, exit := pair(t, h, nil, linktest.Options{})
		mixed := &mixed{}
		client, _ := linktest.Pair(t, linktest.Config(t, "client"), linktest.Config(t, "relay"),
			linktest.Handlers{B: mixed}, linktest.Options{})
		mixed.next = out
		e := openCirc(t, client)
		settle(time.Second)
		e.sendAll(100)
		settle(5 * time.Second)
		got := h.end(0).got()
		if len(got) != 200 {
			t.Fatalf("%d cells came, want 100 and an own one after each", len(got))
		}
		// The own cell that goes with number n has the number 1000 + n, and may come late but not early.
		last, lastOwn := -1, 999
		for _, n := range got {
			switch {
			case n < 1000 && n == last+1:
				last = n
			case n == lastOwn+1 && n-1000 <= last:
				lastOwn = n
			default:
				t.Fatalf("%d came after %d and %d", n, last, lastOwn)
			}
		}
		alive(t, client, exit)
	})
}

// mixed forwards all, and wants to send a cell of its own after each.
type mixed struct {
	next *link.Conn
	in   *link.Circ

	mu   sync.Mutex // from Room to Send
	out  *link.Circ
	want int // cells that should have been sent
	sent int
}

func (m *mixed) Create(c *link.Circ, _ cell.Create) {
	m.mu.Lock()
	m.in = c
	m.out, _ = m.next.Open(backSide{m}, aCreate)
	m.mu.Unlock()
	c.Attach(m)
	c.Reply(aReply)
}

func (m *mixed) Created([]byte)            {}
func (m *mixed) Room()                     {}
func (m *mixed) Closed(cell.DestroyReason) {}
func (m *mixed) Receive(cells []cell.Cell) {
	m.mu.Lock()
	m.out.Forward(m.in, cells)
	m.want += len(cells)
	m.mu.Unlock()
	m.pump()
}

func (m *mixed) pump() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.sent < m.want && m.out.Room() > 0 && m.out.Send(numberCells(1000+m.sent, 1)) == nil {
		m.sent++
	}
}

// backSide hears of room on the way out.
type backSide struct{ m *mixed }

func (b backSide) Created([]byte)            {}
func (b backSide) Receive([]cell.Cell)       {}
func (b backSide) Closed(cell.DestroyReason) {}
func (b backSide) Room()                     { b.m.pump() }

// BenchmarkLinksInParallel is a node with several links, each with a circuit of its own, that share what a node's links
// share. With -cpu 1,2 it shows that they do not wait for each other: twice the cores, twice the cells.
func BenchmarkLinksInParallel(b *testing.B) {
	const links = 4
	budget := link.NewBudget(64 << 20)
	var from [links]*source
	var to [links]*sink
	for i := range links {
		na, nb := tcp(b)
		cfg := linktest.Config(b, "b")
		cfg.Budget = budget
		to[i] = &sink{done: make(chan struct{}, 1)}
		la, _ := linktest.Join(b, na, nb, &link.Config{}, cfg, linktest.Handlers{B: to[i]})
		from[i] = &source{cells: numberCells(0, 32), created: make(chan struct{})}
		var err error
		from[i].mu.Lock()
		from[i].circ, err = la.Open(from[i], aCreate)
		from[i].mu.Unlock()
		if err != nil {
			b.Fatal(err)
		}
		<-from[i].created
	}
	b.SetBytes(cell.Size)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range links {
		wg.Go(func() { run(from[i], to[i], int64(b.N/links+1)) })
	}
	wg.Wait()
}

// TestAPanicKeepsNoPen: a reader that panics when it has queued cells for another link gives that link's pen on, or nothing would ever be
// written there again, and its Serve would not end.
func TestAPanicKeepsNoPen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{take: true}
		var bugs atomic.Int64
		told := func(*contain.Panic) { bugs.Add(1) }
		relay := linktest.Config(t, "relay")
		relay.Panicked = told
		out, exit := linktest.Pair(t, relay, linktest.Config(t, "exit"), linktest.Handlers{B: h}, linktest.Options{})
		client, in := linktest.Pair(t, linktest.Config(t, "client"), relay, linktest.Handlers{B: &transit{t, out}}, linktest.Options{})
		e := openCirc(t, client)
		settle(time.Second)
		var queued atomic.Pointer[string] // the reader that has queued cells for another link
		self := func() *string {
			line, _, _ := bytes.Cut(debug.Stack(), []byte(" ["))
			id := string(line)
			return &id
		}
		disarm := contain.Arm(func(name string) {
			switch name {
			case "link: enqueue":
				queued.CompareAndSwap(nil, self())
			case "link: give on":
				if who := queued.Load(); who != nil && *who == *self() && bugs.Load() == 0 {
					panic("a bug for the test")
				}
			}
		})
		e.sendAll(10)
		settle(time.Second)
		disarm()
		if over(t, in, link.ReasonBug); bugs.Load() != 1 {
			t.Errorf("%d panics", bugs.Load())
		}
		other := openCirc(t, out)
		settle(time.Second)
		other.sendAll(10)
		settle(time.Second)
		if got := h.end(1).got(); !slices.Equal(got, count(10)) {
			t.Errorf("over the other link came %v", got)
		}
		alive(t, out, exit)
		out.Close()
		<-out.Done()
	})
}

// TestWhereverALinkPanicsServeEnds: whatever is under way when a link's own code panics, Serve of every link ends when that is closed, and
// what goes over links that the panic did not end comes.
func TestWhereverALinkPanicsServeEnds(t *testing.T) {
	for _, name := range []string{"link: read", "link: receive", "link: enqueue", "link: give on", "link: compose", "link: write", "link: send"} {
		for _, nth := range []int64{1, 2, 9} {
			synctest.Test(t, func(t *testing.T) {
				h := &host{take: true}
				var bugs, hits atomic.Int64
				config := func(name string) *link.Config {
					c := linktest.Config(t, name)
					c.Panicked = func(*contain.Panic) { bugs.Add(1) }
					return c
				}
				var all []*link.Conn
				join := func(a, b *link.Config, h linktest.Handlers) (la, lb *link.Conn) {
					na, nb := linktest.Pipe(linktest.Options{})
					la, lb = linktest.Join(t, &prompt{Conn: na, most: 3000}, &prompt{Conn: nb, most: 3000}, a, b, h)
					all = append(all, la, lb)
					return la, lb
				}
				relay := config("relay")
				out, exit := join(relay, config("exit"), linktest.Handlers{B: h})
				var ends []*end
				for range 2 {
					client, _ := join(config("client"), relay, linktest.Handlers{B: &transit{t, out}})
					e := openCirc(t, client)
					e.take = true
					ends = append(ends, e)
				}
				settle(time.Second)
				disarm := contain.Arm(func(at string) {
					if at == name && hits.Add(1) == nth {
						panic("a bug for the test")
					}
				})
				for i, e := range ends {
					go e.sendAll(100)
					go h.end(i).sendAll(100)
				}
				settle(time.Second)
				disarm()
				if n := hits.Load(); n == 0 || (bugs.Load() == 1) != (n >= nth) {
					t.Errorf("%s: %d hits, %d panics were told", name, hits.Load(), bugs.Load())
				}
				if out.Err() == nil && exit.Err() == nil {
					e := openCirc(t, out)
					settle(time.Second)
					e.sendAll(10)
					settle(time.Second)
					if got := h.end(2).got(); !slices.Equal(got, count(10)) {
						t.Errorf("%s, for the time %d: over the other link came %v", name, nth, got)
					}
				}
				for _, l := range all {
					l.Close()
				}
				settle(time.Minute)
				for _, l := range all {
					select {
					case <-l.Done():
					default:
						panic(fmt.Sprintf("%s, for the time %d: Serve of a link does not end", name, nth)) // so the test cannot either
					}
				}
			})
		}
	}
}
