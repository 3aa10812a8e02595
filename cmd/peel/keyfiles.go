package main

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"peel/cell"
	"peel/cmd/peel/internal/conf"
	"peel/cmd/peel/internal/sealed"
	"peel/directory"
	"peel/directory/authority"
	"peel/directory/cache"
	"peel/relay"
)

// The files of an authority's key folder. Of the signing keys and certificates there may be more, as signing-….key and certificate-….
const (
	identityFile    = "identity.key"
	signingFile     = "signing.key"
	certificateFile = "certificate"
	linkFile        = "link.key"

	sealedFile = "identity.sealed" // where peel init puts an identity that is to be moved away
)

// The kinds of sealed files.
const (
	kindIdentity = "identity"
	kindKeys     = "keys"
)

// short is a signing key as it stands in names of files.
func short(k directory.SigningKey) string {
	return strings.NewReplacer("+", "-", "/", "_").Replace(k.String()[:10])
}

// mostFile bounds what the verbs read of a file.
const mostFile = 1 << 20

func readFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, about(path, "this is a folder: name a file")
	}
	if !st.Mode().IsRegular() || st.Size() > mostFile {
		return nil, about(path, "not a file of at most %d bytes", mostFile)
	}
	return os.ReadFile(path)
}

// putNew writes a file that must not have been there, as a whole or not at all. Only its owner can read it.
func putNew(path string, text []byte) error {
	if err := checkNew(path); err != nil {
		return err
	}
	return cache.WriteFile(path, text)
}

// checkNew says why putNew would not write a file.
func checkNew(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return about(path, "%w: nothing was written", err)
	}
	return folderFault(filepath.Dir(path))
}

// signingPairs are the certificates of a key folder whose signing keys are there too. Files that hold no certificate are told of.
func signingPairs(dir string) (pairs []authority.Config, err error) {
	keys := map[directory.SigningKey]ed25519.PrivateKey{}
	names, err := filepath.Glob(filepath.Join(dir, "signing*.key"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		k, err := relay.LoadKey[ed25519.PrivateKey](name)
		if err != nil {
			return nil, err
		}
		keys[directory.SigningKey(k.Public().(ed25519.PublicKey))] = k
	}
	if names, err = filepath.Glob(filepath.Join(dir, certificateFile+"*")); err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := readFile(name)
		if err != nil {
			return nil, err
		}
		c, err := directory.ParseCertificate(text)
		if err != nil {
			return nil, about(name, "%w", err)
		}
		if k := keys[c.SigningKey]; k != nil {
			pairs = append(pairs, authority.Config{Certificate: c, SigningKey: k})
		}
	}
	return pairs, nil
}

