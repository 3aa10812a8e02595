package socks

import (
	"context"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// whoStays is a server whose far ends take an end for no reason to go. What is sent on word, the first of them says.
func whoStays(t *testing.T) (s *Server, word chan string) {
	word = make(chan string)
	over := make(chan struct{})
	var others atomic.Bool
	to := listen(t, func(c *net.TCPConn) {
		if others.Swap(true) {
			<-over
			return
		}
		for {
			select {
			case w := <-word:
				io.WriteString(c, w)
			case <-over:
				return
			}
		}
	})
	t.Cleanup(func() { close(over) })
	return &Server{lookEvery: time.Millisecond, Dial: func(ctx context.Context, r Request) (net.Conn, error) {
		return dialDirect(ctx, Request{Host: "127.0.0.1", Port: to.Port()})
	}}, word
}

// killed sends its last byte, waits for an answer, and is killed.
func killed(t *testing.T, addr string) {
	c := connect(t, addr, netip.MustParseAddrPort("192.0.2.1:80"))
	c.CloseWrite()
	c.SetLinger(0)
	c.Close()
}

// The far end may never say a word to it.
func TestApplicationThatIsGoneBehindItsLastByteTakesNoPlace(t *testing.T) {
	s, _ := whoStays(t)
	killed(t, start(t, s))
	eventually(t, "its place is free", func() bool { return s.Stats().Open == 0 })
}

func TestApplicationThatIsGoneFromAUnixSocketTakesNoPlace(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Skip("no unix sockets here: ", err)
	}
	s, _ := whoStays(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	defer func() { cancel(); <-done }()
	c, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Write(ask("example.com", 80))
	want(t, c, append([]byte{5, 0}, reply(Succeeded)...))
	c.Close()
	eventually(t, "its place is free", func() bool { return s.Stats().Open == 0 })
}

// An application that has sent its last byte and waits, as nc -N does, is looked at as often, and gets what the far end says.
func TestApplicationThatWaitsBehindItsLastByteStays(t *testing.T) {
	s, word := whoStays(t)
	addr := start(t, s)
	c := connect(t, addr, netip.MustParseAddrPort("192.0.2.1:80"))
	c.CloseWrite()
	for range 3 {
		killed(t, addr)
		eventually(t, "another's place is free", func() bool { return s.Stats().Open == 1 })
		word <- "answer"
		want(t, c, []byte("answer"))
	}
}
