package admin

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// ofOurs says whether the user at the other end of a unix socket is ours, or root. Other connections are not asked.
func ofOurs(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return true
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	var who *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { who, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || failed != nil {
		return false
	}
	return who.Uid == 0 || int(who.Uid) == os.Geteuid()
}
