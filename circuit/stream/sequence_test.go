package stream

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"peel/cell"
)

// A ref is the rules of spec/stream.md written down once more, for one end of a circuit: what it may say, and what it
// must take and refuse. It sees the messages only.
type ref struct {
	relay   bool
	streams map[cell.StreamID]*refStream
}

type refStream struct {
	kind        cell.MessageType
	connected   bool
	said, heard int    // 0: open, 1: done, 2: reset or the like
	sent, may   uint64 // this end's bytes, and its leave
	came, let   uint64 // the other's
	updates     uint64
	old         bool // its late reset has come
}

func (s *refStream) over() bool { return s == nil || s.said > 0 && s.heard > 0 }

func (r *ref) open() (n int) {
	for _, s := range r.streams {
		if !s.over() {
			n++
		}
	}
	return n
}

func newRefStream(kind cell.MessageType) *refStream {
	return &refStream{kind: kind, may: InitialWindow, let: InitialWindow}
}

// hears says whether the end must take m.
func (r *ref) hears(m cell.Message) bool {
	s := r.streams[m.Stream]
	switch m.Type {
	case cell.MsgBegin, cell.MsgBeginDir, cell.MsgResolve:
		if !r.relay || !s.over() {
			return false
		}
		s = newRefStream(m.Type)
		if m.Type == cell.MsgResolve {
			s.heard = 2
		}
		r.streams[m.Stream] = s
		return true
	}
	if s == nil {
		return false
	}
	resolve := s.kind == cell.MsgResolve
	if s.over() {
		return r.hearsLate(s, m)
	}
	if s.heard == 2 || resolve != (m.Type == cell.MsgResolved) {
		return false
	}
	switch m.Type {
	case cell.MsgConnected:
		ok := !r.relay && !s.connected && s.heard == 0
		s.connected = true
		return ok
	case cell.MsgResolved:
		s.heard = 2
		return !r.relay
	case cell.MsgData:
		s.came += uint64(len(m.Data))
		return s.heard == 0 && (r.relay || s.connected) && s.came <= s.let
	case cell.MsgEnd:
		e, _ := cell.ParseEnd(m.Data)
		if e.Reason != cell.EndDone {
			s.heard = 2
			return true
		}
		ok := s.heard == 0 && (r.relay || s.connected)
		s.heard = 1
		return ok
	case cell.MsgWindow:
		w, _ := cell.ParseWindow(m.Data)
		s.updates++
		ok := (r.relay || s.connected) && w.Limit >= s.may+256<<10 && w.Limit <= s.sent+8<<20 && s.updates*(256<<10) <= s.sent
		s.may = w.Limit
		return ok
	}
	return false
}

func (r *ref) hearsLate(s *refStream, m cell.Message) bool {
	if s.heard != 1 || s.old {
		return false
	}
	switch m.Type {
	case cell.MsgWindow:
		s.updates++
		return s.updates*(256<<10) <= s.sent
	case cell.MsgEnd:
		e, _ := cell.ParseEnd(m.Data)
		s.old = true
		return e.Reason != cell.EndDone
	}
	return false
}

// says checks what the end sends.
func (r *ref) says(m cell.Message) error {
	s := r.streams[m.Stream]
	switch m.Type {
	case cell.MsgBegin, cell.MsgBeginDir, cell.MsgResolve:
		if r.relay || !s.over() {
			return fmt.Errorf("%v on stream %d", m.Type, m.Stream)
		}
		s = newRefStream(m.Type)
		if m.Type == cell.MsgResolve {
			s.said = 1
		}
		r.streams[m.Stream] = s
		return nil
	}
	if s.over() {
		return fmt.Errorf("%v on stream %d, which is over", m.Type, m.Stream)
	}
	ok := s.said < 2
	switch m.Type {
	case cell.MsgConnected:
		ok = ok && r.relay && !s.connected && s.said == 0
		s.connected = true
	case cell.MsgResolved:
		ok = ok && r.relay && s.kind == cell.MsgResolve
		s.said = 2
	case cell.MsgData:
		s.sent += uint64(len(m.Data))
		ok = ok && s.said == 0 && s.sent <= s.may && (!r.relay || s.connected)
	case cell.MsgEnd:
		if e, _ := cell.ParseEnd(m.Data); e.Reason == cell.EndDone {
			ok = ok && s.said == 0 && (!r.relay || s.connected)
			s.said = 1
		} else {
			s.said = 2
		}
	case cell.MsgWindow:
		w, _ := cell.ParseWindow(m.Data)
		ok = ok && s.connected && s.heard == 0 && w.Limit >= s.let+256<<10 && w.Limit <= s.came+8<<20
		s.let = w.Limit
	}
	if !ok {
		return fmt.Errorf("%v on stream %d out of order: %+v", m.Type, m.Stream, *s)
	}
	return nil
}

