package hybrid

import (
	"crypto/ecdh"
	"errors"
	"io"

	"github.com/flynn/noise"
)

// keys is the X25519 of one handshake, as Noise sees it: a noise.DHKey.Private is a
// handle, one byte, and the private keys stay here, with their public keys computed
// once. (Noise's own DH25519 takes bytes and computes the public key again for each
// shared secret: twice the work.)
type keys struct {
	ephemeral *ecdh.PrivateKey
	static    *ecdh.PrivateKey // nil for an NK initiator
	generate  func() (*ecdh.PrivateKey, error)
}

const (
	handleEphemeral byte = iota
	handleStatic
)

var errLowOrder = errors.New("the peer's X25519 key is a point of low order, which makes the shared secret zero: the peer is faulty or hostile")

func (*keys) DHLen() int     { return keySize }
func (*keys) DHName() string { return "25519" }

// GenerateKeypair draws the ephemeral key. The source of chance that Noise passes is
// not used.
func (k *keys) GenerateKeypair(io.Reader) (noise.DHKey, error) {
	e, err := k.generate()
	if err != nil {
		return noise.DHKey{}, err
	}
	k.ephemeral = e
	return noise.DHKey{Private: []byte{handleEphemeral}, Public: e.PublicKey().Bytes()}, nil
}

// DH refuses a shared secret of all zeros, which a low-order public key makes.
func (k *keys) DH(handle, public []byte) ([]byte, error) {
	var own *ecdh.PrivateKey
	if len(handle) == 1 {
		switch handle[0] {
		case handleEphemeral:
			own = k.ephemeral
		case handleStatic:
			own = k.static
		}
	}
	if own == nil {
		return nil, errors.New("no such key in this handshake")
	}
	peer, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, err
	}
	secret, err := own.ECDH(peer)
	if err != nil {
		return nil, errLowOrder
	}
	return secret, nil
}
