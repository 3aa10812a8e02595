package path

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

const usable = directory.Running | directory.Valid

// id names relay i.
func id(i int) (n cell.NodeID) {
	binary.BigEndian.PutUint64(n[:], uint64(i)+1)
	return n
}

// entry makes relay i, alone in its /16, with bandwidth 1000 and no policy.
func entry(i int, flags directory.Flags) directory.Entry {
	return directory.Entry{
		ID: id(i), Nickname: fmt.Sprintf("r%d", i), Flags: usable | flags, Bandwidth: 1000,
		Addrs: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(1 + i>>8), byte(i), 0, 1}), 9001)},
	}
}

func indexed(t testing.TB, c *directory.Consensus) *Index {
	t.Helper()
	x, err := NewIndex(c)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// choose chooses from c once.
func choose(c *directory.Consensus, u Usage, rng func(n uint64) uint64) (Path, error) {
	x, err := NewIndex(c)
	if err != nil {
		return nil, err
	}
	return x.Choose(u, rng)
}

func policy(t testing.TB, rules ...string) directory.Policy {
	t.Helper()
	p, err := directory.ParsePolicy(rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func consensus(entries ...directory.Entry) *directory.Consensus {
	c := &directory.Consensus{Entries: entries}
	c.Relays, c.Weights = len(entries), directory.WeightsOf(entries)
	return c
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// names are the nicknames of a path, for comparing.
func names(p Path) string {
	var s []string
	for _, e := range p {
		s = append(s, e.Nickname)
	}
	return strings.Join(s, " ")
}

// sameNetwork and sameFamily say the rules anew, from the entries alone.
func sameNetwork(a, b *directory.Entry) bool {
	for _, p := range a.Addrs {
		for _, q := range b.Addrs {
			bits := 32
			if p.Addr().Is4() {
				bits = 16
			}
			if netip.PrefixFrom(p.Addr(), bits).Contains(q.Addr()) {
				return true
			}
		}
	}
	return false
}

func sameFamily(a, b *directory.Entry) bool {
	has := func(x, y *directory.Entry) bool {
		for _, f := range x.Family {
			if f == y.ID {
				return true
			}
		}
		return false
	}
	return has(a, b) && has(b, a)
}

// broken names the first rule that p breaks.
func broken(c *directory.Consensus, u Usage, p Path) string {
	if len(p) != 3 {
		return fmt.Sprintf("%d hops", len(p))
	}
	guards := 0
	for i := range c.Entries {
		if f := c.Entries[i].Flags; f.Has(usable|directory.Guard) && !f.Has(directory.MiddleOnly) {
			guards++
		}
	}
	for i, a := range p {
		if !a.Flags.Has(usable) {
			return a.Nickname + " is not running and valid"
		}
		if u.Avoid != nil && u.Avoid(a.ID) {
			return a.Nickname + " was to be avoided"
		}
		if i != 1 && a.Flags.Has(directory.MiddleOnly) {
			return a.Nickname + " is for the middle only"
		}
		for _, b := range p[:i] {
			if a.ID == b.ID {
				return a.Nickname + " is there twice"
			}
			if sameNetwork(a, b) {
				return a.Nickname + " and " + b.Nickname + " are of one network"
			}
			if sameFamily(a, b) {
				return a.Nickname + " and " + b.Nickname + " are of one family"
			}
		}
	}
	if guards > 0 && !p[0].Flags.Has(directory.Guard) {
		return p[0].Nickname + " is no guard"
	}
	if e := p[2]; e.Flags.Has(directory.BadExit) {
		return e.Nickname + " is a bad exit"
	} else if u.Addr.IsValid() && !e.Policy.Allows(u.Addr, u.Port) || !e.Policy.AllowsPort(u.Port) {
		return e.Nickname + " does not allow the target"
	}
	if !u.Fits(p) {
		return "the path does not fit its own usage"
	}
	return ""
}

// solvable tries every path.
func solvable(c *directory.Consensus, u Usage) bool {
	for i := range c.Entries {
		for j := range c.Entries {
			for k := range c.Entries {
				if broken(c, u, Path{&c.Entries[i], &c.Entries[j], &c.Entries[k]}) == "" {
					return true
				}
			}
		}
	}
	return false
}

// random makes a network where relays often go badly together.
func random(t testing.TB, rng *rand.Rand, n int) *directory.Consensus {
	policies := []directory.Policy{
		policy(t, "accept *:80", "accept *:443"),
		policy(t, "reject 10.0.0.0/8:*", "accept *:*"),
		policy(t, "accept 192.0.2.0/24:25", "accept [2001:db8::]/32:443"),
		policy(t, "reject *:*"),
	}
	nets := 1 + rng.IntN(2*n)
	entries := make([]directory.Entry, n)
	for i := range entries {
		e := entry(i, 0)
		e.Flags = directory.Flags(rng.Uint32()) & directory.AllFlags
		if rng.IntN(4) > 0 {
			e.Flags = e.Flags&^(directory.BadExit|directory.MiddleOnly) | usable
		}
		e.Bandwidth = rng.Uint64N(1 << rng.IntN(40))
		v4 := netip.AddrFrom4([4]byte{20, byte(rng.IntN(nets)), byte(rng.IntN(256)), 1})
		v6 := netip.AddrFrom16([16]byte{0x20, 1, 0, byte(rng.IntN(nets)), byte(rng.IntN(256)), 15: 1})
		e.Addrs = e.Addrs[:0]
		if kind := rng.IntN(4); kind == 0 {
			e.Addrs = append(e.Addrs, netip.AddrPortFrom(v6, 9001))
		} else if e.Addrs = append(e.Addrs, netip.AddrPortFrom(v4, 9001)); kind == 1 {
			e.Addrs = append(e.Addrs, netip.AddrPortFrom(v6, 9001))
		}
		for range rng.IntN(4) {
			e.Family = append(e.Family, id(rng.IntN(n+2)))
		}
		if rng.IntN(2) == 0 {
			e.Policy = policies[rng.IntN(len(policies))]
		}
		entries[i] = e
	}
	return consensus(entries...)
}

func randomUsage(rng *rand.Rand, n int) Usage {
	u := Usage{Port: []uint16{25, 80, 443, 9999}[rng.IntN(4)]}
	switch rng.IntN(4) {
	case 0:
		u.Addr = netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(256))})
	case 1:
		u.Addr = netip.AddrFrom4([4]byte{10, 0, 2, byte(rng.IntN(256))})
	case 2:
		if rng.IntN(2) == 0 {
			u.Addr = netip.MustParseAddr("2001:db8::1")
		}
	}
	if rng.IntN(2) == 0 {
		a, b := id(rng.IntN(n)), id(rng.IntN(n))
		u.Avoid = func(i cell.NodeID) bool { return i == a || i == b }
	}
	return u
}

func TestManyChoicesBreakNoRule(t *testing.T) {
	rng := seeded(1)
	want, paths, errs := 30_000, 0, 0
	if os.Getenv("PEEL_SLOW") != "" {
		want = 300_000
	}
	for round := 0; paths < want; round++ {
		n := 3 + rng.IntN(60)
		c := random(t, rng, n)
		x, err := NewIndex(c)
		if err != nil {
			errs++
			continue
		}
		for range 100 {
			u := randomUsage(rng, n)
			p, err := x.Choose(u, rng.Uint64N)
			if err != nil {
				errs++
				continue
			}
			paths++
			if rule := broken(c, u, p); rule != "" {
				t.Fatalf("round %d: %s", round, rule)
			}
		}
	}
	t.Logf("%d paths, %d errors", paths, errs)
}

// In a small network an error means that there is no path at all, and the other way round.
func TestFindsAPathIfThereIsOne(t *testing.T) {
	rng := seeded(2)
	found, none := 0, 0
	for range 3000 {
		n := 3 + rng.IntN(6)
		c := random(t, rng, n)
		u := randomUsage(rng, n)
		p, err := choose(c, u, rng.Uint64N)
		switch solvable := solvable(c, u); {
		case err == nil && !solvable:
			t.Fatalf("%s: should be impossible", names(p))
		case err != nil && solvable:
			t.Fatalf("there is a path, but: %v", err)
		case err == nil:
			found++
		default:
			none++
		}
	}
	if found < 300 || none < 300 {
		t.Errorf("%d found, %d not: the networks are too easy or too hard", found, none)
	}
}

func TestSameChanceSamePath(t *testing.T) {
	c := dirtest.New(7, 50).Consensus
	for seed := range uint64(20) {
		a, err := choose(c, Usage{Port: 443}, seeded(seed).Uint64N)
		b, err2 := choose(c, Usage{Port: 443}, seeded(seed).Uint64N)
		if err != nil || err2 != nil || names(a) != names(b) {
			t.Errorf("%s %v, %s %v", names(a), err, names(b), err2)
		}
	}
}

func TestRules(t *testing.T) {
	web := policy(t, "accept *:80", "accept *:443")
	// guard, middle and exit differ in one thing from a network that has exactly one path.
	base := func() []directory.Entry {
		es := []directory.Entry{entry(0, directory.Guard), entry(1, 0), entry(2, directory.Exit)}
		es[2].Policy = web
		return es
	}
	v6 := func(s string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(s), 9001) }
	for _, c := range []struct {
		name   string
		change func(es []directory.Entry)
		want   string // a path or a part of the error
	}{
		{"as it is", func([]directory.Entry) {}, "r0 r1 r2"},
		{"family, mutual", func(es []directory.Entry) {
			es[0].Family, es[1].Family = []cell.NodeID{id(1)}, []cell.NodeID{id(0)}
		}, "no middle relay"},
		{"family, said by one only", func(es []directory.Entry) {
			es[0].Family = []cell.NodeID{id(1), id(2)}
		}, "r0 r1 r2"},
		{"family of guard and exit", func(es []directory.Entry) {
			es[0].Family, es[2].Family = []cell.NodeID{id(2)}, []cell.NodeID{id(0)}
		}, "no guard goes with"},
		{"one /16", func(es []directory.Entry) {
			es[1].Addrs[0] = v6("1.0.200.200") // where r0 is
		}, "no middle relay"},
		{"neighbouring /16", func(es []directory.Entry) {
			es[1].Addrs[0] = v6("1.3.0.1")
		}, "r0 r1 r2"},
		{"one /32 of IPv6, in different /16", func(es []directory.Entry) {
			es[0].Addrs = append(es[0].Addrs, v6("2001:db8:1::1"))
			es[1].Addrs = append(es[1].Addrs, v6("2001:db8:ffff::1"))
		}, "no middle relay"},
		{"neighbouring /32 of IPv6", func(es []directory.Entry) {
			es[0].Addrs = append(es[0].Addrs, v6("2001:db8:1::1"))
			es[1].Addrs = append(es[1].Addrs, v6("2001:db9:1::1"))
		}, "r0 r1 r2"},
		{"not running", func(es []directory.Entry) { es[1].Flags &^= directory.Running }, "2 of 3 relays running and valid"},
		{"not valid", func(es []directory.Entry) { es[1].Flags &^= directory.Valid }, "2 of 3 relays running and valid"},
		{"bad exit", func(es []directory.Entry) { es[2].Flags |= directory.BadExit }, "none of the 3 relays lets traffic out"},
		{"exit for the middle only", func(es []directory.Entry) { es[2].Flags |= directory.MiddleOnly }, "none of the 3 relays lets traffic out"},
		{"guard for the middle only: no flag is left, so any may guard", func(es []directory.Entry) {
			es[0].Flags |= directory.MiddleOnly
		}, "r1 r0 r2"},
		{"exit without the flag", func(es []directory.Entry) { es[2].Flags &^= directory.Exit }, "r0 r1 r2"},
		{"no bandwidth", func(es []directory.Entry) {
			for i := range es {
				es[i].Bandwidth = 0
			}
		}, "r0 r1 r2"},
		{"all the bandwidth there can be", func(es []directory.Entry) {
			for i := range es {
				es[i].Bandwidth = math.MaxUint64
			}
		}, "r0 r1 r2"},
	} {
		es := base()
		c.change(es)
		p, err := choose(consensus(es...), Usage{Port: 443}, seeded(1).Uint64N)
		got := names(p)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s; want %s", c.name, got, c.want)
		}
	}
}

