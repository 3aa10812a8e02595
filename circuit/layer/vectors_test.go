package layer

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

const (
	vectorsFile   = "../../spec/vectors/layer.json"
	vectorsScript = "../../spec/vectors/layer.py"
)

// hexBytes are written as a string of hex in the JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

func readJSON(t *testing.T, file string, v any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// Every step of the cells in the vectors that an independent implementation
// made, on every kernel.
func TestVectors(t *testing.T) {
	var vectors struct {
		Circuits []struct {
			N     int
			Hops  []struct{ Forward, Backward hexBytes }
			Cells []struct {
				Way, Seed string
				AD        byte
				Steps     []struct {
					End, Verb   string
					Hop         int
					Ours        bool
					Tag, SHA256 hexBytes
				}
			}
		}
	}
	readJSON(t, vectorsFile, &vectors)
	if len(vectors.Circuits) == 0 {
		t.Fatal("no vectors")
	}
	for _, kern := range supported() {
		for _, v := range vectors.Circuits {
			t.Run(fmt.Sprintf("%v/%d", kern, v.N), func(t *testing.T) {
				var c circuit
				for _, h := range v.Hops {
					c.add(kern, (*[KeySize]byte)(h.Forward), (*[KeySize]byte)(h.Backward), v.N)
				}
				ends := map[string][]*Layer{
					"client forward": c.clientForward, "client backward": c.clientBackward,
					"relay forward": c.relayForward, "relay backward": c.relayBackward,
				}
				for _, cell := range v.Cells {
					body := sha3.SumSHAKE128([]byte(cell.Seed), v.N)
					for _, s := range cell.Steps {
						l, ours := ends[s.End+" "+cell.Way][s.Hop-1], false
						switch s.Verb {
						case "seal":
							l.Seal(cell.AD, body)
						case "wrap":
							l.Wrap(cell.AD, body)
						case "peel":
							ours = l.Peel(cell.AD, body)
						default:
							t.Fatalf("%s: verb %q", cell.Seed, s.Verb)
						}
						sum := sha256.Sum256(body)
						if !bytes.Equal(body[:tagSize], s.Tag) || !bytes.Equal(sum[:], s.SHA256) || ours != s.Ours {
							t.Fatalf("%s: after %s at %s %d: tag %x, hash %x, ours %v; not %x, %x, %v",
								cell.Seed, s.Verb, s.End, s.Hop, body[:tagSize], sum, ours, s.Tag, s.SHA256, s.Ours)
						}
					}
				}
			})
		}
	}
}

// The self-test has the vectors that the independent implementation made.
func TestSelfTestVectors(t *testing.T) {
	var vectors struct {
		Chains []struct {
			N   int
			Tag hexBytes
		}
	}
	readJSON(t, vectorsFile, &vectors)
	if len(vectors.Chains) != len(selfTests) {
		t.Fatalf("%d chains in %s and %d in the self-test", len(vectors.Chains), vectorsFile, len(selfTests))
	}
	for i, v := range vectors.Chains {
		if v.N != selfTests[i].n || !bytes.Equal(v.Tag, selfTests[i].tag[:]) {
			t.Errorf("the self-test has %d bytes, tag %x; the vectors %d and %x", selfTests[i].n, selfTests[i].tag, v.N, v.Tag)
		}
	}
}

func TestScriptPrintsTheVectors(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here: the script that makes the vectors does not run")
	}
	want, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command(python, "-B", vectorsScript).Output()
	if err != nil {
		t.Fatalf("%s: %v", vectorsScript, err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what %s prints: make it again", vectorsFile, vectorsScript)
	}
}

// publishedState is the state of one end in the published vectors.
type publishedState struct{ Keys, Nonce, Tprime hexBytes }

func (s publishedState) layer(kern kernel, client bool) *Layer {
	l := newLayer(kern, (*[KeySize]byte)(append(bytes.Clone(s.Keys), s.Nonce...)), 509, client)
	copy(l.prev[:], s.Tprime)
	return l
}

func join(b ...hexBytes) (out []byte) {
	for _, x := range b {
		out = append(out, x...)
	}
	return out
}

// The vectors published with the construction, for bodies of 509 bytes, on
// every kernel. PEEL_CGO_VECTORS names their file.
func TestPublishedVectors(t *testing.T) {
	file := os.Getenv("PEEL_CGO_VECTORS")
	if file == "" {
		t.Skip("PEEL_CGO_VECTORS does not name the file of the published vectors")
	}
	var v struct {
		ET []struct {
			Name                 string
			Encrypt              bool
			Keys, Tweak, In, Out hexBytes
		}
		PRF []struct {
			Name             string
			T                int
			Keys, Tweak, Out hexBytes
		}
		UIV []struct {
			Name                     string
			Encrypt                  bool
			Keys, Tweak, Left, Right hexBytes
			OutLeft                  hexBytes `json:"out_left"`
			OutRight                 hexBytes `json:"out_right"`
		}
		Update []struct {
			Name        string
			Keys, Nonce hexBytes
			OutKeys     hexBytes `json:"out_keys"`
			OutNonce    hexBytes `json:"out_nonce"`
		} `json:"uiv_update"`
		Relay []struct {
			Name     string
			Inbound  bool
			AD, T, C hexBytes
			State    publishedState
			OutState publishedState `json:"out_state"`
			OutT     hexBytes       `json:"out_t"`
			OutC     hexBytes       `json:"out_c"`
		}
		RelayOriginate []struct {
			Name     string
			AD, M    hexBytes
			State    publishedState
			OutState publishedState `json:"out_state"`
			OutT     hexBytes       `json:"out_t"`
			OutC     hexBytes       `json:"out_c"`
		} `json:"relay_originate"`
		ClientOriginate []struct {
			Name      string
			Hop       int
			AD, M     hexBytes
			States    []publishedState
			OutStates []publishedState `json:"out_states"`
			OutT      hexBytes         `json:"out_t"`
			OutC      hexBytes         `json:"out_c"`
		} `json:"client_originate"`
	}
	readJSON(t, file, &v)
	for _, kern := range supported() {
		count := 0
		check := func(name string, ok bool) {
			t.Helper()
			if count++; !ok {
				t.Errorf("%v: %s", kern, name)
			}
		}
		state := func(keys hexBytes, client bool) *Layer {
			return publishedState{Keys: keys, Nonce: make([]byte, 16), Tprime: make([]byte, 16)}.layer(kern, client)
		}
		// The tweakable cipher and the generator alone are inside the generic
		// kernel only; the others are one piece.
		for _, x := range v.ET {
			if kern != generic {
				break
			}
			l := state(append(x.Keys, make([]byte, 32)...), !x.Encrypt)
			left := bytes.Clone(x.In)
			m := l.keys.tweak((*[tagSize]byte)(x.Tweak), x.Tweak[tagSize], x.Tweak[tagSize+1:])
			xorElement(left, m)
			l.keys.cryptLeft(left, !x.Encrypt)
			xorElement(left, m)
			check("ET: "+x.Name, bytes.Equal(left, x.Out))
		}
		for _, x := range v.PRF {
			if kern != generic {
				break
			}
			l := state(append(make([]byte, 32), x.Keys...), false)
			got := make([]byte, len(x.Out))
			l.keys.xorStreamGeneric((*[tagSize]byte)(x.Tweak), uint64(x.T*streamBlocks(509)), got)
			check("PRF: "+x.Name, bytes.Equal(got, x.Out))
		}
		for _, x := range v.UIV {
			l := state(x.Keys, !x.Encrypt)
			copy(l.prev[:], x.Tweak)
			body := join(x.Left, x.Right)
			l.Wrap(x.Tweak[tagSize], body)
			check("UIV: "+x.Name, bytes.Equal(body, join(x.OutLeft, x.OutRight)))
		}
		for _, x := range v.Update {
			for _, client := range []bool{false, true} {
				l := publishedState{x.Keys, x.Nonce, make([]byte, 16)}.layer(kern, client)
				l.update()
				check("UPDATE: "+x.Name, *l == *publishedState{x.OutKeys, x.OutNonce, make([]byte, 16)}.layer(kern, client))
			}
		}
		for _, x := range v.Relay {
			l, body := x.State.layer(kern, false), join(x.T, x.C)
			if x.Inbound {
				l.Wrap(x.AD[0], body)
			} else {
				l.Peel(x.AD[0], body)
			}
			check("relay: "+x.Name, bytes.Equal(body, join(x.OutT, x.OutC)) && *l == *x.OutState.layer(kern, false))
		}
		for _, x := range v.RelayOriginate {
			l, body := x.State.layer(kern, false), join(make([]byte, tagSize), x.M)
			l.Seal(x.AD[0], body)
			check("relay originates: "+x.Name, bytes.Equal(body, join(x.OutT, x.OutC)) && *l == *x.OutState.layer(kern, false))
		}
		for _, x := range v.ClientOriginate {
			var c circuit
			for _, s := range x.States {
				c.clientForward = append(c.clientForward, s.layer(kern, true))
			}
			body := join(make([]byte, tagSize), x.M)
			for i := x.Hop - 1; i >= 0; i-- {
				if i == x.Hop-1 {
					c.clientForward[i].Seal(x.AD[0], body)
				} else {
					c.clientForward[i].Wrap(x.AD[0], body)
				}
			}
			ok := bytes.Equal(body, join(x.OutT, x.OutC))
			for i, s := range x.OutStates {
				ok = ok && *c.clientForward[i] == *s.layer(kern, true)
			}
			check("client originates: "+x.Name, ok)
		}
		t.Logf("%v: %d vectors", kern, count)
		if count == 0 {
			t.Errorf("%s has no vectors", file)
		}
	}
}
