package conf

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Listen is a table [[listen]] of client.toml: one port or unix socket for applications, and what holds there.
type Listen struct {
	Address  string `toml:"address"`
	User     *bool  `toml:"isolate_user"`   // nil: true
	Client   *bool  `toml:"isolate_client"` // nil: true
	Host     bool   `toml:"isolate_host"`
	Port     bool   `toml:"isolate_port"`
	Group    string `toml:"group"`
	Safe     bool   `toml:"safe_socks"`
	Extended bool   `toml:"extended_errors"`
	Early    bool   `toml:"early_answer"`
}

// Unix is the path of a unix socket; "": the address is another.
func (l *Listen) Unix() string {
	path, _ := strings.CutPrefix(l.Address, unixPrefix)
	if path == l.Address {
		return ""
	}
	return path
}

const unixPrefix = "unix:"

// most is how many listeners a client may have.
const most = 64

// Doors are all listeners for applications: that of the key socks, if it is given, and those of the tables.
func (c *Client) Doors() []Listen {
	if c.SOCKS == "" {
		return c.Listen
	}
	return append([]Listen{{Address: c.SOCKS}}, c.Listen...)
}

// checkDoors says which keys about listeners have values that cannot be, and why.
func (c *Client) checkDoors(m *mistakes) {
	if c.SOCKS != "" && listens([]string{c.SOCKS}) != nil {
		m.at("socks", fmt.Errorf("%q is not an address and a port, such as 127.0.0.1:9250", c.SOCKS))
	}
	if c.DNS != "" && listens([]string{c.DNS}) != nil {
		m.at("dns", fmt.Errorf("%q is not an address and a port, such as 127.0.0.1:9253", c.DNS))
	}
	if c.SOCKS == "" && c.DNS == "" && len(c.Listen) == 0 {
		m.at("socks", errors.New("must be given where there is neither a table [[listen]] nor dns: nothing could use this client"), "listen", "dns")
	}
	if len(c.Listen) > most {
		m.at("listen", fmt.Errorf("%d tables, at most %d are allowed", len(c.Listen), most))
		return
	}
	seen := map[string]bool{}
	for i, l := range c.Doors() {
		if c.SOCKS != "" {
			i-- // the first is that of the key socks
		}
		if i >= 0 {
			l.check(m, fmt.Sprintf("listen[%d].", i))
		}
		if seen[l.Address] && !strings.HasSuffix(l.Address, ":0") {
			m.at(fmt.Sprintf("listen[%d].address", i), fmt.Errorf("%q is given twice", l.Address))
		}
		seen[l.Address] = true
	}
}

func (l *Listen) check(m *mistakes, table string) {
	if path := l.Unix(); path == "" && listens([]string{l.Address}) != nil {
		m.at(table+"address", fmt.Errorf("%q is neither an address and a port, such as 127.0.0.1:9250, nor a unix socket, such as unix:/run/peel/socks", l.Address))
	}
	if len(l.Group) > 64 {
		m.at(table+"group", errors.New("more than 64 bytes"))
	}
}

// anchor makes the paths of sockets relative to the file's folder.
func (c *Client) anchor(dir string) {
	for i, name := range c.Countries {
		if !filepath.IsAbs(name) {
			c.Countries[i] = filepath.Join(dir, name)
		}
	}
	for i := range c.Listen {
		l := &c.Listen[i]
		if path := l.Unix(); path != "" && !filepath.IsAbs(path) {
			l.Address = unixPrefix + filepath.Join(dir, path)
		}
	}
}

// tables writes the listeners that are tables; without any, an example.
func (c *Client) tables(b *text) {
	b.explain([]string{
		"More ports, each with rules of its own. All of it but the address may be left out; this is what holds then:",
		"",
		"[[listen]]",
		`address = "127.0.0.1:9251"   # or "unix:socket": a path, relative to this file, that only you can use`,
		"isolate_user = true          # requests of different user or password never share a circuit",
		"isolate_client = true        # nor do those of different client addresses",
		"isolate_host = false         # true: nor those for different hosts",
		"isolate_port = false         # true: nor those for different ports",
		`group = ""                   # ports of one group count as one; "": as one of its own`,
		"safe_socks = false           # true: refuse programs that look names up themselves, outside the network",
		"extended_errors = false      # true: tell programs that know them more about failures (codes F0 to F7)",
		"early_answer = false         # true: say that they are connected before they are: sooner by one way there and back, but none learns why it failed",
	})
	for _, l := range c.Listen {
		b.line("\n[[listen]]")
		fmt.Fprintf(b, "address = %s\n", quote(l.Address))
		for _, f := range []struct {
			key   string
			value *bool
		}{{"isolate_user", l.User}, {"isolate_client", l.Client}} {
			if f.value != nil {
				fmt.Fprintf(b, "%s = %t\n", f.key, *f.value)
			}
		}
		fmt.Fprintf(b, "isolate_host = %t\nisolate_port = %t\ngroup = %s\nsafe_socks = %t\nextended_errors = %t\nearly_answer = %t\n",
			l.Host, l.Port, quote(l.Group), l.Safe, l.Extended, l.Early)
	}
}
