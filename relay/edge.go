package relay

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"peel/cell"
	"peel/cell/contain"
	"peel/circuit/stream"
	"peel/directory/authority"
	"peel/relay/exit"
)

// accept takes a stream that a client opens at the end of its circuit. Called by the link's reader: the work is done
// elsewhere.
func (t *transit) accept(s *stream.Stream, o stream.Open) {
	r := t.relay
	now := r.settled.Load() // nil: the node of an authority
	var do func(context.Context)
	switch {
	case r.refusing():
		t.busy(s)
		return
	case o.Type == cell.MsgBeginDir:
		by := t.asking()
		do = func(ctx context.Context) { r.serveDirectory(ctx, s, callerOf(t.prev.Conn()), by) }
	case now == nil || now.exit == nil:
		s.Refuse(cell.EndPolicy)
		return
	case !r.cfg.OneHop && !r.fromRelay(t.prev.Conn()):
		r.stats.OneHop.Add(1)
		t.deny(s, cell.EndMisc)
		return
	case o.Type == cell.MsgResolve:
		do = func(context.Context) { r.resolve(t, s, now.exit, o.Resolve) }
	default:
		do = func(ctx context.Context) { r.carry(ctx, t, s, now.exit, o.Begin) }
	}
	if !t.begins(time.Now(), o.Type == cell.MsgBeginDir) || !t.start(r.streams, newTask("stream", owner{of: t}, do, s.Reset)) {
		t.busy(s)
	}
}

// Bounds of the dials and look-ups under way, all circuits together and of one.
const (
	mostDials   = 1024
	mostPending = 64
)

// dialing runs a dial or look-up of a stream in one of the places for them. When all are taken, the circuit that has most
// loses its newest, or this stream is refused: one circuit cannot take the places of others with names that are slow.
func (r *Relay) dialing(t *transit, s *stream.Stream, do func()) bool {
	k := &place{owner: owner{of: t}}
	k.lose = func() { r.guard("stream", func() { s.Reset(cell.EndBusy) }) }
	r.mu.Lock()
	shed, ok := r.dials.enter(k)
	r.mu.Unlock()
	if !ok {
		s.Refuse(cell.EndBusy)
		return false
	}
	defer func() {
		r.mu.Lock()
		r.dials.leave(k)
		r.mu.Unlock()
	}()
	if shed != nil {
		shed.lose()
	}
	do()
	return true
}

// resolve looks a name up, for as long as that is of use.
func (r *Relay) resolve(t *transit, s *stream.Stream, by *exit.Dialer, m cell.Resolve) {
	r.dialing(t, s, func() { s.Answer(by.Resolve(s.Context(), m)) })
}

// dial connects to the world, for as long as the stream has a use for it. nil: the stream has been told why not.
func (r *Relay) dial(t *transit, s *stream.Stream, by *exit.Dialer, b cell.Begin) (conn net.Conn, to cell.Connected) {
	placed := r.dialing(t, s, func() {
		var err error
		if conn, to, err = by.Dial(s.Context(), b); err != nil {
			r.stats.ExitsFailed.Add(1) // before the client hears of it
			s.Refuse(exit.Reason(err))
		}
	})
	if !placed {
		r.stats.ExitsFailed.Add(1)
	}
	return conn, to
}

// carry connects a stream to the world and copies both ways until both have ended.
func (r *Relay) carry(ctx context.Context, t *transit, s *stream.Stream, by *exit.Dialer, b cell.Begin) {
	conn, to := r.dial(t, s, by, b)
	if conn == nil {
		return
	}
	r.stats.Exits.Add(1)
	r.splice(ctx, t, s, conn, &outlet{at: netip.AddrPortFrom(to.Addr, b.Port), connected: to, stream: s})
}

// outlet is a stream that is connected to the world, in the list of those that another policy may forbid.
type outlet struct {
	at        netip.AddrPort
	connected cell.Connected
	cut       func(cell.EndReason) // ends both sides; called by any goroutine

	stream *stream.Stream
	still  standstill
}

