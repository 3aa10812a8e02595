package lab

import "syscall"

// cameTo says whether a descriptor is a socket at a port of this process.
func cameTo(fd int, port uint16) bool {
	a, err := syscall.Getsockname(fd)
	if err != nil {
		return false
	}
	switch a := a.(type) {
	case *syscall.SockaddrInet4:
		return a.Port == int(port)
	case *syscall.SockaddrInet6:
		return a.Port == int(port)
	}
	return false
}
