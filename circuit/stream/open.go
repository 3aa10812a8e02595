package stream

import (
	"context"
	"fmt"

	"peel/cell"
	"peel/cell/contain"
)

// An Open is what the other end opened a stream for.
type Open struct {
	Type    cell.MessageType // MsgBegin, MsgBeginDir or MsgResolve
	Begin   cell.Begin       // for MsgBegin
	Resolve cell.Resolve     // for MsgResolve
}

// Dial opens a stream to a host and waits until the other end is connected to it or says why not (*EndError). The stream
// is reset when ctx ends first.
func (m *Mux) Dial(ctx context.Context, b cell.Begin) (*Stream, error) {
	return m.DialEarly(ctx, b, nil)
}

// MaxFirst is how many bytes go along with a request at most.
const MaxFirst = 64 << 10

// DialEarly is Dial, with the first bytes to write, at most MaxFirst, going along with the request. They are not kept beyond it. Where it
// fails after any of them went, and the other end did not say that it refused, the error is a *SentError.
func (m *Mux) DialEarly(ctx context.Context, b cell.Begin, first []byte) (*Stream, error) {
	if err := b.Check(); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	if len(first) > MaxFirst {
		return nil, fmt.Errorf("stream: %d bytes cannot go along with a request, at most %d: write the rest when it is connected", len(first), MaxFirst)
	}
	s, err := m.begin(Open{Type: cell.MsgBegin, Begin: b}, first)
	if err != nil {
		return nil, err
	}
	return s.connect(ctx)
}

// DialDir opens a stream to the directory of the relay at the other end, and waits until it is connected.
func (m *Mux) DialDir(ctx context.Context) (*Stream, error) {
	s, err := m.begin(Open{Type: cell.MsgBeginDir}, nil)
	if err != nil {
		return nil, err
	}
	return s.connect(ctx)
}