// admit puts an outlet into the list, unless the policy that is in force by now forbids it.
func (r *Relay) admit(o *outlet) bool {
	r.mu.Lock()
	r.outlets[o] = struct{}{} // first: a change that comes now sees it, or is seen here
	r.mu.Unlock()
	if r.settled.Load().lets(o.at) {
		return true
	}
	r.dismiss(o)
	return false
}

func (r *Relay) dismiss(o *outlet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cross(&r.outlets, o)
}

// cutForbidden ends the streams whose address and port the policy in force does not accept any more, and says how many.
func (r *Relay) cutForbidden() int {
	r.mu.Lock()
	all := slices.Collect(maps.Keys(r.outlets))
	r.mu.Unlock()
	now, n := r.settled.Load(), 0
	for _, o := range all {
		if !now.lets(o.at) {
			n++
			r.guard("stream", func() { o.cut(cell.EndPolicy) })
		}
	}
	return n
}

// splice copies between a stream and the connection it stands for, each way until its end. What is cut off, by either side
// or by the relay's own end, is reset on the other, so that it never looks whole.
func (r *Relay) splice(ctx context.Context, t *transit, s *stream.Stream, conn net.Conn, o *outlet) {
	cut := func(reason cell.EndReason) {
		s.Reset(reason)
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		conn.Close()
	}
	o.cut = cut
	if !r.admit(o) {
		conn.Close()
		s.Refuse(cell.EndPolicy)
		return
	}
	defer r.dismiss(o)
	s.Connected(o.connected)
	defer contain.AtEnd(ctx, nil, func() { cut(cell.EndInternal) })()
	reset := contain.AtEnd(s.Context(), nil, func() { cut(cell.EndReset) }) // what it holds waits for no host any more
	guarded := func(copy func()) {
		if !r.guard("stream", func() {
			contain.Point("relay: copy")
			copy()
		}) {
			cut(cell.EndInternal)
		}
	}
	var wg contain.Group
	wg.Go(r.bug("stream"), func() {
		guarded(func() {
			if _, err := s.WriteTo(r.shaped(conn, t, s.Context().Done())); err != nil {
				cut(cell.EndReset)
			} else {
				closeWrite(conn)
			}
		})
	})
	guarded(func() {
		if _, err := s.ReadFrom(conn); err != nil {
			cut(exit.Reason(err))
		} else {
			s.CloseWrite()
		}
	})
	wg.Wait()
	reset()
	conn.Close()
	s.Close()
}

func closeWrite(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	} else {
		c.Close()
	}
}

// streams is a net.Listener whose connections are directory streams.
type streams struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newStreams() *streams { return &streams{conns: make(chan net.Conn), done: make(chan struct{})} }

func (l *streams) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *streams) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *streams) Addr() net.Addr { return directoryAddr{} }

type directoryAddr struct{}

func (directoryAddr) Network() string { return "peel" }
func (directoryAddr) String() string  { return "directory" }

// directoryStream tells when the web server is through with it.
type directoryStream struct {
	*stream.Stream
	once   sync.Once
	closed chan struct{}
	caller authority.Caller
	by     *asks
}

func (d *directoryStream) Close() error {
	defer d.once.Do(func() { close(d.closed) })
	return d.Stream.Close()
}

// serveDirectory hands a stream to the directory's web server and waits until that has closed it.
func (r *Relay) serveDirectory(ctx context.Context, s *stream.Stream, caller authority.Caller, by *asks) {
	s.Connected(cell.Connected{})
	d := &directoryStream{Stream: s, closed: make(chan struct{}), caller: caller, by: by}
	select {
	case r.dirStreams.conns <- d:
		<-d.closed
	case <-r.dirStreams.done:
		s.Close()
	case <-ctx.Done():
		s.Close()
	}
}
