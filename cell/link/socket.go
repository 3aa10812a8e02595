package link

import (
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
