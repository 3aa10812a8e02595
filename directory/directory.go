// Package directory holds the documents the network runs on: descriptors, certificates, votes and
// the consensus, as signed lines of text with one spelling each (spec/directory.md).
//
// Nothing here has a goroutine, a socket or a clock: the time is an argument.
package directory

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Digest is a SHA-256 digest: of a descriptor's text, of a header's text, or the root of the tree
// over a consensus's entries.
type Digest [sha256.Size]byte

// DigestOf returns the SHA-256 digest of a document's text, signature line included.
func DigestOf(text []byte) Digest { return sha256.Sum256(text) }

// String returns the digest in lower-case hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// ParseDigest parses what String returns, and nothing else.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) {
		return d, fmt.Errorf("directory: a digest has %d hexadecimal digits, this one %d", 2*len(d), len(s))
	}
	var text [2 * len(d)]byte
	copy(text[:], s)
	if _, err := hex.Decode(d[:], text[:]); err != nil {
		return d, fmt.Errorf("directory: digest: %w", err)
	}
	if hex.Encode(text[:], d[:]); string(text[:]) != s {
		return d, fmt.Errorf("directory: a digest is written in lower case")
	}
	return d, nil
}
