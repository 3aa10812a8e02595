package hybrid

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

// The vectors are made by spec/vectors/handshake.py, which shares no code with this
// package.
const (
	vectorsFile   = "../../spec/vectors/handshake.json"
	vectorsScript = "../../spec/vectors/handshake.py"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

type vector struct {
	Name                  string   `json:"name"`
	Pattern               string   `json:"pattern"`
	Prologue              hexBytes `json:"prologue"`
	Payload               hexBytes `json:"payload"`
	ResponderStatic       hexBytes `json:"responder_static"`
	ResponderStaticPublic hexBytes `json:"responder_static_public"`
	InitiatorStatic       hexBytes `json:"initiator_static"`
	InitiatorStaticPublic hexBytes `json:"initiator_static_public"`
	InitiatorEphemeral    hexBytes `json:"initiator_ephemeral"`
	ResponderEphemeral    hexBytes `json:"responder_ephemeral"`
	KEMSeed               hexBytes `json:"kem_seed"`
	KEMMessage            hexBytes `json:"kem_message"`
	EK                    hexBytes `json:"ek"`
	Request               hexBytes `json:"request"`
	H1                    hexBytes `json:"h1"`
	CT                    hexBytes `json:"ct"`
	SS                    hexBytes `json:"ss"`
	RejectedSS            hexBytes `json:"rejected_ss"`
	PSK                   hexBytes `json:"psk"`
	Reply                 hexBytes `json:"reply"`
	H                     hexBytes `json:"h"`
	K1                    hexBytes `json:"k1"`
	K2                    hexBytes `json:"k2"`
	PRK                   hexBytes `json:"prk"`
	Expand                []struct {
		Label string   `json:"label"`
		Bytes hexBytes `json:"bytes"`
	} `json:"expand"`
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	f, err := os.Open(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var vs []vector
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&vs); err != nil {
		t.Fatal(err)
	}
	if len(vs) == 0 {
		t.Fatal("no vectors")
	}
	return vs
}

func x25519Key(t testing.TB, b []byte) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// chances are what either side draws in the vector.
func (v *vector) chances(t testing.TB) (initiator, responder chance) {
	initiator = chance{
		ephemeral: func() (*ecdh.PrivateKey, error) { return x25519Key(t, v.InitiatorEphemeral), nil },
		kem:       func() (*mlkem.DecapsulationKey768, error) { return mlkem.NewDecapsulationKey768(v.KEMSeed) },
	}
	responder = chance{
		ephemeral: func() (*ecdh.PrivateKey, error) { return x25519Key(t, v.ResponderEphemeral), nil },
		encapsulate: func(ek *mlkem.EncapsulationKey768) (ss, ct []byte) {
			ss, ct, err := mlkemtest.Encapsulate768(ek, v.KEMMessage)
			if err != nil {
				t.Fatal(err)
			}
			return ss, ct
		},
	}
	return initiator, responder
}

func (v *vector) configs(t testing.TB) (initiator, responder Config) {
	p, ok := map[string]Pattern{"NK": NK, "IK": IK}[v.Pattern]
	if !ok {
		t.Fatalf("pattern %q", v.Pattern)
	}
	initiator = Config{Pattern: p, Prologue: v.Prologue, Peer: [32]byte(v.ResponderStaticPublic)}
	if p == IK {
		initiator.Static = x25519Key(t, v.InitiatorStatic)
	}
	return initiator, Config{Pattern: p, Prologue: v.Prologue, Static: x25519Key(t, v.ResponderStatic)}
}

func TestVectors(t *testing.T) {
	patterns := map[string]int{}
	for _, v := range readVectors(t) {
		patterns[v.Pattern]++
		t.Run(v.Name, func(t *testing.T) {
			same := func(what string, got, want []byte) {
				t.Helper()
				if !bytes.Equal(got, want) {
					t.Errorf("%s:\ngot  %x\nwant %x", what, got, want)
				}
			}
			ci, cr := v.configs(t)
			chanceI, chanceR := v.chances(t)
			i, request, err := initiate(ci, chanceI)
			if err != nil {
				t.Fatal(err)
			}
			same("request", request, v.Request)
			same("ek", i.ek, v.EK)
			same("h1", i.noise.ChannelBinding(), v.H1)
			dk := i.kem
			hs := i.noise

			reply, sr, err := respond(cr, request, v.Payload, chanceR)
			if err != nil {
				t.Fatal(err)
			}
			same("reply", reply, v.Reply)
			same("ct", reply[:mlkem.CiphertextSize768], v.CT)
			payload, si, err := i.Finish(v.Reply)
			if err != nil {
				t.Fatal(err)
			}
			same("payload", payload, v.Payload)
			same("h", hs.ChannelBinding(), v.H)

			ss, err := dk.Decapsulate(v.CT)
			if err != nil {
				t.Fatal(err)
			}
			same("ss", ss, v.SS)
			bad := bytes.Clone(v.CT)
			bad[0] ^= 1
			ss, err = dk.Decapsulate(bad)
			if err != nil {
				t.Fatal(err)
			}
			same("ss of an altered ct", ss, v.RejectedSS)
			same("psk", psk(v.SS, v.EK, v.CT), v.PSK)

			prk, err := hkdf.Extract(sha256.New, append(bytes.Clone(v.K1), v.K2...), v.H)
			if err != nil {
				t.Fatal(err)
			}
			same("PRK of k1, k2 and h", prk, v.PRK)
			same("initiator's PRK", si.prk[:], v.PRK)
			same("responder's PRK", sr.prk[:], v.PRK)
			if len(v.Expand) == 0 {
				t.Error("the vector expands nothing")
			}
			for _, e := range v.Expand {
				same("Expand "+e.Label, si.Expand(e.Label, len(e.Bytes)), e.Bytes)
				same("Expand "+e.Label, sr.Expand(e.Label, len(e.Bytes)), e.Bytes)
			}
			same("initiator's Peer", si.Peer[:], v.ResponderStaticPublic)
			want := make([]byte, 32)
			copy(want, v.InitiatorStaticPublic)
			same("responder's Peer", sr.Peer[:], want)
		})
	}
	if patterns["NK"] == 0 || patterns["IK"] == 0 {
		t.Errorf("vectors of each pattern: %v", patterns)
	}
}

func TestVectorsAreWhatTheScriptWrites(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed: the committed vectors are used, but not made again")
	}
	cmd := exec.Command(python, "-B", vectorsScript)
	cmd.Stderr = os.Stderr
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("spec/vectors/handshake.json is not what handshake.py writes: if the change is meant, write it again")
	}
}
