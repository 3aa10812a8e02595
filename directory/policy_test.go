package directory_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"peel/directory"
)

func TestRulesHaveOneSpelling(t *testing.T) {
	for _, s := range []string{
		"accept *:*", "reject *:25", "accept *:80-443", "accept 192.0.2.1:1-2", "reject 10.0.0.0/8:*", "accept 0.0.0.0/0:443",
		"accept [2001:db8::1]:65535", "reject [2001:db8::]/32:1-1024", "accept [::]/0:53",
	} {
		r, err := directory.ParseRule(s)
		if err != nil || r.String() != s {
			t.Errorf("%q came back as %q, %v", s, r, err)
		}
	}
	for s, want := range map[string]string{
		"":                               "must begin with accept or reject",
		"allow *:80":                     "must begin with accept or reject",
		"accept":                         "needs an address, a colon and a port",
		"accept *":                       "needs an address, a colon and a port",
		"accept  *:80":                   "is no IPv4 address",
		"accept *:0":                     "there is no port 0",
		"accept *:0-80":                  "there is no port 0",
		"accept *:443-80":                "the wrong way round",
		"accept *:65536":                 "is above the limit of 65535",
		"accept *:80-":                   "is not a whole number",
		"accept *:-80":                   "is not a whole number",
		"accept *:080":                   "is not a whole number",
		"accept *:80-80":                 "must be written as *:80",
		"accept *:1-65535":               "must be written as *:*",
		"accept *:http":                  "is not a whole number",
		"accept 10.0.0.1/8:80":           "write 10.0.0.0/8",
		"accept 10.0.0.1/32:80":          "must be written as 10.0.0.1:80",
		"accept 10.0.0.0/33:80":          "is above the limit of 32",
		"accept 10.0.0.0/08:80":          "is not a whole number",
		"accept 10.0.0.0/:80":            "is not a whole number",
		"accept 10.1:80":                 "is no IPv4 address",
		"accept 2001:db8::1:80":          "is no IPv4 address",
		"accept [10.0.0.1]:80":           "is no IPv4 address",
		"accept [2001:DB8::]/32:80":      "must be written as [2001:db8::]/32:80",
		"accept [2001:db8:0::]/32:80":    "must be written as [2001:db8::]/32:80",
		"accept [fe80::1%eth0]:80":       "is no IPv4 address",
		"accept [::ffff:10.0.0.0]/104:1": "IPv4 addresses must be written as such",
		"accept example.net:80":          "is no IPv4 address",
	} {
		if r, err := directory.ParseRule(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v, want %q", s, r, err, want)
		}
	}
}

func TestRulesOfAConfigurationMayListPorts(t *testing.T) {
	p := policy(t, "accept *:80,443,6660-6669", "reject [2001:db8::]/32:1-79,*", "accept 192.0.2.1:22")
	want := "accept *:80, accept *:443, accept *:6660-6669, reject [2001:db8::]/32:1-79, reject [2001:db8::]/32:*, accept 192.0.2.1:22"
	if p.String() != want {
		t.Errorf("%v", p)
	}
	for s, want := range map[string]string{
		"accept *:80,":       "is not a whole number",
		"accept *:,80":       "is not a whole number",
		"accept *:80,,443":   "is not a whole number",
		"accept *:80, 443":   "is not a whole number",
		"accept *:80,0":      "there is no port 0",
		"accept *:80,90-81":  "the wrong way round",
		"accept 1.2.3.4,80":  "needs an address, a colon and a port",
		"accept 1.1.1.1,*:1": "is no IPv4 address",
		"accept *:1" + strings.Repeat(",1", directory.MaxRules): "more than the 64 rules",
	} {
		if p, err := directory.ParsePolicy([]string{s}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, %v, want %q", s, p, err, want)
		}
	}
	many := make([]string, directory.MaxRules)
	for i := range many {
		many[i] = "accept *:80"
	}
	if len(policy(t, many...)) != directory.MaxRules {
		t.Error("as many rules as may be are too many")
	}
	if _, err := directory.ParsePolicy(append(many, many[0])); err == nil || !strings.Contains(err.Error(), "more than the 64 rules") {
		t.Error(err)
	}
}

