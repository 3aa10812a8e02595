package conf

import (
	"net/netip"
	"strings"
	"testing"

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
		{`exclude = ["relay1"]`, `exclude: path: "relay1" is neither the identity of a relay nor an address`},
		{`exclude = ["{de}"]`, `exclude: path: "{de}" is neither`},
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
