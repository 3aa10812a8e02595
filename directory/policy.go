package directory

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// MaxRules bounds an exit policy.
const MaxRules = 64

// Policy says where an exit connects for others: its rules are tried in order, the first that
// matches decides, and what none matches is rejected. An empty policy makes a relay no exit.
type Policy []Rule

// Rule accepts or rejects the ports Lo to Hi of the addresses in Prefix; an invalid (zero) Prefix
// stands for all addresses, IPv4 and IPv6.
type Rule struct {
	Accept bool
	Prefix netip.Prefix
	Lo, Hi uint16
}

// ParseRule parses "accept|reject ADDR[/BITS]|*:PORT[-PORT]|*", for example "accept *:443",
// "reject 10.0.0.0/8:*" or "accept [2001:db8::]/32:80-90". There is one way to write a rule: no
// bits for a single address, none of the address's bits beyond them, no range of a single port.
func ParseRule(s string) (Rule, error) {
	verb, rest, _ := strings.Cut(s, " ")
	if verb != "accept" && verb != "reject" {
		return Rule{}, fmt.Errorf("directory: policy rule %q: must begin with accept or reject", clip(s))
	}
	r, err := parseRule(verb == "accept", rest)
	if err != nil {
		return Rule{}, fmt.Errorf("directory: %w", err)
	}
	return r, nil
}

// ParsePolicy parses the rules of a configuration, one a string. Such a rule may list ports and ranges, as in
// "accept *:80,443,6660-6669": that is a rule for each of them, in this order.
func ParsePolicy(rules []string) (Policy, error) {
	var p Policy
	for _, s := range rules {
		at := strings.LastIndexByte(s, ':') + 1
		for ports := range strings.SplitSeq(s[at:], ",") {
			if len(p) == MaxRules {
				return nil, fmt.Errorf("directory: policy of more than the %d rules that are allowed", MaxRules)
			}
			r, err := ParseRule(s[:at] + ports)
			if err != nil {
				return nil, err
			}
			p = append(p, r)
		}
	}
	return p, nil
}

func parseRule(accept bool, s string) (Rule, error) {
	bad := func(why string) (Rule, error) {
		return Rule{}, fmt.Errorf("policy rule %q: %s", clip(s), why)
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return bad("needs an address, a colon and a port, such as 192.0.2.0/24:443 or *:*")
	}
	r := Rule{Accept: accept}
	addr, ports := s[:i], s[i+1:]
	if addr != "*" {
		p, err := parsePrefix(addr)
		if err != nil {
			return bad(err.Error())
		}
		r.Prefix = p
	}
	lo, hi, isRange := strings.Cut(ports, "-")
	if ports == "*" {
		r.Lo, r.Hi = 1, 65535
	} else {
		a, err := parseUint(lo, 65535)
		if err != nil {
			return bad("port " + err.Error())
		}
		b := a
		if isRange {
			if b, err = parseUint(hi, 65535); err != nil {
				return bad("port " + err.Error())
			}
		}
		r.Lo, r.Hi = uint16(a), uint16(b)
	}
	if err := r.check(); err != nil {
		return bad(err.Error())
	}
	var buf [64]byte
	if got := r.appendTarget(buf[:0]); string(got) != s {
		return bad("must be written as " + string(got))
	}
	return r, nil
}

// parsePrefix parses 192.0.2.1, 192.0.2.0/24, [2001:db8::1] or [2001:db8::]/32.
func parsePrefix(s string) (netip.Prefix, error) {
	addr, bits, hasBits := strings.Cut(s, "/")
	six := strings.HasPrefix(addr, "[") && strings.HasSuffix(addr, "]")
	if six {
		addr = addr[1 : len(addr)-1]
	}
	ip, err := netip.ParseAddr(addr)
	if err != nil || ip.Zone() != "" || ip.Is4() == six {
		return netip.Prefix{}, fmt.Errorf("%q is no IPv4 address, no IPv6 address in brackets and not *", clip(s))
	}
	n := uint64(ip.BitLen())
	if hasBits {
		if n, err = parseUint(bits, n); err != nil {
			return netip.Prefix{}, fmt.Errorf("bits: %w", err)
		}
	}
	return netip.PrefixFrom(ip, int(n)), nil
}

func (r Rule) check() error {
	if r.Lo == 0 {
		return fmt.Errorf("there is no port 0")
	}
	if r.Lo > r.Hi {
		return fmt.Errorf("the range of ports %d-%d is the wrong way round", r.Lo, r.Hi)
	}
	if r.Prefix == (netip.Prefix{}) {
		return nil
	}
	if !r.Prefix.IsValid() || r.Prefix.Addr().Zone() != "" {
		return fmt.Errorf("not an address range")
	}
	if r.Prefix.Masked() != r.Prefix {
		return fmt.Errorf("the address has bits beyond the first %d: write %s", r.Prefix.Bits(), r.Prefix.Masked())
	}
	if r.Prefix.Addr().Is4In6() {
		return fmt.Errorf("IPv4 addresses must be written as such")
	}
	return nil
}

