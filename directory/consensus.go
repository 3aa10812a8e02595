package directory

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"sort"
	"time"

	"peel/cell"
)

// Limits of a consensus.
const (
	MaxMethod     = 1000
	MaxSignatures = 64
	minEntry      = 200 // an entry's text is longer than this: it bounds what a count makes us allocate
)

// Header is the signed part of a consensus: small, whatever the number of relays.
type Header struct {
	Network    cell.NetworkID
	Method     int       // how it was computed from the votes
	ValidAfter time.Time // it holds from here …
	FreshUntil time.Time // … there should be a newer one from here on …
	ValidUntil time.Time // … and it holds no more after this
	Params     Params    // nil when the authorities set none
	Shared     SharedRandom
	Weights    Weights
	Relays     int    // how many entries there are
	Root       Digest // Merkle root over their texts
}

// Signature is one authority's signature over a header's text, with the certificate of the key.
type Signature struct {
	Certificate Certificate
	Signature   Signature64
}

// SignedHeader is a header with signatures, ascending by the signers' identities: a document of
// its own when authorities exchange signatures, and the front of a consensus.
type SignedHeader struct {
	Header
	Signatures []Signature
}

// Consensus is what the authorities agreed on for a period: the relays, ascending by identity,
// under a signed header.
type Consensus struct {
	SignedHeader
	Entries []Entry
}

// Append appends the text that is signed.
func (h *Header) Append(b []byte) []byte {
	b = appendUint(b, "peel-consensus", 1)
	b = appendLine(b, "network", h.Network.String())
	b = appendUint(b, "method", uint64(h.Method))
	b = appendTime(b, "valid-after", h.ValidAfter)
	b = appendTime(b, "fresh-until", h.FreshUntil)
	b = appendTime(b, "valid-until", h.ValidUntil)
	b = h.Params.append(b)
	b = h.Shared.append(b)
	b = appendLine(b, "weights", h.Weights.String())
	b = appendUint(b, "relays", uint64(h.Relays))
	return appendLine(b, "root", h.Root.String())
}

// Digest returns the digest of the text that is signed: it names the consensus.
func (h *Header) Digest() Digest { return DigestOf(h.Append(nil)) }

// check refuses a header that has no text.
func (h *Header) check() error {
	if h.Method < 1 || h.Method > MaxMethod {
		return fmt.Errorf("method %d: must be 1 to %d", h.Method, MaxMethod)
	}
	if !writableTime(h.ValidAfter) || !writableTime(h.FreshUntil) || !writableTime(h.ValidUntil) {
		return fmt.Errorf("its times must be whole seconds of 1970 to 9999")
	}
	if !h.ValidAfter.Before(h.FreshUntil) || h.ValidUntil.Before(h.FreshUntil) {
		return fmt.Errorf("valid-after, fresh-until and valid-until are out of order")
	}
	if h.Relays < 0 || h.Relays > MaxRelays {
		return fmt.Errorf("%d relays, but at most %d are allowed", h.Relays, MaxRelays)
	}
	for _, n := range h.Weights.named() {
		if *n.value < 0 || *n.value > WeightScale {
			return fmt.Errorf("weight %s = %d: must be 0 to %d", n.name, *n.value, WeightScale)
		}
	}
	if err := h.Shared.check(); err != nil {
		return err
	}
	return h.Params.checkNames()
}

// Sign signs the header with the key that the certificate is for.
func (h *Header) Sign(cert Certificate, signing ed25519.PrivateKey) (Signature, error) {
	pub, err := publicOf(signing)
	if err != nil {
		return Signature{}, fmt.Errorf("directory: consensus: %w", err)
	}
	if pub != cert.SigningKey {
		return Signature{}, fmt.Errorf("directory: consensus: the signing key is not the one of the certificate")
	}
	if err := h.check(); err != nil {
		return Signature{}, fmt.Errorf("directory: consensus: %w", err)
	}
	return Signature{Certificate: cert, Signature: sign(contextConsensus, h.Append(nil), signing)}, nil
}

// CheckSignature returns an error unless the signature is over this header, by a key certified for
// this network when the header begins to hold. Whether the signer is an authority is left to the
// caller (Network.Authority).
func (h *Header) CheckSignature(s *Signature) error { return h.checkSignature(s, h.Append(nil)) }

func (h *Header) checkSignature(s *Signature, text []byte) error {
	c := &s.Certificate
	if c.Network != h.Network {
		return fmt.Errorf("%w: of %s, for another network", ErrCertificate, c.Identity)
	}
	if err := c.Verify(); err != nil {
		return err
	}
	if !verify(contextConsensus, text, c.SigningKey, s.Signature) {
		return fmt.Errorf("directory: consensus: the signature of %s is not over this header", c.Identity)
	}
	return c.Valid(h.ValidAfter)
}

// Add adds a signature at its place, in the stead of an older one of the same authority.
func (s *SignedHeader) Add(sig Signature) {
	i, found := slices.BinarySearchFunc(s.Signatures, sig, func(a, b Signature) int {
		return bytes.Compare(a.Certificate.Identity[:], b.Certificate.Identity[:])
	})
	if found {
		s.Signatures[i] = sig
		return
	}
	s.Signatures = slices.Insert(s.Signatures, i, sig)
}

// Append appends the text of the header and its signatures.
func (s *SignedHeader) Append(b []byte) []byte {
	b = s.Header.Append(b)
	for i := range s.Signatures {
		b = s.Signatures[i].Certificate.Append(b)
		b = appendLine(b, "header-signature", s.Signatures[i].Signature.String())
	}
	return b
}

