package directory

import (
	"crypto/ed25519"
	"fmt"
	"strconv"
	"strings"
	"time"

	"peel/cell"
)

// MaxMethods bounds how many consensus methods a vote lists.
const MaxMethods = 32

// Vote is one authority's view of the network for one period, signed by its signing key.
type Vote struct {
	Network     cell.NetworkID
	ValidAfter  time.Time // the period: when its consensus begins to hold
	Published   time.Time
	Methods     []int  // consensus methods the authority can compute, ascending, from 1
	KnownFlags  Flags  // the flags it has an opinion on; an entry has no others
	Params      Params // nil when it sets none
	Shared      SharedRandom
	Commitments []Commitment // to the next shared random values, that it knows of; ascending by run, then by identity
	Certificate Certificate  // says whose vote it is
	Relays      []VoteEntry  // ascending by identity
	Signature   Signature64
}

// VoteEntry is a relay as one authority sees it. Bandwidth is what the relay advertises.
type VoteEntry struct {
	Entry
	Descriptor Digest    // of the descriptor that the entry was made from
	Published  time.Time // of that descriptor
	Measured   uint64    // what this authority measured, bytes per second; 0: it did not
}

// Append appends the text of the entry in a vote.
func (e *VoteEntry) Append(b []byte) []byte {
	b = e.Entry.Append(b)
	b = appendDigest(b, "descriptor", e.Descriptor)
	b = appendTime(b, "published", e.Published)
	if e.Measured > 0 {
		b = appendUint(b, "measured", e.Measured)
	}
	return b
}

// VoteEntryOf makes a vote's entry from a descriptor and its text.
func VoteEntryOf(d *Descriptor, text []byte, flags Flags) VoteEntry {
	return VoteEntry{
		Entry: Entry{
			ID: d.ID, Nickname: d.Nickname, Addrs: d.Addrs, LinkKey: d.LinkKey, OnionKey: d.OnionKey,
			Flags: flags, Bandwidth: d.Advertised(), Version: d.Version, Family: d.Family, Policy: d.Policy,
		},
		Descriptor: DigestOf(text),
		Published:  d.Published,
	}
}

// Sign fills in Signature and returns the text. The key must be the one that Certificate is for.
func (v *Vote) Sign(signing ed25519.PrivateKey) ([]byte, error) {
	pub, err := publicOf(signing)
	if err != nil {
		return nil, fmt.Errorf("directory: vote: %w", err)
	}
	if pub != v.Certificate.SigningKey {
		return nil, fmt.Errorf("directory: vote: the signing key is not the one of the certificate")
	}
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("directory: vote: %w", err)
	}
	text := v.appendBody(nil)
	v.Signature = sign(contextVote, text, signing)
	text = appendLine(text, "signature", v.Signature.String())
	if len(text) > MaxVote {
		return nil, fmt.Errorf("directory: vote: %d bytes, but at most %d are allowed", len(text), MaxVote)
	}
	return text, nil
}

// check refuses a vote that has no text.
func (v *Vote) check() error {
	if !writableTime(v.ValidAfter) || !writableTime(v.Published) {
		return fmt.Errorf("its times must be whole seconds of 1970 to 9999")
	}
	if err := checkMethods(v.Methods); err != nil {
		return err
	}
	if v.KnownFlags&^AllFlags != 0 {
		return fmt.Errorf("there is no such flag: %#x", uint16(v.KnownFlags&^AllFlags))
	}
	if err := v.Params.Check(); err != nil {
		return err
	}
	if err := v.Shared.check(); err != nil {
		return err
	}
	if err := checkCommitments(v.Network, v.Commitments); err != nil {
		return err
	}
	if v.Certificate.Network != v.Network {
		return fmt.Errorf("the certificate is for network %s, the vote for %s", v.Certificate.Network, v.Network)
	}
	if len(v.Relays) > MaxRelays {
		return fmt.Errorf("%d relays, but at most %d are allowed", len(v.Relays), MaxRelays)
	}
	for i := range v.Relays {
		e := &v.Relays[i]
		if err := e.check(); err != nil {
			return err
		}
		if err := v.checkEntry(i, e); err != nil {
			return err
		}
		if e.Measured > MaxBandwidth || !writableTime(e.Published) {
			return fmt.Errorf("relay %s: measured bandwidth or time published cannot be written", e.ID)
		}
	}
	return nil
}

// checkEntry checks an entry against the vote and the entry before it.
func (v *Vote) checkEntry(i int, e *VoteEntry) error {
	if e.Flags&^v.KnownFlags != 0 {
		return fmt.Errorf("relay %s: flags %s are not among the known ones", e.ID, e.Flags&^v.KnownFlags)
	}
	if i > 0 {
		return inOrder(&v.Relays[i-1].ID, &e.ID)
	}
	return nil
}

func checkMethods(methods []int) error {
	if len(methods) < 1 || len(methods) > MaxMethods {
		return fmt.Errorf("%d consensus methods: 1 to %d are needed", len(methods), MaxMethods)
	}
	for i, m := range methods {
		if m < 1 || m > MaxMethod || i > 0 && m <= methods[i-1] {
			return fmt.Errorf("consensus methods must ascend, from 1 to %d", MaxMethod)
		}
	}
	return nil
}

