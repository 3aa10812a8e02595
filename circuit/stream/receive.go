package stream

import (
	"peel/cell"
	"peel/cell/contain"
)

// Receive takes a message that came from the other end. It never blocks, and keeps nothing of msg. An error wraps
// ErrProtocol: the other end did what it must not, and the circuit must end.
func (m *Mux) Receive(msg cell.Message) error {
	opened, err := m.receive(msg)
	if opened != nil {
		m.cfg.Accept(opened, opened.open)
	}
	m.cfg.Budget.keep(m)
	return err
}

// Hold begins a run of messages: what wakes readers of data waits for Release, so that each finds all that came. It only
// spares them being woken more than once. It is for who calls Receive.
func (m *Mux) Hold() {
	m.mu.Lock()
	defer m.mu.Unlock()
	contain.Point("stream: receive")
	m.held = true
}

// Release ends the run.
func (m *Mux) Release() {
	m.mu.Lock()
	m.held = false
	for _, s := range m.filled {
		s.filled = false
		s.readable.Broadcast()
	}
	clear(m.filled)
	m.filled = m.filled[:0]
	m.mu.Unlock()
}

// receive takes a message and returns the stream it opens, if it opens one.
func (m *Mux) receive(msg cell.Message) (opened *Stream, err error) {
	m.mu.Lock()
	defer m.unlock()
	if m.err != nil {
		return nil, nil
	}
	open := false
	switch msg.Type {
	case cell.MsgBegin, cell.MsgBeginDir, cell.MsgResolve:
		open = true
	case cell.MsgConnected, cell.MsgData, cell.MsgEnd, cell.MsgWindow, cell.MsgResolved:
	default:
		return nil, breach("%v is no message of a stream", msg.Type)
	}
	switch {
	case msg.Stream == 0: // cell.ParseMessage refuses it too
		return nil, breach("%v names no stream", msg.Type)
	case open:
		return m.accept(msg)
	}
	return nil, m.dispatch(msg)
}

// dispatch hands a message to its stream.
func (m *Mux) dispatch(msg cell.Message) error {
	s := m.streams[msg.Stream]
	if s == nil || !s.asked {
		return m.stray(msg)
	}
	if s.opener {
		m.late.proven(s.number)
	}
	wrong := ""
	var err error
	switch {
	case s.heardReset:
		wrong = "after its last END"
	case (s.open.Type == cell.MsgResolve) != (msg.Type == cell.MsgResolved):
		wrong = "which was opened for something else"
	case s.opener && !s.connected && msg.Type != cell.MsgConnected && msg.Type != cell.MsgEnd && msg.Type != cell.MsgResolved:
		wrong = "before CONNECTED"
	case msg.Type == cell.MsgConnected:
		wrong, err = s.receiveConnected(msg.Data)
	case msg.Type == cell.MsgResolved:
		wrong, err = s.receiveResolved(msg.Data)
	case msg.Type == cell.MsgData:
		wrong = s.receiveData(msg.Data)
	case msg.Type == cell.MsgEnd:
		wrong, err = s.receiveEnd(msg.Data)
	case msg.Type == cell.MsgWindow:
		wrong, err = s.receiveWindow(msg.Data)
	}
	switch {
	case err != nil:
		return breach("%w", err)
	case wrong != "":
		return breach("%v on stream %d, %s", msg.Type, msg.Stream, wrong)
	}
	m.schedule(s)
	return nil
}

// stray takes a message on a stream that is not open: what was on its way when the stream was over is ignored.
func (m *Mux) stray(msg cell.Message) error {
	switch msg.Type {
	case cell.MsgWindow:
		if _, err := cell.ParseWindow(msg.Data); err != nil {
			return breach("%w", err)
		}
		if m.late.takeWindow(msg.Stream) {
			return nil
		}
	case cell.MsgEnd:
		e, err := cell.ParseEnd(msg.Data)
		if err != nil {
			return breach("%w", err)
		}
		if e.Reason != cell.EndDone && m.late.takeReset(msg.Stream) {
			return nil
		}
	}
	return breach("%v on stream %d, which is not open", msg.Type, msg.Stream)
}

func (s *Stream) receiveConnected(data []byte) (wrong string, err error) {
	c, err := cell.ParseConnected(data)
	switch {
	case err != nil:
		return "", err
	case !s.opener:
		return "which was opened by the other end", nil
	case s.connected:
		return "twice", nil
	}
	now := s.mux.cfg.Now()
	s.connected, s.info = true, c
	s.rtt = now.Sub(s.askedAt)
	s.recv.begin(now)
	s.readable.Broadcast()
	return "", nil
}

func (s *Stream) receiveResolved(data []byte) (wrong string, err error) {
	r, err := cell.ParseResolved(data)
	if err != nil {
		return "", err
	}
	if !s.opener {
		return "which was opened by the other end", nil
	}
	s.resolved, s.heardDone, s.heardReset = &r, true, true
	s.readable.Broadcast()
	return "", nil
}

func (s *Stream) receiveData(data []byte) (wrong string) {
	switch {
	case s.heardDone:
		return "after END"
	case len(data) == 0:
		return "without data"
	case !s.recv.received(len(data), s.mux.cfg.Now, s.rtt):
		return "beyond its window"
	case s.reset != 0 || s.saidReset:
		return "" // dropped: the other end has not heard of it yet
	case s.closed:
		s.abort(cell.EndReset) // nobody will read it: say so
		return ""
	}
	s.in.write(data)
	s.mux.count(s, len(data))
	if s.mux.unread > s.mux.cfg.Unread {
		s.mux.shed()
	}
	s.fill()
	return ""
}

// fill wakes who waits for data, at the end of the run.
func (s *Stream) fill() {
	switch {
	case !s.mux.held:
		s.readable.Broadcast()
	case !s.filled:
		s.filled = true
		s.mux.filled = append(s.mux.filled, s)
	}
}

func (s *Stream) receiveEnd(data []byte) (wrong string, err error) {
	e, err := cell.ParseEnd(data)
	if err != nil {
		return "", err
	}
	if e.Reason == cell.EndDone {
		switch {
		case s.heardDone:
			return "twice", nil
		case s.opener && !s.connected:
			return "before CONNECTED", nil
		}
		s.heardDone = true
	} else {
		s.heardReset, s.heard = true, e.Reason
		if !s.saidDone && s.reset == 0 {
			s.reset = cell.EndReset // the answer
		}
	}
	s.readable.Broadcast()
	s.writable.Broadcast()
	return "", nil
}

func (s *Stream) receiveWindow(data []byte) (wrong string, err error) {
	w, err := cell.ParseWindow(data)
	if err != nil {
		return "", err
	}
	return s.send.update(w.Limit), nil
}
