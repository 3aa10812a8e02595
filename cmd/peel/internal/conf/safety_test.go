package conf

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"peel/directory"
	"peel/directory/dirtest"
)

// A slip is one mistake in a line "key = value", or in the head of a table.
type slip struct {
	name    string
	removed bool // the key is not there any longer: what holds without it is the default
	make    func(key, value string) string
}

// slips are the mistakes that people make. Each of them may be made in any line.
var slips = func() (all []slip) {
	all = append(all,
		slip{"removed", true, func(string, string) string { return "" }},
		slip{"commented out", true, func(k, v string) string { return "# " + k + " = " + v }},
		slip{"doubled", false, func(k, v string) string { return k + " = " + v + "\n" + k + " = " + v }},
		slip{"without a value", false, func(k, _ string) string { return k + " = " }},
		slip{"without its sign", false, func(k, v string) string { return k + " " + v }},
		slip{"key cut", false, func(k, v string) string { return k[:len(k)-1] + " = " + v }},
		slip{"key in capitals", false, func(k, v string) string { return strings.ToUpper(k) + " = " + v }},
		slip{"key with a letter more", false, func(k, v string) string { return k + "s = " + v }},
		slip{"value cut", false, func(k, v string) string { return k + " = " + v[:len(v)-1] }},
		slip{"in quotes", false, func(k, v string) string { return k + " = " + quote(v) }},
		slip{"in a list", false, func(k, v string) string { return k + " = [" + v + "]" }},
		slip{"in a table", false, func(k, v string) string { return "[" + k + "]\n" + k + " = " + v }},
	)
	for _, v := range []string{`""`, `[]`, `[""]`, `{}`, `0`, `-1`, `7`, `9223372036854775807`, `1e300`, `nan`, `"yes"`, `"no"`, `"none"`, `"off"`, `" "`,
		`"*"`, `["*"]`, `"-1"`, `"0"`, `"99999999999999999999 GiB"`, `"-5 MiB"`, `"127.0.0.1:65536"`, `"127.0.0.1:-1"`, `"1.2.3"`, `["1.2.3"]`, `2026-01-01`, `"\u0000"`} {
		all = append(all, slip{"value " + v, false, func(k, _ string) string { return k + " = " + v }})
	}
	return all
}()

// local says whether only this machine reaches an address.
func local(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	a, err2 := netip.ParseAddr(host)
	return err == nil && err2 == nil && a.IsLoopback()
}

// weaker says in what a configuration is less safe than another, or than the default where a key is not there; "": in nothing.
func weaker(was, is file, removed bool) string {
	switch is := is.(type) {
	case *Client:
		was := was.(*Client)
		for _, d := range is.Doors() {
			if d.Unix() == "" && !local(d.Address) {
				return "a port is open to others: " + d.Address
			}
			if d.User != nil && !*d.User || d.Client != nil && !*d.Client {
				return "who asks does not count"
			}
			i := slices.IndexFunc(was.Doors(), func(o Listen) bool { return o.Address == d.Address })
			if i < 0 {
				return "a port that was not there: " + d.Address
			}
			o := was.Doors()[i]
			for _, e := range is.Doors() {
				if d.Group != "" && e.Group == d.Group && e.Address != d.Address {
					return "ports share that did not: group " + d.Group
				}
			}
			if !removed && (o.Safe && !d.Safe || o.Host && !d.Host || o.Port && !d.Port) {
				return "a rule of a port is gone, and its key is not"
			}
		}
		if is.DNS != "" && !local(is.DNS) {
			return "the DNS port is open to others"
		}
		if is.Lenient && !was.Lenient {
			return "exclusions may be broken"
		}
		if is.Admin != "" && !local(is.Admin) {
			return "others can look into it"
		}
		if n, err := Size(is.Memory, LeastClientMemory); err != nil || n < 0 {
			return "memory has no bound"
		}
	case *Relay:
		was := was.(*Relay)
		p, err := is.Policy()
		if q, _ := was.Policy(); err != nil || len(p) > 0 && !reflect.DeepEqual(p, q) {
			return fmt.Sprintf("more may leave: %v", p)
		}
		if is.Admin != "" && !local(is.Admin) {
			return "others can look into it"
		}
		if n, err := Size(is.Memory, LeastRelayMemory); err != nil || n < 0 {
			return "memory has no bound"
		}
		if _, err := is.Rate(); err != nil {
			return "bandwidth has no bound"
		}
		if is.NoAddr && !was.NoAddr {
			return "addresses have no limits"
		}
		var m mistakes
		if is.checkBounds(&m); len(m) > 0 {
			return m[0].key + " is no bound"
		}
		if is.Keys == "" || is.Network == "" { // another folder has other keys, or none: that is seen at the start
			return "no keys, or no network"
		}
	case *Authority:
		was := was.(*Authority)
		if is.Private && !was.Private {
			return "relays may have private addresses"
		}
		if is.Admin != "" && !local(is.Admin) {
			return "others can look into it"
		}
		if err := is.Params.Check(); err != nil {
			return err.Error()
		}
		if is.Keys == "" || is.Network == "" { // another folder has other keys, or none: that is seen at the start
			return "no keys, or no network"
		}
		if got, err := is.Allowed(); err != nil || len(got) < len(is.Allow) {
			return "a relay is allowed that was not named"
		}
	}
	return ""
}

