package directory_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

// A document of each kind, signed as it must be, with how it is parsed, verified and printed back.
type document struct {
	name  string
	text  []byte
	limit int
	parse func([]byte) (again []byte, err error)
	mend  func([]byte) []byte // signs a changed text anew, or makes its root fit; may be nil
}

// certifiedDescriptor is a relay's descriptor, signed by a key that its identity certified.
func certifiedDescriptor(r dirtest.Relay) (text []byte, c directory.Certificate, key ed25519.PrivateKey) {
	key = ed25519.NewKeyFromSeed([]byte("the signing key of one relay ..."))
	d := r.Descriptor
	c, err := directory.Certificate{
		Relay: true, Network: d.Network, SigningKey: directory.SigningKey(key.Public().(ed25519.PublicKey)),
		NotBefore: d.Published.Add(-24 * time.Hour), NotAfter: d.Published.Add(29 * 24 * time.Hour),
	}.Certify(r.Identity)
	if err == nil {
		text, err = d.SignBy(c, key)
	}
	if err != nil {
		panic(err)
	}
	return text, c, key
}

// reads parses a document, checks it and prints it again.
func reads[D interface{ Append([]byte) []byte }](parse func([]byte) (D, error), checks ...func(D) error) func([]byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		d, err := parse(b)
		for _, check := range checks {
			if err == nil {
				err = check(d)
			}
		}
		if err != nil {
			return nil, err
		}
		return d.Append(nil), nil
	}
}

// documents makes one of each, small, with one authority so that every signature matters.
func documents() []document {
	n := dirtest.New(3, 2, dirtest.Authorities(1), dirtest.Params(directory.Params{"distinct-subnets": 0, "new-thing": -1}),
		dirtest.Relays(func(i int, d *directory.Descriptor) {
			if i == 0 {
				d.Contact = "operator <op at example.net>"
				d.Family = append(d.Family, dirtest.New(4, 1).Relays[0].Descriptor.ID)
			}
		}))
	r := n.Relays[0]
	for _, other := range n.Relays {
		if len(other.Descriptor.Family) > 0 {
			r = other
		}
	}
	_, vote := n.Vote(0)
	now := n.Consensus.ValidAfter
	signs := func(context string, key ed25519.PrivateKey) func([]byte) []byte {
		return func(text []byte) []byte { return resign(context, text, key) }
	}
	_, later := n.Churn(5, n.Consensus, 0.5)
	diff, err := directory.MakeDiff(n.Text, later)
	if err != nil {
		panic(err)
	}
	tree, err := directory.NewTree(n.Consensus)
	if err != nil {
		panic(err)
	}
	ids := []cell.NodeID{n.Consensus.Entries[0].ID, n.Consensus.Entries[1].ID}
	proof, err := tree.Prove(ids...)
	if err != nil {
		panic(err)
	}
	certified, cert, signing := certifiedDescriptor(r)
	return []document{
		{"descriptor", r.Text, directory.MaxDescriptor, reads(directory.ParseDescriptor), signs("peel descriptor v1\n", r.Identity)},
		{"certified descriptor", certified, directory.MaxDescriptor, reads(directory.ParseDescriptor), signs("peel descriptor v1\n", signing)},
		{"relay certificate", cert.Append(nil), directory.MaxCertificate, reads(directory.ParseRelayCertificate), signs("peel relay certificate v1\n", r.Identity)},
		{"certificate", n.Authorities[0].Certificate.Append(nil), directory.MaxCertificate, reads(directory.ParseCertificate), signs("peel certificate v1\n", n.Authorities[0].Identity)},
		{"vote", vote, directory.MaxVote, reads(directory.ParseVote), signs("peel vote v1\n", n.Authorities[0].Signing)},
		{"unsigned descriptor", r.Text, directory.MaxDescriptor, reads(directory.ParseDescriptorUnsigned), nil},
		{"unsigned certificate", n.Authorities[0].Certificate.Append(nil), directory.MaxCertificate, reads(directory.ParseCertificateUnsigned), nil},
		{"unsigned vote", vote, directory.MaxVote, reads(directory.ParseVoteUnsigned), nil},
		{"consensus header", n.Consensus.SignedHeader.Append(nil), directory.MaxHeader, reads(directory.ParseSignedHeader, func(h *directory.SignedHeader) error { return h.Verify(n.Network, now) }), nil},
		{"consensus", n.Text, directory.MaxConsensus, reads(directory.ParseConsensus, func(c *directory.Consensus) error { return c.Verify(n.Network, now) }), nil},
		{"unsigned consensus", n.Text, directory.MaxConsensus, reads(directory.ParseConsensus), reroot},
		{"diff", diff, directory.MaxConsensus, reads(directory.ParseDiff, func(d *directory.Diff) error {
			c, err := d.Apply(n.Consensus)
			if err == nil {
				err = c.Verify(n.Network, c.ValidAfter)
			}
			return err
		}), nil},
		{"unchecked diff", diff, directory.MaxConsensus, reads(directory.ParseDiff), func(b []byte) []byte { return b }},
		{"proof", proof.Append(nil), directory.MaxProof, reads(directory.ParseProof, func(p *directory.Proof) error {
			err := p.Verify(&n.Consensus.Header)
			for _, id := range ids {
				if err == nil {
					_, err = p.Lookup(&n.Consensus.Header, id)
				}
			}
			return err
		}), nil},
		{"unchecked proof", proof.Append(nil), directory.MaxProof, reads(directory.ParseProof), func(b []byte) []byte { return b }},
	}
}

