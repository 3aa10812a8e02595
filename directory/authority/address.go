package authority

import "net/netip"

// special are the ranges of IANA's special-purpose registries and of multicast: nobody on the
// internet is reached there, or not for certain who.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
	"192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
	// Of IPv6 only 2000::/3 is given out; within it:
	"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)

var globalUnicast = netip.MustParsePrefix("2000::/3")

func prefixes(list ...string) []netip.Prefix {
	p := make([]netip.Prefix, len(list))
	for i, s := range list {
		p[i] = netip.MustParsePrefix(s)
	}
	return p
}

// public reports whether an address is one that a relay of the internet may have.
func public(a netip.Addr) bool {
	if a.Is6() && !globalUnicast.Contains(a) {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// place is what the limit on relays at one address counts by: an IPv4 address or an IPv6 /64.
func place(a netip.Addr) netip.Prefix {
	n := a.BitLen()
	if a.Is6() {
		n = 64
	}
	return netip.PrefixFrom(a, n).Masked()
}