// use does at random what a user of a stream may do, without ever waiting.
func use(t *rapid.T, m *Mux, streams []*Stream) {
	if len(streams) == 0 {
		return
	}
	s := streams[rapid.IntRange(0, len(streams)-1).Draw(t, "stream")]
	if s.opener && s.open.Type == cell.MsgResolve {
		return // nobody has it in hand
	}
	switch rapid.IntRange(0, 9).Draw(t, "use") {
	case 0, 1, 2:
		m.mu.Lock()
		if len(s.out) == 0 && s.writeError() == nil && !s.finish {
			s.out = make([]byte, rapid.SampledFrom([]int{1, 5000, 150 << 10, 300 << 10, 2 << 20}).Draw(t, "write"))
			m.schedule(s)
		}
		m.unlock()
	case 3, 4:
		m.mu.Lock()
		n := min(s.in.len, rapid.SampledFrom([]int{1, 5000, 150 << 10, 300 << 10, 2 << 20}).Draw(t, "read"))
		m.unlock()
		if n > 0 {
			s.Read(make([]byte, n))
		}
	case 5:
		s.CloseWrite()
	case 6:
		s.Close()
	case 7:
		s.Reset(cell.EndTimeout)
	default:
		if s.opener {
			return
		}
		switch rapid.IntRange(0, 3).Draw(t, "answer") {
		case 0:
			s.Refuse(cell.EndPolicy)
		case 1:
			s.Answer(cell.Resolved{Reason: cell.EndNotFound})
		default:
			s.Connected(connected)
		}
	}
}

func open(t *rapid.T, m *Mux) *Stream {
	o := Open{Type: rapid.SampledFrom([]cell.MessageType{cell.MsgBegin, cell.MsgBegin, cell.MsgBeginDir, cell.MsgResolve}).Draw(t, "type")}
	o.Begin, o.Resolve = web, cell.Resolve{Name: "example.net"}
	s, err := m.begin(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pull takes one message from m, as the other end would see it.
func pull(t *rapid.T, m *Mux) (cell.Message, bool) {
	var c cell.Cell
	if !m.Next(c.Body()) {
		return cell.Message{}, false
	}
	msg, err := cell.ParseMessage(c.Body())
	if err != nil {
		t.Fatalf("a message that nobody would take: %v", err)
	}
	return msg, true
}

// Whatever an end hears, it takes and refuses what the rules say, and says what they allow.
func TestAnyOrderOfMessagesAgainstTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			anyOrder(t)
		}
	})
}

