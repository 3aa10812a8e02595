package lab

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"peel/testnet/plan"
	"peel/testnet/story"
)

const (
	idle        = time.Minute // a service ends a connection on which so long nothing moves
	mostRequest = 1 << 30     // bytes that a web server sends for one request
)

// service is a plain TCP server outside the network.
type service struct {
	name, kind string
	addr       netip.Addr
	port       uint16
	listener   net.Listener
	mu         sync.Mutex
	conns      map[net.Conn]struct{} // nil: it is stopped
	wg         sync.WaitGroup
}

// at is where the service listens.
func (s *service) at() netip.AddrPort { return netip.AddrPortFrom(s.addr, s.port) }

func (s *service) start(l *Lab) error {
	var err error
	if s.listener, err = l.ground.Listen(s.at()); err != nil {
		return fmt.Errorf("lab: %s: %w", s.name, err)
	}
	s.conns = make(map[net.Conn]struct{})
	l.story.State(s.name, story.Up)
	s.wg.Go(func() {
		for {
			c, err := s.listener.Accept()
			if err != nil {
				return
			}
			if !s.keep(c) {
				continue
			}
			s.wg.Go(func() {
				s.serve(c)
				s.drop(c)
			})
		}
	})
	return nil
}

func (s *service) keep(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		c.Close()
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *service) drop(c net.Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	c.Close()
}

func (s *service) stop() {
	if s.listener == nil {
		return
	}
	s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
}

// noise is n bytes that follow from a key.
func noise(key uint64, n int64) io.Reader {
	var seed [32]byte
	for i := range 8 {
		seed[i] = byte(key >> (8 * i))
	}
	return io.LimitReader(rand.NewChaCha8(seed), n)
}

// serve answers one connection. web: "GET /noise/<key>/<n>" as HTTP/1.0; echo: what comes; sink: the SHA-256 of all that came.
func (s *service) serve(c net.Conn) {
	quiet := &moving{Conn: c}
	switch s.kind {
	case "echo":
		io.Copy(onlyWriter{quiet}, onlyReader{quiet})
	case "sink":
		h := sha256.New()
		if _, err := io.Copy(h, onlyReader{quiet}); err == nil {
			fmt.Fprintf(quiet, "%x\n", h.Sum(nil))
		}
	case "web":
		line, err := bufio.NewReader(io.LimitReader(quiet, 4096)).ReadString('\n')
		if err != nil {
			return
		}
		var key uint64
		var n int64
		if _, err := fmt.Sscanf(line, "GET /noise/%d/%d HTTP/1.0", &key, &n); err != nil || n < 0 || n > mostRequest {
			io.WriteString(quiet, "HTTP/1.0 404 Not Found\r\n\r\n")
			return
		}
		fmt.Fprintf(quiet, "HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n", n)
		io.Copy(onlyWriter{quiet}, noise(key, n))
	}
}

// moving is a connection that ends when nothing moves on it for long.
type moving struct{ net.Conn }

func (m *moving) Read(b []byte) (int, error) {
	m.SetReadDeadline(time.Now().Add(idle))
	return m.Conn.Read(b)
}

func (m *moving) Write(b []byte) (int, error) {
	m.SetWriteDeadline(time.Now().Add(idle))
	return m.Conn.Write(b)
}

type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// wrongError says that bytes came that were not sent.
type wrongError struct{ text string }

func (e *wrongError) Error() string { return e.text }

// compare reads what should be noise and says where it is something else.
func compare(r io.Reader, key uint64, n int64) error {
	want := noise(key, n)
	got, exp := make([]byte, 32<<10), make([]byte, 32<<10)
	for at := int64(0); at < n; {
		k, err := r.Read(got[:min(int64(len(got)), n-at)])
		if _, e := io.ReadFull(want, exp[:k]); e != nil {
			return e
		}
		for i := range k {
			if got[i] != exp[i] {
				return &wrongError{fmt.Sprintf("byte %d of %d is %#x and should be %#x", at+int64(i), n, got[i], exp[i])}
			}
		}
		if at += int64(k); err != nil && at < n {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("after %d of %d bytes: %w", at, n, err)
		}
	}
	return nil
}

// use does one exchange with a service over a connection to it, and says when the first byte came.
func (s *service) use(c net.Conn, key uint64, size plan.Bytes) (first time.Time, err error) {
	n := int64(size)
	r := bufio.NewReaderSize(c, 32<<10)
	switch s.kind {
	case "web":
		if _, err := fmt.Fprintf(c, "GET /noise/%d/%d HTTP/1.0\r\n\r\n", key, n); err != nil {
			return first, err
		}
		status, err := r.ReadString('\n')
		if err != nil {
			return first, fmt.Errorf("before the answer: %w", noEOF(err))
		}
		first = time.Now()
		if !strings.HasPrefix(status, "HTTP/1.0 200 ") {
			return first, &wrongError{fmt.Sprintf("the answer begins %.40q", status)}
		}
		for line := ""; line != "\r\n"; {
			if line, err = r.ReadString('\n'); err != nil {
				return first, noEOF(err)
			}
		}
		if err := compare(r, key, n); err != nil {
			return first, err
		}
		if more, err := r.ReadByte(); err == nil {
			return first, &wrongError{fmt.Sprintf("after the last byte came %#x", more)}
		}
		return first, nil
	case "echo":
		sent := make(chan error, 1)
		go func() {
			_, err := io.Copy(onlyWriter{c}, noise(key, n))
			sent <- err
		}()
		if _, err = r.Peek(1); err == nil {
			first = time.Now()
			err = compare(r, key, n)
		}
		if err != nil {
			c.Close()
		}
		if e := <-sent; err == nil {
			err = e
		}
		return first, err
	}
	h := sha256.New()
	if _, err := io.Copy(onlyWriter{c}, io.TeeReader(noise(key, n), h)); err != nil {
		return first, err
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		if err := w.CloseWrite(); err != nil {
			return first, err
		}
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return first, fmt.Errorf("before the hash: %w", noEOF(err))
	}
	if want := fmt.Sprintf("%x\n", h.Sum(nil)); line != want {
		return time.Now(), &wrongError{"the hash of what was sent is another at the far end"}
	}
	return time.Now(), nil
}

// noEOF makes an end that comes too early an error of its own.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// noNames knows no names: the services of a plan are reached by address.
type noNames struct{}

// LookupNetIP implements exit.Resolver.
func (noNames) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// LookupAddr implements exit.Resolver.
func (noNames) LookupAddr(_ context.Context, addr string) ([]string, error) {
	return nil, &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}
}
