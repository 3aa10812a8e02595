package stream

import (
	"context"
	"testing"

	"peel/cell"
)

func TestContextEndsWhenWorkForTheStreamIsOfNoUse(t *testing.T) {
	begin := message(t, cell.MsgBegin, 1, web)
	resolve := message(t, cell.MsgResolve, 1, cell.Resolve{Name: "example.net"})
	says := func(r cell.EndReason) func(*Mux, *Stream) {
		return func(m *Mux, _ *Stream) { m.Receive(message(t, cell.MsgEnd, 1, cell.End{Reason: r})) }
	}
	for _, tt := range []struct {
		name   string
		opened cell.Message
		then   func(*Mux, *Stream)
		ends   bool
	}{
		{"nothing happens", begin, func(*Mux, *Stream) {}, false},
		{"nothing happens to a RESOLVE", resolve, func(*Mux, *Stream) {}, false},
		{"it is connected", begin, func(_ *Mux, s *Stream) { s.Connected(connected) }, false},
		{"the other end says done", begin, says(cell.EndDone), false},
		{"both ends say done", begin, func(m *Mux, s *Stream) {
			s.Connected(connected)
			says(cell.EndDone)(m, s)
			s.CloseWrite()
			for range 2 {
				next(t, m)
			}
			if m.Streams() != 0 {
				t.Error("the stream is not over")
			}
		}, false},
		{"the other end resets", begin, says(cell.EndReset), true},
		{"it is refused", begin, func(_ *Mux, s *Stream) { s.Refuse(cell.EndPolicy) }, true},
		{"it is answered", resolve, func(_ *Mux, s *Stream) { s.Answer(cell.Resolved{Reason: cell.EndMisc}) }, true},
		{"it is closed", begin, func(_ *Mux, s *Stream) { s.Close() }, true},
		{"it is reset", begin, func(_ *Mux, s *Stream) { s.Connected(connected); s.Reset(cell.EndBusy) }, true},
		{"the circuit ends", begin, func(m *Mux, _ *Stream) { m.Close(errGone) }, true},
		{"the circuit ends under a RESOLVE", resolve, func(m *Mux, _ *Stream) { m.Close(errGone) }, true},
	} {
		for _, asked := range []string{"before", "after"} {
			t.Run(tt.name+", asked "+asked, func(t *testing.T) {
				var s *Stream
				m := NewMux(Config{Accept: func(a *Stream, _ Open) { s = a }})
				if err := m.Receive(tt.opened); err != nil {
					t.Fatal(err)
				}
				var ctx context.Context
				if asked == "before" {
					ctx = s.Context()
				}
				tt.then(m, s)
				if asked == "after" {
					ctx = s.Context()
				}
				if ended := ctx.Err() != nil; ended != tt.ends {
					t.Errorf("ended: %v", ended)
				}
			})
		}
	}
}
