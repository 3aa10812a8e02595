package directory_test

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
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
	for line := range bytes.Lines(text) { // each left out, there twice, and of one letter more
		f.Add(bytes.Replace(text, line, nil, 1))
		f.Add(bytes.Replace(text, line, append(line[:len(line):len(line)], line...), 1))
		f.Add(bytes.Replace(text, line, append(bytes.TrimSuffix(line, []byte("\n")), "0\n"...), 1))
		if bytes.HasPrefix(line, []byte("address")) {
			port := bytes.LastIndexByte(line, ':') + 1
			f.Add(bytes.Replace(text, line, fmt.Appendf(nil, "%s0%s", line[:port], line[port:]), 1)) // a port of two spellings
		}
	}
}

// printsBack fails the test if a text that parses is printed in another way.
func printsBack(t *testing.T, text, again []byte) {
	if !bytes.Equal(again, text) {
		t.Fatalf("printed back as\n%q\nwas\n%q", again, text)
	}
}

// fuzzSigned gives a parser what the fuzzer makes, as it is and signed by each of those who signed the seeds.
func fuzzSigned[D interface{ Append([]byte) []byte }](f *testing.F, parse func([]byte) (D, error), good ...document) {
	for _, d := range good {
		if !bytes.Equal(d.mend(d.text), d.text) {
			f.Fatalf("%s: another signs it", d.name)
		}
		seeds(f, d.text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		texts := [][]byte{text}
		for _, d := range good {
			texts = append(texts, d.mend(text))
		}
		for _, text := range texts {
			if d, err := parse(text); err == nil {
				printsBack(t, text, d.Append(nil))
			}
		}
	})
}

func FuzzDescriptor(f *testing.F) {
	d := documents()
	fuzzSigned(f, directory.ParseDescriptor, d[0], d[1])
}

func FuzzCertificate(f *testing.F) {
	fuzzSigned(f, directory.ParseCertificate, documents()[3])
}

func FuzzRelayCertificate(f *testing.F) {
	fuzzSigned(f, directory.ParseRelayCertificate, documents()[2])
}

func FuzzVote(f *testing.F) {
	n := dirtest.New(1, 2, dirtest.Authorities(1))
	vote, text := n.Vote(0)
	if vote.Certificate != n.Authorities[0].Certificate || !bytes.Equal(resign("peel vote v1\n", text, n.Authorities[0].Signing), text) {
		f.Fatal("another signs it")
	}
	seeds(f, text)
	for _, with := range []string{"param new-thing -1\n", "param distinct-subnets 2\n", "param x 1\nparam x 1\n", "shared-random-commit 1 x y\n"} {
		f.Add(bytes.Replace(text, []byte("\npeel-certificate"), []byte("\n"+with+"peel-certificate"), 1))
	}
	f.Add(regexp.MustCompile("\nknown-flags .*").ReplaceAll(text, []byte("\nknown-flags Running")))
	f.Add(regexp.MustCompile("(\ndescriptor .*\npublished .*)").ReplaceAll(text, []byte("$1\nmeasured 7")))
	i, end := bytes.Index(text, []byte("\nrelay ")), bytes.LastIndex(text, []byte("\nsignature "))
	second := i + 1 + bytes.Index(text[i+1:], []byte("\nrelay "))
	f.Add(fmt.Appendf(nil, "%s%s%s%s", text[:i], text[second:end], text[i:second], text[end:])) // out of order
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, text := range [][]byte{text, resign("peel vote v1\n", text, n.Authorities[0].Signing)} {
			v, err := directory.ParseVote(text)
			if err != nil {
				continue
			}
			printsBack(t, text, v.Append(nil))
			for i := range v.Relays {
				if !v.KnownFlags.Has(v.Relays[i].Flags) || i > 0 && bytes.Compare(v.Relays[i-1].ID[:], v.Relays[i].ID[:]) >= 0 {
					t.Fatalf("relay %d is of other flags than known, or out of order, in\n%s", i, text)
				}
			}
			again := *v
			if again.Certificate == n.Authorities[0].Certificate {
				if signed, err := again.Sign(n.Authorities[0].Signing); err != nil || !bytes.Equal(signed, text) {
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
		h, err := directory.ParseSignedHeader(text)
		if err != nil {
			return
		}
		printsBack(t, text, h.Append(nil))
		if h.Verify(n.Network, h.ValidAfter) == nil && h.Header.Digest() != n.Consensus.Header.Digest() {
			t.Fatal("a header that nobody signed was taken")
		}
	})
}

func FuzzConsensus(f *testing.F) {
	n := dirtest.New(1, 2, dirtest.Authorities(1))
	if !bytes.Equal(reroot(n.Text), n.Text) {
		f.Fatal("it has another root")
	}
	seeds(f, n.Text)
	f.Add(regexp.MustCompile("(?s)(\nversion [^\n]*)(.*)").ReplaceAll(n.Text, fmt.Appendf(nil, "$1\nfamily %s$2", n.Consensus.Entries[0].ID))) // its own
	i := bytes.Index(n.Text, []byte("\nrelay ")) + 1
	j := i + bytes.Index(n.Text[i:], []byte("\nrelay ")) + 1
	f.Add(fmt.Appendf(nil, "%s%s%s", n.Text[:i], n.Text[j:], n.Text[i:j])) // out of order
	f.Add(n.Text[:j])
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, text := range [][]byte{text, reroot(text)} {
			c, err := directory.ParseConsensus(text)
			if err != nil {
				continue
			}
			printsBack(t, text, c.Append(nil))
			if again, err := c.Encode(); err != nil || !bytes.Equal(again, text) {
				t.Fatalf("what was parsed is not encoded: %v", err)
			}
			if _, err := c.Usable(n.Network, c.ValidAfter); err == nil && c.Header.Digest() != n.Consensus.Header.Digest() {
				t.Fatal("a header that nobody signed was taken")
			}
		}
	})
}

