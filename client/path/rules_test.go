package path

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

func randomRules(rng *rand.Rand, n int) (r Rules) {
	list := func(most int) (l Relays) {
		for range rng.IntN(most + 1) {
			if rng.IntN(2) == 0 {
				l.IDs = append(l.IDs, id(rng.IntN(n)))
			} else {
				l.Nets = append(l.Nets, netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(rng.IntN(n)), 0, 0}), 16))
			}
		}
		return l
	}
	if rng.IntN(3) == 0 {
		r.Own = []cell.NodeID{id(rng.IntN(n)), id(rng.IntN(n))}
	}
	if rng.IntN(2) == 0 {
		r.Exclude = list(3)
	}
	if rng.IntN(2) == 0 {
		r.Exits = list(3)
	}
	return r
}

// against names the first of the configuration's rules that p breaks.
func against(r Rules, p Path) string {
	for i, e := range p {
		if slices.Contains(r.Own, e.ID) {
			return e.Nickname + " is our own"
		}
		named := func(l Relays) bool {
			for _, x := range l.IDs {
				if x == e.ID {
					return true
				}
			}
			for _, ap := range e.Addrs {
				for _, n := range l.Nets {
					if n.Contains(ap.Addr()) {
						return true
					}
				}
			}
			return false
		}
		if named(r.Exclude) {
			return e.Nickname + " is excluded"
		}
		if i == 2 && named(r.Exits) {
			return e.Nickname + " is excluded as an exit"
		}
	}
	return ""
}

// Whatever the consensus, the configuration and the guard: no path breaks a rule, and one that begins with a guard begins
// with that one.
func TestManyChoicesKeepAllRules(t *testing.T) {
	want := int64(100_000)
	if os.Getenv("PEEL_SLOW") != "" {
		want = 2_000_000
	} else {
		t.Log("1e5 paths; PEEL_SLOW=1 draws 2e6")
	}
	const seed = 3
	var paths, errs, given, nets atomic.Int64
	var wg sync.WaitGroup
	for worker := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(worker)))
			for paths.Load() < want && !t.Failed() {
				n := 3 + rng.IntN(60)
				c, rules := random(t, rng, n), randomRules(rng, n)
				x, err := rules.Index(c)
				if err != nil {
					errs.Add(1)
					continue
				}
				nets.Add(1)
				guards := x.Guards(false)
				found, failed := int64(0), int64(0)
				for range 20 {
					u := randomUsage(rng, n)
					if rng.IntN(4) > 0 && len(guards) > 0 {
						u.Guard = guards[rng.IntN(len(guards))].ID
					}
					checked := u
					if avoid := u.Avoid; avoid != nil && !u.Guard.IsZero() { // Avoid is not asked about the guard
						checked.Avoid = func(n cell.NodeID) bool { return n != u.Guard && avoid(n) }
					}
					for range 50 {
						p, err := x.Choose(u, rng.Uint64N)
						if err != nil {
							failed++
							break
						}
						found++
						rule := against(rules, p)
						if rule == "" && !u.Guard.IsZero() && p[0].ID != u.Guard {
							rule = "it begins with another guard"
						}
						if rule == "" {
							rule = broken(c, checked, p)
						}
						if rule != "" {
							t.Errorf("worker %d: %s: %s", worker, names(p), rule)
							return
						}
						if !u.Guard.IsZero() {
							given.Add(1)
						}
					}
				}
				paths.Add(found)
				errs.Add(failed)
			}
		})
	}
	wg.Wait()
	t.Logf("seed %d: %d paths from %d networks, %d of them with a given guard; %d errors", seed, paths.Load(), nets.Load(), given.Load(), errs.Load())
	if given.Load() < want/3 {
		t.Error("too few with a given guard")
	}
}

// four is a network of four relays that go together: a guard, two in the middle, an exit.
func four(t testing.TB) []directory.Entry {
	es := []directory.Entry{entry(0, directory.Guard), entry(1, directory.Guard), entry(2, 0), entry(3, directory.Exit), entry(4, directory.Exit)}
	es[3].Policy, es[4].Policy = policy(t, "accept *:443"), policy(t, "accept *:443")
	return es
}

