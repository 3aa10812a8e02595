//go:build !linux

package link

import (
	"net"
	"time"
)

func kernelRTT(*net.TCPConn) time.Duration { return 0 }

func kernelHold(*net.TCPConn, int) {}
