// Package exit connects to the world for others: it looks up names, checks each address
// that is really dialled against the relay's policy, and dials (spec/exit.md).
package exit

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"peel/cell"
	"peel/directory"
)

// Config says what a Dialer may do.
type Config struct {
	// Policy decides on each address and port. Special-purpose ranges and the relay's own
	// addresses are refused whatever it says of "*", unless it names them: see Dialer.
	Policy directory.Policy

	// Own are the addresses that lead to the relay from outside; those of its interfaces
	// need not be listed.
	Own []netip.Addr

	// Connect opens connections to hosts, after the policy was asked; nil: net.Dialer, of which the policy is asked once more
	// about each socket. For networks in memory.
	Connect func(ctx context.Context, network, addr string) (net.Conn, error)

	Resolver   Resolver      // nil: the system's DNS servers; what is in the hosts file is not found
	Timeout    time.Duration // for a whole Dial or Resolve; 0: 20 s
	Lookups    *Lookups      // counts what became of look-ups; nil: nobody does
	MaxPending int           // Dials and Resolves under way, of all circuits; 0: 1024; one more is refused as busy
}

const (
	defaultTimeout = 20 * time.Second
	defaultPending = 1024

	// maxTries bounds the addresses of a name that are tried, one after the other.
	maxTries = 4
	// TTL is for how long, in seconds, clients may keep an address. It is always the same:
	// what is left of a record's own would tell who else asked for the name, and when.
	TTL = 60
)

// Dialer connects and resolves for clients. It may be used by any number of goroutines.
//
// It refuses special-purpose addresses (private, loopback, link-local, translated and so
// on) and the relay's own, whatever the policy says of "*", unless the first rule that
// fits is written for them: a range within the special range, or the own address alone.
type Dialer struct {
	policy   directory.Policy
	own      own
	resolver Resolver
	lookups  *Lookups
	timeout  time.Duration
	pending  chan struct{} // a place for each Dial and Resolve under way
	connect  func(ctx context.Context, network, address string) (net.Conn, error)
}

// New checks the policy and reads the addresses of the machine's interfaces. It starts
// nothing.
func New(cfg Config) (*Dialer, error) {
	if err := cfg.Policy.Check(); err != nil {
		return nil, fmt.Errorf("exit: %w", err)
	}
	d := &Dialer{policy: slices.Clone(cfg.Policy), resolver: cfg.Resolver, timeout: cfg.Timeout, lookups: cfg.Lookups}
	if d.lookups == nil {
		d.lookups = new(Lookups)
	}
	if d.resolver == nil {
		var err error
		if d.resolver, err = newSystem(); err != nil {
			return nil, fmt.Errorf("exit: %w", err)
		}
	}
	if d.timeout <= 0 {
		d.timeout = defaultTimeout
	}
	n := cfg.MaxPending
	if n <= 0 {
		n = defaultPending
	}
	d.pending = make(chan struct{}, n)
	d.connect = (&net.Dialer{ControlContext: d.control}).DialContext
	if cfg.Connect != nil {
		d.connect = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if err := d.control(ctx, network, addr, nil); err != nil {
				return nil, err
			}
			return cfg.Connect(ctx, network, addr)
		}
	}
	d.own.interfaces = net.InterfaceAddrs
	for _, a := range cfg.Own {
		d.own.published = append(d.own.published, a.Unmap().WithZone(""))
	}
	if err := d.own.refresh(time.Now()); err != nil {
		return nil, fmt.Errorf("exit: reading the machine's own addresses, which must not be dialled: %w", err)
	}
	return d, nil
}

// Allows says whether the Dialer connects to an address and port.
func (d *Dialer) Allows(addr netip.Addr, port uint16) bool { return d.allows(addr, port) }

// allows says whether an address may be dialled: the one place that decides.
func (d *Dialer) allows(addr netip.Addr, port uint16) bool {
	if !addr.IsValid() || addr.Zone() != "" || port == 0 {
		return false
	}
	if r, ok := directory.SpecialRange(addr); ok {
		if !d.policy.AllowsWithin(r, addr, port) {
			return false
		}
	} else if d.own.has(addr, time.Now()) {
		if !d.allowsOwn(addr, port) {
			return false
		}
	} else if !d.policy.Allows(addr, port) {
		return false
	}
	for _, in := range embedded(addr) {
		if !d.allows(in, port) {
			return false
		}
	}
	return true
}

func (d *Dialer) allowsOwn(addr netip.Addr, port uint16) bool {
	within := netip.PrefixFrom(addr, addr.BitLen())
	if r, ok := directory.SpecialRange(addr); ok {
		within = r
	}
	return d.policy.AllowsWithin(within, addr, port)
}

