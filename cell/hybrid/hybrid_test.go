package hybrid

import (
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func newKey(t testing.TB) *ecdh.PrivateKey {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func publicKey(k *ecdh.PrivateKey) [32]byte { return [32]byte(k.PublicKey().Bytes()) }

// pair is the two sides of a handshake that fit together.
func pair(t testing.TB, p Pattern) (initiator, responder Config) {
	t.Helper()
	static := newKey(t)
	initiator = Config{Pattern: p, Prologue: []byte("a prologue"), Peer: publicKey(static)}
	if p == IK {
		initiator.Static = newKey(t)
	}
	return initiator, Config{Pattern: p, Prologue: []byte("a prologue"), Static: static}
}

func asked(t testing.TB, c Config) (i *Initiator, request []byte) {
	t.Helper()
	return askedBy(t, c, system)
}

func askedBy(t testing.TB, c Config, by chance) (i *Initiator, request []byte) {
	t.Helper()
	i, request, err := initiate(c, by)
	if err != nil {
		t.Fatal(err)
	}
	return i, request
}

func answered(t testing.TB, c Config, request, payload []byte) (reply []byte, s *Secrets) {
	t.Helper()
	reply, s, err := Respond(c, request, payload)
	if err != nil {
		t.Fatal(err)
	}
	return reply, s
}

func kemKey(t testing.TB) *mlkem.DecapsulationKey768 {
	t.Helper()
	k, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// run makes a whole handshake, which must succeed.
func run(t testing.TB, ci, cr Config, payload []byte) (request, reply []byte, si, sr *Secrets) {
	t.Helper()
	i, request := asked(t, ci)
	reply, sr = answered(t, cr, request, payload)
	got, si, err := i.Finish(reply)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, payload) {
		t.Fatalf("payload %x came as %x", payload, got)
	}
	return request, reply, si, sr
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", part)
	}
	if !strings.HasPrefix(err.Error(), "hybrid: ") || !strings.Contains(err.Error(), part) {
		t.Fatalf("error %q, want one of hybrid with %q", err, part)
	}
}

func eachPattern(t *testing.T, f func(t *testing.T, p Pattern)) {
	for _, p := range []Pattern{NK, IK} {
		t.Run(p.String(), func(t *testing.T) {
			t.Parallel()
			f(t, p)
		})
	}
}

func TestBothSidesGetTheSameSecrets(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		for _, n := range []int{0, 1, 25, 64, MaxPayload} {
			ci, cr := pair(t, p)
			payload := make([]byte, n)
			rand.Read(payload)
			request, reply, si, sr := run(t, ci, cr, payload)
			if len(request) != RequestSize(p) {
				t.Errorf("request of %d bytes, want %d", len(request), RequestSize(p))
			}
			if len(reply) != ReplyOverhead+n {
				t.Errorf("reply of %d bytes, want %d", len(reply), ReplyOverhead+n)
			}
			for _, label := range []string{"", "a", "b", "peel circuit v1"} {
				if !bytes.Equal(si.Expand(label, 192), sr.Expand(label, 192)) {
					t.Errorf("label %q: the sides differ", label)
				}
			}
			if si.Peer != ci.Peer {
				t.Error("initiator: Peer is not the responder")
			}
			var want [32]byte
			if p == IK {
				want = publicKey(ci.Static)
			}
			if sr.Peer != want {
				t.Errorf("responder: Peer is %x, want %x", sr.Peer, want)
			}
		}
	})
}

func TestSizes(t *testing.T) {
	if RequestSize(NK) != 1232 || RequestSize(IK) != 1280 || ReplyOverhead != 1136 {
		t.Errorf("sizes %d, %d, %d: want 1232, 1280, 1136", RequestSize(NK), RequestSize(IK), ReplyOverhead)
	}
	if RequestSize(0) != 0 || RequestSize(3) != 0 {
		t.Error("what is no pattern has a size")
	}
	for p, want := range map[Pattern]string{NK: "NK", IK: "IK", 0: "Pattern(0)", 9: "Pattern(9)"} {
		if p.String() != want {
			t.Errorf("%d prints as %q, want %q", p, p, want)
		}
	}
}

