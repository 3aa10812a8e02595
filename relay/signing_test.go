package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/link/linktest"
	"peel/directory"
	"peel/directory/dirtest"
)

// elsewhere gives a relay of a network a signing key in the place of its identity.
func elsewhere(t *testing.T, n *dirtest.Net, i int, from, to time.Time) Signer {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := directory.Certificate{
		Relay: true, Network: n.Network.ID(), SigningKey: directory.SigningKey(pub), NotBefore: from.UTC().Truncate(time.Second), NotAfter: to.UTC().Truncate(time.Second),
	}.Certify(n.Relays[i].Identity)
	if err != nil {
		t.Fatal(err)
	}
	return Signer{c, key}
}

// offline is a relay of n that has a signer and no identity.
func offline(t *testing.T, n *dirtest.Net, s Signer, log *slog.Logger) *Relay {
	t.Helper()
	d := &n.Relays[0]
	l := linktest.Listen(d.Descriptor.Addrs[0])
	r, err := New(Config{
		Network: n.Network, Keys: Keys{Signer: &s, Link: d.Link, Onion: d.Onion}, Listeners: []net.Listener{l}, Nickname: d.Descriptor.Nickname, Log: log,
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("nobody is there") },
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A relay whose identity is elsewhere keeps its name, signs with the key that is certified, and renews it while it runs.
func TestARelayWhoseIdentityIsElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := dirtest.New(1, 2, dirtest.Authorities(1), dirtest.At(time.Now().UTC().Truncate(time.Second)))
		now := time.Now()
		first := elsewhere(t, n, 0, now.Add(-time.Hour), now.Add(20*24*time.Hour))
		r := offline(t, n, first, nil)
		if r.ID() != n.Relays[0].Descriptor.ID {
			t.Errorf("it is %v", r.ID())
		}
		r.announce(r.settled.Load().Addrs, r.settled.Load().Addrs)
		signedBy := func(want Signer) *described {
			t.Helper()
			d, err := r.current(time.Now(), nil)
			if err != nil {
				t.Fatal(err)
			}
			p, err := directory.ParseDescriptor(d.text)
			if err != nil || p.ID != r.ID() || p.Certificate == nil || *p.Certificate != want.Certificate {
				t.Fatalf("%v\n%s", err, d.text)
			}
			return d
		}
		d := signedBy(first)
		renewed := r.signer.Load().replaced
		next := elsewhere(t, n, 0, now.Add(-time.Hour), now.Add(28*24*time.Hour))
		if err := r.Renew(next); err != nil {
			t.Fatal(err)
		}
		<-renewed // who publishes hears of it
		if signedBy(next) == d {
			t.Error("the old descriptor is published still")
		}

		// What must not take its place.
		other := elsewhere(t, n, 1, now.Add(-time.Hour), now.Add(time.Hour))
		gone := elsewhere(t, n, 0, now.Add(-2*time.Hour), now.Add(-time.Hour))
		swapped := Signer{first.Certificate, next.Key}
		foreign := elsewhere(t, dirtest.New(2, 2, dirtest.Authorities(2)), 0, now.Add(-time.Hour), now.Add(time.Hour))
		authoritys := elsewhere(t, n, 0, now.Add(-time.Hour), now.Add(time.Hour))
		authoritys.Certificate.Relay = false
		authoritys.Certificate, _ = authoritys.Certificate.Certify(n.Relays[0].Identity)
		for name, s := range map[string]Signer{"another relay's": other, "an expired one": gone, "another key": swapped, "another network's": foreign, "an authority's": authoritys} {
			if err := r.Renew(s); err == nil {
				t.Errorf("%s was taken", name)
			}
			if d := n.Relays[0]; name != "another relay's" {
				if _, err := New(Config{Network: n.Network, Keys: Keys{Signer: &s, Link: d.Link, Onion: d.Onion}, Listeners: r.cfg.Listeners, Nickname: "x"}); err == nil {
					t.Errorf("%s: a relay began with it", name)
				}
			}
		}
		signedBy(next)

		// Where it has ended nothing is signed any more.
		time.Sleep(28*24*time.Hour + time.Second)
		if _, err := r.describe(&r.settled.Load().Settings, time.Now()); !errors.Is(err, directory.ErrCertificate) || !strings.Contains(err.Error(), "peel keys rotate") {
			t.Errorf("after its end: %v", err)
		}

		// A reload, which takes the settings before the signing key, brings it back.
		s := r.settled.Load().Settings
		s.Contact = "somebody at example.net"
		if err := r.Change(s); err != nil {
			t.Errorf("settings after its end: %v", err)
		}
		last := elsewhere(t, n, 0, time.Now(), time.Now().Add(20*24*time.Hour))
		if err := r.Renew(last); err != nil {
			t.Fatal(err)
		}
		signedBy(last)
	})
}

