package exit

import (
	"net/netip"
	"strings"
	"testing"

	"peel/cell"
)

func TestHosts(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := strings.Join([]string{label, label, label, strings.Repeat("b", 61)}, ".") // 253 bytes
	for s, want := range map[string]host{
		"example.com":      {name: "example.com"},
		"EXAMPLE.com":      {name: "example.com"},
		"example.com.":     {name: "example.com"},
		"a_b.example":      {name: "a_b.example"},
		"1.example":        {name: "1.example"},
		"1.2.3.example":    {name: "1.2.3.example"},
		"0x7f.example":     {name: "0x7f.example"},
		"4chan.org":        {name: "4chan.org"},
		"xn--bcher-kva.de": {name: "xn--bcher-kva.de"},
		"host":             {name: "host"},
		"0xg":              {name: "0xg"},
		"internal.example": {name: "internal.example"},
		"salt":             {name: "salt"},
		long:               {name: long},
		long + ".":         {name: long},
		"1.2.3.4":          {addr: netip.MustParseAddr("1.2.3.4")},
		"2001:DB8::1":      {addr: netip.MustParseAddr("2001:db8::1")},
	} {
		if got, err := parseHost(s); err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for s, want := range map[string]cell.EndReason{
		"": cell.EndNotFound, ".": cell.EndNotFound, "a..": cell.EndNotFound, label + "a.example": cell.EndNotFound, long + "b": cell.EndNotFound,
		"1.2.3": cell.EndNotFound, "1.2.3.4.": cell.EndNotFound, "a.0x": cell.EndNotFound, "a.0xff": cell.EndNotFound, "a.0XFF": cell.EndNotFound,
		"a.1": cell.EndNotFound, "\u212aelvin.example": cell.EndNotFound, "é.example": cell.EndNotFound, "a\nb": cell.EndNotFound, "LOCAL": cell.EndNotFound, "x.Onion.": cell.EndNotFound,
		"::1%lo": cell.EndPolicy, "::ffff:1.2.3.4": cell.EndPolicy,
	} {
		if got, err := parseHost(s); err == nil || Reason(err) != want {
			t.Errorf("%q: %v, %v, want %v", s, got, err, want)
		}
	}
}

// Whatever a client writes, it is an address that prints as one, a name of letters, digits,
// hyphens and underscores that is no number, or refused.
func FuzzHost(f *testing.F) {
	for _, s := range append(inside, "example.com", "EXAMPLE.com.", "1.2.3.4", "2606:4700::1111", "", ".", "a..b", "-a.b", "a-.b", "1.2.3", "a.0x7F", "\u212a.example",
		"x.Onion", "home.arpa", "a_b.c", "::1%lo", "::ffff:1.2.3.4", strings.Repeat("a", 64), strings.Repeat("a.", 127)) {
		f.Add(s)
	}
	d, err := New(Config{Policy: policy(f, "accept *:*")})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHost(s)
		if err != nil {
			if r := Reason(err); r != cell.EndPolicy && r != cell.EndNotFound {
				t.Fatalf("%q: %v", s, r)
			}
			return
		}
		if again, err := parseHost(h.name); h.name != "" && (err != nil || again != h) {
			t.Fatalf("%q: name %q reads as %v, %v", s, h.name, again, err)
		}
		if h.addr.IsValid() == (h.name != "") || h.name != "" && !sameInASCII(h.name, strings.TrimSuffix(s, ".")) {
			t.Fatalf("%q: %v", s, h)
		}
		if h.addr.IsValid() {
			if d.allows(h.addr, 80) && (h.addr.IsPrivate() || !h.addr.IsGlobalUnicast() || h.addr.Zone() != "") {
				t.Fatalf("%q may be dialled", s)
			}
			return
		}
		if _, err := netip.ParseAddr(h.name); err == nil {
			t.Fatalf("%q: the name %q is an address", s, h.name)
		}
		end := h.name[strings.LastIndexByte(h.name, '.')+1:]
		if strings.Trim(h.name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.Trim(end, "0123456789") == "" {
			t.Fatalf("%q: the name %q", s, h.name)
		}
	})
}

// sameInASCII says whether a name is another but for the case of its letters.
func sameInASCII(a, b string) bool {
	return len(a) == len(b) && strings.EqualFold(a, b)
}
