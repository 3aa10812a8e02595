package socks

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// heard is all that a conversation led to.
type heard struct {
	replies []byte
	req     Request
	asked   bool // there is a request
	named   bool
	err     error
	rest    []byte // bytes after the request
}

// converse gives the bytes of each part to a new proto as a socket would.
func converse(parts ...[]byte) heard {
	var p proto
	var h heard
	var have []byte
	for i, part := range parts {
		have = append(have, part...)
		for {
			unsaid := p.unsaid(have)
			n, ev := p.next(have)
			if http := len(have) > 0 && p.speech == tunnel; unsaid && ev.kind != evMore || !unsaid && ev.kind == evMore && http {
				h.err = fmt.Errorf("of %q unsaid is %t, and next says %d", have, unsaid, ev.kind)
				return h
			}
			have = have[n:]
			h.replies = append(h.replies, ev.reply...)
			if ev.kind == evMore && len(have) >= maxHead {
				h.err = fmt.Errorf("asks for more with %d bytes", len(have))
				return h
			}
			if ev.kind == evMore {
				break
			}
			if ev.kind == evRefuse {
				h.err = ev.err
				return h
			}
			if ev.kind == evRequest {
				h.req, h.asked, h.named = ev.req, true, ev.named
				for _, later := range parts[i+1:] {
					have = append(have, later...)
				}
				h.rest = have
				return h
			}
		}
	}
	return h
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func text(s string) string { return hex.EncodeToString([]byte(s)) }

var long = strings.Repeat("a", 255)

// conversations are what clients say, and what they get.
var conversations = []struct {
	name    string
	in      string // hex
	replies string // hex
	status  int    // of HTTP, instead of replies
	command Command
	host    string // of the request; empty: there is none
	port    uint16
	creds   Credentials
	rest    string
	err     error
}{
	{name: "a name", in: "050100 05010003 0b" + text("example.com") + "01bb",
		replies: "0500", host: "example.com", port: 443},
	{name: "early data", in: "050100 05010003 0b" + text("example.com") + "0050" + text("GET / HTTP/1.0\r\n\r\n"),
		replies: "0500", host: "example.com", port: 80, rest: "GET / HTTP/1.0\r\n\r\n"},
	{name: "IPv4", in: "050100 05010001 01020304 0016", replies: "0500", host: "1.2.3.4", port: 22},
	{name: "IPv6", in: "050100 05010004 20010db8000000000000000000000001 0016",
		replies: "0500", host: "2001:db8::1", port: 22},
	{name: "IPv4 in IPv6 is IPv4", in: "050100 05010004 00000000000000000000ffff01020304 0016",
		replies: "0500", host: "1.2.3.4", port: 22},
	{name: "torsocks: an address as a name", in: "050100 05010003 07" + text("1.2.3.4") + "002a",
		replies: "0500", host: "1.2.3.4", port: 42},
	{name: "an IPv6 address as a name", in: "050100 05010003 0d" + text("2001:DB8::0:1") + "002a",
		replies: "0500", host: "2001:db8::1", port: 42},
	{name: "curl: GSSAPI offered and not chosen", in: "05020001 05010003 01" + text("a") + "0001",
		replies: "0500", host: "a", port: 1},
	{name: "user and password", in: "0503000102 0105" + text("alice") + "03" + text("pw1") + "05010003 01" + text("a") + "0001",
		replies: "0502 0100", host: "a", port: 1, creds: NewCredentials("alice", "pw1")},
	{name: "user and password empty", in: "050102 010000 05010003 01" + text("a") + "0001",
		replies: "0502 0100", host: "a", port: 1, creds: NewCredentials("", "")},
	{name: "the longest of all", in: "050102 01ff" + text(long) + "ff" + text(long) + "05010003 ff" + text(long) + "ffff" + text("x"),
		replies: "0502 0100", host: long, port: 65535, creds: NewCredentials(long, long), rest: "x"},
	{name: "reserved user name, known form", in: "050102 0109" + text("<torS0X>0") + "01" + text("k") + "05010003 01" + text("a") + "0001",
		replies: "0502 0100", host: "a", port: 1, creds: NewCredentials("<torS0X>0", "k")},
	{name: "255 methods", in: "05ff" + strings.Repeat("80", 254) + "00 05010003 01" + text("a") + "0001",
		replies: "0500", host: "a", port: 1},

	{name: "reserved user name, unknown form", in: "050102 010a" + text("<torS0X>1x") + "01" + text("k"), replies: "0502 0101", err: errReserved},
	{name: "login of another version", in: "050102 05", replies: "0502 0101", err: errMalformed},
	{name: "no method at all", in: "0500", replies: "05ff", err: errMethods},
	{name: "GSSAPI only", in: "050101", replies: "05ff", err: errMethods},
	{name: "BIND", in: "050100 050200", replies: "0500" + "05070001000000000000", err: errCommand},
	{name: "UDP ASSOCIATE", in: "050100 05030001 00000000 0000", replies: "0500" + "05070001000000000000", err: errCommand},
	{name: "command 0", in: "050100 0500", replies: "0500" + "05070001000000000000", err: errCommand},
	{name: "address type 2", in: "050100 05010002", replies: "0500" + "05080001000000000000", err: errAddrType},
	{name: "address type 0", in: "050100 05010000", replies: "0500" + "05080001000000000000", err: errAddrType},
	{name: "reserved byte", in: "050100 050101", replies: "0500" + "05010001000000000000", err: errMalformed},
	{name: "request of version 4", in: "050100 04", replies: "0500" + "05010001000000000000", err: errMalformed},
	{name: "empty name", in: "050100 0501000300", replies: "0500" + "05010001000000000000", err: errMalformed},
	{name: "name with a space", in: "050100 05010003 03" + text("a b") + "0001", replies: "0500" + "05010001000000000000", err: errMalformed},
	{name: "name with a zero byte", in: "050100 05010003 03" + text("a\x00b") + "0001", replies: "0500" + "05010001000000000000", err: errMalformed},
	{name: "name beyond ASCII", in: "050100 05010003 03" + text("aé") + "0001", replies: "0500" + "05010001000000000000", err: errMalformed},
	{name: "address with a zone", in: "050100 05010003 0c" + text("fe80::1%eth0") + "0001", replies: "0500" + "05010001000000000000", err: errMalformed},
	{name: "port 0", in: "050100 05010003 01" + text("a") + "0000", replies: "0500" + "05010001000000000000", err: errMalformed},

	{name: "RESOLVE, as tor-resolve asks", in: "050100 05f00003 0b" + text("example.com") + "0000",
		replies: "0500", command: Resolve, host: "example.com"},
	{name: "RESOLVE, as torsocks asks", in: "050100 05f00003 0b" + text("example.com") + "002a",
		replies: "0500", command: Resolve, host: "example.com"},
	{name: "RESOLVE_PTR", in: "050100 05f10001 01020304 0000", replies: "0500", command: ResolvePTR, host: "1.2.3.4"},
	{name: "RESOLVE_PTR, IPv6", in: "050100 05f10004 20010db8000000000000000000000001 0000",
		replies: "0500", command: ResolvePTR, host: "2001:db8::1"},
	{name: "RESOLVE_PTR of an address as text", in: "050100 05f10003 07" + text("1.2.3.4") + "0000",
		replies: "0500", command: ResolvePTR, host: "1.2.3.4"},
	{name: "RESOLVE_PTR of a name", in: "050100 05f10003 01" + text("a") + "0000",
		replies: "0500" + "05080001000000000000", err: errMalformed},

	{name: "SOCKS 4", in: "0401 0050 01020304 00", host: "1.2.3.4", port: 80},
	{name: "SOCKS 4, early data", in: "0401 0050 01020304 00" + text("GET /"), host: "1.2.3.4", port: 80, rest: "GET /"},
	{name: "SOCKS 4: the user id is the isolation", in: "0401 0050 01020304" + text("alice") + "00",
		host: "1.2.3.4", port: 80, creds: NewCredentials("alice", "")},
	{name: "SOCKS 4a", in: "0401 01bb 00000001" + text("bob") + "00" + text("example.com") + "00",
		host: "example.com", port: 443, creds: NewCredentials("bob", "")},
	{name: "SOCKS 4a, the longest", in: "0401 01bb 000000ff" + text(long) + "00" + text(long) + "00" + text("x"),
		host: long, port: 443, creds: NewCredentials(long, ""), rest: "x"},
	{name: "SOCKS 4a: an address as a name", in: "0401 01bb 00000001 00" + text("::ffff:1.2.3.4") + "00", host: "1.2.3.4", port: 443},
	{name: "SOCKS 4a: RESOLVE", in: "04f0 0000 00000001 00" + text("example.com") + "00", command: Resolve, host: "example.com"},
	{name: "SOCKS 4a: RESOLVE with a port", in: "04f0 002a 00000001 00" + text("example.com") + "00", command: Resolve, host: "example.com"},
	{name: "SOCKS 4: BIND", in: "0402", replies: "005b000000000000", err: errCommand},
	{name: "SOCKS 4: RESOLVE_PTR", in: "04f1", replies: "005b000000000000", err: errCommand},
	{name: "SOCKS 4: port 0", in: "0401 0000 01020304", replies: "005b000000000000", err: errMalformed},
	{name: "SOCKS 4: no address", in: "0401 0050 00000000 00", replies: "005b000000000000", err: errMalformed},
	{name: "SOCKS 4: user id too long", in: "0401 0050 01020304" + text(long+"a"), replies: "005b000000000000", err: errMalformed},
	{name: "SOCKS 4: reserved user id", in: "0401 0050 01020304" + text("<torS0X>1") + "00", replies: "005b000000000000", err: errReserved},
	{name: "SOCKS 4a: empty name", in: "0401 0050 00000001 0000", replies: "005b000000000000", err: errMalformed},
	{name: "SOCKS 4a: name with a space", in: "0401 0050 00000001 00" + text("a b") + "00", replies: "005b000000000000", err: errMalformed},
	{name: "SOCKS 4a: name too long", in: "0401 0050 00000001 00" + text(long+"a"), replies: "005b000000000000", err: errMalformed},

	{name: "CONNECT, as curl sends it", in: text("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n" +
		"User-Agent: curl/7.88.1\r\nProxy-Connection: Keep-Alive\r\n\r\n"), host: "example.com", port: 443},
	{name: "CONNECT, as nc and openssl send it", in: text("CONNECT 1.2.3.4:22 HTTP/1.0\r\n\r\nSSH-2.0"), host: "1.2.3.4", port: 22, rest: "SSH-2.0"},
	{name: "CONNECT to IPv6", in: text("CONNECT [2001:DB8::1]:22 HTTP/1.1\r\n\r\n"), host: "2001:db8::1", port: 22},
	{name: "CONNECT with user and password", in: text("CONNECT a:1 HTTP/1.1\r\nproxy-authorization:  basic YWxpY2U6cHc6MQ==\r\n\r\n"),
		host: "a", port: 1, creds: NewCredentials("alice", "pw:1")},
	{name: "CONNECT with an empty body", in: text("CONNECT a:1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n"), host: "a", port: 1},
	{name: "CONNECT, the longest", in: text("CONNECT a:1 HTTP/1.1\r\nX: " + strings.Repeat("x", maxHead-29) + "\r\n\r\n"), host: "a", port: 1},
	{name: "CONNECT, longer", in: text("CONNECT a:1 HTTP/1.1\r\nX: " + strings.Repeat("x", maxHead-28) + "\r\n\r\n"), status: 431, err: errTooLong},
	{name: "CONNECT from a web page", in: text("CONNECT a:1 HTTP/1.1\r\nOrigin: null\r\n\r\n"), status: 403, err: errWebPage},
	{name: "CONNECT by fetch", in: text("CONNECT a:1 HTTP/1.1\r\nSEC-FETCH-Mode: no-cors\r\n\r\n"), status: 403, err: errWebPage},
	{name: "CONNECT with another login", in: text("CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Bearer x\r\n\r\n"), status: 407, err: errLogin},
	{name: "CONNECT with two logins", in: text("CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic YTpi\r\nProxy-Authorization: Basic YTpj\r\n\r\n"),
		status: 400, err: errMalformed},
	{name: "CONNECT with a reserved user", in: text("CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic PHRvclMwWD4xOmE=\r\n\r\n"), status: 400, err: errReserved},
	{name: "CONNECT with a body", in: text("CONNECT a:1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n"), status: 400, err: errMalformed},
	{name: "CONNECT with a body in chunks", in: text("CONNECT a:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), status: 400, err: errMalformed},
	{name: "CONNECT without port", in: text("CONNECT a HTTP/1.1\r\n\r\n"), status: 400, err: errMalformed},
	{name: "CONNECT to port 0", in: text("CONNECT a:0 HTTP/1.1\r\n\r\n"), status: 400, err: errMalformed},
	{name: "CONNECT to port 65536", in: text("CONNECT a:65536 HTTP/1.1\r\n\r\n"), status: 400, err: errMalformed},
	{name: "CONNECT to a URL", in: text("CONNECT http://a:1 HTTP/1.1\r\n\r\n"), status: 400, err: errMalformed},
	{name: "CONNECT to a zone", in: text("CONNECT [fe80::1%25eth0]:1 HTTP/1.1\r\n\r\n"), status: 400, err: errMalformed},
	{name: "CONNECT of HTTP/2", in: text("CONNECT a:1 HTTP/2.0\r\n"), status: 400, err: errMalformed},
	{name: "CONNECT with a bare line feed", in: text("CONNECT a:1 HTTP/1.1\n"), status: 400, err: errMalformed},
	{name: "CONNECT with a folded line", in: text("CONNECT a:1 HTTP/1.1\r\nX: a\r\n b: c\r\n"), status: 400, err: errMalformed},
	{name: "OPTIONS", in: text("OPTIONS * HTTP/1.1\r\n\r\n"), status: 200, err: errOptions},
	{name: "OPTIONS for another origin", in: text("OPTIONS / HTTP/1.1\r\nAccess-Control-Request-Method: CONNECT\r\n"), status: 403, err: errWebPage},
	{name: "GET", in: text("GET / HTTP/1.1\r\n"), replies: hex.EncodeToString(page("GET")), err: errHTTP},
	{name: "HEAD", in: text("HEAD / HTTP/1.1\r\n"), replies: hex.EncodeToString(page("HEAD")), err: errHTTP},
	{name: "HTTP/2", in: text("PRI * HTTP/2.0\r\n"), replies: hex.EncodeToString(page("PRI")), err: errHTTP},
	{name: "the longest method", in: text("ABCDEFGHIJKLMNOP "), replies: hex.EncodeToString(page("ABCDEFGHIJKLMNOP")), err: errHTTP},
	{name: "not a method", in: text("ABCDEFGHIJKLMNOPQ"), err: errProtocol},
	{name: "an SSH server's greeting", in: text("SSH-2.0-x"), err: errProtocol},
	{name: "TLS", in: "160301", err: errProtocol},
	{name: "zero", in: "00", err: errProtocol},
}

func TestConversations(t *testing.T) {
	for _, c := range conversations {
		h := converse(unhex(t, c.in))
		if want := unhex(t, c.replies); c.status == 0 && !bytes.Equal(h.replies, want) {
			t.Errorf("%s: replies % x, want % x", c.name, h.replies, want)
		}
		if want := fmt.Sprintf("HTTP/1.1 %d ", c.status); c.status != 0 && !bytes.HasPrefix(h.replies, []byte(want)) {
			t.Errorf("%s: %q, want %q", c.name, h.replies, want)
		}
		if !errors.Is(h.err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, h.err, c.err)
		}
		if h.asked != (c.host != "") || h.req.Command != c.command || h.req.Host != c.host || h.req.Port != c.port || h.req.Isolation.Credentials != c.creds {
			t.Errorf("%s: asked %t for %q port %d", c.name, h.asked, h.req.Host, h.req.Port)
		}
		if string(h.rest) != c.rest {
			t.Errorf("%s: %q came after the request, want %q", c.name, h.rest, c.rest)
		}
	}
}

// same compares all but the error's wording.
func same(a, b heard) bool {
	return bytes.Equal(a.replies, b.replies) && a.asked == b.asked && a.named == b.named && a.req == b.req &&
		bytes.Equal(a.rest, b.rest) && fmt.Sprint(a.err) == fmt.Sprint(b.err)
}

func TestCutsDoNotMatter(t *testing.T) {
	for _, c := range conversations {
		in := unhex(t, c.in)
		whole := converse(in)
		if len(in) > 600 && c.host != "" && testing.Short() {
			continue
		}
		single := make([][]byte, len(in))
		for i := range in {
			single[i] = in[i : i+1]
			if h := converse(in[:i], in[i:]); !same(h, whole) {
				t.Errorf("%s: cut at %d: %+v, want %+v", c.name, i, h, whole)
			}
			for j := i; j < len(in) && len(in) < 64; j++ {
				if h := converse(in[:i], in[i:j], in[j:]); !same(h, whole) {
					t.Errorf("%s: cut at %d and %d: %+v, want %+v", c.name, i, j, h, whole)
				}
			}
		}
		if h := converse(single...); !same(h, whole) {
			t.Errorf("%s: byte by byte: %+v, want %+v", c.name, h, whole)
		}
	}
}

func TestUnfinishedAsksForMore(t *testing.T) {
	for _, c := range conversations {
		in := unhex(t, c.in)
		in = in[:len(in)-len(c.rest)]
		if c.err != nil {
			continue // decided as early as possible
		}
		for i := range in {
			if h := converse(in[:i]); h.asked || h.err != nil {
				t.Errorf("%s: the first %d bytes led to %+v", c.name, i, h)
			}
		}
	}
}

// check holds what must be true of any conversation.
func check(t testing.TB, in []byte, cut int) {
	h := converse(in)
	if g := converse(in[:cut], in[cut:]); !same(h, g) {
		t.Fatalf("% x: cut at %d: %+v, want %+v", in, cut, g, h)
	}
	if h.asked {
		if n := len(h.req.Host); n == 0 || n > 255 || (h.req.Port == 0) != (h.req.Command != Connect) || !bytes.HasSuffix(in, h.rest) {
			t.Fatalf("% x: request for %q port %d", in, h.req.Host, h.req.Port)
		}
		if a, ok := h.req.Addr(); ok && (a.String() != h.req.Host || a.Is4In6()) {
			t.Fatalf("% x: address %q is not in its shortest form", in, h.req.Host)
		}
	}
	if bytes.Contains(h.replies, []byte{5, 6, 0, 1}) {
		t.Fatalf("% x: replied 06", in)
	}
}

// Three million with PEEL_SLOW=1.
func TestMutations(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	n := 200_000
	if os.Getenv("PEEL_SLOW") == "1" {
		n = 3_000_000
	} else {
		t.Logf("%d mutations; three million with PEEL_SLOW=1", n)
	}
	var seeds [][]byte
	for _, c := range conversations {
		if in := unhex(t, c.in); len(in) < 1000 { // the longest would take most of the time
			seeds = append(seeds, in)
		}
	}
	var buf []byte
	for range n {
		buf = append(buf[:0], seeds[rng.IntN(len(seeds))]...)
		for range 1 + rng.IntN(3) {
			i := rng.IntN(len(buf))
			switch rng.IntN(4) {
			case 0:
				buf[i] = byte(rng.Uint32())
			case 1:
				buf[i] ^= 1 << rng.IntN(8)
			case 2:
				buf = append(buf[:i], buf[min(i+1+rng.IntN(4), len(buf)):]...)
			case 3:
				buf = append(buf, byte(rng.IntN(6)))
			}
			if len(buf) == 0 {
				buf = append(buf, 5)
			}
		}
		check(t, buf, rng.IntN(len(buf)+1))
	}
}

func FuzzProto(f *testing.F) {
	for _, c := range conversations {
		in := unhex(f, c.in)
		f.Add(in, uint(len(in)/2))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint) {
		check(t, in, int(cut%uint(len(in)+1)))
	})
}

func TestLogsHideRequests(t *testing.T) {
	h := converse(unhex(t, "050102 0105"+text("alice")+"03"+text("pw1")+"05010003 0b"+text("example.com")+"0051"))
	if !h.asked {
		t.Fatal(h.err)
	}
	var log bytes.Buffer
	opts := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	for _, l := range []*slog.Logger{slog.New(slog.NewTextHandler(&log, opts)), slog.New(slog.NewJSONHandler(&log, opts))} {
		l.Info("x", "req", h.req, "iso", h.req.Isolation, "creds", h.req.Isolation.Credentials)
	}
	fmt.Fprintf(&log, "%v %+v %#v %s", h.req, h.req, h.req, &h.req)
	fmt.Fprintf(&log, "%v %+v %#v", h.req.Isolation, h.req.Isolation, h.req.Isolation.Credentials)
	for _, secret := range []string{"alice", "pw1", "example", "81"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is shown: %s", secret, log.String())
		}
	}
	if !strings.Contains(log.String(), scrubbed) {
		t.Error(log.String())
	}
}

func TestCredentialsTellApart(t *testing.T) {
	all := []Credentials{{}, NewCredentials("", ""), NewCredentials("a", ""), NewCredentials("", "a"), NewCredentials("a", "a")}
	for i, a := range all {
		for j, b := range all {
			if (a == b) != (i == j) {
				t.Errorf("%d and %d", i, j)
			}
		}
	}
}
