package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"peel/cell/contain"
)

// ServePacket answers what comes in over UDP until ctx ends or the socket fails, and returns when the last goroutine is
// gone. It closes pc. It returns nil if ctx ended.
func (s *Server) ServePacket(ctx context.Context, pc net.PacketConn) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg contain.Group
	defer wg.Wait()
	defer cancel()
	defer closeWith(ctx, pc)()
	places := make(chan struct{}, mostWaiting)
	name := pc.LocalAddr().String()
	buf := make([]byte, maxQuestion)
	fails := 0
	for {
		n, to, err := pc.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("dns: %w", err)
		case err != nil: // an answer of ours reached nobody: some systems say so here
			if fails++; fails > maxFails {
				return fmt.Errorf("dns: %w", err)
			}
			continue
		}
		fails = 0
		from := asker{client: addrOf(to), listener: name, udp: true}
		select {
		case places <- struct{}{}:
		default:
			if b := s.full(from, buf[:n]); b != nil {
				pc.WriteTo(b, to)
			}
			continue
		}
		question := append([]byte(nil), buf[:n]...)
		wg.Go(s.bug, func() {
			defer func() { <-places }()
			if b := s.handle(ctx, from, question); b != nil {
				pc.WriteTo(b, to)
			}
		})
	}
}

// closeWith closes c when ctx ends or the function it returns is called, whichever is first.
func closeWith(ctx context.Context, c io.Closer) func() {
	stop := contain.OnDone(ctx, nil, func() { c.Close() })
	return func() {
		if stop() {
			c.Close()
		}
	}
}

// conn is a client over TCP.
type conn struct {
	net.Conn
	since time.Time // the last question; under the server's mu
	busy  bool      // a question is being answered; under the server's mu
	end   context.CancelFunc
	done  chan struct{}
}

// ServeListener answers what comes in over TCP, on the same terms as ServePacket.
func (s *Server) ServeListener(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg contain.Group
	defer wg.Wait()
	defer cancel()
	defer closeWith(ctx, ln)()
	name := ln.Addr().String()
	var delay time.Duration
	for {
		nc, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return nil
		}
		if err != nil {
			var t interface{ Temporary() bool }
			if !errors.As(err, &t) || !t.Temporary() {
				return fmt.Errorf("dns: accept: %w", err)
			}
			delay = min(max(2*delay, 5*time.Millisecond), maxAcceptWait)
			select {
			case <-ctx.Done():
			case <-time.After(delay):
			}
			continue
		}
		delay = 0
		c := &conn{Conn: nc, since: time.Now(), done: make(chan struct{})}
		var one context.Context
		one, c.end = context.WithCancel(ctx)
		if !s.enter(c) {
			c.end()
			nc.Close()
			continue
		}
		wg.Go(s.bug, func() {
			defer s.leave(c)
			defer c.end()
			defer closeWith(one, c)()
			s.talk(one, c, asker{client: addrOf(c.RemoteAddr()), listener: name})
		})
	}
}

// enter counts a connection in; when there are as many as may be, it takes the place of the one that has said nothing for
// longest. false: all are being answered.
func (s *Server) enter(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns) >= mostConns {
		var old *conn
		for o := range s.conns {
			if !o.busy && (old == nil || o.since.Before(old.since)) {
				old = o
			}
		}
		if old == nil {
			return false
		}
		delete(s.conns, old)
		s.stats.evicted.Add(1)
		old.end()
		s.mu.Unlock()
		<-old.done
		s.mu.Lock()
	}
	if s.conns == nil {
		s.conns = make(map[*conn]struct{})
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	close(c.done)
}

// mark notes whether a connection's question is being answered.
func (s *Server) mark(c *conn, busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.busy, c.since = busy, time.Now()
}

// talk answers the questions of one connection, one after the other.
func (s *Server) talk(ctx context.Context, c *conn, from asker) {
	var length [2]byte
	for {
		c.SetDeadline(time.Now().Add(connTime))
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n > maxQuestion {
			return
		}
		question := make([]byte, n)
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		s.mark(c, true)
		b := s.handle(ctx, from, question)
		s.mark(c, false)
		if b == nil {
			return
		}
		c.SetDeadline(time.Now().Add(connTime))
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
			return
		}
	}
}
