// Package stream carries many byte streams, each a net.Conn, over one circuit.
//
// A Mux holds the streams of one end of a circuit. It has no goroutine and no
// queue of messages: whoever owns the circuit pulls the next message out of it
// with Next when the link has credit for one more cell, and hands in what came
// with Receive. Data go from the slice of the blocked writer straight into the
// body of the cell (spec/stream.md).
package stream

import (
	"sync"
	"time"

	"peel/cell"
	"peel/cell/contain"
)

const (
	// MaxStreams is how many streams a circuit may have at once (spec/stream.md, section 2). One more is a breach.
	MaxStreams = 4096
	// InitialWindow is how many bytes of a new stream each end may send before it hears of more.
	InitialWindow = 1 << 20
	// MaxWindow is how far a window may grow, in bytes.
	MaxWindow = 8 << 20

	quarter = InitialWindow / 4 // no WINDOW raises a limit by less
)

// Config says how a Mux behaves. The zero value opens streams and accepts none.
type Config struct {
	// Accept is told of each stream that the other end opens. It is called in Receive, without locks, and must not block.
	// nil: the other end may open none, and this end may.
	Accept func(*Stream, Open)
	// Wake says that there may be something for Next. It is called without locks, by whoever caused it, and must not block.
	Wake func()
	// Later says that there is something for Next that can wait some milliseconds, so that it need not wake three relays by itself: Urge
	// then makes it due. It is called like Wake. nil: all is due at once.
	Later func()
	// MaxStreams is how many accepted streams may be open at once; the next is refused as busy. 0: MaxStreams.
	MaxStreams int
	// Window is how far the window of a stream may grow, in bytes, from InitialWindow to MaxWindow. 0: MaxWindow.
	Window int
	// Unread is how many bytes of all streams together may wait to be read; beyond it the stream that holds most is reset
	// as busy. 0: 64 MiB.
	Unread int
	// Budget bounds the same over all Muxes that share it. nil: it does not.
	Budget *Budget
	// Full says that the Budget can be kept only if the whole circuit ends: it holds streams that are over for this end, more than any
	// other, and the other end does not answer. It is called without locks of the Mux, once at most, perhaps within a call of
	// another Mux, and must not block. nil: such streams are not counted.
	Full func()
	// RTT is the round trip of the circuit, for streams where it is not measured: those accepted. 0: 200 ms.
	RTT time.Duration
	// Now is the clock by which windows grow. nil: time.Now.
	Now func() time.Time
}

// A Mux is the streams of one end of a circuit. Its methods may be called by any goroutine, but Receive by one at a
// time, in the order in which messages came, and what Next gives must be sent in that order.
type Mux struct {
	cfg Config

	mu      sync.Mutex
	streams map[cell.StreamID]*Stream
	control queue                // streams with something to say beside data, in the order in which they got it
	data    queue                // streams with data to send, in turn
	awake   bool                 // a queue got an entry since Wake was called
	patient []*Stream            // streams whose END nobody waits for: it is not in a queue until Urge
	later   bool                 // the first of them came since Later was called
	held    bool                 // data came in a run of messages that goes on: their readers are woken at its end
	filled  []*Stream            // those
	unread  int                  // bytes that wait to be read, in all streams
	share   share                // of the budget
	waiting int                  // accepted streams that are over for this end, and count in the budget until they are for the other
	full    bool                 // Full was called
	left    map[*Stream]struct{} // streams that are over, and hold bytes that wait to be read
	late    lateSet
	lastID  cell.StreamID
	opened  uint64 // streams opened here since the circuit began
	err     error  // why the Mux was closed
}

// NewMux returns a Mux without streams.
func NewMux(cfg Config) *Mux {
	if cfg.MaxStreams <= 0 || cfg.MaxStreams > MaxStreams {
		cfg.MaxStreams = MaxStreams
	}
	if cfg.Window <= 0 {
		cfg.Window = MaxWindow
	}
	cfg.Window = min(max(cfg.Window, InitialWindow), MaxWindow)
	if cfg.Unread <= 0 {
		cfg.Unread = 64 << 20
	}
	if cfg.RTT <= 0 {
		cfg.RTT = 200 * time.Millisecond
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wake == nil {
		cfg.Wake = func() {}
	}
	return &Mux{
		cfg:     cfg,
		streams: make(map[cell.StreamID]*Stream),
		left:    make(map[*Stream]struct{}),
		control: queue{place: func(s *Stream) *place { return &s.control }},
		data:    queue{place: func(s *Stream) *place { return &s.data }},
	}
}

// Streams is how many streams are open: those whose END has not passed both ways, but for the last one that was put off.
func (m *Mux) Streams() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.streams) - len(m.patient)
}

// Quiet says whether no stream is open, and the last END of each has gone.
func (m *Mux) Quiet() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.streams) == 0
}

// Unread is how many bytes of all streams wait to be read.
func (m *Mux) Unread() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unread
}

// Pending says whether there is something for Next.
func (m *Mux) Pending() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.control.head != nil || m.data.head != nil
}

// Close fails all streams with err, which Read returns behind what had come. Nothing is sent, and nothing can be opened
// any more. The first error stays.
func (m *Mux) Close(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return
	}
	m.err = err
	for _, s := range m.streams {
		m.control.remove(s)
		m.data.remove(s)
		s.readable.Broadcast()
		s.writable.Broadcast()
		s.endIfUseless()
	}
	clear(m.streams)
	m.patient = nil
	for s := range m.left {
		s.endIfUseless()
	}
	clear(m.left)
	if m.cfg.Accept != nil {
		m.cfg.Budget.remember(-len(m.late.streams))
	}
	m.late = lateSet{}
	m.cfg.Budget.add(m, -m.unread-m.waiting*waitingSize)
	m.unread, m.waiting = 0, 0
}

