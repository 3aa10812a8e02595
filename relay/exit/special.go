package exit

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

var (
	nat64   = netip.MustParsePrefix("64:ff9b::/96")
	local64 = netip.MustParsePrefix("64:ff9b:1::/48")
	sixTo4  = netip.MustParsePrefix("2002::/16")
	teredo  = netip.MustParsePrefix("2001::/32")
	compat4 = netip.MustParsePrefix("::/96")
	siit    = netip.MustParsePrefix("::ffff:0:0:0/96") // IPv4-translated, RFC 2765
)

// embedded are the IPv4 addresses that a packet to addr may be carried on to by the network: all of them must be allowed.
// They are found in IPv4 addresses themselves as little as in most of IPv6.
func embedded(addr netip.Addr) []netip.Addr {
	if !addr.Is6() {
		return nil
	}
	b := addr.As16()
	four := func(b0, b1, b2, b3 byte) netip.Addr { return netip.AddrFrom4([4]byte{b0, b1, b2, b3}) }
	last := four(b[12], b[13], b[14], b[15])
	switch {
	case nat64.Contains(addr), siit.Contains(addr), compat4.Contains(addr) && addr.Compare(netip.IPv6Loopback()) > 0:
		return []netip.Addr{last}
	case local64.Contains(addr): // prefixes of 48, 56, 64 and 96 bits (RFC 6052, section 2.2)
		return []netip.Addr{four(b[6], b[7], b[9], b[10]), four(b[7], b[9], b[10], b[11]), four(b[9], b[10], b[11], b[12]), last}
	case sixTo4.Contains(addr):
		return append(isatap(b), four(b[2], b[3], b[4], b[5]))
	case teredo.Contains(addr): // the server, and the client, of which each bit is turned round
		return []netip.Addr{four(b[4], b[5], b[6], b[7]), four(^b[12], ^b[13], ^b[14], ^b[15])}
	}
	return isatap(b)
}

// isatap is the IPv4 address in an interface identifier of ISATAP, which any prefix may stand before (RFC 5214, section 6.1).
func isatap(b [16]byte) []netip.Addr {
	if id := binary.BigEndian.Uint32(b[8:]); id&^0x0200_0000 != 0x5efe { // with and without the bit that says "global"
		return nil
	}
	return []netip.Addr{netip.AddrFrom4([4]byte(b[12:]))}
}

// ownFresh is how long the addresses of the interfaces are not looked at again.
const ownFresh = 5 * time.Second

// own are the addresses that lead to the relay itself: those it publishes, and those of the machine's interfaces as they were
// a few seconds ago.
type own struct {
	published  []netip.Addr
	interfaces func() ([]net.Addr, error)

	mu     sync.Mutex
	here   []netip.Addr
	looked time.Time
}

func (o *own) has(addr netip.Addr, now time.Time) bool {
	if slices.Contains(o.published, addr) {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.looked) >= ownFresh {
		o.looked = now
		_ = o.read() // what was there before is most likely still there
	}
	return slices.Contains(o.here, addr)
}

func (o *own) refresh(now time.Time) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.looked = now
	return o.read()
}

// read is called with the lock: it asks the machine, which answers at once.
func (o *own) read() error {
	all, err := o.interfaces()
	if err != nil {
		return err
	}
	o.here = o.here[:0]
	for _, i := range all {
		if p, err := netip.ParsePrefix(i.String()); err == nil {
			o.here = append(o.here, p.Addr().Unmap().WithZone(""))
		}
	}
	return nil
}
