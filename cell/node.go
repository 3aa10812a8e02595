package cell

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"

	"filippo.io/edwards25519"
)

// A NodeID names a relay or an authority for ever: its Ed25519 identity key. It is public.
type NodeID [32]byte

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String is the id in lower-case base32, 52 characters.
func (id NodeID) String() string { return base32Lower.EncodeToString(id[:]) }

// ParseNodeID reads what String prints and nothing else. It does not Check the key.
func ParseNodeID(s string) (NodeID, error) {
	var id NodeID
	if !id.decode(s) {
		return NodeID{}, fmt.Errorf("cell: node id: want 52 characters a–z and 2–7 as peel prints them")
	}
	return id, nil
}

// decode reads base32 with no garbage left behind, unlike package base32: a directory has tens of thousands of ids.
func (id *NodeID) decode(s string) bool {
	if len(s) != 52 {
		return false
	}
	var acc uint32 // its lowest bits are those not yet in id
	bits, at := 0, 0
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z':
			c -= 'a'
		case c >= '2' && c <= '7':
			c -= '2' - 26
		default:
			return false
		}
		acc, bits = acc<<5|uint32(c), bits+5
		if bits >= 8 {
			bits -= 8
			id[at] = byte(acc >> bits)
			at++
		}
	}
	return acc&(1<<bits-1) == 0 // else a second way to write it
}

// IsZero says that the id names nobody.
func (id NodeID) IsZero() bool { return id == NodeID{} }

// AppendText implements encoding.TextAppender.
func (id NodeID) AppendText(b []byte) ([]byte, error) { return base32Lower.AppendEncode(b, id[:]), nil }

// MarshalText implements encoding.TextMarshaler.
func (id NodeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *NodeID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseNodeID(string(text))
	return err
}

// Check refuses an id that is no sound Ed25519 public key: one that is no point of the curve or not in its one canonical
// encoding (two names for one node), or a point of small order (anybody can forge its signatures). Whoever takes an id
// from somebody else checks it before trusting a signature. It takes tens of microseconds.
func (id NodeID) Check() error {
	p, err := new(edwards25519.Point).SetBytes(id[:])
	if err != nil {
		return fmt.Errorf("cell: node id %v: not a public key", id)
	}
	if NodeID(p.Bytes()) != id {
		return fmt.Errorf("cell: node id %v: not in canonical form", id)
	}
	if p.MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 1 {
		return fmt.Errorf("cell: node id %v: weak key", id)
	}
	return nil
}

// A Key is an X25519 public key: the link key or the onion key of a node. It is public.
type Key [32]byte

// String is the key in standard base64 without padding, 43 characters.
func (k Key) String() string { return base64.RawStdEncoding.EncodeToString(k[:]) }

// ParseKey reads what String prints and nothing else.
func ParseKey(s string) (Key, error) {
	var k Key
	var src [43]byte
	if len(s) == len(src) {
		copy(src[:], s)
		if n, err := strict.Decode(k[:], src[:]); err == nil && n == len(k) {
			return k, nil
		}
	}
	return Key{}, fmt.Errorf("cell: key: want 43 characters of base64 as peel prints them")
}

// strict refuses bits that are left over; line ends, which it skips, are missed at the end.
var strict = base64.RawStdEncoding.Strict()

// IsZero says that there is no key.
func (k Key) IsZero() bool { return k == Key{} }

// AppendText implements encoding.TextAppender.
func (k Key) AppendText(b []byte) ([]byte, error) {
	return base64.RawStdEncoding.AppendEncode(b, k[:]), nil
}

// MarshalText implements encoding.TextMarshaler.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Key) UnmarshalText(text []byte) (err error) {
	*k, err = ParseKey(string(text))
	return err
}

// ID is the short name of the key in CREATE and EXTEND: the first 8 bytes of SHA-256("peel onion key id v1" | key).
func (k Key) ID() KeyID {
	sum := sha256.Sum256(append([]byte("peel onion key id v1"), k[:]...))
	return KeyID(sum[:])
}

// A KeyID says which of a relay's onion keys a handshake is for. It is no secret and proves nothing.
type KeyID [8]byte

// String is the id in hexadecimal, 16 digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// A NetworkID names a network: SHA-256 over its authorities, their threshold and its name (spec/directory.md).
type NetworkID [32]byte

// String is the id in lower-case hexadecimal, 64 digits.
func (id NetworkID) String() string { return hex.EncodeToString(id[:]) }

// ParseNetworkID reads what String prints and nothing else.
func ParseNetworkID(s string) (NetworkID, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(NetworkID{}) || NetworkID(b).String() != s {
		return NetworkID{}, fmt.Errorf("cell: network id: want 64 digits 0–9 and a–f")
	}
	return NetworkID(b), nil
}

