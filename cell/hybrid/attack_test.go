package hybrid

import (
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"encoding/hex"
	"os"
	"testing"

	"github.com/flynn/noise"
)

// everyBit asks to flip all bits of a message. As usual it is those of the ephemeral
// key and the last tag, and a sample of the others: a handshake is slow.
var everyBit = os.Getenv("PEEL_EVERY_BIT") != ""

// flips calls f with each chosen bit of m flipped.
func flips(m []byte, f func(bit int, m []byte)) {
	m = bytes.Clone(m)
	for bit := range 8 * len(m) {
		if !everyBit && bit%21 != 0 && bit >= 8*keySize && bit < 8*(len(m)-tagSize) {
			continue
		}
		m[bit/8] ^= 1 << (bit % 8)
		f(bit, m)
		m[bit/8] ^= 1 << (bit % 8)
	}
}

// fixed is chance that always draws the same, so that one request can be finished again
// and again.
func fixed(t testing.TB) chance {
	e, err := system.ephemeral()
	if err != nil {
		t.Fatal(err)
	}
	d, err := system.kem()
	if err != nil {
		t.Fatal(err)
	}
	return chance{
		ephemeral:   func() (*ecdh.PrivateKey, error) { return e, nil },
		kem:         func() (*mlkem.DecapsulationKey768, error) { return d, nil },
		encapsulate: system.encapsulate,
	}
}

func TestFlippedBitInTheRequestIsRefused(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		_, request := asked(t, ci)
		flips(request, func(bit int, m []byte) {
			reply, s, err := Respond(cr, m, nil)
			if err == nil || reply != nil || s != nil {
				t.Errorf("bit %d flipped: answered", bit)
			}
		})
		if _, _, err := Respond(cr, request, nil); err != nil {
			t.Fatalf("the request itself: %v", err)
		}
	})
}

func TestFlippedBitInTheReplyIsRefused(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		c := fixed(t)
		_, request := askedBy(t, ci, c)
		reply, _ := answered(t, cr, request, []byte("payload"))
		finish := func(m []byte) ([]byte, *Secrets, error) {
			i, again, err := initiate(ci, c)
			if err != nil || !bytes.Equal(again, request) {
				t.Fatal("chance is not fixed", err)
			}
			return i.Finish(m)
		}
		flips(reply, func(bit int, m []byte) {
			payload, s, err := finish(m)
			if err == nil || payload != nil || s != nil {
				t.Errorf("bit %d flipped: taken", bit)
			}
		})
		if _, _, err := finish(reply); err != nil {
			t.Fatalf("the reply itself: %v", err)
		}
	})
}

func TestWrongLengthsAreRefused(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		c := fixed(t)
		_, request := askedBy(t, ci, c)
		reply, _ := answered(t, cr, request, []byte("payload"))
		for n := range len(request) + 100 {
			m := make([]byte, n)
			copy(m, request)
			if n != len(request) {
				_, _, err := Respond(cr, m, nil)
				wantError(t, err, "it must have")
			}
		}
		i, _ := askedBy(t, ci, c)
		kept := *i
		for n := range ReplyOverhead + MaxPayload + 100 {
			if n == len(reply) {
				continue
			}
			part := "does not verify"
			if n < ReplyOverhead || n > ReplyOverhead+MaxPayload {
				part = "it must have 1136 to 2160"
				*i = kept // a reply of such a size is refused before anything is computed
			} else if n%16 != 1 && (n < len(reply)-3 || n > len(reply)+3) {
				continue
			} else {
				i, _ = askedBy(t, ci, c)
			}
			m := make([]byte, n)
			copy(m, reply)
			_, _, err := i.Finish(m)
			wantError(t, err, part)
		}
	})
}

func TestAnotherPrologueIsRefused(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		_, request := asked(t, ci)
		for _, prologue := range []string{"", "a prologu", "a prologue\x00", "b prologue"} {
			cr.Prologue = []byte(prologue)
			_, _, err := Respond(cr, request, nil)
			wantError(t, err, "made for another key, network or version")
		}
	})
}

func TestAnotherResponderCannotAnswer(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		_, request := asked(t, ci)
		cr.Static = newKey(t)
		_, _, err := Respond(cr, request, nil)
		wantError(t, err, "made for another key")
	})
}

func TestReplyToAnotherRequestIsRefused(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		_, other := asked(t, ci)
		i, _ := asked(t, ci)
		reply, _ := answered(t, cr, other, nil)
		_, _, err := i.Finish(reply)
		wantError(t, err, "answers another request")
	})
}

func TestPatternsDoNotMix(t *testing.T) {
	for _, p := range []Pattern{NK, IK} {
		ci, cr := pair(t, p)
		ci.Static = newKey(t)
		_, request := asked(t, ci)
		cr.Pattern = NK + IK - p
		_, _, err := Respond(cr, request, nil)
		wantError(t, err, "it must have")
		m := make([]byte, RequestSize(cr.Pattern))
		copy(m, request)
		_, _, err = Respond(cr, m, nil)
		wantError(t, err, "does not verify")
	}
}

func TestReplayedRequestGivesOtherSecrets(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		i, request := asked(t, ci)
		reply1, s1 := answered(t, cr, request, nil)
		reply2, s2 := answered(t, cr, request, nil)
		if bytes.Equal(reply1, reply2) || bytes.Equal(s1.Expand("x", 32), s2.Expand("x", 32)) {
			t.Error("a replay was answered alike")
		}
		_, s, err := i.Finish(reply2)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.Expand("x", 32), s2.Expand("x", 32)) {
			t.Error("the reply that came first does not count")
		}
	})
}