func TestErrorsSayWhatIsLacking(t *testing.T) {
	es := make([]directory.Entry, 12)
	for i := range es {
		es[i] = entry(i, directory.Guard)
		if i < 4 {
			es[i].Policy = policy(t, "reject 192.0.2.0/24:*", "accept *:80", "accept *:443")
		}
	}
	c := consensus(es...)
	exits := func(n cell.NodeID) bool { return n == id(0) || n == id(1) || n == id(2) || n == id(3) }
	for _, k := range []struct {
		c      *directory.Consensus
		u      Usage
		want   string
		noExit bool
	}{
		{c, Usage{Port: 25}, "path: no exit allows port 25: 4 exits, none accepts it", true},
		{c, Usage{Port: 80, Addr: netip.MustParseAddr("192.0.2.7")}, "path: no exit allows the address on port 80: of 4 exits, 4 accept the port", true},
		{c, Usage{Port: 80, Avoid: exits}, "path: no exit for port 80 is left: 4 exits would do, all to be avoided now", false},
		{c, Usage{Port: 80, Avoid: func(n cell.NodeID) bool { return n != id(0) }}, "no guard goes with any of the exits for port 80 (1 tried): each of 12 guards is to be avoided now (11) or shares", false},
		{c, Usage{Port: 80, Avoid: func(n cell.NodeID) bool { return n != id(0) && n != id(9) }}, "no middle relay goes with any guard and exit for port 80", false},
		{c, Usage{}, "without a port", false},
		{consensus(es[4:]...), Usage{Port: 80}, "none of the 8 relays lets traffic out", true},
		{consensus(es[:2]...), Usage{Port: 80}, "2 of 2 relays running and valid: a path needs 3", false},
		{consensus(), Usage{Port: 80}, "0 of 0 relays", false},
		{nil, Usage{Port: 80}, "no consensus", false},
	} {
		_, err := choose(k.c, k.u, seeded(1).Uint64N)
		if err == nil || !strings.Contains(err.Error(), k.want) || errors.Is(err, ErrNoExit) != k.noExit {
			t.Errorf("%v; want %s", err, k.want)
		}
		if err != nil && strings.Contains(err.Error(), "192.0.2") {
			t.Errorf("the error tells the target: %v", err)
		}
	}
}

