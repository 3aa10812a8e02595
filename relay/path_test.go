package relay

import (
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"peel/cell"
	"peel/cell/gcm"
	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/circuit/layer"
)

// A tape is one end of a connection whose other end can be cut off: then what is written to it is kept, or only counted,
// and what is read from it is what a test puts there.
type tape struct {
	net.Conn
	mu      sync.Mutex
	more    sync.Cond
	cut     bool
	keep    bool
	kept    []byte
	written int
	toRead  []byte
	closed  bool
}

func newTape(nc net.Conn) *tape {
	t := &tape{Conn: nc}
	t.more.L = &t.mu
	go func() { // ends when nc is closed
		b := make([]byte, 4096)
		for {
			n, err := nc.Read(b)
			t.mu.Lock()
			t.toRead = append(t.toRead, b[:n]...)
			t.closed = t.closed || err != nil
			t.more.Broadcast()
			t.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return t
}

func (t *tape) Read(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.toRead) == 0 && !t.closed {
		t.more.Wait()
	}
	if len(t.toRead) == 0 {
		return 0, io.EOF
	}
	n := copy(b, t.toRead)
	t.toRead = t.toRead[n:]
	return n, nil
}

func (t *tape) Write(b []byte) (int, error) {
	t.mu.Lock()
	if !t.cut {
		t.mu.Unlock()
		return t.Conn.Write(b)
	}
	defer t.mu.Unlock()
	if t.keep {
		t.kept = append(t.kept, b...)
	}
	t.written += len(b)
	t.more.Broadcast()
	return len(b), nil
}

// WriteNow lets the link write without handing over to another goroutine, as it does to a socket.
func (t *tape) WriteNow(b []byte) (int, error) { return t.Write(b) }

func (t *tape) Close() error {
	t.mu.Lock()
	t.closed = true
	t.more.Broadcast()
	t.mu.Unlock()
	return t.Conn.Close()
}

// cutOff cuts the other end off.
func (t *tape) cutOff(keep bool) {
	t.mu.Lock()
	t.cut, t.keep = true, keep
	t.mu.Unlock()
}

// play puts what is to be read there.
func (t *tape) play(b []byte) {
	t.mu.Lock()
	t.toRead = b
	t.more.Broadcast()
	t.mu.Unlock()
}

// await waits until n bytes were written since cutOff.
func (t *tape) await(n int) {
	t.mu.Lock()
	for t.written < n {
		t.more.Wait()
	}
	t.mu.Unlock()
}

// passage is a relay's part of a circuit alone: a link by which cells come, the circuit, and a link by which they leave.
// What is at the far ends of the links answers CREATE, sends, and takes part in nothing else.
type passage struct {
	relay     *Relay
	in, out   *tape // the relay's ends
	sender    *tape // the other end of in
	incoming  *link.Conn
	outgoing  *link.Conn
	transits  chan *transit
	answering answering
}

// all cells have their credit from the start.
const plenty = 65535

func newPassage(t testing.TB) *passage {
	p := &passage{
		relay:    &Relay{log: slog.New(slog.DiscardHandler), transits: make(map[*transit]struct{}), ctx: t.Context()},
		transits: make(chan *transit, 1),
	}
	join := func(h link.Handler) (a, b *tape, la, lb *link.Conn) {
		na, nb := linktest.Pipe(linktest.Options{Window: 1 << 20})
		a, b = newTape(na), newTape(nb)
		ca, cb := linktest.Config(t, "a"), linktest.Config(t, "b")
		ca.Credit, cb.Credit = plenty, plenty
		la, lb = linktest.Join(t, a, b, ca, cb, linktest.Handlers{B: h})
		return a, b, la, lb
	}
	p.sender, p.in, p.incoming, _ = join(p)
	p.out, _, p.outgoing, _ = join(&p.answering)
	return p
}

var (
	aCreate  = cell.Create{Suite: cell.SuiteCGO, Request: make([]byte, cell.RequestSize)}
	anAnswer = make([]byte, cell.MinReplySize)
)

// Create makes the circuit of the relay, with keys of its own, and extends it over the other link.
func (p *passage) Create(c *link.Circ, _ cell.Create) {
	var k [2 * layer.KeySize]byte
	rand.Read(k[:])
	t := newTransit(p.relay, c, owner{of: c}, k[:])
	var err error
	if t.next, err = p.outgoing.Open(fromNext{t}, aCreate); err != nil {
		panic(err)
	}
	c.Attach(fromPrev{t})
	go func() {
		<-t.joined
		c.Reply(anAnswer)
		p.transits <- t
	}()
}

// open opens a circuit from the far end, and waits until it is there.
func (p *passage) open(t testing.TB) (*link.Circ, *transit) {
	s := &sends{ready: make(chan struct{})}
	c, err := p.incoming.Open(s, aCreate)
	if err != nil {
		t.Fatal(err)
	}
	<-s.ready
	return c, <-p.transits
}

// answering says CREATED to every circuit.
type answering struct{}

func (a *answering) Create(c *link.Circ, _ cell.Create) {
	c.Attach(&sends{})
	c.Reply(anAnswer)
}

// sends is the Receiver of a circuit that only sends.
type sends struct {
	ready chan struct{}
}

func (s *sends) Created([]byte)            { close(s.ready) }
func (s *sends) Receive([]cell.Cell)       {}
func (s *sends) Closed(cell.DestroyReason) {}
func (s *sends) Room()                     {}

func (p *passage) close() {
	p.incoming.Close()
	p.outgoing.Close()
}

// record makes records of so many cells, for the circuits in turn, as the far end would send them.
func (p *passage) record(t testing.TB, cells int, circs ...*link.Circ) []byte {
	before := p.incoming.Stats().BytesOut
	p.sender.cutOff(true)
	body := make([]cell.Cell, 32/len(circs))
	for i := range body {
		rand.Read(body[i].Body())
		body[i].SetCommand(cell.CmdRelay)
	}
	for sent := 0; sent < cells; {
		for _, c := range circs {
			for c.Send(body) != nil {
				runtime.Gosched() // what was sent before is on its way to the tape
			}
			sent += len(body)
		}
	}
	for _, c := range circs {
		for c.Room() < 32 {
			runtime.Gosched() // until the last cell is in a record
		}
	}
	p.sender.await(int(p.incoming.Stats().BytesOut - before))
	p.sender.mu.Lock()
	defer p.sender.mu.Unlock()
	return slices.Clone(p.sender.kept)
}

// pass lets what record made pass the relay, and says how long that took and how many allocations it made.
func (p *passage) pass(tape []byte, cells int) (time.Duration, uint64) {
	p.in.cutOff(false)
	p.out.cutOff(false)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	p.in.play(tape)
	p.out.await(cells * cell.Size)
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	return took, after.Mallocs - before.Mallocs
}

const passed = 32 * 1024 // cells

// TestARelayAllocatesNothingForACell: from a link's record through a layer to another link's record.
func TestARelayAllocatesNothingForACell(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool forgets on purpose under the race detector")
	}
	for _, circuits := range []int{1, 16} {
		p := newPassage(t)
		var circs []*link.Circ
		for range circuits {
			c, _ := p.open(t)
			circs = append(circs, c)
		}
		_, n := p.pass(p.record(t, passed, circs...), passed)
		// Until it is in a steady state, a link makes buffers; then, now and then, it lists grants in a CREDIT cell.
		if per := float64(n) / passed; per > 0.03 {
			t.Errorf("%d circuits: %.4f allocations a cell", circuits, per)
		}
	}
}