func TestDocumentsPrintBackAsTheyWere(t *testing.T) {
	for _, d := range documents() {
		again, err := d.parse(d.text)
		if err != nil {
			t.Fatalf("%s: %v", d.name, err)
		}
		if !bytes.Equal(again, d.text) {
			t.Errorf("%s: printed back as\n%s\nwas\n%s", d.name, again, d.text)
		}
	}
}

func TestEveryTruncationIsRefused(t *testing.T) {
	for _, d := range documents() {
		if strings.HasPrefix(d.name, "un") { // not all is checked
			continue
		}
		for i := range d.text {
			if _, err := d.parse(d.text[:i]); err == nil {
				t.Errorf("%s: cut off after %d of %d bytes was taken", d.name, i, len(d.text))
			}
		}
	}
}

func TestEveryChangedByteIsRefused(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, d := range documents() {
		if strings.HasPrefix(d.name, "un") { // not all is checked
			continue
		}
		for i := range d.text {
			b := bytes.Clone(d.text)
			b[i] ^= byte(1 + rng.IntN(255))
			if i%2 == 0 {
				b[i] = d.text[i] ^ 0x20 // the other case, for a letter
			}
			if _, err := d.parse(b); err == nil {
				t.Errorf("%s: byte %d changed from %q to %q was taken", d.name, i, d.text[i], b[i])
			}
		}
	}
}

func TestLinesMovedDoubledOrLeftOutAreRefused(t *testing.T) {
	for _, d := range documents() {
		if strings.HasPrefix(d.name, "un") { // not all is checked
			continue
		}
		lines := strings.SplitAfter(string(d.text), "\n")
		lines = lines[:len(lines)-1]
		for i := range lines {
			without := strings.Join(lines[:i], "") + strings.Join(lines[i+1:], "")
			twice := strings.Join(lines[:i+1], "") + strings.Join(lines[i:], "")
			for what, text := range map[string]string{"left out": without, "doubled": twice} {
				if _, err := d.parse([]byte(text)); err == nil && text != string(d.text) {
					t.Errorf("%s: line %d %s was taken: %s", d.name, i+1, what, lines[i])
				}
			}
			if i > 0 && lines[i] != lines[i-1] {
				moved := strings.Join(lines[:i-1], "") + lines[i] + lines[i-1] + strings.Join(lines[i+1:], "")
				if _, err := d.parse([]byte(moved)); err == nil {
					t.Errorf("%s: lines %d and %d changed places and it was taken", d.name, i, i+1)
				}
			}
		}
	}
}

func TestErrorsNameTheLineAndWhatIsWrong(t *testing.T) {
	d := documents()[0]
	text := string(d.text)
	for _, c := range []struct{ old, new, want string }{
		{"peel-descriptor 1", "peel-descriptor 2", `line 1: format version "2" of peel-descriptor, but only 1 is known`},
		{"peel-descriptor 1", "peel-vote 1", `line 1: "peel-vote" stands where "peel-descriptor" must`},
		{"\nnickname ", "\nnickname  ", "line 4: has a space at its front or two in a row"},
		{"\nnickname ", "\n nickname ", "line 4: has a space at its front or two in a row"},
		{"\nversion 0.1.0\n", "\nversion 0.1.0 \n", "is empty or ends in a space"},
		{"\nversion 0.1.0\n", "\nversion 0.1.0\n\n", "is empty or ends in a space"},
		{"\nversion 0.1.0\n", "\nversion 0.1.0\r\n", "has byte 0x0d: only printable ASCII and single spaces are allowed"},
		{"\nversion 0.1.0\n", "\nversion\t0.1.0\n", "has byte 0x09"},
		{"\nversion 0.1.0\n", "\nversion 0.1.0é\n", "has byte 0xc3"},
		{"\nversion 0.1.0\n", "\nversion 0.1,0\n", `version "0.1,0": only letters, digits and .+_- are allowed`},
		{"\nversion 0.1.0\n", "\nversion " + strings.Repeat("x", 3000) + "\n", "longer than 2048 bytes"},
		{"\nnickname relay", "\nnickname re-lay", "only the letters A-Z, a-z and the digits 0-9 are allowed"},
		{"\nnickname relay", "\nnickname abcdefghijklmnopqrst", "must have 1 to 19 letters or digits"},
		{"\npublished 2026", "\npublished 26", "must be written as 2006-01-02T15:04:05Z"},
		{":00Z\nlink-key", ":00.5Z\nlink-key", "must be written as 2006-01-02T15:04:05Z"},
		{":00Z\nlink-key", ":00+01:00\nlink-key", "must be written as 2006-01-02T15:04:05Z"},
		{"\nobserved ", "\nobserved 0", "is not a whole number"},
		{"\nobserved ", "\nobserved +", "is not a whole number"},
		{"\nobserved ", "\nobserved 99999", "is above the limit of 1099511627776"},
		{"\naddresses 11.0.0.1:9001", "\naddresses 11.0.0.01:9001", "not an address and a port"},
		{"\naddresses ", "\naddresses [::ffff:1.2.3.4]:1 ", "an IPv4 address must be written as one"},
		{"\naddresses ", "\naddresses [2001:db8::1]:1 ", "two addresses must be one IPv4 and then one IPv6 address"},
		{"\naddresses ", "\naddresses 1.2.3.4:1 1.2.3.5:2 ", `3 values of "addresses", but at most 2 are allowed`},
		{"\naddresses ", "\naddresses 0.0.0.0:1 ", "nobody can be reached there"},
		{"accept *:443", "accept *:0443", "is not a whole number"},
		{"accept *:443", "accept *:443-443", "must be written as *:443"},
	} {
		changed := strings.Replace(text, c.old, c.new, 1)
		if changed == text {
			t.Fatalf("%q is not in\n%s", c.old, text)
		}
		_, err := d.parse([]byte(changed))
		var p *directory.ParseError
		if err == nil || !errors.As(err, &p) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for %q:\n\t%v\nwant\n\t%s", c.new, c.old, err, c.want)
		}
	}
}

