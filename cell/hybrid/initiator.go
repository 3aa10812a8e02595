package hybrid

import (
	"crypto/mlkem"
	"errors"
	"fmt"

	"github.com/flynn/noise"
)

// Initiator waits for the one reply to its request. It has one owner at a time, and
// may simply be dropped when no reply comes.
type Initiator struct {
	pattern Pattern
	peer    [32]byte
	noise   *noise.HandshakeState // nil once used
	kem     *mlkem.DecapsulationKey768
	ek      []byte
}

// Initiate starts a handshake with the holder of cfg.Peer and returns the request, of
// exactly RequestSize(cfg.Pattern) bytes, which is the caller's. It fails when cfg is
// incomplete or cfg.Peer is a point of low order.
func Initiate(cfg Config) (*Initiator, []byte, error) { return initiate(cfg, system) }

func initiate(cfg Config, c chance) (*Initiator, []byte, error) {
	hs, err := cfg.state(true, c)
	if err != nil {
		return nil, nil, err
	}
	dk, err := c.kem()
	if err != nil {
		return nil, nil, fmt.Errorf("hybrid: %v: making an ML-KEM key: %w", cfg.Pattern, err)
	}
	ek := dk.EncapsulationKey().Bytes()
	request, _, _, err := hs.WriteMessage(make([]byte, 0, RequestSize(cfg.Pattern)), ek)
	if err != nil {
		return nil, nil, fmt.Errorf("hybrid: %v: making a request: %w", cfg.Pattern, err)
	}
	return &Initiator{pattern: cfg.Pattern, peer: cfg.Peer, noise: hs, kem: dk, ek: ek}, request, nil
}

// Finish reads the reply, which must be exactly as the responder wrote it, and returns
// the responder's payload and the secrets. From then on the responder is known to hold
// the private key of Config.Peer, and to have answered this very request.
//
// It can be called once: an error is final, and the keys of the handshake are let go in
// any case. (A reply that could be tried again would be an oracle for ML-KEM.)
func (i *Initiator) Finish(reply []byte) (payload []byte, s *Secrets, err error) {
	hs, kem := i.noise, i.kem
	if hs == nil {
		return nil, nil, errors.New("hybrid: this handshake has been finished before: start another one with Initiate")
	}
	i.noise, i.kem = nil, nil
	if n := len(reply); n < ReplyOverhead || n > ReplyOverhead+MaxPayload {
		return nil, nil, fmt.Errorf("hybrid: %v: a reply of %d bytes: it must have %d to %d", i.pattern, n, ReplyOverhead, ReplyOverhead+MaxPayload)
	}
	ct, m2 := reply[:mlkem.CiphertextSize768], reply[mlkem.CiphertextSize768:]
	ss, err := kem.Decapsulate(ct) // ML-KEM rejects implicitly: a wrong ct gives another ss, which the tag below shows
	if err != nil {
		return nil, nil, fmt.Errorf("hybrid: %v: reading the reply: %w", i.pattern, err)
	}
	p := psk(ss, i.ek, ct)
	clear(ss)
	err = hs.SetPresharedKey(p)
	clear(p)
	if err != nil {
		return nil, nil, fmt.Errorf("hybrid: %v: reading the reply: %w", i.pattern, err)
	}
	payload, k1, k2, err := hs.ReadMessage(nil, m2)
	if err != nil {
		return nil, nil, fmt.Errorf("hybrid: %v: reading the reply: %w", i.pattern,
			explain(err, "it does not verify: it was altered on the way, answers another request, or its sender does not hold the expected key"))
	}
	s, err = newSecrets(hs, k1, k2, i.peer)
	if err != nil {
		return nil, nil, fmt.Errorf("hybrid: %v: deriving the secrets: %w", i.pattern, err)
	}
	return payload, s, nil
}
