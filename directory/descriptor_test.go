package directory_test

import (
	"bytes"
	"crypto/ed25519"
	"net/netip"
	"strings"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

func addrs(s ...string) []netip.AddrPort {
	var l []netip.AddrPort
	for _, a := range s {
		l = append(l, netip.MustParseAddrPort(a))
	}
	return l
}

func TestDescriptorsComeBackAsTheyWereSigned(t *testing.T) {
	r := dirtest.New(5, 3).Relays[0]
	family := directory.SortFamily([]cell.NodeID{{9}, {2}, {200}, {9}})
	many := make(directory.Policy, directory.MaxRules)
	for i := range many {
		many[i] = directory.Rule{Accept: true, Lo: 1, Hi: uint16(i + 2)}
	}
	for name, change := range map[string]func(d *directory.Descriptor){
		"as it is":      func(*directory.Descriptor) {},
		"IPv6 alone":    func(d *directory.Descriptor) { d.Addrs = addrs("[2001:db8::1]:443") },
		"both families": func(d *directory.Descriptor) { d.Addrs = addrs("192.0.2.1:1", "[2001:db8::1]:65535") },
		"a contact":     func(d *directory.Descriptor) { d.Contact = strings.Repeat("x y", 85) + "!" },
		"a family":      func(d *directory.Descriptor) { d.Family = family },
		"no bandwidth":  func(d *directory.Descriptor) { d.Bandwidth, d.Observed = 0, 0 },
		"all bandwidth": func(d *directory.Descriptor) { d.Bandwidth = directory.MaxBandwidth },
		"overloaded":    func(d *directory.Descriptor) { d.Overloaded = d.Published.Truncate(time.Hour) },
		"paused":        func(d *directory.Descriptor) { d.Paused = d.Published.Add(time.Hour) },
		"both":          func(d *directory.Descriptor) { d.Overloaded, d.Paused = time.Unix(0, 0).UTC(), time.Unix(1, 0).UTC() },
		"no exit":       func(d *directory.Descriptor) { d.Policy = nil },
		"all rules":     func(d *directory.Descriptor) { d.Policy = many },
		"another zone":  func(d *directory.Descriptor) { d.Published = d.Published.In(time.FixedZone("x", 3600)) },
	} {
		d := r.Descriptor
		change(&d)
		text, err := d.Sign(r.Identity)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := directory.ParseDescriptor(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(got.Append(nil), text) || got.Signature != d.Signature || !got.Published.Equal(d.Published) {
			t.Errorf("%s: came back as\n%s", name, got.Append(nil))
		}
	}
}

func TestDescriptorsThatOthersWouldRefuseAreNotSigned(t *testing.T) {
	r := dirtest.New(5, 3).Relays[0]
	id := r.Descriptor.ID
	for name, change := range map[string]func(d *directory.Descriptor){
		"no network":          func(d *directory.Descriptor) { d.Network = cell.NetworkID{} },
		"no nickname":         func(d *directory.Descriptor) { d.Nickname = "" },
		"a long nickname":     func(d *directory.Descriptor) { d.Nickname = strings.Repeat("x", 20) },
		"a foreign nickname":  func(d *directory.Descriptor) { d.Nickname = "é" },
		"half a second":       func(d *directory.Descriptor) { d.Published = d.Published.Add(1) },
		"no time":             func(d *directory.Descriptor) { d.Published = time.Time{} },
		"no link key":         func(d *directory.Descriptor) { d.LinkKey = cell.Key{} },
		"no onion key":        func(d *directory.Descriptor) { d.OnionKey = cell.Key{} },
		"one key for both":    func(d *directory.Descriptor) { d.OnionKey = d.LinkKey },
		"no address":          func(d *directory.Descriptor) { d.Addrs = nil },
		"port 0":              func(d *directory.Descriptor) { d.Addrs = addrs("192.0.2.1:0") },
		"two of IPv4":         func(d *directory.Descriptor) { d.Addrs = addrs("192.0.2.1:1", "192.0.2.2:1") },
		"IPv6 first":          func(d *directory.Descriptor) { d.Addrs = addrs("[2001:db8::1]:1", "192.0.2.2:1") },
		"a zone":              func(d *directory.Descriptor) { d.Addrs = addrs("[fe80::1%eth0]:1") },
		"multicast":           func(d *directory.Descriptor) { d.Addrs = addrs("224.0.0.1:1") },
		"mapped":              func(d *directory.Descriptor) { d.Addrs = addrs("[::ffff:192.0.2.1]:1") },
		"half an hour":        func(d *directory.Descriptor) { d.Overloaded = time.Unix(1800, 0).UTC() },
		"before 1970":         func(d *directory.Descriptor) { d.Overloaded = time.Unix(-3600, 0).UTC() },
		"no version":          func(d *directory.Descriptor) { d.Version = "" },
		"a line in a contact": func(d *directory.Descriptor) { d.Contact = "a\nsignature b" },
		"a space at its end":  func(d *directory.Descriptor) { d.Contact = "a " },
		"a long contact":      func(d *directory.Descriptor) { d.Contact = strings.Repeat("x", 257) },
		"itself a family":     func(d *directory.Descriptor) { d.Family = []cell.NodeID{id} },
		"a family unsorted":   func(d *directory.Descriptor) { d.Family = []cell.NodeID{{2}, {1}} },
		"a family too large":  func(d *directory.Descriptor) { d.Family = make([]cell.NodeID, 33) },
		"too much bandwidth":  func(d *directory.Descriptor) { d.Observed = directory.MaxBandwidth + 1 },
		"too many rules":      func(d *directory.Descriptor) { d.Policy = make(directory.Policy, 65) },
		"a rule for port 0":   func(d *directory.Descriptor) { d.Policy = directory.Policy{{Accept: true, Lo: 0, Hi: 5}} },
	} {
		d := r.Descriptor
		change(&d)
		if _, err := d.Sign(r.Identity); err == nil {
			t.Errorf("%s: was signed", name)
		}
		text := resign("peel descriptor v1\n", d.Append(nil), r.Identity)
		if _, err := directory.ParseDescriptor(text); err == nil && !bytes.Equal(text, r.Text) {
			t.Errorf("%s: was taken:\n%s", name, text)
		}
	}
	d := r.Descriptor
	if _, err := d.Sign(r.Identity[:32]); err == nil {
		t.Error("signed with half a key")
	}
}

func TestAdvertisedIsTheLesser(t *testing.T) {
	d := directory.Descriptor{Bandwidth: 5, Observed: 7}
	if d.Advertised() != 5 {
		t.Error(d.Advertised())
	}
	d.Observed = 3
	if d.Advertised() != 3 {
		t.Error(d.Advertised())
	}
}

// A descriptor may be signed by a key that the relay's identity certified, and by no other.
func TestDescriptorsOfCertifiedKeys(t *testing.T) {
	r := dirtest.New(5, 3).Relays[0]
	text, c, key := certifiedDescriptor(r)
	d, err := directory.ParseDescriptor(text)
	if err != nil || d.ID != r.Descriptor.ID || d.Certificate == nil || *d.Certificate != c || !bytes.Equal(d.Append(nil), text) {
		t.Fatalf("%v: %+v", err, d)
	}
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger := dirtest.New(5, 3).Relays[1]
	again := func(change func(c *directory.Certificate), by ed25519.PrivateKey) *directory.Certificate {
		next := c
		change(&next)
		next, err := next.Certify(by)
		if err != nil {
			t.Fatal(err)
		}
		return &next
	}
	day := 24 * time.Hour
	for name, x := range map[string]struct {
		cert *directory.Certificate
		key  ed25519.PrivateKey
	}{
		"signed by the identity all the same": {&c, r.Identity},
		"signed by another key":               {&c, other},
		"certified by another relay":          {again(func(*directory.Certificate) {}, stranger.Identity), key},
		"of another network":                  {again(func(c *directory.Certificate) { c.Network[0]++ }, r.Identity), key},
		"an authority's certificate":          {again(func(c *directory.Certificate) { c.Relay = false }, r.Identity), key},
		"ended before it was published":       {again(func(c *directory.Certificate) { c.NotAfter = d.Published.Add(-time.Second) }, r.Identity), key},
		"begins after it was published": {again(func(c *directory.Certificate) {
			c.NotBefore, c.NotAfter = d.Published.Add(time.Second), d.Published.Add(day)
		}, r.Identity), key},
	} {
		bad := *d
		bad.Certificate = x.cert
		text := resign("peel descriptor v1\n", bad.Append(nil), x.key)
		if _, err := directory.ParseDescriptor(text); err == nil {
			t.Errorf("%s: was taken", name)
		}
		if _, err := bad.SignBy(*x.cert, x.key); err == nil && bad.ID == d.ID { // else it was signed as the other relay's
			t.Errorf("%s: was signed", name)
		}
	}
	bad := *d
	bad.Certificate = new(directory.Certificate)
	*bad.Certificate = c
	bad.Certificate.Signature[3] ^= 1
	if _, err := directory.ParseDescriptor(resign("peel descriptor v1\n", bad.Append(nil), key)); err == nil {
		t.Error("a certificate that nobody signed was taken")
	}
	long := directory.Certificate{Relay: true, Network: c.Network, SigningKey: c.SigningKey, NotBefore: d.Published, NotAfter: d.Published.Add(30*day + time.Second)}
	if _, err := long.Certify(r.Identity); err == nil {
		t.Error("a relay's key was certified for more than 30 days")
	}
	// One kind is not read as the other.
	if _, err := directory.ParseCertificate(c.Append(nil)); err == nil {
		t.Error("a relay's certificate was read as an authority's")
	}
	a := again(func(c *directory.Certificate) { c.Relay = false }, r.Identity)
	if _, err := directory.ParseRelayCertificate(a.Append(nil)); err == nil {
		t.Error("an authority's certificate was read as a relay's")
	}
	if *a == c {
		t.Error("they are the same")
	}
}