// Next writes the next message to send into the body of a cell, all but its tag, and says whether there was one.
// Control goes before data, and data by turns: one cell of each stream.
func (m *Mux) Next(body []byte) bool {
	m.mu.Lock()
	defer func() {
		m.awake = false // the caller asks again
		m.unlock()
	}()
	contain.Point("stream: next")
	for {
		s, data := m.control.pop(), false
		if s == nil {
			s, data = m.data.pop(), true
		}
		if s == nil {
			return false
		}
		said := false
		if data {
			said = s.sendData(body)
		} else {
			said = s.sendControl(body)
		}
		m.schedule(s)
		if said {
			return true
		}
	}
}

// schedule puts a stream into the queues it belongs in now, or takes it off the Mux when it is over. Called after every
// change, with mu held.
func (m *Mux) schedule(s *Stream) {
	s.endIfUseless()
	if m.err != nil || !s.listed {
		return
	}
	if s.over() {
		m.forget(s)
		return
	}
	if !s.waits && (s.closed || s.reset != 0) && !s.opener && m.cfg.Full != nil {
		s.waits = true
		m.wait(1)
	}
	switch duty := s.duty(); {
	case duty == 0:
	case duty == cell.MsgEnd && s.opener && s.heardDone && m.cfg.Later != nil:
		m.putOff(s)
	case m.control.push(s):
		m.awake = true
	}
	if s.sendable() && m.data.push(s) {
		m.awake = true
	}
}

// mostPatient is how many streams wait for Urge at most.
const mostPatient = 32

// putOff has the END of a stream wait for Urge.
func (m *Mux) putOff(s *Stream) {
	if s.putOff || s.control.in {
		return
	}
	s.putOff = true
	m.later = m.later || len(m.patient) == 0
	m.patient = append(m.patient, s)
	if len(m.patient) == mostPatient {
		m.urge()
	}
}

// Urge makes what was put off due.
func (m *Mux) Urge() {
	m.mu.Lock()
	defer m.unlock()
	m.urge()
}

func (m *Mux) urge() {
	for _, s := range m.patient {
		s.putOff = false
		if s.listed && m.control.push(s) {
			m.awake = true
		}
	}
	clear(m.patient)
	m.patient = m.patient[:0]
}

// forget takes a stream off the Mux: its id is free.
func (m *Mux) forget(s *Stream) {
	delete(m.streams, s.id)
	s.listed = false
	if s.waits {
		s.waits = false
		m.wait(-1)
	}
	m.control.remove(s)
	m.data.remove(s)
	if s.unread() > 0 {
		m.left[s] = struct{}{}
	}
	if s.heardDone && !s.heardReset {
		m.remember(s)
	}
}

// waitingSize is what a stream that is over for this end takes until it is for the other, in bytes.
const waitingSize = 768

// wait counts n streams more, or fewer, that wait for the other end.
func (m *Mux) wait(n int) {
	if !m.full {
		m.waiting += n
		m.cfg.Budget.add(m, n*waitingSize)
	}
}

// giveUp has the circuit end for the streams that wait for the other end; false: none do.
func (m *Mux) giveUp() bool {
	if m.waiting == 0 {
		return false
	}
	m.cfg.Budget.add(m, -m.waiting*waitingSize)
	m.waiting, m.full = 0, true
	return true
}

// remember keeps what may still come of a stream that is over. Only for those it accepted has a Mux a choice: the number of
// one it opened must stay out of use.
func (m *Mux) remember(s *Stream) {
	switch {
	case s.opener:
		m.late.add(s.id, s.send.lateWindows(), m.opened)
	case m.late.lax:
	case m.cfg.Budget.remember(1):
		m.late.add(s.id, s.send.lateWindows(), 0)
	default:
		m.cfg.Budget.remember(-1 - len(m.late.streams))
		m.late.lose()
	}
}

// unlock unlocks mu and wakes the owner of the circuit if there is something new to send.
func (m *Mux) unlock() {
	awake, later := m.awake, m.later
	m.awake, m.later = false, false
	m.mu.Unlock()
	if awake {
		m.cfg.Wake()
	}
	if later {
		m.cfg.Later()
	}
}

// mayGrow is how far a window may grow now: not at all while much waits to be read.
func (m *Mux) mayGrow() uint64 {
	if m.unread > m.cfg.Unread/4 || m.cfg.Budget.tight() {
		return 0
	}
	return uint64(m.cfg.Window)
}

// count counts n bytes more, or less, that wait to be read of s.
func (m *Mux) count(s *Stream, n int) {
	if m.err != nil {
		return
	}
	m.unread += n
	m.cfg.Budget.add(m, n)
	if s.unread() == 0 {
		delete(m.left, s)
	}
}

// shed resets the stream that holds most of what waits to be read; false: none holds any. A stream that is over for the
// other end is not told to it, but its reader does not see an end in order.
func (m *Mux) shed() bool {
	var most *Stream
	for _, s := range m.streams {
		if s.unread() > 0 && (most == nil || s.unread() > most.unread()) {
			most = s
		}
	}
	for s := range m.left {
		if most == nil || s.unread() > most.unread() {
			most = s
		}
	}
	if most == nil {
		return false
	}
	most.shed = true
	lent := most.lent
	most.lent = 0 // whoever writes it hears of the end
	m.count(most, -lent)
	most.abort(cell.EndBusy)
	return true
}
