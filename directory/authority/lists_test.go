package authority

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
	"peel/directory/strict"
)

// lists writes a file of lists and returns its name.
func writeLists(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestWhomRulesAreAbout(t *testing.T) {
	ids := dirtest.New(1, 5).Relays
	id := func(i int) cell.NodeID { return ids[i].Descriptor.ID }
	relay := func(i int, addrs string, family ...cell.NodeID) *directory.Descriptor {
		d := &directory.Descriptor{ID: id(i), Family: family}
		for a := range strings.SplitSeq(addrs, " ") {
			d.Addrs = append(d.Addrs, netip.MustParseAddrPort(a))
		}
		return d
	}
	a := writeLists(t, filepath.Join(t.TempDir(), "a"), fmt.Sprintf(`
[[reject]]
relay = %q
reason = "one"
by = "alice"
[[reject]] # a range
address = "192.0.2.0/24"
reason = "two"
[[reject]]
address = "2a00:1::/32"
reason = "three"
[[reject]]
address = "198.51.100.7"
reason = "four"
`, id(0)))
	b := writeLists(t, filepath.Join(t.TempDir(), "b"), fmt.Sprintf("[[reject]]\nfamily = %q\nreason = \"five\"\n", id(1)))
	l, err := ReadLists([]string{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if c := l.counts(); c != (ListCounts{Reject: 5}) || !l.lets(new(directory.Descriptor)) {
		t.Errorf("%+v, or only some may join", c)
	}
	for _, c := range []struct {
		d    *directory.Descriptor
		want string
	}{
		{relay(0, "11.0.0.1:1"), "one"},
		{relay(1, "11.0.0.1:1"), "five"},
		{relay(2, "11.0.0.1:1"), ""},
		{relay(2, "11.0.0.1:1", id(3), id(1)), "five"}, // says itself that it is one of them
		{relay(2, "11.0.0.1:1", id(0)), ""},            // what is said of one relay is not said of its family
		{relay(2, "192.0.2.255:1"), "two"},
		{relay(2, "192.0.3.0:1"), ""},
		{relay(2, "11.0.0.1:1 [2a00:1:ffff::1]:1"), "three"},
		{relay(2, "198.51.100.7:1"), "four"},
		{relay(2, "198.51.100.8:1"), ""},
	} {
		got := ""
		if r := l.reject.find(c.d); r != nil {
			got = r.Reason
		}
		if got != c.want {
			t.Errorf("%v at %v of family %v: %q, want %q", c.d.ID, c.d.Addrs, c.d.Family, got, c.want)
		}
	}
	if l, err := ReadLists(nil); err != nil || !l.lets(new(directory.Descriptor)) || l.reject.find(relay(0, "1.1.1.1:1")) != nil {
		t.Errorf("no files: %v", err)
	}
}

func TestMistakesInLists(t *testing.T) {
	id := relayNumberText(t)
	rule := func(list, keys string) string { return "[[" + list + "]]\n" + keys }
	good := rule("reject", "address = \"11.0.0.0/8\"\nreason = \"x\"\n")
	for name, c := range map[string]struct{ text, want string }{
		"no subject":            {good + rule("reject", "reason = \"x\"\n"), ":4: reject: a rule must have one of"},
		"two subjects":          {rule("allow", "relay = \""+id+"\"\naddress = \"1.1.1.1\"\nreason = \"x\"\n"), ":1: allow: a rule must have one of"},
		"no reason":             {good + good + rule("badexit", "\n\nrelay = \""+id+"\"\n"), ":7: badexit.reason: must be 1 to 120"},
		"a long reason":         {rule("badexit", "relay = \""+id+"\"\nreason = \""+strings.Repeat("x", 121)+"\"\n"), ":3: badexit.reason"},
		"an odd reason":         {rule("badexit", "relay = \""+id+"\"\nreason = \"a\\nb\"\n"), ":3: badexit.reason"},
		"no identity":           {rule("middleonly", "family = \"abc\"\nreason = \"x\"\n"), ":2: middleonly.family: "},
		"no address":            {good + rule("reject", "reason = \"x\"\naddress = \"11.0.0\"\n"), ":6: reject.address: \"11.0.0\" is neither"},
		"a range with too much": {rule("reject", "address = \"11.1.0.0/8\"\nreason = \"x\"\n"), "did you mean 11.0.0.0/8?"},
		"a misspelt key":        {good + rule("reject", "adress = \"11.0.0.0/8\"\nreason = \"x\"\n"), ":5: there is no key \"adress\"; did you mean \"address\"?"},
		"a misspelt list":       {rule("rejects", "relay = \""+id+"\"\n"), ":1: there is no key \"rejects\"; did you mean \"reject\"?"},
		"a wrong kind":          {rule("reject", "address = 7\n"), ":2: "},
		"no TOML":               {"[[reject]\n", ":1: "},
		"too many":              {strings.Repeat(good, maxPrefixes+1), fmt.Sprintf(":%d: reject: more than", 3*(maxPrefixes-1)+1)},
	} {
		dir := t.TempDir()
		ok := writeLists(t, filepath.Join(dir, "good.toml"), good)
		bad := writeLists(t, filepath.Join(dir, "bad.toml"), c.text)
		l, err := ReadLists([]string{ok, bad})
		if l != nil || err == nil || !strings.Contains(err.Error(), "bad.toml") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want one that says %q", name, err, c.want)
		}
	}
	if _, err := ReadLists([]string{filepath.Join(t.TempDir(), "missing")}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := ReadLists([]string{t.TempDir()}); err == nil {
		t.Error("a folder is taken for a file")
	}
}

func relayNumberText(t *testing.T) string {
	t.Helper()
	return dirtest.New(1, 1).Relays[0].Descriptor.ID.String()
}

func FuzzLists(f *testing.F) {
	f.Add("[[reject]]\naddress = \"11.0.0.0/8\"\nreason = \"x\"\n")
	f.Add("[[allow]]\nrelay = \"27ltz7pdoytuj3kbevaiuthkershqen6dxn4sjpfktlreacrmkpa\"\nreason = \"x\"\nby = \"y\"\n")
	f.Add("reject = [{address = \"1.1.1.1\", reason = \"x\"}]\n")
	f.Add("[[reject]\n")
	f.Add("[[badexit]]\nfamily = \"27ltz7pdoytuj3kbevaiuthkershqen6dxn4sjpfktlreacrmkpa\"\nreason = \"x\"\n[[middleonly]]\naddress = \"2001:db8::1\"\nreason = \"x\"\n")
	f.Add("[[reject]]\naddress = \"1.1.1.1\"\n[[reject]]\naddress = \"1.1.1.1\"\nreason = \"a\\nb\"\n[[reject]]\nreason = \"x\"\nby = \"\u00e9\"\n")
	for _, address := range []string{"11.1.0.0/8", "::ffff:1.1.1.1", "fe80::1%x", "11.0.0"} {
		f.Add("[[reject]]\naddress = \"" + address + "\"\nreason = \"x\"\n")
	}
	for _, reason := range []string{"", "a\\nb", "\u00e9", strings.Repeat("x", maxReason+1)} {
		f.Add("[[reject]]\naddress = \"1.1.1.1\"\nreason = \"" + reason + "\"\n")
	}
	f.Add("[[reject]]\naddress = \"1.1.1.1\"\nfamily = \"27ltz7pdoytuj3kbevaiuthkershqen6dxn4sjpfktlreacrmkpa\"\nreason = \"x\"\n")
	f.Add(strings.Repeat("[[reject]]\naddress = \"1.1.1.1\"\nreason = \"x\"\n", 3))
	f.Fuzz(func(t *testing.T, text string) {
		l := new(Lists)
		if err := l.parse([]byte(text)); err != nil {
			for _, e := range append([]*strict.Error{err.(*strict.Error)}, err.(*strict.Error).More...) {
				if e.Text == "" || e.Line > 1+strings.Count(text, "\n") {
					t.Errorf("line %d: %q", e.Line, e.Text)
				}
			}
			return
		}
		if c := l.counts(); c.Allow+c.Reject+c.BadExit+c.MiddleOnly > maxRules {
			t.Errorf("%+v", c)
		}
		for _, of := range []*list{&l.allow, &l.reject, &l.badExit, &l.middleOnly} {
			for id, r := range of.relays {
				holdRule(t, r, !id.IsZero() && r.Relay == id && r.Family.IsZero() && !r.Address.IsValid())
			}
			for id, r := range of.families {
				holdRule(t, r, !id.IsZero() && r.Family == id && r.Relay.IsZero() && !r.Address.IsValid())
			}
			for _, r := range of.prefixes {
				holdRule(t, r, r.Address.IsValid() && r.Address == r.Address.Masked() && !r.Address.Addr().Is4In6() && r.Relay.IsZero() && r.Family.IsZero())
			}
		}
	})
}

// holdRule holds what must be true of a rule that was read.
func holdRule(t *testing.T, r *Rule, subject bool) {
	if !subject || r.Reason == "" || len(r.Reason) > maxReason || len(r.By) > maxReason || directory.Said(r.Reason, maxReason) != r.Reason || directory.Said(r.By, maxReason) != r.By {
		t.Errorf("%+v", r)
	}
}

// Lists are loaded while the authority runs: who is rejected is gone and is told why, who is marked has the flag in
// the next consensus, and a file with a mistake changes nothing.
func TestListsAreReloaded(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4, 8)
		var log lockedText
		id := func(i int) cell.NodeID { return w.net.Relays[i].Descriptor.ID }
		file := filepath.Join(dir, "lists.toml")
		writeLists(t, file, "")
		for _, n := range w.nodes {
			n.cfg.Lists = []string{file}
			if n.i == 0 {
				n.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			}
		}
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		w.wantAgreed(hour(1), 4)
		reload := func(text, fails string) {
			t.Helper()
			writeLists(t, file, text)
			for _, n := range w.nodes {
				if err := n.auth.Reload(n.auth.cfg.Lists, nil); fails == "" && err != nil || fails != "" && (err == nil || !strings.Contains(err.Error(), fails)) {
					t.Errorf("reload: %v, want %q", err, fails)
				}
			}
		}
		listed := func(i int) (directory.Flags, bool) {
			e, ok := w.nodes[3].auth.Consensus().Lookup(id(i))
			if !ok {
				return 0, false
			}
			return e.Flags, true
		}
		rules := fmt.Sprintf("[[reject]]\nrelay = %q\nreason = \"forges pages\"\nby = \"alice\"\n[[badexit]]\nrelay = %q\nreason = \"its resolver lies\"\n"+
			"[[middleonly]]\naddress = %q\nreason = \"too many at once\"\n", id(0), id(1), w.net.Relays[2].Descriptor.Addrs[0].Addr())
		reload(rules, "")
		if code, text := w.nodes[0].do("POST", pathDescriptor, w.net.Relays[0].Text); code != 403 || !strings.Contains(text, "forges pages") {
			t.Errorf("the relay is told %d %s", code, text)
		}
		for _, want := range []string{id(0).String(), "forges pages", "alice", id(1).String(), "its resolver lies", "too many at once", "flags=MiddleOnly"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, log.String())
			}
		}
		before := len(log.String())
		for range 100 {
			w.nodes[0].do("POST", pathDescriptor, w.net.Relays[0].Text)
		}
		if after := len(log.String()); after > before+200 {
			t.Errorf("a relay that is refused fills the log with %d bytes", after-before)
		}
		check := func(when string) {
			t.Helper()
			if _, ok := listed(0); ok {
				t.Errorf("%s: who is rejected is listed", when)
			}
			if f, ok := listed(1); !ok || !f.Has(directory.BadExit) {
				t.Errorf("%s: the bad exit: %v, %v", when, f, ok)
			}
			if f, ok := listed(2); !ok || !f.Has(directory.MiddleOnly) || f&(directory.Guard|directory.Exit|directory.HSDir) != 0 {
				t.Errorf("%s: the middle: %v, %v", when, f, ok)
			}
			if f, ok := listed(3); !ok || f&(directory.BadExit|directory.MiddleOnly) != 0 {
				t.Errorf("%s: another: %v, %v", when, f, ok)
			}
		}
		w.wantAgreed(hour(2), 4)
		check("with lists")
		if got := w.nodes[0].auth.Status().Lists; got != (ListCounts{0, 1, 1, 1}) {
			t.Errorf("the status says %+v", got)
		}
		reload("[[reject]]\nrelay = \"nobody\"\nreason = \"x\"\n", "lists.toml:2: reject.relay: ")
		w.wantAgreed(hour(3), 4)
		check("after a mistake")

		// One authority of four decides nothing.
		reload("", "")
		w.publishAll()
		writeLists(t, file, rules)
		if err := w.nodes[0].auth.Reload(w.nodes[0].auth.cfg.Lists, nil); err != nil {
			t.Fatal(err)
		}
		w.wantAgreed(hour(4), 4)
		for i := range 3 {
			if f, ok := listed(i); !ok || f&(directory.BadExit|directory.MiddleOnly) != 0 {
				t.Errorf("one authority alone makes relay %d %v, listed: %v", i, f, ok)
			}
		}

		// A closed network.
		reload(fmt.Sprintf("[[allow]]\nrelay = %q\nreason = \"a member\"\n[[allow]]\naddress = %q\nreason = \"ours\"\n",
			id(4), w.net.Relays[5].Descriptor.Addrs[0].Addr()), "")
		if code, text := w.nodes[0].do("POST", pathDescriptor, w.net.Relays[0].Text); code != 403 || !strings.Contains(text, "not on this network's list") {
			t.Errorf("a stranger is told %d %s", code, text)
		}
		w.wantAgreed(hour(5), 4)
		if c := w.nodes[3].auth.Consensus(); len(c.Entries) != 2 {
			t.Errorf("%d relays in a closed network of two", len(c.Entries))
		}
	})
}

// Loading again and again while relays publish and votes are made does no harm.
func TestReloadingUnderLoad(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1, 20)
		file := filepath.Join(dir, "lists.toml")
		writeLists(t, file, "")
		w.nodes[0].cfg.Lists = []string{file}
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Minute)
				w.nodes[0].do("POST", pathDescriptor, w.net.Relays[i%20].Text)
			})
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Minute)
				if err := w.nodes[0].auth.Reload(w.nodes[0].auth.cfg.Lists, nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		w.wantAgreed(hour(2), 1)
		if n := len(w.nodes[0].auth.Consensus().Entries); n != 20 {
			t.Errorf("%d relays of 20 are listed", n)
		}
	})
}

// lockedText is what a log says.
type lockedText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
