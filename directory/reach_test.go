package directory_test

import (
	"net/netip"
	"strings"
	"testing"

	"peel/directory"
	"peel/directory/dirtest"
)

func reachRequests() (all []directory.ReachRequest) {
	d := dirtest.New(1, 1).Relays[0].Descriptor
	for _, at := range []string{"192.0.2.1:9001", "[2001:db8::1]:65535", "127.0.0.1:1"} {
		all = append(all, directory.ReachRequest{ID: d.ID, LinkKey: d.LinkKey, Addr: netip.MustParseAddrPort(at)})
	}
	return all
}

func TestReachRequest(t *testing.T) {
	for _, q := range reachRequests() {
		text := q.Append(nil)
		got, err := directory.ParseReachRequest(text)
		if err != nil || *got != q {
			t.Errorf("%v became %v, %v", q, got, err)
		}
		for n := range text {
			if _, err := directory.ParseReachRequest(text[:n]); err == nil {
				t.Errorf("the first %d bytes are taken", n)
			}
		}
		if _, err := directory.ParseReachRequest(append(text, '\n')); err == nil {
			t.Error("more than the request is taken")
		}
	}
	good := string((&reachRequests()[0]).Append(nil))
	for _, c := range [][2]string{
		{"peel-reach 1", "peel-reach 2"}, {"192.0.2.1:9001", "192.0.2.1:0"}, {"192.0.2.1:9001", "192.0.2.1:09001"}, {"192.0.2.1", "0.0.0.0"},
		{"192.0.2.1", "[::ffff:192.0.2.1]"}, {"192.0.2.1:9001", "192.0.2.1:9001 [2001:db8::1]:9001"}, {"192.0.2.1", "[fe80::1%eth0]"},
		{"192.0.2.1", "224.0.0.1"}, {"identity ", "identity  "}, {"link-key", "onion-key"}, {"192.0.2.1", "example.net"},
	} {
		bad := strings.Replace(good, c[0], c[1], 1)
		if _, err := directory.ParseReachRequest([]byte(bad)); bad == good || err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestUnreached(t *testing.T) {
	for _, u := range []directory.Unreached{directory.UnreachedRefused, directory.UnreachedSilent, directory.UnreachedNoWay, directory.UnreachedOther} {
		if got, err := directory.ParseUnreached(string(u)); got != u || err != nil {
			t.Errorf("%q became %q, %v", u, got, err)
		}
	}
	for _, s := range []string{"", "Refused", "refused ", "because"} {
		if got, err := directory.ParseUnreached(s); err == nil {
			t.Errorf("%q became %q", s, got)
		}
	}
}

func FuzzReachRequest(f *testing.F) {
	for _, q := range reachRequests() {
		seeds(f, q.Append(nil))
	}
	f.Add([]byte(directory.UnreachedSilent))
	f.Fuzz(func(t *testing.T, text []byte) {
		if q, err := directory.ParseReachRequest(text); err == nil {
			printsBack(t, text, q.Append(nil))
		}
		if u, err := directory.ParseUnreached(string(text)); err == nil && (string(u) != string(text) || u == "") {
			t.Fatalf("%q became %q", text, u)
		}
	})
}
