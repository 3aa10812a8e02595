package cell_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"peel/cell"
)

func unhex32(s string) [32]byte { return [32]byte(unhex(s)) }

// The public keys of the first test of RFC 8032 and of the first of RFC 7748, section 6.1; the rest was computed with
// Python's base64 and hashlib.
var (
	someNode    = cell.NodeID(unhex32("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
	someKey     = cell.Key(unhex32("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"))
	someNetwork = cell.NetworkID(unhex32("00*30 abcd"))
)

func TestIDsPrintAsTheyParse(t *testing.T) {
	if got, want := someNode.String(), "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena"; got != want {
		t.Errorf("node id %s, want %s", got, want)
	}
	if got, want := someKey.String(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo"; got != want {
		t.Errorf("key %s, want %s", got, want)
	}
	if got, want := someKey.ID().String(), "cbc57db03d8e40b2"; got != want {
		t.Errorf("key id %s, want %s", got, want)
	}
	if got, want := someNetwork.String(), strings.Repeat("00", 30)+"abcd"; got != want {
		t.Errorf("network id %s, want %s", got, want)
	}
	if id, err := cell.ParseNodeID(someNode.String()); err != nil || id != someNode {
		t.Errorf("node id: %v, %v", id, err)
	}
	if k, err := cell.ParseKey(someKey.String()); err != nil || k != someKey {
		t.Errorf("key: %v, %v", k, err)
	}
	if id, err := cell.ParseNetworkID(someNetwork.String()); err != nil || id != someNetwork {
		t.Errorf("network id: %v, %v", id, err)
	}
}

func TestIDsHaveOneSpelling(t *testing.T) {
	node, key, network := someNode.String(), someKey.String(), someNetwork.String()
	for _, tc := range []struct {
		name  string
		parse func(string) error
		bad   []string
	}{
		{"node id", func(s string) error { _, err := cell.ParseNodeID(s); return err }, []string{
			"", node[1:], node + "a", strings.ToUpper(node), node + "====", node[:51] + "b", // b: bits beyond the key
			node[:10] + "\n" + node[10:], node[:10] + " " + node[11:], node[:10] + "1" + node[11:], "ä" + node[2:],
		}},
		{"key", func(s string) error { _, err := cell.ParseKey(s); return err }, []string{
			"", key[1:], key + "A", key + "=", key[:42] + "p", key[:10] + "\n" + key[10:],
			strings.ReplaceAll(key, "/", "_"), key[:10] + " " + key[11:],
		}},
		{"network id", func(s string) error { _, err := cell.ParseNetworkID(s); return err }, []string{
			"", network[1:], network[2:], network + "00", strings.ToUpper(network), network[:63] + "g", network[:62] + " a",
		}},
	} {
		for _, s := range tc.bad {
			expect(t, tc.name, tc.parse(s), tc.name)
		}
	}
}

func TestIDsAsText(t *testing.T) {
	var id cell.NodeID
	var key cell.Key
	var network cell.NetworkID
	if !id.IsZero() || !key.IsZero() || !network.IsZero() {
		t.Error("the zero values are not zero")
	}
	for _, tc := range []struct {
		from encoding.TextMarshaler
		to   encoding.TextUnmarshaler
	}{{someNode, &id}, {someKey, &key}, {someNetwork, &network}} {
		text, err := tc.from.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := tc.to.UnmarshalText(text); err != nil {
			t.Error(err)
		}
		if err := tc.to.UnmarshalText(text[1:]); err == nil {
			t.Errorf("%q was read", text[1:])
		}
		if err := tc.to.UnmarshalText(text); err != nil {
			t.Error(err)
		}
	}
	if id != someNode || key != someKey || network != someNetwork || id.IsZero() || key.IsZero() || network.IsZero() {
		t.Error(id, key, network)
	}
}

// The eight points of small order in their canonical encodings.
var weak = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
}

func TestNodeIDIsASoundKey(t *testing.T) {
	if err := someNode.Check(); err != nil {
		t.Error(err)
	}
	for i := range 50 {
		pub := ed25519.NewKeyFromSeed(fill(byte(i), 32)).Public().(ed25519.PublicKey)
		if err := cell.NodeID(pub).Check(); err != nil {
			t.Error(err)
		}
	}
	for _, s := range weak {
		expect(t, s, cell.NodeID(unhex32(s)).Check(), "weak key")
	}
	for want, encodings := range map[string][]string{
		"not a public key": {"02 00*31", "07 00*31", "11 00*31", "02 00*30 80"}, // no x for these y
		"not in canonical form": {
			"ed ff*30 7f", "ee ff*30 7f", "ee ff*31", // weak ones, with y + p
			"f0 ff*30 7f", "f1 ff*30 7f", "f2 ff*31", "ff*31 7f", // sound ones, with y + p
			"01 00*30 80", "ec ff*31", // x = 0 with a sign
		},
	} {
		for _, s := range encodings {
			expect(t, s, cell.NodeID(unhex32(s)).Check(), want)
		}
	}
}

// Why Check is there: anybody signs anything for such a key.
func TestWeakIdentityVerifiesForgedSignatures(t *testing.T) {
	id := cell.NodeID(unhex32(weak[0]))
	forged := append(bytes.Clone(id[:]), make([]byte, 32)...) // R = the neutral point, S = 0
	if !ed25519.Verify(id[:], []byte("I am whoever you like"), forged) {
		t.Fatal("not forged")
	}
	if id.Check() == nil {
		t.Error("the key was accepted")
	}
}

func TestLinkSpecIsChecked(t *testing.T) {
	addrs := func(s ...string) (a []netip.AddrPort) {
		for _, s := range s {
			a = append(a, netip.MustParseAddrPort(s))
		}
		return a
	}
	for _, good := range [][]netip.AddrPort{addrs("192.0.2.1:1"), addrs("[::1]:1"), addrs("192.0.2.1:1", "[::1]:65535")} {
		if err := (cell.LinkSpec{ID: someNode, Addrs: good}).Check(); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, tc := range []struct {
		addrs []netip.AddrPort
		want  string
	}{
		{nil, "0 addresses"},
		{addrs("192.0.2.1:1", "[::1]:1", "192.0.2.2:1"), "3 addresses"},
		{addrs("192.0.2.1:0"), "port 0"},
		{addrs("[::1]:1", "192.0.2.1:1"), "one IPv4, then one IPv6"},
		{addrs("192.0.2.1:1", "192.0.2.2:1"), "one IPv4, then one IPv6"},
		{addrs("[::1]:1", "[::2]:1"), "one IPv4, then one IPv6"},
		{addrs("[fe80::1%eth0]:1"), "zone"},
		{addrs("[::ffff:192.0.2.1]:1"), "IPv4 address as IPv6"},
		{[]netip.AddrPort{{}}, "no address"},
	} {
		expect(t, tc.want, cell.LinkSpec{ID: someNode, Addrs: tc.addrs}.Check(), tc.want)
	}
	expect(t, "nobody", cell.LinkSpec{Addrs: addrs("192.0.2.1:1")}.Check(), "no node id")
}

func FuzzIDs(f *testing.F) {
	for _, s := range []string{someNode.String(), someKey.String(), someNetwork.String(), hex.EncodeToString(someKey[:])} {
		f.Add(s)
		f.Add(strings.ToUpper(s))
		f.Add(s[:len(s)-1])
		f.Add(s[:len(s)-1] + "z") // bits that say nothing
		f.Add(s + "=")
		f.Add(s[:8] + "\n" + s[8:])
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := cell.ParseNodeID(s); err == nil && id.String() != s {
			t.Errorf("node id %q prints as %q", s, id)
		}
		if k, err := cell.ParseKey(s); err == nil && k.String() != s {
			t.Errorf("key %q prints as %q", s, k)
		}
		if id, err := cell.ParseNetworkID(s); err == nil && id.String() != s {
			t.Errorf("network id %q prints as %q", s, id)
		}
	})
}
