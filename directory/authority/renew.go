package authority

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"peel/cell"
	"peel/directory"
)

const (
	// RenewWithin is how long before a certificate's end its operator is told to make the next one.
	RenewWithin = 14 * 24 * time.Hour

	// selfLife is for how long an authority that has its identity at hand certifies a signing key.
	selfLife = 60 * 24 * time.Hour

	certificateLook = time.Hour      // between two looks at the certificate
	certificateTell = 24 * time.Hour // between two warnings
)

// credentials are what an authority signs with.
type credentials struct {
	cert directory.Certificate
	key  ed25519.PrivateKey
}

// check refuses credentials that do not belong together, to this network, to an authority of it, or to now.
func (c *credentials) check(n *directory.Network, now time.Time, remedy string) error {
	if err := c.cert.Certifies(c.key); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	if c.cert.Relay {
		return fmt.Errorf("authority: the certificate is a relay's: certify a signing key for this authority: %s", remedy)
	}
	if id := n.ID(); c.cert.Network != id {
		return fmt.Errorf("authority: the certificate is for network %v, this is %v: certify a signing key for this network: %s", c.cert.Network, id, remedy)
	}
	if _, ok := n.Authority(c.cert.Identity); !ok {
		return fmt.Errorf("authority: %v is not among the authorities of network.toml", c.cert.Identity)
	}
	if err := c.cert.Valid(now); err != nil {
		return fmt.Errorf("authority: %w: %s", err, remedy)
	}
	return nil
}

// certifySelf makes a signing key and has the identity certify it. It holds from a day ago, for
// others' clocks.
func certifySelf(identity ed25519.PrivateKey, network cell.NetworkID, now time.Time) (*credentials, error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("authority: signing key: %w", err)
	}
	now = now.UTC().Truncate(time.Second)
	cert, err := directory.Certificate{
		Network: network, SigningKey: directory.SigningKey(pub), NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(selfLife),
	}.Certify(identity)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	return &credentials{cert, priv}, nil
}

// takeKeys checks the keys of a configuration, or makes those that are missing from Identity.
func (a *Authority) takeKeys(cfg *Config) error {
	c := &credentials{cfg.Certificate, cfg.SigningKey}
	if cfg.Certificate.Identity.IsZero() {
		if cfg.Identity == nil {
			return fmt.Errorf("authority: neither a certificate nor an identity to make one: %s", cfg.remedy())
		}
		var err error
		if c, err = certifySelf(cfg.Identity, a.network, a.started); err != nil {
			return err
		}
	}
	if err := c.check(cfg.Network, a.started, cfg.remedy()); err != nil {
		return err
	}
	a.self = c.cert.Identity
	a.credentials.Store(c)
	return nil
}

// certifyAnew makes another signing key where the identity is at hand and the certificate does not hold now: it was made by a clock that was
// wrong.
func (a *Authority) certifyAnew(now time.Time) error {
	if c := a.Certificate(); a.cfg.Identity == nil || c.Valid(now) == nil {
		return nil
	}
	next, err := certifySelf(a.cfg.Identity, a.network, now)
	if err == nil {
		err = a.Renew(next.cert, next.key)
	}
	return err
}

func (cfg *Config) remedy() string {
	if cfg.Remedy == "" {
		return "certify a new signing key with the identity"
	}
	return cfg.Remedy
}

// Renew makes the authority sign with another key from now on. Documents signed before stay good
// until their own certificate ends. It may be called at any time.
func (a *Authority) Renew(cert directory.Certificate, key ed25519.PrivateKey) error {
	c := &credentials{cert, key}
	if err := c.check(a.cfg.Network, a.now(), a.cfg.remedy()); err != nil {
		return err
	}
	if cert.Identity != a.self {
		return fmt.Errorf("authority: the certificate is of %v, but this authority is %v: restart to become another", cert.Identity, a.self)
	}
	if old := a.credentials.Swap(c); old.cert.SigningKey != cert.SigningKey {
		a.log.Info("signs with a new key", "until", stamp(cert.NotAfter))
	}
	return nil
}

// Certificate is the one that the authority signs under.
func (a *Authority) Certificate() directory.Certificate { return a.credentials.Load().cert }

// CertificateStatus is the certificate that an authority signs under, as JSON shows it.
type CertificateStatus struct {
	SigningKey string    `json:"signing_key"`
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	DaysLeft   int       `json:"days_left"` // whole days
	Warning    string    `json:"warning,omitempty"`
}

func (a *Authority) certificateStatus(now time.Time) CertificateStatus {
	c := a.Certificate()
	_, warning := needsRenewal(&c, now)
	return CertificateStatus{c.SigningKey.String(), c.NotBefore, c.NotAfter, int(c.NotAfter.Sub(now) / (24 * time.Hour)), warning}
}

// needsRenewal says how loudly to tell that a certificate needs a successor, and in which words; none: it does not.
func needsRenewal(c *directory.Certificate, now time.Time) (slog.Level, string) {
	switch left := c.NotAfter.Sub(now); {
	case left < 0:
		return slog.LevelError, "the certificate has expired: nothing this authority signs counts"
	case left < 24*time.Hour:
		return slog.LevelError, "the certificate ends today"
	case left <= RenewWithin:
		return slog.LevelWarn, fmt.Sprintf("the certificate ends in %d days", left/(24*time.Hour))
	}
	return slog.LevelInfo, ""
}

// keepCertificate tells of a certificate that is about to end, or makes the next one where the identity is at hand.
func (a *Authority) keepCertificate(ctx context.Context) {
	t := time.NewTicker(certificateLook)
	defer t.Stop()
	var told time.Time
	for {
		told = a.lookAtCertificate(ctx, told)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// lookAtCertificate returns when a warning was given last.
func (a *Authority) lookAtCertificate(ctx context.Context, told time.Time) time.Time {
	now, c := a.now(), a.Certificate()
	level, text := needsRenewal(&c, now)
	if text == "" {
		return told
	}
	if a.cfg.Identity != nil {
		next, err := certifySelf(a.cfg.Identity, a.network, now)
		if err == nil {
			err = a.Renew(next.cert, next.key)
		}
		if err == nil {
			return told
		}
		text += ", and no new one could be made: " + err.Error()
	}
	if !told.IsZero() && now.Sub(told) < certificateTell && level < slog.LevelError {
		return told
	}
	a.log.Log(ctx, level, text, "ends", stamp(c.NotAfter), "remedy", a.cfg.remedy())
	return now
}
