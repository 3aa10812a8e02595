package client

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"peel/client/dns"
	"peel/client/socks"
)

func prefix6(t *testing.T) netip.Prefix {
	p, err := loadPrefix("")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var service = strings.Repeat("a2", 28) + ".peel.alt"

func TestVirtualAddressesMeanOneName(t *testing.T) {
	v := newVirtual(prefix6(t), places-3) // goes round the end
	seen := map[netip.Addr]string{}
	for i := range 1000 {
		name := fmt.Sprintf("n%d", i)
		a4, a6 := v.addrs(name)
		for _, a := range []netip.Addr{a4, a6} {
			if seen[a] != "" || !v.contains(a) || a == virtual4.Addr() || !virtual4.Contains(a4) || a4 == netip.MustParseAddr("198.19.255.255") {
				t.Fatalf("%s: %v, which is %q's", name, a, seen[a])
			}
			seen[a] = name
		}
		if b4, b6 := v.addrs(name); b4 != a4 || b6 != a6 {
			t.Fatalf("%s has other addresses now", name)
		}
	}
	for a, name := range seen {
		if got, ok := v.name(a); !ok || got != name {
			t.Fatalf("%v: %q instead of %q", a, got, name)
		}
	}
	for _, s := range []string{"198.18.0.0", "198.19.255.255", "198.18.77.77", "192.0.2.1", "fd00::1", "2001:db8::1"} {
		if name, ok := v.name(netip.MustParseAddr(s)); ok {
			t.Errorf("%s stands for %q", s, name)
		}
	}
}

// The name that was left for longest goes; its address means no other name for long.
func TestVirtualAddressesAreReusedLate(t *testing.T) {
	v := newVirtual(prefix6(t), 5)
	keep, _ := v.addrs("keep")
	old, _ := v.addrs("old")
	for i := range mostVirtual {
		v.addrs(fmt.Sprintf("n%d", i))
		if i%1000 == 0 {
			v.name(keep) // is used
		}
	}
	if name, ok := v.name(keep); !ok || name != "keep" {
		t.Error("a name in use was forgotten")
	}
	if name, ok := v.name(old); ok {
		t.Errorf("the oldest is there: %q", name)
	}
	if len(v.byName) != mostVirtual || len(v.byPlace) != mostVirtual || v.order.Len() != mostVirtual {
		t.Errorf("%d names, %d places, %d in order", len(v.byName), len(v.byPlace), v.order.Len())
	}
	n := 0
	for ; ; n++ {
		v.addrs(fmt.Sprintf("more%d", n))
		if _, ok := v.name(old); ok {
			break
		}
	}
	if n < 100_000 {
		t.Errorf("the address meant another name after %d more", n)
	}
}

func TestThePrefixIsTheInstallations(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	a, err := loadPrefix(dir)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := loadPrefix(dir); err != nil || a != b || a.Bits() != 48 || a.Addr().As16()[0] != 0xFD {
		t.Errorf("%v, %v, %v", a, b, err)
	}
	for _, bad := range []string{"", "fd00::/8", "2001:db8::/48", "fd00::1/48", "x"} {
		if err := os.WriteFile(filepath.Join(dir, virtualFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := loadPrefix(dir); err != nil || b == a || b.Bits() != 48 || b.Addr().As16()[0] != 0xFD {
			t.Errorf("%q: %v, %v", bad, b, err)
		}
	}
	if one, other := prefix6(t), prefix6(t); one == other {
		t.Error("two installations have the same prefix")
	}
	name := filepath.Join(dir, virtualFile)
	if os.Remove(name) == nil && os.Symlink(os.DevNull, name) == nil { // nor a device, or a pipe, which is not waited for
		b, err := loadPrefix(dir)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := loadPrefix(dir); err != nil || again != b {
			t.Errorf("a device in the place of the file: %v, then %v, %v", b, again, err)
		}
	}
}

func TestIsService(t *testing.T) {
	for name, want := range map[string]bool{
		service: true, "www." + service: true, "a.b." + service: true, service[1:]: false, "a" + service: false,
		strings.Repeat("a1", 28) + ".peel.alt": false, "peel.alt": false, ".peel.alt": false, strings.TrimSuffix(service, ".alt"): false,
		service + ".alt": false, strings.Repeat("a2", 28) + "peel.alt": false,
	} {
		if isService(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

// What the doors answer for names that are told to no exit, and that no exit is told.
func TestNamesThatStayHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		for name, code := range map[string]byte{
			strings.Repeat("a2", 28) + ".onion": socks.ServiceBadAddress, "Onion.": socks.ServiceBadAddress, "x.onion": socks.ServiceBadAddress,
			"x.alt": socks.HostUnreachable, "alt": socks.HostUnreachable, "x.peel.alt": socks.ServiceBadAddress, "peel.alt": socks.ServiceBadAddress,
			"printer.local": socks.HostUnreachable, "nas.home.arpa": socks.HostUnreachable, "x.Internal.": socks.HostUnreachable, "x.invalid": socks.HostUnreachable,
			service: socks.ServiceNotFound,
		} {
			_, err := c.DialContext(t.Context(), "tcp", name+":80")
			if err == nil || SOCKSCode(err) != code {
				t.Errorf("connect to %s: %v, code %#x", name, err, SOCKSCode(err))
			}
			if err != nil && strings.Contains(err.Error(), ".invalid") != (name == "x.invalid") {
				t.Errorf("connect to %s: %v", name, err)
			}
		}
		lookup := c.DNSServer(nil).Lookup
		for _, name := range []string{"x.onion", "x.alt", "y.peel.alt", "printer.local", "localhost", "a.localhost", "router", "192.0.2.1", "x.home.arpa"} {
			if _, err := lookup(t.Context(), dns.Query{Host: name}); !errors.Is(err, dns.ErrNotFound) {
				t.Errorf("DNS %s: %v", name, err)
			}
			if _, err := c.Lookup(t.Context(), name); name != "192.0.2.1" && SOCKSCode(err) < socks.HostUnreachable {
				t.Errorf("RESOLVE %s: %v", name, err)
			}
		}
		for _, a := range []string{"127.0.0.1", "192.168.1.1", "fe80::1", "198.18.5.5", "10.0.0.1", "::1", "100.64.0.1"} {
			if _, err := lookup(t.Context(), dns.Query{Addr: netip.MustParseAddr(a)}); !errors.Is(err, dns.ErrNotFound) {
				t.Errorf("PTR %s: %v", a, err)
			}
		}
		if got := w.hosts(); len(got) != 0 {
			t.Errorf("exits were asked for %v", got)
		}
	})
}

// A service's name is given an address, which every door maps back.
func TestServicesHaveVirtualAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		door, lookup := c.SOCKSServer(nil), c.DNSServer(nil).Lookup
		found, err := lookup(t.Context(), dns.Query{Host: service})
		if err != nil || len(found) != 2 || !found[0].Addr.Is4() || !found[1].Addr.Is6() {
			t.Fatal(found, err)
		}
		ctx := context.Background()
		a, err := door.Resolve(ctx, socks.Request{Command: socks.Resolve, Host: strings.ToUpper(service)})
		if err != nil || a.Addr != found[0].Addr || !door.Known(a.Addr) {
			t.Errorf("RESOLVE: %v, %v", a, err)
		}
		for _, f := range found {
			_, err := door.Dial(ctx, socks.Request{Host: f.Addr.String(), Port: 80})
			if !errors.Is(err, errNoService) {
				t.Errorf("%v: %v", f.Addr, err)
			}
			p, err := door.Resolve(ctx, socks.Request{Command: socks.ResolvePTR, Host: f.Addr.String()})
			if err != nil || p.Name != service {
				t.Errorf("PTR %v: %v, %v", f.Addr, p, err)
			}
		}
		if _, err := door.Dial(ctx, socks.Request{Host: found[0].Addr.Next().String(), Port: 80}); !errors.Is(err, errForgotten) {
			t.Errorf("an address of no name: %v", err)
		}
		if got := w.hosts(); len(got) != 0 {
			t.Errorf("exits were asked for %v", got)
		}
	})
}

