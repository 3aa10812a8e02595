package hybrid

import (
	"bytes"
	"crypto/mlkem"
	"testing"

	"github.com/flynn/noise"
)

// stockConfig is Noise with its own DH, on private bytes.
func stockConfig(cfg Config, initiator bool) noise.Config {
	nc := noise.Config{
		CipherSuite: noise.NewCipherSuite(noise.DH25519, noise.CipherAESGCM, noise.HashSHA256),
		Pattern:     noise.HandshakeNK, Initiator: initiator, Prologue: cfg.Prologue, PresharedKeyPlacement: 2,
	}
	if cfg.Pattern == IK {
		nc.Pattern = noise.HandshakeIK
	}
	if cfg.Static != nil {
		nc.StaticKeypair = noise.DHKey{Private: cfg.Static.Bytes(), Public: cfg.Static.PublicKey().Bytes()}
	}
	if initiator {
		nc.PeerStatic = cfg.Peer[:]
	}
	return nc
}

func stock(t testing.TB, cfg Config, initiator bool) *noise.HandshakeState {
	t.Helper()
	hs, err := noise.NewHandshakeState(stockConfig(cfg, initiator))
	if err != nil {
		t.Fatal(err)
	}
	return hs
}

// stockRequest makes a request that carries ek.
func stockRequest(t testing.TB, cfg Config, ek []byte) (hs *noise.HandshakeState, request []byte) {
	t.Helper()
	hs = stock(t, cfg, true)
	request, _, _, err := hs.WriteMessage(nil, ek)
	if err != nil {
		t.Fatal(err)
	}
	return hs, request
}

// stockReply answers with the ciphertext and psk that encapsulate makes up.
func stockReply(t testing.TB, cfg Config, request, payload []byte, encapsulate func(ek []byte) (ct, psk []byte)) ([]byte, *Secrets) {
	t.Helper()
	hs := stock(t, cfg, false)
	ek, _, _, err := hs.ReadMessage(nil, request)
	if err != nil {
		t.Fatal(err)
	}
	ct, p := encapsulate(ek)
	if err := hs.SetPresharedKey(p); err != nil {
		t.Fatal(err)
	}
	reply, a, b, err := hs.WriteMessage(bytes.Clone(ct), payload)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSecrets(hs, a, b, [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	return reply, s
}

func TestStockNoiseAsInitiator(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		dk := kemKey(t)
		ek := dk.EncapsulationKey().Bytes()
		hs, request := stockRequest(t, ci, ek)
		reply, sr := answered(t, cr, request, []byte("payload"))
		ct := reply[:mlkem.CiphertextSize768]
		ss, err := dk.Decapsulate(ct)
		if err != nil {
			t.Fatal(err)
		}
		if err := hs.SetPresharedKey(psk(ss, ek, ct)); err != nil {
			t.Fatal(err)
		}
		payload, a, b, err := hs.ReadMessage(nil, reply[len(ct):])
		if err != nil || string(payload) != "payload" {
			t.Fatalf("payload %q, %v", payload, err)
		}
		si, err := newSecrets(hs, a, b, ci.Peer)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(si.Expand("x", 192), sr.Expand("x", 192)) {
			t.Error("the sides differ")
		}
		if p == IK && sr.Peer != publicKey(ci.Static) {
			t.Error("Peer is not the initiator")
		}
	})
}

func TestStockNoiseAsResponder(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		i, request := asked(t, ci)
		reply, sr := stockReply(t, cr, request, []byte("payload"), func(ek []byte) (_, _ []byte) {
			k, err := mlkem.NewEncapsulationKey768(ek)
			if err != nil {
				t.Fatal(err)
			}
			ss, ct := k.Encapsulate()
			return ct, psk(ss, ek, ct)
		})
		payload, si, err := i.Finish(reply)
		if err != nil || string(payload) != "payload" {
			t.Fatalf("payload %q, %v", payload, err)
		}
		if !bytes.Equal(si.Expand("x", 192), sr.Expand("x", 192)) {
			t.Error("the sides differ")
		}
	})
}

func TestPlainNoiseWithoutPSKIsRefused(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		dk := kemKey(t)
		nc := stockConfig(ci, true)
		nc.PresharedKeyPlacement = 0
		hs, err := noise.NewHandshakeState(nc)
		if err != nil {
			t.Fatal(err)
		}
		request, _, _, err := hs.WriteMessage(nil, dk.EncapsulationKey().Bytes())
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = Respond(cr, request, nil)
		wantError(t, err, "does not verify")
	})
}

func TestInitiatorThatLeavesOutThePSKCannotReadTheReply(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		dk := kemKey(t)
		hs, request := stockRequest(t, ci, dk.EncapsulationKey().Bytes())
		reply, _ := answered(t, cr, request, nil)
		if _, _, _, err := hs.ReadMessage(nil, reply[mlkem.CiphertextSize768:]); err == nil {
			t.Error("the reply was read without the ML-KEM secret")
		}
	})
}
