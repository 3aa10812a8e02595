package exit

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"peel/cell"
)

// machine is a resolver of a machine with such a hosts file, whose DNS servers know every name.
func machine(t *testing.T, text string) (s system, change func(text string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hosts")
	now := time.Now()
	change = func(text string) {
		now = now.Add(hostsFresh)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
	}
	change(text)
	return system{
		dns: &liar{answers: [][]netip.Addr{addrs("1.1.1.1")}, names: []string{"one.example."}},
		own: &hosts{path: path, now: func() time.Time { return now }},
	}, change
}

const someHosts = `
127.0.0.1	localhost
192.168.7.1 nas.home Printer  # 8.8.4.4 not.this
8.8.8.8 public.example.
::ffff:9.9.9.9 mapped.example
`

func TestTheHostsFileIsNotShown(t *testing.T) {
	r, change := machine(t, someHosts)
	d := newDialer(t, Config{Policy: policy(t, "accept *:80", "reject *:*"), Resolver: r})
	resolve := func(kind cell.ResolveKind, name string) cell.Resolved {
		return d.Resolve(t.Context(), cell.Resolve{Kind: kind, Name: name})
	}
	for _, name := range []string{"nas.home", "NAS.home.", "printer", "public.example", "mapped.example", "localhost"} {
		if got := resolve(cell.ResolveAny, name); got.Reason != cell.EndNotFound {
			t.Errorf("RESOLVE %s: %v", name, got)
		}
		wantRefusal(t, d, name, 80, cell.EndNotFound)
	}
	for _, addr := range []string{"8.8.8.8", "9.9.9.9"} {
		if got := resolve(cell.ResolvePTR, addr); got.Reason != cell.EndNotFound {
			t.Errorf("names of %s: %v", addr, got)
		}
	}
	for _, name := range []string{"example.com", "not.this"} {
		if got := resolve(cell.ResolveAny, name); got.Reason != 0 {
			t.Errorf("RESOLVE %s: %v", name, got)
		}
	}
	if got := resolve(cell.ResolvePTR, "8.8.4.4"); got.Reason != 0 || got.Answers[0].Name != "one.example" {
		t.Errorf("names of 8.8.4.4: %v", got)
	}
	change("1.2.3.4 example.com\n")
	if got := resolve(cell.ResolveAny, "example.com"); got.Reason != cell.EndNotFound {
		t.Errorf("a name that was added: %v", got)
	}
	if got := resolve(cell.ResolveAny, "nas.home"); got.Reason != 0 {
		t.Errorf("a name that was taken out: %v", got)
	}
}

func TestAHostsFileThatIsNotThereHasNoEntries(t *testing.T) {
	h := &hosts{path: filepath.Join(t.TempDir(), "none"), now: time.Now}
	if h.has("localhost") || h.has("") {
		t.Error("it has")
	}
}

// noDNS is a resolver of Go's whose servers cannot be reached: it answers from the hosts file alone.
var noDNS = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("offline")
}}

// What Go's resolver takes from this machine's file is what a Dialer without a resolver of its own leaves out.
func TestThisMachinesHostsFileIsNotShown(t *testing.T) {
	d := newDialer(t, Config{Policy: policy(t, "accept 127.0.0.0/8:*")})
	s, ok := d.resolver.(system)
	if !ok {
		t.Fatalf("names are looked up by %T", d.resolver)
	}
	s.dns = noDNS
	d.resolver = s
	self, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	reason := cell.EndResolveFailed // a machine whose file does not name itself: then nobody answers
	if s.own.has(self) {
		reason = cell.EndNotFound
	}
	if _, err := parseHost(self); err != nil { // a name that is refused before any file is asked
		reason = cell.EndNotFound
	}
	wantRefusal(t, d, self, 80, reason)
	wantRefusal(t, d, "no-such-name.example", 80, cell.EndResolveFailed)
}