// Names of the DNS are looked up by exits, for each isolation on a circuit of its own.
func TestDoorsLookUpThroughExits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.ready(Config{})
		door, lookup := c.SOCKSServer(nil), c.DNSServer(nil).Lookup
		v4, v6 := netip.MustParseAddr("52.0.2.7"), netip.MustParseAddr("2600:db8::7")
		got, err := lookup(t.Context(), dns.Query{Host: "www.example"})
		if err != nil || len(got) != 2 || got[0].Addr != v4 || got[1].Addr != v6 || got[0].TTL == 0 {
			t.Errorf("%v, %v", got, err)
		}
		a, err := door.Resolve(t.Context(), socks.Request{Command: socks.Resolve, Host: "www.example"})
		if err != nil || a.Addr != v4 {
			t.Errorf("%v, %v", a, err)
		}
		if _, err := lookup(t.Context(), dns.Query{Host: "end-3.example"}); err == nil || errors.Is(err, dns.ErrNotFound) {
			t.Errorf("a failure of the moment: %v", err)
		}
		for i := range 3 {
			lookup(t.Context(), dns.Query{Host: fmt.Sprintf("c%d.example", i), Client: netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 2)})})
		}
		for _, hosts := range w.asked() {
			n := 0
			for _, h := range hosts {
				if strings.HasPrefix(h, "c") {
					n++
				}
			}
			if n > 1 || n == 1 && slices.Contains(hosts, "www.example") {
				t.Errorf("one circuit was asked for %v", hosts)
			}
		}
	})
}
