package directory

import (
	"fmt"
	"net/netip"

	"peel/cell"
)

// MaxReach is how many bytes a request to try a relay may have.
const MaxReach = 512

// A ReachRequest asks a node to make a link handshake with a relay at an address (spec/relay.md, section 11). It is not signed: what
// may be asked depends on the link on which it comes.
type ReachRequest struct {
	ID      cell.NodeID
	LinkKey cell.Key
	Addr    netip.AddrPort
}

// Append appends the request's text.
func (q *ReachRequest) Append(b []byte) []byte {
	b = appendUint(b, "peel-reach", 1)
	b = append(b, "identity "...)
	b, _ = q.ID.AppendText(b)
	b = append(b, '\n')
	b = appendKey(b, "link-key", q.LinkKey)
	return appendAddrs(b, "address", []netip.AddrPort{q.Addr})
}

// ParseReachRequest parses a request. Its address is one that a relay may announce.
func ParseReachRequest(text []byte) (*ReachRequest, error) {
	r := newReader("reach request", text, MaxReach)
	r.title("peel-reach")
	q := &ReachRequest{ID: r.nodeID("identity"), LinkKey: r.key32("link-key")}
	if addrs := r.addrs("address"); r.err == nil {
		if len(addrs) != 1 {
			r.failAt(r.line, "%d addresses, but one is asked for at a time", len(addrs))
		} else {
			q.Addr = addrs[0]
		}
	}
	if r.err == nil && (q.ID.IsZero() || q.LinkKey.IsZero()) {
		r.fail("identity or link key is zero")
	}
	if r.err == nil {
		r.same(0, q.Append(nil))
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return q, nil
}

// Unreached says in a word why a relay was not reached at an address.
type Unreached string

// These words are all there are.
const (
	UnreachedRefused Unreached = "refused" // nothing listens there, or a firewall says so
	UnreachedSilent  Unreached = "silent"  // nothing answered in time
	UnreachedNoWay   Unreached = "no-way"  // no way leads there
	UnreachedOther   Unreached = "other"   // what answers is not this relay
	UnreachedNot     Unreached = "not"     // one of these: who may not know what is at that address
)

// ParseUnreached parses what a node says.
func ParseUnreached(s string) (Unreached, error) {
	switch u := Unreached(s); u {
	case UnreachedRefused, UnreachedSilent, UnreachedNoWay, UnreachedOther, UnreachedNot:
		return u, nil
	}
	return "", fmt.Errorf("directory: %q is no reason for which a relay is not reached", clip(s))
}