func policy(t testing.TB, rules ...string) directory.Policy {
	t.Helper()
	p, err := directory.ParsePolicy(rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheFirstRuleThatMatchesDecides(t *testing.T) {
	p := policy(t, "reject 192.0.2.0/24:*", "accept 192.0.2.7:80", "accept *:80-81", "reject *:*", "accept *:443")
	for _, c := range []struct {
		addr string
		port uint16
		want bool
	}{
		{"192.0.2.7", 80, false}, {"198.51.100.1", 80, true}, {"198.51.100.1", 81, true}, {"198.51.100.1", 82, false},
		{"198.51.100.1", 443, false}, {"2001:db8::1", 80, true}, {"::ffff:192.0.2.7", 80, false}, {"fe80::1%eth0", 80, true}, {"198.51.100.1", 0, false},
	} {
		if got := p.Allows(netip.MustParseAddr(c.addr), c.port); got != c.want {
			t.Errorf("%s port %d: %v", c.addr, c.port, got)
		}
	}
	if p.Allows(netip.Addr{}, 80) {
		t.Error("no address at all is allowed")
	}
	if (directory.Policy)(nil).Allows(netip.MustParseAddr("192.0.2.1"), 80) || (directory.Policy)(nil).AllowsPort(80) {
		t.Error("an empty policy allows something")
	}
}

func TestAllowsPortAsksForOneAddress(t *testing.T) {
	for _, c := range []struct {
		rules string
		want  bool
	}{
		{"accept *:80", true},
		{"reject *:*", false},
		{"accept *:443", false},
		{"reject *:80, accept 192.0.2.1:80", false},
		{"reject 0.0.0.0/0:*, accept 192.0.2.1:80", false},
		{"reject 0.0.0.0/0:*, accept *:80", true},
		{"reject 0.0.0.0/1:*, reject 128.0.0.0/1:*, accept 0.0.0.0/0:80", false},
		{"reject 0.0.0.0/1:*, reject 128.0.0.0/2:*, accept 0.0.0.0/0:80", true},
		{"reject 192.0.2.1:*, accept 192.0.2.0/31:80", true},
		{"reject 192.0.2.1:*, reject 192.0.2.0:*, accept 192.0.2.0/31:80", false},
		{"reject [::]/1:*, reject [8000::]/1:*, reject 0.0.0.0/0:*, accept *:80", false},
		{"accept 127.0.0.0/8:*", true},
	} {
		if got := policy(t, strings.Split(c.rules, ", ")...).AllowsPort(80); got != c.want {
			t.Errorf("%s: %v", c.rules, got)
		}
	}
}

// slowAllows decides by the text alone, with big numbers.
func slowAllows(rules []string, addr netip.Addr, port int) bool {
	for _, s := range rules {
		verb, rest, _ := strings.Cut(s, " ")
		i := strings.LastIndex(rest, ":")
		where, ports := rest[:i], rest[i+1:]
		lo, hi := 1, 65535
		if ports != "*" {
			a, b, ok := strings.Cut(ports, "-")
			lo, _ = strconv.Atoi(a)
			hi = lo
			if ok {
				hi, _ = strconv.Atoi(b)
			}
		}
		if port < lo || port > hi {
			continue
		}
		if where != "*" {
			ip, bits, ok := strings.Cut(where, "/")
			net := netip.MustParseAddr(strings.Trim(ip, "[]"))
			if net.Is4() != addr.Is4() {
				continue
			}
			n := net.BitLen()
			if ok {
				n, _ = strconv.Atoi(bits)
			}
			shift := uint(net.BitLen() - n)
			a := new(big.Int).Rsh(new(big.Int).SetBytes(net.AsSlice()), shift)
			b := new(big.Int).Rsh(new(big.Int).SetBytes(addr.AsSlice()), shift)
			if a.Cmp(b) != 0 {
				continue
			}
		}
		return verb == "accept"
	}
	return false
}

// A small world: 16 addresses of each family around which the random rules turn, and one far away.
func world() []netip.Addr {
	l := []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:ffff::9")}
	for i := range 16 {
		l = append(l, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)))
	}
	return l
}

func randomRule(rng *rand.Rand) string {
	verb := []string{"accept", "reject"}[rng.IntN(2)]
	ports := []string{"*", "80", "81", "79-80", "80-82"}[rng.IntN(5)]
	bits := rng.IntN(5)
	i := rng.IntN(16) &^ (1<<bits - 1)
	switch rng.IntN(7) {
	case 0:
		return fmt.Sprintf("%s *:%s", verb, ports)
	case 1:
		return fmt.Sprintf("%s 0.0.0.0/0:%s", verb, ports)
	case 2:
		return fmt.Sprintf("%s [::]/0:%s", verb, ports)
	case 3, 4:
		if bits == 0 {
			return fmt.Sprintf("%s 10.0.0.%d:%s", verb, i, ports)
		}
		return fmt.Sprintf("%s 10.0.0.%d/%d:%s", verb, i, 32-bits, ports)
	}
	p := netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)), 128-bits)
	if bits == 0 {
		return fmt.Sprintf("%s [%s]:%s", verb, p.Addr(), ports)
	}
	return fmt.Sprintf("%s [%s]/%d:%s", verb, p.Addr(), p.Bits(), ports)
}

func TestPoliciesAgreeWithASlowReference(t *testing.T) {
	const seed = 5
	n := 500 // policies: each is tried with 102 targets
	if os.Getenv("PEEL_SLOW") == "1" {
		n = 100_000
	} else {
		t.Log("51,000 policies and targets of ten million: PEEL_SLOW=1 for all")
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	all := world()
	allowed, ports, tried := 0, 0, 0
	for range n {
		rules := make([]string, rng.IntN(9))
		for i := range rules {
			rules[i] = randomRule(rng)
		}
		p := policy(t, rules...)
		for _, port := range []int{79, 80, 82} {
			some := false
			for _, addr := range all {
				tried++
				want := slowAllows(rules, addr, port)
				if got := p.Allows(addr, uint16(port)); got != want {
					t.Fatalf("seed %d: %q: %s port %d: %v, the reference says %v", seed, rules, addr, port, got, want)
				}
				if want {
					some = true
					allowed++
				}
			}
			if got := p.AllowsPort(uint16(port)); got != some {
				t.Fatalf("seed %d: %q: port %d: %v, the reference says %v", seed, rules, port, got, some)
			}
			if some {
				ports++
			}
		}
	}
	if allowed < tried/10 || allowed > tried*9/10 || ports == 0 || ports == 3*n {
		t.Errorf("the random policies are of no use: %d of %d allowed, %d ports", allowed, tried, ports)
	}
	t.Logf("seed %d: %d policies and targets, %d allowed, as the reference says", seed, tried, allowed)
}
