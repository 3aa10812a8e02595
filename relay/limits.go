package relay

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"peel/cell/link"
	"peel/directory"
)

// Limits are what one address of clients may have and ask for: an IPv4 address, or an IPv6 /64. Of all clients together there
// are the bounds of Config, whose places are shared evenly. Relays of the directory and programs on the relay's own machine
// are not counted by address (spec/relay.md, section 7). 0: as said.
type Limits struct {
	Links    int // at a time: 128
	Circuits int // at a time: an eighth of Config.MaxCircuits, 64 at least

	// So many begin a second; as many as in ten seconds at once.
	LinkRate   int // links: 10
	CreateRate int // circuits: 30
	ExtendRate int // circuits made longer by a relay: 30
	StreamRate int // streams and look-ups that end at this relay: 60

	Off bool // addresses are not told apart: every link stands for itself
}

// burstTime is for how many seconds' worth of a rate may come at once.
const burstTime = 10

// mostRate is beyond what any relay can do.
const mostRate = 1_000_000

// limits are all of them, in the order of Limits, with what 0 stands for.
func (l *Limits) all(circuits int) []limit {
	return []limit{
		{"Links", &l.Links, 128}, {"Circuits", &l.Circuits, max(circuits/8, 64)},
		{"LinkRate", &l.LinkRate, 10}, {"CreateRate", &l.CreateRate, 30}, {"ExtendRate", &l.ExtendRate, 30}, {"StreamRate", &l.StreamRate, 60},
	}
}

type limit struct {
	name  string
	value *int
	usual int
}

// bound fills in what was left out, and refuses what cannot be.
func (l *Limits) bound(circuits int) error {
	for _, x := range l.all(circuits) {
		if *x.value < 0 || *x.value > mostRate {
			return fmt.Errorf("relay: Limits.%s is %d: it must be 1 to %d, or 0 for %d", x.name, *x.value, mostRate, x.usual)
		}
		if *x.value == 0 {
			*x.value = x.usual
		}
	}
	return nil
}

// relayWeight is as how many addresses of clients a relay counts where places are shared, for the people behind it.
const relayWeight = 64

// ownerAt is who a caller at an address is, before it has said more; ok: rates are for it.
func (l *Limits) ownerAt(from net.Addr) (o owner, at netip.Prefix, ok bool) {
	a := addrOf(from)
	switch {
	case l.Off || !a.IsValid():
		return owner{of: fmt.Sprint(from), free: true}, netip.Prefix{}, false
	case a.IsLoopback():
		return owner{of: a, free: true}, netip.Prefix{}, false
	}
	at = directory.SourceOf(a)
	return owner{of: at}, at, true
}

func addrOf(from net.Addr) netip.Addr {
	if t, ok := from.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// peer is who is at the other end of a link: a relay of the directory, or at an authority another one, an address of clients, or, without an address
// of its own, the link itself. ok: rates are for it.
func (r *Relay) peer(c *link.Conn) (o owner, at netip.Prefix, ok bool) {
	if key, proved := c.PeerKey(); proved { // looked up anew, as the directory may have come later than the link
		id, known := r.identify(key)
		if !known {
			id, known = r.voters.keys[key]
		}
		if known {
			return owner{of: id, weight: relayWeight, free: true}, netip.Prefix{}, false
		}
	}
	if o, at, ok = r.cfg.Limits.ownerAt(c.RemoteAddr()); !ok {
		o.of = c
	}
	return o, at, ok
}

// fromRelay says whether the other end of a link is a relay of the directory, so that this relay is not the only one of a circuit that came by it
// (spec/exit.md, section 7). While there is no directory whoever proved a key counts as one.
func (r *Relay) fromRelay(c *link.Conn) bool {
	key, proved := c.PeerKey()
	if !proved {
		return false
	}
	nodes := r.known.Load().nodes
	_, listed := nodes[key] // looked up anew, as above
	return listed || len(nodes) == 0
}

// allow lets a peer begin one more of a kind, or not.
func (r *Relay) allow(c *link.Conn, of kind) (o owner, ok bool) {
	o, at, counted := r.peer(c)
	if counted && !r.sources.take(at, of, time.Now()) {
		r.stats.Limited.Add(1)
		return o, false
	}
	return o, true
}
