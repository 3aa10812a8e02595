package relay

import (
	"net"
	"net/netip"

	"peel/cell"
	"peel/cell/link"
	"peel/directory"
)

// voters are the other authorities, at the node of one; nobody anywhere else. What they ask of each other does not wait behind what anybody asks: else
// who is no authority could keep one's vote from another (spec/relay.md, section 7).
type voters struct {
	keys   map[cell.Key]cell.NodeID // their link keys
	at     map[netip.Addr]bool      // where they are
	asking *opening                 // what they ask of the directory
}

// mostOfVoter is how many links each of them has at least, even if all places are taken: it uses one at a time, and those before it may hang.
const mostOfVoter = 4

func votersBeside(self cell.NodeID, n *directory.Network) voters {
	v := voters{make(map[cell.Key]cell.NodeID), make(map[netip.Addr]bool), newOpening()}
	for _, a := range n.Authorities {
		if a.ID != self {
			v.keys[a.LinkKey] = a.ID
			for _, at := range a.Addrs {
				v.at[at.Addr()] = true
			}
		}
	}
	return v
}

// by says whether one of them is at the other end of a link.
func (v *voters) by(c *link.Conn) bool {
	key, _ := c.PeerKey()
	_, ok := v.keys[key]
	return ok
}

// near says whether a connection comes from where one of them is, which proves nothing: it may try its handshake.
func (v *voters) near(nc net.Conn) bool { return v.at[addrOf(nc.RemoteAddr())] }