// Append appends the text of the whole consensus.
func (c *Consensus) Append(b []byte) []byte {
	b = c.SignedHeader.Append(b)
	for i := range c.Entries {
		b = c.Entries[i].Append(b)
	}
	return b
}

// Encode returns the text of the whole consensus, or an error if there is none that ParseConsensus
// takes: an entry that cannot be written, entries out of order, not as many as the header says or
// not those under its root.
func (c *Consensus) Encode() ([]byte, error) {
	if err := c.SignedHeader.check(); err != nil {
		return nil, fmt.Errorf("directory: consensus: %w", err)
	}
	for i := range c.Entries {
		if err := c.Entries[i].Check(); err != nil {
			return nil, err
		}
		if i > 0 {
			if err := inOrder(&c.Entries[i-1].ID, &c.Entries[i].ID); err != nil {
				return nil, fmt.Errorf("directory: consensus: %w", err)
			}
		}
	}
	if err := c.checkRoot(); err != nil {
		return nil, err
	}
	text := c.Append(nil)
	if len(text) > MaxConsensus {
		return nil, fmt.Errorf("directory: consensus: %d bytes, but at most %d are allowed", len(text), MaxConsensus)
	}
	return text, nil
}

func (s *SignedHeader) check() error {
	if err := s.Header.check(); err != nil {
		return err
	}
	if len(s.Signatures) > MaxSignatures {
		return fmt.Errorf("%d signatures, but at most %d are allowed", len(s.Signatures), MaxSignatures)
	}
	return nil
}

// checkRoot returns a RootError unless the entries are those the header speaks of.
func (c *Consensus) checkRoot() error {
	if root := Root(c.Entries); len(c.Entries) != c.Relays || root != c.Root {
		return &RootError{Have: root, Want: c.Root, HaveRelays: len(c.Entries), WantRelays: c.Relays}
	}
	return nil
}

// Lookup returns the entry of a relay.
func (c *Consensus) Lookup(id cell.NodeID) (*Entry, bool) {
	i := sort.Search(len(c.Entries), func(i int) bool { return bytes.Compare(c.Entries[i].ID[:], id[:]) >= 0 })
	if i == len(c.Entries) || c.Entries[i].ID != id {
		return nil, false
	}
	return &c.Entries[i], true
}

// ParseSignedHeader parses a header with signatures and nothing after them. It verifies none.
func ParseSignedHeader(text []byte) (*SignedHeader, error) {
	r := newReader("consensus header", text, MaxHeader)
	s := r.signedHeader()
	if err := r.end(); err != nil {
		return nil, err
	}
	return s, nil
}

// ParseConsensus parses a consensus and checks its entries against the header's count and root. It
// verifies no signature: see Verify.
func ParseConsensus(text []byte) (*Consensus, error) {
	r := newReader("consensus", text, MaxConsensus)
	c := &Consensus{SignedHeader: *r.signedHeader()}
	if r.err == nil {
		c.Entries = make([]Entry, 0, min(c.Relays, (len(text)-r.pos)/minEntry))
	}
	var t tree
	var buf []byte
	for r.has("relay") {
		if len(c.Entries) == MaxRelays {
			r.failAt(r.line+1, "more than %d relays", MaxRelays)
			break
		}
		var e Entry
		buf = r.wholeEntry(&e, buf)
		if n := len(c.Entries); n > 0 && r.err == nil {
			if err := inOrder(&c.Entries[n-1].ID, &e.ID); err != nil {
				r.fail("%w", err)
			}
		}
		if r.err != nil {
			break
		}
		t.add(buf)
		c.Entries = append(c.Entries, e)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if root := t.root(); len(c.Entries) != c.Relays || root != c.Root {
		return nil, &RootError{Have: root, Want: c.Root, HaveRelays: len(c.Entries), WantRelays: c.Relays}
	}
	return c, nil
}

// signedHeader takes a header and its signatures; it is never nil.
func (r *reader) signedHeader() *SignedHeader {
	from := r.pos
	s := &SignedHeader{Header: r.header()}
	if r.err == nil {
		if err := s.Header.check(); err != nil {
			r.fail("%w", err)
		}
		r.same(from, s.Header.Append(nil))
	}
	for r.has("peel-certificate") {
		if len(s.Signatures) == MaxSignatures {
			r.failAt(r.line+1, "more than %d signatures", MaxSignatures)
			break
		}
		sig := Signature{Certificate: r.certificate(false), Signature: r.signature("header-signature")}
		if n := len(s.Signatures); n > 0 && r.err == nil {
			if bytes.Compare(s.Signatures[n-1].Certificate.Identity[:], sig.Certificate.Identity[:]) > 0 {
				r.fail("the signature of %s is out of order", sig.Certificate.Identity)
			}
		}
		s.Signatures = append(s.Signatures, sig)
	}
	return s
}

func (r *reader) header() Header {
	r.title("peel-consensus")
	h := Header{
		Network:    r.network(),
		Method:     int(r.uint("method", MaxMethod)),
		ValidAfter: r.time("valid-after"),
		FreshUntil: r.time("fresh-until"),
		ValidUntil: r.time("valid-until"),
		Params:     r.params(),
		Shared:     r.sharedRandom(),
	}
	w, err := parseWeights(r.take("weights"))
	h.Weights = parsed(r, w, err)
	h.Relays = int(r.uint("relays", MaxRelays))
	h.Root = r.digest("root")
	return h
}