func TestNothingRepeatsBetweenHandshakes(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		seen := map[string]string{}
		for range 4 {
			request, reply, s, _ := run(t, ci, cr, []byte("same payload"))
			for what, b := range map[string][]byte{
				"ephemeral of the initiator": request[:32], "rest of the request": request[32:],
				"ciphertext": reply[:1088], "ephemeral of the responder": reply[1088:1120], "rest of the reply": reply[1120:],
				"secret": s.Expand("x", 32),
			} {
				if old, ok := seen[string(b)]; ok {
					t.Errorf("%s seen before, as %s", what, old)
				}
				seen[string(b)] = what
			}
		}
	})
}

func TestConfigsThatCannotWorkAreRefused(t *testing.T) {
	p256, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ci, cr := pair(t, IK)
	_, request := asked(t, ci)
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no pattern":      {func(c *Config) { c.Pattern = 0 }, "not a handshake pattern"},
		"unknown pattern": {func(c *Config) { c.Pattern = 7 }, "not a handshake pattern"},
		"no static key":   {func(c *Config) { c.Static = nil }, "set Config.Static"},
		"another curve":   {func(c *Config) { c.Static = p256 }, "not an X25519 key"},
	} {
		t.Run(name, func(t *testing.T) {
			i, r := ci, cr
			c.change(&i)
			c.change(&r)
			_, _, err := Initiate(i)
			wantError(t, err, c.want)
			_, _, err = Respond(r, request, nil)
			wantError(t, err, c.want)
		})
	}
	t.Run("NK responder without a key", func(t *testing.T) {
		_, _, err := Respond(Config{Pattern: NK}, make([]byte, RequestSize(NK)), nil)
		wantError(t, err, "set Config.Static")
	})
	t.Run("payload too long", func(t *testing.T) {
		_, _, err := Respond(cr, request, make([]byte, MaxPayload+1))
		wantError(t, err, "at most 1024")
	})
}

func TestAnonymousInitiatorNeverUsesItsStaticKey(t *testing.T) {
	ci, cr := pair(t, NK)
	ci.Static = newKey(t)
	_, _, _, sr := run(t, ci, cr, nil)
	if sr.Peer != [32]byte{} {
		t.Error("the responder learnt a key in NK")
	}
}

func TestConfigIsOnlyRead(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		i, r := ci, cr
		i.Prologue, r.Prologue = bytes.Clone(ci.Prologue), bytes.Clone(cr.Prologue)
		payload := []byte("payload")
		init, request := asked(t, i)
		kept := bytes.Clone(request)
		reply, _ := answered(t, r, request, payload)
		if !bytes.Equal(kept, request) || string(payload) != "payload" {
			t.Error("Respond changed its arguments")
		}
		kept = bytes.Clone(reply)
		clear(i.Prologue) // from here on the caller's again
		clear(request)
		if _, _, err := init.Finish(reply); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(kept, reply) {
			t.Error("Finish changed the reply")
		}
		if i.Peer != ci.Peer || !bytes.Equal(r.Prologue, cr.Prologue) {
			t.Error("Config was changed")
		}
	})
}

func TestInitiatorFinishesOnce(t *testing.T) {
	eachPattern(t, func(t *testing.T, p Pattern) {
		ci, cr := pair(t, p)
		for _, first := range []string{"good", "bad", "short"} {
			i, request := asked(t, ci)
			reply, _ := answered(t, cr, request, nil)
			try := bytes.Clone(reply)
			switch first {
			case "bad":
				try[len(try)-1] ^= 1
			case "short":
				try = try[:10]
			}
			if _, _, err := i.Finish(try); (err == nil) != (first == "good") {
				t.Fatalf("%s reply: %v", first, err)
			}
			_, s, err := i.Finish(reply)
			wantError(t, err, "finished before")
			if s != nil {
				t.Error("secrets beside an error")
			}
		}
	})
}

