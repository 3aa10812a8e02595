package sealed

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"
)

var (
	cheap  = Least
	phrase = []byte("correct horse battery staple")
)

func sealedText(t testing.TB, secret string) []byte {
	t.Helper()
	text, err := Seal("identity", "abc", []byte(secret), phrase, cheap)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestWhatIsSealedIsOpenedByItsPassphraseAlone(t *testing.T) {
	for _, secret := range []string{"", "x", strings.Repeat("secret", 100)} {
		text := sealedText(t, secret)
		f, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind != "identity" || f.Public != "abc" || f.Cost != cheap {
			t.Errorf("%+v", f)
		}
		if got, err := f.Open(phrase); err != nil || string(got) != secret {
			t.Errorf("%q, %v", got, err)
		}
		for _, wrong := range []string{"", "correct horse battery stapl", "Correct horse battery staple", "correct horse battery staple "} {
			if got, err := f.Open([]byte(wrong)); !errors.Is(err, ErrPassphrase) || got != nil {
				t.Errorf("%q opens it: %v", wrong, err)
			}
		}
		if len(secret) > 0 && bytes.Contains(text, []byte(secret)) && len(secret) > 3 {
			t.Error("the secret stands in the file")
		}
	}
	if bytes.Equal(sealedText(t, "x"), sealedText(t, "x")) {
		t.Error("sealed twice alike")
	}
}

// Every byte of a file counts.
func TestAnAlteredFileIsRefused(t *testing.T) {
	text := sealedText(t, "secret")
	good, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := good.cipher(phrase)
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := aead.Open(nil, good.nonce[:], good.sealed, good.head(nil)); err != nil || string(secret) != "secret" {
		t.Fatal("the test opens otherwise than Open")
	}
	parsed := 0
	for i := range text {
		for _, bit := range []byte{1, 0x20} {
			bad := bytes.Clone(text)
			bad[i] ^= bit
			f, err := Parse(bad)
			if err != nil {
				continue
			}
			if f.Cost != cheap {
				continue // costs more time than the test has; a digit of it is authenticated as the rest
			}
			parsed++
			if f.salt == good.salt {
				_, err = aead.Open(nil, f.nonce[:], f.sealed, f.head(nil)) // as Open does, without making the key again
			} else if _, err = f.Open(phrase); errors.Is(err, ErrPassphrase) {
				continue
			}
			if err == nil {
				t.Fatalf("byte %d altered, and opened", i)
			}
		}
	}
	if parsed == 0 {
		t.Error("no altered file was parsed: the test shows less than it should")
	}
	for n := range text {
		if f, err := Parse(text[:n]); err == nil {
			if _, err := aead.Open(nil, f.nonce[:], f.sealed, f.head(nil)); err == nil {
				t.Errorf("%d of %d bytes are opened", n, len(text))
			}
		}
	}
}

// A file of an enemy can't make its reader take more than the limits say.
func TestCostsHaveLimits(t *testing.T) {
	text := string(sealedText(t, "secret"))
	was := fmt.Sprintf("argon2id %d %d %d", cheap.Time, cheap.Memory, cheap.Threads)
	if !strings.Contains(text, was) {
		t.Fatal("no such line")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, bad := range []string{
		"0 8192 1", "17 8192 1", "1 8191 1", "1 1048577 1", "1 4294967295 1", "4294967295 8192 1", "1 8192 0", "1 8192 17",
		"5 1048576 1", "1 4294967296 1", "1 8192 256", "-1 8192 1", "1 8192", "1 8192 1 1", "01 8192 1", " 1 8192 1", "1 8192 1 ", "x 8192 1", "1e3 8192 1",
	} {
		if _, err := Parse([]byte(strings.Replace(text, was, "argon2id "+bad, 1))); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
		t.Errorf("%d bytes used to refuse them", used)
	}
	for _, ok := range []Cost{Least, Usual, {4, 1 << 20, 16}} {
		if err := ok.check(); err != nil {
			t.Error(err)
		}
	}
	if _, err := (&File{Cost: Cost{1, 1 << 30, 1}}).Open(phrase); err == nil {
		t.Error("a cost beyond the limits was paid")
	}
}

func TestWhatIsNotSealed(t *testing.T) {
	for name, seal := range map[string]func() ([]byte, error){
		"a short passphrase": func() ([]byte, error) { return Seal("k", "p", nil, []byte("123456789"), cheap) },
		"two words":          func() ([]byte, error) { return Seal("k k", "p", nil, phrase, cheap) },
		"a line":             func() ([]byte, error) { return Seal("k", "p\nq", nil, phrase, cheap) },
		"no word":            func() ([]byte, error) { return Seal("", "p", nil, phrase, cheap) },
		"too much":           func() ([]byte, error) { return Seal("k", "p", make([]byte, maxSecret+1), phrase, cheap) },
		"too cheap":          func() ([]byte, error) { return Seal("k", "p", nil, phrase, Cost{1, 1024, 1}) },
	} {
		if _, err := seal(); err == nil {
			t.Errorf("%s: was sealed", name)
		}
	}
}

// The library makes what the reference implementation does.
func TestTheArgon2idOfTheStandard(t *testing.T) {
	// A vector of the reference implementation (argon2 -id, version 13): password "password", salt "somesalt", t=2, m=65536 KiB, p=1.
	want, _ := hex.DecodeString("09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7")
	if got := argon2.IDKey([]byte("password"), []byte("somesalt"), 2, 65536, 1, 32); !bytes.Equal(got, want) {
		t.Errorf("%x", got)
	}
}

func FuzzParse(f *testing.F) {
	text := sealedText(f, "secret")
	f.Add(text)
	f.Add([]byte(title))
	for _, change := range [][2]string{{"\nsealed ", "\nsealed"}, {"\nsealed ", "\n"}, {"\nsealed ", "\nsealed \nsealed "}, {"\nargon2id ", "\nargon2id 0"}, {"\nargon2id ", "\nargon2id 99"}, {"\nargon2id ", "\nargon2id 1 "},
		{"\nkind ", "\nkind k "}, {"\npublic ", "\npublic " + strings.Repeat("x", maxWord)}, {"\nsalt ", "\nnonce "}, {"\nnonce ", "\nnonce\t"}, {"1\n", "1\r\n"}} {
		changed := strings.Replace(string(text), change[0], change[1], 1)
		if changed == string(text) {
			f.Fatalf("%q changes nothing", change)
		}
		f.Add([]byte(changed))
	}
	f.Add(text[:len(text)-1])
	f.Add(append(bytes.Clone(text), '\n'))
	f.Add([]byte(strings.Replace(string(text), "salt ", "salt "+base64.RawStdEncoding.EncodeToString([]byte("x")), 1)))
	f.Fuzz(func(t *testing.T, text []byte) {
		g, err := Parse(text)
		if err != nil {
			return
		}
		if !bytes.Equal(g.Append(nil), text) {
			t.Error("prints back otherwise")
		}
		if err := errors.Join(g.Cost.check(), word(g.Kind), word(g.Public)); err != nil {
			t.Error(err)
		}
	})
}