func FuzzNetwork(f *testing.F) {
	text, err := dirtest.New(1, 0, dirtest.Authorities(2)).Network.Encode()
	if err != nil {
		f.Fatal(err)
	}
	seeds(f, text)
	for _, schedule := range []string{"", "period = \"90s\"\nvoting = 0.25", "voting = \"100ms\"", "voting = \"1ns\"", "voting = 7", "period = \"1.5s\"", "period = \"x\"",
		"start = 2026-01-01T00:00:00+01:30", "start = 2026-01-01T00:00:00", "start = 2026-01-01", "start = 07:32:00", "start = 1969-12-31T23:59:59Z", "start = 2026-01-01T00:00:00.5Z"} {
		f.Add(scheduled.ReplaceAll(text, []byte("\n[schedule]\n"+schedule+"\n\n[[authority]]")))
	}
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
		if err != nil || m.ID() != n.ID() || !reflect.DeepEqual(m, n) {
			t.Fatalf("came back otherwise: %v\n%s", err, again)
		}
	})
}

// scheduled is the schedule in a network.toml.
var scheduled = regexp.MustCompile(`(?s)\n\[schedule\].*?\n\[\[authority\]\]`)

func FuzzRule(f *testing.F) {
	for _, s := range []string{"accept *:80", "reject 10.0.0.0/8:1-1024", "accept [2001:db8::]/32:*", "accept", "reject *:0", "accept *:80,443,6660-6669", "accept 1.2.3.4:1-65535", "accept *:2-1",
		"accept *:080", "accept *:65536", "accept *:25-", "accept 10.1.0.0/8:*", "accept 1.2.3.4/32:25", "accept 1.2.3.4/33:25", "accept [1.2.3.4]:25", "accept ::1:25", "accept [fe80::1%x]:25",
		"accept [::ffff:1.2.3.4]:25", "allow *:*", "accept *:*,25", "accept *:" + strings.Repeat("1,", directory.MaxRules) + "1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := directory.ParseRule(s); err == nil {
			if r.String() != s || r.Prefix.Masked() != r.Prefix || r.Lo < 1 || r.Lo > r.Hi {
				t.Fatalf("%q came back as %q", s, r)
			}
			if p := (directory.Policy{r}); p.AllowsPort(r.Lo) != r.Accept || p.AllowsPort(r.Hi) != r.Accept {
				t.Fatalf("%q: of its own ports it says the contrary", s)
			}
		}
		p, err := directory.ParsePolicy([]string{"reject *:25", s})
		if err != nil {
			return
		}
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		if p.AllowsPort(25) {
			t.Fatalf("%v allows what it rejects first", p)
		}
		for _, r := range p {
			if again, err := directory.ParseRule(r.String()); err != nil || again != r {
				t.Fatalf("%q of %q came back as %q, %v", r, s, again, err)
			}
		}
	})
}

func FuzzFlags(f *testing.F) {
	for _, s := range []string{"", "Running", "Exit Fast Guard", "Guard Fast", "fast", "Fast Fast", "Fast ", " Fast", directory.AllFlags.String()} {
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
	f.Add(strings.Repeat("0F", 32))
	f.Add(strings.Repeat("0g", 32))
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := directory.ParseDigest(s); err == nil && d.String() != s {
			t.Fatalf("%q came back as %q", s, d)
		}
	})
}
