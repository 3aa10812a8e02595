package link_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// An end is a Receiver that remembers.
type end struct {
	take bool // consume what comes at once

	mu      sync.Mutex
	circ    *link.Circ
	reply   []byte
	numbers []int // of the cells that came
	early   int   // of them RELAY_EARLY
	rooms   int
	closed  []cell.DestroyReason
	onRoom  func()
	onCells func([]cell.Cell)
}

func (e *end) Created(reply []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.reply != nil || len(e.numbers) > 0 {
		panic("Created came late or twice")
	}
	e.reply = slices.Clone(reply)
}

func (e *end) Receive(cells []cell.Cell) {
	e.mu.Lock()
	if len(e.closed) > 0 {
		panic("cells after Closed")
	}
	for i := range cells {
		if cells[i].Circ() != e.circ.ID() {
			panic("a cell of another circuit")
		}
		if cells[i].Command() == cell.CmdRelayEarly {
			e.early++
		}
		e.numbers = append(e.numbers, int(binary.BigEndian.Uint32(cells[i].Body())))
	}
	circ, on := e.circ, e.onCells
	e.mu.Unlock()
	if on != nil {
		on(cells)
	}
	if e.take {
		circ.Taken(len(cells))
	}
}

func (e *end) Room() {
	e.mu.Lock()
	e.rooms++
	on := e.onRoom
	e.mu.Unlock()
	if on != nil {
		on()
	}
}

func (e *end) Closed(reason cell.DestroyReason) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = append(e.closed, reason)
}

func (e *end) got() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.numbers)
}

func (e *end) ended() []cell.DestroyReason {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.closed)
}

// numberCells makes RELAY cells with the numbers from first on.
func numberCells(first, n int) []cell.Cell {
	cells := make([]cell.Cell, n)
	for i := range cells {
		cells[i].SetCommand(cell.CmdRelay)
		binary.BigEndian.PutUint32(cells[i].Body(), uint32(first+i))
	}
	return cells
}

func count(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// A host is a Handler that takes every circuit at once, or keeps it for later.
type host struct {
	take bool // its ends consume what comes
	hold bool // CREATEs wait in offers

	mu     sync.Mutex
	ends   []*end
	offers []*link.Circ
}

var aReply = slices.Repeat([]byte{7}, cell.MinReplySize)

func (h *host) Create(c *link.Circ, m cell.Create) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hold {
		h.offers = append(h.offers, c)
		return
	}
	e := &end{take: h.take, circ: c}
	h.ends = append(h.ends, e)
	c.Attach(e)
	if err := c.Reply(aReply); err != nil && !errors.Is(err, link.ErrClosed) {
		panic(err)
	}
}

func (h *host) end(i int) *end {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ends[i]
}

var aCreate = cell.Create{Suite: cell.SuiteCGO, Request: make([]byte, cell.RequestSize)}

// settle lets d pass, and all that then happens come to rest.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// openCirc opens a circuit, which may take cells when it returns.
func openCirc(t *testing.T, l *link.Conn) *end {
	t.Helper()
	e := &end{}
	e.mu.Lock()
	c, err := l.Open(e, aCreate)
	e.circ = c
	e.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// sendAll sends n numbered cells as room allows.
func (e *end) sendAll(n int) {
	sent := 0
	var mu sync.Mutex
	pump := func() {
		mu.Lock()
		defer mu.Unlock()
		for {
			k := min(e.circ.Room(), n-sent)
			if k == 0 || e.circ.Send(numberCells(sent, k)) != nil {
				return
			}
			sent += k
		}
	}
	e.mu.Lock()
	e.onRoom = pump
	e.mu.Unlock()
	pump()
}

// pair is two links in a bubble: a dials b, whose circuits h takes.
func pair(t *testing.T, h *host, change func(a, b *link.Config), o linktest.Options) (la, lb *link.Conn) {
	t.Helper()
	a, b := linktest.Config(t, "a"), linktest.Config(t, "b")
	if change != nil {
		change(a, b)
	}
	return linktest.Pair(t, a, b, linktest.Handlers{A: h, B: h}, o)
}

// over checks why a link ended.
func over(t *testing.T, l *link.Conn, want link.Reason) {
	t.Helper()
	synctest.Wait()
	select {
	case <-l.Done():
	default:
		t.Fatalf("the link is still there; want it ended for: %v", want)
	}
	if got := link.ReasonOf(l.Err()); got != want {
		t.Errorf("the link ended for: %v (%v); want: %v", got, l.Err(), want)
	}
	if s := l.Stats(); s.Errors[want] != 1 || s.Circuits != 0 {
		t.Errorf("counted %v, %d circuits left", s.Errors, s.Circuits)
	}
}

func alive(t *testing.T, links ...*link.Conn) {
	t.Helper()
	synctest.Wait()
	for _, l := range links {
		if l.Err() != nil {
			t.Fatalf("the link ended: %v", l.Err())
		}
	}
}

func TestCellsGoBothWaysInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{take: true}
		la, lb := pair(t, h, nil, linktest.Options{Delay: 5 * time.Millisecond})
		e := openCirc(t, la)
		e.take = true
		e.sendAll(5000)
		settle(2 * time.Second)
		if !slices.Equal(e.reply, aReply) {
			t.Error("CREATED did not bring the reply")
		}
		o := h.end(0)
		o.sendAll(3000)
		settle(2 * time.Second)
		if got := o.got(); !slices.Equal(got, count(5000)) {
			t.Errorf("%d cells came, or in another order", len(got))
		}
		if got := e.got(); !slices.Equal(got, count(3000)) {
			t.Errorf("%d cells came back, or in another order", len(got))
		}
		alive(t, la, lb)
		if e.circ.Conn() != la || e.circ.ID()&cell.DialBit == 0 || o.circ.ID() != e.circ.ID() {
			t.Errorf("circuit %#x is %#x at the other end", e.circ.ID(), o.circ.ID())
		}
		sa := la.Stats()
		settle(5 * time.Millisecond) // padding may be on its way
		sb := lb.Stats()
		if sa.CellsOut < 5001 || sb.CellsOut < 3001 || sa.BytesOut < 5001*cell.Size || sa.RecordsOut > 1000 {
			t.Errorf("%+v\n%+v", sa, sb)
		}
		if sa.CellsOut != sb.CellsIn || sa.BytesOut != sb.BytesIn || sa.RecordsOut != sb.RecordsIn || sb.Circuits != 1 {
			t.Errorf("what one sent is not what the other got: %+v\n%+v", sa, sb)
		}
	})
}

func TestBothEndsMayOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{take: true}
		la, lb := pair(t, h, nil, linktest.Options{})
		seen := make(map[cell.CircID]bool)
		for i := range 40 {
			l := la
			if i%2 == 1 {
				l = lb
			}
			e := openCirc(t, l)
			if id := e.circ.ID(); seen[id] || id == 0 || (id&cell.DialBit != 0) != (l == la) {
				t.Errorf("circuit %#x", id)
			}
			seen[e.circ.ID()] = true
			e.sendAll(10)
		}
		alive(t, la, lb)
		for i := range 40 {
			if got := h.end(i).got(); !slices.Equal(got, count(10)) {
				t.Errorf("circuit %d: %v", i, got)
			}
		}
	})
}

func TestOpenWorksBeforeServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := linktest.Config(t, "a"), linktest.Config(t, "b")
		na, nb := linktest.Pipe(linktest.Options{})
		la, lb, erra, errb := linktest.Shake(na, nb, a, b, linktest.Peer(b))
		if erra != nil || errb != nil {
			t.Fatal(erra, errb)
		}
		e := openCirc(t, la)
		linktest.Serve(t, la, nil)
		linktest.Serve(t, lb, &host{})
		synctest.Wait()
		if !slices.Equal(e.reply, aReply) {
			t.Error("no CREATED")
		}
	})
}

func TestEarlyCellsStayEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{take: true}
		la, _ := pair(t, h, nil, linktest.Options{})
		e := openCirc(t, la)
		synctest.Wait()
		cells := numberCells(0, 6)
		cells[2].SetCommand(cell.CmdRelayEarly)
		cells[5].SetCommand(cell.CmdRelayEarly)
		if err := e.circ.Send(cells); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if o := h.end(0); o.early != 2 || len(o.got()) != 6 {
			t.Errorf("%d cells, %d of them early", len(o.got()), o.early)
		}
	})
}

func TestTapSeesEverythingInClear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := make(map[bool]int)
		h := &host{take: true}
		la, _ := pair(t, h, func(a, b *link.Config) {
			a.Tap = func(in bool, cells []cell.Cell) {
				mu.Lock()
				defer mu.Unlock()
				for i := range cells {
					if cells[i].Command() == cell.CmdRelay || cells[i].Command() == cell.CmdCreated {
						seen[in]++
					}
				}
			}
		}, linktest.Options{})
		e := openCirc(t, la)
		e.sendAll(100)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if seen[false] != 100 || seen[true] != 1 {
			t.Errorf("the tap saw %v", seen)
		}
	})
}

