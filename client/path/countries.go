package path

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"peel/directory"
)

// unknown is the country of an address that no list has.
const unknown = "??"

// maxRanges bounds the ranges of addresses kept of lists of countries: several times what all countries together have.
const maxRanges = 4 << 20

type addrRange struct{ first, last netip.Addr }

// Countries are the addresses of some countries.
type Countries struct {
	wanted []string // sorted
	some   []addrRange
	all    []addrRange // of every country; kept only if the unknown ones are wanted
}

// CountriesOf prepares for the lists of these countries, written as "de"; "??" is where no list has the address.
func CountriesOf(codes ...string) *Countries {
	codes = slices.Clone(codes)
	slices.Sort(codes)
	return &Countries{wanted: slices.Compact(codes)}
}

// Read adds what one list says: lines FIRST,LAST,CODE in which addresses are written as usual or, those of IPv4, as a number, and
// "#" begins a remark. Such files come with Tor ("geoip" and "geoip6"); only what is wanted of them is kept.
func (c *Countries) Read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 512), 512)
	n, held := 0, 0
	for lines.Scan() {
		n++
		s := strings.TrimSpace(lines.Text())
		if s == "" || s[0] == '#' {
			continue
		}
		held++
		if err := c.line(s); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	if held == 0 {
		return fmt.Errorf("it has no line FIRST,LAST,CODE")
	}
	c.some, c.all = merged(c.some), merged(c.all)
	return nil
}

func (c *Countries) line(s string) error {
	first, rest, _ := strings.Cut(s, ",")
	last, code, ok := strings.Cut(rest, ",")
	code = strings.ToLower(strings.TrimSpace(code))
	if !ok || !isCode(code) {
		return fmt.Errorf("%q is not FIRST,LAST,CODE, as in 192.0.2.0,192.0.2.255,DE", s)
	}
	_, some := slices.BinarySearch(c.wanted, code)
	_, strays := slices.BinarySearch(c.wanted, unknown)
	all := strays && code != unknown
	if some = some && code != unknown; !some && !all {
		return nil
	}
	a, err := countryAddr(first)
	if err != nil {
		return err
	}
	b, err := countryAddr(last)
	if err != nil {
		return err
	}
	if a.BitLen() != b.BitLen() || b.Less(a) {
		return fmt.Errorf("%v to %v is no range of addresses", a, b)
	}
	if some {
		c.some = append(c.some, addrRange{a, b})
	}
	if all {
		c.all = append(c.all, addrRange{a, b})
	}
	if len(c.some)+len(c.all) > maxRanges {
		return fmt.Errorf("more than %d ranges of addresses: this is no list of countries", maxRanges)
	}
	return nil
}

// isCode says whether s can name a country: two letters, or "??".
func isCode(s string) bool {
	return s == unknown || len(s) == 2 && 'a' <= s[0] && s[0] <= 'z' && 'a' <= s[1] && s[1] <= 'z'
}

func countryAddr(s string) (netip.Addr, error) {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return a, fmt.Errorf("%q is no address", s)
	}
	return a, nil
}

// merged sorts ranges and joins those that touch.
func merged(rs []addrRange) []addrRange {
	slices.SortFunc(rs, func(a, b addrRange) int { return cmp.Or(a.first.Compare(b.first), a.last.Compare(b.last)) })
	out := rs[:0]
	for _, r := range rs {
		if n := len(out); n > 0 && out[n-1].first.BitLen() == r.first.BitLen() && (!out[n-1].last.Less(r.first) || out[n-1].last.Next() == r.first) {
			if out[n-1].last.Less(r.last) {
				out[n-1].last = r.last
			}
			continue
		}
		out = append(out, r)
	}
	return slices.Clip(out)
}

// has says whether one of the relay's addresses is in a country that is wanted.
func (c *Countries) has(e *directory.Entry) bool {
	if c == nil || len(c.wanted) == 0 {
		return false
	}
	_, strays := slices.BinarySearch(c.wanted, unknown)
	return slices.ContainsFunc(e.Addrs, func(ap netip.AddrPort) bool {
		a := ap.Addr().Unmap()
		return inRanges(c.some, a) || strays && !inRanges(c.all, a)
	})
}

func inRanges(rs []addrRange, a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(rs, a, func(r addrRange, a netip.Addr) int { return r.first.Compare(a) })
	return found || i > 0 && rs[i-1].first.BitLen() == a.BitLen() && !rs[i-1].last.Less(a)
}
