package directory_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

func TestNetworkFileComesBack(t *testing.T) {
	for _, n := range []int{1, 3, 4, 5, 9} {
		net := dirtest.New(6, 0, dirtest.Authorities(n), dirtest.Schedule(directory.Schedule{
			Period: 4 * time.Second, Voting: 1500 * time.Millisecond, Start: time.Unix(1000, 0),
		})).Network
		text, err := net.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := directory.ParseNetwork(text)
		if err != nil {
			t.Fatalf("%v:\n%s", err, text)
		}
		again, err := got.Encode()
		if err != nil || !bytes.Equal(again, text) || got.ID() != net.ID() || got.Schedule != net.Schedule {
			t.Errorf("%v, came back as\n%s\nwas\n%s", err, again, text)
		}
		if !strings.Contains(string(text), "# Network id: "+net.ID().String()) {
			t.Error("the file does not say the network's id")
		}
	}
}

func TestNetworkFileErrorsSayWhereAndWhat(t *testing.T) {
	good, err := dirtest.New(6, 0).Network.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{"threshold = 4", "treshold = 4", `line 9: there is no key "treshold"; did you mean "threshold"?`},
		{"period =", "peroid =", `there is no key "peroid"; did you mean "period"?`},
		{"voting =", "sign = 1\nvoting =", `there is no key "sign"`},
		{"[schedule]", "[schedul]", `line 11: there is no key "schedul"; did you mean "schedule"?`},
		{"link_key = ", "linkkey = 1\nlink_key = ", `there is no key "linkkey"; did you mean "link_key"?`},
		{"[[authority]]\nnickname = \"authority1\"", "[[authority]]\nnick = 1\nnickname = \"authority1\"", `line 19: there is no key "nick"; did you mean "nickname"?`},
		{"threshold = 4", "threshold = \"4\"", "threshold"},
		{"threshold = 4", "threshold = 4\nthreshold = 4", "line 10"},
		{"threshold = 4", "threshold = ", "line 9"},
		{"threshold = 4", "threshold = 3", "threshold 3 of 5 authorities: with fewer than 4 signatures 1 dishonest of them could give two clients two different directories; set threshold = 4"},
		{"threshold = 4", "threshold = 6", "there are only 5 authorities"},
		{"threshold = 4", "threshold = -1", "threshold -1 of 5 authorities"},
		{`name = "dirtest"`, `name = "dir test"`, "only letters, digits, . and - are allowed"},
		{`name = "dirtest"`, ``, "must have 1 to 64 characters"},
		{`period = "1h0m0s"`, `period = "90"`, `"90" is not a duration`},
		{`period = "1h0m0s"`, `period = "1500ms"`, "must be whole seconds"},
		{`period = "1h0m0s"`, `period = "25h"`, "1s to 24h0m0s"},
		{`voting = "10m0s"`, `voting = "61m"`, "voting 1h1m0s: must be 100ms to the period, 1h0m0s"},
		{`voting = "10m0s"`, `voting = 1.5`, "or a fraction of the period, such as 0.25"},
		{`voting = "10m0s"`, `voting = 600`, "or a fraction of the period, such as 0.25"},
		{`nickname = "authority2"`, `nickname = "authority1"`, "authority 2 (authority1): an authority of this nickname stands before it"},
		{`addresses = ["192.0.2.2:9001"]`, `addresses = ["192.0.2.1:9001"]`, "authority1 has the address 192.0.2.1:9001 as well"},
		{`addresses = ["192.0.2.2:9001"]`, `addresses = ["example.net:9001"]`, "is not an address and a port"},
		{`addresses = ["192.0.2.2:9001"]`, `addresses = []`, "authority 2 (authority2): 0 addresses"},
		{`identity = "`, `identity = "a`, "identity: cell: node id"},
		{`link_key = "`, `link_key = "a`, "link_key: cell: key"},
	} {
		text := strings.Replace(string(good), c.old, c.new, 1)
		if text == string(good) {
			t.Fatalf("%q is not in\n%s", c.old, good)
		}
		if _, err := directory.ParseNetwork([]byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q:\n\t%v\nwant\n\t%s", c.new, c.old, err, c.want)
		}
	}
	if _, err := directory.ParseNetwork(make([]byte, directory.MaxNetworkFile+1)); err == nil {
		t.Error("a file above the limit was taken")
	}
	if _, err := directory.ParseNetwork(nil); err == nil {
		t.Error("an empty file was taken")
	}
}

func TestScheduleMayBeLeftOutOrSaidInFractions(t *testing.T) {
	good, err := dirtest.New(6, 0).Network.Encode()
	if err != nil {
		t.Fatal(err)
	}
	i, j := bytes.Index(good, []byte("[schedule]")), bytes.Index(good, []byte("[[authority]]"))
	for s, want := range map[string]directory.Schedule{
		"":                            {Start: time.Unix(0, 0).UTC(), Period: time.Hour, Voting: 10 * time.Minute},
		"[schedule]\nperiod = \"8s\"": {Start: time.Unix(0, 0).UTC(), Period: 8 * time.Second, Voting: 4 * time.Second},
		"[schedule]\nvoting = 0.25":   {Start: time.Unix(0, 0).UTC(), Period: time.Hour, Voting: 15 * time.Minute},
		"[schedule]\nstart = 2026-01-01T01:00:00+01:00":   {Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Period: time.Hour, Voting: 10 * time.Minute},
		"[schedule]\nperiod = \"2m\"\nvoting = \"20s\"\n": {Start: time.Unix(0, 0).UTC(), Period: 2 * time.Minute, Voting: 20 * time.Second},
	} {
		n, err := directory.ParseNetwork(fmt.Appendf(nil, "%s%s\n%s", good[:i], s, good[j:]))
		if err != nil || n.Schedule != want {
			t.Errorf("%q: %+v, %v", s, n, err)
		}
	}
	for _, start := range []string{"2026-01-01T01:00:00", "2026-01-01", "01:00:00", "7"} { // of this machine's zone, which others need not have
		_, err := directory.ParseNetwork(fmt.Appendf(nil, "%s[schedule]\nstart = %s\n\n%s", good[:i], start, good[j:]))
		if err == nil || !strings.Contains(err.Error(), "must be a time of UTC") {
			t.Errorf("start = %s: %v", start, err)
		}
	}
}

