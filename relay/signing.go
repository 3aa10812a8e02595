package relay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"peel/directory"
)

const (
	// RenewWithin is how long before a certificate's end its operator is told to make the next one.
	RenewWithin = 7 * 24 * time.Hour

	certificateLook = time.Hour      // between two looks at the certificate
	certificateTell = 24 * time.Hour // between two warnings
)

// A Signer is a key that signs a relay's descriptors in place of its identity, which is elsewhere and has certified it.
type Signer struct {
	Certificate directory.Certificate
	Key         ed25519.PrivateKey
}

// check refuses a key that is not the certificate's, or a certificate that is no relay's.
func (s *Signer) check() error {
	if !s.Certificate.Relay {
		return errors.New("relay: the certificate is an authority's: certify the signing key with --relay (peel keys certify)")
	}
	if err := s.Certificate.Certifies(s.Key); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	return nil
}

// holds says why the signer cannot be used on this network now; nil: it can.
func (s *Signer) holds(n *directory.Network, now time.Time) error {
	if err := s.check(); err != nil {
		return err
	}
	if id := n.ID(); s.Certificate.Network != id {
		return fmt.Errorf("relay: the certificate is for network %v, this is %v: certify a signing key for this network (peel keys rotate)", s.Certificate.Network, id)
	}
	if err := s.Certificate.Valid(now); err != nil {
		return fmt.Errorf("relay: %w: make the next signing key: peel keys rotate", err)
	}
	return nil
}

// The files of a key folder whose identity is elsewhere; of each there may be more, as signing-….key and certificate-….
const (
	signingFiles     = "signing*.key"
	certificateFiles = "certificate*"
)

