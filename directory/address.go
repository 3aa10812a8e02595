package directory

import "net/netip"

// SourceOf is what counts as one place in limits by address: an IPv4 address, or an IPv6 /64, which one house has. Not valid: the
// address is not.
func SourceOf(a netip.Addr) netip.Prefix {
	n := a.BitLen()
	if a.Is6() {
		n = 64
	}
	return netip.PrefixFrom(a, n).Masked()
}

// NetworkOf is what is likely to be one operator's as a whole: an IPv4 /16 or an IPv6 /32. Not valid: the address is not.
func NetworkOf(a netip.Addr) netip.Prefix {
	n := 16
	if a.Is6() {
		n = 32
	}
	return netip.PrefixFrom(a, n).Masked()
}
