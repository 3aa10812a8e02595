package directory

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"peel/cell"
)

// Descriptor is what a relay says about itself, signed by its identity, or by a key that this has certified.
type Descriptor struct {
	Network   cell.NetworkID
	ID        cell.NodeID
	Nickname  string // 1 to 19 letters and digits
	Published time.Time
	LinkKey   cell.Key
	OnionKey  cell.Key
	Addrs     []netip.AddrPort // one of a family, IPv4 first
	Bandwidth uint64           // what the relay is willing to give, bytes per second
	Observed  uint64           // the most it has seen itself carry over 10 seconds of the last day, bytes per second
	Version   string

	Overloaded time.Time // the hour in which it last had to refuse what it should take; zero: none lately
	Paused     time.Time // until when it takes no circuits, as its traffic for the time is used up; zero: it takes them

	Contact   string        // how to reach its operator; may be empty
	Family    []cell.NodeID // other relays of its operator, sorted by their bytes (SortFamily)
	Policy    Policy
	Signature Signature64

	// Certificate says by which key it is signed, where the identity is elsewhere; nil: by the identity.
	Certificate *Certificate
}

// Advertised is the lesser of what the relay is willing to give and what it has seen itself carry.
func (d *Descriptor) Advertised() uint64 { return min(d.Bandwidth, d.Observed) }

// Sign fills in ID and Signature and returns the text. It refuses what has no text.
func (d *Descriptor) Sign(identity ed25519.PrivateKey) ([]byte, error) {
	pub, err := publicOf(identity)
	if err != nil {
		return nil, fmt.Errorf("directory: descriptor: %w", err)
	}
	d.ID, d.Certificate = pub, nil
	return d.sign(identity)
}

// SignBy is Sign with a signing key that the identity has certified.
func (d *Descriptor) SignBy(c Certificate, key ed25519.PrivateKey) ([]byte, error) {
	pub, err := publicOf(key)
	if err != nil {
		return nil, fmt.Errorf("directory: descriptor: %w", err)
	}
	if SigningKey(pub) != c.SigningKey {
		return nil, fmt.Errorf("directory: descriptor: the signing key is not the one of the certificate")
	}
	if err := c.Verify(); err != nil {
		return nil, err
	}
	d.ID, d.Certificate = c.Identity, &c
	return d.sign(key)
}

func (d *Descriptor) sign(key ed25519.PrivateKey) ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("directory: descriptor: %w", err)
	}
	text := d.appendBody(nil)
	d.Signature = sign(contextDescriptor, text, key)
	text = appendLine(text, "signature", d.Signature.String())
	if len(text) > MaxDescriptor {
		return nil, fmt.Errorf("directory: descriptor: %d bytes, but at most %d are allowed", len(text), MaxDescriptor)
	}
	return text, nil
}

func (d *Descriptor) check() error {
	if d.Network.IsZero() {
		return fmt.Errorf("it names no network")
	}
	if err := CheckNickname(d.Nickname); err != nil {
		return err
	}
	if !writableTime(d.Published) {
		return fmt.Errorf("published: must be a whole second of 1970 to 9999")
	}
	if d.LinkKey.IsZero() || d.OnionKey.IsZero() {
		return fmt.Errorf("link key or onion key missing")
	}
	if d.LinkKey == d.OnionKey {
		return fmt.Errorf("link key and onion key are the same")
	}
	if err := CheckAddrs(d.Addrs); err != nil {
		return err
	}
	if d.Bandwidth > MaxBandwidth || d.Observed > MaxBandwidth {
		return fmt.Errorf("bandwidth: at most %d bytes per second can be written", uint64(MaxBandwidth))
	}
	if err := checkVersion(d.Version); err != nil {
		return err
	}
	if !d.Overloaded.IsZero() && (!writableTime(d.Overloaded) || !d.Overloaded.Equal(d.Overloaded.Truncate(time.Hour))) {
		return fmt.Errorf("overloaded: must be a whole hour of 1970 to 9999")
	}
	if !d.Paused.IsZero() && !writableTime(d.Paused) {
		return fmt.Errorf("paused: must be a whole second of 1970 to 9999")
	}
	if err := CheckContact(d.Contact); err != nil {
		return fmt.Errorf("contact: %w", err)
	}
	if err := checkFamily(d.ID, d.Family); err != nil {
		return err
	}
	if err := d.checkCertificate(); err != nil {
		return err
	}
	return d.Policy.check()
}

