package stream

import (
	"testing"

	"peel/cell"
)

// opening is a client's Mux that can wait, how often it said so and how often it was in a hurry, and so many streams that are connected.
func opening(t *testing.T, n int) (m *Mux, streams []*Stream, later, wakes *int) {
	later, wakes = new(int), new(int)
	m = NewMux(Config{Wake: func() { *wakes++ }, Later: func() { *later++ }})
	for range n {
		s, err := m.Open(web)
		if err != nil {
			t.Fatal(err)
		}
		next(t, m)
		receive(t, m, message(t, cell.MsgConnected, s.ID(), connected))
		streams = append(streams, s)
	}
	*wakes = 0
	return m, streams, later, wakes
}

// An END that answers the relay's can wait, for nobody waits for it; what the owner of the circuit is told of it once.
func TestTheEndThatNobodyWaitsForIsPutOff(t *testing.T) {
	m, streams, later, wakes := opening(t, 3)
	for _, s := range streams {
		receive(t, m, message(t, cell.MsgEnd, s.ID(), cell.End{Reason: cell.EndDone}))
		s.CloseWrite()
		s.Close()
	}
	if msg, ok := next(t, m); ok {
		t.Errorf("%v goes at once", msg.Type)
	}
	if *wakes != 0 || *later != 1 {
		t.Errorf("the owner was woken %d times, and told %d times that something can wait", *wakes, *later)
	}
	if m.Streams() != 0 {
		t.Errorf("%d streams count as open", m.Streams())
	}
	m.Urge()
	if *wakes != 1 {
		t.Errorf("and woken %d times when it was due", *wakes)
	}
	for _, s := range streams {
		msg, ok := next(t, m)
		if !ok || msg.Type != cell.MsgEnd || msg.Stream != s.ID() || msg.Data[0] != byte(cell.EndDone) {
			t.Fatalf("%v, %v instead of the END of stream %d", msg, ok, s.ID())
		}
	}
	if _, ok := next(t, m); ok || m.Streams() != 0 {
		t.Errorf("%d streams are left, something to send: %v", m.Streams(), ok)
	}
	m.Urge()
	if _, ok := next(t, m); ok {
		t.Error("an END goes twice")
	}
}

func TestWhatSomebodyWaitsForIsNotPutOff(t *testing.T) {
	for name, end := range map[string]func(*Mux, *Stream){
		"the application ends first": func(_ *Mux, s *Stream) { s.CloseWrite() },
		"it closes with bytes unread": func(m *Mux, s *Stream) {
			receive(t, m, data(s.ID(), 10))
			s.Close()
		},
		"data come after it has gone": func(m *Mux, s *Stream) {
			s.Close()
			next(t, m)
			receive(t, m, data(s.ID(), 10))
		},
	} {
		m, streams, later, wakes := opening(t, 1)
		end(m, streams[0])
		msg, ok := next(t, m)
		if !ok || msg.Type != cell.MsgEnd || *wakes == 0 || *later != 0 {
			t.Errorf("%s: %v, %v; woken %d times, told %d times that it can wait", name, msg.Type, ok, *wakes, *later)
		}
	}
	m, s := accepting(t, nil) // a relay's END is the end of what the application reads
	m.cfg.Later = func() { t.Error("a relay's END can wait") }
	next(t, m)
	receive(t, m, message(t, cell.MsgEnd, s.ID(), cell.End{Reason: cell.EndDone}))
	s.CloseWrite()
	if msg, ok := next(t, m); !ok || msg.Type != cell.MsgEnd {
		t.Errorf("a relay's END: %v, %v", msg.Type, ok)
	}
}

// What waits is bounded in number, and is gone with the circuit.
func TestFewEndsArePutOff(t *testing.T) {
	m, streams, later, wakes := opening(t, mostPatient+1)
	for _, s := range streams {
		receive(t, m, message(t, cell.MsgEnd, s.ID(), cell.End{Reason: cell.EndDone}))
		s.Close()
	}
	sent := 0
	for ; ; sent++ {
		if _, ok := next(t, m); !ok {
			break
		}
	}
	if sent != mostPatient || len(m.streams) != 1 || m.Streams() != 0 || *wakes == 0 || *later != 2 {
		t.Errorf("%d went, %d streams are left, woken %d times, told %d times that something can wait", sent, len(m.streams), *wakes, *later)
	}
	m.Close(errGone)
	m.Urge()
	if _, ok := next(t, m); ok {
		t.Error("an END goes on a circuit that is gone")
	}
}

// It may be the last data to go that lets an END wait.
func TestAnEndBehindDataIsPutOff(t *testing.T) {
	m, streams, later, _ := opening(t, 1)
	s := streams[0]
	receive(t, m, message(t, cell.MsgEnd, s.ID(), cell.End{Reason: cell.EndDone}))
	m.mu.Lock()
	s.out, s.finish = []byte("data"), true
	m.schedule(s)
	m.mu.Unlock()
	if msg, ok := next(t, m); !ok || msg.Type != cell.MsgData || *later != 1 {
		t.Errorf("%v, %v; told %d times that something can wait", msg.Type, ok, *later)
	}
	if m.Quiet() || m.Streams() != 0 {
		t.Errorf("quiet: %v, %d streams", m.Quiet(), m.Streams())
	}
}
