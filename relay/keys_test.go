package relay

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func someKeys(t *testing.T) Keys {
	t.Helper()
	k, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// folder is one that only its owner can look into.
func folder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func equal(a, b Keys) bool {
	return a.Identity.Equal(b.Identity) && a.Link.Equal(b.Link) && a.Onion.Equal(b.Onion) &&
		(a.Previous == nil) == (b.Previous == nil) && (a.Previous == nil || a.Previous.Equal(b.Previous))
}

func TestKeysAreReadAsTheyWereWritten(t *testing.T) {
	for _, previous := range []bool{false, true} {
		k := someKeys(t)
		if previous {
			k.Previous = someKeys(t).Onion
		}
		dir := filepath.Join(t.TempDir(), "made", "keys")
		if err := k.Save(dir); err != nil {
			t.Fatal(err)
		}
		got, err := LoadKeys(dir)
		if err != nil || !equal(got, k) || got.ID() != k.ID() {
			t.Errorf("other keys came back: %v", err)
		}
		if runtime.GOOS == "windows" {
			continue
		}
		files, err := os.ReadDir(dir)
		if err != nil || len(files) < 3 {
			t.Fatalf("%d files: %v", len(files), err)
		}
		for _, f := range files {
			if st, err := f.Info(); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", f.Name(), st.Mode(), err)
			}
		}
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("the folder: %v, %v", st.Mode(), err)
		}
	}
}

func TestKeysAreNeverOverwritten(t *testing.T) {
	for _, there := range []string{identityFile, linkFile, onionFile} {
		dir := folder(t)
		if err := os.WriteFile(filepath.Join(dir, there), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := someKeys(t).Save(dir); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s is there: %v", there, err)
		}
		files, _ := os.ReadDir(dir)
		if b, _ := os.ReadFile(filepath.Join(dir, there)); len(files) != 1 || string(b) != "precious" {
			t.Errorf("%s is there: now there are %d files, and it says %q", there, len(files), b)
		}
	}
	path := filepath.Join(t.TempDir(), "one.key")
	k := someKeys(t)
	if err := SaveKey(path, k.Link); err != nil {
		t.Fatal(err)
	}
	if err := SaveKey(path, k.Onion); !errors.Is(err, fs.ErrExist) {
		t.Errorf("SaveKey: %v", err)
	}
	if got, err := LoadKey[*ecdh.PrivateKey](path); err != nil || !got.Equal(k.Link) {
		t.Errorf("the first key is gone: %v", err)
	}
}

func TestKeysThatAreNotSaved(t *testing.T) {
	k := someKeys(t)
	k.Onion = nil
	dir := filepath.Join(t.TempDir(), "keys")
	if err := k.Save(dir); err == nil || !strings.Contains(err.Error(), "onion key") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder was made all the same")
	}
	if err := SaveKey(filepath.Join(t.TempDir(), "x"), "a string"); err == nil {
		t.Error("a string was saved as a key")
	}
}

func TestKeyFilesThatAreRefused(t *testing.T) {
	good := func(dir, name string) string { return filepath.Join(dir, name) }
	spoil := func(change func(b []byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			b, err := os.ReadFile(good(dir, linkFile))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(good(dir, linkFile), change(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	swap := func(key any) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			os.Remove(good(dir, linkFile))
			if err := SaveKey(good(dir, linkFile), key); err != nil {
				t.Fatal(err)
			}
		}
	}
	p256, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecdsaKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		says  string
	}{
		"missing":             {func(t *testing.T, dir string) { os.Remove(good(dir, linkFile)) }, "no such file"},
		"the group can read":  {func(t *testing.T, dir string) { os.Chmod(good(dir, linkFile), 0o640) }, "chmod 600"},
		"the world can read":  {func(t *testing.T, dir string) { os.Chmod(good(dir, linkFile), 0o604) }, "chmod 600"},
		"the world can write": {func(t *testing.T, dir string) { os.Chmod(good(dir, linkFile), 0o602) }, "chmod 600"},
		"an Ed25519 key":      {swap(someKeys(t).Identity), "another kind"},
		"a P-256 key":         {swap(p256), "another kind"},
		"an ECDSA key":        {swap(ecdsaKey), "another kind"},
		"empty":               {spoil(func([]byte) []byte { return nil }), "not one private key"},
		"half of it":          {spoil(func(b []byte) []byte { return b[:len(b)/2] }), "not one private key"},
		"without its end":     {spoil(func(b []byte) []byte { return b[:len(b)-8] }), "not one private key"},
		"two keys":            {spoil(func(b []byte) []byte { return append(b, b...) }), "not one private key"},
		"of a public key":     {spoil(func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), "PRIVATE", "PUBLIC")) }), "not one private key"},
		"wrong inside": {spoil(func([]byte) []byte {
			return []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
		}), linkFile},
		"far too long": {spoil(func(b []byte) []byte { return append(b, make([]byte, mostKeyFile)...) }), "not a key file"},
		"a folder": {func(t *testing.T, dir string) {
			os.Remove(good(dir, linkFile))
			os.Mkdir(good(dir, linkFile), 0o700)
		}, "not a key file"},
	} {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" && c.says == "chmod 600" {
				t.Skip("no modes here")
			}
			dir := folder(t)
			if err := someKeys(t).Save(dir); err != nil {
				t.Fatal(err)
			}
			c.spoil(t, dir)
			k, err := LoadKeys(dir)
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), linkFile) {
				t.Errorf("%v", err)
			}
			if k.Identity != nil {
				t.Error("some keys came back all the same")
			}
		})
	}
}

func TestAKeyFileCutAnywhereIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.key")
	if err := SaveKey(path, someKeys(t).Identity); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) - 1 { // without its last line break it is whole
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey[ed25519.PrivateKey](path); err == nil {
			t.Errorf("%d of %d bytes are a key", n, len(whole))
		}
	}
}

func TestAPreviousKeyThatCannotBeReadIsNotIgnored(t *testing.T) {
	dir := folder(t)
	if err := someKeys(t).Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, onionFile), []byte("?"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKeys(dir); err == nil {
		t.Error("it was ignored")
	}
}
