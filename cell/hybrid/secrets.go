package hybrid

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"

	"github.com/flynn/noise"
)

// MaxExpand is the most that Expand gives for one label, in bytes: HKDF's limit.
const MaxExpand = 255 * sha256.Size

// Secrets is what both sides know after a handshake, and nobody else. It has one owner
// at a time, prints as "[scrubbed]", and must not be copied.
type Secrets struct {
	// Peer is the other side's static public key: of the responder for an initiator, of
	// the initiator for an IK responder (see Respond on replays), zero for an NK responder.
	Peer [32]byte

	prk    [32]byte
	erased bool
}

// PRK = HKDF-Extract(salt = h, k1 | k2)
func newSecrets(hs *noise.HandshakeState, k1, k2 *noise.CipherState, peer [32]byte) (*Secrets, error) {
	a, b := k1.UnsafeKey(), k2.UnsafeKey()
	var ikm [64]byte
	copy(ikm[:32], a[:])
	copy(ikm[32:], b[:])
	prk, err := hkdf.Extract(sha256.New, ikm[:], hs.ChannelBinding())
	clear(ikm[:])
	clear(a[:])
	clear(b[:])
	if err != nil {
		return nil, err
	}
	s := &Secrets{Peer: peer}
	copy(s.prk[:], prk)
	clear(prk)
	return s, nil
}

// Expand derives n bytes for one use, named by its label: HKDF-Expand(PRK, label, n).
// Both sides get the same bytes for the same label; a longer n begins with what a
// shorter one gives. The bytes are the caller's to erase.
//
// It panics when n is negative or above MaxExpand, and after Erase: both are mistakes
// in the program, and neither may give keys that are known to others.
func (s *Secrets) Expand(label string, n int) []byte {
	if n < 0 || n > MaxExpand {
		panic(fmt.Sprintf("hybrid: Expand of %d bytes: 0 to %d can be had", n, MaxExpand))
	}
	if s.erased {
		panic("hybrid: Expand after Erase")
	}
	out, err := hkdf.Expand(sha256.New, s.prk[:], label, n)
	if err != nil {
		panic("hybrid: " + err.Error())
	}
	return out
}

// Erase overwrites the secret. What Expand gave stays with who asked for it, and what
// the runtime copied while computing is out of reach: this shortens the time in which
// the secret lies in memory, no more.
func (s *Secrets) Erase() {
	clear(s.prk[:])
	s.erased = true
}

// LogValue keeps the secret out of logs.
func (*Secrets) LogValue() slog.Value { return slog.StringValue("[scrubbed]") }

// Format keeps the secret out of everything that fmt prints.
func (Secrets) Format(f fmt.State, _ rune) { io.WriteString(f, "[scrubbed]") }
