package memnet

import (
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"peel/cell/link/pipe"
)

// listener is where connections arrive.
type listener struct {
	net    *Net
	addr   netip.AddrPort
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener: connections that nobody accepted are broken.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		delete(l.net.ports, l.addr)
		l.net.mu.Unlock()
		for {
			select {
			case c := <-l.conns:
				c.(*conn).Cut()
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }

// offer puts a connection into the queue; false: there is no room, or nobody will take it. The caller holds the net's mu.
func (l *listener) offer(c net.Conn) bool {
	if l.net.ports[l.addr] != l {
		return false
	}
	select {
	case l.conns <- c:
		return true
	default:
		return false
	}
}

// conn is one end of a line.
type conn struct {
	*pipe.Conn
	line *line
	once sync.Once
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.line.ended()
		if c == &c.line.a {
			c.line.over()
		}
	})
	return c.Conn.Close()
}

// line is one connection: a dialled b.
type line struct {
	net      *Net
	from, to netip.Addr
	a, b     conn
	gone     chan struct{} // of a line that Carry made: closed when a is closed, or the line cut
	overOnce sync.Once

	mu          sync.Mutex
	rng         *rand.Rand
	there, back Way
	ends        int
}

// over closes gone.
func (l *line) over() {
	l.overOnce.Do(func() {
		if l.gone != nil {
			close(l.gone)
		}
	})
}

// cut loses the connection: both ends fail at once.
func (l *line) cut() {
	l.over()
	l.a.Conn.Cut()
}

// ended forgets the line when both of its ends are closed.
func (l *line) ended() {
	l.mu.Lock()
	l.ends++
	both := l.ends == 2
	l.mu.Unlock()
	if both {
		l.net.mu.Lock()
		delete(l.net.lines, l)
		l.net.mu.Unlock()
	}
}

// setWays changes what lies between its ends.
func (l *line) setWays(way func(from, to netip.Addr) Way) {
	there, back := way(l.from, l.to), way(l.to, l.from)
	l.mu.Lock()
	l.there, l.back = there, back
	l.mu.Unlock()
	round := there.Delay + back.Delay
	for _, x := range []struct {
		c *pipe.Conn
		w Way
	}{{l.a.Conn, there}, {l.b.Conn, back}} {
		x.c.SetDelay(x.w.Delay)
		x.c.SetRate(x.w.pace(round))
	}
}

// pace is how many bytes a second one TCP connection gets through: its rate, and no more than its losses allow (Mathis,
// Semke, Mahdavi and Ott, 1997: a segment each round trip, times 1.22 over the root of the loss).
func (w Way) pace(round time.Duration) int {
	if w.Loss <= 0 {
		return w.Rate
	}
	most := int(1.22 * segmentSize / max(round, time.Millisecond).Seconds() / math.Sqrt(w.Loss))
	if w.Rate == 0 || most < w.Rate {
		return max(1, most)
	}
	return w.Rate
}

// hold keeps all that is written from arriving.
func (l *line) hold(held bool) {
	l.a.Hold(held)
	l.b.Hold(held)
}

// weather is what one write meets on its way.
func (l *line) weather(fromA bool, b []byte) []byte {
	l.mu.Lock()
	w, c := l.there, l.a.Conn
	if !fromA {
		w, c = l.back, l.b.Conn
	}
	if w.Jitter == 0 && w.Loss == 0 && w.Resets == 0 {
		l.mu.Unlock()
		return b
	}
	late := time.Duration(0)
	if w.Jitter > 0 {
		late = time.Duration(l.rng.Int64N(int64(w.Jitter)))
	}
	segments := float64((len(b) + segmentSize - 1) / segmentSize)
	lost := w.Loss > 0 && l.rng.Float64() < 1-math.Pow(1-w.Loss, segments)
	reset := w.Resets > 0 && l.rng.Float64() < w.Resets
	round := l.there.Delay + l.back.Delay
	l.mu.Unlock()
	c.SetDelay(w.Delay + late)
	if lost {
		c.Lose(max(round, leastRetry))
	}
	if reset {
		l.cut()
	}
	return b
}
