package stream

import (
	"testing"
	"unsafe"

	"peel/cell"
)

// Streams that a relay refused, and whose clients do not say END, keep within the budget: the circuit with most of them ends, and no other.
func TestRefusedStreamsThatNobodyEndsAreBounded(t *testing.T) {
	const most = 1 << 20 // of 1365 streams
	b := NewBudget(Limits{Unread: most})
	ended := make(map[*Mux]int)
	refusing := func() *Mux {
		var m *Mux
		m = NewMux(Config{Budget: b, Accept: func(s *Stream, _ Open) { s.Refuse(cell.EndPolicy) }, Full: func() { ended[m]++ }})
		return m
	}
	open := func(m *Mux, from, n int) {
		for i := range n {
			receive(t, m, message(t, cell.MsgBegin, cell.StreamID(from+i), web))
			if n := b.Used(); n > most {
				t.Fatalf("%d bytes of refused streams", n)
			}
		}
	}
	honest := refusing()
	open(honest, 1, 100)
	for range 20 {
		m := refusing()
		open(m, 1, 1000)
		defer m.Close(errGone)
	}
	if len(ended) < 18 || ended[honest] != 0 {
		t.Errorf("%d of 20 circuits were ended, and of the honest one %d", len(ended), ended[honest])
	}
	for m, n := range ended {
		if n != 1 {
			t.Errorf("one was ended %d times", n)
		}
		m.Close(errGone)
	}
	for i := range 100 { // the honest client says END, when the relay's has come
		if msg, ok := next(t, honest); !ok || msg.Type != cell.MsgEnd {
			t.Fatalf("%v, %v instead of an END", msg.Type, ok)
		}
		receive(t, honest, message(t, cell.MsgEnd, cell.StreamID(i+1), cell.End{Reason: cell.EndDone}))
	}
	if honest.Streams() != 0 || honest.waiting != 0 {
		t.Errorf("%d streams are left, %d wait", honest.Streams(), honest.waiting)
	}
	if n := unsafe.Sizeof(Stream{}) + 64; n > waitingSize { // and its place in a table
		t.Errorf("a stream takes %d bytes, and %d are counted", n, waitingSize)
	}
}

// Nothing is left in the budget when a circuit ends, however its streams ended.
func TestEndedCircuitsLeaveTheBudget(t *testing.T) {
	b := NewBudget(Limits{Unread: 1 << 20})
	m := NewMux(Config{Budget: b, Accept: func(s *Stream, _ Open) { s.Connected(connected); s.Reset(cell.EndMisc) }, Full: func() {}})
	for i := range 10 {
		receive(t, m, message(t, cell.MsgBegin, cell.StreamID(i+1), web))
	}
	if n := b.Used(); n != 10*waitingSize {
		t.Errorf("%d bytes are counted", n)
	}
	m.Close(errGone)
	if n := b.Used(); n != 0 {
		t.Errorf("%d bytes are counted when the circuit has ended", n)
	}
}