// Networks where nothing goes together end in an error soon, however large they are.
func TestLargeImpossibleNetworkGivesUp(t *testing.T) {
	const n = 5000
	for name, change := range map[string]func(i int, e *directory.Entry){
		"all in one network": func(i int, e *directory.Entry) {
			e.Addrs[0] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, 9, byte(i >> 8), byte(i)}), 1)
		},
		"two networks": func(i int, e *directory.Entry) {
			e.Addrs[0] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, byte(i % 2), byte(i >> 8), byte(i)}), 1)
		},
	} {
		es := make([]directory.Entry, n)
		for i := range es {
			es[i] = entry(i, directory.Guard|directory.Exit)
			es[i].Policy = policy(t, "accept *:443")
			change(i, &es[i])
		}
		draws := 0
		rng := seeded(1)
		_, err := choose(consensus(es...), Usage{Port: 443}, func(n uint64) uint64 { draws++; return rng.Uint64N(n) })
		if err == nil || !strings.Contains(err.Error(), "gave up") {
			t.Errorf("%s: %v", name, err)
		}
		if draws > maxWork {
			t.Errorf("%s: %d draws", name, draws)
		}
	}
}

// chiSquare compares counts with expected shares: the sum over (observed - expected)² / expected.
func chiSquare(counts map[string]int, shares map[string]float64) (x float64, freedom int) {
	total, sum := 0, 0.0
	for _, n := range counts {
		total += n
	}
	for _, s := range shares {
		sum += s
	}
	for k, s := range shares {
		want := s / sum * float64(total)
		if want == 0 {
			if counts[k] != 0 {
				return math.Inf(1), 1
			}
			continue
		}
		d := float64(counts[k]) - want
		x += d * d / want
		freedom++
	}
	return x, freedom - 1
}

