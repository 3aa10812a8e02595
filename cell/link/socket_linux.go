package link

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// kernelLook is TCP's smoothed round trip time, and how many bytes it has not sent for the first time; 0: it does not say.
func kernelLook(nc *net.TCPConn) (rtt time.Duration, unsent int) {
	control(nc, func(fd int) {
		if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			rtt, unsent = time.Duration(info.Rtt)*time.Microsecond, int(info.Notsent_bytes)
		}
	})
	return rtt, unsent
}

// kernelHold sets how many bytes may wait in the kernel that were never sent. A kernel that cannot do it holds more.
func kernelHold(nc *net.TCPConn, bytes int) {
	control(nc, func(fd int) { unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes) })
}

// control calls do with nc's file descriptor, unless nc is closed.
func control(nc *net.TCPConn, do func(fd int)) {
	if raw, err := nc.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { do(int(fd)) })
	}
}
