package exit

import (
	"net/netip"

	"peel/directory"
)

var (
	nat64   = netip.MustParsePrefix("64:ff9b::/96")
	sixTo4  = netip.MustParsePrefix("2002::/16")
	compat4 = netip.MustParsePrefix("::/96")
)

// embedded is the IPv4 address that a packet to addr is carried on to by the network.
func embedded(addr netip.Addr) (netip.Addr, bool) {
	b := addr.As16()
	switch {
	case nat64.Contains(addr), compat4.Contains(addr) && addr.Compare(netip.IPv6Loopback()) > 0:
		return netip.AddrFrom4([4]byte(b[12:])), true
	case sixTo4.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:])), true
	}
	return netip.Addr{}, false
}

// named says whether the first rule of the policy for an address and port accepts it and
// was written for addresses within a range, which "accept *:*" is not, nor a rule for a
// wider range that happens to cover it. Port 0 asks for any rule and any port.
func named(p directory.Policy, within netip.Prefix, addr netip.Addr, port uint16) bool {
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
