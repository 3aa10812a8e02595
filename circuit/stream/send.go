package stream

import "peel/cell"

// duty is the type of the message, other than DATA, that the stream has to say next; 0: it has none. At most one of each
// waits, so that what a Mux holds back is bounded by its streams.
func (s *Stream) duty() cell.MessageType {
	switch {
	case s.opener && !s.asked:
		return s.open.Type
	case s.answer != nil && s.open.Type == cell.MsgResolve:
		return cell.MsgResolved
	case s.answer != nil:
		return cell.MsgConnected
	case s.saidReset:
		return 0
	case s.reset != 0:
		return cell.MsgEnd
	case s.connected && !s.heardDone && s.recv.due(): // also when closed: what comes then tells the sender to stop
		return cell.MsgWindow
	case s.finish && !s.saidDone && len(s.out) == 0 && (s.opener || s.connected):
		return cell.MsgEnd
	}
	return 0
}

// sendControl writes the message that is the stream's duty; false: there is none.
func (s *Stream) sendControl(body []byte) bool {
	t := s.duty()
	data := cell.DataSpace(body)[:0]
	switch t {
	case 0:
		return false
	case cell.MsgBegin, cell.MsgBeginDir, cell.MsgResolve:
		if s.closed { // nobody heard of it
			s.mux.forget(s)
			return false
		}
		data = s.ask(data)
	case cell.MsgConnected, cell.MsgResolved:
		data = append(data, s.answer...)
		s.answer = nil
		s.saidReset = t == cell.MsgResolved
	case cell.MsgWindow:
		data = cell.Window{Limit: s.recv.grant(s.mux.cfg.Now(), s.rtt, s.mux.mayGrow())}.Append(data)
	case cell.MsgEnd:
		reason := cell.EndDone
		if s.reset != 0 {
			reason, s.saidReset = s.reset, true
		} else {
			s.saidDone = true
		}
		data = cell.End{Reason: reason}.Append(data)
	}
	cell.FinishMessage(body, t, s.id, len(data))
	return true
}

// ask appends the data of the message that opens the stream.
func (s *Stream) ask(data []byte) []byte {
	s.asked, s.askedAt = true, s.mux.cfg.Now()
	switch s.open.Type {
	case cell.MsgBegin:
		data = s.open.Begin.Append(data)
	case cell.MsgResolve:
		data = s.open.Resolve.Append(data)
		s.saidDone = true
	}
	return data
}

// sendable says whether a DATA message can go.
func (s *Stream) sendable() bool {
	return len(s.out) > 0 && s.send.sent < s.send.limit && s.reset == 0 && !s.saidReset &&
		s.answer == nil && (s.opener && s.asked || !s.opener && s.connected)
}

// sendData writes the next DATA message, from the writer's slice; false: none can go.
func (s *Stream) sendData(body []byte) bool {
	if !s.sendable() {
		return false
	}
	space := cell.DataSpace(body)
	if left := s.send.limit - s.send.sent; left < uint64(len(space)) {
		space = space[:left]
	}
	n := copy(space, s.out)
	s.out = s.out[n:]
	s.send.sent += uint64(n)
	if len(s.out) == 0 {
		s.writable.Broadcast()
	}
	cell.FinishMessage(body, cell.MsgData, s.id, n)
	return true
}
