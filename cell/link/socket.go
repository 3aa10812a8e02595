package link

import (
	"io"
	"net"
	"time"

	"peel/cell"
)

// look asks whoever carries nc for its round trip and for how many bytes have not been sent yet; 0: it does not say. A pipe
// in memory may tell by methods RTT and Unsent.
func look(nc net.Conn) (rtt time.Duration, unsent int) {
	switch nc := nc.(type) {
	case interface {
		RTT() time.Duration
		Unsent() int
	}:
		return nc.RTT(), nc.Unsent()
	case *net.TCPConn:
		return kernelLook(nc)
	}
	return 0, 0
}

// holdUnsent lets nc take no more when it holds so many cells that have not been sent yet, as far as it can be told. A pipe
// in memory may take this, in bytes, by a method HoldUnsent.
func holdUnsent(nc net.Conn, cells int) {
	switch nc := nc.(type) {
	case interface{ HoldUnsent(bytes int) }:
		nc.HoldUnsent(cells * cell.Size)
	case *net.TCPConn:
		kernelHold(nc, cells*cell.Size)
	}
}

// A port is a connection as a link uses it: one goroutine reads, one at a time writes.
type port struct {
	nc      net.Conn
	in, out *transfer // nil: nc is no socket that the system lets us use so
	now     nowWriter // nil: nc cannot be asked not to wait
}

// A nowWriter writes what can be written without waiting.
type nowWriter interface{ WriteNow([]byte) (int, error) }

// newPort makes a port of nc. A pipe in memory may be a nowWriter.
func newPort(nc net.Conn) *port {
	p := &port{nc: nc}
	if t, ok := nc.(*net.TCPConn); ok {
		p.in, p.out = transfers(t)
	}
	if p.out != nil {
		p.now = p.out
	} else {
		p.now, _ = nc.(nowWriter)
	}
	return p
}

func (p *port) Write(b []byte) (int, error) {
	if p.out == nil {
		return p.nc.Write(b)
	}
	return p.out.run(b, true)
}

func (p *port) Read(b []byte) (int, error) {
	if p.in == nil {
		return p.nc.Read(b)
	}
	n, err := p.in.run(b, true)
	if n == 0 && err == nil && len(b) > 0 {
		err = io.EOF
	}
	return n, err
}