// IsZero says that the id names no network.
func (id NetworkID) IsZero() bool { return id == NetworkID{} }

// MarshalText implements encoding.TextMarshaler.
func (id NetworkID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *NetworkID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseNetworkID(string(text))
	return err
}

// MaxAddrs is how many addresses a LinkSpec may have: one of each family.
const MaxAddrs = 2

// A LinkSpec says how to reach a relay and who must answer there.
type LinkSpec struct {
	ID    NodeID           // not zero
	Addrs []netip.AddrPort // one IPv4 address, or one IPv6, or both in this order; no zone, port not 0
}

// Check says what of the spec does not hold. It does not look for a sound key (NodeID.Check), nor whether the addresses
// are such as a relay should have: that is the policy of whoever connects.
func (s LinkSpec) Check() error {
	if s.ID.IsZero() {
		return fmt.Errorf("cell: link spec: no node id")
	}
	if len(s.Addrs) == 0 || len(s.Addrs) > MaxAddrs {
		return fmt.Errorf("cell: link spec: %d addresses, want 1 to %d", len(s.Addrs), MaxAddrs)
	}
	for _, a := range s.Addrs {
		if err := checkAddr(MsgExtend, a.Addr()); err != nil {
			return err
		}
		if a.Port() == 0 {
			return fmt.Errorf("cell: link spec: port 0")
		}
	}
	if len(s.Addrs) == 2 && (!s.Addrs[0].Addr().Is4() || !s.Addrs[1].Addr().Is6()) {
		return fmt.Errorf("cell: link spec: two addresses must be one IPv4, then one IPv6")
	}
	return nil
}

// Append appends the wire form. It means nothing for a spec that Check refuses.
func (s LinkSpec) Append(b []byte) []byte {
	b = append(b, s.ID[:]...)
	b = append(b, byte(len(s.Addrs)))
	for _, a := range s.Addrs {
		b = appendAddr(b, a.Addr())
		b = binary.BigEndian.AppendUint16(b, a.Port())
	}
	return b
}

// takeLinkSpec reads a spec from the front of the data of an EXTEND and returns what is behind it. It does not Check.
func takeLinkSpec(data []byte) (s LinkSpec, rest []byte, err error) {
	if len(data) < len(s.ID)+1 {
		return LinkSpec{}, nil, short(MsgExtend)
	}
	s.ID = NodeID(data[:len(s.ID)])
	n, rest := int(data[len(s.ID)]), data[len(s.ID)+1:]
	if n > MaxAddrs {
		return LinkSpec{}, nil, fmt.Errorf("cell: link spec: %d addresses, want 1 to %d", n, MaxAddrs)
	}
	s.Addrs = make([]netip.AddrPort, n)
	for i := range s.Addrs {
		var addr netip.Addr
		if addr, rest, err = takeAddr(MsgExtend, rest); err != nil {
			return LinkSpec{}, nil, err
		}
		if len(rest) < 2 {
			return LinkSpec{}, nil, short(MsgExtend)
		}
		s.Addrs[i], rest = netip.AddrPortFrom(addr, binary.BigEndian.Uint16(rest)), rest[2:]
	}
	return s, rest, nil
}

// What stands before an address or a name on the wire.
const (
	kindNone = 0 // nothing follows
	kindName = 1 // a length byte and a name
	kindIPv4 = 4 // 4 bytes
	kindIPv6 = 6 // 16 bytes
)

// checkAddr refuses an address that has no wire form or a second one: none, with a zone, IPv4 mapped into IPv6.
func checkAddr(t MessageType, a netip.Addr) error {
	switch {
	case !a.IsValid():
		return fmt.Errorf("cell: %v: no address", t)
	case a.Zone() != "":
		return fmt.Errorf("cell: %v: address with a zone", t)
	case a.Is4In6():
		return fmt.Errorf("cell: %v: an IPv4 address as IPv6", t)
	}
	return nil
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		b = append(b, kindIPv4)
	} else {
		b = append(b, kindIPv6)
	}
	return append(b, a.AsSlice()...)
}

// takeAddr reads kind and address from the front of data and returns what is behind them. It does not check the address.
func takeAddr(t MessageType, data []byte) (a netip.Addr, rest []byte, err error) {
	switch {
	case len(data) == 0:
		return netip.Addr{}, nil, short(t)
	case data[0] == kindIPv4 && len(data) >= 5:
		return netip.AddrFrom4([4]byte(data[1:5])), data[5:], nil
	case data[0] == kindIPv6 && len(data) >= 17:
		return netip.AddrFrom16([16]byte(data[1:17])), data[17:], nil
	case data[0] == kindIPv4 || data[0] == kindIPv6:
		return netip.Addr{}, nil, short(t)
	}
	return netip.Addr{}, nil, fmt.Errorf("cell: %v: unknown kind of address %d", t, data[0])
}
