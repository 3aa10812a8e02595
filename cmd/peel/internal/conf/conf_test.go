package conf

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"peel/directory"
)

func write(t testing.TB, text string) string {
	path := filepath.Join(t.TempDir(), "node.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func relayFile() Relay {
	return Relay{
		Network: "/n/network.toml", Keys: "/n/keys", State: "/n/state", Nickname: "relay1", Contact: "a \"b\" <c\\d>",
		Listen: []string{"127.0.0.1:9001", "[::1]:9001"}, Advertise: []string{"192.0.2.1:9001"}, Bandwidth: "20 MB/s", Memory: "2 GiB",
		Exit: []string{"accept *:80", "accept *:443"}, Resolvers: []string{"192.0.2.53", "[2001:db8::53]:5353"}, Notice: "/n/notice.html", NoticeAt: []string{"127.0.0.1:8080"}, Family: []string{}, Log: "info",
	}
}

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	r := relayFile()
	a := Authority{Network: "/n/network.toml", Keys: "/n/keys", State: "", Listen: []string{"127.0.0.1:9001"}, Log: "warn",
		Allow: []string{}, Lists: []string{"/n/lists.toml"}, Private: true, Params: directory.Params{"distinct-subnets": 0}}
	c := Client{Network: "/n/network.toml", State: "/n/state", SOCKS: "127.0.0.1:0", Own: []string{}, Exclude: []string{"192.0.2.0/24", "2001:db8::1"},
		ExcludeExits: []string{}, Countries: []string{}, Lenient: true, NoRacing: true, Memory: "200 MB", Log: "debug"}
	var r2 Relay
	var a2 Authority
	var c2 Client
	for _, x := range []struct {
		text     string
		in, want file
	}{{r.Text(), &r2, &r}, {a.Text(), &a2, &a}, {c.Text(), &c2, &c}} {
		if err := Load(write(t, x.text), x.in); err != nil {
			t.Fatalf("%v in\n%s", err, x.text)
		}
		if !reflect.DeepEqual(x.in, x.want) {
			t.Errorf("read back\n%+v, wrote\n%+v", x.in, x.want)
		}
	}
}

func TestPathsAreRelativeToTheFile(t *testing.T) {
	r := relayFile()
	r.Network, r.Keys, r.State = "../network.toml", "keys", ""
	path := write(t, r.Text())
	var got Relay
	if err := Load(path, &got); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	if got.Network != filepath.Join(dir, "..", "network.toml") || got.Keys != filepath.Join(dir, "keys") || got.State != "" {
		t.Errorf("%+v", got)
	}
}

