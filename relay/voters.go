package relay

import (
	"peel/cell"
	"peel/cell/link"
	"peel/directory"
)

// voters are the other authorities, at the node of one; nobody anywhere else. What they ask of each other does not wait behind what anybody asks: else
// who is no authority could keep one's vote from another (spec/relay.md, section 7).
type voters struct {
	keys   map[cell.Key]cell.NodeID // their link keys
	asking *opening                 // what they ask of the directory
}

func votersBeside(self cell.NodeID, n *directory.Network) voters {
	v := voters{make(map[cell.Key]cell.NodeID), newOpening()}
	for _, a := range n.Authorities {
		if a.ID != self {
			v.keys[a.LinkKey] = a.ID
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
