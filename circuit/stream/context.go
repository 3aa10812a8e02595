package stream

import (
	"context"

	"peel/cell"
)

// Context ends when nothing that is done for the stream is of use any more: it was reset by either end, refused, answered
// or closed here, or its circuit is gone. A stream that ends in order is still of use: what came may wait for its reader.
func (s *Stream) Context() context.Context {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	if s.life == nil {
		s.life, s.end = context.WithCancel(context.Background())
		s.endIfUseless()
	}
	return s.life
}

// endIfUseless ends the context when it is time. Called after every change, with the Mux locked.
func (s *Stream) endIfUseless() {
	reset := s.heardReset && s.open.Type != cell.MsgResolve // the other end says no more behind a RESOLVE, and waits
	if s.end != nil && (s.closed || s.reset != 0 || reset || s.mux.err != nil) {
		s.end()
	}
}
