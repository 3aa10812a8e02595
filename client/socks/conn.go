package socks

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"peel/cell/contain"
)

// firstRead is what is read of a client at first; the buffer doubles, up to maxHead, for those that send more. So one that
// says little costs little.
const firstRead = 512

// earlyWait is how long a client that was told early that it is connected may take to say something that goes along with the request.
// Programs that speak first do it at once; to wait for others costs them this.
const earlyWait = 5 * time.Millisecond

// mostEarly is how much of that goes along: more than a hello of TLS with a key of ML-KEM has.
const mostEarly = 4096

// watchAfter is how long a request may take before its client is watched.
const watchAfter = 100 * time.Millisecond

// After a refusal the client's remaining bytes are read and dropped, so that the answer is not lost
// to a reset: at most so many, and for at most so long.
const (
	maxLinger  = 64 << 10
	lingerTime = time.Second
)

// conn is one client.
type conn struct {
	door  *door
	nc    net.Conn
	proto proto
	buf   []byte // buf[:n] came and was not used
	n     int
	eof   bool // the client has sent its last byte
	told  bool // the client knows that it is connected, or believes it

	asked atomic.Bool  // its request has come
	last  atomic.Int64 // when it began, or when bytes last came or went: Unix nanoseconds
	end   context.CancelFunc
	done  chan struct{}
}

// touch notes that the connection is in use.
func (c *conn) touch() { c.last.Store(time.Now().UnixNano()) }

func (c *conn) serve(ctx context.Context) {
	s := c.door.server
	defer c.nc.Close()
	defer c.end()
	defer contain.OnDone(ctx, c.door.server.bug, func() { reset(c.nc) })()
	s.guard(func() {
		req, ok := c.handshake()
		if !ok {
			s.stats.refused.Add(1)
			return
		}
		c.door.rules.isolate(&req, c.door.name, c.nc.RemoteAddr())
		s.stats.requests.Add(1)
		if req.Command != Connect {
			c.resolve(ctx, req)
			return
		}
		if !c.ahead(req) {
			return
		}
		target, err := c.dial(ctx, req)
		if err != nil {
			c.fail(err)
			return
		}
		defer target.Close()
		defer contain.OnDone(ctx, c.door.server.bug, func() { target.Close() })()
		c.carry(target)
	})
}

// room makes room in the buffer for one byte at least; false: it is as long as it may be, and full.
func (c *conn) room() bool {
	if c.n == len(c.buf) && c.n < maxHead {
		buf := make([]byte, min(max(firstRead, 2*c.n), maxHead))
		copy(buf, c.buf[:c.n])
		c.buf = buf
	}
	return c.n < len(c.buf)
}

// handshake talks with the client up to its request; what it sent beyond stays in c.buf.
func (c *conn) handshake() (Request, bool) {
	c.nc.SetDeadline(time.Now().Add(c.door.server.handshakeTimeout()))
	for {
		n, ev := 0, event{kind: evMore}
		if !c.proto.unsaid(c.buf[:c.n]) {
			n, ev = c.proto.next(c.buf[:c.n])
		}
		c.n = copy(c.buf, c.buf[n:c.n])
		switch ev.kind {
		case evMore:
			if !c.room() {
				return Request{}, false // cannot be: next needs no more than maxHead
			}
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
			c.asked.Store(true)
			c.nc.SetDeadline(time.Time{})
			if !c.vet(ev) {
				c.refuse(c.proto.failed(NotAllowed))
				return Request{}, false
			}
			return ev.req, true
		case evRefuse:
			c.hint(ev.err)
			c.refuse(ev.reply)
			return Request{}, false
		}
	}
}

// vet looks for clients that look up names themselves: false is to refuse.
func (c *conn) vet(ev event) bool {
	a, ok := ev.req.Addr()
	known := c.door.server.Known
	if !ok || ev.named || ev.req.Command != Connect || known != nil && known(a) {
		return true
	}
	if c.door.rules.Safe {
		c.door.warn(warnAddress, "socks: an application asked for an address, not a name, and was refused (safe_socks): "+
			"it may look names up outside the network; set it to socks5h or \"remote DNS\"")
		return false
	}
	if !a.IsLoopback() && !a.IsPrivate() {
		c.door.warn(warnAddress, "socks: an application asked for an address, not a name: "+
			"it may look names up outside the network; set it to socks5h or \"remote DNS\"")
	}
	return true
}

func (c *conn) hint(err error) {
	switch {
	case errors.Is(err, errHTTP):
		c.door.warn(warnHTTP, err.Error())
	case errors.Is(err, errWebPage):
		c.door.warn(warnWebPage, err.Error())
	case c.door.server.Log != nil:
		c.door.server.Log.Debug("socks: connection refused", "err", err)
	}
}

