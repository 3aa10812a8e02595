package netns

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// wireName is the name of a machine's one interface beside lo.
const wireName = "wire"

// Space is a network namespace with a wire: a machine. It has no name, so it is gone when this program is and all processes that were started in
// it are, whatever became of them.
type Space struct {
	addr netip.Addr
	file *os.File // keeps it
	wire *os.File
}

// NewSpace makes a namespace whose wire has an address, in a network that is all of 10.0.0.0/8.
func NewSpace(a netip.Addr) (*Space, error) {
	s := &Space{addr: a}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		var err error
		if s.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if s.wire, err = openWire(); err != nil {
			return err
		}
		return setUp(a)
	})
	if err != nil {
		s.Close()
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			err = fmt.Errorf("%w: network namespaces need root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and /dev/net/tun: run as root, and modprobe tun if there is none", err)
		}
		return nil, fmt.Errorf("netns: %w", err)
	}
	return s, nil
}

// newWire makes the namespace's TUN interface, which is gone when the file is closed.
func openWire() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	r, err := unix.NewIfreq(wireName)
	if err == nil {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("making a TUN interface: %w", err)
	}
	return os.NewFile(uintptr(fd), wireName), nil
}

// setUp gives the namespace's interfaces what they need.
func setUp(a netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, c := range []struct {
		what, name string
		request    uint
		set        func(*unix.Ifreq) error
	}{
		{"address", wireName, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(a.AsSlice()) }},
		{"network", wireName, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 0, 0, 0}) }},
		{"MTU", wireName, unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(mtu); return nil }},
		{"queue", wireName, unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) error { r.SetUint32(wireQueue); return nil }},
		{"state", wireName, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }},
		{"state", "lo", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }},
	} {
		r, err := unix.NewIfreq(c.name)
		if err == nil {
			if err = c.set(r); err == nil {
				err = unix.IoctlIfreq(fd, c.request, r)
			}
		}
		if err != nil {
			return fmt.Errorf("setting the %s of %s: %w", c.what, c.name, err)
		}
	}
	return nil
}

// wireQueue is how many packets wait in the kernel for us; one more is dropped.
const wireQueue = 1000

// Wire is the machine's: each Read is a packet that it sends, each Write one that comes for it.
func (s *Space) Wire() *os.File { return s.wire }

// Addr is the machine's address.
func (s *Space) Addr() netip.Addr { return s.addr }

// Do calls f on a thread that is in the namespace: sockets that it makes itself and processes that it starts are there. f must not
// leave such things to goroutines.
func (s *Space) Do(f func() error) error {
	return onThread(func() error { return s.enter(f) })
}

// enter calls f on this thread, which is then left in the namespace.
func (s *Space) enter(f func() error) error {
	if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("netns: entering a network namespace: %w", err)
	}
	return f()
}

// here calls f on this thread, to which the goroutine is locked, and goes back.
func (s *Space) here(f func() error) error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	defer home.Close()
	err = s.enter(f)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(fmt.Sprintf("netns: a thread cannot leave a namespace: %v", back)) // it was there before, and may be everywhere
	}
	return err
}

// onThread calls f on a thread of its own, which is in this program's namespace again when it has returned.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			err = f()
			// Where there is no way back the thread is left locked, and ends with this goroutine.
			if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back == nil {
				runtime.UnlockOSThread()
			}
			home.Close()
		}
		done <- err
	}()
	return <-done
}

// Start starts a process in the namespace. It is the calling thread that does it, for processes may end with the thread that started them.
func (s *Space) Start(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return s.here(cmd.Start)
}

// Listen listens for TCP in the namespace.
func (s *Space) Listen(at netip.AddrPort) (l net.Listener, err error) {
	err = s.Do(func() (err error) {
		l, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
		return err
	})
	return l, err
}

// DialContext dials from the namespace; the address must be one of IPv4 and a port.
func (s *Space) DialContext(ctx context.Context, network, addr string) (c net.Conn, err error) {
	if _, err := netip.ParseAddrPort(addr); err != nil { // names are looked up on other threads
		return nil, fmt.Errorf("netns: %w", err)
	}
	err = s.Do(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Close gives the namespace up.
func (s *Space) Close() error {
	var errs []error
	for _, f := range []*os.File{s.file, s.wire} {
		if f != nil {
			if err := f.Close(); !errors.Is(err, os.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