// From seven days before the end its operator is told: once a day, and each hour on the last one.
func TestTheEndOfACertificateIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := dirtest.New(1, 2, dirtest.Authorities(1), dirtest.At(time.Now().UTC().Truncate(time.Second)))
		var log lockedLog
		end := time.Now().Add(10 * 24 * time.Hour)
		r := offline(t, n, elsewhere(t, n, 0, time.Now(), end), slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.keepCertificate(ctx) }()
		count := func(level string) int { return strings.Count(log.String(), "level="+level) }
		for _, x := range []struct {
			at         time.Duration // before the end
			warn, fail int
			says       string
		}{
			{7*24*time.Hour + time.Hour, 0, 0, ""},
			{6*24*time.Hour + 12*time.Hour, 1, 0, "ends in 6 days"},
			{3*24*time.Hour + 12*time.Hour, 4, 0, "ends in 3 days"},
			{12 * time.Hour, 6, 12, "ends today"},
			{-30 * time.Minute, 6, 25, "has expired"},
		} {
			time.Sleep(time.Until(end.Add(-x.at)))
			synctest.Wait()
			if w, e := count("WARN"), count("ERROR"); w < x.warn || w > x.warn+1 || e < x.fail-1 || e > x.fail+1 {
				t.Errorf("%v before the end: %d warnings, %d errors, want %d and %d", x.at, w, e, x.warn, x.fail)
			}
			if says := r.CertificateWarning(time.Now()); !strings.Contains(says, x.says) || says == "" != (x.says == "") {
				t.Errorf("%v before the end it says %q", x.at, says)
			}
		}
		if !strings.Contains(log.String(), "peel keys rotate") {
			t.Error("the log names no remedy")
		}
		cancel()
		<-done
	})
}

// Keys are saved and loaded in either form; a folder that lacks one of them is no relay, and makes none by itself.
func TestKeysWithoutTheirIdentity(t *testing.T) {
	n := dirtest.New(1, 1, dirtest.Authorities(1))
	now := time.Now()
	k, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	n.Relays[0].Identity = k.Identity
	s := elsewhere(t, n, 0, now.Add(-time.Hour), now.Add(time.Hour))
	id := k.ID()
	k.Identity, k.Signer = nil, &s
	dir := filepath.Join(t.TempDir(), "keys")
	if err := k.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := k.Save(dir); err == nil {
		t.Error("keys were written over")
	}
	got, err := LoadKeys(dir)
	if err != nil || got.ID() != id || got.Identity != nil || got.Signer == nil || got.Signer.Certificate != s.Certificate || !bytes.Equal(got.Signer.Key, s.Key) {
		t.Fatalf("%+v, %v", got, err)
	}
	// The one that ends last counts, of those that hold.
	for name, to := range map[string]time.Duration{"a": -time.Minute, "b": 3 * time.Hour, "c": 2 * time.Hour} {
		x := elsewhere(t, n, 0, now.Add(-2*time.Hour), now.Add(to))
		if err := errors.Join(SaveKey(filepath.Join(dir, "signing-"+name+".key"), x.Key), os.WriteFile(filepath.Join(dir, "certificate-"+name), x.Certificate.Append(nil), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if best, err := LoadSigner(dir, now); err != nil || best.Certificate.NotAfter.Sub(now).Round(time.Hour) != 3*time.Hour {
		t.Errorf("%+v, %v", best, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "certificate-d"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeys(dir); err == nil || !strings.Contains(err.Error(), "certificate-d") {
		t.Errorf("a damaged certificate: %v", err)
	}
	for _, name := range []string{"certificate", "certificate-a", "certificate-b", "certificate-c", "certificate-d"} {
		os.Remove(filepath.Join(dir, name))
	}
	if _, err := LoadKeys(dir); err == nil || !strings.Contains(err.Error(), "peel keys certify --relay") {
		t.Errorf("without a certificate: %v", err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "identity*")); len(names) != 0 {
		t.Errorf("it made %v", names)
	}
}
