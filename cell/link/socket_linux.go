package link

import (
	"net"
	"os"
	"time"
	"unsafe"

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

// A transfer reads from a socket, or writes to it, by system calls that Go's scheduler is not told of: the socket is
// non-blocking, so they return after copying. Told of one, the scheduler takes the processor away from a call that lasts
// 20 µs, as one of 64 KiB may, wakes a thread for the next goroutine, and has the first thread ask for a processor again.
// It makes no garbage.
type transfer struct {
	pass func(func(fd uintptr) bool) error // raw.Read or raw.Write
	call uintptr
	name string
	step func(fd uintptr) bool // once, as a method value each time would be garbage

	// Of the transfer under way.
	buf  []byte
	n    int
	all  bool // go on until all of buf is through
	wait bool
	err  error
}

// transfers are both directions of t; nil: t is closed.
func transfers(t *net.TCPConn) (in, out *transfer) {
	raw, err := t.SyscallConn()
	if err != nil {
		return nil, nil
	}
	in = &transfer{pass: raw.Read, call: unix.SYS_READ, name: "read"}
	out = &transfer{pass: raw.Write, call: unix.SYS_WRITE, name: "write", all: true}
	in.step, out.step = in.once, out.once
	return in, out
}

// run reads what there is into b, or writes all of b; without wait it stops where it would have to wait.
func (t *transfer) run(b []byte, wait bool) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	t.buf, t.n, t.wait, t.err = b, 0, wait, nil
	err := t.pass(t.step)
	t.buf = nil
	if err == nil {
		err = t.err
	}
	return t.n, err
}

// WriteNow implements nowWriter.
func (t *transfer) WriteNow(b []byte) (int, error) { return t.run(b, false) }

// once goes on until the socket would block, which is false if we are to wait.
func (t *transfer) once(fd uintptr) bool {
	for {
		b := t.buf[t.n:]
		n, _, errno := unix.RawSyscall(t.call, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			if t.n += int(n); n == 0 || !t.all || t.n == len(t.buf) {
				return true
			}
		case unix.EINTR:
		case unix.EAGAIN:
			return !t.wait
		default:
			t.err = os.NewSyscallError(t.name, errno)
			return true
		}
	}
}
