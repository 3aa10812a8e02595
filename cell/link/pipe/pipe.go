// Package pipe is a connection in memory that behaves like one of TCP: with delay, window and rate, loss and silence; it can
// be listened to, altered and cut. All of it works in the virtual time of testing/synctest.
package pipe

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
	Rate   int           // bytes a second each way, at the sender's card; 0: without limit

	CardA, CardB *Card // what each end sends through, together with other connections of its machine; nil: nothing

	A, B netip.AddrPort // addresses of the ends; zero: 127.0.0.1:40001 and 127.0.0.2:40002

	// Wiretap sees every write whole before it goes on its way, and returns what goes instead: b, altered or not, or
	// anything else; nil: nothing. It is called by one writer of a direction at a time, without locks. It must not block.
	Wiretap func(fromA bool, b []byte) []byte
}

const defaultWindow = 256 << 10

// New makes a connection. Of each end, Close gives the other end EOF behind all that was written; its writes fail from
// when it could know.
func New(o Options) (a, b *Conn) {
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
	ab.card, ba.card = o.CardA, o.CardB
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

// CloseWrite gives the other end EOF behind all that was written; this end can still read.
func (c *Conn) CloseWrite() error {
	c.out.closeWriter()
	return nil
}

// Cut loses the connection: both ends fail at once, and what was on its way is gone.
func (c *Conn) Cut() {
	c.in.cutOff()
	c.out.cutOff()
}

// RTT is how long bytes take there and back on a line that is free.
func (c *Conn) RTT() time.Duration { return c.out.lag() + c.in.lag() }

// Unsent is how many bytes the end holds that the line has not taken.
func (c *Conn) Unsent() int { return c.out.unsent() }

// HoldUnsent lets Write wait while the end holds so many bytes that the line has not taken, and go on at half of them.
func (c *Conn) HoldUnsent(bytes int) { c.out.change(func(h *half) { h.hold = bytes }) }

// SetDelay changes how long it takes what this end writes from now on to arrive.
func (c *Conn) SetDelay(d time.Duration) { c.out.change(func(h *half) { h.delay = d }) }

// SetRate changes how many bytes a second the line takes of what this end writes from now on; 0: without limit.
func (c *Conn) SetRate(bytes int) { c.out.change(func(h *half) { h.rate = bytes }) }

// Stall lets the line take nothing of what this end writes from now on for so long. To HoldUnsent it counts as the bytes
// that would have gone.
func (c *Conn) Stall(d time.Duration) {
	c.out.change(func(h *half) { h.free = later(h.free, time.Now()).Add(d) })
}

// Lose lets what this end writes next arrive so much later, and nothing behind it before: as when a segment is lost and
// sent again, on a line that goes on.
func (c *Conn) Lose(d time.Duration) {
	c.out.change(func(h *half) { h.last = later(h.last, later(h.free, time.Now()).Add(h.delay+d)) })
}

// Hold keeps what this end writes on its way until it is called with false, which lets all that has had its time arrive at once:
// as when the line in between is out of order, and neither end is told.
func (c *Conn) Hold(held bool) { c.out.change(func(h *half) { h.held = held }) }

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
	delay    time.Duration
	rate     int
	card     *Card
	held     bool
	hold     int       // bytes that may wait for the line; 0: as many as come
	last     time.Time // when the latest segment arrives
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

// A Card is what the connections of one machine send through, one after the other, at its rate. It may be used by any number of
// connections and goroutines; nil has no limit.
type Card struct {
	mu   sync.Mutex
	rate int
	free time.Time
}

// NewCard makes a card that sends so many bytes a second; 0: without limit.
func NewCard(rate int) *Card { return &Card{rate: rate} }

// SetRate changes how many bytes a second it sends from now on.
func (c *Card) SetRate(rate int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rate = rate
}

// send is when n bytes have left, that could by their line leave at the time given.
func (c *Card) send(at time.Time, n int) time.Time {
	if c == nil {
		return at
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rate == 0 {
		return at
	}
	c.free = later(c.free, time.Now()).Add(time.Duration(float64(n) / float64(c.rate) * float64(time.Second)))
	return later(at, c.free)
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
	h := &half{o: o, fromA: fromA, delay: o.Delay, rate: o.Rate}
	h.cond = sync.NewCond(&h.mu)
	return h
}

// change makes the line another from now on.
func (h *half) change(do func(*half)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do(h)
	h.wakeHalf()
	h.cond.Broadcast()
}

func (h *half) lag() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.delay
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// needs is how long the line needs for n bytes.
func (h *half) needs(n int) time.Duration {
	if h.rate == 0 {
		return 0
	}
	return time.Duration(float64(n) / float64(h.rate) * float64(time.Second))
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
		for !h.held && n < len(p) && len(h.segments) > 0 && !h.segments[0].due.After(now) {
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
				if h.segments = h.segments[1:]; len(h.segments) == 0 {
					h.segments = nil // there may have been room for many
				}
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
		if err := h.awaitLine(); err != nil {
			return min(written, len(p)), err
		}
		k := max(0, min(len(b), h.o.Window-h.flying))
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

// awaitLine waits, if more waits for the line than may, until it is half of that. The caller holds mu.
func (h *half) awaitLine() error {
	unsent := time.Until(h.free)
	if h.hold == 0 || unsent <= 0 || unsent < h.needs(h.hold) {
		return nil
	}
	h.wakeHalf()
	return h.await(func() bool { return time.Until(h.free) <= h.needs(h.hold)/2 })
}

func (h *half) unsent() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int(max(0, time.Until(h.free)).Seconds() * float64(h.rate))
}

// wakeHalf wakes everybody when half of what may wait for the line does. The caller holds mu.
func (h *half) wakeHalf() {
	if wait := time.Until(h.free) - h.needs(h.hold)/2; wait > 0 {
		time.AfterFunc(wait, h.wake)
	}
}

// send puts b on the line; nil: the end. The caller holds mu.
func (h *half) send(b []byte) {
	now := time.Now()
	h.free = h.card.send(later(h.free, now).Add(h.needs(len(b))), len(b))
	h.last = later(h.last, h.free.Add(h.delay)) // what was sent first arrives first
	due := h.last
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
	h.refused, h.gone = true, time.Now().Add(h.delay)
	h.segments, h.flying = nil, 0
	if h.delay > 0 {
		time.AfterFunc(h.delay, h.wake)
	}
	h.cond.Broadcast()
}

func (h *half) cutOff() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut, h.segments, h.flying = true, nil, 0
	h.cond.Broadcast()
}
