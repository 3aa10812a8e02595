package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"peel/cell/link/linktest"
	"peel/cell/memtest"
)

// ask writes a question; a size makes it one with EDNS.
func ask(t testing.TB, name string, typ dnsmessage.Type, size int) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 0xBEEF, RecursionDesired: true})
	n, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	b.StartQuestions()
	b.Question(dnsmessage.Question{Name: n, Type: typ, Class: dnsmessage.ClassINET})
	if size > 0 {
		var h dnsmessage.ResourceHeader
		h.SetEDNS0(size, 0, false)
		b.StartAdditionals()
		b.OPTResource(h, dnsmessage.OPTResource{})
	}
	out, err := b.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// book is a lookup that knows some names, and counts.
type book struct {
	mu    sync.Mutex
	asked []Query
}

func (k *book) lookup(ctx context.Context, q Query) ([]Answer, error) {
	k.mu.Lock()
	k.asked = append(k.asked, q)
	k.mu.Unlock()
	v4, v6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	switch {
	case q.Addr == v4 || q.Addr == v6:
		return []Answer{{TTL: 60, Name: "one.example"}, {TTL: 60, Name: strings.Repeat("x", 70)}}, nil // the second is no name
	case q.Host == "both.example":
		return []Answer{{TTL: 60, Addr: v4}, {TTL: 5, Addr: v6}}, nil
	case q.Host == "four.example":
		return []Answer{{TTL: 1 << 30, Addr: v4}}, nil
	case q.Host == "many.example":
		var all []Answer
		for i := range 32 {
			all = append(all, Answer{TTL: 60, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}, Answer{TTL: 60, Addr: netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)})})
		}
		return all, nil
	case q.Host == "fails.example":
		return nil, errors.New("no circuit")
	case q.Host == "slow.example":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, ErrNotFound
}

var local = asker{client: netip.MustParseAddr("127.0.0.1"), listener: "l", udp: true}

