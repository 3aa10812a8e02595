package stream

import (
	"net"
	"sync"
	"time"

	"peel/cell/contain"
)

// A deadline is a moment after which reading or writing fails. Its fields are guarded by the lock of the Mux.
type deadline struct {
	timer  *time.Timer
	passed bool
}

// set moves the deadline; c is told when it passes.
func (d *deadline) set(t time.Time, c *sync.Cond) {
	d.stop()
	d.passed = false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.passed = true
		c.Broadcast()
		return
	}
	var timer *time.Timer
	timer = contain.After(wait, nil, func() {
		c.L.Lock()
		defer c.L.Unlock()
		if d.timer == timer {
			d.passed = true
			c.Broadcast()
		}
	})
	d.timer = timer
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// SetDeadline sets the deadlines of reading and writing.
func (s *Stream) SetDeadline(t time.Time) error { return s.setDeadlines(t, true, true) }

// SetReadDeadline sets when Read and WriteTo fail with os.ErrDeadlineExceeded; the zero time: never.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.setDeadlines(t, true, false) }

// SetWriteDeadline sets when Write and ReadFrom fail with os.ErrDeadlineExceeded; the zero time: never.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.setDeadlines(t, false, true) }

func (s *Stream) setDeadlines(t time.Time, read, write bool) error {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	if read {
		s.readBy.set(t, &s.readable)
	}
	if write {
		s.writeBy.set(t, &s.writable)
	}
	return nil
}
