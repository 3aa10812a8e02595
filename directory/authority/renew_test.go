package authority

import (
	"bytes"
	"crypto/ed25519"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/directory"
)

// successor is a new signing key of an authority of the world, certified for some days from now.
func (w *world) successor(i, days int) credentials {
	w.t.Helper()
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	cert, err := directory.Certificate{
		Network: w.net.Network.ID(), SigningKey: directory.SigningKey(pub), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Duration(days) * day),
	}.Certify(w.net.Authorities[i].Identity)
	if err != nil {
		w.t.Fatal(err)
	}
	return credentials{cert, priv}
}

// Authorities take up new signing keys one after the other, some running and some by a restart, some in the middle of a vote: every period
// has its consensus, signed by all.
func TestSigningKeysAreRenewedWithoutAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4, 5)
		w.startAll()
		defer w.stopAll()
		time.Sleep(time.Until(hour(1).Add(-30 * time.Minute)))
		w.publishAll()
		for p := 1; p <= 5; p++ {
			if i := p - 1; i < 4 {
				time.Sleep(time.Until(hour(p).Add(-time.Duration(1+3*i) * time.Minute))) // voting takes the last ten
				next := w.successor(i, 60)
				old := w.nodes[i].auth.Certificate().SigningKey
				if i%2 == 0 {
					if err := w.nodes[i].auth.Renew(next.cert, next.key); err != nil {
						t.Fatal(err)
					}
				} else {
					w.nodes[i].crash()
					w.nodes[i].cfg.Certificate, w.nodes[i].cfg.SigningKey = next.cert, next.key
					w.nodes[i].start()
				}
				if got := w.nodes[i].auth.Certificate().SigningKey; got == old || got != next.cert.SigningKey {
					t.Fatal("the key is the old one")
				}
			}
			time.Sleep(time.Until(hour(p).Add(time.Minute)))
			c := w.nodes[0].auth.Consensus()
			if c == nil || !c.ValidAfter.Equal(hour(p)) || len(c.Signatures) != 4 {
				t.Fatalf("period %d: %+v", p, c)
			}
			if err := c.Verify(w.net.Network, time.Now()); err != nil {
				t.Errorf("period %d: %v", p, err)
			}
		}
		w.checkSafety()
		for _, n := range w.nodes {
			if e := n.auth.Status().Evidence; len(e) != 0 {
				t.Errorf("a renewal looks like two-facedness: %+v", e)
			}
		}
	})
}

func TestRenewalsThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4, 0)
		w.nodes[0].cfg.Remedy = "run this"
		w.nodes[0].start()
		defer w.stopAll()
		a := w.nodes[0].auth
		before := a.Certificate()
		good, other := w.successor(0, 60), w.successor(1, 60)
		foreign := newWorld(t, 2, 4, 0).successor(0, 60)
		old := w.successor(0, 1)
		time.Sleep(2 * day)
		for name, c := range map[string]credentials{
			"of another authority":        other,
			"of another network":          foreign,
			"with another key":            {good.cert, other.key},
			"without a key":               {good.cert, nil},
			"expired":                     old,
			"of nobody":                   {directory.Certificate{}, good.key},
			"altered after it was signed": {func() directory.Certificate { c := good.cert; c.NotAfter = c.NotAfter.Add(time.Second); return c }(), good.key},
		} {
			if err := a.Renew(c.cert, c.key); err == nil {
				t.Errorf("%s: was taken", name)
			} else if name == "expired" && !strings.Contains(err.Error(), "run this") {
				t.Errorf("%s: %v does not say what to run", name, err)
			}
		}
		if a.Certificate() != before {
			t.Error("the certificate is another one")
		}
	})
}