func TestQuestions(t *testing.T) {
	k := new(book)
	s := &Server{Lookup: k.lookup}
	for _, x := range []struct {
		name string
		typ  dnsmessage.Type
		code dnsmessage.RCode
		want string // the answers
	}{
		{"both.example.", dnsmessage.TypeA, 0, "192.0.2.7/60"},
		{"BOTH.Example.", dnsmessage.TypeAAAA, 0, "2001:db8::7/10"},
		{"four.example.", dnsmessage.TypeA, 0, "192.0.2.7/300"},
		{"four.example.", dnsmessage.TypeAAAA, 0, ""},
		{"none.example.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"fails.example.", dnsmessage.TypeA, dnsmessage.RCodeServerFailure, ""},
		{"7.2.0.192.in-addr.arpa.", dnsmessage.TypePTR, 0, "one.example./60"},
		{"7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.IP6.arpa.", dnsmessage.TypePTR, 0, "one.example./60"},
		{"2.0.192.in-addr.arpa.", dnsmessage.TypePTR, dnsmessage.RCodeNameError, ""},
		{"07.2.0.192.in-addr.arpa.", dnsmessage.TypePTR, dnsmessage.RCodeNameError, ""},
		{"both.example.", dnsmessage.TypePTR, dnsmessage.RCodeNameError, ""},
		{"a b.example.", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{".", dnsmessage.TypeA, dnsmessage.RCodeNameError, ""},
		{"both.example.", dnsmessage.TypeTXT, dnsmessage.RCodeNotImplemented, ""},
		{"both.example.", 65, dnsmessage.RCodeNotImplemented, ""},
		{"both.example.", dnsmessage.TypeALL, dnsmessage.RCodeNotImplemented, ""},
		{"both.example.", dnsmessage.TypeAXFR, dnsmessage.RCodeRefused, ""},
	} {
		for _, size := range []int{0, 1232} {
			in := ask(t, x.name, x.typ, size)
			var m dnsmessage.Message
			if err := m.Unpack(s.handle(t.Context(), local, in)); err != nil {
				t.Fatalf("%s %v: %v", x.name, x.typ, err)
			}
			if m.RCode != x.code || m.ID != 0xBEEF || !m.Response || !m.RecursionDesired || !m.RecursionAvailable || m.Authoritative || m.Truncated {
				t.Errorf("%s %v: %+v, want code %v", x.name, x.typ, m.Header, x.code)
			}
			if len(m.Questions) != 1 || m.Questions[0].Name.String() != x.name || m.Questions[0].Type != x.typ {
				t.Errorf("%s %v: the question came back as %v", x.name, x.typ, m.Questions)
			}
			if got := answers(m); got != x.want {
				t.Errorf("%s %v: %q, want %q", x.name, x.typ, got, x.want)
			}
			if edns := len(m.Additionals) == 1 && m.Additionals[0].Header.Type == dnsmessage.TypeOPT; edns != (size > 0) {
				t.Errorf("%s %v: EDNS %v", x.name, x.typ, m.Additionals)
			}
		}
	}
	for _, q := range k.asked {
		if q.Client != local.client || q.Listener != "l" || q.Host != strings.ToLower(q.Host) {
			t.Errorf("asked %q for %v of %q", q.Host, q.Client, q.Listener)
		}
	}
}

func answers(m dnsmessage.Message) string {
	var all []string
	for _, a := range m.Answers {
		v := ""
		switch b := a.Body.(type) {
		case *dnsmessage.AResource:
			v = netip.AddrFrom4(b.A).String()
		case *dnsmessage.AAAAResource:
			v = netip.AddrFrom16(b.AAAA).String()
		case *dnsmessage.PTRResource:
			v = b.PTR.String()
		}
		all = append(all, fmt.Sprintf("%s/%d", v, a.Header.TTL))
	}
	return strings.Join(all, " ")
}

func TestMessagesThatAreNone(t *testing.T) {
	s := &Server{Lookup: func(context.Context, Query) ([]Answer, error) {
		t.Error("something was looked up")
		return nil, nil
	}}
	good := ask(t, "both.example.", dnsmessage.TypeA, 1232)
	change := func(at int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[at:], b)
		return c
	}
	for name, x := range map[string]struct {
		in   []byte
		code int // -1: no answer
	}{
		"nothing":             {nil, -1},
		"half a header":       {good[:11], -1},
		"an answer":           {change(2, 0x80), -1},
		"opcode NOTIFY":       {change(2, 0x20), int(dnsmessage.RCodeNotImplemented)},
		"opcode UPDATE":       {change(2, 0x28), int(dnsmessage.RCodeNotImplemented)},
		"no question":         {change(4, 0, 0), int(dnsmessage.RCodeFormatError)},
		"two questions":       {change(4, 0, 2), int(dnsmessage.RCodeFormatError)},
		"half a question":     {good[:20], int(dnsmessage.RCodeFormatError)},
		"half an OPT":         {good[:len(good)-3], int(dnsmessage.RCodeFormatError)},
		"answers that are no": {change(6, 0, 9), int(dnsmessage.RCodeFormatError)},
		"class CHAOS":         {change(len(good)-13, 0, 3), int(dnsmessage.RCodeRefused)},
		"a name in a circle":  {change(12, 0xC0, 12), int(dnsmessage.RCodeFormatError)},
		"EDNS version 1":      {change(len(good)-5, 1), 0}, // BADVERS has its high bits in the OPT
	} {
		b := s.handle(t.Context(), local, x.in)
		if b == nil {
			if x.code >= 0 {
				t.Errorf("%s: no answer", name)
			}
			continue
		}
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil || int(m.RCode) != x.code || len(b) > max(len(x.in), 12) {
			t.Errorf("%s: %v, %d bytes for %d: %v", name, m.Header, len(b), len(x.in), err)
		}
		if name == "EDNS version 1" && (len(m.Additionals) != 1 || m.Additionals[0].Header.ExtendedRCode(m.RCode) != badVersion) {
			t.Errorf("%s: %v", name, m.Additionals)
		}
	}
}

// Answers keep to what the client takes, and to three times its question where it may not be who it says.
func TestSizes(t *testing.T) {
	s := &Server{Lookup: new(book).lookup}
	for _, x := range []struct {
		client string
		udp    bool
		size   int
		most   int
		whole  bool
	}{
		{"127.0.0.1", true, 0, 512, false},
		{"127.0.0.1", true, 100, 512, false},
		{"127.0.0.1", true, 1232, 1232, true},
		{"127.0.0.1", true, 65535, 1232, true},
		{"127.0.0.1", false, 0, 65535, true},
		{"::1", true, 4096, 1232, true},
		{"192.0.2.9", true, 4096, 0, false},
		{"192.0.2.9", false, 4096, 65535, true},
	} {
		for _, typ := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
			in := ask(t, "many.example.", typ, x.size)
			most := x.most
			if most == 0 {
				most = amplify * len(in)
			}
			b := s.handle(t.Context(), asker{netip.MustParseAddr(x.client), "l", x.udp}, in)
			var m dnsmessage.Message
			if err := m.Unpack(b); err != nil {
				t.Fatal(err)
			}
			if len(b) > most || m.Truncated == x.whole || x.whole != (len(m.Answers) == 32) || !x.whole && len(m.Answers) != 0 {
				if typ == dnsmessage.TypeA && x.most == 512 && !m.Truncated { // 32 A records do fit 512 bytes only almost
					t.Errorf("%+v %v: %d bytes, %d answers", x, typ, len(b), len(m.Answers))
				} else {
					t.Errorf("%+v %v: %d bytes of at most %d, %d answers, truncated %v", x, typ, len(b), most, len(m.Answers), m.Truncated)
				}
			}
		}
	}
}

