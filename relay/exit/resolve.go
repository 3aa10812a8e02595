package exit

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"peel/cell"
	"peel/directory"
)

// Resolver looks up names and addresses; a *net.Resolver is one. network is "ip", "ip4" or
// "ip6". Names come with a final dot, so that no search list applies to them.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupAddr(ctx context.Context, addr string) (names []string, err error)
}

// Lookups count what became of questions to the Resolver.
type Lookups struct{ Found, Missing, Failed atomic.Uint64 }

// count counts one by its error, which it returns.
func (l *Lookups) count(err error) error {
	switch {
	case err == nil:
		l.Found.Add(1)
	case err == errNotFound:
		l.Missing.Add(1)
	default:
		l.Failed.Add(1)
	}
	return err
}

// Resolve answers a client's RESOLVE. Special-purpose addresses are not told, unless the
// policy names their range; there is no answer at all where the policy allows nothing.
func (d *Dialer) Resolve(ctx context.Context, m cell.Resolve) cell.Resolved {
	answers, err := d.resolve(ctx, m)
	if err != nil {
		return cell.Resolved{Reason: Reason(err)}
	}
	var r cell.Resolved
	for _, a := range answers {
		r.Answers = append(r.Answers, a)
		if r.Check() != nil { // an answer that cannot be written, or for which there is no room
			r.Answers = r.Answers[:len(r.Answers)-1]
		}
	}
	if len(r.Answers) == 0 {
		return cell.Resolved{Reason: cell.EndNotFound}
	}
	return r
}

func (d *Dialer) resolve(ctx context.Context, m cell.Resolve) ([]cell.Answer, error) {
	if m.Check() != nil {
		return nil, refuse(cell.EndProtocol, "a request that is not well formed")
	}
	if !slices.ContainsFunc(d.policy, func(r directory.Rule) bool { return r.Accept }) {
		return nil, refuse(cell.EndPolicy, "the policy allows nothing")
	}
	h, err := parseHost(m.Name)
	if err != nil {
		return nil, err
	}
	if !d.enter() {
		return nil, errBusy
	}
	defer d.leave()
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if m.Kind == cell.ResolvePTR {
		return d.names(ctx, h.addr)
	}
	return d.addresses(ctx, m.Kind, h)
}

func (d *Dialer) addresses(ctx context.Context, kind cell.ResolveKind, h host) ([]cell.Answer, error) {
	network := map[cell.ResolveKind]string{cell.ResolveAny: "ip", cell.ResolveA: "ip4", cell.ResolveAAAA: "ip6"}[kind]
	addrs := []netip.Addr{h.addr}
	if !h.addr.IsValid() {
		var err error
		if addrs, err = d.lookup(ctx, network, h.name); err != nil {
			return nil, err
		}
	} else if !fits(network, h.addr) {
		return nil, refuse(cell.EndNotFound, "an address of another family")
	}
	var out []cell.Answer
	for _, a := range addrs {
		if d.shows(a) {
			out = append(out, cell.Answer{TTL: TTL, Addr: a})
		}
	}
	if len(out) == 0 {
		return nil, errPolicy
	}
	return out, nil
}

func (d *Dialer) names(ctx context.Context, addr netip.Addr) ([]cell.Answer, error) {
	if !d.shows(addr) {
		return nil, errPolicy
	}
	names, err := d.resolver.LookupAddr(ctx, addr.String())
	if err != nil {
		return nil, d.lookups.count(lookupError(err))
	}
	d.lookups.count(nil)
	var out []cell.Answer
	for _, n := range names {
		if n = strings.TrimSuffix(n, "."); validName(n) {
			out = append(out, cell.Answer{TTL: TTL, Name: n})
		}
	}
	if len(out) == 0 {
		return nil, errNotFound
	}
	return out, nil
}

// lookup asks the Resolver once. What it gives is of the family asked for, without zones,
// each address once, at least one.
func (d *Dialer) lookup(ctx context.Context, network, name string) ([]netip.Addr, error) {
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		own := slices.DeleteFunc(slices.Clone(loopbacks), func(a netip.Addr) bool { return !fits(network, a) || !d.shows(a) })
		if len(own) == 0 {
			return nil, errNotFound
		}
		return own, nil
	}
	found, err := d.resolver.LookupNetIP(ctx, network, name+".")
	if err != nil {
		return nil, d.lookups.count(lookupError(err))
	}
	d.lookups.count(nil)
	var out []netip.Addr
	for _, a := range found {
		a = a.Unmap() // resolvers may write IPv4 so
		if a.IsValid() && a.Zone() == "" && fits(network, a) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return nil, errNotFound
	}
	return out, nil
}

var errNotFound = refuse(cell.EndNotFound, "there is no such host")

// loopbacks are the addresses of localhost, which is never asked of a server (RFC 6761, section 6.3). Where the policy does
// not name them there is no such name.
var loopbacks = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// lookupError drops what a Resolver said, which names the name.
func lookupError(err error) error {
	if errors.Is(err, errNotFound) {
		return errNotFound
	}
	var dns *net.DNSError
	var addr *net.AddrError // there are addresses, but of the other family
	if errors.As(err, &dns) && dns.IsNotFound || errors.As(err, &addr) {
		return errNotFound
	}
	return &Error{Reason: cell.EndResolveFailed, what: "the name could not be looked up now"}
}

func fits(network string, a netip.Addr) bool {
	return network == "ip" || (network == "ip4") == a.Is4()
}