func TestConfiguredRules(t *testing.T) {
	net := func(i int) Relays {
		return Relays{Nets: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("1.%d.0.0/24", i))}}
	}
	one := func(i int) Relays { return Relays{IDs: []cell.NodeID{id(i)}} }
	for _, x := range []struct {
		name  string
		rules Rules
		never []string // by place
	}{
		{"nothing", Rules{}, []string{"", "", ""}},
		{"our own", Rules{Own: []cell.NodeID{id(0)}}, []string{"r0", "r0", "r0"}},
		{"by identity", Rules{Exclude: one(0)}, []string{"r0", "r0", "r0"}},
		{"by address", Rules{Exclude: net(0)}, []string{"r0", "r0", "r0"}},
		{"an exit", Rules{Exclude: one(3)}, []string{"r3", "r3", "r3"}},
		{"as an exit, by identity", Rules{Exits: one(3)}, []string{"", "", "r3"}},
		{"as an exit, by address", Rules{Exits: net(3)}, []string{"", "", "r3"}},
	} {
		ix, err := x.rules.Index(consensus(four(t)...))
		if err != nil {
			t.Fatalf("%s: %v", x.name, err)
		}
		seen := [3]map[string]bool{{}, {}, {}}
		rng := seeded(1)
		for range 500 {
			p, err := ix.Choose(Usage{Port: 443}, rng.Uint64N)
			if err != nil {
				t.Fatalf("%s: %v", x.name, err)
			}
			for i, e := range p {
				seen[i][e.Nickname] = true
			}
		}
		for i, name := range x.never {
			if name != "" && seen[i][name] {
				t.Errorf("%s: %s is at place %d", x.name, name, i+1)
			}
		}
		if x.name == "as an exit, by identity" && !seen[1]["r3"] {
			t.Error("an exit that is excluded as such may be in the middle")
		}
	}
}

// Where no path is left, strict rules say so and lenient ones give way; one's own relays never do.
func TestStrictAndLenient(t *testing.T) {
	c := consensus(four(t)...)
	both := Relays{IDs: []cell.NodeID{id(3), id(4)}}
	rng := seeded(1)
	for _, x := range []struct {
		rules Rules
		want  string // of an error; "": there is a path
	}{
		{Rules{Exits: both}, "none of the 5 relays lets traffic out; the configuration excludes 2 relays"},
		{Rules{Exclude: both}, "none of the 3 relays lets traffic out; the configuration excludes 2 relays"},
		{Rules{Exclude: Relays{Nets: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}}, "0 of 5 relays running and valid: a path needs 3; the configuration excludes 5 relays"},
		{Rules{Exits: both, Lenient: true}, ""},
		{Rules{Exclude: both, Lenient: true}, ""},
		{Rules{Exclude: Relays{Nets: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}, Lenient: true}, ""},
		{Rules{Own: both.IDs, Exclude: both, Lenient: true}, "lets traffic out"},
	} {
		ix, err := x.rules.Index(c)
		if err == nil {
			_, err = ix.Choose(Usage{Port: 443}, rng.Uint64N)
		}
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%+v: %v", x.rules, err)
		}
	}
	// Lenient rules are kept while they can be.
	ix, err := Rules{Exits: Relays{IDs: []cell.NodeID{id(3)}}, Exclude: Relays{IDs: []cell.NodeID{id(0)}}, Lenient: true}.Index(c)
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		p, err := ix.Choose(Usage{Port: 443}, rng.Uint64N)
		if err != nil || p[2].ID == id(3) || p[0].ID == id(0) || p[1].ID == id(0) {
			t.Fatalf("%s %v", names(p), err)
		}
	}
	if g := ix.Guards(false); len(g) != 2 || !g[0].Excluded || g[1].Excluded {
		t.Errorf("%+v", g)
	}
	if g := ix.Guards(true); len(g) != 2 || g[0].Excluded {
		t.Errorf("%+v", g)
	}
}