// Every line of every file is removed, emptied, mistyped, put out of range and doubled; without PEEL_SLOW, each in one of twelve ways in turn. Each such file is refused with its name and, where there is
// one, the line, or what it says is no less safe than before.
func TestNoSlipMakesANodeLessSafe(t *testing.T) {
	rounds, each := 100, 12 // files with two or three slips; of so many slips of a line one
	if os.Getenv("PEEL_SLOW") != "" {
		rounds, each = 2000, 1
	}
	yes := true
	client := clientFile()
	client.Listen = []Listen{{Address: "127.0.0.1:9251", Safe: true, Host: true, Port: true, User: &yes, Client: &yes}}
	client.Exclude, client.Memory, client.Admin = []string{"192.0.2.0/24"}, "64 MiB", "127.0.0.1:9270"
	relay := relayFile()
	relay.Admin = "127.0.0.1:9270"
	authority := Authority{Network: "/n/network.toml", Keys: "/n/keys", State: "/n/state", Listen: []string{"127.0.0.1:9001"}, Log: "warn",
		Allow: []string{}, Lists: []string{"/n/lists.toml"}, Admin: "127.0.0.1:9270", Params: directory.Params{"distinct-subnets": 1}}
	path := write(t, "")
	placed := regexp.MustCompile(`^` + regexp.QuoteMeta(path) + `:(\d+:)? `)
	for _, x := range []struct {
		name, text string
		was        file
		fresh      func() file
	}{
		{"client", client.Text(), &client, func() file { return new(Client) }},
		{"relay", relay.Text(), &relay, func() file { return new(Relay) }},
		{"authority", authority.Text(), &authority, func() file { return new(Authority) }},
	} {
		lines := strings.SplitAfter(x.text, "\n")
		var keyed []int
		for i, l := range lines {
			if k, _, ok := strings.Cut(l, " = "); ok && !strings.HasPrefix(k, "#") {
				keyed = append(keyed, i)
			}
		}
		refused, taken, unplaced := 0, 0, 0
		try := func(what string, text string, removed bool) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			is := x.fresh()
			if err := Load(path, is); err != nil {
				refused++
				m := placed.FindStringSubmatch(err.Error())
				if m == nil {
					t.Errorf("%s: %s: refused without the file's name: %v", x.name, what, err)
				} else if m[1] == "" {
					unplaced++
					if !removed {
						t.Errorf("%s: %s: refused without a line: %v", x.name, what, err)
					}
				}
				return
			}
			taken++
			if why := weaker(x.was, is, removed); why != "" {
				t.Errorf("%s: %s: taken, and %s", x.name, what, why)
			}
		}
		spoil := func(lines []string, i int, s slip) {
			k, v, _ := strings.Cut(strings.TrimSuffix(lines[i], "\n"), " = ")
			lines[i] = s.make(k, v) + "\n"
		}
		try("as it is", x.text, false)
		if taken != 1 {
			t.Fatalf("%s: the file itself is refused", x.name)
		}
		for _, i := range keyed {
			for k, s := range slips {
				if (i+k)%each != 0 {
					continue
				}
				spoiled := slices.Clone(lines)
				spoil(spoiled, i, s)
				try(fmt.Sprintf("%q %s", strings.TrimSpace(lines[i]), s.name), strings.Join(spoiled, ""), s.removed)
			}
		}
		rng := rand.New(rand.NewPCG(5, 6))
		for range rounds {
			spoiled, removed, what := slices.Clone(lines), false, ""
			for _, at := range rng.Perm(len(keyed))[:2+rng.IntN(2)] {
				s := slips[rng.IntN(len(slips))]
				if rng.IntN(2) == 0 {
					s = slips[0] // most other files are refused for their first slip
				}
				spoil(spoiled, keyed[at], s)
				removed = removed || s.removed
				what += fmt.Sprintf("%q %s; ", strings.TrimSpace(lines[keyed[at]]), s.name)
			}
			try(what, strings.Join(spoiled, ""), removed)
		}
		t.Logf("%s: %d files refused, %d of them without a line since one is missing; %d taken, none less safe", x.name, refused, unplaced, taken)
		if taken < 10 || refused < 100 {
			t.Errorf("%s: the test shows little", x.name)
		}
	}
}

// The same for the network file: what is taken is the same network, by the same authorities and threshold.
func TestNoSlipMakesAnotherNetwork(t *testing.T) {
	was := dirtest.New(3, 4).Network
	text, err := was.Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := write(t, "")
	lines := strings.SplitAfter(string(text), "\n")
	refused, taken := 0, 0
	each := 4 // of so many slips of a line one
	if os.Getenv("PEEL_SLOW") != "" {
		each = 1
	}
	for i, l := range lines {
		k, v, ok := strings.Cut(strings.TrimSuffix(l, "\n"), " = ")
		if !ok || strings.HasPrefix(k, "#") {
			continue
		}
		for n, s := range slips {
			if (i+n)%each != 0 {
				continue
			}
			spoiled := slices.Clone(lines)
			spoiled[i] = s.make(k, v) + "\n"
			if err := os.WriteFile(path, []byte(strings.Join(spoiled, "")), 0o600); err != nil {
				t.Fatal(err)
			}
			is, err := LoadNetwork(path)
			if err != nil {
				refused++
				if !strings.HasPrefix(err.Error(), path+":") {
					t.Errorf("%q %s: %v", l, s.name, err)
				}
				continue
			}
			taken++
			if is.ID() != was.ID() && k != "name" {
				t.Errorf("%q %s: taken as another network", l, s.name)
			}
			for j, a := range is.Authorities {
				if len(is.Authorities) != len(was.Authorities) || a.ID != was.Authorities[j].ID || a.LinkKey != was.Authorities[j].LinkKey {
					t.Errorf("%q %s: taken with other keys", l, s.name)
				}
			}
		}
	}
	t.Logf("%d files refused, %d taken", refused, taken)
	if refused < 100 {
		t.Error("the test shows little")
	}
}
