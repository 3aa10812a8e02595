package socks

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

// readSize is what a connection keeps of its client's bytes until the request has been answered:
// enough for any single message, and for early data. More stays in the socket.
const readSize = 2048

// After a refusal the client's remaining bytes are read and dropped, so that the answer is not lost
// to a reset: at most so many, and for at most so long.
const (
	maxLinger  = 64 << 10
	lingerTime = time.Second
)

// conn is one client.
type conn struct {
	s   *Server
	nc  net.Conn
	buf [readSize]byte // buf[:n] came and was not used
	n   int
	eof bool // the client has sent its last byte
}

func (s *Server) serve(ctx context.Context, nc net.Conn, listener string) {
	defer nc.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { reset(nc) })()
	s.guard(func() {
		c := &conn{s: s, nc: nc}
		req, ok := c.handshake()
		if !ok {
			s.stats.refused.Add(1)
			return
		}
		req.Isolation.Listener = listener
		if ap, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
			req.Isolation.Client = ap.Addr().Unmap()
		}
		s.stats.requests.Add(1)
		target, err := c.dial(ctx, req)
		if err != nil {
			s.stats.failed.Add(1)
			if s.Log != nil {
				s.Log.Debug("socks: request failed", "code", code(s.Code, err))
			}
			c.refuse(reply(code(s.Code, err)))
			return
		}
		defer target.Close()
		defer context.AfterFunc(ctx, func() { target.Close() })()
		c.carry(target)
	})
}

// handshake talks with the client up to its request; what it sent beyond stays in c.buf.
func (c *conn) handshake() (Request, bool) {
	c.nc.SetDeadline(time.Now().Add(c.s.handshakeTimeout()))
	var p proto
	for {
		n, ev := p.next(c.buf[:c.n])
		c.n = copy(c.buf[:], c.buf[n:c.n])
		switch ev.kind {
		case evMore:
			m, err := c.nc.Read(c.buf[c.n:])
			c.n += m
			if err != nil && m == 0 {
				return Request{}, false
			}
		case evReply:
			if _, err := c.nc.Write(ev.reply); err != nil {
				return Request{}, false
			}
		case evRequest:
			c.nc.SetDeadline(time.Time{})
			if a, ok := ev.req.Addr(); ok && !ev.named && !a.IsLoopback() && !a.IsPrivate() {
				c.s.warn(warnAddress, "socks: an application asked for an address, not a name: "+
					"it may look names up outside the network; set it to socks5h or \"remote DNS\"")
			}
			return ev.req, true
		case evRefuse:
			c.hint(ev.err)
			c.refuse(ev.reply)
			return Request{}, false
		}
	}
}

func (c *conn) hint(err error) {
	switch {
	case errors.Is(err, errSOCKS4):
		c.s.warn(warnSOCKS4, err.Error())
	case errors.Is(err, errHTTP):
		c.s.warn(warnHTTP, err.Error())
	case c.s.Log != nil:
		c.s.Log.Debug("socks: connection refused", "err", err)
	}
}

// refuse sends a last reply, if there is one, and sees to it that it arrives.
func (c *conn) refuse(reply []byte) {
	if len(reply) == 0 {
		return
	}
	c.nc.SetWriteDeadline(time.Now().Add(c.s.handshakeTimeout()))
	if _, err := c.nc.Write(reply); err != nil {
		return
	}
	if w, ok := c.nc.(closeWriter); ok && !c.eof && w.CloseWrite() == nil {
		c.nc.SetReadDeadline(time.Now().Add(lingerTime))
		for left := maxLinger; left > 0; {
			n, err := c.nc.Read(c.buf[:])
			if err != nil {
				return
			}
			left -= n
		}
	}
}

// dial calls Dial, and meanwhile watches the client: early data go to c.buf as far as there is room,
// and a client that is gone ends the attempt. One that has only sent its last byte is not gone.
func (c *conn) dial(ctx context.Context, req Request) (target net.Conn, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.s.guard(func() {
			for c.n < len(c.buf) {
				n, err := c.nc.Read(c.buf[c.n:])
				c.n += n
				if err == io.EOF {
					c.eof = true
					return
				}
				if err != nil {
					cancel() // gone, or told to stop because Dial is back
					return
				}
			}
		})
	}()
	defer func() {
		c.nc.SetReadDeadline(time.Unix(1, 0))
		<-watched
		c.nc.SetReadDeadline(time.Time{})
	}()
	target, err = c.s.Dial(ctx, req)
	if err == nil && target == nil {
		err = errors.New("socks: dial returned nothing")
	}
	return target, err
}

type closeWriter interface{ CloseWrite() error }
