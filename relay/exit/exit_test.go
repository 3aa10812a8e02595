package exit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/directory"
)

func policy(t testing.TB, rules ...string) directory.Policy {
	t.Helper()
	p, err := directory.ParsePolicy(rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newDialer(t testing.TB, cfg Config) *Dialer {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// echo answers on an address of this machine with what it gets.
func echo(t testing.TB, address string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("this system has no %s: %v", address, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { io.Copy(c, c); c.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// liar is a Resolver that gives one answer after the other, the last for ever.
type liar struct {
	answers [][]netip.Addr
	names   []string
	err     error
	asked   atomic.Int32
	mu      sync.Mutex
	queries []string
}

func (l *liar) ask(q string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queries = append(l.queries, q)
	return int(l.asked.Add(1)) - 1
}

func (l *liar) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	n := l.ask(network + " " + host)
	if l.err != nil {
		return nil, l.err
	}
	return l.answers[min(n, len(l.answers)-1)], nil
}

func (l *liar) LookupAddr(_ context.Context, addr string) ([]string, error) {
	l.ask("PTR " + addr)
	return l.names, l.err
}

// wantRefusal dials and expects nothing but a refusal: not so much as a try.
func wantRefusal(t *testing.T, d *Dialer, host string, port uint16, reasons ...cell.EndReason) {
	t.Helper()
	c, _, err := d.Dial(t.Context(), cell.Begin{Host: host, Port: port})
	if err == nil {
		c.Close()
		t.Errorf("%q: connected", host)
	} else if !slices.Contains(reasons, Reason(err)) {
		t.Errorf("%q: %v (%v), want %v", host, Reason(err), err, reasons)
	}
}

func talk(t *testing.T, d *Dialer, b cell.Begin, want netip.AddrPort) {
	t.Helper()
	c, to, err := d.Dial(t.Context(), b)
	if err != nil {
		t.Fatalf("%q: %v", b.Host, err)
	}
	defer c.Close()
	if to != (cell.Connected{Addr: want.Addr(), TTL: TTL}) || to.Check() != nil {
		t.Errorf("%q: connected to %v for %d s, want %v for %d s", b.Host, to.Addr, to.TTL, want.Addr(), TTL)
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestConnectsToWhatThePolicyNames(t *testing.T) {
	at := echo(t, "127.0.0.1:0")
	r := &liar{answers: [][]netip.Addr{addrs("127.0.0.1")}}
	d := newDialer(t, Config{Policy: policy(t, "accept 127.0.0.0/8:*"), Resolver: r})
	for _, host := range []string{"127.0.0.1", "web.example", "WEB.example.", "localhost", "sub.localhost.", "a_b.example"} {
		talk(t, d, cell.Begin{Host: host, Port: at.Port()}, at)
	}
	if want := []string{"ip web.example.", "ip web.example.", "ip a_b.example."}; !slices.Equal(r.queries, want) {
		t.Errorf("asked %q, want %q", r.queries, want)
	}
	wantRefusal(t, d, "8.8.8.8", 53, cell.EndPolicy) // named ranges alone
}

func TestConnectsOverIPv6(t *testing.T) {
	at := echo(t, "[::1]:0")
	d := newDialer(t, Config{Policy: policy(t, "accept [::1]:*"), Resolver: &liar{answers: [][]netip.Addr{addrs("127.0.0.1", "::1")}}})
	for _, b := range []cell.Begin{{Host: "::1"}, {Host: "0:0::0:1"}, {Host: "web.example"}, {Host: "web.example", Flags: cell.NoIPv4}} {
		b.Port = at.Port()
		talk(t, d, b, at)
	}
}

func TestAnswerThatChangesBetweenLookupAndDial(t *testing.T) {
	at := echo(t, "127.0.0.1:0")
	r := &liar{answers: [][]netip.Addr{addrs("127.0.0.1"), addrs("127.0.0.77")}}
	d := newDialer(t, Config{Policy: policy(t, "accept 127.0.0.1:*"), Resolver: r})
	talk(t, d, cell.Begin{Host: "rebind.example", Port: at.Port()}, at)
	if n := r.asked.Load(); n != 1 {
		t.Errorf("asked %d times: what was checked may not be what was dialled", n)
	}
	wantRefusal(t, d, "rebind.example", at.Port(), cell.EndPolicy) // the next one gets the lie

	// The last word is at the socket, whatever came before.
	for address, ok := range map[string]bool{
		"127.0.0.1:80": true, "127.0.0.77:80": false, "169.254.169.254:80": false, "8.8.8.8:80": false,
		"[::ffff:127.0.0.1]:80": false, "[::1]:80": false, "127.0.0.1:0": false, "name:80": false, "": false,
	} {
		if err := d.control(t.Context(), "tcp4", address, nil); (err == nil) != ok {
			t.Errorf("control %s: %v", address, err)
		}
	}
	if d.control(t.Context(), "udp4", "127.0.0.1:80", nil) == nil {
		t.Error("control let UDP through")
	}
}

func TestOnlyTheAllowedAnswersAreTried(t *testing.T) {
	at := echo(t, "127.0.0.1:0")
	r := &liar{answers: [][]netip.Addr{append(addrs("10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fe80::1%eth0", "127.0.0.2"), netip.Addr{}, at.Addr())}}
	d := newDialer(t, Config{Policy: policy(t, "accept 127.0.0.1:*", "accept *:*"), Resolver: r})
	talk(t, d, cell.Begin{Host: "mixed.example", Port: at.Port()}, at)
}

func TestNextAddressIsTriedWhenOneFails(t *testing.T) {
	at := echo(t, "127.0.0.1:0")
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", at.Port()))
	if err != nil {
		t.Skipf("this system has no 127.0.0.2: %v", err)
	}
	l.Close() // nobody there: refused
	d := newDialer(t, Config{Policy: policy(t, "accept 127.0.0.0/8:*"), Resolver: &liar{answers: [][]netip.Addr{addrs("127.0.0.2", "127.0.0.1")}}})
	talk(t, d, cell.Begin{Host: "two.example", Port: at.Port()}, at)
	wantRefusal(t, d, "127.0.0.2", at.Port(), cell.EndRefused)
}

func TestFamiliesAndOrder(t *testing.T) {
	six, four := "2606:4700::1", "1.1.1.1"
	for _, c := range []struct {
		flags cell.BeginFlags
		found []string
		want  string
	}{
		{0, []string{six, four}, "[1.1.1.1 2606:4700::1]"},
		{cell.PreferIPv6, []string{four, six}, "[2606:4700::1 1.1.1.1]"},
		{cell.PreferIPv6, []string{four}, "[1.1.1.1]"},
		{cell.NoIPv4, []string{four, six}, "[2606:4700::1]"},
		{cell.NoIPv6, []string{six, four}, "[1.1.1.1]"},
		{cell.NoIPv6 | cell.PreferIPv6, []string{six, four}, "[1.1.1.1]"},
		{cell.NoIPv4, []string{four}, "not found"},
		{cell.NoIPv6, []string{six}, "not found"},
		{0, []string{four, four, "::ffff:1.1.1.1"}, "[1.1.1.1]"},
		{0, []string{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", "1.1.1.5"}, "[1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4]"},
		{0, []string{"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", six}, "[1.1.1.1 2606:4700::1 1.1.1.2 1.1.1.3]"},
	} {
		d := newDialer(t, Config{Policy: policy(t, "accept *:443"), Resolver: &liar{answers: [][]netip.Addr{addrs(c.found...)}}})
		got, err := d.targets(t.Context(), host{name: "web.example"}, cell.Begin{Flags: c.flags, Port: 443, Host: "web.example"})
		text := fmt.Sprint(got)
		if Reason(err) == cell.EndNotFound {
			text = "not found"
		} else if err != nil {
			t.Fatal(err)
		}
		if text != c.want {
			t.Errorf("flags %d, found %v: try %s, want %s", c.flags, c.found, text, c.want)
		}
	}
	d := newDialer(t, Config{Policy: policy(t, "accept *:*")})
	for _, b := range []cell.Begin{{Host: four, Flags: cell.NoIPv4}, {Host: six, Flags: cell.NoIPv6}} {
		b.Port = 80
		if _, _, err := d.Dial(t.Context(), b); Reason(err) != cell.EndNotFound {
			t.Errorf("%s with flags %d: %v", b.Host, b.Flags, err)
		}
	}
}

func TestNothingIsLookedUpForAPortThatNoAddressHas(t *testing.T) {
	for _, p := range []directory.Policy{nil, policy(t, "accept *:443"), policy(t, "reject *:25", "accept *:*")} {
		r := &liar{answers: [][]netip.Addr{addrs("1.1.1.1")}}
		d := newDialer(t, Config{Policy: p, Resolver: r})
		wantRefusal(t, d, "mail.example", 25, cell.EndPolicy)
		if r.asked.Load() != 0 {
			t.Errorf("policy %v: asked all the same", p)
		}
	}
}

func TestRequestsThatAreNotWellFormedAreRefused(t *testing.T) {
	d := newDialer(t, Config{Policy: policy(t, "accept *:*")})
	for _, b := range []cell.Begin{
		{}, {Host: "a.example"}, {Port: 1}, {Host: "a b", Port: 1}, {Host: "a\x00b", Port: 1}, {Host: strings.Repeat("a", 256), Port: 1},
		{Host: "a.example", Port: 1, Flags: 8}, {Host: "a.example", Port: 1, Flags: cell.NoIPv4 | cell.NoIPv6},
	} {
		if _, _, err := d.Dial(t.Context(), b); Reason(err) != cell.EndProtocol {
			t.Errorf("%+v: %v", b, err)
		}
	}
}

func TestPolicyThatHasNoTextIsRefused(t *testing.T) {
	if _, err := New(Config{Policy: directory.Policy{{Accept: true, Lo: 9, Hi: 1}}}); err == nil || !strings.HasPrefix(err.Error(), "exit: ") {
		t.Errorf("error %v", err)
	}
}

// stuck is a Resolver that answers when it is told to, or when its time is over.
type stuck struct {
	asked chan struct{}
	free  chan struct{}
}

func (s stuck) wait(ctx context.Context) error {
	s.asked <- struct{}{}
	select {
	case <-s.free:
		return &net.DNSError{IsNotFound: true}
	case <-ctx.Done():
		return &net.DNSError{Err: ctx.Err().Error(), IsTimeout: true}
	}
}

func (s stuck) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	return nil, s.wait(ctx)
}

func (s stuck) LookupAddr(ctx context.Context, _ string) ([]string, error) { return nil, s.wait(ctx) }

func TestFullDialerSaysBusy(t *testing.T) {
	s := stuck{asked: make(chan struct{}), free: make(chan struct{})}
	d := newDialer(t, Config{Policy: policy(t, "accept *:*"), Resolver: s, MaxPending: 3})
	var wg sync.WaitGroup
	wg.Go(func() { wantRefusal(t, d, "a.example", 80, cell.EndNotFound) })
	wg.Go(func() { d.Resolve(t.Context(), cell.Resolve{Name: "b.example"}) })
	wg.Go(func() { d.Resolve(t.Context(), cell.Resolve{Kind: cell.ResolvePTR, Name: "1.1.1.1"}) })
	for range 3 {
		<-s.asked
	}
	wantRefusal(t, d, "c.example", 80, cell.EndBusy)
	wantRefusal(t, d, "1.2.3.4", 80, cell.EndBusy)
	if r := d.Resolve(t.Context(), cell.Resolve{Name: "c.example"}); r.Reason != cell.EndBusy {
		t.Errorf("Resolve: %v", r.Reason)
	}
	close(s.free)
	wg.Wait()
	wg.Go(func() { <-s.asked })
	wantRefusal(t, d, "d.example", 80, cell.EndNotFound) // there is room again
	wg.Wait()
}

func TestResolverThatNeverAnswersIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := stuck{asked: make(chan struct{}, 9), free: make(chan struct{})}
		d := newDialer(t, Config{Policy: policy(t, "accept *:*"), Resolver: s})
		began := time.Now()
		wantRefusal(t, d, "a.example", 80, cell.EndResolveFailed)
		if took := time.Since(began); took != defaultTimeout {
			t.Errorf("left after %v, want %v", took, defaultTimeout)
		}
		d = newDialer(t, Config{Policy: policy(t, "accept *:*"), Resolver: s, Timeout: time.Second})
		began = time.Now()
		if r := d.Resolve(t.Context(), cell.Resolve{Name: "a.example"}); r.Reason != cell.EndResolveFailed {
			t.Errorf("Resolve: %v", r.Reason)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("left after %v, want 1s", took)
		}
	})
}

func TestDialEndsWithItsContext(t *testing.T) {
	at := echo(t, "127.0.0.1:0")
	d := newDialer(t, Config{Policy: policy(t, "accept 127.0.0.0/8:*")})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := d.Dial(ctx, cell.Begin{Host: "127.0.0.1", Port: at.Port()}); Reason(err) != cell.EndMisc || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), -1)
	defer cancel()
	if _, _, err := d.Dial(ctx, cell.Begin{Host: "127.0.0.1", Port: at.Port()}); Reason(err) != cell.EndTimeout {
		t.Errorf("out of time: %v", err)
	}
}

func TestOwnAddressesAreRefusedUnlessNamed(t *testing.T) {
	own := addrs("1.2.3.4", "2606:4700::1", "::ffff:5.6.7.8")
	for _, c := range []struct {
		rules  []string
		addr   string
		allows bool
	}{
		{[]string{"accept *:*"}, "1.2.3.4", false},
		{[]string{"accept *:*"}, "5.6.7.8", false},
		{[]string{"accept *:*"}, "2606:4700::1", false},
		{[]string{"accept *:*"}, "1.2.3.5", true},
		{[]string{"accept 1.2.0.0/16:*"}, "1.2.3.4", false},
		{[]string{"accept 1.2.3.4:*"}, "1.2.3.4", true},
		{[]string{"accept [2606:4700::1]:*"}, "2606:4700::1", true},
		{[]string{"reject 1.2.3.4:80", "accept 1.2.3.4:*"}, "1.2.3.4", false},
	} {
		d := newDialer(t, Config{Policy: policy(t, c.rules...), Own: own})
		if got := d.allows(netip.MustParseAddr(c.addr), 80); got != c.allows {
			t.Errorf("%v, %s: %v, want %v", c.rules, c.addr, got, c.allows)
		}
	}
	d := newDialer(t, Config{Policy: policy(t, "accept *:*")})
	ifaces, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifaces {
		if p, err := netip.ParsePrefix(i.String()); err == nil && d.allows(p.Addr(), 80) {
			t.Errorf("%v of this machine may be dialled", p.Addr())
		}
	}
}

// played is a connection between two addresses that need not be here.
type played struct {
	net.Conn
	from, to net.Addr
	closed   bool
}

func (p *played) LocalAddr() net.Addr  { return p.from }
func (p *played) RemoteAddr() net.Addr { return p.to }
func (p *played) Close() error         { p.closed = true; return nil }

func tcp(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

func TestConnectionWithOneselfIsClosed(t *testing.T) {
	for _, c := range []struct {
		rules    string
		from, to net.Addr
		kept     bool
	}{
		{"accept *:*", tcp("8.8.4.4:1000"), tcp("8.8.8.8:80"), true},
		{"accept *:*", tcp("8.8.8.8:1000"), tcp("8.8.8.8:80"), false},
		{"accept *:*", tcp("[::ffff:8.8.8.8]:1000"), tcp("8.8.8.8:80"), false},
		{"accept 8.8.8.8:*", tcp("8.8.8.8:1000"), tcp("8.8.8.8:80"), true},
		{"accept *:*", &net.UnixAddr{}, tcp("8.8.8.8:80"), true},
		{"accept *:*", tcp("8.8.4.4:1000"), &net.UnixAddr{}, false},
	} {
		d := newDialer(t, Config{Policy: policy(t, c.rules)})
		p := &played{from: c.from, to: c.to}
		d.connect = func(context.Context, string, string) (net.Conn, error) { return p, nil }
		_, _, err := d.Dial(t.Context(), cell.Begin{Host: "8.8.8.8", Port: 80})
		if (err == nil) != c.kept || p.closed == c.kept || err != nil && Reason(err) != cell.EndPolicy {
			t.Errorf("%s, %v to %v: %v, closed: %v", c.rules, c.from, c.to, err, p.closed)
		}
	}
}

func TestEachAddressGetsItsShareOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDialer(t, Config{Policy: policy(t, "accept *:*"), Resolver: &liar{answers: [][]netip.Addr{addrs("8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.8.4")}}})
		began := time.Now()
		var tried []string
		d.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
			tried = append(tried, fmt.Sprintf("%s %s %v", network, address, time.Since(began)))
			if address == "8.8.8.2:80" {
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED} // at once: the others get its time
			}
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
		}
		_, _, err := d.Dial(t.Context(), cell.Begin{Host: "a.example", Port: 80})
		if Reason(err) != cell.EndTimeout {
			t.Errorf("%v: %v", err, Reason(err))
		}
		want := []string{"tcp4 8.8.8.1:80 0s", "tcp4 8.8.8.2:80 5s", "tcp4 8.8.8.3:80 5s", "tcp4 8.8.8.4:80 12.5s"}
		if !slices.Equal(tried, want) {
			t.Errorf("tried %q, want %q", tried, want)
		}
		if took := time.Since(began); took != defaultTimeout {
			t.Errorf("took %v, want %v", took, defaultTimeout)
		}
	})
}

