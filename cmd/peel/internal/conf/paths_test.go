package conf

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peel/directory"
	"peel/directory/dirtest"
)

// What a client excludes is read as it is meant, or refused with file, line and reason.
func TestExclusions(t *testing.T) {
	id := dirtest.New(1, 3).Relays[0].Descriptor.ID
	for _, x := range []struct{ lines, want string }{
		{``, ""},
		{`exclude = ["` + id.String() + `", "192.0.2.7", "192.0.2.0/24", "2001:db8::/32"]`, ""},
		{`own_relays = ["` + id.String() + `"]`, ""},
		{"exclude = [\"192.0.2.0/24\"]\nexclude_lenient = true", ""},
		{`exclude = ["relay1"]`, `exclude: "relay1" is neither the identity of a relay nor an address`},
		{`exclude = ["{de}"]`, `exclude: a country is excluded, and countries names no list`},
		{`exclude_exits = ["{de}"]`, `countries names no list`},
		{`exclude = ["{Germany}"]`, `exclude: "{Germany}" is no country`},
		{`countries = ["none"]` + "\nexclude = [\"{de}\"]", `none: no such file`},
		{`exclude = ["192.0.2.1/24"]`, `did you mean 192.0.2.0/24?`},
		{`exclude = ["192.0.2.0/33"]`, `exclude: `},
		{`exclude = ["::ffff:192.0.2.1"]`, `exclude: `},
		{`exclude = ["fe80::1%eth0"]`, `exclude: `},
		{`exclude = [""]`, `exclude: `},
		{`exclude = "192.0.2.1"`, `exclude: must be a list`},
		{`exclude_exits = ["x"]`, `exclude_exits: `},
		{`own_relays = ["192.0.2.1"]`, `own_relays: `},
		{`exclude_lenient = true`, `exclude_lenient: true, but nothing is excluded`},
		{`exclude_lenient = "no"`, `exclude_lenient: must be true or false`},
		{`exclude_exit = []`, `did you mean "exclude_exits"?`},
	} {
		var c Client
		path := write(t, "network = \"n\"\nsocks = \"127.0.0.1:1\"\n"+x.lines+"\n")
		err := Load(path, &c)
		switch {
		case x.want == "" && err != nil:
			t.Errorf("%s: %v", x.lines, err)
		case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want) || !strings.HasPrefix(err.Error(), path+":3:")):
			t.Errorf("%s: %v, want %s", x.lines, err, x.want)
		}
	}
	c := Client{Exclude: []string{id.String(), "192.0.2.7", "2001:db8::/32"}}
	r, err := c.Rules()
	if err != nil || len(r.Exclude.IDs) != 1 || r.Exclude.IDs[0] != id || len(r.Exclude.Nets) != 2 || r.Exclude.Nets[0] != netip.MustParsePrefix("192.0.2.7/32") || r.Lenient {
		t.Errorf("%+v %v", r, err)
	}
}

// The lists of countries lie beside the file, and a wrong one is an error with its name and line.
func TestExcludedCountries(t *testing.T) {
	path := write(t, "network = \"n\"\nsocks = \"127.0.0.1:1\"\nexclude = [\"{DE}\"]\nexclude_exits = [\"{??}\"]\ncountries = [\"four\", \"six\"]\n")
	list := func(name, text string) {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list("four", "# of our own\n3221225984,3221226239,DE\n203.0.113.0,203.0.113.255,fr\n")
	list("six", "2001:db8::,2001:db8:ffff:ffff:ffff:ffff:ffff:ffff,de\n")
	var c Client
	if err := Load(path, &c); err != nil {
		t.Fatal(err)
	}
	r, err := c.Rules()
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string][2]bool{ // excluded; excluded as an exit
		"192.0.2.0": {true, false}, "192.0.2.255": {true, false}, "192.0.3.0": {false, true}, "203.0.113.9": {false, false},
		"2001:db8::1": {true, false}, "2001:db9::": {false, true},
	} {
		e := &directory.Entry{Addrs: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(addr), 1)}}
		if got := [2]bool{r.Exclude.Has(e), r.Exits.Has(e)}; got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	for _, x := range []struct{ text, want string }{
		{"", `six: it has no line FIRST,LAST,CODE`},
		{"# nothing\n", `six: it has no line`},
		{"1,2,DE\n1,2\n", `six: line 2: "1,2" is not FIRST,LAST,CODE`},
		{"2,1,DE\n", `six: line 1: 0.0.0.2 to 0.0.0.1 is no range`},
		{"1,::2,DE\n", `is no range`},
		{"x,1,DE\n", `line 1: "x" is no address`},
		{"::ffff:1.2.3.4,::ffff:1.2.3.5,DE\n", `is no address`},
		{"1,2,Germany\n", `is not FIRST,LAST,CODE`},
		{strings.Repeat("1", 4096), `six: line 1: `},
	} {
		list("six", x.text)
		if err := Load(path, &c); err == nil || !strings.Contains(err.Error(), x.want) || !strings.HasPrefix(err.Error(), path+":5: countries: ") {
			t.Errorf("%.20q: %v, want %s", x.text, err, x.want)
		}
	}
}
