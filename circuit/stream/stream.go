package stream

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"peel/cell"
	"peel/cell/contain"
)

// A Stream is one connection over a circuit: at the client to a host in the world, at the relay to the client. It is a
// net.Conn with half-close. Read and Write may be called by several goroutines at once.
//
// Write returns when all of its bytes have left in cells, or with the number of those that have. Read gives what came
// before it gives an error: io.EOF when the other end has ended in order, *EndError when it refused or reset the stream,
// os.ErrDeadlineExceeded after a deadline, net.ErrClosed after Close, and what ended the circuit if it is gone.
type Stream struct {
	mux    *Mux
	id     cell.StreamID
	open   Open
	opener bool   // this end opened it
	number uint64 // the how-manieth stream opened here

	// All that follows is guarded by mux.mu.
	listed             bool // in mux.streams, where a look costs more than here
	control, data      place
	putOff             bool // in mux.patient
	readable, writable sync.Cond
	readBy, writeBy    deadline

	// What both ends have said. A stream is over when both have said END.
	asked      bool      // BEGIN, BEGIN_DIR or RESOLVE went
	askedAt    time.Time // and when, at this end
	connected  bool      // CONNECTED came, or went
	saidDone   bool      // END went: no more data
	saidReset  bool      // END went: no more of anything. Also the RESOLVED of a relay
	heardDone  bool      // the same from the other end; the RESOLVE of a client is one and the other
	heardReset bool
	heard      cell.EndReason // why the other end reset it
	closed     bool           // Close, Reset or the like was called here

	// What is to be said.
	answer   []byte         // the data of a CONNECTED or RESOLVED; nil: none
	finish   bool           // END(done), behind the data
	reset    cell.EndReason // not 0: END with it, at once
	out      []byte         // what is left of the slice of the writer
	writing  bool           // there is a writer
	send     sendWindow
	in       buffer
	filled   bool // is in mux.filled
	lent     int  // bytes taken out of it and not yet written by WriteTo; they count as unread
	waits    bool // counts in mux.waiting
	shed     bool // reset because too much waited to be read
	recv     recvWindow
	rtt      time.Duration
	info     cell.Connected
	resolved *cell.Resolved
	life     context.Context // nil: nobody has asked for it
	end      context.CancelFunc
}

func (m *Mux) newStream(id cell.StreamID, o Open) *Stream {
	s := &Stream{
		mux:    m,
		id:     id,
		open:   o,
		listed: true,
		send:   sendWindow{limit: InitialWindow},
		recv:   recvWindow{size: InitialWindow, limit: InitialWindow},
		rtt:    m.cfg.RTT,
	}
	s.readable.L, s.writable.L = &m.mu, &m.mu
	m.streams[id] = s
	return s
}

// over says whether both ends have said END.
func (s *Stream) over() bool {
	return (s.saidDone || s.saidReset) && (s.heardDone || s.heardReset)
}

// Read implements io.Reader.
func (s *Stream) Read(p []byte) (int, error) {
	s.mux.mu.Lock()
	defer s.mux.unlock()
	contain.Point("stream: read")
	if err := s.awaitData(len(p) == 0); err != nil || len(p) == 0 {
		return 0, err
	}
	n := s.in.read(p)
	s.mux.count(s, -n)
	s.took(n)
	return n, nil
}

// awaitData waits until there is something to read; with empty it only looks for an error.
func (s *Stream) awaitData(empty bool) error {
	for {
		switch {
		case s.closed:
			return net.ErrClosed
		case s.readBy.passed:
			return os.ErrDeadlineExceeded
		case s.shed:
			return errShed
		case s.in.len > 0 || empty:
			return nil
		case s.heardReset:
			return &EndError{s.heard}
		case s.heardDone:
			return io.EOF
		case s.reset != 0:
			return errShed
		case s.mux.err != nil:
			return s.mux.err
		}
		s.readable.Wait()
	}
}

// took counts bytes that the reader has taken: they make room in the window.
func (s *Stream) took(n int) {
	s.recv.taken += uint64(n)
	s.mux.schedule(s)
}

// unread is how many bytes of the stream wait to be read.
func (s *Stream) unread() int { return s.in.len + s.lent }

// Write implements io.Writer.
func (s *Stream) Write(p []byte) (int, error) {
	contain.Point("stream: write")
	if err := s.offer(p); err != nil || len(p) == 0 {
		return 0, err
	}
	s.mux.mu.Lock()
	defer s.mux.unlock()
	var err error
	for len(s.out) > 0 && err == nil {
		if err = s.writeError(); err == nil {
			s.writable.Wait()
		}
	}
	n := len(p) - len(s.out)
	s.writing, s.out = false, nil
	s.writable.Broadcast()
	s.mux.schedule(s) // an END may have waited for the data
	return n, err
}

