package stream

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"peel/cell"
)

// accepting is a relay's Mux with one connected stream, id 1, and what it shares.
func accepting(t testing.TB, b *Budget) (*Mux, *Stream) {
	t.Helper()
	var s *Stream
	m := NewMux(Config{Budget: b, Accept: func(a *Stream, _ Open) { s = a; a.Connected(connected) }})
	if err := m.Receive(message(t, cell.MsgBegin, 1, web)); err != nil {
		t.Fatal(err)
	}
	return m, s
}

func receive(t testing.TB, m *Mux, messages ...cell.Message) {
	t.Helper()
	for _, msg := range messages {
		if err := m.Receive(msg); err != nil {
			t.Fatal(err)
		}
	}
}

// A hundred circuits whose targets never read stay within the budget, and a stream that is read goes on.
func TestMemoryOfAllCircuitsIsBounded(t *testing.T) {
	const most = 2 << 20
	for name, target := range map[string]func(*Stream){
		"nobody reads":         func(*Stream) {},
		"the write blocks":     func(s *Stream) { s.WriteTo(blocked{s}) },
		"the client says done": func(s *Stream) { s.CloseWrite() },
		"and the write blocks": func(s *Stream) { s.CloseWrite(); s.WriteTo(blocked{s}) },
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBudget(Limits{Unread: most})
			honest, reader := accepting(t, b)
			var hostile []*Mux
			var wg sync.WaitGroup
			defer wg.Wait()
			for range 100 {
				m, s := accepting(t, b)
				wg.Go(func() { target(s) })
				hostile = append(hostile, m)
				defer m.Close(errGone)
			}
			buf := make([]byte, 1000)
			for round := range 300 {
				for _, m := range hostile {
					receive(t, m, data(1, 1000))
					if n := b.Used(); n > most {
						t.Fatalf("%d bytes wait to be read", n)
					}
				}
				receive(t, honest, data(1, len(buf)))
				if n, err := io.ReadFull(reader, buf); err != nil {
					t.Fatalf("round %d: the honest stream read %d bytes: %v", round, n, err)
				}
			}
			for _, m := range hostile {
				receive(t, m, message(t, cell.MsgEnd, 1, cell.End{Reason: cell.EndDone}))
			}
			other, s := accepting(t, b)
			receive(t, other, data(1, len(buf)))
			if _, err := io.ReadFull(s, buf); err != nil {
				t.Errorf("a new stream: %v", err)
			}
			for _, m := range hostile {
				m.Close(errGone)
			}
			if n := b.Used(); n != 0 {
				t.Errorf("%d bytes are counted when all circuits have ended", n)
			}
		})
	}
}

// blocked is a host that reads nothing, and is given up when the stream is of no use.
type blocked struct{ s *Stream }

func (b blocked) Write([]byte) (int, error) {
	<-b.s.Context().Done()
	return 0, errGone
}

func TestTheFullestCircuitPays(t *testing.T) {
	b := NewBudget(Limits{Unread: 100 << 10})
	small, s := accepting(t, b)
	big, l := accepting(t, b)
	for range 20 {
		receive(t, small, data(1, 1024))
	}
	for range 80 {
		receive(t, big, data(1, 1024))
	}
	if n := b.Used(); n != 100<<10 {
		t.Fatalf("%d bytes wait", n)
	}
	receive(t, small, data(1, 1024))
	if _, err := l.Read(make([]byte, 1)); !errors.Is(err, errShed) {
		t.Errorf("the one with most: %v", err)
	}
	if n, err := io.ReadFull(s, make([]byte, 21<<10)); err != nil {
		t.Errorf("the other: %d bytes, %v", n, err)
	}
	next(t, big) // CONNECTED
	if m, _ := next(t, big); m.Type != cell.MsgEnd || m.Data[0] != byte(cell.EndBusy) {
		t.Errorf("the client hears %v", m)
	}
}

func TestNoWindowGrowsInATightBudget(t *testing.T) {
	b := NewBudget(Limits{Unread: 8 << 10})
	m, s := accepting(t, b)
	other, _ := accepting(t, b)
	receive(t, m, data(1, 1024), data(1, 1024))
	if m.mayGrow() == 0 || other.mayGrow() == 0 {
		t.Error("a quarter is used, and none may grow")
	}
	receive(t, m, data(1, 1))
	if m.mayGrow() != 0 || other.mayGrow() != 0 {
		t.Error("more than a quarter is used, and windows may grow")
	}
	s.Close()
	if n := b.Used(); n != 0 {
		t.Errorf("%d bytes wait of a closed stream", n)
	}
}

