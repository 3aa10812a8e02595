// Package sealed is secret keys in a file that only a passphrase opens (spec/keys.md, section 3): Argon2id makes a key of the
// passphrase, XChaCha20-Poly1305 seals with it. It reads and writes bytes only.
package sealed

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// Cost is what opening takes: Argon2id with Time passes over Memory KiB in Threads lanes.
type Cost struct {
	Time, Memory uint32
	Threads      uint8
}

// Usual is what Seal should be asked for: what RFC 9106 recommends where 2 GiB are too much.
var Usual = Cost{Time: 3, Memory: 64 << 10, Threads: 4}

// Least and Most bound what a file may ask for: less would be no protection, more could exhaust the machine of whoever opens a
// file that somebody else wrote.
var (
	Least = Cost{Time: 1, Memory: 8 << 10, Threads: 1}
	Most  = Cost{Time: 16, Memory: 1 << 20, Threads: 16}
)

// mostWork bounds passes times KiB: 4 GiB, about as long as 6 s.
const mostWork = 4 << 20

func (c Cost) check() error {
	switch {
	case c.Time < Least.Time || c.Time > Most.Time, c.Memory < Least.Memory || c.Memory > Most.Memory, c.Threads < Least.Threads || c.Threads > Most.Threads:
		return fmt.Errorf("it asks for argon2id with %d passes, %d KiB and %d lanes; allowed are 1 to %d, %d to %d KiB, and 1 to %d",
			c.Time, c.Memory, c.Threads, Most.Time, Least.Memory, Most.Memory, Most.Threads)
	case uint64(c.Time)*uint64(c.Memory) > mostWork:
		return fmt.Errorf("it asks for %d passes over %d KiB; together at most %d KiB are allowed", c.Time, c.Memory, mostWork)
	}
	return nil
}

// Limits of a file.
const (
	MaxFile   = 64 << 10 // bytes
	maxSecret = 32 << 10
	maxWord   = 64
	saltSize  = 16
)

// MinPassphrase is the least length of a new passphrase in bytes.
const MinPassphrase = 10

// ErrPassphrase: the passphrase is wrong, or the file was changed. The two look alike.
var ErrPassphrase = errors.New("wrong passphrase, or the file was altered")

// File is a sealed file as it is read, before it is opened.
type File struct {
	Kind   string // what is inside: one word
	Public string // who it is: one word that anybody may read
	Cost   Cost
	salt   [saltSize]byte
	nonce  [chacha20poly1305.NonceSizeX]byte
	sealed []byte
}

func word(s string) error {
	if s == "" || len(s) > maxWord || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%.80q must be one word of at most %d characters", s, maxWord)
	}
	return nil
}

// Seal writes a secret under a passphrase.
func Seal(kind, public string, secret, passphrase []byte, cost Cost) ([]byte, error) {
	if len(passphrase) < MinPassphrase {
		return nil, fmt.Errorf("the passphrase has %d bytes: give at least %d; five or six random words are good", len(passphrase), MinPassphrase)
	}
	if len(secret) > maxSecret {
		return nil, fmt.Errorf("%d bytes to seal, at most %d are allowed", len(secret), maxSecret)
	}
	if err := errors.Join(word(kind), word(public), cost.check()); err != nil {
		return nil, err
	}
	f := File{Kind: kind, Public: public, Cost: cost}
	rand.Read(f.salt[:])
	rand.Read(f.nonce[:])
	aead, err := f.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	f.sealed = aead.Seal(nil, f.nonce[:], secret, f.head(nil))
	return f.Append(nil), nil
}

// Open gives back what was sealed. It takes the memory and time that the file asks for, within Most.
func (f *File) Open(passphrase []byte) ([]byte, error) {
	aead, err := f.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, f.nonce[:], f.sealed, f.head(nil))
	if err != nil {
		return nil, ErrPassphrase
	}
	return secret, nil
}

