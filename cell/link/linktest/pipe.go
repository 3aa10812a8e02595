// Package linktest joins two ends in memory, for tests: a pipe that behaves like a TCP connection with delay, window and
// rate, which can be listened to, altered and cut; and two links served over one. All of it works in the virtual time of
// testing/synctest.
package linktest

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Options say what lies between two ends. The zero value is a connection without delay.
type Options struct {
	Delay  time.Duration // one way
	Window int           // bytes that each end may have written and the other not yet read; 0: 256 KiB
	Rate   int           // bytes a second each way; 0: without limit

	A, B netip.AddrPort // addresses of the ends; zero: 127.0.0.1:40001 and 127.0.0.2:40002

	// Wiretap sees every write whole before it goes on its way, and returns what goes instead: b, altered or not, or
	// anything else; nil: nothing. It is called by one writer of a direction at a time, without locks. It must not block.
	Wiretap func(fromA bool, b []byte) []byte
}

const defaultWindow = 256 << 10

// Pipe makes a connection. Of each end, Close gives the other end EOF behind all that was written; its writes fail from
// when it could know.
func Pipe(o Options) (a, b *Conn) {
	if o.Window == 0 {
		o.Window = defaultWindow
	}
	if !o.A.IsValid() {
		o.A = netip.MustParseAddrPort("127.0.0.1:40001")
	}
	if !o.B.IsValid() {
		o.B = netip.MustParseAddrPort("127.0.0.2:40002")
	}
	ab, ba := newHalf(&o, true), newHalf(&o, false)
	a = &Conn{in: ba, out: ab, local: net.TCPAddrFromAddrPort(o.A), remote: net.TCPAddrFromAddrPort(o.B)}
	b = &Conn{in: ab, out: ba, local: net.TCPAddrFromAddrPort(o.B), remote: net.TCPAddrFromAddrPort(o.A)}
	return a, b
}

// Conn is one end of a pipe: a net.Conn whose methods may be called from any goroutine.
type Conn struct {
	in, out       *half
	local, remote *net.TCPAddr
}

var _ net.Conn = (*Conn)(nil)

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.out.closeWriter()
	c.in.closeReader()
	return nil
}

// Cut loses the connection: both ends fail at once, and what was on its way is gone.
func (c *Conn) Cut() {
	c.in.cutOff()
	c.out.cutOff()
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(&c.in.readBy, t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.setDeadline(&c.out.writeBy, t)
	return nil
}

// half is one direction. Nobody holds mu while time passes.
type half struct {
	fromA bool
	o     *Options

	mu       sync.Mutex
	cond     *sync.Cond
	segments []segment // in order of arrival
	flying   int       // bytes in them
	writing  bool      // a Write is under way
	free     time.Time // when the line has sent all that was written
	finished bool      // the writer has closed
	refused  bool      // the reader has closed
	gone     time.Time // and the writer knows from then on
	cut      bool
	readBy   deadline
	writeBy  deadline
}

// segment is what one write put on the line; nil bytes: the end.
type segment struct {
	b   []byte
	due time.Time
}

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func newHalf(o *Options, fromA bool) *half {
	h := &half{o: o, fromA: fromA}
	h.cond = sync.NewCond(&h.mu)
	return h
}

// wake makes everybody look again.
func (h *half) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cond.Broadcast()
}

func (h *half) setDeadline(d *deadline, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, h.wake)
	}
	h.cond.Broadcast()
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.refused:
			return 0, net.ErrClosed
		case h.cut:
			return 0, syscall.ECONNRESET
		case h.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		}
		now := time.Now()
		n := 0
		for n < len(p) && len(h.segments) > 0 && !h.segments[0].due.After(now) {
			s := &h.segments[0]
			if s.b == nil {
				if n == 0 {
					return 0, io.EOF
				}
				break
			}
			k := copy(p[n:], s.b)
			n += k
			h.flying -= k
			if s.b = s.b[k:]; len(s.b) == 0 {
				*s = segment{}
				h.segments = h.segments[1:]
			}
		}
		if n > 0 {
			h.cond.Broadcast()
			return n, nil
		}
		h.cond.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.await(func() bool { return !h.writing }); err != nil {
		return 0, err
	}
	h.writing = true
	defer func() {
		h.writing = false
		h.cond.Broadcast()
	}()
	b := append(make([]byte, 0, len(p)), p...)
	if h.o.Wiretap != nil {
		h.mu.Unlock()
		b = h.o.Wiretap(h.fromA, b)
		h.mu.Lock()
	}
	written := 0
	for len(b) > 0 {
		if err := h.await(func() bool { return h.flying < h.o.Window }); err != nil {
			return min(written, len(p)), err
		}
		k := min(len(b), h.o.Window-h.flying)
		if !h.refused {
			h.send(b[:k:k])
			h.flying += k
		}
		b = b[k:]
		written += k
	}
	return len(p), nil
}

// await waits until there is nothing to wait for, or no more writing. The caller holds mu.
func (h *half) await(ok func() bool) error {
	for {
		switch {
		case h.finished:
			return net.ErrClosed
		case h.cut:
			return syscall.ECONNRESET
		case h.refused && !time.Now().Before(h.gone):
			return syscall.EPIPE
		case h.writeBy.passed():
			return os.ErrDeadlineExceeded
		case ok():
			return nil
		}
		h.cond.Wait()
	}
}

// send puts b on the line; nil: the end. The caller holds mu.
func (h *half) send(b []byte) {
	now := time.Now()
	if h.free.Before(now) {
		h.free = now
	}
	if h.o.Rate > 0 {
		h.free = h.free.Add(time.Duration(float64(len(b)) / float64(h.o.Rate) * float64(time.Second)))
	}
	due := h.free.Add(h.o.Delay)
	h.segments = append(h.segments, segment{b, due})
	if wait := due.Sub(now); wait > 0 {
		time.AfterFunc(wait, h.wake)
	}
	h.cond.Broadcast()
}

func (h *half) closeWriter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.finished {
		h.finished = true
		h.send(nil)
	}
}

func (h *half) closeReader() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refused {
		return
	}
	h.refused, h.gone = true, time.Now().Add(h.o.Delay)
	h.segments, h.flying = nil, 0
	if h.o.Delay > 0 {
		time.AfterFunc(h.o.Delay, h.wake)
	}
	h.cond.Broadcast()
}

func (h *half) cutOff() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut, h.segments, h.flying = true, nil, 0
	h.cond.Broadcast()
}
