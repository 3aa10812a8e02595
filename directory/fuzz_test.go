package directory_test

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"peel/directory"
	"peel/directory/dirtest"
)

// seeds adds a good document and a few that are nearly good.
func seeds(f *testing.F, text []byte) {
	f.Add(text)
	f.Add(text[:len(text)/2])
	f.Add(bytes.Replace(text, []byte(" "), []byte("  "), 1))
	f.Add(bytes.Replace(text, []byte("\n"), []byte("\r\n"), -1))
	f.Add([]byte(nil))
}

// printsBack fails the test if a text that parses is printed in another way.
func printsBack(t *testing.T, text, again []byte) {
	if !bytes.Equal(again, text) {
		t.Fatalf("printed back as\n%q\nwas\n%q", again, text)
	}
}

// fuzzSigned gives a parser what the fuzzer makes, as it is and signed.
func fuzzSigned[D interface{ Append([]byte) []byte }](f *testing.F, context string, key ed25519.PrivateKey, parse func([]byte) (D, error)) {
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, text := range [][]byte{text, resign(context, text, key)} {
			if d, err := parse(text); err == nil {
				printsBack(t, text, d.Append(nil))
			}
		}
	})
}

func FuzzDescriptor(f *testing.F) {
	seeds(f, documents()[0].text)
	seeds(f, documents()[1].text)
	key := dirtest.New(1, 1).Relays[0].Identity
	fuzzSigned(f, "peel descriptor v1\n", key, directory.ParseDescriptor)
}

func FuzzCertificate(f *testing.F) {
	seeds(f, dirtest.New(3, 0, dirtest.Authorities(1)).Authorities[0].Certificate.Append(nil))
	key := dirtest.New(1, 0).Authorities[0].Identity
	fuzzSigned(f, "peel certificate v1\n", key, directory.ParseCertificate)
}

func FuzzRelayCertificate(f *testing.F) {
	seeds(f, documents()[2].text)
	key := dirtest.New(1, 1).Relays[0].Identity
	fuzzSigned(f, "peel relay certificate v1\n", key, directory.ParseRelayCertificate)
}

func FuzzVote(f *testing.F) {
	n := dirtest.New(1, 2, dirtest.Authorities(1))
	_, text := n.Vote(0)
	seeds(f, text)
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, text := range [][]byte{text, resign("peel vote v1\n", text, n.Authorities[0].Signing)} {
			v, err := directory.ParseVote(text)
			if err != nil {
				continue
			}
			printsBack(t, text, v.Append(nil))
			again := *v
			if again.Certificate == n.Authorities[0].Certificate {
				if _, err := again.Sign(n.Authorities[0].Signing); err != nil {
					t.Fatalf("what was parsed is not signed: %v", err)
				}
			}
		}
	})
}

func FuzzSignedHeader(f *testing.F) {
	n := dirtest.New(1, 2)
	seeds(f, n.Consensus.SignedHeader.Append(nil))
	f.Fuzz(func(t *testing.T, text []byte) {
		if h, err := directory.ParseSignedHeader(text); err == nil {
			printsBack(t, text, h.Append(nil))
			h.Verify(n.Network, h.ValidAfter)
		}
	})
}

func FuzzConsensus(f *testing.F) {
	n := dirtest.New(1, 2, dirtest.Authorities(1))
	seeds(f, n.Text)
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := directory.ParseConsensus(text)
		if err != nil {
			return
		}
		printsBack(t, text, c.Append(nil))
		if again, err := c.Encode(); err != nil || !bytes.Equal(again, text) {
			t.Fatalf("what was parsed is not encoded: %v", err)
		}
		if _, err := c.Usable(n.Network, c.ValidAfter); err == nil && c.Header.Digest() != n.Consensus.Header.Digest() {
			t.Fatal("a header that nobody signed was taken")
		}
	})
}

func FuzzNetwork(f *testing.F) {
	text, err := dirtest.New(1, 0, dirtest.Authorities(1)).Network.Encode()
	if err != nil {
		f.Fatal(err)
	}
	seeds(f, text)
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := directory.ParseNetwork(text)
		if err != nil {
			return
		}
		again, err := n.Encode()
		if err != nil {
			t.Fatal(err)
		}
		m, err := directory.ParseNetwork(again)
		if err != nil || m.ID() != n.ID() || m.Schedule != n.Schedule {
			t.Fatalf("came back otherwise: %v\n%s", err, again)
		}
	})
}

func FuzzRule(f *testing.F) {
	for _, s := range []string{"accept *:80", "reject 10.0.0.0/8:1-1024", "accept [2001:db8::]/32:*", "accept", "reject *:0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := directory.ParseRule(s); err == nil && r.String() != s {
			t.Fatalf("%q came back as %q", s, r)
		}
		if p, err := directory.ParsePolicy([]string{"reject *:25", s}); err == nil {
			if err := p.Check(); err != nil {
				t.Fatal(err)
			}
			if p.AllowsPort(25) {
				t.Fatalf("%v allows what it rejects first", p)
			}
		}
	})
}

func FuzzFlags(f *testing.F) {
	for _, s := range []string{"", "Running", "Exit Fast Guard", "Guard Fast", "fast"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if g, err := directory.ParseFlags(s); err == nil && g.String() != s {
			t.Fatalf("%q came back as %q", s, g)
		}
	})
}

func FuzzDigest(f *testing.F) {
	f.Add(strings.Repeat("0f", 32))
	f.Add("0F")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := directory.ParseDigest(s); err == nil && d.String() != s {
			t.Fatalf("%q came back as %q", s, d)
		}
	})
}