// Append appends the text, with the signature as it is.
func (v *Vote) Append(b []byte) []byte {
	return appendLine(v.appendBody(b), "signature", v.Signature.String())
}

func (v *Vote) appendBody(b []byte) []byte {
	b = v.appendHead(b)
	for i := range v.Relays {
		b = v.Relays[i].Append(b)
	}
	return b
}

func (v *Vote) appendHead(b []byte) []byte {
	methods := make([]string, len(v.Methods))
	for i, m := range v.Methods {
		methods[i] = strconv.Itoa(m)
	}
	b = appendUint(b, "peel-vote", 1)
	b = appendLine(b, "network", v.Network.String())
	b = appendTime(b, "valid-after", v.ValidAfter)
	b = appendTime(b, "published", v.Published)
	b = appendLine(b, "methods", strings.Join(methods, " "))
	b = appendFlags(b, "known-flags", v.KnownFlags)
	b = v.Params.append(b)
	b = v.Shared.append(b)
	for i := range v.Commitments {
		b = v.Commitments[i].Append(b)
	}
	b = v.Certificate.Append(b)
	return appendUint(b, "relays", uint64(len(v.Relays)))
}

// ParseVote parses a vote and verifies that the certificate in it was signed by its identity and
// the vote by the key certified. Whether they are of this network is left to Verify.
func ParseVote(text []byte) (*Vote, error) { return parseVote(text, true) }

// parseVote looks at signatures only if signed is set: tests of what lies behind them do without.
func parseVote(text []byte, signed bool) (*Vote, error) {
	r := newReader("vote", text, MaxVote)
	r.title("peel-vote")
	v := &Vote{
		Network:    r.network(),
		ValidAfter: r.time("valid-after"),
		Published:  r.time("published"),
		Methods:    r.methods("methods"),
		KnownFlags: r.flags("known-flags"),
		Params:     r.params(),
	}
	v.Shared = r.sharedRandom()
	v.Commitments = r.commitments(v.Network)
	v.Certificate = r.certificate(false)
	count := int(r.uint("relays", MaxRelays))
	if r.err == nil {
		r.same(0, v.appendHeadCount(nil, count))
		if err := v.Params.Check(); err != nil {
			r.fail("%w", err)
		}
		if v.Certificate.Network != v.Network {
			r.fail("the certificate is for network %s, the vote for %s", v.Certificate.Network, v.Network)
		}
	}
	// Whoever signed is found out before the long part is read.
	sigAt := len(text) - len("signature \n") - 86
	if r.err == nil && sigAt < r.pos {
		r.fail("the text is cut off: no signature at its end")
	}
	if r.err == nil && signed {
		r.verifyCertificate(&v.Certificate)
	}
	if r.err == nil {
		end := newReader("vote", text[sigAt:], MaxLine)
		v.Signature = end.signature("signature")
		if end.end() != nil {
			r.failAt(0, "no signature at its end")
		} else if signed && !verify(contextVote, text[:sigAt], v.Certificate.SigningKey, v.Signature) {
			r.failAt(0, "the signature is not by the certified key over this text")
		}
	}
	if r.err == nil {
		v.Relays = r.voteEntries(v, count)
	}
	r.signature("signature")
	if err := r.end(); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *Vote) appendHeadCount(b []byte, count int) []byte {
	head := *v
	head.Relays = nil
	b = head.appendHead(b)
	b = b[:len(b)-len("relays 0\n")]
	return appendUint(b, "relays", uint64(count))
}

func (r *reader) methods(key string) []int {
	var methods []int
	for _, f := range r.fields(key, MaxMethods) {
		m, err := parseUint(f, MaxMethod)
		methods = append(methods, int(parsed(r, m, err)))
	}
	return parsed(r, methods, checkMethods(methods))
}

func (r *reader) voteEntries(v *Vote, count int) []VoteEntry {
	var buf []byte
	v.Relays = make([]VoteEntry, 0, min(count, (len(r.text)-r.pos)/minEntry))
	for i := range count {
		var e VoteEntry
		from := r.pos
		r.entry(&e.Entry)
		e.Descriptor = r.digest("descriptor")
		e.Published = r.time("published")
		if r.has("measured") {
			e.Measured = r.uint("measured", MaxBandwidth)
		}
		if r.err == nil {
			if err := v.checkEntry(i, &e); err != nil {
				r.fail("%w", err)
			}
		}
		if r.err != nil {
			return nil
		}
		buf = e.Append(buf[:0])
		r.same(from, buf)
		v.Relays = append(v.Relays, e)
	}
	return v.Relays
}

// Verify returns an error unless the vote is for the network, by one of its authorities, with a
// certificate that holds when the period begins.
func (v *Vote) Verify(n *Network) error {
	if id := n.ID(); v.Network != id {
		return &NetworkError{Document: "vote", Have: v.Network, Want: id}
	}
	if _, ok := n.Authority(v.Certificate.Identity); !ok {
		return fmt.Errorf("directory: vote: %s is no authority of %s", v.Certificate.Identity, n.Name)
	}
	return v.Certificate.Valid(v.ValidAfter)
}
