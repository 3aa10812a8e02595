package page

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"peel/cell/contain"
)

// Bounds of a server (spec/admin.md, section 3).
const (
	MostConns    = 64 // at a time; one more is closed at once
	MostHeader   = 8 << 10
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
		IdleTimeout: IdleWithin, MaxHeaderBytes: MostHeader, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	var conns sync.WaitGroup
	s.ConnState = func(_ net.Conn, now http.ConnState) {
		switch now {
		case http.StateNew:
			conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			conns.Done()
		}
	}
	ended := make(chan struct{})
	stop := contain.OnDone(ctx, nil, func() {
		defer close(ended)
		s.Close()
	})
	err := s.Serve(&limited{Listener: l, mine: mine, places: make(chan struct{}, MostConns)})
	if !stop() {
		<-ended
		err = nil
	}
	conns.Wait()
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// limited closes connections beyond its places at once.
type limited struct {
	net.Listener
	mine   func(net.Conn) bool
	places chan struct{}
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
		select {
		case l.places <- struct{}{}:
			return &placed{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
		default:
			c.Close()
		}
	}
}

// placed is a connection that gives its place back when it is closed.
type placed struct {
	net.Conn
	leave func()
}

func (c *placed) Close() error {
	err := c.Conn.Close()
	c.leave()
	return err
}
