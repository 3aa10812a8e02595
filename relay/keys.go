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
	"time"

	"peel/cell"
	"peel/directory/cache"
)

// Keys are what a relay is: its identity for ever, the key of its links for months, and the onion keys of its circuits,
// of which the previous one is honoured while clients still hold directories that name it.
type Keys struct {
	Identity ed25519.PrivateKey // signs descriptors; its public half is the NodeID. nil: it is elsewhere, and Signer signs
	Signer   *Signer            // nil: the identity signs
	Link     *ecdh.PrivateKey   // X25519
	Onion    *ecdh.PrivateKey   // X25519
	Previous *ecdh.PrivateKey   // X25519; nil: none
	Made     time.Time          // when Onion was made; zero: just now
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
func (k Keys) ID() cell.NodeID {
	if k.Identity == nil && k.Signer != nil {
		return k.Signer.Certificate.Identity
	}
	return cell.NodeID(k.Identity.Public().(ed25519.PublicKey))
}

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
	if !authority && k.Identity == nil && k.Signer != nil {
		return k.Signer.check()
	}
	if !authority && len(k.Identity) != ed25519.PrivateKeySize {
		return errors.New("relay: the identity key is missing, or is no Ed25519 key: make keys with NewKeys, or load them")
	}
	return nil
}

// The files of a key folder, each with PKCS #8 keys in PEM that openssl can read too.
const (
	identityFile = "identity.key"
	linkFile     = "link.key"
	onionFile    = "onion.keys" // the current one and the one before, so that both change at once

	signingFile, certificateFile = "signing.key", "certificate" // in the identity's place
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
	for _, name := range k.files() {
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("relay: key file %s: %w: choose another folder, or move the old keys away", path, cmp.Or(err, fs.ErrExist))
		}
	}
	made := k.Made
	if made.IsZero() {
		made = time.Now()
	}
	// The identity, or the certificate in its place, comes last: a folder that has it is whole.
	if err := saveOnion(cache.WriteFile, dir, onionKeys{k.Onion, k.Previous, made.UTC().Truncate(time.Second)}); err != nil {
		return err
	}
	if err := SaveKey(filepath.Join(dir, linkFile), k.Link); err != nil {
		return err
	}
	if k.Identity != nil {
		return SaveKey(filepath.Join(dir, identityFile), k.Identity)
	}
	if err := SaveKey(filepath.Join(dir, signingFile), k.Signer.Key); err != nil {
		return err
	}
	if err := cache.WriteFile(filepath.Join(dir, certificateFile), k.Signer.Certificate.Append(nil)); err != nil {
		return fmt.Errorf("relay: certificate: %w", err)
	}
	return nil
}

// files are the names of those that Save writes.
func (k Keys) files() []string {
	if k.Identity == nil {
		return []string{signingFile, certificateFile, linkFile, onionFile}
	}
	return []string{identityFile, linkFile, onionFile}
}

// LoadKeys reads what Save wrote. It refuses a folder or files that others than their owner can read. It never makes a key: where one is
// missing or damaged, that is an error. It changes nothing in the folder, so that a relay may be using it.
func LoadKeys(dir string) (Keys, error) {
	var k Keys
	if err := CheckKeyFolder(dir); err != nil {
		return Keys{}, err
	}
	var err error
	if err = k.loadIdentity(dir, time.Now()); err != nil {
		return Keys{}, err
	}
	if k.Link, err = LoadKey[*ecdh.PrivateKey](filepath.Join(dir, linkFile)); err != nil {
		return Keys{}, err
	}
	path := filepath.Join(dir, onionFile)
	text, err := readKey(path)
	if err != nil {
		return Keys{}, err
	}
	defer clear(text)
	o, err := parseOnionKeys(text)
	if err != nil {
		return Keys{}, damaged(path, err)
	}
	k.Onion, k.Previous, k.Made = o.current, o.previous, o.since
	return k, nil
}

// CheckKeyFolder refuses a folder that others than its owner can read or write.
func CheckKeyFolder(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("relay: key folder: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("relay: %s: not a folder of keys", dir)
	}
	return exposed(dir, st)
}

// ExposedError says that others than its owner can read the file of a private key, or look into a folder of them.
type ExposedError struct {
	Path string
	Mode fs.FileMode // of the file or folder, with what it is
}

func (e *ExposedError) Error() string {
	what, mode := "read this private key", "600"
	if e.Mode.IsDir() {
		what, mode = "look into this folder of private keys", "700"
	}
	return fmt.Sprintf("relay: %s: others than its owner can %s (mode %04o): run chmod %s %[1]s", e.Path, what, e.Mode.Perm(), mode)
}

// CheckKeyMode refuses the file of a private key that others than its owner can read or write.
func CheckKeyMode(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	return exposed(path, st)
}

func exposed(path string, st fs.FileInfo) error {
	if runtime.GOOS == "windows" || st.Mode().Perm()&0o077 == 0 { // there are no modes there: the folder's access list counts
		return nil
	}
	return &ExposedError{path, st.Mode()}
}

// SaveKey writes one Ed25519 or X25519 private key to a new file that only its owner can read. A crash leaves the whole file or none.
func SaveKey(path string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("relay: %s: %w", path, err)
	}
	defer clear(der)
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("relay: key file %s: %w", path, fs.ErrExist)
	}
	f, err := cache.Create(path)
	if err != nil {
		return fmt.Errorf("relay: key file: %w", err)
	}
	defer os.Remove(f.Name())
	err = pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		if err = os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
			err = os.Rename(f.Name(), path) // a file system without links
		}
	}
	if err == nil {
		err = cache.SyncFolder(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("relay: key file: %w", err)
	}
	return nil
}

// mostKeyFile is more bytes than a key file has.
const mostKeyFile = 4096

// readKey reads a file that only its owner can read.
func readKey(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("relay: %s: %w: get it from a backup (peel keys import), or make a new node (peel init)", path, errors.Unwrap(err))
	}
	if err != nil {
		return nil, fmt.Errorf("relay: key file: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > mostKeyFile {
		return nil, damaged(path, errors.New("not a key file"))
	}
	if err := exposed(path, st); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("relay: key file: %w", err)
	}
	return b, nil
}

// damaged is the error of a key file that says nothing, with what to do.
func damaged(path string, err error) error {
	return fmt.Errorf("relay: %s: %w: move the keys of this folder elsewhere and bring back a backup (peel keys import), or make a new node (peel init)", path, err)
}

// LoadKey reads one private key of the kind K, which is ed25519.PrivateKey or *ecdh.PrivateKey (X25519).
func LoadKey[K ed25519.PrivateKey | *ecdh.PrivateKey](path string) (K, error) {
	var none K
	b, err := readKey(path)
	if err != nil {
		return none, err
	}
	defer clear(b)
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return none, damaged(path, errors.New("not one private key in PEM (PKCS #8)"))
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return none, damaged(path, err)
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
