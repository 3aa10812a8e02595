package path

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"peel/cell"
	"peel/directory"
)

// Relays says which relays a person means: by identity, by the addresses that they have, or by the country that a list says these
// are in. There is no choice by nickname, which anybody may take.
type Relays struct {
	IDs       []cell.NodeID
	Nets      []netip.Prefix
	Countries *Countries // those that ParseRelays found, of which the caller must read lists; nil: none
}

// ParseRelays reads a list of identities, addresses, prefixes, as in "192.0.2.0/24", and countries, as in "{de}".
func ParseRelays(texts []string) (r Relays, err error) {
	var codes []string
	for _, s := range texts {
		if code, ok := strings.CutPrefix(s, "{"); ok {
			code, ok = strings.CutSuffix(strings.ToLower(code), "}")
			if !ok || !isCode(code) {
				return Relays{}, fmt.Errorf("path: %q is no country: two letters as in {de}, or {??} for addresses that no list has", s)
			}
			codes = append(codes, code)
			continue
		}
		if id, err := cell.ParseNodeID(s); err == nil {
			r.IDs = append(r.IDs, id)
			continue
		}
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
			r.Nets = append(r.Nets, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return Relays{}, fmt.Errorf("path: %q is neither the identity of a relay nor an address nor a range of addresses, such as 192.0.2.0/24, nor a country, such as {de} (nicknames are nobody's own, and tell nothing)", s)
		}
		if p != p.Masked() {
			return Relays{}, fmt.Errorf("path: %q has bits after its prefix: did you mean %v?", s, p.Masked())
		}
		r.Nets = append(r.Nets, p)
	}
	if codes != nil {
		r.Countries = CountriesOf(codes...)
	}
	return r, nil
}

// Has says whether a relay is meant.
func (r Relays) Has(e *directory.Entry) bool {
	return slices.Contains(r.IDs, e.ID) || r.Countries.has(e) || slices.ContainsFunc(e.Addrs, func(ap netip.AddrPort) bool {
		return slices.ContainsFunc(r.Nets, func(p netip.Prefix) bool { return p.Contains(ap.Addr().Unmap()) })
	})
}

func (r Relays) empty() bool { return len(r.IDs) == 0 && len(r.Nets) == 0 && r.Countries == nil }

// Rules are what a client's configuration demands of every path (spec/path.md, section 5).
type Rules struct {
	Own     []cell.NodeID // relays of the client's own operator: never in a path
	Exclude Relays        // not in a path
	Exits   Relays        // not the last of a path
	Lenient bool          // Exclude and Exits give way where no path would be possible; Own never does
}

// excluded says whether the configuration does not want e in a path.
func (r *Rules) excluded(e *directory.Entry) bool {
	return slices.Contains(r.Own, e.ID) || r.Exclude.Has(e)
}

// Guard is a relay that may be the first of a path, as an Index knows it.
type Guard struct {
	ID       cell.NodeID
	Weight   uint64 // in that place; the sum of all is below 2^63
	Excluded bool   // by the configuration
}

// Guards lists who may be the first of a path, in the order of the consensus. Those excluded are among them. lenient: what
// the rules exclude leniently is not.
func (x *Index) Guards(lenient bool) []Guard {
	if lenient && x.fallback != nil {
		return x.fallback.entrances
	}
	return x.entrances
}

// because says how many relays the configuration excludes, for errors.
func (x *Index) because() string {
	if x.excluded == 0 {
		return ""
	}
	return fmt.Sprintf("; the configuration excludes %s", count(x.excluded, "relay"))
}

// Nickname is that of a relay that may be in a path; "": it is none.
func (x *Index) Nickname(id cell.NodeID) string {
	if i, ok := x.at[id]; ok {
		return x.relays[i].entry.Nickname
	}
	return ""
}
