package conf

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func clientFile() Client {
	no := false
	return Client{Network: "/n/network.toml", State: "/n/state", SOCKS: "127.0.0.1:9250", DNS: "127.0.0.1:9253", Log: "info",
		Own: []string{}, Exclude: []string{}, ExcludeExits: []string{}, Countries: []string{}, Listen: []Listen{
			{Address: "127.0.0.1:9251", Group: "a \"b\"", Safe: true, Extended: true},
			{Address: "unix:/n/socket", User: &no, Client: &no, Host: true, Port: true},
		}}
}

func TestListenersAreReadBack(t *testing.T) {
	c := clientFile()
	path := write(t, c.Text())
	var got Client
	if err := Load(path, &got); err != nil {
		t.Fatalf("%v in\n%s", err, c.Text())
	}
	if !reflect.DeepEqual(got, c) {
		t.Errorf("read back\n%+v, wrote\n%+v", got, c)
	}
	if d := got.Doors(); len(d) != 3 || d[0].Address != c.SOCKS || d[0] != (Listen{Address: c.SOCKS}) || d[2].Unix() != "/n/socket" || d[1].Unix() != "" {
		t.Errorf("%+v", d)
	}
	c.Listen[1].Address = "unix:socket"
	path = write(t, c.Text())
	if err := Load(path, &got); err != nil || got.Listen[1].Unix() != filepath.Join(filepath.Dir(path), "socket") {
		t.Errorf("%v, %s", err, got.Listen[1].Address)
	}
}

// The example in the file says what holds when it is left out.
func TestTheExampleIsTheDefault(t *testing.T) {
	c := Client{Network: "/n/network.toml", SOCKS: "127.0.0.1:9250"}
	lines := []string{}
	on := false
	for l := range strings.Lines(c.Text()) {
		if on = on || l == "# [[listen]]\n"; on {
			lines = append(lines, strings.TrimPrefix(l, "# "))
		}
	}
	var got Client
	if err := Load(write(t, c.Text()+strings.Join(lines, "")), &got); err != nil {
		t.Fatal(err)
	}
	yes := true
	if want := []Listen{{Address: "127.0.0.1:9251", User: &yes, Client: &yes}}; !reflect.DeepEqual(got.Listen, want) {
		t.Errorf("%+v", got.Listen)
	}
}

// Each mistake about listeners is told with its line, in the table where it is.
func TestMistakesAboutListeners(t *testing.T) {
	text := func(lines ...string) string {
		return "network = \"/n/network.toml\"\n" + strings.Join(lines, "\n") + "\n" // the first of lines is line 2
	}
	for _, x := range []struct {
		name, text, want string
		line             int
	}{
		{"nothing to listen on", text(`log = "info"`), "socks: must be given where there is neither", 0},
		{"socks", text(`socks = "nonsense"`), `socks: "nonsense" is not an address and a port`, 2},
		{"dns", text(`dns = "53"`), `dns: "53" is not an address and a port`, 2},
		{"no address", text("[[listen]]", "safe_socks = true"), `listen: address: "" is neither`, 2},
		{"address of the second", text("[[listen]]", `address = "127.0.0.1:1"`, "", "[[listen]] # two", `address = "127.0.0.1"`), `listen: address: "127.0.0.1" is neither`, 6},
		{"empty path", text("[[listen]]", `address = "unix:"`), "is neither an address", 3},
		{"twice", text("[[listen]]", `address = "127.0.0.1:1"`, "[[listen]]", `address = "127.0.0.1:1"`), "is given twice", 5},
		{"twice, the short form", text(`socks = "127.0.0.1:1"`, "[[listen]]", `address = "127.0.0.1:1"`), "is given twice", 4},
		{"group", text("[[listen]]", `address = "127.0.0.1:1"`, `group = "`+strings.Repeat("g", 65)+`"`), "listen: group: more than 64 bytes", 4},
		{"unknown", text("[[listen]]", `address = "127.0.0.1:1"`, "isolate_users = true"), `did you mean "isolate_user"?`, 4},
		{"not true or false", text("[[listen]]", `address = "127.0.0.1:1"`, `safe_socks = "yes"`), "must be true or false", 4},
		{"not true or false, again", text("[[listen]]", `address = "127.0.0.1:1"`, `isolate_user = 0`), "must be true or false", 4},
		{"one table, not a list of them", text("[listen]", `address = "127.0.0.1:1"`), "", 2},
		{"too many", text(strings.Repeat("[[listen]]\naddress = \"127.0.0.1:0\"\n", most+1)), "at most 64", 2},
	} {
		path := write(t, x.text)
		err := Load(path, &Client{})
		at := path + ":"
		if x.line > 0 {
			at = fmt.Sprintf("%s:%d: ", path, x.line)
		}
		if err == nil || !strings.HasPrefix(err.Error(), at) || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want line %d and %q", x.name, err, x.line, x.want)
		}
	}
}

// A damaged line is refused, or leaves the listener as safe as it was or as the default is: it opens no port to other machines
// and isolates no less.
func TestDamagedListenersAreNoLessSafe(t *testing.T) {
	c := Client{Network: "/n/network.toml", Listen: []Listen{{Address: "127.0.0.1:9251", Safe: true}}}
	lines := strings.SplitAfter(c.Text(), "\n")
	rng := rand.New(rand.NewPCG(3, 4))
	path := write(t, c.Text())
	loaded := 0
	for i, l := range lines {
		key, _, ok := strings.Cut(l, " = ")
		if !ok || strings.HasPrefix(l, "#") {
			continue
		}
		for _, with := range []string{"", key + " = \n", key + " = \"\"\n", key + " = 7\n", key + " = []\n", key + "\n", key + "x = true\n", key[:len(key)-1] + l[len(key):], l[:rng.IntN(len(l))] + "\n", l + l} {
			text := strings.Join(lines[:i], "") + with + strings.Join(lines[i+1:], "")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var got Client
			if err := Load(path, &got); err != nil {
				if !strings.HasPrefix(err.Error(), path+":") {
					t.Errorf("%q: %v", with, err)
				}
				continue
			}
			loaded++
			for _, d := range got.Doors() {
				if !strings.HasPrefix(d.Address, "127.0.0.1:") || d.User != nil || d.Client != nil || d.Group != "" {
					t.Errorf("%q in place of %q: %+v", with, l, d)
				}
			}
		}
	}
	if loaded == 0 {
		t.Error("no damaged file was accepted: the test shows nothing")
	}
}
