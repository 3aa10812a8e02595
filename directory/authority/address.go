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
