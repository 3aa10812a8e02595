package link

import (
	"net"
	"time"

	"peel/cell"
)

// roundTrip is the round trip of nc as whoever carries it measures it; 0: it does not say. A pipe in memory may tell by
// a method RTT.
func roundTrip(nc net.Conn) time.Duration {
	switch nc := nc.(type) {
	case interface{ RTT() time.Duration }:
		return nc.RTT()
	case *net.TCPConn:
		return kernelRTT(nc)
	}
	return 0
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
