package relay

import (
	"cmp"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"peel/cell"
)

// Keys are what a relay is: its identity for ever, the key of its links for months, and the onion keys of its circuits,
// of which the previous one is honoured while clients still hold directories that name it.
type Keys struct {
	Identity ed25519.PrivateKey // signs descriptors; its public half is the NodeID
	Link     *ecdh.PrivateKey   // X25519
	Onion    *ecdh.PrivateKey   // X25519
	Previous *ecdh.PrivateKey   // X25519; nil: none
}

// NewKeys makes the keys of a new relay.
func NewKeys() (Keys, error) {
	_, id, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Keys{}, fmt.Errorf("relay: identity key: %w", err)
	}
	link, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return Keys{}, fmt.Errorf("relay: link key: %w", err)
	}
	onion, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return Keys{}, fmt.Errorf("relay: onion key: %w", err)
	}
	return Keys{Identity: id, Link: link, Onion: onion}, nil
}

// ID is the public half of the identity.
func (k Keys) ID() cell.NodeID { return cell.NodeID(k.Identity.Public().(ed25519.PublicKey)) }

// check says what is missing. An authority's node needs a link key only.
func (k Keys) check(authority bool) error {
	keys := []struct {
		name string
		key  *ecdh.PrivateKey
		must bool
	}{{"link key", k.Link, true}, {"onion key", k.Onion, !authority}, {"previous onion key", k.Previous, false}}
	for _, x := range keys {
		switch {
		case x.key == nil && x.must:
			return fmt.Errorf("relay: the %s is missing: make keys with NewKeys, or load them", x.name)
		case x.key != nil && x.key.Curve() != ecdh.X25519():
			return fmt.Errorf("relay: the %s is not an X25519 key", x.name)
		}
	}
	if !authority && len(k.Identity) != ed25519.PrivateKeySize {
		return errors.New("relay: the identity key is missing, or is no Ed25519 key: make keys with NewKeys, or load them")
	}
	return nil
}

// The files of a key folder, each a PKCS #8 key in PEM that openssl can read too.
const (
	identityFile = "identity.key"
	linkFile     = "link.key"
	onionFile    = "onion.key"
	previousFile = "onion.previous.key"
)

// Save writes the keys as files that only their owner can read (0600) into the folder dir, which is made (0700) if it
// is missing. Keys are never overwritten: if a file of that name is already there it writes none.
func (k Keys) Save(dir string) error {
	if err := k.check(false); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("relay: key folder: %w", err)
	}
	files := []struct {
		name string
		key  any
	}{{identityFile, k.Identity}, {linkFile, k.Link}, {onionFile, k.Onion}}
	if k.Previous != nil {
		files = append(files, struct {
			name string
			key  any
		}{previousFile, k.Previous})
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("relay: key file %s: %w: choose another folder, or move the old keys away", path, cmp.Or(err, fs.ErrExist))
		}
	}
	for _, f := range files {
		if err := SaveKey(filepath.Join(dir, f.name), f.key); err != nil {
			return err
		}
	}
	return nil
}

// LoadKeys reads what Save wrote. It refuses files that others than their owner can read.
func LoadKeys(dir string) (Keys, error) {
	var k Keys
	var err error
	if k.Identity, err = LoadKey[ed25519.PrivateKey](filepath.Join(dir, identityFile)); err != nil {
		return Keys{}, err
	}
	if k.Link, err = LoadKey[*ecdh.PrivateKey](filepath.Join(dir, linkFile)); err != nil {
		return Keys{}, err
	}
	if k.Onion, err = LoadKey[*ecdh.PrivateKey](filepath.Join(dir, onionFile)); err != nil {
		return Keys{}, err
	}
	k.Previous, err = LoadKey[*ecdh.PrivateKey](filepath.Join(dir, previousFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Keys{}, err
	}
	return k, nil
}

// SaveKey writes one Ed25519 or X25519 private key to a new file that only its owner can read.
func SaveKey(path string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("relay: %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("relay: key file: %w", err)
	}
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	clear(der)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		os.Remove(path) // a part of a key is of no use, and in the way of the next try
		return fmt.Errorf("relay: key file: %w", err)
	}
	return nil
}

// mostKeyFile is more bytes than a key file has.
const mostKeyFile = 4096

// LoadKey reads one private key of the kind K, which is ed25519.PrivateKey or *ecdh.PrivateKey (X25519).
func LoadKey[K ed25519.PrivateKey | *ecdh.PrivateKey](path string) (K, error) {
	var none K
	st, err := os.Stat(path)
	if err != nil {
		return none, fmt.Errorf("relay: key file: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > mostKeyFile {
		return none, fmt.Errorf("relay: %s: not a key file", path)
	}
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 {
		return none, fmt.Errorf("relay: %s: others than its owner can read this private key (mode %04o): run chmod 600 %s", path, st.Mode().Perm(), path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return none, fmt.Errorf("relay: key file: %w", err)
	}
	defer clear(b)
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return none, fmt.Errorf("relay: %s: not one private key in PEM (PKCS #8)", path)
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return none, fmt.Errorf("relay: %s: %w", path, err)
	}
	k, ok := key.(K)
	if e, is := key.(*ecdh.PrivateKey); is && e.Curve() != ecdh.X25519() {
		ok = false
	}
	if !ok {
		return none, fmt.Errorf("relay: %s: a key of another kind (%T) than this file should hold (%T)", path, key, none)
	}
	return k, nil
}
