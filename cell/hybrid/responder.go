package hybrid

import (
	"crypto/mlkem"
	"fmt"
)

// Respond answers one request. payload, of at most MaxPayload bytes, goes into the
// reply, which is ReplyOverhead bytes longer and is the caller's; only who made the
// request can read it. An error is about the request (its size, its tag, its keys)
// unless cfg or payload is wrong; nothing should be sent then.
//
// A request can be replayed by whoever saw it. A replay gets a fresh reply and fresh
// secrets, which it cannot use, so never act on a request beyond answering it, nor
// take Secrets.Peer as proved, until something arrives under the secrets
// (spec/handshake.md, section 6).
func Respond(cfg Config, request, payload []byte) (reply []byte, s *Secrets, err error) {
	return respond(cfg, request, payload, system)
}

func respond(cfg Config, request, payload []byte, c chance) (reply []byte, s *Secrets, err error) {
	hs, err := cfg.state(false, c)
	if err != nil {
		return nil, nil, err
	}
	if len(payload) > MaxPayload {
		return nil, nil, fmt.Errorf("hybrid: %v: a payload of %d bytes: a reply carries at most %d", cfg.Pattern, len(payload), MaxPayload)
	}
	if n := RequestSize(cfg.Pattern); len(request) != n {
		return nil, nil, fmt.Errorf("hybrid: %v: a request of %d bytes: it must have %d", cfg.Pattern, len(request), n)
	}
	ekBytes, _, _, err := hs.ReadMessage(make([]byte, 0, mlkem.EncapsulationKeySize768), request)
	if err != nil {
		return nil, nil, fmt.Errorf("hybrid: %v: reading the request: %w", cfg.Pattern,
			explain(err, "it does not verify: it was altered on the way, or made for another key, network or version"))
	}
	ek, err := mlkem.NewEncapsulationKey768(ekBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("hybrid: %v: reading the request: not an ML-KEM-768 key: %w", cfg.Pattern, err)
	}
	ss, ct := c.encapsulate(ek)
	p := psk(ss, ekBytes, ct)
	clear(ss)
	err = hs.SetPresharedKey(p)
	clear(p)
	if err != nil {
		return nil, nil, fmt.Errorf("hybrid: %v: making the reply: %w", cfg.Pattern, err)
	}
	reply = append(make([]byte, 0, ReplyOverhead+len(payload)), ct...)
	reply, k1, k2, err := hs.WriteMessage(reply, payload)
	if err != nil {
		return nil, nil, fmt.Errorf("hybrid: %v: making the reply: %w", cfg.Pattern, err)
	}
	var peer [32]byte
	if cfg.Pattern == IK {
		copy(peer[:], hs.PeerStatic())
	}
	s, err = newSecrets(hs, k1, k2, peer)
	if err != nil {
		return nil, nil, fmt.Errorf("hybrid: %v: deriving the secrets: %w", cfg.Pattern, err)
	}
	return reply, s, nil
}