// Each mistake is told with file, line and reason.
func TestMistakes(t *testing.T) {
	good := relayFile()
	for _, c := range []struct{ name, from, to, want string }{
		{"unknown key", "nickname", "nickname_", `there is no key "nickname_"; did you mean "nickname"?`},
		{"nickname", `"relay1"`, `"relay 1"`, "nickname: "},
		{"no port", `"127.0.0.1:9001"`, `"127.0.0.1"`, "listen: "},
		{"port too large", `"127.0.0.1:9001"`, `"127.0.0.1:99001"`, "listen: "},
		{"nothing to listen on", `listen = ["127.0.0.1:9001", "[::1]:9001"]`, `listen = []`, "listen: must name at least one"},
		{"advertised name", `"192.0.2.1:9001"`, `"example.com:9001"`, "advertise: "},
		{"bandwidth without unit", `"20 MB/s"`, `"20"`, "bandwidth: "},
		{"bandwidth negative", `"20 MB/s"`, `"-20 MB/s"`, "bandwidth: "},
		{"bandwidth not a number", `"20 MB/s"`, `"NaN MB/s"`, "bandwidth: "},
		{"bandwidth a number", `"20 MB/s"`, `20`, "bandwidth: must be a text in quotes, but is a whole number"},
		{"memory without unit", `"2 GiB"`, `"2"`, "memory_budget: "},
		{"memory of too little", `"2 GiB"`, `"63 MiB"`, "memory_budget: "},
		{"memory beyond measure", `"2 GiB"`, `"1e9 GiB"`, "memory_budget: "},
		{"memory not a number", `"2 GiB"`, `"NaN GiB"`, "memory_budget: "},
		{"policy", `"accept *:80"`, `"acept *:80"`, "exit_policy: "},
		{"policy port 0", `"accept *:80"`, `"accept *:0"`, "exit_policy: "},
		{"policy inverted", `"accept *:80"`, `"accept *:80-20"`, "exit_policy: "},
		{"resolver by name", `"192.0.2.53"`, `"dns.example"`, "resolvers: "},
		{"resolver without brackets", `"[2001:db8::53]:5353"`, `"2001:db8::53:5353:1:2:3:4:5"`, "resolvers: "},
		{"notice of no exit", `exit_policy = ["accept *:80", "accept *:443"]`, `exit_policy = []`, "exit_notice: "},
		{"notice without a page", `"/n/notice.html"`, `""`, "exit_notice_listen: there is no exit_notice"},
		{"notice without a port", `"127.0.0.1:8080"`, `"127.0.0.1"`, "exit_notice_listen: "},
		{"family", `family = []`, `family = ["me"]`, "family: "},
		{"log", `"info"`, `"loud"`, "log: "},
		{"network missing", `network = "/n/network.toml"`, ``, "network: must be given"},
		{"keys empty", `keys = "/n/keys"`, `keys = ""`, "keys: must be given"},
		{"no TOML", `log = "info"`, `log = "info`, ""},
	} {
		text := good.Text()
		i := strings.LastIndex(text, c.from) // comments have examples of the same words before
		if i < 0 {
			t.Fatalf("%s: the case changes nothing", c.name)
		}
		text = text[:i] + c.to + text[i+len(c.from):]
		path := write(t, text)
		var got Relay
		err := Load(path, &got)
		if err == nil || !strings.HasPrefix(err.Error(), path+":") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := Load(filepath.Join(t.TempDir(), "none.toml"), &Relay{}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	if err := Load(t.TempDir(), &Relay{}); err == nil || !strings.Contains(err.Error(), "this is a folder: name a file in it") {
		t.Error(err)
	}
}

// A damaged file is refused, or says what it said before, or what the default is: it never opens an exit.
func TestDamagedFilesNeverOpenAnExit(t *testing.T) {
	good := relayFile()
	good.Exit, good.Notice, good.NoticeAt = nil, "", nil
	text := good.Text()
	rng := rand.New(rand.NewPCG(1, 2))
	path := write(t, text)
	loaded, rounds := 0, 300
	if os.Getenv("PEEL_SLOW") != "" {
		rounds = 1000
	}
	for range rounds {
		b := []byte(text)
		for range 1 + rng.IntN(3) {
			switch i := rng.IntN(len(b)); rng.IntN(3) {
			case 0:
				b[i] = byte(rng.IntN(256))
			case 1:
				b = append(b[:i], b[i+1:]...)
			case 2:
				j := min(len(b), i+rng.IntN(40))
				b = append(b[:i:i], b[j:]...)
			}
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var got Relay
		if Load(path, &got) != nil {
			continue
		}
		loaded++
		if p, err := got.Policy(); err != nil || len(p) != 0 {
			t.Fatalf("an exit policy %v out of\n%s", p, b)
		}
	}
	if loaded == 0 {
		t.Fatal("no damaged file was accepted: the test shows nothing")
	}
}

func FuzzLoad(f *testing.F) {
	r := relayFile()
	f.Add(r.Text())
	for _, change := range []func(r *Relay){
		func(r *Relay) { r.Exit, r.Notice, r.NoticeAt = nil, "", nil },
		func(r *Relay) { r.Network = "" },
		func(r *Relay) { r.Keys = "" },
		func(r *Relay) { r.Listen = nil },
		func(r *Relay) { r.Listen, r.Advertise = []string{":9001"}, nil },
		func(r *Relay) { r.Listen, r.Advertise = []string{"127.0.0.1:0", "name:1"}, nil },
		func(r *Relay) { r.Bandwidth, r.Burst, r.Quota, r.Period = "1 MB/s", "2 MB", "1.5 TiB", "day" },
		func(r *Relay) { r.Bandwidth = "1 MB" },
		func(r *Relay) { r.Memory = "1 MiB" },
		func(r *Relay) { r.Exit = []string{"accept *:80,443,6660-6669", "reject *:*", "accept 10.0.0.0/8:*"} },
		func(r *Relay) { r.Resolvers = []string{"dns.example"} },
		func(r *Relay) { r.Notice = UsualNotice },
		func(r *Relay) { r.Family = []string{"relay2"} },
		func(r *Relay) { r.Nickname, r.Contact, r.Log = "re-lay", "a\nb", "loud" },
		func(r *Relay) { r.Admin, r.State = "unix:admin", "" },
	} {
		r := relayFile()
		change(&r)
		f.Add(r.Text())
	}
	f.Add(strings.Replace(r.Text(), `"/n/keys"`, `"k\u0001\u007f\u00e9\"\\"`, 1))
	for _, s := range []string{"network = 1", "[relay]\nx = 1", "socks = \"127.0.0.1:9050\"\n", "[[authority]]\nnickname = \"a\"\n", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var got Relay
		if load("/n/node.toml", []byte(text), &got) != nil {
			return
		}
		if got.Network == "" || got.Keys == "" || len(got.Listen) == 0 {
			t.Fatal("accepted without what is required")
		}
		_, addrs := got.Addrs()
		_, told := got.Told()
		_, rate := got.Rate()
		_, burst := got.AtOnce()
		_, _, quota := got.Allowance()
		_, size := Size(got.Memory, LeastRelayMemory)
		policy, exit := got.Policy()
		_, servers := got.Servers()
		_, family := got.Relatives()
		if err := errors.Join(addrs, told, rate, burst, quota, size, exit, policy.Check(), servers, family); err != nil {
			t.Fatalf("accepted, and then: %v", err)
		}
		var again Relay
		if err := load("/n/node.toml", []byte(got.Text()), &again); err != nil || again.Text() != got.Text() {
			t.Fatalf("%v: written and read again, it is\n%s\nwas\n%s", err, again.Text(), got.Text())
		}
	})
}

func TestSizesInMemory(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "64 MiB": 64 << 20, "2GiB": 2 << 30, "0.5 GiB": 512 << 20, "200 MB": 200e6, "3 GB": 3e9} {
		if got, err := Size(text, 64<<20); got != want || err != nil {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"64", "64 KiB", "-1 GiB", "Inf GiB", "GiB", " ", "1 GiB 2"} {
		if got, err := Size(text, 64<<20); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// What an error says is the most is taken, and a little more is not.
func TestTheMostIsSaidWithItsUnit(t *testing.T) {
	for _, c := range []struct {
		parse      func(string) error
		most, over string
	}{
		{func(s string) error { _, err := Size(s, LeastRelayMemory); return err }, "16384 GiB", "16385 GiB"},
		{func(s string) error { _, err := ParseRate(s); return err }, "1099 GB/s", "1100 GB/s"},
		{func(s string) error { _, err := (&Relay{Burst: s}).AtOnce(); return err }, "16 TiB", "16.1 TiB"},
		{func(s string) error { _, _, err := (&Relay{Quota: s}).Allowance(); return err }, "1000000 TB", "1000001 TB"},
	} {
		if err := c.parse(c.most); err != nil {
			t.Error(err)
		}
		if err := c.parse(c.over); err == nil || !strings.Contains(err.Error(), "at most "+c.most+",") {
			t.Errorf("%s: %v, which does not say %s", c.over, err, c.most)
		}
	}
}

// A rate or a size that is not written as it should be is refused with what may have been meant.
func TestUnitsThatAreMeant(t *testing.T) {
	quota := func(s string) error { _, _, err := (&Relay{Quota: s}).Allowance(); return err }
	rate := func(s string) error { _, err := ParseRate(s); return err }
	burst := func(s string) error { _, err := (&Relay{Burst: s}).AtOnce(); return err }
	for _, c := range []struct {
		parse      func(string) error
		text, says string // "": it is taken; otherwise, what is meant
	}{
		{rate, "20 MB/s", ""}, {rate, "20MB/s", ""}, {rate, "0.5 GB/s", ""}, {rate, "100 Mbit/s", ""}, {rate, "64 kB/s", ""},
		{rate, "20 MB", "20 MB/s"}, {rate, "20 mb/s", "20 Mbit/s"}, {rate, "100 mbps", "100 Mbit/s"}, {rate, "20 MBps", "20 MB/s"},
		{rate, "20M", "20 MB/s"}, {rate, "100 MBIT/S", "none"}, {rate, "1 gbit", "1 Gbit/s"}, {rate, "20", "none"}, {rate, "1e400 MB/s", "none"},
		{rate, "nan MB/s", "none"}, {rate, "0x10 MB/s", "none"}, {rate, "1_0 MB/s", "none"}, {rate, "-1 MB/s", "none"}, {rate, "1 B/s", "none"}, {rate, "fast", "none"},
		{quota, "500 GB", ""}, {quota, "2 TiB", ""}, {quota, "1.5 TB", ""}, {quota, "500 gb", "500 GB"}, {quota, "500G", "500 GB"},
		{quota, "500 GB/s", "500 GB"}, {quota, "1 MB", "none"}, {quota, "500", "none"}, {quota, "inf GB", "none"}, {quota, "2 tib", "2 TiB"},
		{burst, "40 MB", ""}, {burst, "64 kB", ""}, {burst, "1 kB", "none"}, {burst, "40 MB/s", "40 MB"},
	} {
		err := c.parse(c.text)
		switch {
		case c.says == "" && err != nil, c.says != "" && err == nil:
			t.Errorf("%q: %v", c.text, err)
		case c.says == "none" && strings.Contains(err.Error(), "did you mean"):
			t.Errorf("%q: %v", c.text, err)
		case c.says != "" && c.says != "none" && !strings.HasSuffix(err.Error(), fmt.Sprintf("did you mean %q?", c.says)):
			t.Errorf("%q: %v; want %q to be meant", c.text, err, c.says)
		}
	}
}

func TestWhatARelaySendsIsChecked(t *testing.T) {
	for _, c := range []struct {
		r    Relay
		key  string
		says string
	}{
		{Relay{}, "", ""},
		{Relay{Bandwidth: "1 MB/s", Burst: "2 MB", Quota: "1 GB", Period: "day", State: "state"}, "", ""},
		{Relay{Burst: "2 MB"}, "burst", "no bandwidth"},
		{Relay{Quota: "1 GB"}, "quota", "state folder"},
		{Relay{Quota: "1 GB", State: "s", Period: "week"}, "quota_period", "neither month nor day"},
	} {
		var m mistakes
		if c.r.checkTraffic(&m); c.key == "" && len(m) > 0 || c.key != "" && (len(m) != 1 || m[0].key != c.key || !strings.Contains(m[0].err.Error(), c.says)) {
			t.Errorf("%+v: %v", c.r, m)
		}
	}
}

func TestAMistakeInAListIsToldWithTheLineOfItsEntry(t *testing.T) {
	good := relayFile()
	text, after, _ := strings.Cut(good.Text(), `exit_policy = ["accept *:80", "accept *:443"]`)
	line := strings.Count(text, "\n") + 1
	for rule, want := range map[string]string{
		`"accept *:0,80"`: "there is no port 0", `'accept *:443-80'`: "the wrong way round", `"accept [::1:80"`: "is no IPv4 address",
	} {
		path := write(t, text+"exit_policy = [\n  # "+rule+"\n  \"reject 192.0.2.1:*\",\n  \"accept *:80,443\", "+rule+",\n]"+after)
		var got Relay
		if err := Load(path, &got); err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("%s:%d: exit_policy: ", path, line+3)) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want line %d and %q", rule, err, line+3, want)
		}
	}
}

func TestWhereANoticeIsShown(t *testing.T) {
	r := relayFile()
	if got := r.NoticeListen(); !slices.Equal(got, []string{"127.0.0.1:8080"}) {
		t.Error(got)
	}
	r.NoticeAt, r.Listen = nil, []string{"0.0.0.0:9001", "0.0.0.0:443", "[::1]:9001"}
	if got := r.NoticeListen(); !slices.Equal(got, []string{"0.0.0.0:80", "[::1]:80"}) {
		t.Error(got)
	}
	for notice, want := range map[string]func(dir string) string{
		UsualNotice: func(string) string { return UsualNotice },
		"page.html": func(dir string) string { return filepath.Join(dir, "page.html") },
	} {
		r.Notice = notice
		path := write(t, r.Text())
		var got Relay
		if err := Load(path, &got); err != nil || got.Notice != want(filepath.Dir(path)) {
			t.Errorf("%s: %q, %v", notice, got.Notice, err)
		}
	}
}

// An error says what is wrong, and not which of our packages said it to which.
func TestErrorsAreToldInPlainWords(t *testing.T) {
	for was, want := range map[string]string{
		"cons: directory: consensus, line 1: no":                  "cons: consensus, line 1: no",
		"n.toml: directory: network: threshold 9":                 "n.toml: threshold 9",
		"authority 1 (a): identity: cell: node id: want 52":       "authority 1 (a): identity: want 52",
		"--signing-key: cell: key: want 43":                       "--signing-key: want 43",
		"stat nocons: no such file or directory":                  "nocons: no such file or directory",
		"countries: open /x/none: no such file":                   "countries: /x/none: no such file",
		"relay.toml:5: admin: needs a state folder":               "relay.toml:5: admin: needs a state folder",
		"link.key: no such file or directory: get it back":        "link.key: no such file or directory: get it back",
		"keys: key file: stat keys/link.key: denied":              "keys: key file: keys/link.key: denied",
		"a port: open to all: whoever reaches it uses it":         "a port: open to all: whoever reaches it uses it",
		"one: no\nopen two: no":                                   "one: no\ntwo: no",
		"a superdirectory: is no word of ours, nor is subcell: x": "a superdirectory: is no word of ours, nor is subcell: x",
	} {
		if got := Plain(errors.New(was)); got != want {
			t.Errorf("%q: %q, want %q", was, got, want)
		}
	}
}

// A file of any kind of node that is no TOML is told its mistakes as that kind, and not those that another would have in it.
func TestAStateFolderInABrokenFile(t *testing.T) {
	for text, want := range map[string]string{
		"network = \"n.toml\"\nfoo bar\nsocks = \"127.0.0.1:1\"\nno_racing = true\n": ":2: this is neither key = value",
		"network = \"n.toml\"\nnickname = \"a\"\ncontact = \"b\"\nfoo bar":           ":4: this is neither key = value",
		"foo bar\n": ":1: this is neither key = value",
	} {
		path := write(t, text)
		_, err := StateOf(path)
		var e *Error
		if !errors.As(err, &e) || len(e.More()) > 0 || !strings.HasPrefix(err.Error(), path+want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
