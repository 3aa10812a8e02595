package directory

import "net/netip"

// special are the ranges that are not the open internet (spec/exit.md, section 2): the
// outermost ones of IANA's special-purpose registries for IPv4 and IPv6, and multicast.
// What is written behind a range lies within it and needs no entry of its own.
var special = prefixes(
	"0.0.0.0/8",         // this network
	"10.0.0.0/8",        // private
	"100.64.0.0/10",     // shared, behind carriers' NAT
	"127.0.0.0/8",       // loopback
	"169.254.0.0/16",    // link-local, cloud metadata
	"172.16.0.0/12",     // private
	"192.0.0.0/24",      // protocol assignments: DS-Lite, dummy, anycast, NAT64 discovery
	"192.0.2.0/24",      // documentation
	"192.31.196.0/24",   // AS112
	"192.52.193.0/24",   // AMT
	"192.88.99.0/24",    // 6to4 relays
	"192.168.0.0/16",    // private
	"192.175.48.0/24",   // AS112
	"198.18.0.0/15",     // benchmarks
	"198.51.100.0/24",   // documentation
	"203.0.113.0/24",    // documentation
	"224.0.0.0/4",       // multicast
	"240.0.0.0/4",       // reserved, broadcast
	"::/96",             // unspecified, loopback, IPv4-compatible
	"::ffff:0:0/96",     // IPv4-mapped
	"64:ff9b::/96",      // NAT64
	"64:ff9b:1::/48",    // NAT64 of a site
	"100::/63",          // discard (100::/64), dummy (100:0:0:1::/64)
	"2001::/23",         // protocol assignments: Teredo, benchmarks, AMT, AS112, ORCHID, DETs
	"2001:db8::/32",     // documentation
	"2002::/16",         // 6to4
	"2620:4f:8000::/48", // AS112
	"3fff::/20",         // documentation
	"5f00::/16",         // segment routing
	"fc00::/7",          // unique local
	"fe80::/10",         // link-local
	"fec0::/10",         // site-local, deprecated
	"ff00::/8",          // multicast
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

var globalIPv6 = netip.MustParsePrefix("2000::/3")

// Special says whether an address is not one of the internet.
func Special(addr netip.Addr) bool {
	_, is := SpecialRange(addr)
	return is
}

// SpecialRange finds the special range an address is in. IPv6 that is neither listed nor
// global unicast counts too, by the eighth of the address space that it is in.
func SpecialRange(addr netip.Addr) (netip.Prefix, bool) {
	for _, p := range special {
		if p.Contains(addr) {
			return p, true
		}
	}
	if addr.Is6() && !globalIPv6.Contains(addr) {
		p, err := addr.Prefix(globalIPv6.Bits())
		return p, err == nil
	}
	return netip.Prefix{}, false
}