func TestLongListsAndLinesAreRefusedCheaply(t *testing.T) {
	for _, d := range documents() {
		first, _, _ := bytes.Cut(d.text, []byte("\n"))
		head, tail, _ := bytes.Cut(d.text, []byte("\nrelays 2\n"))
		lists := map[string][]byte{
			"a million empty lines":     bytes.Repeat([]byte("\n"), 1e6),
			"a million lines":           bytes.Repeat([]byte("accept *:80\n"), 1e6),
			"a million lines after one": append(append(bytes.Clone(first), '\n'), bytes.Repeat([]byte("x y\n"), 1e6)...),
			"a million-byte line":       bytes.Repeat([]byte("x"), 1e6),
			"a million words":           append(bytes.Clone(first), bytes.Repeat([]byte(" 1"), 1e6)...),
			"one byte too many":         make([]byte, d.limit+1),
			"a count of what is not":    append(append(bytes.Clone(head), "\nrelays 65535\n"...), tail...),
			"a million rules":           bytes.Replace(d.text, []byte("accept *:80\n"), bytes.Repeat([]byte("accept *:80\n"), 1e6), 1),
			"a million families":        bytes.Replace(d.text, []byte("\nfamily "), []byte("\nfamily"+strings.Repeat(" x", 1e6)+" "), 1),
			"a million parameters":      bytes.Replace(d.text, []byte("param new-thing"), bytes.Repeat([]byte("param new-thing 1\n"), 1e6), 1),
		}
		for name, text := range lists {
			if bytes.Equal(text, d.text) || d.name == "unchecked diff" && name == "a count of what is not" {
				continue // this kind has no such lines, or does not count them
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := d.parse(text)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Errorf("%s: %s was taken", d.name, name)
			}
			allowed := uint64(256 << 10)
			if d.name == "vote" {
				allowed += uint64(len(text)) // its signature is over the whole
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > allowed {
				t.Errorf("%s: %s: %d bytes were allocated to refuse it: %v", d.name, name, got, err)
			}
		}
	}
}

// resign puts a good signature under a text that its writer might have refused.
func resign(context string, text []byte, key ed25519.PrivateKey) []byte {
	i := bytes.LastIndex(text, []byte("\nsignature ")) + 1
	body := text[:i]
	sig := ed25519.Sign(key, append([]byte(context), body...))
	return fmt.Appendf(bytes.Clone(body), "signature %s\n", base64.RawStdEncoding.EncodeToString(sig))
}

var counted = regexp.MustCompile("\nrelays [0-9]+\nroot [0-9a-f]+")

// reroot makes the header of a changed consensus fit its entries.
func reroot(text []byte) []byte {
	head, body, _ := bytes.Cut(text, []byte("\nrelay "))
	var stored hashes
	entries := bytes.Split(body, []byte("\nrelay "))
	for i, e := range entries {
		e = append([]byte("relay "), e...)
		if i < len(entries)-1 {
			e = append(e, '\n')
		}
		more, _ := tlog.StoredHashes(int64(i), e, stored)
		stored = append(stored, more...)
	}
	root, _ := tlog.TreeHash(int64(len(entries)), stored)
	head = counted.ReplaceAll(head, fmt.Appendf(nil, "\nrelays %d\nroot %x", len(entries), root[:]))
	return fmt.Appendf(nil, "%s\nrelay %s", head, body)
}

func TestDigestsHaveOneSpelling(t *testing.T) {
	d := directory.DigestOf([]byte("abc"))
	const hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if d.String() != hex {
		t.Errorf("got %s", d)
	}
	if got, err := directory.ParseDigest(hex); got != d || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
	for _, s := range []string{"", hex[1:], hex + "00", strings.ToUpper(hex), "g" + hex[1:], fmt.Sprintf("%64s", "1")} {
		if _, err := directory.ParseDigest(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}
