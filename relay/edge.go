package relay

import (
	"context"
	"net"
	"sync"

	"peel/cell"
	"peel/circuit/stream"
	"peel/relay/exit"
)

// accept takes a stream that a client opens at the end of its circuit. Called by the link's reader: the work is done
// elsewhere.
func (t *transit) accept(s *stream.Stream, o stream.Open) {
	r := t.relay
	now := r.settled.Load() // nil: the node of an authority
	var do func(context.Context)
	switch {
	case o.Type == cell.MsgBeginDir:
		do = func(ctx context.Context) { r.serveDirectory(ctx, s) }
	case now == nil || now.exit == nil:
		s.Refuse(cell.EndPolicy)
		return
	case o.Type == cell.MsgResolve:
		do = func(context.Context) { r.resolve(t, s, now.exit, o.Resolve) }
	default:
		do = func(ctx context.Context) { r.carry(ctx, t, s, now.exit, o.Begin) }
	}
	if !t.start(r.streams, &task{name: "stream", of: t, do: do, drop: s.Reset}) {
		s.Refuse(cell.EndBusy)
	}
}

// mostPending is how many dials and look-ups of one circuit may be under way.
const mostPending = 64

// resolve looks a name up, for as long as that is of use.
func (r *Relay) resolve(t *transit, s *stream.Stream, by *exit.Dialer, m cell.Resolve) {
	defer t.pending.Add(-1)
	if t.pending.Add(1) > mostPending {
		s.Refuse(cell.EndBusy)
		return
	}
	s.Answer(by.Resolve(s.Context(), m))
}

// dial connects to the world, for as long as the stream has a use for it. nil: the stream has been told why not.
func (r *Relay) dial(t *transit, s *stream.Stream, by *exit.Dialer, b cell.Begin) (net.Conn, cell.Connected) {
	defer t.pending.Add(-1)
	if t.pending.Add(1) > mostPending {
		s.Refuse(cell.EndBusy)
		return nil, cell.Connected{}
	}
	conn, to, err := by.Dial(s.Context(), b)
	if err != nil {
		s.Refuse(exit.Reason(err))
		return nil, cell.Connected{}
	}
	return conn, to
}

// carry connects a stream to the world and copies both ways until both have ended.
func (r *Relay) carry(ctx context.Context, t *transit, s *stream.Stream, by *exit.Dialer, b cell.Begin) {
	conn, to := r.dial(t, s, by, b)
	if conn == nil {
		r.stats.ExitsFailed.Add(1)
		return
	}
	r.stats.Exits.Add(1)
	s.Connected(to)
	r.splice(ctx, s, conn)
}

// splice copies between a stream and the connection it stands for, each way until its end. What is cut off, by either side
// or by the relay's own end, is reset on the other, so that it never looks whole.
func (r *Relay) splice(ctx context.Context, s *stream.Stream, conn net.Conn) {
	cut := func(reason cell.EndReason) {
		s.Reset(reason)
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		conn.Close()
	}
	defer atEnd(ctx, func() { cut(cell.EndInternal) })()
	reset := atEnd(s.Context(), func() { cut(cell.EndReset) }) // what it holds waits for no host any more
	guarded := func(copy func()) {
		if !r.guard("stream", copy) {
			cut(cell.EndInternal)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		guarded(func() {
			if _, err := s.WriteTo(conn); err != nil {
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
}

func (d *directoryStream) Close() error {
	defer d.once.Do(func() { close(d.closed) })
	return d.Stream.Close()
}

// serveDirectory hands a stream to the directory's web server and waits until that has closed it.
func (r *Relay) serveDirectory(ctx context.Context, s *stream.Stream) {
	s.Connected(cell.Connected{})
	d := &directoryStream{Stream: s, closed: make(chan struct{})}
	select {
	case r.dirStreams.conns <- d:
		<-d.closed
	case <-r.dirStreams.done:
		s.Close()
	case <-ctx.Done():
		s.Close()
	}
}
