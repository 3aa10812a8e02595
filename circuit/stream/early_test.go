package stream

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"peel/cell"
)

var hello = []byte("GET / HTTP/1.1\r\n\r\n")

// dialEarly dials with hello, in a goroutine that is over when the result is there.
func (p *pair) dialEarly(ctx context.Context) func() (*Stream, error) {
	type result struct {
		s   *Stream
		err error
	}
	got := make(chan result, 1)
	go func() {
		s, err := p.client.DialEarly(ctx, web, hello)
		got <- result{s, err}
	}()
	return func() (*Stream, error) { r := <-got; return r.s, r.err }
}

func TestFirstBytesGoAlongWithTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := joinByHand(t, Config{}, Config{})
		var said []cell.MessageType
		p.seen = func(from *Mux, m cell.Message) {
			if from == p.client {
				said = append(said, m.Type)
			}
		}
		p.refuse = func(s *Stream, _ Open) bool { p.accepted <- s; return true } // and does not connect yet
		result := p.dialEarly(t.Context())
		synctest.Wait()
		p.carry()
		if len(said) != 2 || said[0] != cell.MsgBegin || said[1] != cell.MsgData {
			t.Fatalf("the client said %v", said)
		}
		r := <-p.accepted
		r.Connected(cell.Connected{})
		p.start()
		c, err := result()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("more")); err != nil {
			t.Errorf("the next write: %v", err)
		}
		c.CloseWrite()
		if got, err := io.ReadAll(r); err != nil || string(got) != string(hello)+"more" {
			t.Errorf("the relay read %q, %v", got, err)
		}
		r.Write([]byte("200"))
		r.Close()
		if got, err := io.ReadAll(c); err != nil || string(got) != "200" {
			t.Errorf("the client read %q, %v", got, err)
		}
		c.Close()
		synctest.Wait()
		p.empty()
		p.end()
	})
}

// What was sent along and refused has reached nobody; what went over a circuit that ended may have.
func TestWhatBecameOfFirstBytesIsToldApart(t *testing.T) {
	for _, c := range []struct {
		name  string
		left  int // messages that leave, of BEGIN and DATA
		after func(p *pair, cancel func())
		sent  bool
		as    error
	}{
		{"refused", 2, func(p *pair, _ func()) { (<-p.accepted).Refuse(cell.EndRefused) }, false, &EndError{cell.EndRefused}},
		{"its circuit ended", 2, func(p *pair, _ func()) { p.client.Close(errGone) }, true, errGone},
		{"its circuit ended when only BEGIN had gone", 1, func(p *pair, _ func()) { p.client.Close(errGone) }, false, errGone},
		{"nobody waits any more", 2, func(_ *pair, cancel func()) { cancel() }, true, context.Canceled},
		{"nobody waits any more, nothing has gone", 0, func(_ *pair, cancel func()) { cancel() }, false, context.Canceled},
		{"connected, and reset before all had gone", 1, func(p *pair, _ func()) {
			r := <-p.accepted
			r.Connected(cell.Connected{})
			p.move(p.relay, p.client)
			r.Reset(cell.EndReset)
			p.move(p.relay, p.client)
		}, false, &EndError{cell.EndReset}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := joinByHand(t, Config{}, Config{})
				p.refuse = func(s *Stream, _ Open) bool { p.accepted <- s; return true }
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				result := p.dialEarly(ctx)
				synctest.Wait()
				for range c.left {
					p.move(p.client, p.relay)
				}
				c.after(p, cancel)
				synctest.Wait()
				p.carry()
				_, err := result()
				var sent *SentError
				if !errors.Is(err, c.as) || errors.As(err, &sent) != c.sent {
					t.Errorf("%v", err)
				}
				p.client.Close(errGone)
				p.relay.Close(errGone)
			})
		})
	}
}

// No more goes along than the window lets go at once.
func TestTooManyFirstBytes(t *testing.T) {
	p := joinByHand(t, Config{}, Config{})
	if _, err := p.client.DialEarly(t.Context(), web, make([]byte, MaxFirst+1)); err == nil || p.client.Streams() != 0 {
		t.Errorf("more than can go along: %v", err)
	}
}

// What waits for a connection counts as unread: where it is too much the stream is refused, and that is the last that is heard of it.
func TestNoCONNECTEDBehindAnEND(t *testing.T) {
	var s *Stream
	m := NewMux(Config{Unread: 100, Accept: func(o *Stream, _ Open) { s = o }})
	receive(t, m, message(t, cell.MsgBegin, 1, web), data(1, 200))
	if msg, ok := next(t, m); !ok || msg.Type != cell.MsgEnd {
		t.Fatalf("%v", msg.Type)
	}
	s.Connected(connected)
	if msg, ok := next(t, m); ok {
		t.Errorf("%v behind END", msg.Type)
	}
}
