// Package hybrid is the key exchange that links and circuits share: the Noise
// handshakes NKpsk2 and IKpsk2 over X25519, with a fresh ML-KEM-768 secret as
// their pre-shared key (spec/handshake.md).
//
//	m1 = e, es, [s, ss,] AEAD(ek)                      the request
//	m2 = ct | e, ee, [se,] psk, AEAD(payload)          the reply
//	psk = HMAC-SHA256(ss, SHA-256("peel mlkem768 psk v1" | ek | ct))
//	PRK = HKDF-Extract(salt = h, k1 | k2)
//	Expand(label, n) = HKDF-Expand(PRK, label, n)
//
// The secrets are safe as long as X25519 or ML-KEM-768 is. There is one message
// each way; nothing here sends it, waits for it or remembers it.
package hybrid

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/flynn/noise"
)

// Pattern says who proves who they are (spec/handshake.md, section 2). Its zero
// value is no pattern and is refused.
type Pattern uint8

const (
	NK Pattern = iota + 1 // Noise_NKpsk2_25519_AESGCM_SHA256: the responder alone; the initiator stays anonymous
	IK                    // Noise_IKpsk2_25519_AESGCM_SHA256: both
)

func (p Pattern) String() string {
	switch p {
	case NK:
		return "NK"
	case IK:
		return "IK"
	}
	return fmt.Sprintf("Pattern(%d)", uint8(p))
}

const (
	// ReplyOverhead is the size of a reply with an empty payload: ciphertext,
	// ephemeral key and tag.
	ReplyOverhead = mlkem.CiphertextSize768 + keySize + tagSize

	// MaxPayload is the longest payload of a reply: room for the parameters of a
	// link or a circuit, and a small bound on what a responder can make an
	// initiator read.
	MaxPayload = 1024

	keySize = 32 // an X25519 public key
	tagSize = 16 // an AES-256-GCM tag
)

// RequestSize is the exact size of a request in bytes: 1232 for NK, 1280 for IK.
// It is 0 for what is no pattern.
func RequestSize(p Pattern) int {
	switch p {
	case NK:
		return keySize + mlkem.EncapsulationKeySize768 + tagSize
	case IK:
		return keySize + keySize + tagSize + mlkem.EncapsulationKeySize768 + tagSize
	}
	return 0
}

// Config is what one side brings to a handshake. Both sides must bring the same
// Pattern and Prologue. It is only read, and may be shared.
type Config struct {
	Pattern  Pattern
	Prologue []byte           // of any length; authenticated by both messages, sent by neither
	Static   *ecdh.PrivateKey // our own X25519 key: of a responder always, of an initiator in IK; not used by an NK initiator
	Peer     [32]byte         // initiator: the responder's static public key; not used by a responder
}

func (cfg *Config) check(initiator bool) error {
	if RequestSize(cfg.Pattern) == 0 {
		return fmt.Errorf("hybrid: %v is not a handshake pattern: use NK or IK", cfg.Pattern)
	}
	if initiator && cfg.Pattern == NK {
		return nil
	}
	if cfg.Static == nil {
		return fmt.Errorf("hybrid: %v: no static key of our own: set Config.Static", cfg.Pattern)
	}
	if cfg.Static.Curve() != ecdh.X25519() {
		return fmt.Errorf("hybrid: %v: the static key is not an X25519 key: set Config.Static to one", cfg.Pattern)
	}
	return nil
}

// state starts Noise's side of the handshake. The psk is set later, when it is known.
func (cfg *Config) state(initiator bool, c chance) (*noise.HandshakeState, error) {
	if err := cfg.check(initiator); err != nil {
		return nil, err
	}
	k := &keys{generate: c.ephemeral}
	nc := noise.Config{
		CipherSuite:           noise.NewCipherSuite(k, noise.CipherAESGCM, noise.HashSHA256),
		Pattern:               noise.HandshakeNK,
		Initiator:             initiator,
		Prologue:              cfg.Prologue,
		PresharedKeyPlacement: 2,
	}
	if cfg.Pattern == IK {
		nc.Pattern = noise.HandshakeIK
	}
	if !initiator || cfg.Pattern == IK {
		k.static = cfg.Static
		nc.StaticKeypair = noise.DHKey{Private: []byte{handleStatic}, Public: cfg.Static.PublicKey().Bytes()}
	}
	if initiator {
		peer := cfg.Peer
		nc.PeerStatic = peer[:]
	}
	return noise.NewHandshakeState(nc)
}

// chance is what a handshake draws at random, as functions, so that the frozen
// vectors can be replayed.
type chance struct {
	ephemeral   func() (*ecdh.PrivateKey, error)
	kem         func() (*mlkem.DecapsulationKey768, error)
	encapsulate func(*mlkem.EncapsulationKey768) (ss, ct []byte)
}

// system draws from the operating system.
var system = chance{
	ephemeral:   func() (*ecdh.PrivateKey, error) { return ecdh.X25519().GenerateKey(rand.Reader) },
	kem:         mlkem.GenerateKey768,
	encapsulate: (*mlkem.EncapsulationKey768).Encapsulate,
}

const pskLabel = "peel mlkem768 psk v1"

// psk = HMAC-SHA256(ss, SHA-256("peel mlkem768 psk v1" | ek | ct))
func psk(ss, ek, ct []byte) []byte {
	h := sha256.New()
	h.Write([]byte(pskLabel))
	h.Write(ek)
	h.Write(ct)
	m := hmac.New(sha256.New, ss)
	m.Write(h.Sum(nil))
	return m.Sum(nil)
}

// explain says what a failure to read the peer's message means.
func explain(err error, unread string) error {
	if errors.Is(err, errLowOrder) {
		return err
	}
	return errors.New(unread)
}
