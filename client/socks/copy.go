package socks

import (
	"cmp"
	"io"
	"net"
	"sync"
	"time"

	"peel/cell/contain"
)

// bufferSize is what one direction of a connection holds at most between read and write.
const bufferSize = 32 << 10

// lookEvery is how often a client that has sent its last byte is looked at. The system asks as often whether it is there.
const lookEvery = 15 * time.Second

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// carry tells the client that it is connected, unless it was told, and then copies both ways until both ends have sent
// their last byte or either fails. An end's last byte is passed on (CloseWrite); a failure ends both
// directions at once, with a reset for the client so that it does not take a part for the whole.
func (c *conn) carry(target net.Conn) {
	if !c.told && !c.tell() {
		return
	}
	c.touch()

	over := make(chan struct{}) // closed before the client is sent its last byte
	var up contain.Group
	up.Go(c.door.server.bug, func() {
		ok := false
		defer func() {
			if !ok {
				reset(c.nc)
				target.Close()
			}
		}()
		ok = c.up(target) && c.stays(over)
	})
	ok := false
	defer func() {
		if !ok {
			reset(c.nc)
			target.Close()
		}
		up.Wait()
	}()
	ok = c.down(target, over)
}

// reset closes a connection so that its other end cannot take what it got for the whole.
func reset(nc net.Conn) {
	if l, ok := nc.(interface{ SetLinger(int) error }); ok {
		l.SetLinger(0)
	}
	nc.Close()
}

// up carries what the client sends, early data first, and says whether it ended well.
func (c *conn) up(target net.Conn) bool {
	if c.n > 0 {
		if _, err := target.Write(c.buf[:c.n]); err != nil {
			return false
		}
		c.buf, c.n = nil, 0
	}
	if !c.eof {
		if err := c.transfer(target, c.nc); err != nil {
			return false
		}
	}
	if w, ok := target.(closeWriter); ok {
		return w.CloseWrite() == nil
	}
	return target.Close() == nil
}

// stays waits until the client, which has sent its last byte, gets its own, and says whether it was there for so long. One that closed its
// connection looks like one that waits for an answer, until it is sent something: the system's keep-alive does that, and an empty write is
// told what came of it.
func (c *conn) stays(over <-chan struct{}) bool {
	if !socket(c.nc) {
		return true
	}
	look := time.NewTicker(cmp.Or(c.door.server.lookEvery, lookEvery))
	defer look.Stop()
	for {
		select {
		case <-over:
			return true
		case <-look.C:
		}
		if _, err := c.nc.Write(nil); err != nil {
			select {
			case <-over: // it is we who ended it
				return true
			default:
				return false
			}
		}
	}
}

// down carries what comes for the client, and says whether it ended well.
func (c *conn) down(target net.Conn, over chan<- struct{}) bool {
	err := c.transfer(c.nc, target)
	close(over)
	if err != nil {
		return false
	}
	if w, ok := c.nc.(closeWriter); ok {
		return w.CloseWrite() == nil
	}
	return false
}

// transfer copies src to dst up to its end, and notes whenever bytes came. Where the far end can write to or read from
// the client's connection by itself, that saves a copy. The client's own such methods (of net.TCPConn) are left
// out: they save nothing towards a connection that is no socket, and allocate a buffer each.
func (c *conn) transfer(dst, src net.Conn) error {
	to, from := noted{dst, c}, noted{src, c}
	if w, ok := src.(io.WriterTo); ok && !socket(src) {
		_, err := w.WriteTo(to)
		return err
	}
	if r, ok := dst.(io.ReaderFrom); ok && !socket(dst) {
		_, err := r.ReadFrom(from)
		return err
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	_, err := io.CopyBuffer(to, from, buf[:])
	return err
}

func socket(c net.Conn) bool {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// noted reads and writes a connection, and nothing else of it; c learns that it is in use.
type noted struct {
	io.ReadWriter
	c *conn
}

func (n noted) Read(b []byte) (int, error) {
	m, err := n.ReadWriter.Read(b)
	n.c.touch()
	return m, err
}

func (n noted) Write(b []byte) (int, error) {
	m, err := n.ReadWriter.Write(b)
	n.c.touch()
	return m, err
}

// WriteBuffers writes several buffers by one call of the system, as a stream does that has a lot.
func (n noted) WriteBuffers(b *net.Buffers) (int64, error) {
	m, err := b.WriteTo(n.ReadWriter)
	n.c.touch()
	return m, err
}