// lowOrder lists the encodings of u for which X25519 gives zero whatever the scalar
// (RFC 7748, section 6.1): points of order 1, 2, 4, 8 on the curve and its twist, as
// numbers below 2^255, each also with the unused top bit set.
func lowOrder(t *testing.T) (points [][32]byte) {
	for _, s := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		p := [32]byte(b)
		points = append(points, p)
		p[31] |= 0x80
		points = append(points, p)
	}
	return points
}

func TestLowOrderPointsAreRefused(t *testing.T) {
	for _, point := range lowOrder(t) {
		eachPatternHere(t, func(p Pattern) {
			ci, cr := pair(t, p)
			i, request := asked(t, ci)

			bad := ci // the responder's static key
			bad.Peer = point
			_, _, err := Initiate(bad)
			wantError(t, err, "low order")

			m := bytes.Clone(request) // the initiator's ephemeral key
			copy(m, point[:])
			_, _, err = Respond(cr, m, nil)
			wantError(t, err, "low order")

			reply, _, err := Respond(cr, request, nil) // the responder's ephemeral key
			if err != nil {
				t.Fatal(err)
			}
			copy(reply[mlkem.CiphertextSize768:], point[:])
			_, _, err = i.Finish(reply)
			wantError(t, err, "low order")
		})

		// The static key an IK initiator claims. It arrives encrypted, so a hostile
		// initiator has to be played: its DH gives zeros where the responder's would.
		_, cr := pair(t, IK)
		hs, err := noise.NewHandshakeState(noise.Config{
			CipherSuite: noise.NewCipherSuite(zeroDH{noise.DH25519}, noise.CipherAESGCM, noise.HashSHA256),
			Pattern:     noise.HandshakeIK, Initiator: true, Prologue: cr.Prologue, PresharedKeyPlacement: 2,
			StaticKeypair: noise.DHKey{Private: []byte("zero"), Public: point[:]},
			PeerStatic:    cr.Static.PublicKey().Bytes(),
		})
		if err != nil {
			t.Fatal(err)
		}
		dk := kemKey(t)
		request, _, _, err := hs.WriteMessage(nil, dk.EncapsulationKey().Bytes())
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = Respond(cr, request, nil)
		wantError(t, err, "low order")
	}
}

func eachPatternHere(t *testing.T, f func(p Pattern)) {
	t.Helper()
	f(NK)
	f(IK)
}

// zeroDH gives the shared secret that goes with a low-order key.
type zeroDH struct{ noise.DHFunc }

func (z zeroDH) DH(private, public []byte) ([]byte, error) {
	if string(private) == "zero" {
		return make([]byte, 32), nil
	}
	return z.DHFunc.DH(private, public)
}

func TestBadKEMKeysAreRefused(t *testing.T) {
	dk := kemKey(t)
	good := dk.EncapsulationKey().Bytes()
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(good)
		f(b)
		return b
	}
	for name, ek := range map[string][]byte{
		"first coefficient is q":   change(func(b []byte) { b[0], b[1] = 0x01, b[1]&0xf0|0x0d }),
		"first coefficient is max": change(func(b []byte) { b[0], b[1] = 0xff, b[1]|0x0f }),
		"last coefficient is max":  change(func(b []byte) { b[1151], b[1150] = 0xff, b[1150]|0xf0 }),
		"all ones":                 bytes.Repeat([]byte{0xff}, len(good)),
	} {
		eachPatternHere(t, func(p Pattern) {
			ci, cr := pair(t, p)
			_, request := stockRequest(t, ci, ek)
			reply, _, err := Respond(cr, request, nil)
			wantError(t, err, "not an ML-KEM-768 key")
			if reply != nil {
				t.Errorf("%v, %s: answered", p, name)
			}
		})
	}
}

func TestReplyWithoutTheKEMSecretIsRefused(t *testing.T) {
	// A responder that knows every X25519 key, as one with a quantum computer would, but
	// not the ML-KEM secret.
	for name, guess := range map[string]func(ek []byte) (ct, psk []byte){
		"zero psk": func([]byte) (ct, psk []byte) { return make([]byte, 1088), make([]byte, 32) },
		"psk of a zero secret": func(ek []byte) (_, _ []byte) {
			ct := make([]byte, 1088)
			return ct, psk(make([]byte, 32), ek, ct)
		},
		"secret of another key": func(ek []byte) (_, _ []byte) {
			dk := kemKey(t)
			ss, ct := dk.EncapsulationKey().Encapsulate()
			return ct, psk(ss, ek, ct)
		},
		"secret that leaves out the key and ciphertext": func(ek []byte) (_, _ []byte) {
			k, err := mlkem.NewEncapsulationKey768(ek)
			if err != nil {
				t.Fatal(err)
			}
			ss, ct := k.Encapsulate()
			return ct, ss
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachPatternHere(t, func(p Pattern) {
				ci, cr := pair(t, p)
				i, request := asked(t, ci)
				reply, _ := stockReply(t, cr, request, nil, guess)
				_, s, err := i.Finish(reply)
				wantError(t, err, "does not verify")
				if s != nil {
					t.Error("secrets beside an error")
				}
			})
		})
	}
}