func (s *Stream) connect(ctx context.Context) (*Stream, error) {
	if err := s.await(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Open opens a stream to a host and returns at once: what is written goes with the request, and the first Read says
// whether it came to anything.
func (m *Mux) Open(b cell.Begin) (*Stream, error) {
	if err := b.Check(); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	return m.begin(Open{Type: cell.MsgBegin, Begin: b}, nil)
}

// OpenDir is DialDir that does not wait, as Open is.
func (m *Mux) OpenDir() (*Stream, error) { return m.begin(Open{Type: cell.MsgBeginDir}, nil) }

// Resolve looks a name up at the other end. An answer without success is an *EndError.
func (m *Mux) Resolve(ctx context.Context, r cell.Resolve) (cell.Resolved, error) {
	if err := r.Check(); err != nil {
		return cell.Resolved{}, fmt.Errorf("stream: %w", err)
	}
	s, err := m.begin(Open{Type: cell.MsgResolve, Resolve: r}, nil)
	if err != nil {
		return cell.Resolved{}, err
	}
	if err := s.await(ctx); err != nil {
		return cell.Resolved{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.resolved.Reason != 0 {
		return cell.Resolved{}, &EndError{s.resolved.Reason}
	}
	return *s.resolved, nil
}

// begin gives a new stream the next free id, and a writer with the first bytes, if there are any.
func (m *Mux) begin(o Open, first []byte) (*Stream, error) {
	m.mu.Lock()
	defer m.unlock()
	switch {
	case m.cfg.Accept != nil:
		return nil, errAccepts
	case m.err != nil:
		return nil, m.err
	case len(m.streams) >= MaxStreams:
		return nil, ErrTooMany
	}
	id, ok := m.freeID()
	if !ok {
		return nil, ErrTooMany
	}
	s := m.newStream(id, o)
	s.opener = true
	m.opened++
	s.number = m.opened
	s.writing, s.out = len(first) > 0, first
	m.schedule(s)
	return s, nil
}

// freeID goes round all ids, so that one is used again as late as can be.
func (m *Mux) freeID() (cell.StreamID, bool) {
	for range 1 << 16 {
		m.lastID++
		if id := m.lastID; id != 0 && m.streams[id] == nil && !m.late.has(id) {
			return id, true
		}
	}
	return 0, false
}

// await waits until the other end has answered, and the first bytes have gone. When it did not, the stream is closed.
func (s *Stream) await(ctx context.Context) error {
	stop := contain.OnDone(ctx, nil, func() {
		s.mux.mu.Lock()
		defer s.mux.mu.Unlock()
		s.readable.Broadcast()
		s.writable.Broadcast()
	})
	defer stop()
	s.mux.mu.Lock()
	defer s.mux.unlock()
	defer func() { s.writing, s.out = false, nil }()
	for s.resolved == nil && (!s.connected || len(s.out) > 0) {
		var err error
		switch {
		case s.heardReset:
			err = &EndError{s.heard}
		case s.mux.err != nil:
			err = s.mux.err
		case s.reset != 0:
			err = errShed
		case ctx.Err() != nil && s.connected:
			err = fmt.Errorf("stream: the first bytes cannot go: %w", Ended(ctx))
		case ctx.Err() != nil:
			err = fmt.Errorf("stream: no answer yet: %w", Ended(ctx))
		case s.connected:
			s.writable.Wait()
			continue
		default:
			s.readable.Wait()
			continue
		}
		if !s.heardReset && s.open.Type != cell.MsgResolve { // a RESOLVE is answered all the same
			s.abort(cell.EndReset)
		}
		if s.send.sent > 0 && (s.connected || !s.heardReset) {
			err = &SentError{err}
		}
		s.shut()
		return err
	}
	return nil
}

// accept takes a stream that the other end opens. The caller tells Config.Accept of it, unless it is nil.
func (m *Mux) accept(msg cell.Message) (*Stream, error) {
	o := Open{Type: msg.Type}
	var err error
	switch msg.Type {
	case cell.MsgBegin:
		o.Begin, err = cell.ParseBegin(msg.Data)
	case cell.MsgResolve:
		o.Resolve, err = cell.ParseResolve(msg.Data)
	}
	switch {
	case m.cfg.Accept == nil:
		return nil, breach("%v: streams are opened from here only", msg.Type)
	case err != nil:
		return nil, breach("%w", err)
	case m.streams[msg.Stream] != nil:
		return nil, breach("%v on stream %d, which is in use", msg.Type, msg.Stream)
	case len(m.streams) >= MaxStreams:
		return nil, breach("%v: more than %d streams", msg.Type, MaxStreams)
	}
	if m.late.has(msg.Stream) {
		m.late.remove(msg.Stream)
		m.cfg.Budget.remember(-1)
	}
	busy := len(m.streams) >= m.cfg.MaxStreams
	s := m.newStream(msg.Stream, o)
	s.asked = true
	s.recv.begin(m.cfg.Now())
	if msg.Type == cell.MsgResolve {
		s.heardDone, s.heardReset = true, true // it will say no more
	}
	if busy {
		s.refuse(cell.EndBusy)
		s.shut()
		return nil, nil
	}
	return s, nil
}

// Connected tells the other end that the stream it opened is connected, and to what. Before it nothing that is written
// goes. For streams accepted here; once.
func (s *Stream) Connected(c cell.Connected) {
	s.mux.mu.Lock()
	defer s.mux.unlock()
	if s.opener || s.connected || s.closed || s.heardReset || s.reset != 0 || s.open.Type == cell.MsgResolve {
		return
	}
	if c.Check() != nil {
		c = cell.Connected{}
	}
	s.connected, s.info, s.answer = true, c, c.Append(nil)
	s.mux.schedule(s)
}

// Refuse tells the other end that the stream it opened leads nowhere, or that its name was not resolved, and closes it.
// For streams accepted here, instead of Connected or Answer.
func (s *Stream) Refuse(reason cell.EndReason) {
	s.mux.mu.Lock()
	defer s.mux.unlock()
	if s.opener || s.connected || s.closed {
		return
	}
	if reason == cell.EndDone || !reason.Valid() {
		reason = cell.EndMisc
	}
	s.refuse(reason)
	s.shut()
}

// refuse answers a RESOLVE with a reason, and resets any other stream.
func (s *Stream) refuse(reason cell.EndReason) {
	if s.open.Type == cell.MsgResolve {
		s.answer = cell.Resolved{Reason: reason}.Append(nil)
		s.mux.schedule(s)
		return
	}
	s.abort(reason)
}

// Answer answers the RESOLVE that opened the stream, and closes it. What cannot be sent, because it is no valid answer
// or too long, is answered with EndInternal.
func (s *Stream) Answer(r cell.Resolved) {
	s.mux.mu.Lock()
	defer s.mux.unlock()
	if s.opener || s.closed || s.open.Type != cell.MsgResolve {
		return
	}
	if r.Check() != nil {
		r = cell.Resolved{Reason: cell.EndInternal}
	}
	s.answer = r.Append(nil)
	s.shut()
}