// lived is an authority that looks at its certificate every hour, as Run would have it; hours lets time go by.
func lived(t *testing.T, cfg Config) (a *Authority, hours func(int)) {
	t.Helper()
	now := epoch
	cfg.Now = func() time.Time { return now }
	k, err := openKeep("")
	if err != nil {
		t.Fatal(err)
	}
	if a, err = newAuthority(cfg, k, true); err != nil {
		t.Fatal(err)
	}
	var told time.Time
	return a, func(n int) {
		for range n {
			now = now.Add(certificateLook)
			told = a.lookAtCertificate(t.Context(), told)
		}
	}
}

// From fourteen days before the end the operator is told once a day, and on the last day each hour, with the command to run.
func TestTheEndOfACertificateIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1, 0)
		var log bytes.Buffer
		c := w.successor(0, 30)
		cfg := w.nodes[0].cfg
		cfg.Certificate, cfg.SigningKey, cfg.Remedy = c.cert, c.key, "peel keys rotate"
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		told := func() int { return strings.Count(log.String(), `remedy="peel keys rotate"`) }
		a, hours := lived(t, cfg)
		hours(15*24 + 23)
		if s := a.Status().Certificate; told() != 0 || s.Warning != "" || s.DaysLeft != 14 {
			t.Errorf("more than 14 days before: told %d times, %+v", told(), s)
		}
		hours(2)
		if s := a.Status().Certificate; told() != 1 || s.Warning != "the certificate ends in 13 days" {
			t.Errorf("told %d times, %+v", told(), s)
		}
		hours(12 * 24)
		if n := told(); n != 13 {
			t.Errorf("told %d times in 12 days and an hour", n)
		}
		hours(24)
		if s := a.Status().Certificate; told() != 15 || !strings.Contains(s.Warning, "ends today") {
			t.Errorf("told %d times, %+v", told(), s)
		}
		hours(20)
		if n := told(); n != 35 {
			t.Errorf("told %d times after 20 hours of the last day", n)
		}
		hours(4)
		if s := a.Status().Certificate; !strings.Contains(s.Warning, "expired") || !strings.Contains(log.String(), "level=ERROR msg=\"the certificate has expired") {
			t.Errorf("%+v", s)
		}
		cfg.Now = func() time.Time { return epoch.Add(31 * day) }
		k, _ := openKeep("")
		if _, err := newAuthority(cfg, k, true); err == nil || !strings.Contains(err.Error(), "expired on 2000-01-31") || !strings.Contains(err.Error(), "peel keys rotate") {
			t.Errorf("a start with an expired certificate: %v", err)
		}
	})
}

// An authority of a test network has its identity at hand and never runs out.
func TestAnAuthorityWithItsIdentityRenewsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1, 0)
		cfg := w.nodes[0].cfg
		cfg.Identity, cfg.Certificate, cfg.SigningKey = w.net.Authorities[0].Identity, directory.Certificate{}, nil
		a, hours := lived(t, cfg)
		first := a.Certificate()
		for range 200 {
			hours(24)
			if c := a.Certificate(); c.NotAfter.Sub(a.now()) <= RenewWithin-time.Hour {
				t.Fatalf("%v left", c.NotAfter.Sub(a.now()))
			}
		}
		if a.Certificate().SigningKey == first.SigningKey {
			t.Error("still the first key after 200 days")
		}
	})
}

func TestTheStatusCountsFlags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4, 5)
		w.startAll()
		defer w.stopAll()
		time.Sleep(time.Until(hour(1).Add(-30 * time.Minute)))
		w.publishAll()
		time.Sleep(time.Until(hour(1).Add(time.Minute)))
		s := w.nodes[0].auth.Status()
		if s.Before == nil || len(s.Before.Flags) != 4 || s.Before.Flags[0].Relays != 5 || s.Before.Flags[0].Running != 5 {
			t.Errorf("%+v", s.Before)
		}
		if !s.Next.Equal(hour(3)) || !s.Period.Equal(hour(2)) {
			t.Errorf("period %v, then %v", s.Period, s.Next)
		}
	})
}
