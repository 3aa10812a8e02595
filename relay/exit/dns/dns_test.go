package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"peel/cell/contain"
)

func newResolver(t testing.TB, cfg Config) *Resolver {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// farm is DNS servers in memory. Each datagram goes to serve, which sends any number of datagrams back.
type farm struct {
	serve func(server int, network string, q *query, send func([]byte))

	mu    sync.Mutex
	asked []string // "server network name type"
	wg    sync.WaitGroup
}

func (f *farm) servers(n int) (all []netip.AddrPort) {
	for i := range n {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 53))
	}
	return all
}

func (f *farm) dial(_ context.Context, network string, server netip.AddrPort) (net.Conn, error) {
	here, there := net.Pipe()
	f.wg.Go(func() { f.answer(int(server.Addr().As4()[3]), network, there) })
	return here, nil
}

func (f *farm) answer(server int, network string, c net.Conn) {
	defer c.Close()
	b := make([]byte, 600)
	n, err := c.Read(b)
	if err != nil {
		return
	}
	msg := b[:n]
	if network == "tcp" {
		msg = msg[2:]
	}
	var m dnsmessage.Message
	if m.Unpack(msg) != nil || len(m.Questions) != 1 {
		return
	}
	asked := m.Questions[0]
	q := &query{question: question{strings.ToLower(asked.Name.String()), asked.Type}, id: m.ID, asked: asked.Name}
	f.mu.Lock()
	f.asked = append(f.asked, fmt.Sprintf("%d %s %s %v", server, network, q.name, q.kind))
	f.mu.Unlock()
	f.serve(server, network, q, func(msg []byte) {
		if network == "tcp" {
			msg = append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...)
		}
		c.Write(msg)
	})
	io.Copy(io.Discard, c) // open until the resolver has gone
}

func (f *farm) questions() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// inFarm runs a test in virtual time with n servers.
func inFarm(t *testing.T, n int, serve func(server int, network string, q *query, send func([]byte)), test func(t *testing.T, r *Resolver, f *farm)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &farm{serve: serve}
		test(t, newResolver(t, Config{Servers: f.servers(n), Dial: f.dial}), f)
		f.wg.Wait()
	})
}

// honest answers with 8.8.8.8.
func honest(t *testing.T, q *query, send func([]byte)) {
	send(reply(t, q, []string{q.name + " 60 8.8.8.8"}))
}

func wantAddr(t *testing.T, r *Resolver, want string) {
	t.Helper()
	got, err := r.LookupNetIP(t.Context(), "ip4", "a.example.")
	if err != nil || len(got) != 1 || got[0].String() != want {
		t.Errorf("%v, %v", got, err)
	}
}

func TestBothFamiliesAreAskedFor(t *testing.T) {
	inFarm(t, 1, func(_ int, _ string, q *query, send func([]byte)) {
		switch {
		case strings.HasPrefix(q.name, "four.") && q.kind == typeAAAA, strings.HasPrefix(q.name, "none."):
			send(reply(t, q, nil))
		case strings.HasPrefix(q.name, "half.") && q.kind == typeAAAA:
			send(reply(t, q, nil, altered[8].change))
		case q.kind == typeAAAA:
			send(reply(t, q, []string{q.name + " 60 2606::1"}))
		case q.kind == typePTR:
			send(reply(t, q, []string{q.name + " 60 PTR host.example."}))
		default:
			honest(t, q, send)
		}
	}, func(t *testing.T, r *Resolver, f *farm) {
		for _, c := range []struct{ network, name, want string }{
			{"ip", "both.example.", "[8.8.8.8 2606::1]"}, {"ip4", "both.example", "[8.8.8.8]"}, {"ip6", "BOTH.example.", "[2606::1]"},
			{"ip", "four.example.", "[8.8.8.8]"}, {"ip", "half.example.", "[8.8.8.8]"},
		} {
			got, err := r.LookupNetIP(t.Context(), c.network, c.name)
			if err != nil || fmt.Sprint(got) != c.want {
				t.Errorf("%s %s: %v, %v", c.network, c.name, got, err)
			}
		}
		_, err := r.LookupNetIP(t.Context(), "ip", "none.example.")
		var d *net.DNSError
		if !errors.As(err, &d) || !d.IsNotFound {
			t.Errorf("no addresses: %v", err)
		}
		if got, err := r.LookupAddr(t.Context(), "8.8.8.8"); err != nil || len(got) != 1 || got[0] != "host.example." {
			t.Errorf("PTR: %v, %v", got, err)
		}
		if _, err := r.LookupAddr(t.Context(), "fe80::1%lo"); !errors.As(err, &d) || !d.IsNotFound {
			t.Errorf("an address with a zone: %v", err)
		}
	})
}