func TestFirstAnswerOfAHostIsTold(t *testing.T) {
	for _, c := range []struct {
		errs []error
		want cell.EndReason
	}{
		{[]error{syscall.ECONNREFUSED, syscall.ENETUNREACH}, cell.EndRefused},
		{[]error{syscall.ENETUNREACH, syscall.ECONNREFUSED}, cell.EndRefused},
		{[]error{syscall.ENETUNREACH, syscall.EHOSTUNREACH}, cell.EndUnreachable},
		{[]error{syscall.ECONNREFUSED, syscall.ETIMEDOUT}, cell.EndRefused},
		{[]error{syscall.ETIMEDOUT, syscall.ECONNREFUSED}, cell.EndTimeout},
	} {
		d := newDialer(t, Config{Policy: policy(t, "accept *:*"), Resolver: &liar{answers: [][]netip.Addr{addrs("8.8.8.1", "8.8.8.2")}}})
		n := 0
		d.connect = func(context.Context, string, string) (net.Conn, error) { n++; return nil, c.errs[n-1] }
		if _, _, err := d.Dial(t.Context(), cell.Begin{Host: "a.example", Port: 80}); Reason(err) != c.want || n != 2 {
			t.Errorf("%v: %v after %d, want %v", c.errs, Reason(err), n, c.want)
		}
	}
}

