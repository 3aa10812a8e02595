package link_test

import (
	"context"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// sink takes what comes and counts it.
type sink struct {
	circ *link.Circ
	got  atomic.Int64
	want atomic.Int64
	done chan struct{}
}

func (s *sink) Created([]byte)            {}
func (s *sink) Room()                     {}
func (s *sink) Closed(cell.DestroyReason) {}
func (s *sink) Receive(cells []cell.Cell) {
	s.circ.Taken(len(cells))
	if s.got.Add(int64(len(cells))) >= s.want.Load() {
		s.done <- struct{}{}
	}
}

func (s *sink) Create(c *link.Circ, m cell.Create) {
	s.circ = c
	c.Attach(s)
	c.Reply(aReply)
}

// source sends what there is room for, until it has sent want.
type source struct {
	circ    *link.Circ
	cells   []cell.Cell
	left    atomic.Int64
	created chan struct{}
	mu      sync.Mutex // from Room to Send
}

func (s *source) Created([]byte)            { close(s.created) }
func (s *source) Receive([]cell.Cell)       {}
func (s *source) Closed(cell.DestroyReason) {}
func (s *source) Room() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		n := min(int64(s.circ.Room()), s.left.Load())
		if n <= 0 || s.circ.Send(s.cells[:n]) != nil {
			return
		}
		s.left.Add(-n)
	}
}

// tcp is two ends on loopback.
func tcp(t testing.TB) (a, b net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err == nil {
		b, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// flow is one circuit over loopback, from a source to a sink.
func flow(t testing.TB) (*source, *sink) {
	na, nb := tcp(t)
	to := &sink{done: make(chan struct{}, 1)}
	la, _ := linktest.Join(t, na, nb, &link.Config{}, linktest.Config(t, "b"), linktest.Handlers{B: to})
	from := &source{cells: numberCells(0, 32), created: make(chan struct{})}
	var err error
	from.mu.Lock()
	from.circ, err = la.Open(from, aCreate)
	from.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	<-from.created
	return from, to
}

// run sends n cells and returns when they have come.
func run(from *source, to *sink, n int64) {
	to.want.Add(n)
	from.left.Store(n)
	from.Room()
	for to.got.Load() < to.want.Load() {
		<-to.done
	}
}

func TestCellsAllocateNothing(t *testing.T) {
	if link.RaceEnabled {
		t.Skip("sync.Pool forgets on purpose under the race detector")
	}
	from, to := flow(t)
	const cells = 20000
	run(from, to, cells)
	per := testing.AllocsPerRun(3, func() { run(from, to, cells) }) / cells
	// What remains is a list of grants in a CREDIT cell now and then, and what garbage collection took from pools.
	if per > 0.02 {
		t.Errorf("%.4f allocations a cell from Send to Receive", per)
	}
}

func BenchmarkLink(b *testing.B) {
	from, to := flow(b)
	b.SetBytes(cell.Size)
	b.ReportAllocs()
	b.ResetTimer()
	run(from, to, int64(b.N))
}

func BenchmarkHandshake(b *testing.B) {
	for _, x := range []struct {
		name string
		cfg  *link.Config
	}{{"client", &link.Config{}}, {"relay", linktest.Config(b, "a")}} {
		b.Run(x.name, func(b *testing.B) {
			to := linktest.Config(b, "b")
			for b.Loop() {
				na, nb := linktest.Pipe(linktest.Options{})
				done := make(chan *link.Conn, 1)
				go func() {
					lb, _ := link.Accept(context.Background(), nb, to)
					done <- lb
				}()
				la, err := link.Dial(context.Background(), na, x.cfg, linktest.Peer(to))
				lb := <-done
				if err != nil || lb == nil {
					b.Fatal(err)
				}
				la.Close()
				lb.Close()
			}
		})
	}
}

// TestKernelTellsTheRoundTrip: over TCP, cells flow with what the kernel measures, and a socket takes its bound.
func TestKernelTellsTheRoundTrip(t *testing.T) {
	from, to := flow(t)
	run(from, to, 5000)
	if rtt, known := link.RTT(from.circ.Conn()); known && (rtt <= 0 || rtt > time.Second) {
		t.Errorf("the kernel says %v on loopback", rtt)
	} else if !known && runtime.GOOS == "linux" {
		t.Error("the kernel says nothing")
	}
}
