//go:build !linux

package link

import (
	"net"
	"time"
)

func kernelLook(*net.TCPConn) (rtt time.Duration, unsent int) { return 0, 0 }

func kernelHold(*net.TCPConn, int) {}

// A transfer is for Linux alone.
type transfer struct{}

func transfers(*net.TCPConn) (in, out *transfer) { return nil, nil }

func (*transfer) WriteNow([]byte) (int, error) { panic("link: no transfers here") }

func (*transfer) run([]byte, bool) (int, error) { panic("link: no transfers here") }
