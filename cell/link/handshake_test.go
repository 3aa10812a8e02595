package link_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// relayConfig is that of a relay, which knows the others given.
func relayConfig(t testing.TB, name string, known ...*link.Config) *link.Config {
	c := linktest.Config(t, name)
	c.Identify = func(k cell.Key) (cell.NodeID, bool) {
		for _, o := range known {
			if linktest.Public(o.Key) == k {
				return o.ID, true
			}
		}
		return cell.NodeID{}, false
	}
	return c
}

func TestRelaysKnowEachOtherAndClientsStayNameless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := relayConfig(t, "a")
		b := relayConfig(t, "b", a)
		client := &link.Config{}
		stranger := relayConfig(t, "stranger")
		for _, x := range []struct {
			name  string
			from  *link.Config
			named bool
		}{{"relay", a, true}, {"client", client, false}, {"relay not in the directory", stranger, false}} {
			na, nb := linktest.Pipe(linktest.Options{Delay: 20 * time.Millisecond, A: netip.MustParseAddrPort("192.0.2.7:999")})
			la, lb, erra, errb := linktest.Shake(na, nb, x.from, b, linktest.Peer(b))
			if erra != nil || errb != nil {
				t.Fatalf("%s: %v; %v", x.name, erra, errb)
			}
			if id, ok := la.PeerID(); !ok || id != b.ID {
				t.Errorf("%s: the dialled relay is %v, %v", x.name, id, ok)
			}
			if id, ok := lb.PeerID(); ok != x.named || ok && id != x.from.ID {
				t.Errorf("%s: the caller is %v, %v", x.name, id, ok)
			}
			if got := la.Observed(); got != netip.MustParseAddr("192.0.2.7") {
				t.Errorf("%s: our address is seen as %v", x.name, got)
			}
			if la.Skew().Abs() > time.Millisecond || lb.Skew() != 0 || lb.Observed().IsValid() {
				t.Errorf("%s: skew %v and %v between equal clocks", x.name, la.Skew(), lb.Skew())
			}
			if la.RemoteAddr().String() != "127.0.0.2:40002" {
				t.Errorf("%s: the other end is at %v", x.name, la.RemoteAddr())
			}
			la.Close()
			lb.Close()
		}
	})
}

func TestMessagesOfTheHandshakeHaveTheirSizes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := linktest.Config(t, "b")
		for _, x := range []struct {
			cfg   *link.Config
			first byte
			sizes []int
		}{
			{&link.Config{}, 0x11, []int{1233, 1160, 1426}},
			{linktest.Config(t, "a"), 0x12, []int{1281, 1160, 1426}},
		} {
			var sizes []int
			var first byte
			na, nb := linktest.Pipe(linktest.Options{Wiretap: func(fromA bool, p []byte) []byte {
				if sizes = append(sizes, len(p)); len(sizes) == 1 {
					first = p[0]
				}
				return p
			}})
			la, lb, erra, errb := linktest.Shake(na, nb, x.cfg, b, linktest.Peer(b))
			if erra != nil || errb != nil {
				t.Fatal(erra, errb)
			}
			if !slices.Equal(sizes, x.sizes) || first != x.first {
				t.Errorf("messages of %d bytes, the first beginning with %#x; want %d, %#x", sizes, first, x.sizes, x.first)
			}
			la.Close()
			lb.Close()
		}
	})
}

// counted counts what is read from a connection.
type counted struct {
	net.Conn
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.n += n
	return n, err
}

// handshakeError checks that err is a handshake's, and says the words.
func handshakeError(t *testing.T, who string, err error, words string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("%s: no error", who)
	case link.ReasonOf(err) != link.ReasonHandshake || !strings.HasPrefix(err.Error(), "link: "):
		t.Errorf("%s: %v is no error of a handshake", who, err)
	case !strings.Contains(err.Error(), words):
		t.Errorf("%s: %q does not say %q", who, err, words)
	}
}