// authorityKeys are what an authority signs with: of the pairs in its folder that are valid the one that ends last, and the identity, where
// that is at hand.
func authorityKeys(dir string, now time.Time) (c authority.Config, err error) {
	if err := relay.CheckKeyFolder(dir); err != nil {
		return c, err
	}
	pairs, err := signingPairs(dir)
	if err != nil {
		return c, err
	}
	best := authority.Config{}
	for _, p := range pairs {
		better := p.Certificate.NotAfter.After(best.Certificate.NotAfter)
		if good, was := p.Certificate.Valid(now) == nil, best.Certificate.Valid(now) == nil; good != was {
			better = good
		}
		if better {
			best = p
		}
	}
	id, err := relay.LoadKey[ed25519.PrivateKey](filepath.Join(dir, identityFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return best, nil
	case err != nil:
		return c, err
	case best.Certificate.Valid(now) != nil:
		best = authority.Config{} // the identity makes a new pair
	}
	best.Identity = id
	return best, nil
}

// cannotSign says why an authority cannot start with its keys; nil: it can, as far as they go.
func cannotSign(c authority.Config, now time.Time) error {
	switch {
	case c.Identity != nil:
		return nil // it makes what is missing
	case c.Certificate.Identity.IsZero():
		return errors.New("neither a certificate nor an identity to make one")
	}
	return c.Certificate.Valid(now)
}

// isCertificate says whether a text is one, and parseCertificate reads it, whichever kind it is.
func isCertificate(text []byte) bool {
	return bytes.HasPrefix(text, []byte("peel-certificate ")) || bytes.HasPrefix(text, []byte("peel-relay-certificate "))
}

func parseCertificate(text []byte) (directory.Certificate, error) {
	if bytes.HasPrefix(text, []byte("peel-relay-certificate ")) {
		return directory.ParseRelayCertificate(text)
	}
	return directory.ParseCertificate(text)
}

// A signedNode is an authority, or a relay, whose signing keys are certified.
type signedNode struct {
	relay       bool
	keys        string // its folder
	networkFile string
	network     *directory.Network
}

// signedNodeOf reads the configuration of a node to renew keys for.
func signedNodeOf(config string) (n signedNode, err error) {
	kind, err := conf.KindOf(config)
	if err != nil {
		return n, inUse(err)
	}
	switch kind {
	case "relay":
		var f conf.Relay
		if err := conf.Load(config, &f); err != nil {
			return n, inUse(err)
		}
		n = signedNode{relay: true, keys: f.Keys, networkFile: f.Network}
	case "authority":
		var f conf.Authority
		if err := conf.Load(config, &f); err != nil {
			return n, inUse(err)
		}
		n = signedNode{keys: f.Keys, networkFile: f.Network}
	default:
		return n, &usageError{fmt.Errorf("%s is the configuration of a %s: give that of an authority or a relay", config, kind)}
	}
	n.network, err = conf.LoadNetwork(n.networkFile)
	return n, inUse(err)
}

// takes says why an identity certifies nothing that counts for the node; nil: it does.
func (n *signedNode) takes(id cell.NodeID) error {
	if !n.relay {
		if _, ok := n.network.Authority(id); !ok {
			return fmt.Errorf("%v is not among the authorities of %s: the certificate would count for nothing", id, n.networkFile)
		}
		return nil
	}
	s, err := relay.LoadSigner(n.keys, time.Now())
	if err != nil {
		return err
	}
	own, err := n.identity()
	if err != nil {
		return err
	}
	is := id
	if own != nil {
		is = idOf(own)
	} else if s != nil {
		is = s.Certificate.Identity
	}
	if is != id {
		return fmt.Errorf("the identity is %v, but this relay is %v: the certificate would make it another relay", id, is)
	}
	return nil
}

// identity is that of the node, if it lies in its folder; nil: it is elsewhere.
func (n *signedNode) identity() (ed25519.PrivateKey, error) {
	if err := relay.CheckKeyFolder(n.keys); err != nil {
		return nil, err
	}
	id, err := relay.LoadKey[ed25519.PrivateKey](filepath.Join(n.keys, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return id, err
}

// pemOf is a private key as PKCS #8 in PEM.
func pemOf(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// A namedKey is a key, or the certificate of one, and the name of its file.
type namedKey struct {
	name string
	key  any // ed25519.PrivateKey, *ecdh.PrivateKey or certificateText
}

// certificateText is a certificate as it stands in its file.
type certificateText []byte

// What PEM says of the two.
const (
	pemKey         = "PRIVATE KEY"
	pemCertificate = "PEEL CERTIFICATE"
)

// pack writes keys as the secret of a sealed file (spec/keys.md, section 3).
func pack(keys []namedKey) ([]byte, error) {
	var b []byte
	for _, k := range keys {
		text, err := []byte(nil), error(nil)
		if cert, ok := k.key.(certificateText); ok {
			text = pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: cert})
		} else if text, err = pemOf(k.key); err != nil {
			return nil, err
		}
		b = append(append(b, k.name+"\n"...), text...)
	}
	return b, nil
}

// unpack reads what pack wrote.
func unpack(secret []byte) (keys []namedKey, err error) {
	for len(secret) > 0 {
		block, rest := pem.Decode(secret)
		if block == nil || block.Type != pemKey && block.Type != pemCertificate || len(block.Headers) > 0 {
			return nil, errors.New("a key in it cannot be read")
		}
		name, _, _ := strings.Cut(string(secret), "\n")
		ours := strings.HasSuffix(name, ".key")
		if block.Type == pemCertificate {
			ours = strings.HasPrefix(name, certificateFile)
		}
		if name != filepath.Base(name) || !ours || strings.HasPrefix(name, ".") {
			return nil, fmt.Errorf("a key in it is called %q", name)
		}
		var key any
		if block.Type == pemCertificate {
			_, err = parseCertificate(block.Bytes)
			key = certificateText(block.Bytes)
		} else {
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		}
		if err != nil {
			return nil, fmt.Errorf("%s in it: %w", name, err)
		}
		keys, secret = append(keys, namedKey{name, key}), rest
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return keys, nil
}

func idOf(k ed25519.PrivateKey) cell.NodeID { return cell.NodeID(k.Public().(ed25519.PublicKey)) }

// sealIdentity writes an identity under a passphrase into a new file.
func sealIdentity(path string, id ed25519.PrivateKey, phrase []byte) error {
	secret, err := pack([]namedKey{{identityFile, id}})
	if err != nil {
		return err
	}
	defer clear(secret)
	text, err := sealed.Seal(kindIdentity, idOf(id).String(), secret, phrase, sealed.Usual)
	if err != nil {
		return &usageError{err}
	}
	return putNew(path, text)
}

// openSealed opens a sealed file of a kind ("": any), and returns the keys in it.
func openSealed(path, kind string, p *passphrase, c asker) ([]namedKey, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	f, err := sealed.Parse(text)
	if err != nil {
		return nil, about(path, "%w", err)
	}
	if kind != "" && f.Kind != kind {
		return nil, fmt.Errorf("%s holds %s, not %s", path, f.Kind, kind)
	}
	phrase, err := p.get(path, false, c)
	if err != nil {
		return nil, err
	}
	defer clear(phrase)
	secret, err := f.Open(phrase)
	if err != nil {
		return nil, about(path, "%w", err)
	}
	defer clear(secret)
	keys, err := unpack(secret)
	if err != nil {
		return nil, about(path, "%w", err)
	}
	for _, k := range keys {
		if id, ok := identityIn(k); ok && id.String() != f.Public {
			return nil, fmt.Errorf("%s says it is of %s, but the identity in it is %v", path, f.Public, id)
		}
	}
	return keys, nil
}

// identityIn is whose a key is: the identity's own, or that which a certificate is of; false: the key does not say.
func identityIn(k namedKey) (id cell.NodeID, ok bool) {
	switch key := k.key.(type) {
	case ed25519.PrivateKey:
		return idOf(key), k.name == identityFile
	case certificateText:
		c, err := parseCertificate(key)
		return c.Identity, err == nil
	}
	return id, false
}

// loadIdentity reads an identity, sealed or in PEM.
func loadIdentity(path string, p *passphrase, c asker) (ed25519.PrivateKey, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, onTheLine(err)
	}
	if !sealed.Is(text) {
		return relay.LoadKey[ed25519.PrivateKey](path)
	}
	keys, err := openSealed(path, kindIdentity, p, c)
	if err != nil {
		return nil, err
	}
	id, ok := keys[0].key.(ed25519.PrivateKey)
	if !ok || len(keys) != 1 {
		return nil, fmt.Errorf("%s holds something else than an identity", path)
	}
	return id, nil
}

// folderKeys are all keys of a folder, and the certificates of those that sign.
func folderKeys(dir string) (keys []namedKey, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil {
		return nil, err
	}
	for _, path := range names {
		name := filepath.Base(path)
		if id, err := relay.LoadKey[ed25519.PrivateKey](path); err == nil {
			keys = append(keys, namedKey{name, id})
			continue
		}
		k, err := relay.LoadKey[*ecdh.PrivateKey](path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, namedKey{name, k})
	}
	if names, err = filepath.Glob(filepath.Join(dir, certificateFile+"*")); err != nil {
		return nil, err
	}
	for _, path := range names {
		text, err := readFile(path)
		if err != nil {
			return nil, err
		}
		cert, err := parseCertificate(text)
		if err != nil {
			return nil, about(path, "%w", err)
		}
		if slices.ContainsFunc(keys, func(k namedKey) bool {
			signs, ok := k.key.(ed25519.PrivateKey)
			return ok && directory.SigningKey(idOf(signs)) == cert.SigningKey
		}) {
			keys = append(keys, namedKey{filepath.Base(path), certificateText(text)})
		}
	}
	return keys, nil
}

// putKeys writes keys into a folder that has none of them, each as a whole.
func putKeys(dir string, keys []namedKey) error {
	for _, k := range keys {
		if _, err := os.Lstat(filepath.Join(dir, k.name)); err == nil {
			return fmt.Errorf("%s is there already: nothing was written; move it away first", filepath.Join(dir, k.name))
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, k := range keys {
		path := filepath.Join(dir, k.name)
		err := error(nil)
		if cert, ok := k.key.(certificateText); ok {
			err = cache.WriteFile(path, cert)
		} else {
			err = relay.SaveKey(path, k.key)
		}
		if err != nil {
			return err
		}
	}
	if ofRelay(keys) {
		return relay.SaveOnionKey(dir)
	}
	return nil
}