func TestThresholdOfEachSize(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 2, 3: 3, 4: 3, 5: 4, 6: 4, 7: 5, 8: 6, 9: 6, 10: 7} {
		if got := directory.MinThreshold(n); got != want {
			t.Errorf("%d authorities: %d, want %d", n, got, want)
		}
		// Two sets of signers share an honest one, and the honest ones suffice.
		if f := directory.Faults(n); 2*want-n <= f || n-f < want && n >= 4 {
			t.Errorf("%d authorities: threshold %d does not bear %d faults", n, want, f)
		}
	}
}

func TestNetworkIDDependsOnWhoHowManyAndName(t *testing.T) {
	n := dirtest.New(6, 0).Network
	id := n.ID()
	same := *n
	same.Authorities = append([]directory.AuthorityInfo(nil), n.Authorities...)
	same.Authorities[0], same.Authorities[4] = same.Authorities[4], same.Authorities[0]
	same.Authorities[2].Nickname, same.Authorities[2].LinkKey = "other", cell.Key{1}
	same.Period = time.Minute
	if same.ID() != id {
		t.Error("the order, a nickname, a link key or the period changed the id")
	}
	for what, change := range map[string]func(n *directory.Network){
		"name":      func(n *directory.Network) { n.Name = "x" },
		"threshold": func(n *directory.Network) { n.Threshold = 5 },
		"identity": func(n *directory.Network) {
			n.Authorities = append([]directory.AuthorityInfo{{ID: cell.NodeID{1}}}, n.Authorities[1:]...)
		},
		"number": func(n *directory.Network) { n.Authorities = n.Authorities[1:] },
	} {
		other := *n
		change(&other)
		if other.ID() == id {
			t.Errorf("the %s does not change the id", what)
		}
	}
}

func TestNetworkFindsAuthorities(t *testing.T) {
	n := dirtest.New(6, 0).Network
	if a, ok := n.Authority(n.Authorities[3].ID); !ok || a.Nickname != "authority4" {
		t.Error(a, ok)
	}
	if _, ok := n.Authority(cell.NodeID{1}); ok {
		t.Error("found a stranger")
	}
}

func TestFlagsHaveOneSpelling(t *testing.T) {
	for s, want := range map[string]directory.Flags{
		"": 0, "Running": directory.Running, "Exit Fast Guard": directory.Exit | directory.Fast | directory.Guard,
		"BadExit Exit Fast Guard HSDir MiddleOnly Running Stable Valid": directory.AllFlags,
	} {
		if f, err := directory.ParseFlags(s); f != want || err != nil || f.String() != s {
			t.Errorf("%q: %v, %v", s, f, err)
		}
	}
	for _, s := range []string{" ", "running", "Fast Exit", "Fast Fast", "Fast  Guard", "Fast ", "Wise"} {
		if f, err := directory.ParseFlags(s); err == nil {
			t.Errorf("%q was taken as %v", s, f)
		}
	}
	if l := (directory.Fast | directory.Valid).List(); len(l) != 2 || l[0] != directory.Fast || l[1] != directory.Valid {
		t.Error(l)
	}
	if !directory.AllFlags.Has(directory.Guard|directory.Exit) || directory.Guard.Has(directory.Guard|directory.Exit) {
		t.Error("Has asks for all")
	}
}

func TestParamsStayWithinTheirBounds(t *testing.T) {
	k := directory.ParamRelaysPerAddr
	for v, want := range map[int32]int32{-5: 1, 1: 1, 100: 100, 1024: 1024, 1 << 30: 1024} {
		if got := (directory.Params{k.Name: v}).Get(k); got != want {
			t.Errorf("%d counts as %d", v, got)
		}
	}
	if got := directory.Params(nil).Get(k); got != 2 {
		t.Errorf("the default is %d", got)
	}
	last := ""
	for _, k := range directory.KnownParams {
		if k.Name <= last || k.Default < k.Min || k.Default > k.Max {
			t.Errorf("%+v after %q", k, last)
		}
		if err := (directory.Params{k.Name: k.Max + 1}).Check(); err == nil || !strings.Contains(err.Error(), k.Name) {
			t.Errorf("%s above its bound: %v", k.Name, err)
		}
		if err := (directory.Params{k.Name: k.Default}).Check(); err != nil {
			t.Error(err)
		}
		last = k.Name
	}
	for _, name := range []string{"", "A", "1a", "a b", "a_b", strings.Repeat("a", 41)} {
		if err := (directory.Params{name: 1}).Check(); err == nil {
			t.Errorf("the name %q was taken", name)
		}
	}
}