// offer waits for its turn to write and gives p to who sends: most often p has gone when it returns.
func (s *Stream) offer(p []byte) error {
	s.mux.mu.Lock()
	defer s.mux.unlock()
	for s.writing && s.writeError() == nil {
		s.writable.Wait()
	}
	err := s.writeError()
	if err == nil && s.finish {
		err = net.ErrClosed
	}
	if err != nil || len(p) == 0 {
		return err
	}
	s.writing, s.out = true, p
	s.mux.schedule(s)
	return nil
}

// writeError says why nothing can be written.
func (s *Stream) writeError() error {
	switch {
	case s.closed:
		return net.ErrClosed
	case s.heardReset:
		return &EndError{s.heard}
	case s.reset != 0:
		return errShed
	case s.mux.err != nil:
		return s.mux.err
	case s.writeBy.passed:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// CloseWrite ends what this end sends: the other reads io.EOF behind it. Reading goes on.
func (s *Stream) CloseWrite() error {
	s.mux.mu.Lock()
	defer s.mux.unlock()
	if err := s.writeError(); err != nil && err != os.ErrDeadlineExceeded {
		return err
	}
	s.finish = true
	s.mux.schedule(s)
	return nil
}

// Close ends the stream. If all that came was read and all that was written has gone, it ends in order, and is reset only
// if more comes; otherwise it is reset at once. A stream that was accepted and not yet connected is refused.
func (s *Stream) Close() error {
	s.mux.mu.Lock()
	defer s.mux.unlock()
	switch {
	case s.closed:
		return nil
	case !s.opener && !s.connected:
		s.refuse(cell.EndMisc)
	case s.recv.came > s.recv.taken || len(s.out) > 0:
		s.abort(cell.EndReset)
	default:
		s.finish = true
	}
	s.shut()
	return nil
}

// Reset ends the stream at once, in both directions, and tells the other end why. What came and was not read is dropped.
func (s *Stream) Reset(reason cell.EndReason) {
	s.mux.mu.Lock()
	defer s.mux.unlock()
	if s.closed {
		return
	}
	if reason == cell.EndDone || !reason.Valid() {
		reason = cell.EndMisc
	}
	s.refuse(reason)
	s.shut()
}

// shut is the end of reading and writing here.
func (s *Stream) shut() {
	s.closed = true
	s.readBy.stop()
	s.writeBy.stop()
	s.drop()
	s.readable.Broadcast()
	s.writable.Broadcast()
	s.mux.schedule(s)
}

// abort has the stream reset, and drops what waits to be read and sent.
func (s *Stream) abort(reason cell.EndReason) {
	if s.reset == 0 {
		s.reset = reason
	}
	s.drop()
	s.readable.Broadcast()
	s.writable.Broadcast()
	s.mux.schedule(s)
}

// drop empties the receive buffer.
func (s *Stream) drop() {
	n := s.in.len
	s.in.drop()
	s.mux.count(s, -n)
}

// Held says whether data wait for the reader at the other end, who has given no leave for them, and for how many bytes in all it has given
// leave.
func (s *Stream) Held() (held bool, leave uint64) {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	return len(s.out) > 0 && s.send.sent >= s.send.limit && s.mux.err == nil, s.send.limit
}

// ID is the number of the stream on its circuit.
func (s *Stream) ID() cell.StreamID { return s.id }

// Destination is what the relay at the end of the circuit connected to, as it said; false: it has not said so yet.
func (s *Stream) Destination() (cell.Connected, bool) {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	return s.info, s.opener && s.connected
}

// An Addr is one end of a stream: the host and port a client asked for, or nothing, for who that is nobody knows.
type Addr struct {
	Host string
	Port uint16
}

// Network implements net.Addr.
func (Addr) Network() string { return "peel" }

func (a Addr) String() string {
	if a.Host == "" {
		return "circuit"
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// LogValue keeps targets out of logs.
func (Addr) LogValue() slog.Value { return slog.StringValue("[scrubbed]") }

// LocalAddr says nothing: a stream has no address here.
func (s *Stream) LocalAddr() net.Addr { return Addr{} }

// RemoteAddr is the host and port that were asked for, at the end that asked.
func (s *Stream) RemoteAddr() net.Addr {
	if !s.opener {
		return Addr{}
	}
	return Addr{s.open.Begin.Host, s.open.Begin.Port}
}