// filesLike are the files of a folder, in order, whose names are like a pattern; the folder's own name may have any letters.
func filesLike(dir, pattern string) (names []string, err error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	for _, e := range all {
		if ok, err := filepath.Match(pattern, e.Name()); err != nil {
			return nil, fmt.Errorf("relay: %w", err)
		} else if ok {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, nil
}

// LoadSigner finds in a key folder, of the certificates that hold now and whose signing key is there, the one that ends last; where none
// holds, the one that ends last. nil: there is none.
func LoadSigner(dir string, now time.Time) (*Signer, error) {
	if err := CheckKeyFolder(dir); err != nil {
		return nil, err
	}
	names, err := filesLike(dir, signingFiles)
	if err != nil {
		return nil, err
	}
	keys := map[directory.SigningKey]ed25519.PrivateKey{}
	for _, name := range names {
		k, err := LoadKey[ed25519.PrivateKey](name)
		if err != nil {
			return nil, err
		}
		keys[directory.SigningKey(k.Public().(ed25519.PublicKey))] = k
	}
	if names, err = filesLike(dir, certificateFiles); err != nil {
		return nil, err
	}
	var best *Signer
	for _, name := range names {
		text, err := readCertificate(name)
		if err != nil {
			return nil, err
		}
		c, err := directory.ParseRelayCertificate(text)
		if err != nil {
			return nil, fmt.Errorf("relay: %s: %w", name, err)
		}
		if k := keys[c.SigningKey]; k != nil && (best == nil || better(&c, &best.Certificate, now)) {
			best = &Signer{c, k}
		}
	}
	return best, nil
}

// better says whether c is to be used rather than d.
func better(c, d *directory.Certificate, now time.Time) bool {
	if good, was := c.Valid(now) == nil, d.Valid(now) == nil; good != was {
		return good
	}
	return c.NotAfter.After(d.NotAfter)
}

func readCertificate(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err == nil && (!st.Mode().IsRegular() || st.Size() > directory.MaxCertificate) {
		err = fmt.Errorf("%s: not a certificate", path)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("relay: certificate: %w", err)
	}
	return text, nil
}

// loadIdentity gives k the identity of a folder, or, where that is elsewhere, the signer in its place.
func (k *Keys) loadIdentity(dir string, now time.Time) error {
	var err error
	k.Identity, err = LoadKey[ed25519.PrivateKey](filepath.Join(dir, identityFile))
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s, bad := LoadSigner(dir, now)
	switch {
	case bad != nil:
		return bad
	case s != nil:
		k.Signer = s
		return nil
	}
	if names, _ := filesLike(dir, signingFiles); len(names) > 0 {
		return fmt.Errorf("relay: %s: no certificate for the signing key in this folder: certify it where the identity is (peel keys certify --relay), and bring the certificate here (peel keys import)", dir)
	}
	return err
}

// Renew has the relay sign with another key from now on, and tell the authorities. The identity must be the same. It may be called at any
// time.
func (r *Relay) Renew(s Signer) error {
	if err := r.MayRenew(s); err != nil {
		return err
	}
	old := r.signer.Load()
	if s.Certificate == old.Certificate {
		return nil
	}
	if !r.signer.CompareAndSwap(old, &signing{s, make(chan struct{})}) {
		return r.Renew(s) // another was taken meanwhile
	}
	close(old.replaced)
	r.log.Info("signs with a new key", "until", s.Certificate.NotAfter.UTC().Format(time.RFC3339))
	return nil
}

// signing is the signer in use.
type signing struct {
	Signer
	replaced chan struct{} // closed when another takes its place
}

// sign signs a descriptor with what this relay signs with now.
func (r *Relay) sign(d *directory.Descriptor, now time.Time) ([]byte, error) {
	s := r.signer.Load()
	if s == nil {
		return d.Sign(r.cfg.Keys.Identity)
	}
	if err := s.Certificate.Valid(now); err != nil {
		return nil, fmt.Errorf("%w: make the next signing key: peel keys rotate", err)
	}
	return d.SignBy(s.Certificate, s.Key)
}

// MayRenew says what keeps Renew from taking a signing key, if anything does.
func (r *Relay) MayRenew(s Signer) error {
	if r.signer.Load() == nil {
		return errors.New("relay: this relay signs with its identity")
	}
	if err := s.holds(r.cfg.Network, r.cfg.Now()); err != nil {
		return err
	}
	if s.Certificate.Identity != r.id {
		return fmt.Errorf("relay: the certificate is of %v, but this relay is %v: restart to become another", s.Certificate.Identity, r.id)
	}
	return nil
}

// Certificate is that of the key the relay signs with; false: it signs with its identity.
func (r *Relay) Certificate() (directory.Certificate, bool) {
	if s := r.signer.Load(); s != nil {
		return s.Certificate, true
	}
	return directory.Certificate{}, false
}

// needsRenewal says how loudly to tell that a certificate needs a successor, and in which words; none: it does not.
func needsRenewal(c *directory.Certificate, now time.Time) (slog.Level, string) {
	switch left := c.NotAfter.Sub(now); {
	case left < 0:
		return slog.LevelError, "the certificate of the signing key has expired: authorities take nothing from this relay any more"
	case left < 24*time.Hour:
		return slog.LevelError, "the certificate of the signing key ends today"
	case left <= RenewWithin:
		return slog.LevelWarn, fmt.Sprintf("the certificate of the signing key ends in %d days", left/(24*time.Hour))
	}
	return slog.LevelInfo, ""
}

// CertificateWarning says that the certificate needs a successor; empty: it does not, or there is none.
func (r *Relay) CertificateWarning(now time.Time) string {
	c, ok := r.Certificate()
	if !ok {
		return ""
	}
	_, text := needsRenewal(&c, now)
	return text
}

// keepCertificate tells of a certificate that is about to end: once a day, and each hour on the last one.
func (r *Relay) keepCertificate(ctx context.Context) {
	if r.signer.Load() == nil {
		return
	}
	t := time.NewTicker(certificateLook)
	defer t.Stop()
	var told time.Time
	for {
		now := r.cfg.Now()
		c, _ := r.Certificate()
		level, text := needsRenewal(&c, now)
		if text != "" && (told.IsZero() || level >= slog.LevelError || now.Sub(told) >= certificateTell) {
			told = now
			r.log.Log(ctx, level, text, "ends", c.NotAfter.UTC().Format(time.RFC3339), "remedy", strings.ReplaceAll(renewing, "\n", " "))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// renewing is what to do about a certificate that ends.
const renewing = "peel keys rotate --config FILE, then peel reload (peel keys --help tells the steps)"
