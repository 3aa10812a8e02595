package relay

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"

	"peel/cell"
	"peel/cell/link"
	"peel/directory"
)

// Villain makes a node misbehave, in networks that try how others bear it. It works only where no authority has an address of the
// internet: New refuses it elsewhere. Each func may be nil.
type Villain struct {
	Cells     func() func(room []cell.Cell, n int) int // what goes out on a link instead of what should (link.Config.Bend)
	Directory func(http.Handler) http.Handler          // what is handed out instead of the directory
	Observed  func(uint64) uint64                      // what a relay says that it carried, bytes a second, instead of what it did
}

// check refuses a villain in a network that people may use.
func (v *Villain) check(n *directory.Network) error {
	if v != nil && !testNetwork(n) {
		return errors.New("relay: a node that misbehaves is for test networks, whose authorities all have private or loopback addresses")
	}
	return nil
}

// testNetwork says whether no authority has an address of the internet.
func testNetwork(n *directory.Network) bool {
	return !slices.ContainsFunc(n.Authorities, func(a directory.AuthorityInfo) bool {
		return slices.ContainsFunc(a.Addrs, func(at netip.AddrPort) bool { return !directory.Special(at.Addr()) })
	})
}

// observed is what the relay says that it carried.
func (v *Villain) observed(carried uint64) uint64 {
	if v == nil || v.Observed == nil {
		return carried
	}
	return v.Observed(carried)
}

// Consensus is the newest relay list here, even if it no longer holds; nil: none. An authority's node has that of its authority.
func (r *Relay) Consensus() *directory.Consensus { return r.cache.Consensus() }

// LinkStats counts what went over all links of the node.
func (r *Relay) LinkStats() link.Stats { return r.pool.Stats() }

// Consensus is the newest relay list here, even if it no longer holds; nil: none.
func (n *Authority) Consensus() *directory.Consensus { return n.authority.Consensus() }

// LinkStats counts what went over all links of the node.
func (n *Authority) LinkStats() link.Stats { return n.relay.LinkStats() }
