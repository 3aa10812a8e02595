package link

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// kernelRTT is TCP's smoothed round trip time; 0: it does not say.
func kernelRTT(nc *net.TCPConn) (rtt time.Duration) {
	control(nc, func(fd int) {
		if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			rtt = time.Duration(info.Rtt) * time.Microsecond
		}
	})
	return rtt
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