func TestErrorsDoNotNameTheTarget(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	d := newDialer(t, Config{
		Policy:   policy(t, "accept 127.0.0.0/8:*", "accept *:*"),
		Resolver: &liar{err: &net.DNSError{Err: "server misbehaving", Name: "secret.example", Server: "192.0.2.53"}},
	})
	for host, want := range map[string]cell.EndReason{
		"127.0.0.1": cell.EndRefused, "10.1.2.3": cell.EndPolicy, "secret.example": cell.EndResolveFailed,
		"secret.local": cell.EndNotFound, "secret..example": cell.EndNotFound, "fe80::5ec%secret": cell.EndPolicy,
	} {
		_, _, err := d.Dial(t.Context(), cell.Begin{Host: host, Port: closed.Port()})
		var e *Error
		if !errors.As(err, &e) || e.Reason != want || Reason(err) != want {
			t.Errorf("%s: %v, want %v", host, err, want)
			continue
		}
		text := fmt.Sprintf("%v %+v %#v", err, err, errors.Unwrap(err))
		for _, part := range []string{host, "secret", "127.0.0.1", fmt.Sprint(closed.Port()), "192.0.2.53"} {
			if strings.Contains(text, part) {
				t.Errorf("%s: the error names it: %s", host, text)
			}
		}
		if !strings.HasPrefix(err.Error(), "exit: ") {
			t.Errorf("error %q", err)
		}
	}
}

func TestErrorsWrapWhatTheSystemSaid(t *testing.T) {
	e := scrub("connecting", &net.OpError{Op: "dial", Err: errPolicy})
	if !reflect.DeepEqual(e, errPolicy) {
		t.Errorf("a refusal at the socket became %v", e)
	}
}
