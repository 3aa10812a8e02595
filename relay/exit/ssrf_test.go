package exit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"peel/cell"
)

// inner makes addresses that nobody may be connected to by an exit that accepts everything, and ways to write them.
type inner struct {
	rng *rand.Rand
	own []netip.Addr // the relay's

	ours bool // what was made last is one of them, or has one in it
}

func (g *inner) pick(s ...string) string { return s[g.rng.IntN(len(s))] }

// within draws an address of a range.
func (g *inner) within(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		if g.rng.IntN(2) == 1 {
			b[i/8] |= 0x80 >> (i % 8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (g *inner) special(six bool) netip.Addr {
	for {
		p := netip.MustParsePrefix(registry[g.rng.IntN(len(registry))])
		if p.Addr().Is6() != six || p.Addr().Is4In6() { // mapped ones are made by carry: they are what is in them
			continue
		}
		switch g.rng.IntN(4) {
		case 0:
			return p.Addr()
		case 1:
			return last(p)
		}
		return g.within(p)
	}
}

func (g *inner) four() netip.Addr {
	switch g.rng.IntN(4) {
	case 0:
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case 1:
		if a := g.own[g.rng.IntN(len(g.own))]; a.Is4() {
			g.ours = true
			return a
		}
	}
	return g.special(false)
}

// number writes a number as old readers of IPv4 addresses take it.
func (g *inner) number(n uint64) string {
	switch g.rng.IntN(5) {
	case 0:
		return fmt.Sprintf("0x%x", n)
	case 1:
		return fmt.Sprintf("0X%X", n)
	case 2:
		return strings.Repeat("0", 1+g.rng.IntN(4)) + fmt.Sprintf("%o", n)
	case 3:
		return "0x" + strings.Repeat("0", g.rng.IntN(6)) + fmt.Sprintf("%x", n)
	}
	return fmt.Sprint(n)
}

// foreign writes digits and dots as other scripts do, which some readers take for the usual ones.
func (g *inner) foreign(s string) string {
	zero := []rune{'０', '٠', '۰', '०', '𝟎', '𝟘', '𝟬'}[g.rng.IntN(7)]
	dot := g.pick(".", "。", "．", "｡", "․")
	some := g.rng.IntN(2) == 0
	var b strings.Builder
	for i, c := range s {
		switch {
		case c == '.':
			b.WriteString(dot)
		case '0' <= c && c <= '9' && (some || i == 0 || g.rng.IntN(2) == 0):
			b.WriteRune(zero + c - '0')
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// text4 writes an IPv4 address.
func (g *inner) text4(a netip.Addr) string {
	b := a.As4()
	p := [4]uint64{uint64(b[0]), uint64(b[1]), uint64(b[2]), uint64(b[3])}
	whole := p[0]<<24 | p[1]<<16 | p[2]<<8 | p[3]
	switch g.rng.IntN(14) {
	case 0:
		return g.number(whole)
	case 1:
		return g.number(p[0]) + "." + g.number(whole&0xffffff)
	case 2:
		return g.number(p[0]) + "." + g.number(p[1]) + "." + g.number(whole&0xffff)
	case 3, 4:
		return g.number(p[0]) + "." + g.number(p[1]) + "." + g.number(p[2]) + "." + g.number(p[3])
	case 5:
		return fmt.Sprint(whole + uint64(1+g.rng.IntN(9))<<32) // as it is in 32 bits
	case 6:
		return fmt.Sprintf("%d.%d.%d.%d", p[0]+256, p[1], p[2]+256*g.rng.Uint64N(2), p[3])
	case 7:
		return a.String() + strings.Repeat(".", 1+g.rng.IntN(3))
	case 8:
		return g.foreign(a.String())
	case 9:
		return fmt.Sprintf("%03d.%03d.%03d.%03d", p[0], p[1], p[2], p[3])
	case 10:
		return g.pick(" ", "\t", "\n", "+", "-", "http://", "x@", "[", "//", "\x00") + a.String()
	case 11:
		return a.String() + g.pick(" ", "\t", "\r\n", ":80", "/", "/32", "#", "?x", "]", "\x00", "\x00.example.org", "%25lo", "@8.8.8.8", "\\", ",8.8.8.8", " 8.8.8.8")
	case 12:
		s := a.String()
		i := g.rng.IntN(len(s))
		return fmt.Sprintf("%s%%%02x%s", s[:i], s[i], s[i+1:])
	}
	return a.String()
}

// carry puts an IPv4 address into an IPv6 one.
func (g *inner) carry(a netip.Addr) netip.Addr {
	var b [16]byte
	in := a.As4()
	at := func(prefix string) { copy(b[:], netip.MustParseAddr(prefix).AsSlice()) }
	open := func() { // what may stand before the identifier of ISATAP
		at(g.pick("2606:4700::", "2a00:1450:4001:81b::", "fe80::", "fd00::", "2001:db8::"))
	}
	switch g.rng.IntN(12) {
	case 0:
		at("::ffff:0.0.0.0")
		copy(b[12:], in[:])
	case 1:
		copy(b[12:], in[:]) // compatible
	case 2:
		at("::ffff:0:0:0")
		copy(b[12:], in[:]) // translated
	case 3:
		at("64:ff9b::")
		copy(b[12:], in[:])
	case 4:
		at("64:ff9b:1::")
		copy(b[12:], in[:])
	case 5:
		at("64:ff9b:1::")
		b[6], b[7], b[9], b[10] = in[0], in[1], in[2], in[3]
	case 6:
		at("64:ff9b:1::")
		copy(b[9:], in[:])
	case 7:
		at("2002::")
		copy(b[2:], in[:])
		b[15] = byte(g.rng.IntN(256))
	case 8:
		at("2001::")
		for i := range 4 {
			b[4+i], b[12+i] = []byte{8, in[i]}[g.rng.IntN(2)], ^in[i]
		}
		b[8] = 0x80
	case 9:
		at("2001::")
		copy(b[4:], in[:])
	default:
		open()
		copy(b[8:], []byte{byte(g.rng.IntN(2)) * 2, 0, 0x5e, 0xfe})
		copy(b[12:], in[:])
	}
	return netip.AddrFrom16(b)
}

// text6 writes an IPv6 address.
func (g *inner) text6(a netip.Addr) string {
	b := a.As16()
	s := a.String()
	switch g.rng.IntN(10) {
	case 0:
		s = a.StringExpanded()
	case 1:
		s = strings.ToUpper(a.StringExpanded())
	case 2: // the last four bytes as those of IPv4
		s = ""
		for i := 0; i < 12; i += 2 {
			s += fmt.Sprintf("%x:", int(b[i])<<8|int(b[i+1]))
		}
		s += netip.AddrFrom4([4]byte(b[12:])).String()
	case 3:
		return "[" + s + "]"
	case 4:
		return s + g.pick("%lo", "%1", "%eth0", "%25lo", "%", "%0")
	case 5:
		return g.foreign(s)
	case 6:
		return s + g.pick(".", "..", "/128", " ", ".example.org", "]:80")
	case 7:
		var parts []string // no zeros left out, none put before
		for i := 0; i < 16; i += 2 {
			parts = append(parts, fmt.Sprintf("%x", int(b[i])<<8|int(b[i+1])))
		}
		s = strings.Join(parts, ":")
	}
	return s
}

func (g *inner) six() netip.Addr {
	switch g.rng.IntN(4) {
	case 0:
		return g.special(true)
	case 1:
		if a := g.own[g.rng.IntN(len(g.own))]; a.Is6() {
			g.ours = true
			return a
		}
	}
	return g.carry(g.four())
}

func (g *inner) addr() netip.Addr {
	g.ours = false
	if g.rng.IntN(2) == 0 {
		return g.four()
	}
	return g.six()
}

// turning is a Resolver that tells the open internet first, and something else to who asks next.
type turning struct {
	mu    sync.Mutex
	n     int
	inner netip.Addr
}

func (r *turning) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n++; r.n == 1 {
		return addrs("93.184.216.34"), nil
	}
	return []netip.Addr{r.inner}, nil
}

func (r *turning) LookupAddr(context.Context, string) ([]string, error) { return nil, errNotFound }

func (r *turning) turn(to netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n, r.inner = 0, to
}

// watch counts what the last check before a socket connects lets through, and goes no further than this machine.
func watch(d *Dialer) *atomic.Int32 {
	passed := new(atomic.Int32)
	d.connect = (&net.Dialer{ControlContext: func(ctx context.Context, network, address string, c syscall.RawConn) error {
		if err := d.control(ctx, network, address, c); err != nil {
			return err
		}
		passed.Add(1)
		if at, err := netip.ParseAddrPort(address); err != nil || !at.Addr().IsLoopback() {
			return errors.New("a test connects to nobody")
		}
		return nil
	}}).DialContext
	return passed
}

func TestNoFormOfAnInnerAddressConnects(t *testing.T) {
	n := 10_000
	if os.Getenv("PEEL_SLOW") == "1" {
		n = 100_000
	} else {
		t.Log("10,000 of 100,000: PEEL_SLOW=1 for all")
	}
	var reached atomic.Int32
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	ls := []net.Listener{l}
	if six, err := net.Listen("tcp6", fmt.Sprintf("[::1]:%d", port)); err == nil {
		ls = append(ls, six)
	}
	var wg sync.WaitGroup
	for _, l := range ls {
		wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				reached.Add(1)
				c.Close()
			}
		})
	}
	stop := func() {
		for _, l := range ls {
			l.Close()
		}
		wg.Wait()
	}
	defer stop()

	const seed = 6
	g := &inner{rng: rand.New(rand.NewPCG(seed, 0)), own: addrs("93.184.215.14", "2606:2800:21f:cb07::1")}
	r := new(turning)
	d := newDialer(t, Config{Policy: policy(t, "accept *:*"), Own: g.own, Resolver: r})
	g.own = append(g.own, d.own.here...)
	passed := watch(d)
	refused := func(form string, err error) {
		t.Helper()
		if reason := Reason(err); err == nil || reason != cell.EndPolicy && reason != cell.EndNotFound && reason != cell.EndProtocol {
			t.Errorf("seed %d: %q: %v", seed, form, err)
		}
	}
	kinds := [5]int{}
	for i := range n {
		kind := i % 5
		kinds[kind]++
		a := g.addr()
		form := a.String()
		r.turn(a)
		switch kind {
		case 0, 1: // written somehow
			if a.Is4() {
				form = g.text4(a)
			} else {
				form = g.text6(a)
			}
			r.n = 1 // what passes for a name leads to it
			_, _, err := d.Dial(t.Context(), cell.Begin{Host: form, Port: port})
			refused(form, err)
			if got := d.Resolve(t.Context(), cell.Resolve{Name: form}); got.Reason == 0 && !g.ours { // public ones may be told
				t.Errorf("seed %d: %q is told as %v", seed, form, got.Answers)
			}
		case 2: // behind a name
			r.n = 1
			_, _, err := d.Dial(t.Context(), cell.Begin{Host: "innocent.example", Port: port})
			refused(form, err)
		case 3: // behind a name that led elsewhere when it was looked up before
			if got := d.Resolve(t.Context(), cell.Resolve{Name: "innocent.example"}); got.Reason != 0 {
				t.Errorf("seed %d: %v", seed, got)
			}
			_, _, err := d.Dial(t.Context(), cell.Begin{Host: "innocent.example", Port: port})
			refused(form, err)
		case 4: // put in the place of an address that was allowed: the socket has the last word
			refused(form, d.control(t.Context(), "tcp6", netip.AddrPortFrom(a, port).String(), nil))
			_, err := d.tryOne(t.Context(), a.Unmap(), port, 1)
			refused(form, scrub("connecting", err))
		}
		if t.Failed() && i > 100 {
			break
		}
	}
	if passed.Load() != 0 || reached.Load() != 0 {
		t.Errorf("seed %d: %d addresses passed the last check, %d connections came", seed, passed.Load(), reached.Load())
	}
	// The same eyes see what is allowed.
	d = newDialer(t, Config{Policy: policy(t, "accept 127.0.0.1:*")})
	passed = watch(d)
	c, _, err := d.Dial(t.Context(), cell.Begin{Host: "127.0.0.1", Port: port})
	if err != nil {
		t.Fatal(err)
	}
	c.Read(make([]byte, 1)) // until it was seen and closed
	c.Close()
	if passed.Load() != 1 || reached.Load() != 1 {
		t.Errorf("of a connection that is allowed: %d passed, %d came", passed.Load(), reached.Load())
	}
	t.Logf("seed %d: %d forms (as text, as text, behind a name, behind one that changed, at the socket: %v): 0 passed, 0 connected", seed, n, kinds)
}

func TestAddressesThatComeToAnInterfaceAreOwn(t *testing.T) {
	d := newDialer(t, Config{Policy: policy(t, "accept *:*")})
	late := netip.MustParseAddr("93.184.215.14")
	if !d.allows(late, 80) {
		t.Fatal("an address of somebody else cannot be dialled")
	}
	d.own.interfaces = func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: late.AsSlice(), Mask: net.CIDRMask(24, 32)}}, nil
	}
	then := d.own.looked
	if d.own.has(late, then.Add(ownFresh-1)) || !d.own.has(late, then.Add(ownFresh)) {
		t.Error("an address is to be known five seconds after it came")
	}
	d.own.interfaces = func() ([]net.Addr, error) { return nil, errors.New("no") }
	if !d.own.has(late, then.Add(10*ownFresh)) {
		t.Error("what was known is forgotten when the machine cannot say")
	}
}