// What was dropped must not look whole: the reader of a stream that is reset as busy sees no end in order, also when the
// other end said done, or when both did and the stream was over.
func TestAStreamThatIsShedDoesNotLookWhole(t *testing.T) {
	for name, over := range map[string]bool{"done": false, "over": true} {
		t.Run(name, func(t *testing.T) {
			b := NewBudget(Limits{Unread: 4 << 10})
			m, s := accepting(t, b)
			receive(t, m, data(1, 1024), message(t, cell.MsgEnd, 1, cell.End{Reason: cell.EndDone}))
			if over {
				s.CloseWrite()
				for range 2 {
					next(t, m)
				}
				if m.Streams() != 0 {
					t.Fatal("the stream is not over")
				}
			}
			ctx := s.Context()
			receive(t, m, message(t, cell.MsgBegin, 2, web))
			for range 4 {
				receive(t, m, data(2, 1000))
			}
			// Now the second holds most; it goes first, then the first.
			receive(t, m, message(t, cell.MsgBegin, 3, web))
			for range 4 {
				receive(t, m, data(3, 900))
			}
			if b.Used() > 4<<10 {
				t.Fatalf("%d bytes wait", b.Used())
			}
			m.mu.Lock()
			for m.shed() {
			}
			m.mu.Unlock()
			if _, err := s.Read(make([]byte, 1)); !errors.Is(err, errShed) {
				t.Errorf("its reader sees %v", err)
			}
			if ctx.Err() == nil {
				t.Error("who works for it is not told")
			}
			if b.Used() != 0 || m.Unread() != 0 || len(m.left) != 0 {
				t.Errorf("%d bytes are counted", b.Used())
			}
		})
	}
}

func TestABudgetIsSharedBetweenReaders(t *testing.T) {
	const most, readers = 64 << 10, 8
	b := NewBudget(Limits{Unread: most})
	var wg sync.WaitGroup
	for range readers {
		m, s := accepting(t, b)
		wg.Go(func() {
			for i := range 1000 {
				m.Receive(data(1, 1000))
				if n := b.Used(); n > most+readers*1000 {
					t.Errorf("%d bytes wait", n)
				}
				if i%10 == 0 {
					s.mux.mu.Lock()
					some := s.in.len > 0
					s.mux.mu.Unlock()
					if some {
						s.Read(make([]byte, 4000))
					}
				}
			}
			m.Close(errGone)
		})
	}
	wg.Wait()
	if n := b.Used(); n != 0 {
		t.Errorf("%d bytes are counted when all circuits have ended", n)
	}
}

// TestStreamsThatAreOverAreBoundedInSum: what is remembered of streams that are over has a bound over all circuits. A circuit
// beyond it remembers none, and what might be late is let be; nothing else is.
func TestStreamsThatAreOverAreBoundedInSum(t *testing.T) {
	const most = 100
	b := NewBudget(Limits{Late: most})
	var all []*Mux
	for range 3 {
		m := NewMux(Config{Budget: b, Accept: func(a *Stream, _ Open) { a.Connected(connected); a.Close() }})
		all = append(all, m)
		for id := range cell.StreamID(60) {
			receive(t, m, message(t, cell.MsgBegin, id+1, web))
			for m.Next(make([]byte, cell.BodySize)) {
			}
			receive(t, m, message(t, cell.MsgEnd, id+1, cell.End{Reason: cell.EndDone}))
			if n := b.late.Load(); n > most {
				t.Fatalf("%d are remembered", n)
			}
		}
		if n := m.Streams(); n != 0 {
			t.Fatalf("%d streams are not over", n)
		}
	}
	if b.late.Load() != 60 {
		t.Errorf("%d are remembered: one circuit has room for its 60, the others for none", b.late.Load())
	}
	reset := message(t, cell.MsgEnd, 7, cell.End{Reason: cell.EndReset})
	for i, m := range all {
		if got := len(m.late.streams); i == 0 && got != 60 || m.late.lax == (i == 0) && i < 2 {
			t.Errorf("circuit %d remembers %d", i, got)
		}
		receive(t, m, reset)
	}
	if err := all[0].Receive(reset); err == nil {
		t.Error("who remembers lets a second reset be")
	}
	receive(t, all[1], reset, message(t, cell.MsgWindow, 9, cell.Window{Limit: 2 << 20}))
	if err := all[1].Receive(data(7, 10)); err == nil {
		t.Error("data on a stream that is over is let be")
	}
	receive(t, all[0], message(t, cell.MsgBegin, 3, web)) // its number is used again
	if b.late.Load() != 59 {
		t.Errorf("%d are remembered, want 59", b.late.Load())
	}
	for _, m := range all {
		m.Close(errGone)
	}
	if b.late.Load() != 0 {
		t.Errorf("%d are remembered of circuits that are gone", b.late.Load())
	}
}

// A source gives bytes without end and notes how large the reads are.
type source struct{ largest *atomic.Int64 }

func (s source) Read(p []byte) (int, error) {
	if n := int64(len(p)); n > s.largest.Load() {
		s.largest.Store(n)
	}
	return len(p), nil
}

// TestLargeCopiesAreBoundedInSum: what hosts send and clients do not take waits in large buffers as far as the budget goes, in
// small ones beyond.
func TestLargeCopiesAreBoundedInSum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(Limits{Copies: 3 * bulkCopy})
		var wg sync.WaitGroup
		var read [10]atomic.Int64
		var all []*Mux
		for i := range read {
			m, s := accepting(t, b)
			all = append(all, m)
			wg.Go(func() { s.ReadFrom(source{&read[i]}) })
		}
		body := make([]byte, cell.BodySize)
		for range 20 { // clients take some, and then no more
			for _, m := range all {
				m.Next(body)
			}
			synctest.Wait()
		}
		large := 0
		for i := range read {
			if read[i].Load() == bulkCopy {
				large++
			}
		}
		if held := b.copies.Load(); held != 3*bulkCopy || large < 3 {
			t.Errorf("%d bytes are held in %d large buffers", held, large)
		}
		for _, m := range all {
			m.Close(errGone)
		}
		wg.Wait()
		if held := b.copies.Load(); held != 0 {
			t.Errorf("%d bytes are held in the end", held)
		}
	})
}
