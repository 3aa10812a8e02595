package stream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"

	"peel/cell"
)

func TestStreamIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		p := joinByHand(t, Config{}, Config{})
		p.start()
		c, r := p.dial()
		return c, r, func() { c.Close(); r.Close(); p.end() }, nil
	})
}

// random returns n bytes that are the same for the same seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	rand.NewChaCha8(key).Read(b)
	return b
}

func TestBytesArriveUnchangedBothWaysAtOnce(t *testing.T) {
	p := join(t, Config{}, Config{})
	c, r := p.dial()
	var wg sync.WaitGroup
	for i, ends := range [][2]*Stream{{c, r}, {r, c}} {
		sent := random(uint64(i), 5<<20+i)
		wg.Go(func() {
			if n, err := io.Copy(ends[0], bytes.NewReader(sent)); err != nil || n != int64(len(sent)) {
				t.Errorf("sent %d: %v", n, err)
			}
			ends[0].CloseWrite()
		})
		wg.Go(func() {
			h := sha256.New()
			if _, err := io.Copy(h, ends[1]); err != nil {
				t.Error(err)
			}
			if sum := sha256.Sum256(sent); !bytes.Equal(h.Sum(nil), sum[:]) {
				t.Error("other bytes came out")
			}
		})
	}
	wg.Wait()
	c.Close()
	r.Close()
	p.end()
}

func TestHalfClose(t *testing.T) {
	for _, first := range []string{"client", "relay"} {
		t.Run(first+" first", func(t *testing.T) {
			p := joinByHand(t, Config{}, Config{})
			p.start()
			a, b := p.dial()
			if first == "relay" {
				a, b = b, a
			}
			a.Write([]byte("question"))
			a.CloseWrite()
			if got, err := io.ReadAll(b); err != nil || string(got) != "question" {
				t.Fatalf("%q, %v", got, err)
			}
			if _, err := a.Write([]byte("more")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write after CloseWrite: %v", err)
			}
			b.Write([]byte("answer"))
			b.CloseWrite()
			if got, err := io.ReadAll(a); err != nil || string(got) != "answer" {
				t.Fatalf("%q, %v", got, err)
			}
			a.Close()
			b.Close()
			close(p.stop)
			<-p.pumpGone
			p.carry()
			p.once.Do(func() {})
			p.empty()
		})
	}
}

