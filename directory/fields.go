package directory

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"peel/cell"
)

// Limits of what a relay says about itself (spec/directory.md, section 2).
const (
	MaxNickname  = 19
	MaxVersion   = 32
	MaxContact   = 256
	MaxFamily    = 32      // other relays of one family
	MaxAddrs     = 2       // one of a family
	MaxBandwidth = 1 << 40 // bytes per second
)

// CheckNickname refuses what is not 1 to 19 letters and digits of ASCII.
func CheckNickname(s string) error {
	if len(s) < 1 || len(s) > MaxNickname {
		return fmt.Errorf("nickname %q: must have 1 to %d letters or digits", clip(s), MaxNickname)
	}
	for _, c := range []byte(s) {
		if !alnum(c) {
			return fmt.Errorf("nickname %q: only the letters A-Z, a-z and the digits 0-9 are allowed", s)
		}
	}
	return nil
}

func alnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// checkVersion refuses what is not 1 to 32 letters, digits or any of ".+_-".
func checkVersion(s string) error {
	if len(s) < 1 || len(s) > MaxVersion {
		return fmt.Errorf("version %q: must have 1 to %d characters", clip(s), MaxVersion)
	}
	for _, c := range []byte(s) {
		if !alnum(c) && !strings.ContainsRune(".+_-", rune(c)) {
			return fmt.Errorf("version %q: only letters, digits and .+_- are allowed", s)
		}
	}
	return nil
}

// CheckContact refuses what is not printable ASCII with single spaces, at most 256 bytes.
func CheckContact(s string) error {
	if len(s) > MaxContact {
		return fmt.Errorf("%d bytes, but at most %d are allowed", len(s), MaxContact)
	}
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return fmt.Errorf("only printable ASCII is allowed")
		}
	}
	if strings.HasPrefix(s, " ") || strings.HasSuffix(s, " ") || strings.Contains(s, "  ") {
		return fmt.Errorf("no spaces at the ends or two in a row")
	}
	return nil
}

// CheckAddrs refuses what a relay may not announce: it needs one or two addresses, IPv4 first, one
// of a family, with a port, without a zone, none unspecified, multicast or IPv4 in IPv6's clothes.
func CheckAddrs(addrs []netip.AddrPort) error {
	if len(addrs) < 1 || len(addrs) > MaxAddrs {
		return fmt.Errorf("%d addresses: one IPv4, one IPv6 or one of each is needed", len(addrs))
	}
	for _, a := range addrs {
		ip := a.Addr()
		switch {
		case !a.IsValid():
			return fmt.Errorf("address %q: not an address", a)
		case a.Port() == 0:
			return fmt.Errorf("address %s: needs a port", a)
		case ip.Is4In6():
			return fmt.Errorf("address %s: an IPv4 address must be written as one", a)
		case ip.Zone() != "":
			return fmt.Errorf("address %s: a zone means nothing to others", a)
		case ip.IsUnspecified() || ip.IsMulticast():
			return fmt.Errorf("address %s: nobody can be reached there", a)
		}
	}
	if len(addrs) == 2 && (!addrs[0].Addr().Is4() || !addrs[1].Addr().Is6()) {
		return fmt.Errorf("two addresses must be one IPv4 and then one IPv6 address")
	}
	return nil
}

// checkFamily refuses a list that is too long, not sorted, has doubles or the relay itself.
func checkFamily(self cell.NodeID, family []cell.NodeID) error {
	if len(family) > MaxFamily {
		return fmt.Errorf("family: %d relays, but at most %d are allowed", len(family), MaxFamily)
	}
	for i, id := range family {
		if id == self {
			return fmt.Errorf("family: the relay itself is not listed")
		}
		if i > 0 && bytes.Compare(family[i-1][:], id[:]) >= 0 {
			return fmt.Errorf("family: not sorted, or one is there twice")
		}
	}
	return nil
}

// SortFamily sorts identities by their bytes and drops doubles, in place.
func SortFamily(ids []cell.NodeID) []cell.NodeID {
	slices.SortFunc(ids, func(a, b cell.NodeID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids)
}

func (r *reader) nickname(key string) string {
	v := r.take(key)
	return strings.Clone(parsed(r, v, CheckNickname(v)))
}

func (r *reader) version(key string) string {
	v := r.take(key)
	if i := slices.Index(r.versions, v); i >= 0 && r.err == nil {
		return r.versions[i]
	}
	v = strings.Clone(parsed(r, v, checkVersion(v)))
	if r.err == nil && len(r.versions) < maxVersions {
		r.versions = append(r.versions, v)
	}
	return v
}

func (r *reader) addrs(key string) []netip.AddrPort {
	fields := r.fields(key, MaxAddrs)
	addrs := make([]netip.AddrPort, 0, len(fields))
	for _, f := range fields {
		a, err := netip.ParseAddrPort(f)
		if err != nil {
			r.fail("address %q: not an address and a port", clip(f))
			return nil
		}
		addrs = append(addrs, a)
	}
	return parsed(r, addrs, CheckAddrs(addrs))
}

func appendAddrs(b []byte, key string, addrs []netip.AddrPort) []byte {
	b = append(b, key...)
	for _, a := range addrs {
		b = append(b, ' ')
		b = a.AppendTo(b)
	}
	return append(b, '\n')
}

// family takes the family's line, which is left out when there is none.
func (r *reader) family(key string, self cell.NodeID) []cell.NodeID {
	if !r.has(key) {
		return nil
	}
	fields := r.fields(key, MaxFamily)
	ids := make([]cell.NodeID, 0, len(fields))
	for _, f := range fields {
		id, err := cell.ParseNodeID(f)
		if err != nil {
			r.fail("%w", err)
			return nil
		}
		ids = append(ids, id)
	}
	return parsed(r, ids, checkFamily(self, ids))
}

func appendFamily(b []byte, key string, ids []cell.NodeID) []byte {
	if len(ids) == 0 {
		return b
	}
	b = append(b, key...)
	for _, id := range ids {
		b = append(b, ' ')
		b, _ = id.AppendText(b)
	}
	return append(b, '\n')
}

// rules takes the lines of an exit policy: none, or up to MaxRules.
func (r *reader) rules() Policy {
	if !r.has("accept") && !r.has("reject") {
		return nil
	}
	r.ruled = r.ruled[:0]
	for r.has("accept") || r.has("reject") {
		if len(r.ruled) == MaxRules {
			r.failAt(r.line+1, "more than %d rules", MaxRules)
			return nil
		}
		key := r.key
		rule, err := parseRule(key == "accept", r.take(key))
		r.ruled = append(r.ruled, parsed(r, rule, err))
	}
	return slices.Clone(Policy(r.ruled))
}

func appendRules(b []byte, p Policy) []byte {
	for _, rule := range p {
		b = append(rule.append(b), '\n')
	}
	return b
}