func TestOtherServersAreAskedWhenOneIsSilentOrFails(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  func(q *query, send func([]byte))
		took time.Duration
	}{
		{"silent", func(*query, func([]byte)) {}, 2 * time.Second},
		{"SERVFAIL", func(q *query, send func([]byte)) { send(reply(t, q, nil, altered[8].change)) }, 0},
		{"a ring of aliases", func(q *query, send func([]byte)) { send(reply(t, q, []string{q.name + " 1 CNAME " + q.name})) }, 0},
		{"cut off", func(q *query, send func([]byte)) {
			msg := reply(t, q, []string{q.name + " 60 6.6.6.6"})
			send(msg[:len(msg)-1])
		}, 0},
	} {
		inFarm(t, 2, func(server int, _ string, q *query, send func([]byte)) {
			if server == 0 {
				c.bad(q, send)
			} else {
				honest(t, q, send)
			}
		}, func(t *testing.T, r *Resolver, f *farm) {
			began := time.Now()
			wantAddr(t, r, "8.8.8.8")
			if took := time.Since(began); took != c.took {
				t.Errorf("%s: took %v", c.name, took)
			}
			began = time.Now()
			if got, err := r.LookupNetIP(t.Context(), "ip4", "b.example."); err != nil || len(got) != 1 || time.Since(began) != 0 {
				t.Errorf("%s, another name: %v, %v after %v: the server that answered is to be asked first", c.name, got, err, time.Since(began))
			}
		})
	}
}

