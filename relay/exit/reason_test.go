package exit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"peel/cell"
)

func TestReasons(t *testing.T) {
	dial := func(e syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", e)}
	}
	for _, c := range []struct {
		err  error
		want cell.EndReason
	}{
		{nil, cell.EndDone},
		{io.EOF, cell.EndDone},
		{io.ErrUnexpectedEOF, cell.EndReset},
		{dial(syscall.ECONNREFUSED), cell.EndRefused},
		{dial(syscall.ECONNRESET), cell.EndReset},
		{dial(syscall.EPIPE), cell.EndReset},
		{dial(syscall.ETIMEDOUT), cell.EndTimeout},
		{dial(syscall.EHOSTUNREACH), cell.EndUnreachable},
		{dial(syscall.ENETUNREACH), cell.EndUnreachable},
		{dial(syscall.EADDRNOTAVAIL), cell.EndUnreachable},
		{dial(syscall.EPERM), cell.EndUnreachable},
		{dial(syscall.EMFILE), cell.EndBusy},
		{dial(syscall.ENOBUFS), cell.EndBusy},
		{dial(syscall.EINVAL), cell.EndMisc},
		{os.ErrDeadlineExceeded, cell.EndTimeout},
		{context.DeadlineExceeded, cell.EndTimeout},
		{context.Canceled, cell.EndMisc},
		{&net.DNSError{IsNotFound: true}, cell.EndNotFound},
		{&net.DNSError{IsTimeout: true}, cell.EndResolveFailed},
		{errBusy, cell.EndBusy},
		{fmt.Errorf("wrapped: %w", errPolicy), cell.EndPolicy},
		{errors.New("anything"), cell.EndMisc},
	} {
		if got := Reason(c.err); got != c.want || !got.Valid() {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}

func TestConnectionThatIsResetSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := newDialer(t, Config{Policy: policy(t, "accept 127.0.0.0/8:*")})
	c, _, err := d.Dial(t.Context(), cell.Begin{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).AddrPort().Port()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.(*net.TCPConn).SetLinger(0)
	s.Close()
	if _, err := c.Read(make([]byte, 1)); Reason(err) != cell.EndReset {
		t.Errorf("%v: %v", err, Reason(err))
	}
}
