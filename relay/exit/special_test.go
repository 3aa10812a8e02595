package exit

import (
	"net/netip"
	"testing"

	"peel/cell"
)

// The entries of IANA's registries of special-purpose addresses, nested ones too, and what
// else must not be reached.
var registry = []string{
	"0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32", "192.0.0.170/32", "192.0.0.171/32", "192.0.2.0/24",
	"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.88.99.2/32", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15",
	"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4", "255.255.255.255/32",
	"::1/128", "::/128", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001::/32",
	"2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:2::/48", "2001:3::/32", "2001:4:112::/48", "2001:10::/28", "2001:20::/28",
	"2001:30::/28", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10",
	"224.0.0.0/4", "::/96", "fec0::/10", "ff00::/8", // not in the registries
	"400::/6", "4000::/3", "8000::/3", "c000::/3", "e000::/4", "f000::/5", "fe00::/9", // not allocated
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestWholeRegistryIsRefused(t *testing.T) {
	d := newDialer(t, Config{Policy: policy(t, "accept *:*")})
	for _, s := range registry {
		p := netip.MustParsePrefix(s)
		for _, a := range []netip.Addr{p.Addr(), p.Addr().Next(), last(p)} {
			if p.Contains(a) && d.allows(a, 80) {
				t.Errorf("%v of %v may be dialled", a, p)
			}
			if p.Contains(a) && d.shows(a) {
				t.Errorf("%v of %v is told to clients", a, p)
			}
		}
	}
}

func TestOpenInternetIsAllowed(t *testing.T) {
	d := newDialer(t, Config{Policy: policy(t, "accept *:*")})
	for _, s := range []string{
		"1.0.0.0", "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
		"169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0", "192.167.255.255",
		"192.169.0.0", "198.17.255.255", "198.20.0.0", "203.0.112.255", "203.0.114.0", "223.255.255.255",
		"2000::", "2001:200::", "2001:db7:ffff::", "2001:db9::", "2003::", "2606:4700::1111", "2620:4f:7fff::", "2620:4f:8001::", "3ffe::", "3fff:1000::",
	} {
		a := netip.MustParseAddr(s)
		if !d.allows(a, 443) || !d.shows(a) {
			t.Errorf("%s cannot be dialled", s)
		}
		if d.allows(a, 0) {
			t.Errorf("%s at port 0", s)
		}
	}
	if d.allows(netip.Addr{}, 80) {
		t.Error("no address may be dialled")
	}
}

func TestSpecialRangesMustBeNamed(t *testing.T) {
	for _, c := range []struct {
		rules  []string
		addr   string
		port   uint16
		allows bool
	}{
		{[]string{"accept 127.0.0.0/8:*"}, "127.0.0.1", 80, true},
		{[]string{"accept 127.0.0.0/8:*"}, "127.255.255.254", 80, true},
		{[]string{"accept 127.0.0.0/8:80"}, "127.0.0.1", 81, false},
		{[]string{"accept 127.0.0.1:*"}, "127.0.0.2", 80, false},
		{[]string{"reject 127.0.0.1:80", "accept 127.0.0.0/8:*"}, "127.0.0.1", 80, false},
		{[]string{"reject 127.0.0.1:80", "accept 127.0.0.0/8:*"}, "127.0.0.1", 81, true},
		{[]string{"accept *:80", "accept 127.0.0.0/8:*"}, "127.0.0.1", 80, false}, // the first rule that fits names nothing
		{[]string{"accept *:80", "accept 127.0.0.0/8:*"}, "127.0.0.1", 81, true},
		{[]string{"accept 0.0.0.0/0:*"}, "127.0.0.1", 80, false},
		{[]string{"accept 0.0.0.0/1:*"}, "127.0.0.1", 80, false},
		{[]string{"accept 160.0.0.0/4:*"}, "169.254.169.254", 80, false}, // covers it by the way
		{[]string{"accept 169.254.0.0/16:*"}, "169.254.169.254", 80, true},
		{[]string{"accept 169.254.169.254:80"}, "169.254.169.254", 80, true},
		{[]string{"accept 192.168.0.0/15:*"}, "192.168.1.1", 80, false},
		{[]string{"accept 192.168.1.0/24:*"}, "192.168.1.1", 80, true},
		{[]string{"accept [::1]:*"}, "::1", 80, true},
		{[]string{"accept [::]/0:*"}, "::1", 80, false},
		{[]string{"accept [fc00::]/7:*"}, "fd12::1", 80, true},
		{[]string{"accept [fc00::]/6:*"}, "fd12::1", 80, false},
		{[]string{"accept [2001::]/32:*"}, "2001:0:808:808::f7f7:f7f7", 80, false}, // Teredo: the addresses inside, 8.8.8.8 twice, are not allowed
		{[]string{"accept [2001::]/32:*", "accept *:*"}, "2001:0:808:808::f7f7:f7f7", 80, true},
		{[]string{"accept [2001::]/32:*", "accept *:*"}, "2001:0:808:808::80ff:fffe", 80, false}, // the client is 127.0.0.1
		{[]string{"accept [2001::]/32:*", "accept *:*"}, "2001:0:a00:1::f7f7:f7f7", 80, false},   // the server is 10.0.0.1
		{[]string{"accept [2001:2::]/48:*"}, "2001:2::1", 80, true},
		{[]string{"accept [64:ff9b:1::]/48:*", "accept *:*"}, "64:ff9b:1:808:8:808:808:808", 80, true}, // wherever it may be, it is an open one
		{[]string{"accept [64:ff9b:1::]/48:*", "accept *:*"}, "64:ff9b:1:808:8:808:7f00:1", 80, false},
		{[]string{"accept [64:ff9b:1::]/48:*", "accept *:*"}, "64:ff9b:1:7f00:0:108:808:808", 80, false}, // 127.0.0.1 behind 48 bits
		{[]string{"accept *:*"}, "2606:4700::5efe:808:808", 80, true},
		{[]string{"accept *:*"}, "2606:4700::5efe:7f00:1", 80, false}, // ISATAP
		{[]string{"accept *:*"}, "2606:4700::200:5efe:a00:1", 80, false},
		{[]string{"accept 127.0.0.1:*", "accept *:*"}, "2606:4700::5efe:7f00:1", 80, true},
		{[]string{"accept [4000::]/3:*"}, "4000::1", 80, false},
		{[]string{"accept [4000::]/16:*"}, "4000::1", 80, true},
		{[]string{"accept [64:ff9b::]/96:*"}, "64:ff9b::808:808", 80, false}, // the address inside is not allowed
		{[]string{"accept [64:ff9b::]/96:*", "accept *:*"}, "64:ff9b::808:808", 80, true},
		{[]string{"accept [64:ff9b::]/96:*", "accept *:*"}, "64:ff9b::7f00:1", 80, false},
		{[]string{"accept [64:ff9b::]/96:*", "accept *:*"}, "64:ff9b::a9fe:a9fe", 80, false},
		{[]string{"accept [64:ff9b::]/96:*", "accept 127.0.0.0/8:*"}, "64:ff9b::7f00:1", 80, true},
		{[]string{"accept [2002::]/16:*", "accept *:*"}, "2002:808:808::1", 80, true},
		{[]string{"accept [2002::]/16:*", "accept *:*"}, "2002:a00:1::1", 80, false},
		{[]string{"accept [::]/96:*", "accept *:*"}, "::10.0.0.1", 80, false},
		{[]string{"accept 127.0.0.0/8:*", "accept *:*"}, "::ffff:127.0.0.1", 80, false}, // written otherwise
	} {
		d := newDialer(t, Config{Policy: policy(t, c.rules...)})
		if got := d.allows(netip.MustParseAddr(c.addr), c.port); got != c.allows {
			t.Errorf("%v, %s port %d: %v, want %v", c.rules, c.addr, c.port, got, c.allows)
		}
	}
}

// Ways to write or reach an address inside, which clients may try on an exit that accepts
// everything. None may so much as send a packet.
var inside = []string{
	"127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.255", "127.1", "127.0.1", "127", "2130706433", "017700000001", "0x7f000001",
	"0x7f.1", "0x7F.0.0.1", "0x7f.0x0.0x0.0x1", "0177.0.0.1", "0177.1", "00000177.0.0.1", "127.000.000.001", "127.0.0.01", "127.0.0.1.",
	"127.0.0.1..", "127..0.1", "127.0.0.0x1", "127.0.0.1e0", "0", "0.0.0.0", "0x0", "00", "0.0", "127.0.0.256", "256.0.0.1",
	"4294967297", "18446744073709551617", "-1", "+127.0.0.1", "localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "sub.localhost",
	"::1", "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001", "::0001", "::", "0::0", "[::1]", "::1%lo", "::1%1", "::1%25lo", "::%lo",
	"::ffff:127.0.0.1", "::FFFF:127.0.0.1", "::ffff:7f00:1", "0:0:0:0:0:ffff:7f00:0001", "::ffff:0:127.0.0.1", "::127.0.0.1", "::7f00:1",
	"::ffff:10.0.0.1%eth0", "64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "64:ff9b:1:ffff::127.0.0.1", "2002:7f00:1::", "2002:7f00:0001::1",
	"2002:a00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::7f00:1", "fe80::1", "fe80::1%eth0", "fe80::5efe:127.0.0.1", "fec0::1", "fc00::1",
	"fd00:ec2::254", "ff02::1", "ff01::1", "100::1", "5f00::1", "3fff::1", "10.0.0.1", "10.1", "012.0.0.1", "0xa.0.0.1", "100.100.100.200",
	"169.254.169.254", "169.254.43518", "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "0251.0376.0251.0376", "172.16.0.1", "172.31.255.255",
	"192.168.0.1", "192.168.257", "192.0.0.1", "192.0.0.170", "192.0.0.192", "192.88.99.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
	"255.255.255.255", "metadata.google.internal", "instance-data.internal", "printer.local", "router.home.arpa", "abc.onion", "abc.peel.alt", "alt",
	"x.invalid", "127.0.0.1:80", "127.0.0.1/8", "http://127.0.0.1", "127.0.0.1#x", "user@127.0.0.1", "127.0.0.1,8.8.8.8", "%31%32%37.0.0.1",
	"127\\.0.0.1", "a..example", ".example", ".", "..", "-a.example", "a-.example", "*", "*.example", "a.example:80",
}

func TestFormsOfAddressesInsideAreRefused(t *testing.T) {
	at := echo(t, "127.0.0.1:0")
	// Names that pass for names all lead inside.
	r := &liar{answers: [][]netip.Addr{addrs("127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "::ffff:a9fe:a9fe")}}
	d := newDialer(t, Config{Policy: policy(t, "accept *:*"), Resolver: r})
	if len(inside) < 60 {
		t.Fatalf("%d forms", len(inside))
	}
	for _, host := range inside {
		wantRefusal(t, d, host, at.Port(), cell.EndPolicy, cell.EndNotFound)
		for _, k := range []cell.ResolveKind{cell.ResolveAny, cell.ResolveA, cell.ResolveAAAA} {
			if got := d.Resolve(t.Context(), cell.Resolve{Kind: k, Name: host}); got.Reason != cell.EndPolicy && got.Reason != cell.EndNotFound {
				t.Errorf("%q as %v: %+v", host, k, got)
			}
		}
	}
}

func TestAnswersThatLeadInsideAreRefused(t *testing.T) {
	at := echo(t, "127.0.0.1:0")
	for _, s := range inside {
		a, err := netip.ParseAddr(s)
		if err != nil {
			continue
		}
		d := newDialer(t, Config{Policy: policy(t, "accept *:*"), Resolver: &liar{answers: [][]netip.Addr{{a}}}})
		wantRefusal(t, d, "innocent.example", at.Port(), cell.EndPolicy, cell.EndNotFound)
		if got := d.Resolve(t.Context(), cell.Resolve{Name: "innocent.example"}); got.Reason == 0 {
			t.Errorf("%s: told %v", s, got.Answers)
		}
	}
}
