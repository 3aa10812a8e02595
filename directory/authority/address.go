package authority

import (
	"net/netip"

	"peel/directory"
)

// public reports whether an address is one that a relay of the internet may have.
func public(a netip.Addr) bool {
	_, special := directory.SpecialRange(a)
	return !special
}

// networkOf is what is likely to be one operator's as a whole: an IPv4 /16 or an IPv6 /32.
func networkOf(a netip.Addr) netip.Prefix {
	n := 16
	if a.Is6() {
		n = 32
	}
	return netip.PrefixFrom(a, n).Masked()
}

// place is what the limit on relays at one address counts by: an IPv4 address or an IPv6 /64.
func place(a netip.Addr) netip.Prefix {
	n := a.BitLen()
	if a.Is6() {
		n = 64
	}
	return netip.PrefixFrom(a, n).Masked()
}