func (f *File) cipher(passphrase []byte) (aead interface {
	Seal(dst, nonce, plaintext, additionalData []byte) []byte
	Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error)
}, err error) {
	if err := f.Cost.check(); err != nil {
		return nil, err
	}
	key := argon2.IDKey(passphrase, f.salt[:], f.Cost.Time, f.Cost.Memory, f.Cost.Threads, chacha20poly1305.KeySize)
	defer clear(key)
	return chacha20poly1305.NewX(key)
}

const title = "peel-sealed 1\n"

// head is all that is authenticated besides the secret.
func (f *File) head(b []byte) []byte {
	b = append(b, title...)
	b = fmt.Appendf(b, "kind %s\npublic %s\n", f.Kind, f.Public)
	b = fmt.Appendf(b, "argon2id %d %d %d\n", f.Cost.Time, f.Cost.Memory, f.Cost.Threads)
	b = fmt.Appendf(b, "salt %s\n", base64.RawStdEncoding.EncodeToString(f.salt[:]))
	return fmt.Appendf(b, "nonce %s\n", base64.RawStdEncoding.EncodeToString(f.nonce[:]))
}

// lineBytes are the bytes of the secret in a line of the file.
const lineBytes = 48

// Append appends the file's text.
func (f *File) Append(b []byte) []byte {
	b = f.head(b)
	for rest := f.sealed; len(rest) > 0; {
		n := min(len(rest), lineBytes)
		b = fmt.Appendf(b, "sealed %s\n", base64.RawStdEncoding.EncodeToString(rest[:n]))
		rest = rest[n:]
	}
	return b
}

// Parse reads a file without opening it. It refuses what Append would not have written, and costs beyond the limits.
func Parse(text []byte) (*File, error) {
	f, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("not a sealed file: %w", err)
	}
	return f, nil
}

// Is says whether a text begins like a sealed file.
func Is(text []byte) bool { return bytes.HasPrefix(text, []byte("peel-sealed ")) }

func parse(text []byte) (*File, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(text), MaxFile)
	}
	rest, ok := strings.CutPrefix(string(text), title)
	if !ok {
		return nil, fmt.Errorf("it does not begin with %q", strings.TrimSpace(title))
	}
	f := new(File)
	for _, key := range []string{"kind", "public", "argon2id", "salt", "nonce"} {
		line, after, ok := strings.Cut(rest, "\n")
		value, is := strings.CutPrefix(line, key+" ")
		if !ok || !is {
			return nil, fmt.Errorf("a line %q is missing", key)
		}
		rest = after
		if err := f.take(key, value); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	for line := range strings.Lines(rest) {
		part, err := base64.RawStdEncoding.Strict().DecodeString(strings.TrimSuffix(strings.TrimPrefix(line, "sealed "), "\n"))
		if err != nil {
			return nil, fmt.Errorf("sealed: %w", err)
		}
		f.sealed = append(f.sealed, part...)
	}
	if n := len(f.sealed); n < chacha20poly1305.Overhead || n > maxSecret+chacha20poly1305.Overhead {
		return nil, fmt.Errorf("sealed: %d bytes", n)
	}
	if !bytes.Equal(f.Append(nil), text) {
		return nil, errors.New("it is not written as it should be")
	}
	return f, nil
}

// take reads the value of a line.
func (f *File) take(key, value string) error {
	switch key {
	case "kind":
		f.Kind = value
		return word(value)
	case "public":
		f.Public = value
		return word(value)
	case "argon2id":
		words := strings.Split(value, " ")
		if len(words) != 3 {
			return errors.New("three numbers must stand there")
		}
		var n [3]uint64
		for i, bits := range []int{32, 32, 8} {
			var err error
			if n[i], err = strconv.ParseUint(words[i], 10, bits); err != nil {
				return err
			}
		}
		f.Cost = Cost{uint32(n[0]), uint32(n[1]), uint8(n[2])}
		return f.Cost.check()
	case "salt":
		return bytesOf(f.salt[:], value)
	}
	return bytesOf(f.nonce[:], value)
}

func bytesOf(into []byte, text string) error {
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err == nil && len(b) != len(into) {
		err = fmt.Errorf("%d bytes instead of %d", len(b), len(into))
	}
	copy(into, b)
	return err
}