// Check refuses a policy that has no text: built by hand with port 0, an inverted range, an address
// with bits beyond its prefix, or too many rules.
func (p Policy) Check() error {
	if err := p.check(); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	return nil
}

func (p Policy) check() error {
	if len(p) > MaxRules {
		return fmt.Errorf("policy of %d rules, but at most %d are allowed", len(p), MaxRules)
	}
	for i, r := range p {
		if err := r.check(); err != nil {
			return fmt.Errorf("policy rule %d: %w", i+1, err)
		}
	}
	return nil
}

// String returns the rule as ParseRule takes it.
func (r Rule) String() string { return string(r.append(nil)) }

func (r Rule) append(b []byte) []byte {
	if r.Accept {
		return r.appendTarget(append(b, "accept "...))
	}
	return r.appendTarget(append(b, "reject "...))
}

func (r Rule) appendTarget(b []byte) []byte {
	switch ip := r.Prefix.Addr(); {
	case r.Prefix == (netip.Prefix{}):
		b = append(b, '*')
	case ip.Is4():
		b = ip.AppendTo(b)
	default:
		b = append(ip.AppendTo(append(b, '[')), ']')
	}
	if r.Prefix.IsValid() && !r.Prefix.IsSingleIP() {
		b = append(b, '/')
		b = strconv.AppendInt(b, int64(r.Prefix.Bits()), 10)
	}
	b = append(b, ':')
	switch {
	case r.Lo == 1 && r.Hi == 65535:
		b = append(b, '*')
	case r.Lo == r.Hi:
		b = strconv.AppendUint(b, uint64(r.Lo), 10)
	default:
		b = strconv.AppendUint(b, uint64(r.Lo), 10)
		b = append(b, '-')
		b = strconv.AppendUint(b, uint64(r.Hi), 10)
	}
	return b
}

// String returns the rules, separated by ", ".
func (p Policy) String() string {
	s := make([]string, len(p))
	for i, r := range p {
		s[i] = r.String()
	}
	return strings.Join(s, ", ")
}

// match returns the first rule for an address and port. An IPv4 address inside an IPv6 one counts
// as the IPv4 address it is.
func (p Policy) match(addr netip.Addr, port uint16) (Rule, bool) {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() || port == 0 {
		return Rule{}, false
	}
	for _, r := range p {
		if r.covers(port) && (!r.Prefix.IsValid() || r.Prefix.Contains(addr)) {
			return r, true
		}
	}
	return Rule{}, false
}

func (r Rule) covers(port uint16) bool { return r.Lo <= port && port <= r.Hi }

// Allows reports whether the policy accepts an address and port.
func (p Policy) Allows(addr netip.Addr, port uint16) bool {
	r, ok := p.match(addr, port)
	return ok && r.Accept
}

// AllowsWithin says whether the first rule for an address and port accepts it and was written for addresses within a range,
// which "accept *:*" is not, nor a rule for a wider range that happens to cover it: so special-purpose addresses are
// allowed (spec/exit.md, section 2). Port 0 asks for any rule and any port.
func (p Policy) AllowsWithin(within netip.Prefix, addr netip.Addr, port uint16) bool {
	for _, r := range p {
		if port != 0 && (port < r.Lo || port > r.Hi) || r.Prefix.IsValid() && !r.Prefix.Contains(addr) {
			continue
		}
		names := r.Accept && r.Prefix.IsValid() && r.Prefix.Bits() >= max(within.Bits(), 4) && within.Contains(r.Prefix.Addr())
		if names || port != 0 {
			return names
		}
	}
	return false
}

// AllowsPort reports whether the policy accepts the port of at least one address: what can be said
// before a name is resolved.
func (p Policy) AllowsPort(port uint16) bool {
	if port == 0 {
		return false
	}
	var rejected []netip.Prefix
	for _, r := range p {
		if !r.covers(port) {
			continue
		}
		for _, q := range r.prefixes() {
			if r.Accept && !covered(q, rejected) {
				return true
			}
		}
		if !r.Accept {
			rejected = append(rejected, r.prefixes()...)
		}
	}
	return false
}

var allPrefixes = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

func (r Rule) prefixes() []netip.Prefix {
	if r.Prefix.IsValid() {
		return []netip.Prefix{r.Prefix}
	}
	return allPrefixes
}

// covered reports whether every address of q is in one of the others. It halves q only while some
// of them lie inside it, so it takes at most 128 steps for each.
func covered(q netip.Prefix, others []netip.Prefix) bool {
	var inside []netip.Prefix
	for _, o := range others {
		if !o.Overlaps(q) {
			continue
		}
		if o.Bits() <= q.Bits() {
			return true
		}
		inside = append(inside, o)
	}
	if len(inside) == 0 {
		return false
	}
	low := netip.PrefixFrom(q.Addr(), q.Bits()+1)
	return covered(low, inside) && covered(upper(low), inside)
}

// upper returns the prefix whose last bit is set where that of low, the lower one of two, is not.
func upper(low netip.Prefix) netip.Prefix {
	b := low.Addr().AsSlice()
	i := low.Bits() - 1
	b[i/8] |= 0x80 >> (i % 8)
	ip, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(ip, low.Bits())
}