func TestLossEndsCircuitsOnceAndGoroutines(t *testing.T) {
	for _, how := range []string{"cut", "close", "close by the peer"} {
		synctest.Test(t, func(t *testing.T) {
			a, b := linktest.Config(t, "a"), linktest.Config(t, "b")
			na, nb := linktest.Pipe(linktest.Options{})
			h := &host{}
			la, lb := linktest.Join(t, na, nb, a, b, linktest.Handlers{B: h})
			mine := openCirc(t, la)
			other := openCirc(t, la)
			synctest.Wait()
			mine.circ.Close(cell.DestroyNone)
			synctest.Wait()
			gone := h.end(0)
			switch how {
			case "cut":
				na.Cut()
			case "close":
				la.Close()
			default:
				lb.Close()
			}
			synctest.Wait()
			for _, l := range []*link.Conn{la, lb} {
				select {
				case <-l.Done():
				default:
					t.Fatalf("%s: a link is still there", how)
				}
			}
			if got := mine.ended(); len(got) != 0 {
				t.Errorf("%s: after Close came Closed(%v)", how, got)
			}
			if got := gone.ended(); !slices.Equal(got, []cell.DestroyReason{cell.DestroyNone}) {
				t.Errorf("%s: the destroyed circuit heard %v", how, got)
			}
			for _, e := range []*end{other, h.end(1)} {
				if got := e.ended(); !slices.Equal(got, []cell.DestroyReason{cell.DestroyLinkClosed}) {
					t.Errorf("%s: a circuit heard %v", how, got)
				}
				if e.circ.Send(numberCells(0, 1)) != link.ErrClosed || e.circ.Room() != 0 || e.circ.Forward(e.circ, numberCells(0, 1)) != link.ErrClosed {
					t.Errorf("%s: cells are still taken", how)
				}
				e.circ.Taken(1)
				e.circ.Close(cell.DestroyNone)
			}
			if _, err := la.Open(&end{}, aCreate); err != link.ErrClosed {
				t.Errorf("%s: Open: %v", how, err)
			}
			if how == "close" && !errors.Is(la.Err(), link.ErrClosed) {
				t.Errorf("after Close: %v", la.Err())
			}
			if how == "cut" && link.ReasonOf(la.Err()) != link.ReasonLost {
				t.Errorf("after the loss: %v", la.Err())
			}
		})
	}
}

func TestCloseBeforeServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := linktest.Config(t, "a"), linktest.Config(t, "b")
		na, nb := linktest.Pipe(linktest.Options{})
		la, lb, _, _ := linktest.Shake(na, nb, a, b, linktest.Peer(b))
		e := openCirc(t, la)
		la.Close()
		lb.Close()
		<-la.Done()
		if err := la.Serve(nil); !errors.Is(err, link.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
		if got := e.ended(); !slices.Equal(got, []cell.DestroyReason{cell.DestroyLinkClosed}) {
			t.Errorf("the circuit heard %v", got)
		}
	})
}

func TestPeerThatNeverReadsDoesNotHoldTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := linktest.Config(t, "a"), linktest.Config(t, "b")
		na, nb := linktest.Pipe(linktest.Options{Window: 10000})
		la, lb, _, _ := linktest.Shake(na, nb, a, b, linktest.Peer(b))
		defer lb.Close()
		linktest.Serve(t, la, nil)
		for range 100 {
			openCirc(t, la)
		}
		synctest.Wait() // the writer is stuck now
		la.Close()
		over(t, la, link.ReasonClosed)
	})
}

func TestSilenceIsPadded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		la, lb := pair(t, &host{take: true}, nil, linktest.Options{})
		start := time.Now()
		settle(10 * time.Minute)
		sa, sb := la.Stats(), lb.Stats()
		padding := sa.PaddingOut + sb.PaddingOut
		// The earlier of two moments drawn from 1.5 to 9.5 s: 4.2 s on average.
		if padding < 100 || padding > 200 || sa.PaddingIn != sb.PaddingOut || sb.PaddingIn != sa.PaddingOut {
			t.Errorf("%d PADDING cells in %v (%+v, %+v)", padding, time.Since(start), sa, sb)
		}
		alive(t, la, lb)

		// A busy link is not padded.
		e := openCirc(t, la)
		for range 300 {
			synctest.Wait()
			e.circ.Send(numberCells(0, 1))
			settle(1400 * time.Millisecond)
		}
		if n := la.Stats().PaddingOut + lb.Stats().PaddingOut; n > padding+1 {
			t.Errorf("%d PADDING cells on a busy link", n-padding)
		}
	})
}

func TestKeysMoveOnWhileCellsFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := linktest.Config(t, "a"), linktest.Config(t, "b")
		na, nb := linktest.Pipe(linktest.Options{Delay: time.Millisecond})
		la, lb, _, _ := linktest.Shake(na, nb, a, b, linktest.Peer(b))
		link.NearRatchet(20, la, lb)
		h := &host{take: true}
		linktest.Serve(t, la, nil)
		linktest.Serve(t, lb, h)
		e := openCirc(t, la)
		e.take = true
		e.sendAll(5000)
		settle(time.Second)
		h.end(0).sendAll(5000)
		settle(time.Second)
		if !slices.Equal(h.end(0).got(), count(5000)) || !slices.Equal(e.got(), count(5000)) {
			t.Errorf("%d and %d cells came", len(h.end(0).got()), len(e.got()))
		}
		alive(t, la, lb)
		la.Close()
		synctest.Wait()
		in, out := link.Records(la)
		if in > 1<<19 || out > 1<<19 {
			t.Errorf("%d and %d records: the keys did not move on", in, out)
		}
	})
}

// Who closes a link on which there is no circuit means to; with one on it, the link was lost.
func TestALinkThatItsPeerClosesIsNotLost(t *testing.T) {
	for _, c := range []struct {
		used bool
		want link.Reason
	}{{false, link.ReasonLeft}, {true, link.ReasonLost}} {
		synctest.Test(t, func(t *testing.T) {
			la, lb := pair(t, &host{take: true}, nil, linktest.Options{})
			if c.used {
				openCirc(t, la)
			}
			synctest.Wait()
			lb.Close()
			over(t, la, c.want)
		})
	}
}