// checkCertificate looks at what the certificate says, not at its signature.
func (d *Descriptor) checkCertificate() error {
	switch c := d.Certificate; {
	case c == nil:
		return nil
	case !c.Relay:
		return fmt.Errorf("the certificate is an authority's")
	case c.Network != d.Network:
		return fmt.Errorf("the certificate is for another network")
	case c.Identity != d.ID:
		return fmt.Errorf("the certificate is of another relay")
	default:
		return c.Valid(d.Published)
	}
}

// Append appends the text, with the signature as it is.
func (d *Descriptor) Append(b []byte) []byte {
	return appendLine(d.appendBody(b), "signature", d.Signature.String())
}

func (d *Descriptor) appendBody(b []byte) []byte {
	b = appendUint(b, "peel-descriptor", 1)
	b = appendLine(b, "network", d.Network.String())
	b = appendLine(b, "identity", d.ID.String())
	b = appendLine(b, "nickname", d.Nickname)
	b = appendTime(b, "published", d.Published)
	b = appendKey(b, "link-key", d.LinkKey)
	b = appendKey(b, "onion-key", d.OnionKey)
	b = appendAddrs(b, "addresses", d.Addrs)
	b = appendUint(b, "bandwidth", d.Bandwidth)
	b = appendUint(b, "observed", d.Observed)
	b = appendLine(b, "version", d.Version)
	if !d.Overloaded.IsZero() {
		b = appendTime(b, "overloaded", d.Overloaded)
	}
	if !d.Paused.IsZero() {
		b = appendTime(b, "paused", d.Paused)
	}
	if d.Contact != "" {
		b = appendLine(b, "contact", d.Contact)
	}
	b = appendFamily(b, "family", d.Family)
	b = appendRules(b, d.Policy)
	if d.Certificate != nil {
		b = d.Certificate.Append(b)
	}
	return b
}

// ParseDescriptor parses a descriptor and verifies that its identity is a sound key and signed it, or certified who did:
// the relay's proof that it is who it says.
func ParseDescriptor(text []byte) (*Descriptor, error) { return parseDescriptor(text, true) }

// signer is the key that must have signed: the identity, or the one that it certified.
func (d *Descriptor) signer() (cell.NodeID, error) {
	if d.Certificate == nil {
		return d.ID, nil
	}
	return cell.NodeID(d.Certificate.SigningKey), d.Certificate.Verify()
}

// parseDescriptor looks at the key and the signature only if signed is set, as parseVote does.
func parseDescriptor(text []byte, signed bool) (*Descriptor, error) {
	r := newReader("descriptor", text, MaxDescriptor)
	r.title("peel-descriptor")
	d := &Descriptor{
		Network:   r.network(),
		ID:        r.nodeID("identity"),
		Nickname:  r.nickname("nickname"),
		Published: r.time("published"),
		LinkKey:   r.key32("link-key"),
		OnionKey:  r.key32("onion-key"),
		Addrs:     r.addrs("addresses"),
		Bandwidth: r.uint("bandwidth", MaxBandwidth),
		Observed:  r.uint("observed", MaxBandwidth),
		Version:   r.version("version"),
	}
	if r.has("overloaded") {
		d.Overloaded = r.time("overloaded")
	}
	if r.has("paused") {
		d.Paused = r.time("paused")
	}
	if r.has("contact") {
		d.Contact = strings.Clone(r.take("contact"))
	}
	d.Family = r.family("family", d.ID)
	d.Policy = r.rules()
	if r.has(titleRelayCertificate) {
		c := r.certificate(true)
		d.Certificate = &c
	}
	end := r.pos
	d.Signature = r.signature("signature")
	if err := r.end(); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, &ParseError{Document: "descriptor", Reason: err.Error(), Err: err}
	}
	r.same(0, d.Append(nil))
	if signed && r.err == nil {
		if err := d.ID.Check(); err != nil {
			r.failAt(0, "identity: %w", err)
		} else if signer, err := d.signer(); err != nil {
			r.fail("%w", err)
		} else if !verify(contextDescriptor, text[:end], signer, d.Signature) {
			r.fail("the signature is not by %s over this text", signer)
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return d, nil
}
