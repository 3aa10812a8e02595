package directory

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"time"

	"peel/cell"
)

const (
	MaxCertificateLife      = 90 * 24 * time.Hour // how long an authority's signing key may be certified for
	MaxRelayCertificateLife = 30 * 24 * time.Hour // and a relay's
)

// SigningKey is the public half of the Ed25519 key with which an authority signs votes and headers, and a relay whose identity is
// elsewhere its descriptors.
type SigningKey [32]byte

// String returns the key in unpadded base64.
func (k SigningKey) String() string { return base64.RawStdEncoding.EncodeToString(k[:]) }

func (r *reader) signingKey(key string) SigningKey {
	k, err := cell.ParseKey(r.take(key))
	return parsed(r, SigningKey(k), err)
}

// Certificate is an authority's or a relay's word, signed by its identity, that a signing key speaks for it. One never counts as the other.
type Certificate struct {
	Relay      bool // of a relay; false: of an authority
	Network    cell.NetworkID
	Identity   cell.NodeID
	SigningKey SigningKey
	NotBefore  time.Time
	NotAfter   time.Time
	Signature  Signature64
}

// MaxLife is how long it may hold.
func (c *Certificate) MaxLife() time.Duration {
	if c.Relay {
		return MaxRelayCertificateLife
	}
	return MaxCertificateLife
}

// title is how its first line begins, and context what its signature is over beside its text.
func (c *Certificate) title() string {
	if c.Relay {
		return titleRelayCertificate
	}
	return "peel-certificate"
}

func (c *Certificate) context() string {
	if c.Relay {
		return contextRelayCertificate
	}
	return contextCertificate
}

const titleRelayCertificate = "peel-relay-certificate"

// Certify fills in Identity and Signature. It refuses a life of none or more than MaxLife.
func (c Certificate) Certify(identity ed25519.PrivateKey) (Certificate, error) {
	pub, err := publicOf(identity)
	if err != nil {
		return Certificate{}, fmt.Errorf("directory: certificate: %w", err)
	}
	c.Identity = pub
	c.NotBefore, c.NotAfter = c.NotBefore.UTC(), c.NotAfter.UTC()
	if err := c.check(); err != nil {
		return Certificate{}, fmt.Errorf("directory: certificate: %w", err)
	}
	c.Signature = sign(c.context(), c.appendBody(nil), identity)
	return c, nil
}

func (c *Certificate) check() error {
	if !writableTime(c.NotBefore) || !writableTime(c.NotAfter) {
		return fmt.Errorf("its times must be whole seconds of 1970 to 9999")
	}
	if !c.NotBefore.Before(c.NotAfter) {
		return fmt.Errorf("it ends before it begins")
	}
	if life := c.NotAfter.Sub(c.NotBefore); life > c.MaxLife() {
		return fmt.Errorf("it lasts %d days, but at most %d are allowed", life/(24*time.Hour), c.MaxLife()/(24*time.Hour))
	}
	if err := c.Identity.Check(); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if err := cell.NodeID(c.SigningKey).Check(); err != nil {
		return fmt.Errorf("signing key %s is no sound Ed25519 key", c.SigningKey)
	}
	return nil
}

// Certifies says why a private key is not the one that the certificate speaks for, or why nobody gave his word for it; nil: it is.
func (c *Certificate) Certifies(key ed25519.PrivateKey) error {
	if err := c.Verify(); err != nil {
		return err
	}
	if n := len(key); n != ed25519.PrivateKeySize {
		return fmt.Errorf("a certificate needs its signing key of %d bytes, this one has %d", ed25519.PrivateKeySize, n)
	}
	if pub, err := publicOf(key); err != nil || SigningKey(pub) != c.SigningKey {
		return fmt.Errorf("the signing key is not the one of the certificate")
	}
	return nil
}

// Append appends the certificate's text.
func (c Certificate) Append(b []byte) []byte {
	b = c.appendBody(b)
	return appendLine(b, "signature", c.Signature.String())
}

func (c *Certificate) appendBody(b []byte) []byte {
	b = appendUint(b, c.title(), 1)
	b = appendLine(b, "network", c.Network.String())
	b = appendLine(b, "identity", c.Identity.String())
	b = appendLine(b, "signing-key", c.SigningKey.String())
	b = appendTime(b, "not-before", c.NotBefore)
	return appendTime(b, "not-after", c.NotAfter)
}

// ParseCertificate parses an authority's certificate and verifies its signature, but not its time (see Valid).
func ParseCertificate(text []byte) (Certificate, error) { return parseCertificate(text, false) }

// ParseRelayCertificate is ParseCertificate for a relay's.
func ParseRelayCertificate(text []byte) (Certificate, error) { return parseCertificate(text, true) }

func parseCertificate(text []byte, relay bool) (Certificate, error) {
	r := newReader("certificate", text, MaxCertificate)
	c := r.certificate(relay)
	if err := r.verifyCertificate(&c); err != nil {
		return Certificate{}, err
	}
	if err := r.end(); err != nil {
		return Certificate{}, err
	}
	return c, nil
}

// certificate takes the seven lines of a certificate, wherever they stand; its keys and its
// signature are left to Verify.
func (r *reader) certificate(relay bool) Certificate {
	from := r.pos
	c := Certificate{Relay: relay}
	r.title(c.title())
	c = Certificate{
		Relay:      relay,
		Network:    r.network(),
		Identity:   r.nodeID("identity"),
		SigningKey: r.signingKey("signing-key"),
		NotBefore:  r.time("not-before"),
		NotAfter:   r.time("not-after"),
		Signature:  r.signature("signature"),
	}
	if r.err == nil {
		r.same(from, c.Append(nil))
	}
	return c
}

func (r *reader) verifyCertificate(c *Certificate) error {
	if r.err == nil {
		if err := c.Verify(); err != nil {
			r.fail("%w", err)
		}
	}
	return r.err
}

// Verify refuses a certificate that its identity did not sign, that lasts too long, or whose keys
// are not sound. It does not look at the time.
func (c *Certificate) Verify() error {
	if err := c.check(); err != nil {
		return fmt.Errorf("directory: certificate: %w", err)
	}
	if !verify(c.context(), c.appendBody(nil), c.Identity, c.Signature) {
		return fmt.Errorf("directory: certificate: the signature is not by %s over this text", c.Identity)
	}
	return nil
}

// Valid returns an error that is ErrCertificate if the certificate does not hold at a time.
func (c *Certificate) Valid(at time.Time) error {
	switch {
	case at.Before(c.NotBefore):
		return fmt.Errorf("%w: of %s, not valid before %s", ErrCertificate, c.Identity, c.NotBefore.Format(timeFormat))
	case at.After(c.NotAfter):
		return fmt.Errorf("%w: of %s, expired on %s", ErrCertificate, c.Identity, c.NotAfter.Format(timeFormat))
	}
	return nil
}
