package page

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"peel/cell/contain"
	"peel/directory/head"
)

// Bounds of a server (spec/admin.md, section 3).
const (
	MostConns    = 64        // at a time; one more takes the place of who has been silent for longest, else it is closed at once
	MostHeader   = head.Most // of a first request, without cookies
	laterHeader  = 8 << 10   // of one on a connection that was answered, which brought the token
	HeaderWithin = 5 * time.Second
	ReadWithin   = 10 * time.Second
	WriteWithin  = 30 * time.Second
	IdleWithin   = 30 * time.Second
)

// Serve answers on a listener until ctx ends, closes it, and returns when the last goroutine is gone. Connections that mine does
// not take for ours are closed at once; nil: all are. Log is told at Debug what clients do wrong.
func Serve(ctx context.Context, l net.Listener, h http.Handler, mine func(net.Conn) bool, log *slog.Logger) error {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: HeaderWithin, ReadTimeout: ReadWithin, WriteTimeout: WriteWithin,
		IdleTimeout: IdleWithin, DisableGeneralOptionsHandler: true, MaxHeaderBytes: laterHeader, // a first one was looked at before
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	var conns sync.WaitGroup
	door := &limited{Listener: l, mine: mine}
	s.Handler = door.heeding(h)
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, placeKey{}, c) }
	s.ConnState = func(_ net.Conn, now http.ConnState) {
		switch now {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			conns.Done()
		}
	}
	heads := &heard{door: door, log: log, conns: make(chan accepted), done: make(chan struct{})}
	heads.reading.Go(heads.failed, heads.listen)
	ended := make(chan struct{})
	stop := contain.OnDone(ctx, nil, func() {
		defer close(ended)
		s.Close()
	})
	err := s.Serve(heads)
	if !stop() {
		<-ended
		err = nil
	}
	heads.Close()
	heads.reading.Wait()
	conns.Wait()
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// limited has places for connections. When all are taken it closes the one that has been without a whole head of a
// request for longest: whoever has something to ask does so at once. If all are being answered, the new connection is closed.
type limited struct {
	net.Listener
	mine func(net.Conn) bool

	mu     sync.Mutex
	taken  int
	silent list.List // of *placed: those that have none, the one that began to be so first in front
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.mine != nil && !l.mine(c) {
			c.Close()
			continue
		}
		if p := l.place(c); p != nil {
			return p, nil
		}
		c.Close()
	}
}

// place gives a connection a place; nil: there is none.
func (l *limited) place(c net.Conn) *placed {
	l.mu.Lock()
	var shed *placed
	if l.taken >= MostConns {
		first := l.silent.Front()
		if first == nil {
			l.mu.Unlock()
			return nil
		}
		shed = first.Value.(*placed)
		l.give(shed)
	}
	l.taken++
	p := &placed{Conn: c, door: l}
	p.silent = l.silent.PushBack(p)
	l.mu.Unlock()
	if shed != nil {
		shed.Conn.Close()
	}
	return p
}

// give gives a place back. The caller holds mu.
func (l *limited) give(p *placed) {
	if p.gone {
		return
	}
	p.gone = true
	l.taken--
	l.heard(p)
}

// heard notes that a connection has a request, or is gone. The caller holds mu.
func (l *limited) heard(p *placed) {
	if p.silent != nil {
		l.silent.Remove(p.silent)
		p.silent = nil
	}
}

// closeSilent closes all that have no request.
func (l *limited) closeSilent() {
	l.mu.Lock()
	var all []*placed
	for e := l.silent.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(*placed))
	}
	l.mu.Unlock()
	for _, p := range all {
		p.Close()
	}
}

// heard is a listener for a web server, which holds much for a connection from its first moment on: it is given those on which the head of
// a first request has come whole, and the others cost little.
type heard struct {
	door    *limited
	log     *slog.Logger
	reading contain.Group
	conns   chan accepted
	closing sync.Once
	done    chan struct{} // closed when no more are taken
}

// accepted is what Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

// listen takes connections until it is Closed. Each has a goroutine until its head has come.
func (h *heard) listen() {
	for {
		c, err := h.door.Accept()
		if err != nil {
			if !h.give(accepted{nil, err}) || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // when the server asks for the next, as it waits where that may help
		}
		select {
		case <-h.done: // closeSilent may not have seen it
			c.Close()
		default:
		}
		h.reading.Go(h.bug, func() { h.read(c.(*placed)) })
	}
}

// bug is told of one while a connection was read, which is closed.
func (h *heard) bug(p *contain.Panic) { h.log.Error("a bug: please report this", "bug", p) }

// failed is told of one without which no more connections come.
func (h *heard) failed(p *contain.Panic) {
	h.give(accepted{nil, p})
	h.Close()
}

// read waits for a connection's first head.
func (h *heard) read(p *placed) {
	given := false
	defer func() {
		if !given {
			p.Close()
		}
	}()
	said, err := head.Read(p.Conn, HeaderWithin)
	switch {
	case errors.Is(err, head.ErrTooLarge):
		head.Last(p.Conn, WriteWithin, head.Refusal(http.StatusRequestHeaderFieldsTooLarge))
	case err == nil:
		p.said = said
		given = h.give(accepted{p, nil})
	}
}

// give hands one on; false: nobody takes it.
func (h *heard) give(a accepted) bool {
	select {
	case h.conns <- a:
		return true
	case <-h.done:
		return false
	}
}

func (h *heard) Accept() (net.Conn, error) {
	select {
	case a := <-h.conns:
		return a.conn, a.err
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close closes the listener and what has no request.
func (h *heard) Close() (err error) {
	h.closing.Do(func() {
		close(h.done)
		err = h.door.Close()
	})
	h.door.closeSilent()
	return err
}

func (h *heard) Addr() net.Addr { return h.door.Addr() }

// placeKey is where a request's context has its connection.
type placeKey struct{}

// heeding is h, while which answers nobody takes the connection's place.
func (l *limited) heeding(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p, ok := r.Context().Value(placeKey{}).(*placed); ok {
			l.mu.Lock()
			l.heard(p)
			l.mu.Unlock()
			defer func() {
				l.mu.Lock()
				if !p.gone && p.silent == nil {
					p.silent = l.silent.PushBack(p)
				}
				l.mu.Unlock()
			}()
		}
		h.ServeHTTP(w, r)
	})
}

// placed is a connection that gives its place back when it is closed.
type placed struct {
	net.Conn
	door *limited

	silent *list.Element // in the door's; nil: it is being answered
	gone   bool
	said   []byte // what came before the web server had it
}

func (p *placed) Read(b []byte) (int, error) {
	if len(p.said) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.said)
	if p.said = p.said[n:]; len(p.said) == 0 {
		p.said = nil
	}
	return n, nil
}

// CloseWrite says that no more comes, where the connection can.
func (p *placed) CloseWrite() error {
	if w, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

func (p *placed) Close() error {
	err := p.Conn.Close()
	p.door.mu.Lock()
	p.door.give(p)
	p.door.mu.Unlock()
	return err
}