func TestWrongPeersEndTheHandshakeInWords(t *testing.T) {
	a, b, other := linktest.Config(t, "a"), linktest.Config(t, "b"), linktest.Config(t, "other")
	foreign := *b
	foreign.Network[0] ^= 1
	for _, x := range []struct {
		name string
		with *link.Config
		peer link.Peer
	}{
		{"wrong identity", b, link.Peer{ID: other.ID, Key: linktest.Public(b.Key)}},
		{"wrong key", b, link.Peer{ID: b.ID, Key: linktest.Public(other.Key)}},
		{"another relay", other, linktest.Peer(b)},
		{"wrong network", &foreign, linktest.Peer(b)},
	} {
		for _, from := range []*link.Config{a, {}} {
			t.Run(x.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					na, nb := linktest.Pipe(linktest.Options{Delay: time.Millisecond})
					start := time.Now()
					_, _, erra, errb := linktest.Shake(na, nb, from, x.with, x.peer)
					handshakeError(t, "dialler", erra, "may be another relay")
					handshakeError(t, "acceptor", errb, "another network, another relay")
					if d := time.Since(start); d > time.Second {
						t.Errorf("it took %v", d)
					}
				})
			})
		}
	}
}

func TestSilenceAndGarbageEndWithin5SecondsAnd8KiB(t *testing.T) {
	b := linktest.Config(t, "b")
	garbage := strings.Repeat("\x11garbage", 10000)
	for _, x := range []struct {
		name, say, words string
		hangUp           bool
	}{
		{"silence", "", "silent", false},
		{"hanging up", "", "hung up", true},
		{"one byte", "\x11", "silent", false},
		{"half a message", garbage[:700], "silent", false},
		{"half a message and hanging up", garbage[:700], "hung up", true},
		{"garbage", garbage, "none of ours", false},
		{"garbage of a relay", "\x12" + garbage, "none of ours", false},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", "0x47", false},
		{"TLS", "\x16\x03\x01" + garbage, "0x16", false},
		{"another version", "\x21" + garbage, "version", false},
	} {
		t.Run("to acceptor: "+x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				na, nb := linktest.Pipe(linktest.Options{})
				defer na.Close()
				go func() {
					io.WriteString(na, x.say)
					if x.hangUp {
						na.Close()
					}
				}()
				start, count := time.Now(), &counted{Conn: nb}
				_, err := link.Accept(context.Background(), count, b)
				handshakeError(t, "acceptor", err, x.words)
				if d := time.Since(start); d > 5*time.Second {
					t.Errorf("it took %v", d)
				}
				if count.n > 8<<10 {
					t.Errorf("%d bytes read", count.n)
				}
			})
		})
	}
	for _, x := range []struct {
		name, say, words string
		hangUp           bool
	}{
		{"silence", "", "no answer", false},
		{"hanging up", "", "hung up", true},
		{"half a message", garbage[:700], "no answer", false},
		{"garbage", garbage, "not at the other end", false},
	} {
		t.Run("to dialler: "+x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				na, nb := linktest.Pipe(linktest.Options{})
				defer nb.Close()
				go func() {
					io.ReadFull(nb, make([]byte, 1233))
					io.WriteString(nb, x.say)
					if x.hangUp {
						nb.Close()
					}
				}()
				start, count := time.Now(), &counted{Conn: na}
				_, err := link.Dial(context.Background(), count, &link.Config{}, linktest.Peer(b))
				handshakeError(t, "dialler", err, x.words)
				if d := time.Since(start); d > 5*time.Second {
					t.Errorf("it took %v", d)
				}
				if count.n > 8<<10 {
					t.Errorf("%d bytes read", count.n)
				}
				if _, err := na.Write([]byte{1}); err == nil {
					t.Error("the connection is still open")
				}
			})
		})
	}
}

func TestReplayedCallComesToNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := linktest.Config(t, "a")
		b := relayConfig(t, "b", a)
		var said []byte // by a, all of it
		na, nb := linktest.Pipe(linktest.Options{Wiretap: func(fromA bool, p []byte) []byte {
			if fromA {
				said = append(said, p...)
			}
			return p
		}})
		la, lb, erra, errb := linktest.Shake(na, nb, a, b, linktest.Peer(b))
		if erra != nil || errb != nil {
			t.Fatal(erra, errb)
		}
		la.Close()
		lb.Close()

		for _, x := range []struct {
			name, words string
			n           int
		}{{"message 1 alone", "silent", 1281}, {"all of it", "does not have the keys", len(said)}} {
			na, nb = linktest.Pipe(linktest.Options{})
			go na.Write(said[:x.n])
			_, err := link.Accept(context.Background(), nb, b)
			handshakeError(t, x.name, err, x.words)
			na.Close()
		}
	})
}