// bound is a value that chi-square with k degrees of freedom exceeds with a chance of about 1e-5
// (Wilson and Hilferty).
func bound(k int) float64 {
	f := 2 / (9 * float64(k))
	return float64(k) * math.Pow(1-f+4.265*math.Sqrt(f), 3)
}

func TestWeights(t *testing.T) {
	// Every relay is in a network of its own and each kind is there.
	es := make([]directory.Entry, 24)
	for i := range es {
		es[i] = entry(i, []directory.Flags{0, directory.Guard, directory.Exit, directory.Guard | directory.Exit}[i%4])
		es[i].Bandwidth = uint64(1000 * (1 + i*i))
		if i%4 >= 2 {
			es[i].Policy = policy(t, "accept *:443")
		}
		if i == 3 || i == 7 {
			es[i].Policy = policy(t, "accept *:443", "accept *:25") // rare
		}
	}
	c := consensus(es...)
	x := indexed(t, c)
	weight := func(pos directory.Position, i int) float64 {
		return float64(es[i].Bandwidth) * float64(c.Weights.Of(pos, es[i].Flags))
	}
	for _, port := range []uint16{443, 25} {
		// The chances of an exit, then of a guard given that exit, then of a middle given both.
		guard, middle, exit := map[string]float64{}, map[string]float64{}, map[string]float64{}
		allowed := func(i int) bool { return es[i].Policy.AllowsPort(port) }
		chances := func(pos directory.Position, may func(int) bool) map[int]float64 {
			sum, m := 0.0, map[int]float64{}
			for i := range es {
				if may(i) {
					m[i] = weight(pos, i)
					sum += m[i]
				}
			}
			for i := range m {
				m[i] /= sum
			}
			return m
		}
		for e, pe := range chances(directory.PositionExit, allowed) {
			exit[es[e].Nickname] += pe
			for g, pg := range chances(directory.PositionGuard, func(i int) bool { return i != e && es[i].Flags.Has(directory.Guard) }) {
				guard[es[g].Nickname] += pe * pg
				for m, pm := range chances(directory.PositionMiddle, func(i int) bool { return i != e && i != g }) {
					middle[es[m].Nickname] += pe * pg * pm
				}
			}
		}
		rng := seeded(uint64(port))
		counts := [3]map[string]int{{}, {}, {}}
		draws := 200_000
		if os.Getenv("PEEL_SLOW") != "" {
			draws = 2_000_000
		}
		for range draws {
			p, err := x.Choose(Usage{Port: port}, rng.Uint64N)
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range p {
				counts[i][e.Nickname]++
			}
		}
		for i, shares := range []map[string]float64{guard, middle, exit} {
			for k := range counts[i] {
				if shares[k] == 0 {
					t.Errorf("port %d, hop %d: %s has no weight there", port, i, k)
				}
			}
			if got, k := chiSquare(counts[i], shares); k < 1 || got > bound(k) {
				t.Errorf("port %d, hop %d: chi-square %.1f with %d degrees of freedom, want at most %.1f", port, i, got, k, bound(k))
			}
		}
	}
}