// fail tells the client that its request came to nothing. One that was told that it is connected gets a reset.
func (c *conn) fail(err error) {
	s := c.door.server
	s.stats.failed.Add(1)
	code := c.door.rules.code(code(s.Code, err))
	if s.Log != nil {
		s.Log.Debug("socks: request failed", "why", problemOf(code).text, "code", code)
	}
	if c.told {
		if !errors.Is(err, context.Canceled) { // the application hung up, or the server ends
			c.door.tellBroken(code)
		}
		reset(c.nc)
		return
	}
	c.refuse(c.proto.failed(code))
}

// tell tells the client that it is connected, and says whether it took that.
func (c *conn) tell() bool {
	c.told = true
	c.nc.SetWriteDeadline(time.Now().Add(c.door.server.handshakeTimeout()))
	_, err := c.nc.Write(c.proto.connected())
	c.nc.SetWriteDeadline(time.Time{})
	return err == nil
}

// ahead has a client of an early listener believe that it is connected, and reads what it then says. false: it is gone, or its request
// cannot be.
func (c *conn) ahead(req Request) bool {
	s := c.door.server
	if !c.door.rules.Early || s.DialEarly == nil {
		return true
	}
	if s.Check != nil {
		if err := s.Check(req); err != nil {
			c.fail(err)
			return false
		}
	}
	if !c.tell() {
		return false
	}
	buf := make([]byte, mostEarly)
	c.n, c.buf = copy(buf, c.buf[:c.n]), buf
	over := make(chan struct{})
	enough := s.alarms.after(earlyWait, s.bug, func() {
		defer close(over)
		c.nc.SetReadDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !enough.stop() {
			<-over
			c.nc.SetReadDeadline(time.Time{})
		}
	}()
	for c.n == 0 || torn(c.buf[:c.n]) && c.n < len(c.buf) {
		n, err := c.nc.Read(c.buf[c.n:])
		c.n += n
		if err != nil {
			c.eof = err == io.EOF
			return c.eof || errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
	return true
}

// torn says whether b is the beginning of a hello of TLS, and more of it is to come: it may be longer than a packet.
func torn(b []byte) bool {
	const handshake, head = 0x16, 5
	return b[0] == handshake && (len(b) < head || len(b) < head+int(binary.BigEndian.Uint16(b[3:])))
}

// refuse sends a last reply, if there is one, and sees to it that it arrives.
func (c *conn) refuse(reply []byte) {
	if len(reply) == 0 {
		return
	}
	c.nc.SetWriteDeadline(time.Now().Add(c.door.server.handshakeTimeout()))
	if _, err := c.nc.Write(reply); err != nil {
		return
	}
	if w, ok := c.nc.(closeWriter); ok && !c.eof && w.CloseWrite() == nil {
		c.n = 0
		c.room()
		c.nc.SetReadDeadline(time.Now().Add(lingerTime))
		for left := maxLinger; left > 0; {
			n, err := c.nc.Read(c.buf)
			if err != nil {
				return
			}
			left -= n
		}
	}
}

// dial calls Dial, or DialEarly where the client has sent something to go along, while it watches the client.
func (c *conn) dial(ctx context.Context, req Request) (target net.Conn, err error) {
	s, first := c.door.server, c.buf[:c.n]
	if s.DialEarly == nil {
		first = nil
	}
	c.watching(ctx, func(ctx context.Context) {
		if len(first) == 0 {
			target, err = s.Dial(ctx, req)
		} else {
			target, err = s.DialEarly(ctx, req, first)
		}
	})
	if err == nil && target == nil {
		err = errors.New("socks: dial returned nothing")
	}
	if c.n -= len(first); c.n > 0 { // more came meanwhile
		c.buf = c.buf[len(first):]
	} else {
		c.buf = nil
	}
	return target, err
}

// resolve answers a RESOLVE or RESOLVE_PTR.
func (c *conn) resolve(ctx context.Context, req Request) {
	s := c.door.server
	if s.Resolve == nil {
		s.stats.failed.Add(1)
		c.refuse(c.proto.failed(CommandNotSupported))
		return
	}
	var a Answer
	var err error
	c.watching(ctx, func(ctx context.Context) { a, err = s.Resolve(ctx, req) })
	if err != nil {
		c.fail(err)
		return
	}
	c.refuse(c.proto.resolved(a)) // the answer is the last thing said
}

// watching calls do, and meanwhile, once that takes a while, watches the client: early data go to c.buf as far as there is
// room, and a client that is gone ends the attempt. One that has only sent its last byte is not gone.
func (c *conn) watching(ctx context.Context, do func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan struct{})
	watch := c.door.server.alarms.after(watchAfter, c.door.server.bug, func() {
		defer close(over)
		for c.room() {
			n, err := c.nc.Read(c.buf[c.n:])
			c.n += n
			if err == io.EOF {
				c.eof = true
				return
			}
			if err != nil {
				cancel() // gone, or told to stop because do is back
				return
			}
		}
	})
	defer func() {
		if watch.stop() {
			return
		}
		c.nc.SetReadDeadline(time.Unix(1, 0))
		<-over
		c.nc.SetReadDeadline(time.Time{})
	}()
	do(ctx)
}

type closeWriter interface{ CloseWrite() error }