func TestALookUpEnds(t *testing.T) {
	for n, want := range map[int]time.Duration{1: 6 * time.Second, 3: lookupTime} {
		inFarm(t, n, func(int, string, *query, func([]byte)) {}, func(t *testing.T, r *Resolver, f *farm) {
			began := time.Now()
			_, err := r.LookupNetIP(t.Context(), "ip4", "a.example.")
			var d *net.DNSError
			if !errors.As(err, &d) || d.IsNotFound || !d.IsTimeout || strings.Contains(err.Error(), "a.example") {
				t.Errorf("%d silent servers: %v", n, err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("%d silent servers: took %v", n, took)
			}
		})
	}
	inFarm(t, 2, func(_ int, _ string, q *query, send func([]byte)) { send(reply(t, q, nil, altered[9].change)) }, func(t *testing.T, r *Resolver, f *farm) {
		if _, err := r.LookupNetIP(t.Context(), "ip4", "a.example."); err == nil || len(f.questions()) != 2 {
			t.Errorf("%v after %q", err, f.questions())
		}
	})
}

func TestWhatDoesNotFitComesOverTCP(t *testing.T) {
	many := func(q *query, n int) (records []string) {
		for i := range n {
			records = append(records, fmt.Sprintf("%s 60 8.8.4.%d", q.name, i))
		}
		return records
	}
	for _, c := range []struct {
		name string
		udp  func(q *query, send func([]byte))
	}{
		{"truncated", func(q *query, send func([]byte)) { send(reply(t, q, nil, altered[7].change)) }},
		{"longer than a datagram may be", func(q *query, send func([]byte)) { send(reply(t, q, many(q, 40))) }},
		{"the case of letters not kept", func(q *query, send func([]byte)) {
			send(reply(t, q, []string{q.name + " 60 6.6.6.6"}, func(_ *dnsmessage.Header, a *dnsmessage.Question) { a.Name = dnsmessage.MustNewName(q.name) }))
		}},
		{"forged again and again", func(q *query, send func([]byte)) {
			for range 1000 {
				send(reply(t, q, []string{q.name + " 60 6.6.6.6"}, altered[0].change))
			}
		}},
	} {
		inFarm(t, 1, func(_ int, network string, q *query, send func([]byte)) {
			if network == "udp" {
				c.udp(q, send)
			} else {
				q.asked = dnsmessage.MustNewName(q.name)
				honest(t, q, send)
			}
		}, func(t *testing.T, r *Resolver, f *farm) {
			wantAddr(t, r, "8.8.8.8")
			if got := f.questions(); len(got) != 2 || !strings.HasPrefix(got[1], "0 tcp ") {
				t.Errorf("%s: asked %q", c.name, got)
			}
		})
	}
}

func TestForgedAnswersBeforeTheRightOneAreLetBe(t *testing.T) {
	inFarm(t, 1, func(_ int, _ string, q *query, send func([]byte)) {
		for i := range mostStray - 1 {
			send(reply(t, q, []string{q.name + " 60 6.6.6.6"}, altered[i%6].change))
		}
		honest(t, q, send)
	}, func(t *testing.T, r *Resolver, f *farm) {
		wantAddr(t, r, "8.8.8.8")
		if got := f.questions(); len(got) != 1 {
			t.Errorf("asked %q", got)
		}
	})
}

func TestOversizedAnswersOverTCPAreRefused(t *testing.T) {
	inFarm(t, 1, func(_ int, network string, q *query, send func([]byte)) {
		if network == "udp" {
			send(reply(t, q, nil, altered[7].change))
		} else {
			send(make([]byte, mostTCP+1))
		}
	}, func(t *testing.T, r *Resolver, f *farm) {
		if _, err := r.LookupNetIP(t.Context(), "ip4", "a.example."); err == nil || !strings.Contains(err.Error(), errBroken.Error()) {
			t.Error(err)
		}
	})
}

func TestAnswersAreKeptForATimeThatTellsNothing(t *testing.T) {
	for _, c := range []struct {
		ttl         uint32
		least, most time.Duration
	}{
		{0, 45 * time.Second, 75 * time.Second}, {600, 450 * time.Second, 750 * time.Second}, {1 << 31, 1350 * time.Second, 2250 * time.Second},
	} {
		a := answer{addrs: []netip.Addr{netip.MustParseAddr("8.8.8.8")}, ttl: c.ttl}
		if got := life(a, 0); got != c.least {
			t.Errorf("TTL %d: %v at least", c.ttl, got)
		}
		if got := life(a, 0.999999999); got < c.most-time.Millisecond || got > c.most {
			t.Errorf("TTL %d: %v at most", c.ttl, got)
		}
		if life(a, 0.2) == life(a, 0.3) {
			t.Errorf("TTL %d: chance has no part in it", c.ttl)
		}
	}
	if got := life(answer{ttl: 1 << 31}, 0.5); got != absentLife {
		t.Errorf("no addresses: %v", got)
	}
	inFarm(t, 1, func(_ int, _ string, q *query, send func([]byte)) { honest(t, q, send) }, func(t *testing.T, r *Resolver, f *farm) {
		for range 5 {
			wantAddr(t, r, "8.8.8.8")
			time.Sleep(8 * time.Second)
		}
		if got := f.questions(); len(got) != 1 {
			t.Errorf("asked %q within 40 seconds", got)
		}
		time.Sleep(36 * time.Second)
		wantAddr(t, r, "8.8.8.8")
		if got := f.questions(); len(got) != 2 {
			t.Errorf("asked %q within 76 seconds", got)
		}
	})
}

func TestTheCacheIsBoundedInEntriesAndBytes(t *testing.T) {
	now := time.Now()
	a := answer{addrs: make([]netip.Addr, 4), ttl: 60}
	c := newCache(10, 1<<20)
	for i := range 1000 {
		c.put(question{fmt.Sprintf("%d.example.", i), typeA}, a, now, 0)
		if i >= 10 {
			c.get(question{"3.example.", typeA}, now) // in use
		} else if i == 3 {
			c.put(question{"3.example.", typeA}, a, now, 0) // again
		}
	}
	if len(c.by) != 10 || c.order.Len() != 10 {
		t.Errorf("%d entries", len(c.by))
	}
	if _, ok := c.get(question{"999.example.", typeA}, now); !ok {
		t.Error("the newest is gone")
	}
	if _, ok := c.get(question{"500.example.", typeA}, now); ok {
		t.Error("one long unused is there")
	}
	c = newCache(1<<20, 10_000)
	for i := range 1000 {
		c.put(question{fmt.Sprintf("%d.%s.example.", i, strings.Repeat("x", i%60+1)), typePTR}, answer{names: []string{strings.Repeat("n", 200)}}, now, 0)
		if c.size > 10_000 {
			t.Fatalf("%d bytes", c.size)
		}
	}
	if len(c.by) < 10 {
		t.Errorf("%d entries", len(c.by))
	}
	for el := c.order.Front(); el != nil; el = c.order.Front() {
		c.remove(el)
	}
	if c.size != 0 || len(c.by) != 0 {
		t.Errorf("an empty cache of %d bytes and %d entries", c.size, len(c.by))
	}
}

func TestTheSameQuestionIsAskedOnce(t *testing.T) {
	inFarm(t, 1, func(_ int, _ string, q *query, send func([]byte)) {
		time.Sleep(time.Second)
		honest(t, q, send)
	}, func(t *testing.T, r *Resolver, f *farm) {
		ctx, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := r.LookupNetIP(ctx, "ip4", "a.example."); !errors.Is(err, context.Canceled) {
				t.Errorf("who left: %v", err)
			}
		})
		synctest.Wait()
		for range 50 {
			wg.Go(func() { wantAddr(t, r, "8.8.8.8") })
		}
		synctest.Wait()
		leave() // the others go on without
		wg.Wait()
		if got := f.questions(); len(got) != 2 {
			t.Errorf("asked %q", got)
		}
		if len(r.flying) != 0 {
			t.Errorf("%d are on their way", len(r.flying))
		}
	})
}

func TestAPanicEndsALookUpOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResolver(t, Config{Servers: (&farm{}).servers(1), Dial: func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			panic("a bug")
		}})
		var err error
		p := contain.Do(func() { _, err = r.LookupNetIP(t.Context(), "ip", "a.example") })
		synctest.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		if p == nil && err == nil || len(r.flying) != 0 {
			t.Errorf("%v, and %d are on their way", err, len(r.flying))
		}
	})
}

func TestServersOfTheSystem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	r := newResolver(t, Config{})
	r.system.path = path
	want := func(text string) {
		t.Helper()
		r.system.looked = time.Time{}
		got, err := r.known()
		var s []string
		for _, a := range got {
			s = append(s, a.String())
		}
		if strings.Join(s, " ") != text || (err == nil) != (text != "") {
			t.Errorf("%q, %v", s, err)
		}
		if err != nil && (!errors.Is(err, ErrNoServers) || !strings.Contains(err.Error(), `resolvers = ["192.0.2.53"]`) || !strings.Contains(err.Error(), path)) {
			t.Errorf("what is to be done? %v", err)
		}
	}
	want("")
	if _, err := r.LookupNetIP(t.Context(), "ip", "a.example."); err == nil || !errors.Is(r.Check(), ErrNoServers) {
		t.Errorf("%v; %v", err, r.Check())
	}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("search example.org\n# nameserver 192.0.2.1\nnameserver\nnameserver x\n")
	want("")
	write("nameserver 192.0.2.1 # here\n  nameserver\t2001:db8::1\nnameserver fe80::1%eth0;x\noptions rotate\n")
	want("192.0.2.1:53 [2001:db8::1]:53 [fe80::1%eth0]:53")
	write(strings.Repeat("nameserver 192.0.2.1\n", 20))
	want(strings.TrimSpace(strings.Repeat("192.0.2.1:53 ", MostServers)))
	if _, err := New(Config{Servers: make([]netip.AddrPort, MostServers+1)}); err == nil {
		t.Error("too many servers were taken")
	}
}

func TestAddressesOfServers(t *testing.T) {
	for s, want := range map[string]string{
		"192.0.2.53": "192.0.2.53:53", "192.0.2.53:5353": "192.0.2.53:5353", "2001:db8::53": "[2001:db8::53]:53",
		"[2001:db8::53]:5353": "[2001:db8::53]:5353", "127.0.0.53": "127.0.0.53:53",
		"": "", "dns.example": "", "192.0.2.53:0": "", "192.0.2.53:x": "", "0.0.0.0": "", "::ffff:192.0.2.1": "", "224.0.0.251": "", "[2001:db8::53]": "",
	} {
		got, err := ParseServer(s)
		if (err == nil) != (want != "") || err == nil && got.String() != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}

// A server on this machine: what the wire says.
func TestPortsAndIDsCannotBeForetold(t *testing.T) {
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ports, ids, names := map[int]bool{}, map[uint16]bool{}, map[string]bool{}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 600)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if err := m.Unpack(b[:n]); err != nil {
				t.Error(err)
				return
			}
			ports[from.(*net.UDPAddr).Port], ids[m.ID], names[m.Questions[0].Name.String()] = true, true, true
			q := &query{question: question{strings.ToLower(m.Questions[0].Name.String()), m.Questions[0].Type}, id: m.ID, asked: m.Questions[0].Name}
			pc.WriteTo(reply(t, q, []string{q.name + " 0 8.8.8.8"}), from)
		}
	})
	server := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	const n = 64
	for range n {
		wantAddr(t, newResolver(t, Config{Servers: []netip.AddrPort{server}}), "8.8.8.8")
	}
	pc.Close()
	wg.Wait()
	if len(ports) < n-4 || len(ids) < n-4 || len(names) < n/2 {
		t.Errorf("of %d queries %d ports, %d ids, %d spellings", n, len(ports), len(ids), len(names))
	}
	for p := range ports {
		if p < 16384 {
			t.Errorf("port %d", p)
		}
	}
	// Nobody listens any more: the system says so at once, and nothing else does.
	_, err = newResolver(t, Config{Servers: []netip.AddrPort{server}}).LookupNetIP(t.Context(), "ip4", "a.example.")
	var d *net.DNSError
	if !errors.As(err, &d) || d.IsNotFound || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody there: %v", err)
	}
}
