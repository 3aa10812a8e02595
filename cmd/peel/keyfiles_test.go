package main

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"peel/directory"
	"peel/directory/dirtest"
	"peel/relay"
)

// offlineFolder is the key folder of a relay whose identity is elsewhere.
func offlineFolder(t *testing.T) (dir string, id ed25519.PrivateKey) {
	t.Helper()
	k, err := relay.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	id = k.Identity
	pub, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := certify(id, dirtest.New(1, 1).Network.ID(), directory.SigningKey(pub), true, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	k.Identity, k.Signer = nil, &relay.Signer{Certificate: cert, Key: key}
	dir = filepath.Join(t.TempDir(), "keys")
	if err := k.Save(dir); err != nil {
		t.Fatal(err)
	}
	return dir, id
}

// A backup of a relay whose identity is elsewhere brings back a folder that it starts with: the signing key and its certificate too.
func TestABackupOfAnOfflineRelayIsWhole(t *testing.T) {
	dir, id := offlineFolder(t)
	keys, err := folderKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := pack(keys)
	if err != nil {
		t.Fatal(err)
	}
	again, err := unpack(secret)
	if err != nil || len(again) != 3 || inWords(again) != "2 keys and a certificate" {
		t.Fatalf("%v: %s", err, inWords(again))
	}
	if !slices.ContainsFunc(again, func(k namedKey) bool { who, ok := identityIn(k); return ok && who == idOf(id) }) {
		t.Error("it does not say whose it is")
	}
	other := filepath.Join(t.TempDir(), "keys")
	if err := putKeys(other, again); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link.key", "signing.key", "certificate"} {
		a, err := os.ReadFile(filepath.Join(dir, name))
		b, err2 := os.ReadFile(filepath.Join(other, name))
		if err != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %v, %v", name, err, err2)
		}
	}
	got, err := relay.LoadKeys(other)
	if err != nil || got.ID() != idOf(id) || got.Signer == nil {
		t.Errorf("it does not start with them: %v", err)
	}
	if err := putKeys(other, again); err == nil {
		t.Error("written over what was there")
	}
}

// What is in a backup and is neither key nor certificate of ours is refused.
func TestWhatIsNoKeyIsNotTakenFromABackup(t *testing.T) {
	dir, _ := offlineFolder(t)
	keys, err := folderKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	good, err := pack(keys)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"a certificate called a key":  bytes.Replace(good, []byte("certificate\n"), []byte("other.key\n"), 1),
		"a certificate beyond":        bytes.Replace(good, []byte("certificate\n"), []byte("certificate/../x\n"), 1),
		"a key called a certificate":  bytes.Replace(good, []byte("link.key\n"), []byte("certificate-1\n"), 1),
		"something else":              bytes.ReplaceAll(good, []byte("PEEL CERTIFICATE"), []byte("PEEL SOMETHING")),
		"a certificate that is none":  mustPack(t, namedKey{"certificate", certificateText("peel-relay-certificate 9\n")}),
		"half of it":                  good[:len(good)/2],
		"text behind the last of all": append(bytes.Clone(good), "x"...),
	} {
		if _, err := unpack(bad); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func mustPack(t *testing.T, keys ...namedKey) []byte {
	t.Helper()
	b, err := pack(keys)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
