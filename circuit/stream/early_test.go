package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

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

// More than the window goes as the other end reads; who waits for it can give up.
func TestFirstBytesBeyondTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := joinByHand(t, Config{}, Config{})
		first := bytes.Repeat([]byte("x"), InitialWindow+1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		failed := make(chan error, 1)
		go func() {
			_, err := p.client.DialEarly(ctx, web, first)
			failed <- err
		}()
		synctest.Wait()
		p.carry()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		p.carry()
		var sent *SentError
		if err := <-failed; !errors.As(err, &sent) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody read: %v", err)
		}
		r := <-p.accepted
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, &EndError{cell.EndReset}) {
			t.Errorf("the other end read %v", err)
		}

		done := make(chan error, 1)
		go func() {
			_, err := p.client.DialEarly(t.Context(), web, first)
			done <- err
		}()
		synctest.Wait()
		p.carry()
		go io.CopyN(io.Discard, <-p.accepted, int64(len(first)))
		for range 3 {
			synctest.Wait()
			p.carry()
		}
		if err := <-done; err != nil {
			t.Errorf("all was read: %v", err)
		}
		p.client.Close(errGone)
		p.relay.Close(errGone)
		synctest.Wait()
	})
}