// The cache answers its own client only, for as long as the TTL says, and what is left of it.
func TestCacheIsOfOneClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := new(book)
		s := &Server{Lookup: k.lookup}
		get := func(from asker, name string, typ dnsmessage.Type) string {
			var m dnsmessage.Message
			if err := m.Unpack(s.handle(t.Context(), from, ask(t, name, typ, 0))); err != nil {
				t.Fatal(err)
			}
			return answers(m)
		}
		other := local
		other.client = netip.MustParseAddr("127.0.0.2")
		elsewhere := local
		elsewhere.listener = "m"
		for _, x := range []struct {
			wait    time.Duration
			from    asker
			typ     dnsmessage.Type
			name    string
			want    string
			lookups int
		}{
			{0, local, dnsmessage.TypeA, "four.example.", "192.0.2.7/300", 1},
			{100 * time.Second, local, dnsmessage.TypeA, "FOUR.example.", "192.0.2.7/200", 1},
			{0, local, dnsmessage.TypeAAAA, "four.example.", "", 1},
			{0, other, dnsmessage.TypeA, "four.example.", "192.0.2.7/300", 2},
			{0, elsewhere, dnsmessage.TypeA, "four.example.", "192.0.2.7/300", 3},
			{200 * time.Second, local, dnsmessage.TypeA, "four.example.", "192.0.2.7/300", 4},
			{0, local, dnsmessage.TypeA, "none.example.", "", 5},
			{9 * time.Second, local, dnsmessage.TypeA, "none.example.", "", 5},
			{time.Second, local, dnsmessage.TypeA, "none.example.", "", 6},
			{0, local, dnsmessage.TypeA, "fails.example.", "", 7},
			{0, local, dnsmessage.TypeA, "fails.example.", "", 8},
		} {
			time.Sleep(x.wait)
			if got := get(x.from, x.name, x.typ); got != x.want || len(k.asked) != x.lookups {
				t.Errorf("%+v: %q after %d lookups", x, got, len(k.asked))
			}
		}
	})
}

func TestCacheIsBounded(t *testing.T) {
	var c cache
	now := time.Unix(0, 0)
	for i := range 3 * cacheEntries {
		c.put(key{host: fmt.Sprintf("%0200d.example", i)}, outcome{none: i%2 == 0, found: make([]Answer, i%33)}, now)
		if len(c.byKey) > cacheEntries || c.size > cacheBytes || c.order.Len() != len(c.byKey) {
			t.Fatalf("%d entries, %d bytes", len(c.byKey), c.size)
		}
	}
	for c.order.Len() > 0 {
		c.remove(c.order.Back())
	}
	if c.size != 0 || len(c.byKey) != 0 {
		t.Errorf("%d bytes of nothing", c.size)
	}
}

// What comes together is looked up once; a lookup that does not end is given up; and there are no more than may be.
func TestLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := new(book)
		s := &Server{Lookup: k.lookup}
		var wg sync.WaitGroup
		began := time.Now()
		for i := range mostFlights {
			for range 2 {
				from := local
				from.client = netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)})
				wg.Go(func() {
					var m dnsmessage.Message
					if m.Unpack(s.handle(t.Context(), from, ask(t, "slow.example.", dnsmessage.TypeA, 0))); m.RCode != dnsmessage.RCodeServerFailure {
						t.Errorf("%v", m.Header)
					}
				})
			}
		}
		synctest.Wait()
		var m dnsmessage.Message
		m.Unpack(s.handle(t.Context(), local, ask(t, "four.example.", dnsmessage.TypeA, 0)))
		if m.RCode != dnsmessage.RCodeServerFailure || !time.Now().Equal(began) || s.Stats().Full != 1 {
			t.Errorf("one more: %v after %v", m.Header, time.Since(began))
		}
		wg.Wait()
		if d := time.Since(began); d != lookupTime || len(k.asked) != mostFlights {
			t.Errorf("given up after %v, %d lookups", d, len(k.asked))
		}
		m.Unpack(s.handle(t.Context(), local, ask(t, "four.example.", dnsmessage.TypeA, 0)))
		if answers(m) != "192.0.2.7/300" {
			t.Errorf("afterwards: %v", m.Header)
		}
	})
}

