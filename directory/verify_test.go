package directory_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"peel/cell"
	"peel/directory"
	"peel/directory/dirtest"
)

func parseConsensus(t *testing.T, text []byte) *directory.Consensus {
	t.Helper()
	c, err := directory.ParseConsensus(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refused checks that an error is the one of want, of type T, and says all of the words.
func refused[T error](t *testing.T, err, want error, words ...string) T {
	t.Helper()
	var e T
	if !errors.Is(err, want) || !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want %v as %T", err, err, want, e)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	return e
}

func TestConsensusOfTheThresholdIsTaken(t *testing.T) {
	n := dirtest.New(1, 5)
	c := parseConsensus(t, n.Sign(n.Consensus, 4))
	for _, now := range []time.Time{c.ValidAfter, c.FreshUntil, c.ValidUntil, c.ValidAfter.Add(-directory.MaxSkew)} {
		if err := c.Verify(n.Network, now); err != nil {
			t.Errorf("at %v: %v", now, err)
		}
	}
}

func TestOneSignatureTooFewIsRefused(t *testing.T) {
	n := dirtest.New(1, 5)
	c := parseConsensus(t, n.Sign(n.Consensus, 3))
	e := refused[*directory.SignaturesError](t, c.Verify(n.Network, c.ValidAfter), directory.ErrSignatures,
		"3 good signatures of the 4 needed", "authority4 (did not sign)", "authority5 (did not sign)")
	if e.Have != 3 || e.Need != 4 || len(e.Missing) != 2 || e.Missing[0].ID != n.Authorities[3].Info.ID {
		t.Errorf("%+v", e)
	}
	if errors.Is(e, directory.ErrCertificate) {
		t.Error("no certificate is at fault")
	}
}

func TestSignaturesOfOneAuthorityCountOnce(t *testing.T) {
	n := dirtest.New(1, 5)
	c := parseConsensus(t, n.Sign(n.Consensus, 3))
	for i := 0; i < len(c.Signatures); i += 2 {
		c.Signatures = append(c.Signatures[:i+1], c.Signatures[i:]...)
	}
	c = parseConsensus(t, c.Append(nil))
	if len(c.Signatures) != 6 {
		t.Fatalf("%d signatures", len(c.Signatures))
	}
	refused[*directory.SignaturesError](t, c.Verify(n.Network, c.ValidAfter), directory.ErrSignatures, "3 good signatures of the 4 needed")
}

func TestSignaturesOfOthersDoNotCount(t *testing.T) {
	n, other := dirtest.New(1, 5), dirtest.New(2, 5)
	c := parseConsensus(t, n.Sign(n.Consensus, 3))
	for _, a := range other.Authorities {
		cert := a.Certificate
		cert.Network = c.Network
		cert, err := cert.Certify(a.Identity)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := c.Header.Sign(cert, a.Signing)
		if err != nil {
			t.Fatal(err)
		}
		c.Add(sig)
	}
	c = parseConsensus(t, c.Append(nil))
	refused[*directory.SignaturesError](t, c.Verify(n.Network, c.ValidAfter), directory.ErrSignatures, "3 good signatures of the 4 needed")
	good := parseConsensus(t, n.Text)
	good.Signatures = append(good.Signatures, c.Signatures...)
	if err := good.Verify(n.Network, c.ValidAfter); err != nil {
		t.Errorf("strangers' signatures beside enough good ones: %v", err)
	}
}

func TestABadSignatureIsNamed(t *testing.T) {
	n := dirtest.New(1, 5)
	c := parseConsensus(t, n.Sign(n.Consensus, 4))
	for i := range c.Signatures {
		if c.Signatures[i].Certificate.Identity == n.Authorities[1].Info.ID {
			c.Signatures[i].Signature[7] ^= 1
		}
	}
	refused[*directory.SignaturesError](t, c.Verify(n.Network, c.ValidAfter), directory.ErrSignatures,
		"3 good signatures of the 4 needed", "authority2 (consensus: the signature of", "is not over this header")
}

func TestChangedEntriesAreRefused(t *testing.T) {
	n := dirtest.New(1, 5)
	text := string(n.Text)
	i := strings.Index(text, "\nrelay ") + 1
	j := i + 1 + strings.Index(text[i+1:], "\nrelay ") + 1
	entry := text[i:j]
	for name, c := range map[string]struct{ text, word string }{
		"another nickname":  {strings.Replace(text, "relay3\n", "relay9\n", 1), "an entry was changed"},
		"another bandwidth": {strings.Replace(text, "\nbandwidth ", "\nbandwidth 9", 1), "an entry was changed"},
		"a flag more":       {strings.Replace(text, "\nflags Fast", "\nflags BadExit Fast", 1), "an entry was changed"},
		"left out":          {text[:i] + text[j:], "4 relays, but the signed header says 5"},
		"all left out":      {text[:i], "0 relays, but the signed header says 5"},
		"a count changed":   {strings.Replace(text[:i], "\nrelays 5\n", "\nrelays 4\n", 1) + text[j:], "an entry was changed"},
	} {
		_, err := directory.ParseConsensus([]byte(c.text))
		t.Run(name, func(t *testing.T) {
			refused[*directory.RootError](t, err, directory.ErrRoot, c.word)
		})
	}
	for name, text := range map[string]string{"there twice": text[:j] + entry + text[j:], "out of order": text[:i] + text[j:] + entry} {
		if _, err := directory.ParseConsensus([]byte(text)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("an entry %s: %v", name, err)
		}
	}
	c := parseConsensus(t, n.Text)
	c.Entries[2].Bandwidth++
	refused[*directory.RootError](t, c.Verify(n.Network, c.ValidAfter), directory.ErrRoot)
	c.Root = directory.Root(c.Entries)
	refused[*directory.SignaturesError](t, c.Verify(n.Network, c.ValidAfter), directory.ErrSignatures, "0 good signatures")
}

func TestAnotherNetworksConsensusIsRefused(t *testing.T) {
	n := dirtest.New(1, 5)
	for name, other := range map[string]*dirtest.Net{
		"other authorities": dirtest.New(2, 5),
		"another name":      dirtest.New(1, 5, dirtest.Name("other")),
	} {
		t.Run(name, func(t *testing.T) {
			c := parseConsensus(t, other.Text)
			refused[*directory.NetworkError](t, c.Verify(n.Network, c.ValidAfter), directory.ErrNetwork, n.Network.ID().String(), "network.toml")
		})
	}
	stricter := *n.Network
	stricter.Threshold = 5
	c := parseConsensus(t, n.Text)
	refused[*directory.NetworkError](t, c.Verify(&stricter, c.ValidAfter), directory.ErrNetwork)
}

func TestTimeIsSaidInWords(t *testing.T) {
	n := dirtest.New(1, 1)
	c := parseConsensus(t, n.Text)
	for _, x := range []struct {
		now  time.Time
		want error
		skew time.Duration
		word string
	}{
		{c.ValidAfter.Add(-directory.MaxSkew - 1), directory.ErrFuture, directory.MaxSkew + 1, "the clock is at least 5 minutes behind; set it"},
		{c.ValidAfter.Add(-72 * time.Hour), directory.ErrFuture, 72 * time.Hour, "the clock is at least 3 days behind"},
		{c.ValidUntil.Add(time.Second), directory.ErrExpired, -time.Second, "expired at 2026-03-01T15:00:00Z, a second ago by this clock"},
		{c.ValidUntil.Add(30 * time.Hour), directory.ErrExpired, -30 * time.Hour, "30 hours ago"},
	} {
		e := refused[*directory.TimeError](t, c.Verify(n.Network, x.now), x.want, x.word)
		if e.Skew() != x.skew {
			t.Errorf("skew %v, want %v", e.Skew(), x.skew)
		}
	}
}

func TestAnExpiredConsensusMayBeUsedForADay(t *testing.T) {
	n := dirtest.New(1, 1)
	c := parseConsensus(t, n.Text)
	for _, x := range []struct {
		after time.Duration // valid-until
		note  string
		err   error
	}{
		{0, "", nil},
		{time.Millisecond, "the directory expired less than a second ago; until a newer one comes it is used, for 24 hours more", nil},
		{time.Second, "the directory expired a second ago", nil},
		{directory.Grace, "expired 24 hours ago; until a newer one comes it is used, for less than a second more", nil},
		{directory.Grace + 1, "", directory.ErrExpired},
		{-4 * time.Hour, "", directory.ErrFuture},
	} {
		note, err := c.Usable(n.Network, c.ValidUntil.Add(x.after))
		if !strings.Contains(note, x.note) || (x.note == "") != (note == "") || !errors.Is(err, x.err) {
			t.Errorf("%v after its end: %q, %v", x.after, note, err)
		}
	}
	c.Entries[0].Bandwidth++
	if _, err := c.Usable(n.Network, c.ValidUntil.Add(time.Hour)); !errors.Is(err, directory.ErrRoot) {
		t.Errorf("in its day of grace, with a changed entry: %v", err)
	}
}

func TestCertificatesMustHoldWhenTheConsensusBegins(t *testing.T) {
	n := dirtest.New(1, 3)
	a := &n.Authorities[0]
	begin := n.Consensus.ValidAfter
	for name, life := range map[string][2]time.Time{
		"expired on":       {begin.Add(-48 * time.Hour), begin.Add(-time.Second)},
		"not valid before": {begin.Add(time.Second), begin.Add(48 * time.Hour)},
	} {
		cert := a.Certificate
		cert.NotBefore, cert.NotAfter = life[0], life[1]
		cert, err := cert.Certify(a.Identity)
		if err != nil {
			t.Fatal(err)
		}
		c := parseConsensus(t, n.Sign(n.Consensus, 4))
		sig, err := c.Header.Sign(cert, a.Signing)
		if err != nil {
			t.Fatal(err)
		}
		c.Add(sig)
		refused[*directory.SignaturesError](t, c.Verify(n.Network, begin), directory.ErrCertificate, "authority1 (certificate not valid: of", name)
		if len(c.Signatures) != 4 {
			t.Errorf("Add left %d signatures", len(c.Signatures))
		}
	}
}

// A dishonest authority signs two headers for one period and shows each half of the others one of
// them: with the threshold at 4 of 5 no client takes the second.
func TestASplitViewByOneAuthorityIsRefused(t *testing.T) {
	n := dirtest.New(1, 5)
	honest := parseConsensus(t, n.Text)
	second := *honest
	second.Entries = append([]directory.Entry(nil), honest.Entries[:4]...)
	n.Sign(&second, 0)
	for i, want := range []int{1, 2, 3} {
		second.Signatures = nil
		for _, a := range n.Authorities[:i+1] { // the liar, and up to two that it cut off from the others
			sig, err := second.Header.Sign(a.Certificate, a.Signing)
			if err != nil {
				t.Fatal(err)
			}
			second.Add(sig)
		}
		// Signatures over the other header do not help.
		for _, sig := range honest.Signatures {
			if sig.Certificate.Identity == n.Authorities[4].Info.ID || sig.Certificate.Identity == n.Authorities[3].Info.ID {
				second.Add(sig)
			}
		}
		c := parseConsensus(t, second.Append(nil))
		if !c.ValidAfter.Equal(honest.ValidAfter) || c.Header.Digest() == honest.Header.Digest() {
			t.Fatal("these are not two headers for one period")
		}
		e := refused[*directory.SignaturesError](t, c.Verify(n.Network, c.ValidAfter), directory.ErrSignatures, "is not over this header")
		if e.Have != want {
			t.Errorf("%d good signatures, want %d", e.Have, want)
		}
	}
}

func TestSignedHeadersTravelAlone(t *testing.T) {
	n := dirtest.New(1, 5)
	h := n.Consensus.SignedHeader
	again, err := directory.ParseSignedHeader(h.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Verify(n.Network, h.ValidAfter); err != nil {
		t.Error(err)
	}
	if again.Digest() != h.Digest() {
		t.Error("another digest")
	}
	if _, err := directory.ParseSignedHeader(n.Text); err == nil {
		t.Error("a whole consensus was taken for a header")
	}
	if !bytes.HasPrefix(n.Text, h.Append(nil)) {
		t.Error("a consensus does not begin with its signed header")
	}
}

func TestVotesAreOfAnAuthorityOfTheNetwork(t *testing.T) {
	n := dirtest.New(1, 3)
	v, text := n.Vote(2)
	if _, err := directory.ParseVote(text); err != nil {
		t.Fatal(err)
	}
	if err := v.Verify(n.Network); err != nil {
		t.Fatal(err)
	}
	other := dirtest.New(2, 3)
	refused[*directory.NetworkError](t, v.Verify(other.Network), directory.ErrNetwork, "this vote is of network")

	strange := *v
	cert := other.Authorities[0].Certificate
	cert.Network = v.Network
	var err error
	if strange.Certificate, err = cert.Certify(other.Authorities[0].Identity); err != nil {
		t.Fatal(err)
	}
	if _, err := strange.Sign(other.Authorities[0].Signing); err != nil {
		t.Fatal(err)
	}
	if err := strange.Verify(n.Network); err == nil || !strings.Contains(err.Error(), "is no authority of dirtest") {
		t.Errorf("a stranger's vote: %v", err)
	}
	if _, err := v.Sign(n.Authorities[0].Signing); err == nil {
		t.Error("signed with the key of another certificate")
	}
	late := *v
	late.ValidAfter = late.Certificate.NotAfter.Add(time.Hour)
	if err := late.Verify(n.Network); !errors.Is(err, directory.ErrCertificate) {
		t.Errorf("after its certificate ended: %v", err)
	}
}

func TestVotesThatContradictThemselvesAreNotSigned(t *testing.T) {
	n := dirtest.New(1, 3)
	for name, change := range map[string]func(v *directory.Vote){
		"unknown flag":       func(v *directory.Vote) { v.KnownFlags = directory.Running },
		"twice":              func(v *directory.Vote) { v.Relays[1] = v.Relays[0] },
		"out of order":       func(v *directory.Vote) { v.Relays[0], v.Relays[1] = v.Relays[1], v.Relays[0] },
		"no method":          func(v *directory.Vote) { v.Methods = nil },
		"methods descending": func(v *directory.Vote) { v.Methods = []int{2, 1} },
		"parameter":          func(v *directory.Vote) { v.Params = directory.Params{"relays-per-address": 0} },
		"parameter's name":   func(v *directory.Vote) { v.Params = directory.Params{"a b": 1} },
		"half a second":      func(v *directory.Vote) { v.Published = v.Published.Add(time.Second / 2) },
		"nickname":           func(v *directory.Vote) { v.Relays[0].Nickname = "a\nb" },
		"port 0 accepted":    func(v *directory.Vote) { v.Relays[0].Policy = directory.Policy{{Accept: true}} },
		"another network":    func(v *directory.Vote) { v.Network[0]++ },
	} {
		v, good := n.Vote(0)
		change(v)
		if _, err := v.Sign(n.Authorities[0].Signing); err == nil {
			t.Errorf("%s: was signed", name)
		}
		text := resign("peel vote v1\n", v.Append(nil), n.Authorities[0].Signing)
		if _, err := directory.ParseVote(text); err == nil && !bytes.Equal(text, good) {
			t.Errorf("%s: was taken:\n%s", name, text)
		}
	}
}

func TestCertificatesAreBounded(t *testing.T) {
	a := dirtest.New(1, 0).Authorities[0]
	for name, change := range map[string]func(c *directory.Certificate){
		"too long": func(c *directory.Certificate) {
			c.NotAfter = c.NotBefore.Add(directory.MaxCertificateLife + time.Second)
		},
		"ends first":       func(c *directory.Certificate) { c.NotAfter = c.NotBefore },
		"weak signing key": func(c *directory.Certificate) { c.SigningKey = directory.SigningKey{1} },
		"zero signing key": func(c *directory.Certificate) { c.SigningKey = directory.SigningKey{} },
	} {
		c := a.Certificate
		change(&c)
		if _, err := c.Certify(a.Identity); err == nil {
			t.Errorf("%s: was certified", name)
		}
	}
	c := a.Certificate
	c.NotAfter = c.NotBefore.Add(directory.MaxCertificateLife)
	if _, err := c.Certify(a.Identity); err != nil {
		t.Errorf("90 days: %v", err)
	}
}

// weak are encodings that no honest key has: small order, or not canonical.
var weak = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0100000000000000000000000000000000000000000000000000000000000080",
}

func TestWeakIdentitiesAreRefused(t *testing.T) {
	n := dirtest.New(1, 1)
	r := n.Relays[0]
	for _, hex := range weak {
		d, err := directory.ParseDigest(hex)
		if err != nil {
			t.Fatal(err)
		}
		id := cell.NodeID(d)
		// A signature of zeros, with R the neutral element, would verify under some of these keys.
		desc := r.Descriptor
		desc.ID, desc.Signature = id, directory.Signature64{0: 1}
		if _, err := directory.ParseDescriptor(desc.Append(nil)); err == nil || !strings.Contains(err.Error(), "identity: cell: node id") {
			t.Errorf("%s: as a relay: %v", hex, err)
		}
		cert := n.Authorities[0].Certificate
		cert.Identity, cert.Signature = id, directory.Signature64{0: 1}
		if _, err := directory.ParseCertificate(cert.Append(nil)); err == nil || !strings.Contains(err.Error(), "identity: cell: node id") {
			t.Errorf("%s: as an authority: %v", hex, err)
		}
	}
}