func anyOrder(t *rapid.T) {
	r := &ref{relay: rapid.Bool().Draw(t, "relay"), streams: make(map[cell.StreamID]*refStream)}
	var streams []*Stream
	cfg := Config{}
	if r.relay {
		cfg.Accept = func(s *Stream, _ Open) { streams = append(streams, s) }
	}
	m := NewMux(cfg)
	speak := func(most int) {
		for range most {
			msg, ok := pull(t, m)
			if !ok {
				return
			}
			if err := r.says(msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range rapid.IntRange(0, 60).Draw(t, "steps") {
		switch rapid.IntRange(0, 5).Draw(t, "step") {
		case 0:
			if !r.relay && len(streams) < 4 {
				streams = append(streams, open(t, m))
			}
		case 1:
			use(t, m, streams)
		case 2:
			speak(rapid.SampledFrom([]int{1, 10, 400}).Draw(t, "messages"))
		default:
			msg, n := hear(t, r)
			for range n {
				want := r.hears(msg)
				err := m.Receive(msg)
				if err != nil && !errors.Is(err, ErrProtocol) {
					t.Fatal(err)
				}
				if (err == nil) != want {
					t.Fatalf("%v on stream %d: taken %v, the rules say %v (%v)", msg.Type, msg.Stream, err == nil, want, err)
				}
				if err != nil {
					m.Close(err)
					nothingLeft(t, m, streams)
					return
				}
			}
		}
	}
	speak(1 << 20)
	if got, want := m.Streams(), r.open(); got < want {
		t.Fatalf("%d streams are open, the rules say %d", got, want)
	}
	for _, s := range streams {
		s.Close()
	}
	speak(1 << 20)
	if got, want := m.Streams(), r.open(); got != want {
		t.Fatalf("%d streams are open, the rules say %d", got, want)
	}
	m.Close(errGone)
	nothingLeft(t, m, streams)
}

// hear draws a message, legal more often than not, and how often it comes.
func hear(t *rapid.T, r *ref) (cell.Message, int) {
	id := cell.StreamID(rapid.IntRange(1, 4).Draw(t, "id"))
	types := []cell.MessageType{cell.MsgData, cell.MsgData, cell.MsgEnd, cell.MsgWindow}
	s := r.streams[id]
	switch {
	case s.over() && r.relay && rapid.IntRange(0, 3).Draw(t, "late") > 0:
		types = []cell.MessageType{cell.MsgBegin, cell.MsgBegin, cell.MsgBeginDir, cell.MsgResolve}
	case s != nil && s.kind == cell.MsgResolve && !s.over():
		types = []cell.MessageType{cell.MsgResolved}
	case s != nil && !r.relay && !s.connected:
		types = []cell.MessageType{cell.MsgConnected}
	}
	if rapid.IntRange(0, 15).Draw(t, "wild") == 0 {
		types = []cell.MessageType{cell.MsgBegin, cell.MsgConnected, cell.MsgData, cell.MsgEnd, cell.MsgWindow, cell.MsgResolve,
			cell.MsgResolved, cell.MsgBeginDir, cell.MsgExtend}
	}
	n := 1
	msg := cell.Message{Type: rapid.SampledFrom(types).Draw(t, "type"), Stream: id}
	switch msg.Type {
	case cell.MsgBegin:
		msg.Data = web.Append(nil)
	case cell.MsgConnected:
		msg.Data = connected.Append(nil)
	case cell.MsgResolve:
		msg.Data = cell.Resolve{Name: "example.net"}.Append(nil)
	case cell.MsgResolved:
		msg.Data = cell.Resolved{Reason: cell.EndNotFound}.Append(nil)
	case cell.MsgData:
		msg.Data = make([]byte, cell.MaxData)
		n = rapid.SampledFrom([]int{1, 200, 758, 759}).Draw(t, "times")
	case cell.MsgEnd:
		reason := rapid.SampledFrom([]cell.EndReason{cell.EndDone, cell.EndDone, cell.EndReset}).Draw(t, "reason")
		msg.Data = cell.End{Reason: reason}.Append(nil)
	case cell.MsgWindow:
		limit := uint64(2 << 20)
		if s != nil {
			limit = s.may + rapid.SampledFrom([]uint64{256 << 10, 256 << 10, 1 << 20, 1, 0}).Draw(t, "raise")
		}
		msg.Data = cell.Window{Limit: limit}.Append(nil)
	}
	return msg, n
}

func nothingLeft(t *rapid.T, m *Mux, streams []*Stream) {
	for _, s := range streams {
		s.Close()
		if s.in.len != 0 || s.in.head != nil {
			t.Fatal("a closed stream holds memory")
		}
	}
	if m.Streams() != 0 || m.Unread() != 0 || m.control.head != nil || m.data.head != nil {
		t.Fatal("something is left")
	}
	if _, ok := pull(t, m); ok {
		t.Fatal("a closed Mux speaks")
	}
}

// Two honest ends whose messages cross in every way never find fault with each other, and when all streams are closed
// nothing is left of them.
func TestHonestEndsNeverBreakTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for range 20 {
			honestEnds(t)
		}
	})
}

func honestEnds(t *rapid.T) {
	most := rapid.IntRange(1, 3).Draw(t, "most")
	var ours, theirs []*Stream
	client := NewMux(Config{})
	relay := NewMux(Config{Accept: func(s *Stream, _ Open) { theirs = append(theirs, s) }})
	ends := []*Mux{client, relay}
	refs := []*ref{{streams: make(map[cell.StreamID]*refStream)}, {relay: true, streams: make(map[cell.StreamID]*refStream)}}
	var way [2][]cell.Message // from ends[i], not yet arrived
	pullSome := func(i, n int) {
		for range n {
			msg, ok := pull(t, ends[i])
			if !ok {
				return
			}
			if err := refs[i].says(msg); err != nil {
				t.Fatal(err)
			}
			msg.Data = append([]byte(nil), msg.Data...)
			way[i] = append(way[i], msg)
		}
	}
	arrive := func(i, n int) {
		for ; n > 0 && len(way[i]) > 0; n-- {
			msg := way[i][0]
			way[i] = way[i][1:]
			if !refs[1-i].hears(msg) {
				t.Fatalf("the rules refuse %v on stream %d", msg.Type, msg.Stream)
			}
			if err := ends[1-i].Receive(msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range rapid.IntRange(0, 80).Draw(t, "steps") {
		i := rapid.IntRange(0, 1).Draw(t, "end")
		n := rapid.SampledFrom([]int{1, 3, 300}).Draw(t, "messages")
		switch rapid.IntRange(0, 5).Draw(t, "step") {
		case 0:
			if client.Streams() < most {
				ours = append(ours, open(t, client))
			}
		case 1, 2:
			use(t, ends[i], [][]*Stream{ours, theirs}[i])
		case 3, 4:
			pullSome(i, n)
		case 5:
			arrive(i, n)
		}
	}
	for client.Streams()+relay.Streams()+len(way[0])+len(way[1]) > 0 {
		for i, all := range [][]*Stream{ours, theirs} {
			for _, s := range all {
				s.Close()
			}
			pullSome(i, 1<<20)
			arrive(i, 1<<20)
		}
	}
	for _, m := range ends {
		nothingLeft(t, m, append(ours, theirs...))
	}
}