// BenchmarkRelayPath is a relay's work on a cell, from the record it comes in to the record it leaves in, in memory. The
// metric x-crypto is its time as a multiple of what the cryptography in it takes (opening a record, a layer, sealing a
// record), both in turn; medians of the rounds.
func BenchmarkRelayPath(b *testing.B) {
	for _, circuits := range []int{1, 16} {
		b.Run(fmt.Sprintf("circuits=%d", circuits), func(b *testing.B) {
			const passed = 8192
			var took, ratios []float64
			cells, allocs := 0, uint64(0)
			for cells == 0 || cells < b.N || len(ratios) < 15 {
				p := newPassage(b)
				var circs []*link.Circ
				for range circuits {
					c, _ := p.open(b)
					circs = append(circs, c)
				}
				tape := p.record(b, passed, circs...)
				runtime.GC()
				crypto := min(cryptography(passed), cryptography(passed), cryptography(passed))
				d, n := p.pass(tape, passed)
				took = append(took, float64(d.Nanoseconds())/passed)
				ratios = append(ratios, float64(d)/float64(crypto))
				allocs += n
				cells += passed
				p.close()
			}
			slices.Sort(took)
			slices.Sort(ratios)
			b.ReportMetric(0, "ns/op") // the rounds set up more than they measure
			b.ReportMetric(took[len(took)/2], "ns/cell")
			b.ReportMetric(ratios[len(ratios)/2], "x-crypto")
			b.ReportMetric(float64(allocs)/float64(cells), "allocs/cell")
		})
	}
}

// cryptography is how long the ciphers alone take for so many cells in records of 32.
func cryptography(cells int) time.Duration {
	aead := gcm.New(new([gcm.KeySize]byte))
	var k [layer.KeySize]byte
	l := layer.NewRelay(&k, cell.BodySize)
	const n = 32
	wire := make([]byte, n*cell.Size, n*cell.Size+aead.Overhead())
	var nonce [12]byte
	sealed := aead.Seal(nil, nonce[:], wire, nil)
	kept := slices.Clone(sealed)
	took := time.Duration(0)
	for range cells / n {
		copy(sealed, kept)
		start := time.Now()
		plain, err := aead.Open(sealed[:0], nonce[:], sealed, nil)
		if err != nil {
			panic(err)
		}
		l.PeelRun(byte(cell.CmdRelay), cell.Bodies(cell.Cells(plain)), cell.Size)
		aead.Seal(plain[:0], nonce[:], plain, nil)
		took += time.Since(start)
	}
	return took
}

// BenchmarkCircuitMemory is what a circuit that passes through costs a relay while its queues are empty: all that four ends
// of two links and the relay hold, less what two ends of a link alone do.
func BenchmarkCircuitMemory(b *testing.B) {
	const circuits = 4000
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc + m.StackInuse)
	}
	for b.Loop() {
		var ends int64
		{
			nothing := &answering{}
			ca, cb := linktest.Config(b, "a"), linktest.Config(b, "b")
			la, _ := linktest.Pair(b, ca, cb, linktest.Handlers{B: nothing}, linktest.Options{Window: 1 << 20})
			before := heap()
			for range circuits {
				s := &sends{ready: make(chan struct{})}
				if _, err := la.Open(s, aCreate); err != nil {
					b.Fatal(err)
				}
				<-s.ready
			}
			ends = heap() - before
		}
		p := newPassage(b)
		before := heap()
		for range circuits {
			p.open(b)
		}
		all := heap() - before
		b.ReportMetric(float64(all-ends)/circuits, "B/circuit")
		b.ReportMetric(float64(ends)/circuits/2, "B/link-end")
		runtime.KeepAlive(p)
	}
}