func TestCloseWithUnreadDataResets(t *testing.T) {
	p := join(t, Config{}, Config{})
	c, r := p.dial()
	r.Write([]byte("news"))
	io.ReadFull(c, make([]byte, 2))
	c.Close()
	var end *EndError
	if _, err := r.Read(make([]byte, 1)); !errors.As(err, &end) || end.Reason != cell.EndReset {
		t.Fatalf("the other end read %v", err)
	}
	if _, err := r.Write([]byte("x")); !errors.Is(err, &EndError{cell.EndReset}) {
		t.Fatalf("the other end wrote: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("this end read %v", err)
	}
}

// A browser that stops a download says "done" first and then wants no more of it.
func TestDownloadStopsWhenItsReaderLeaves(t *testing.T) {
	p := join(t, Config{}, Config{})
	c, r := p.dial()
	c.CloseWrite()
	io.Copy(io.Discard, r)
	over := make(chan error)
	go func() {
		_, err := io.Copy(r, endless{})
		over <- err
	}()
	io.CopyN(io.Discard, c, 3<<20)
	c.Close()
	if err := <-over; !errors.Is(err, &EndError{cell.EndReset}) {
		t.Fatalf("the sender got %v", err)
	}
	r.Close()
}

// The sender has used its whole window when the reader, who has read all of it, closes before a WINDOW has gone.
func TestCloseAtTheEndOfTheWindowLeavesNoWriterStuck(t *testing.T) {
	p := joinByHand(t, Config{}, Config{})
	c, err := p.client.Open(web)
	if err != nil {
		t.Fatal(err)
	}
	p.carry()
	r := <-p.accepted
	over := make(chan error)
	go func() {
		_, err := io.Copy(r, endless{})
		over <- err
	}()
	for sent := uint64(0); sent < InitialWindow; { // all of the window, and nothing from the reader
		if !p.move(p.relay, p.client) {
			<-p.wake
		}
		p.relay.mu.Lock()
		sent = r.send.sent
		p.relay.mu.Unlock()
	}
	if _, err := io.CopyN(io.Discard, c, InitialWindow); err != nil {
		t.Fatal(err)
	}
	c.Close()
	p.start()
	p.relay.cfg.Wake()
	if err := <-over; !errors.Is(err, &EndError{cell.EndReset}) {
		t.Fatalf("the sender got %v", err)
	}
	r.Close()
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestWhatCameBeforeAResetIsRead(t *testing.T) {
	p := join(t, Config{}, Config{})
	c, r := p.dial()
	r.Write([]byte("last words"))
	r.Reset(cell.EndTimeout)
	got, err := io.ReadAll(c)
	if string(got) != "last words" || !errors.Is(err, &EndError{cell.EndTimeout}) {
		t.Fatalf("%q, %v", got, err)
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Error("a timeout of the other end is none here")
	}
}

func TestRefusalTellsTheReason(t *testing.T) {
	p := join(t, Config{}, Config{})
	p.refuse = func(s *Stream, o Open) bool { s.Refuse(cell.EndPolicy); return true }
	if _, err := p.client.Dial(t.Context(), web); !errors.Is(err, &EndError{cell.EndPolicy}) {
		t.Errorf("dial: %v", err)
	}
	if _, err := p.client.Resolve(t.Context(), cell.Resolve{Name: "example.net"}); !errors.Is(err, &EndError{cell.EndPolicy}) {
		t.Errorf("resolve: %v", err)
	}
	p.end()
	p.empty()
}

func TestEarlyDataIsDeliveredOnce(t *testing.T) {
	p := joinByHand(t, Config{}, Config{})
	p.refuse = func(s *Stream, o Open) bool { p.accepted <- s; return true } // and does not connect yet
	p.start()
	c, err := p.client.Open(web)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("GET / ")); err != nil {
		t.Fatal(err)
	}
	r := <-p.accepted
	if got, err := io.ReadAll(io.LimitReader(r, 6)); err != nil || string(got) != "GET / " {
		t.Fatalf("%q, %v", got, err)
	}
	r.Connected(cell.Connected{TTL: 60})
	c.Write([]byte("HTTP/1.1"))
	c.CloseWrite()
	if got, err := io.ReadAll(r); err != nil || string(got) != "HTTP/1.1" {
		t.Fatalf("%q, %v", got, err)
	}
	r.Write([]byte("200"))
	r.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "200" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestEarlyDataOfARefusedStreamIsNoBreach(t *testing.T) {
	p := join(t, Config{}, Config{})
	p.refuse = func(s *Stream, o Open) bool { s.Refuse(cell.EndRefused); return true }
	for range 20 {
		c, err := p.client.Open(web)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Write(make([]byte, 20000))
		for err == nil {
			_, err = c.Write(make([]byte, 20000))
		}
		if !errors.Is(err, &EndError{cell.EndRefused}) {
			t.Fatal(err)
		}
	}
}

func TestDestinationIsWhatTheRelayConnectedTo(t *testing.T) {
	p := join(t, Config{}, Config{})
	p.refuse = func(s *Stream, o Open) bool {
		if o.Begin != web {
			t.Errorf("asked for %v", o.Begin)
		}
		s.Connected(connected)
		return true
	}
	s, err := p.client.Dial(t.Context(), web)
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := s.Destination(); !ok || got != connected {
		t.Errorf("got %v, %v", got, ok)
	}
	if got := s.RemoteAddr().String(); got != "example.net:80" {
		t.Error(got)
	}
	if got := fmt.Sprint(s.RemoteAddr().(Addr).LogValue()); strings.Contains(got, "example") {
		t.Errorf("a log would show %q", got)
	}
}

func TestThousandStreamsSideBySide(t *testing.T) {
	p := join(t, Config{}, Config{})
	go func() {
		for range 1000 {
			s := <-p.accepted
			go func() { io.Copy(s, s); s.CloseWrite() }()
		}
	}()
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			s, err := p.client.Dial(t.Context(), web)
			if err != nil {
				t.Error(err)
				return
			}
			sent := random(uint64(i), 3000+i)
			go func() { s.Write(sent); s.CloseWrite() }()
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("stream %d: %d of %d bytes, %v", i, len(got), len(sent), err)
			}
			s.Close()
		})
	}
	wg.Wait()
	for p.client.Streams() > 0 {
		p.carryOn()
	}
	p.end()
	p.empty()
}

// carryOn lets the pump of the pair run.
func (p *pair) carryOn() { p.client.cfg.Wake() }

// One reader that does nothing holds its window and not a byte more, and the other stream does not wait for it.
func TestStreamThatReadsNothingStopsNobodyElse(t *testing.T) {
	p := join(t, Config{}, Config{})
	stuck, stuckRelay := p.dial()
	c, r := p.dial()
	go io.Copy(stuckRelay, endless{})
	sent := random(7, 6<<20)
	go func() { r.Write(sent); r.CloseWrite() }()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	p.client.mu.Lock()
	held, all := stuck.in.len, p.client.unread
	p.client.mu.Unlock()
	if held != InitialWindow || all != held {
		t.Errorf("the stuck stream holds %d bytes, all hold %d; its window is %d", held, all, InitialWindow)
	}
}