// Drawing until one fits and drawing among those that fit must have the same chances.
func TestRareExitsKeepTheirWeights(t *testing.T) {
	es := make([]directory.Entry, 300)
	for i := range es {
		es[i] = entry(i, directory.Guard)
		es[i].Policy = policy(t, "accept *:443")
	}
	shares := map[string]float64{}
	for k, i := range []int{10, 20, 30, 40} {
		es[i].Bandwidth = uint64(k+1) * 100
		es[i].Policy = policy(t, "reject 192.0.2.0/24:*", "accept *:443")
		shares[es[i].Nickname] = float64(k + 1)
	}
	for i := range es {
		if _, ok := shares[es[i].Nickname]; !ok {
			es[i].Policy = policy(t, "accept 192.0.2.0/24:443") // same port, other address
		}
	}
	x := indexed(t, consensus(es...))
	rng, counts := seeded(4), map[string]int{}
	for range 5000 {
		p, err := x.Choose(Usage{Port: 443, Addr: netip.MustParseAddr("8.8.8.8")}, rng.Uint64N)
		if err != nil {
			t.Fatal(err)
		}
		counts[p[2].Nickname]++
	}
	if got, k := chiSquare(counts, shares); len(counts) != 4 || got > bound(k) {
		t.Errorf("chi-square %.1f with %d degrees of freedom: %v", got, k, counts)
	}
}