// serve runs a server on a UDP and a TCP socket of one port until the test ends.
func serve(t *testing.T, s *Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", ln.Addr().String())
	if err != nil {
		t.Skip("the UDP port of the same number is taken: ", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, f := range []func() error{
		func() error { return s.ServePacket(ctx, pc) }, func() error { return s.ServeListener(ctx, ln) },
	} {
		wg.Go(func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return ln.Addr().String()
}

// Go's own resolver over both transports: UDP, and TCP when the answer was cut.
func TestRealResolver(t *testing.T) {
	addr := serve(t, &Server{Lookup: new(book).lookup})
	var mu sync.Mutex
	seen := map[string]int{}
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		mu.Lock()
		seen[network]++
		mu.Unlock()
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	if got, err := r.LookupHost(t.Context(), "both.example."); err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := r.LookupAddr(t.Context(), "192.0.2.7"); err != nil || len(got) != 1 || got[0] != "one.example." {
		t.Errorf("%v, %v", got, err)
	}
	var dns *net.DNSError
	if _, err := r.LookupHost(t.Context(), "none.example."); !errors.As(err, &dns) || !dns.IsNotFound {
		t.Error(err)
	}
	if got, err := r.LookupNetIP(t.Context(), "ip6", "many.example."); err != nil || len(got) != 32 {
		t.Errorf("%d addresses, %v", len(got), err)
	}
	if seen["udp"] == 0 {
		t.Errorf("%v", seen)
	}
}

// Silent clients over TCP are closed by their deadline, and make room for those who ask.
func TestSlowConnections(t *testing.T) {
	s := &Server{Lookup: new(book).lookup}
	addr := serve(t, s)
	var silent []net.Conn
	for range mostConns + 20 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte{0})
		silent = append(silent, c)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 { // more than one question on a connection
		in := ask(t, "both.example.", dnsmessage.TypeA, 0)
		c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(in))), in...))
		var n [2]byte
		if _, err := io.ReadFull(c, n[:]); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, binary.BigEndian.Uint16(n[:]))
		io.ReadFull(c, b)
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil || answers(m) != "192.0.2.7/60" {
			t.Errorf("%v, %v", answers(m), err)
		}
	}
	for _, c := range silent[:21] { // those that made room, and the one for ours
		if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
			t.Error("one is still open")
		}
	}
	if n := s.Stats().Evicted; n != 21 {
		t.Errorf("%d made room", n)
	}
}

// Five thousand connections that say a byte and no more are there 64 at a time, each for its time at most and 8 KiB, and keep nobody out.
func TestSlowConnectionsKeepNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Lookup: new(book).lookup}
		ln := linktest.Listen(netip.MustParseAddrPort("127.0.0.1:53"))
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.ServeListener(ctx, ln); err != nil {
				t.Error(err)
			}
		})
		const n = 5000
		near, far := make([]net.Conn, n), make([]net.Conn, n)
		for i := range n {
			near[i], far[i] = net.Pipe()
		}
		before := memtest.InUse()
		began := time.Now()
		for i := range n {
			ln.Conns <- far[i]
			near[i].Write([]byte{0})
			if i == mostConns-1 {
				synctest.Wait()
				each := (memtest.InUse() - before) / mostConns
				if t.Logf("%d bytes each", each); each > 8<<10 && !underRace {
					t.Errorf("%d bytes each", each)
				}
			}
		}
		synctest.Wait()
		s.mu.Lock()
		there := len(s.conns)
		s.mu.Unlock()
		if there != mostConns {
			t.Errorf("%d are there", there)
		}
		for range 3 {
			a, b := net.Pipe()
			ln.Conns <- b
			in := ask(t, "both.example.", dnsmessage.TypeA, 0)
			a.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(in))), in...))
			var length [2]byte
			if _, err := io.ReadFull(a, length[:]); err != nil {
				t.Errorf("an honest question: %v", err)
			}
			a.Close()
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("three honest questions took %v", took)
		}
		for _, c := range near {
			io.Copy(io.Discard, c)
		}
		if took := time.Since(began); took > connTime {
			t.Errorf("the last was there for %v", took)
		}
		stop()
		wg.Wait()
	})
}

// underRace: the race detector makes everything larger.
var underRace bool

func TestSilentConnectionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, said := range []string{"", "\x00", "\x00\x20", "\x00\x20abc", "\xff\xff"} {
			a, b := net.Pipe()
			s := &Server{Lookup: new(book).lookup}
			began := time.Now()
			var wg sync.WaitGroup
			wg.Go(func() { s.talk(t.Context(), &conn{Conn: b}, local); b.Close() })
			io.WriteString(a, said)
			io.Copy(io.Discard, a)
			if d := time.Since(began); said != "\xff\xff" && d != connTime || d > connTime {
				t.Errorf("%q: closed after %v", said, d)
			}
			wg.Wait()
		}
	})
}