// Two streams that both have data take turns, cell by cell, and what is not data goes first.
func TestStreamsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := joinByHand(t, Config{}, Config{})
		var streams []*Stream
		for range 3 {
			s, err := p.client.Open(web)
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, s)
			go s.Write(make([]byte, 5*cell.MaxData))
			synctest.Wait()
		}
		var order []string
		p.seen = func(from *Mux, m cell.Message) {
			if from == p.client {
				order = append(order, fmt.Sprintf("%v%d", m.Type, m.Stream))
			}
		}
		for len(order) < 9 {
			p.move(p.client, p.relay)
		}
		streams[1].Reset(cell.EndMisc)
		for p.move(p.client, p.relay) {
		}
		want := "BEGIN1 BEGIN2 BEGIN3 DATA1 DATA2 DATA3 DATA1 DATA2 DATA3 END2 DATA1 DATA3 DATA1 DATA3 DATA1 DATA3"
		if got := strings.Join(order, " "); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		synctest.Wait()
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := joinByHand(t, Config{}, Config{})
		go func() {
			for range 100 {
				p.carry()
				time.Sleep(time.Millisecond)
			}
		}()
		c, _ := p.dial()
		start := time.Now()
		c.SetReadDeadline(start.Add(3 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("read took %v", took)
		}
		time.Sleep(time.Second) // the pump has ended: nothing leaves any more
		c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		start = time.Now()
		if n, err := c.Write(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %d, %v", n, err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("write took %v", took)
		}
		// A deadline that moves while somebody waits counts from then on.
		c.SetReadDeadline(time.Now().Add(time.Hour))
		start = time.Now()
		go func() { time.Sleep(time.Second); c.SetReadDeadline(time.Now()) }()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		// Without one, Close ends the wait.
		c.SetDeadline(time.Time{})
		go func() { time.Sleep(time.Second); c.Close() }()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
		if err := c.SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("deadline of a closed stream: %v", err)
		}
	})
}

func TestDialEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := joinByHand(t, Config{}, Config{})
		var opened []*Stream
		p.refuse = func(s *Stream, _ Open) bool { opened = append(opened, s); return true }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { time.Sleep(time.Millisecond); p.carry() }()
		if _, err := p.client.Dial(ctx, web); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial: %v", err)
		}
		p.carry()
		p.empty() // the reset was answered
		if len(opened) != 1 {
			t.Fatalf("%d streams were opened", len(opened))
		}
		if _, err := opened[0].Read(make([]byte, 1)); !errors.Is(err, &EndError{cell.EndReset}) {
			t.Errorf("the relay read %v", err)
		}
		opened[0].Connected(cell.Connected{}) // too late, and harmless
		p.carry()

		// A request that never left is not sent, and one for a name is answered to nobody.
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		before := p.moved
		if _, err := p.client.Dial(ctx, web); !errors.Is(err, context.Canceled) {
			t.Errorf("dial: %v", err)
		}
		if p.carry(); p.moved != before {
			t.Error("the request was sent all the same")
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { time.Sleep(time.Millisecond); p.carry() }()
		if _, err := p.client.Resolve(ctx, cell.Resolve{Name: "example.net"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("resolve: %v", err)
		}
		opened[1].Refuse(cell.EndTimeout)
		p.carry()
		p.empty()
	})
}

func TestStreamsEndWithTheirCircuit(t *testing.T) {
	p := joinByHand(t, Config{}, Config{})
	p.start()
	c, r := p.dial()
	done, doneRelay := p.dial()
	r.Write([]byte("before"))
	doneRelay.Write([]byte("all of it"))
	doneRelay.Close()
	go func() { io.ReadFull(c, make([]byte, 1)) }()
	close(p.stop)
	<-p.pumpGone
	p.once.Do(func() {})
	p.carry()

	broken := errors.New("a relay died")
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Write(make([]byte, 1<<20)); err != broken {
			t.Errorf("write: %v", err)
		}
	})
	p.client.Close(broken)
	wg.Wait()
	if got, err := io.ReadAll(c); err != broken || !strings.HasSuffix("before", string(got)) {
		t.Errorf("read %q, %v", got, err)
	}
	if got, err := io.ReadAll(done); err != nil || string(got) != "all of it" {
		t.Errorf("a stream that was complete read %q, %v", got, err)
	}
	if _, err := p.client.Dial(t.Context(), web); err != broken {
		t.Errorf("dial: %v", err)
	}
	if n := p.client.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

func TestResolve(t *testing.T) {
	p := join(t, Config{}, Config{})
	want := cell.Resolved{Answers: []cell.Answer{{TTL: 60, Addr: connected.Addr}}}
	p.refuse = func(s *Stream, o Open) bool {
		if o.Type != cell.MsgResolve || o.Resolve.Name != "example.net" {
			t.Errorf("asked for %v", o.Type)
		}
		s.Answer(want)
		return true
	}
	got, err := p.client.Resolve(t.Context(), cell.Resolve{Name: "example.net"})
	if err != nil || len(got.Answers) != 1 || got.Answers[0] != want.Answers[0] {
		t.Errorf("%v, %v", got, err)
	}
	p.end()
	p.empty()
}

func TestDirectoryStream(t *testing.T) {
	p := join(t, Config{}, Config{})
	s, err := p.client.DialDir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := <-p.accepted
	if r.open.Type != cell.MsgBeginDir {
		t.Errorf("opened by %v", r.open.Type)
	}
	s.Write([]byte("GET"))
	if n, _ := r.Read(make([]byte, 3)); n != 3 {
		t.Errorf("%d bytes came", n)
	}
}