func TestExpand(t *testing.T) {
	ci, cr := pair(t, NK)
	_, _, s, _ := run(t, ci, cr, nil)
	seen := map[string]string{}
	for _, label := range []string{"", "a", "b", "ab", "peel circuit v1", "peel circuit v2", strings.Repeat("l", 5000)} {
		key := string(s.Expand(label, 32))
		if old, ok := seen[key]; ok {
			t.Errorf("labels %q and %q give the same bytes", label, old)
		}
		seen[key] = label
	}
	whole := s.Expand("x", MaxExpand)
	for n := 0; n <= MaxExpand; n += 1 + n/7 {
		if !bytes.Equal(s.Expand("x", n), whole[:n]) {
			t.Fatalf("%d bytes are not the start of %d", n, MaxExpand)
		}
	}
	for _, n := range []int{-1, MaxExpand + 1} {
		if !panics(func() { s.Expand("x", n) }) {
			t.Errorf("Expand of %d bytes gave something", n)
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestEraseLeavesNothingToExpand(t *testing.T) {
	ci, cr := pair(t, IK)
	_, _, si, sr := run(t, ci, cr, nil)
	key := sr.Expand("x", 32)
	if si.prk == [32]byte{} {
		t.Fatal("there was no secret to erase")
	}
	si.Erase()
	si.Erase()
	if si.prk != [32]byte{} {
		t.Error("the secret is still there")
	}
	if !panics(func() { si.Expand("x", 32) }) {
		t.Error("Expand gave keys of an erased secret")
	}
	if !bytes.Equal(key, sr.Expand("x", 32)) {
		t.Error("the other side's secret went too")
	}
}

func TestSecretsNeverShow(t *testing.T) {
	ci, cr := pair(t, IK)
	_, _, s, _ := run(t, ci, cr, nil)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "secrets", s)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("made", "secrets", s)
	if strings.Count(log.String(), "[scrubbed]") != 2 {
		t.Errorf("logged: %s", log.String())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		if got := fmt.Sprintf(verb, s) + fmt.Sprintf(verb, *s); got != "[scrubbed][scrubbed]" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

func TestHandlesOfNoKeyAreRefused(t *testing.T) {
	k := keys{static: newKey(t)}
	peer := newKey(t).PublicKey().Bytes()
	for _, h := range [][]byte{nil, {}, {handleEphemeral}, {2}, {handleStatic, 0}, bytes.Repeat([]byte{1}, 32)} {
		if _, err := k.DH(h, peer); err == nil {
			t.Errorf("handle %x gave a secret", h)
		}
	}
	if _, err := k.DH([]byte{handleStatic}, peer[:31]); err == nil {
		t.Error("a public key of 31 bytes gave a secret")
	}
}

func TestNoChanceNoHandshake(t *testing.T) {
	ci, cr := pair(t, NK)
	_, request := asked(t, ci)
	dry := system
	dry.ephemeral = func() (*ecdh.PrivateKey, error) { return nil, fmt.Errorf("out of chance") }
	if _, _, err := initiate(ci, dry); err == nil || !strings.Contains(err.Error(), "out of chance") {
		t.Errorf("Initiate: %v", err)
	}
	if _, _, err := respond(cr, request, nil, dry); err == nil || !strings.Contains(err.Error(), "out of chance") {
		t.Errorf("Respond: %v", err)
	}
	dry = system
	dry.kem = func() (*mlkem.DecapsulationKey768, error) { return nil, fmt.Errorf("out of chance") }
	if _, _, err := initiate(ci, dry); err == nil || !strings.Contains(err.Error(), "out of chance") {
		t.Errorf("Initiate: %v", err)
	}
}