// shows says whether an address may be told to a client, whose port is not known.
func (d *Dialer) shows(addr netip.Addr) bool {
	if r, ok := directory.SpecialRange(addr); ok && !d.policy.AllowsWithin(r, addr, 0) {
		return false
	}
	for _, in := range embedded(addr) {
		if !d.shows(in) {
			return false
		}
	}
	return true
}

// enter takes a place among those under way; leave must be called if it is true.
func (d *Dialer) enter() bool {
	select {
	case d.pending <- struct{}{}:
		return true
	default:
		return false
	}
}

func (d *Dialer) leave() { <-d.pending }

var errBusy = refuse(cell.EndBusy, "too many connections are being made")

// Dial connects to a host and says to which address. The connection is the caller's. It
// tries up to four addresses that the flags and the policy allow, one after the other.
// An error is an *Error; Reason tells what to answer.
func (d *Dialer) Dial(ctx context.Context, b cell.Begin) (net.Conn, cell.Connected, error) {
	conn, err := d.dial(ctx, b)
	if err != nil {
		return nil, cell.Connected{}, err
	}
	to, _ := remote(conn)
	return conn, cell.Connected{Addr: to, TTL: TTL}, nil
}

func (d *Dialer) dial(ctx context.Context, b cell.Begin) (net.Conn, error) {
	if b.Check() != nil {
		return nil, refuse(cell.EndProtocol, "a request that is not well formed")
	}
	if !d.policy.AllowsPort(b.Port) {
		return nil, refuse(cell.EndPolicy, "the policy allows no address at this port")
	}
	h, err := parseHost(b.Host)
	if err != nil {
		return nil, err
	}
	if !d.enter() {
		return nil, errBusy
	}
	defer d.leave()
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	addrs, err := d.targets(ctx, h, b)
	if err != nil {
		return nil, err
	}
	return d.tryEach(ctx, addrs, b.Port)
}

// targets finds the addresses to try, in order.
func (d *Dialer) targets(ctx context.Context, h host, b cell.Begin) ([]netip.Addr, error) {
	network := "ip"
	switch {
	case b.Flags&cell.NoIPv6 != 0:
		network = "ip4"
	case b.Flags&cell.NoIPv4 != 0:
		network = "ip6"
	}
	addrs := []netip.Addr{h.addr}
	if !h.addr.IsValid() {
		var err error
		if addrs, err = d.lookup(ctx, network, h.name); err != nil {
			return nil, err
		}
	} else if !fits(network, h.addr) {
		return nil, refuse(cell.EndNotFound, "an address of a family that the client does not want")
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !d.allows(a, b.Port) })
	if len(addrs) == 0 {
		return nil, refuse(cell.EndPolicy, "the policy does not allow the address")
	}
	return interleave(addrs, b.Flags&cell.PreferIPv6 != 0), nil
}

// interleave takes addresses of both families by turns, so that one that does not work is
// left soon, and no more than maxTries of them.
func interleave(addrs []netip.Addr, sixFirst bool) []netip.Addr {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.Is6() == sixFirst {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var out []netip.Addr
	for i := range max(len(first), len(second)) {
		out = append(out, first[min(i, len(first)):min(i+1, len(first))]...)
		out = append(out, second[min(i, len(second)):min(i+1, len(second))]...)
	}
	return out[:min(len(out), maxTries)]
}

// tryEach dials until one address answers. Each gets an even share of the time that is left.
func (d *Dialer) tryEach(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	var failed *Error
	for i, a := range addrs {
		conn, err := d.tryOne(ctx, a, port, len(addrs)-i)
		if err == nil {
			return conn, nil
		}
		// What a host said is worth more than that there was no way to another.
		if e := scrub("connecting", err); failed == nil || failed.Reason == cell.EndUnreachable {
			failed = e
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

func (d *Dialer) tryOne(ctx context.Context, addr netip.Addr, port uint16, left int) (net.Conn, error) {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(left))
		defer cancel()
	}
	network := "tcp4"
	if addr.Is6() {
		network = "tcp6"
	}
	conn, err := d.connect(ctx, network, netip.AddrPortFrom(addr, port).String())
	if err != nil {
		return nil, err
	}
	// Addresses that came to an interface since New: a connection with oneself has the
	// same address at both ends. Nothing was sent yet.
	if to, ok := remote(conn); !ok || to == local(conn) && !d.allowsOwn(to, port) {
		conn.Close()
		return nil, errPolicy
	}
	return conn, nil
}

var errPolicy = refuse(cell.EndPolicy, "the policy does not allow the address")

// control has the last word on the address of a socket, just before it connects.
func (d *Dialer) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" || !d.allows(to.Addr(), to.Port()) {
		return errPolicy
	}
	return nil
}

func remote(c net.Conn) (netip.Addr, bool) {
	t, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	return t.AddrPort().Addr().Unmap(), true
}

func local(c net.Conn) netip.Addr {
	t, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return t.AddrPort().Addr().Unmap()
}