// A given guard is used if any path begins with it; if not, the error says that another may do.
func TestGivenGuard(t *testing.T) {
	es := four(t)
	es[3].Addrs = es[0].Addrs // with the guard r0 only the exit r4 goes
	es[2].Flags |= directory.MiddleOnly
	x := indexed(t, consensus(es...))
	rng := seeded(1)
	for _, k := range []struct {
		u    Usage
		want string
		is   error
	}{
		{Usage{Port: 443, Guard: id(0)}, "r0", nil},
		{Usage{Port: 443, Guard: id(1)}, "r1", nil},
		{Usage{Port: 443, Guard: id(0), Avoid: func(n cell.NodeID) bool { return n == id(0) }}, "r0", nil},
		{Usage{Port: 443, Guard: id(0), Avoid: func(n cell.NodeID) bool { return n == id(4) }}, "no path begins with the guard", ErrGuard},
		{Usage{Port: 443, Guard: id(0), Avoid: func(n cell.NodeID) bool { return n == id(1) || n == id(2) }}, "no middle relay goes with it", ErrGuard},
		{Usage{Port: 443, Guard: id(2)}, "no guard any more", ErrGuard}, // for the middle only
		{Usage{Port: 443, Guard: id(3)}, "no guard any more", ErrGuard}, // no flag
		{Usage{Port: 443, Guard: id(9)}, "it is not running", ErrGuard},
		{Usage{Port: 25, Guard: id(0)}, "no exit allows port 25", ErrNoExit},
	} {
		for range 50 {
			p, err := x.Choose(k.u, rng.Uint64N)
			if k.is == nil && (err != nil || p[0].Nickname != k.want) || k.is != nil && (!errors.Is(err, k.is) || !strings.Contains(err.Error(), k.want)) {
				t.Fatalf("%+v: %s %v", k, names(p), err)
			}
		}
	}
}

// The exits that go with a guard keep their weights among each other.
func TestWeightsWithAGivenGuard(t *testing.T) {
	es := make([]directory.Entry, 30)
	shares := map[string]float64{}
	for i := range es {
		es[i] = entry(i, directory.Guard)
		es[i].Bandwidth = uint64(100 * (i + 1))
		if i%3 == 1 {
			es[i].Flags |= directory.Exit
			es[i].Policy = policy(t, "accept *:443")
			shares[es[i].Nickname] = float64(i + 1)
		}
	}
	es[1].Family, es[0].Family = []cell.NodeID{id(0)}, []cell.NodeID{id(1)} // not with the guard
	delete(shares, "r1")
	x := indexed(t, consensus(es...))
	rng, counts := seeded(4), map[string]int{}
	for range 50_000 {
		p, err := x.Choose(Usage{Port: 443, Guard: id(0)}, rng.Uint64N)
		if err != nil {
			t.Fatal(err)
		}
		counts[p[2].Nickname]++
	}
	if got, k := chiSquare(counts, shares); len(counts) != 9 || got > bound(k) {
		t.Errorf("chi-square %.1f with %d degrees of freedom: %v", got, k, counts)
	}
}

func FuzzParseRelays(f *testing.F) {
	for _, s := range []string{id(1).String(), "192.0.2.1", "192.0.2.0/24", "192.0.2.1/24", "2001:db8::/32", "::ffff:1.2.3.4/112", "fe80::1%a", "{DE}", "{??}", "{deu}", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRelays([]string{s})
		found := len(r.IDs) + len(r.Nets)
		if r.Countries != nil {
			found += len(r.Countries.wanted)
		}
		if err == nil && found != 1 || err != nil && found != 0 {
			t.Errorf("%q: %+v, %v", s, r, err)
		}
		for _, n := range r.Nets {
			if n != n.Masked() || !n.IsValid() {
				t.Errorf("%q: %v", s, n)
			}
		}
	})
}

func BenchmarkChooseWithGuard(b *testing.B) {
	x := indexed(b, dirtest.New(1, 10_000).Consensus)
	g := x.Guards(false)[17].ID
	rng := rand.New(rand.NewChaCha8([32]byte{}))
	for b.Loop() {
		if _, err := x.Choose(Usage{Port: 443, Guard: g}, rng.Uint64N); err != nil {
			b.Fatal(err)
		}
	}
}

// Where relays may share an address, one still is in a path only once, and families still count.
func TestOneAddressForAll(t *testing.T) {
	es := four(t)
	for i := range es {
		es[i].Addrs = es[0].Addrs
		es[i].Flags |= directory.Guard
		es[i].Policy = policy(t, "accept *:443")
	}
	es[0].Family, es[1].Family = []cell.NodeID{id(1)}, []cell.NodeID{id(0)}
	c := consensus(es...)
	c.Params = directory.Params{directory.ParamDistinctSubnets.Name: 0}
	x := indexed(t, c)
	rng := seeded(1)
	for i := range 1000 {
		u := Usage{Port: 443}
		if i%2 == 0 {
			u.Guard = id(i % 5)
		}
		p, err := x.Choose(u, rng.Uint64N)
		if err != nil {
			t.Fatal(err)
		}
		if p[0] == p[1] || p[1] == p[2] || p[0] == p[2] {
			t.Fatalf("%s: one is there twice", names(p))
		}
		if s := names(p); strings.Contains(s, "r0") && strings.Contains(s, "r1") {
			t.Fatalf("%s: two of one family", s)
		}
	}
}