// What a relay says of a link that broke goes into its log, and who called is nobody's business there.
func TestErrorsOfLinksDoNotNameWhoCalled(t *testing.T) {
	told := new(strings.Builder)
	b := relayConfig(t, "b")
	b.Log = slog.New(slog.NewTextHandler(told, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, shaken := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		caller, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		taken, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		breaks := func() { caller.(*net.TCPConn).SetLinger(0); caller.Close() }
		if !shaken {
			breaks()
			_, err = link.Accept(t.Context(), taken, b)
		} else {
			_, to, erra, errb := linktest.Shake(caller, taken, &link.Config{}, b, linktest.Peer(b))
			if erra != nil || errb != nil {
				t.Fatal(erra, errb)
			}
			breaks()
			to.Serve(nil)
			err = to.Err()
		}
		if err == nil {
			t.Fatalf("shaken %v: no error", shaken)
		}
		if at := caller.LocalAddr().String(); strings.Contains(err.Error()+told.String(), at) {
			t.Errorf("it says %q, the log %q: both must not name %s", err, told, at)
		}
	}
}

func TestEndOfContextEndsTheHandshake(t *testing.T) {
	for _, dial := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			na, nb := linktest.Pipe(linktest.Options{})
			defer nb.Close()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			start := time.Now()
			var err error
			if dial {
				_, err = link.Dial(ctx, na, &link.Config{}, linktest.Peer(linktest.Config(t, "b")))
			} else {
				_, err = link.Accept(ctx, na, linktest.Config(t, "b"))
			}
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
			if _, err := na.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the connection is not closed: %v", err)
			}
		})
	}
}

func TestClientsCannotAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		na, nb := linktest.Pipe(linktest.Options{})
		defer na.Close()
		_, err := link.Accept(context.Background(), nb, &link.Config{})
		handshakeError(t, "client", err, "without a link key")
	})
}

func TestDialToNoKeyFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		na, nb := linktest.Pipe(linktest.Options{})
		defer nb.Close()
		_, err := link.Dial(context.Background(), na, &link.Config{}, link.Peer{})
		handshakeError(t, "dialler", err, "")
	})
}

// FuzzAccept sends anything as a call: it is refused, nothing more than the handshake is read, and nobody panics.
func FuzzAccept(f *testing.F) {
	b := linktest.Config(f, "b")
	var err error
	if b.Key, err = ecdh.X25519().NewPrivateKey(bytes.Repeat([]byte{1}, 32)); err != nil { // the same in all processes that fuzz: they share the seeds
		f.Fatal(err)
	}
	for _, cfg := range []*link.Config{{}, linktest.Config(f, "a")} {
		var said []byte
		na, nb := linktest.Pipe(linktest.Options{Wiretap: func(fromA bool, p []byte) []byte {
			if fromA {
				said = append(said, p...)
			}
			return p
		}})
		la, lb, erra, errb := linktest.Shake(na, nb, cfg, b, linktest.Peer(b))
		if erra != nil || errb != nil {
			f.Fatal(erra, errb)
		}
		la.Close()
		lb.Close()
		f.Add(said)
		f.Add(said[:len(said)-1426])
		f.Add(said[:100])
		f.Add(append(bytes.Clone(said[:len(said)-1426]), make([]byte, 1426)...))
	}
	f.Add([]byte{})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, say []byte) {
		na, nb := linktest.Pipe(linktest.Options{})
		na.Write(say[:min(len(say), 64<<10)])
		na.Close()
		count := &counted{Conn: nb}
		if _, err := link.Accept(context.Background(), count, b); err == nil {
			t.Error("somebody without keys was accepted")
		}
		if count.n > 8<<10 {
			t.Errorf("%d bytes read", count.n)
		}
	})
}
