package exit

import (
	"net/netip"
	"strings"

	"peel/cell"
)

// A host is what a client wants to reach: an address, or a name to look up.
type host struct {
	addr netip.Addr // valid: an address was given
	name string     // else: a name without its final dot, in lower case
}

// parseHost reads a host as clients write it (spec/exit.md, section 1). An address has one
// way to be written for IPv4, that of four decimal numbers, so that nothing between here
// and the socket can take it for another. What looks like a number and is none of those
// is no name either.
func parseHost(s string) (host, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		switch {
		case addr.Zone() != "":
			return host{}, refuse(cell.EndPolicy, "an address with a zone")
		case addr.Is4In6():
			return host{}, refuse(cell.EndPolicy, "an IPv4 address inside an IPv6 one: ask for the IPv4 address")
		}
		return host{addr: addr}, nil
	}
	name := strings.TrimSuffix(s, ".")
	if !validName(name) { // before ToLower, to which a Kelvin sign is a K
		return host{}, refuse(cell.EndNotFound, "neither a name nor an address")
	}
	name = strings.ToLower(name)
	for _, suffix := range localNames {
		if name == suffix || strings.HasSuffix(name, "."+suffix) {
			return host{}, refuse(cell.EndNotFound, "a name that is not for the DNS: ."+suffix)
		}
	}
	return host{name: name}, nil
}

// localNames are the endings of names that mean something else to each network, or
// nothing, and must not be looked up for others.
var localNames = []string{"alt", "onion", "local", "localdomain", "internal", "invalid", "home.arpa"}

// validName accepts names of up to 253 bytes with labels of 1 to 63 letters, digits,
// hyphens and underscores, of which the last is not a number.
func validName(name string) bool {
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for i := range len(l) {
			switch c := l[i]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			default:
				return false
			}
		}
	}
	return !numeric(strings.ToLower(labels[len(labels)-1]))
}

// numeric says whether a label is a number to the functions that read IPv4 addresses in
// old ways: decimal, octal, or hexadecimal behind 0x.
func numeric(l string) bool {
	digits := "0123456789"
	if strings.HasPrefix(l, "0x") {
		l, digits = l[2:], "0123456789abcdef"
	}
	return strings.Trim(l, digits) == ""
}