func TestManyPortsKeepTheIndexSmall(t *testing.T) {
	x := indexed(t, dirtest.New(3, 30).Consensus)
	rng := seeded(1)
	for port := uint16(1); port <= 1000; port++ {
		x.Choose(Usage{Port: port}, rng.Uint64N)
	}
	if n := len(x.ports); n > maxPorts {
		t.Errorf("%d ports are kept", n)
	}
}

func TestFits(t *testing.T) {
	c := dirtest.New(5, 30).Consensus
	p, err := choose(c, Usage{Port: 443}, seeded(1).Uint64N)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		u    Usage
		p    Path
		want bool
	}{
		{Usage{Port: 443}, p, true},
		{Usage{Port: 80, Addr: netip.MustParseAddr("8.8.8.8")}, p, true},
		{Usage{Port: 25}, p, false},
		{Usage{}, p, false},
		{Usage{Port: 443, Avoid: func(n cell.NodeID) bool { return n == p[0].ID }}, p, false},
		{Usage{Port: 443}, p[:2], false},
		{Usage{Port: 443}, nil, false},
	} {
		if got := k.u.Fits(k.p); got != k.want {
			t.Errorf("port %d, %s: %t", k.u.Port, names(k.p), got)
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		x := indexed(b, dirtest.New(1, n).Consensus)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rng := rand.New(rand.NewChaCha8([32]byte{}))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.Choose(Usage{Port: 443}, rng.Uint64N); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNewIndex(b *testing.B) {
	c := dirtest.New(1, 10_000).Consensus
	for b.Loop() {
		if _, err := NewIndex(c); err != nil {
			b.Fatal(err)
		}
	}
}

// An exit that would refuse a private address is not told that somebody asks for it.
func TestPrivateAddressesGoOnlyWhereThePolicyNamesThem(t *testing.T) {
	all, own := entry(2, directory.Exit), entry(2, directory.Exit)
	all.Policy = policy(t, "accept *:*")
	own.Policy = policy(t, "accept 127.0.0.0/8:*", "accept [::1]:*", "accept *:*")
	for addr, want := range map[string]struct{ all, own bool }{
		"127.0.0.1":   {false, true},
		"::1":         {false, true},
		"192.168.1.1": {false, false},
		"10.1.2.3":    {false, false},
		"fe80::1":     {false, false},
		"8.8.8.8":     {true, true},
	} {
		u := Usage{Addr: netip.MustParseAddr(addr), Port: 80}
		for _, x := range []struct {
			name string
			exit directory.Entry
			want bool
		}{{"accept *:*", all, want.all}, {"loopback named", own, want.own}} {
			_, err := choose(consensus(entry(0, directory.Guard), entry(1, 0), x.exit), u, seeded(1).Uint64N)
			if (err == nil) != x.want || err != nil && !errors.Is(err, ErrNoExit) {
				t.Errorf("%s with %s: %v", addr, x.name, err)
			}
		}
	}
}

// Whoever prints a path reads who is on it; a log does not.
func TestPathIsForPeople(t *testing.T) {
	var p Path
	for _, name := range []string{"Amber", "Birch", "Cedar"} {
		p = append(p, &directory.Entry{Nickname: name, ID: cell.NodeID{name[0]}})
	}
	if got, want := fmt.Sprint(p), "Amber (ieaaaaaa) > Birch (iiaaaaaa) > Cedar (imaaaaaa)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := fmt.Sprint(Path(nil)); got != "" {
		t.Errorf("of no way: %q", got)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("a circuit", "path", p)
	if got := log.String(); !strings.Contains(got, "path=[scrubbed]") || strings.Contains(got, "Amber") {
		t.Error(got)
	}
}