// A question may spell a name of 255 bytes in 71, by pointers into itself. What repeats it is too long for another machine.
func TestAQuestionThatPointsIntoItselfIsNotAnsweredToOthers(t *testing.T) {
	in := folded(dnsmessage.TypeA)
	s := &Server{Lookup: new(book).lookup}
	far := asker{client: netip.MustParseAddr("192.0.2.9"), listener: "l", udp: true}
	if out := s.handle(t.Context(), far, in); out != nil {
		t.Errorf("%d bytes for %d", len(out), len(in))
	}
	if out := s.full(far, in); out != nil {
		t.Errorf("%d bytes for %d when all places are taken", len(out), len(in))
	}
	if out := s.handle(t.Context(), local, in); len(out) != 12+255+4 {
		t.Errorf("this machine gets %d bytes", len(out))
	}
}

// folded is a question whose name reads its own bytes several times.
func folded(typ dnsmessage.Type) []byte {
	in := append([]byte{0xbe, 0xef, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{'a'}, 71)...)
	in[12], in[14], in[16], in[20] = 63, 63, 63, 61           // labels, each of which holds the next one's beginning
	copy(in[76:], []byte{0xc0, 14, 0xc0, 16, 0xc0, 20, 0x00}) // behind each, where the next begins
	return append(in, 0, byte(typ), 0, 1)
}

func FuzzHandle(f *testing.F) {
	for _, name := range []string{"both.example.", "many.example.", "7.2.0.192.in-addr.arpa.", ".", "none.example."} {
		for _, typ := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypePTR, dnsmessage.TypeTXT} {
			f.Add(ask(f, name, typ, 0), true)
			f.Add(ask(f, name, typ, 1232), false)
		}
	}
	good := ask(f, "both.example.", dnsmessage.TypeA, 1232)
	for _, change := range []func(b []byte){
		func(b []byte) { b[2] |= 0x80 },             // an answer
		func(b []byte) { b[2] |= 0x08 },             // another operation
		func(b []byte) { b[5] = 2 },                 // two questions
		func(b []byte) { b[7] = 1 },                 // a record where there is none
		func(b []byte) { b[11] = 2 },                // a second OPT that is not there
		func(b []byte) { b[len(b)-5] = 1 },          // another version of EDNS
		func(b []byte) { b[len(b)-2] = 1 },          // an OPT that is cut off
		func(b []byte) { b[len(b)-11-3] = 252 },     // AXFR
		func(b []byte) { b[len(b)-11-1] = 3 },       // of another class
		func(b []byte) { copy(b[13:], "b\xe9th") },  // not the name of a host
		func(b []byte) { copy(b[12:], "\xc0\x0c") }, // a name that points to itself
	} {
		b := bytes.Clone(good)
		change(b)
		f.Add(b, true)
	}
	f.Add(folded(dnsmessage.TypeA), true)
	far := asker{client: netip.MustParseAddr("192.0.2.9"), listener: "l"}
	f.Fuzz(func(t *testing.T, in []byte, udp bool) {
		if bytes.Contains(bytes.ToLower(in), []byte("slow")) {
			return
		}
		from := far
		from.udp = udp
		s := &Server{Lookup: new(book).lookup}
		out := s.handle(context.Background(), from, in)
		if out == nil {
			if _, _, ok := parse(in); ok && !udp {
				t.Fatalf("% x: no answer", in)
			}
			return
		}
		if udp && len(out) > amplify*len(in) {
			t.Fatalf("% x: %d bytes for %d", in, len(out), len(in))
		}
		var p dnsmessage.Parser
		h, err := p.Start(out)
		if err != nil || !h.Response || binary.BigEndian.Uint16(in) != h.ID {
			t.Fatalf("% x: answered % x, %v", in, out, err)
		}
		if _, err := p.AllQuestions(); err != nil {
			t.Fatalf("% x: answered % x, %v", in, out, err)
		}
		if all, err := p.AllAnswers(); err != nil || len(all) > 0 && (h.RCode != dnsmessage.RCodeSuccess || h.Truncated) {
			t.Fatalf("% x: answered % x, %v", in, out, err)
		}
		if again := s.handle(context.Background(), from, in); len(again) != len(out) { // out of the cache
			t.Fatalf("% x: answered % x, then % x", in, out, again)
		}
	})
}
