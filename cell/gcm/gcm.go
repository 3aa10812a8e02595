// Package gcm is AES-256-GCM (NIST SP 800-38D; nonces of 12 bytes, tags of 16): that of the standard library, but up to twice as
// fast where the machine has AES and carry-less products on registers of 256 bits, and with keys that can be erased.
//
// There is one kernel, for amd64. It is used if it agrees with the standard library when the program starts.
package gcm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"math"
	"slices"
)

// Sizes in bytes.
const (
	KeySize   = 32
	NonceSize = 12
	TagSize   = 16
)

// An AEAD is the cipher under one key; it is a cipher.AEAD. What it returns goes over what dst had room for, as in the
// standard library; unlike there, dst may also overlap what is read in any way. It may be used by several goroutines, but not
// while one erases it.
type AEAD struct {
	kernel kernel
	keys   keys        // without pointers, so that they are overwritten where they are
	std    cipher.AEAD // works if the kernel is std, else nil
}

// A kernel is one implementation.
type kernel uint8

const (
	std  kernel = iota // the standard library
	vaes               // amd64: VAES and VPCLMULQDQ on 256 bits, and AVX2
)

func (k kernel) String() string { return [...]string{"std", "vaes"}[k] }

var errOpen = errors.New("gcm: message authentication failed")

// New returns the cipher under a key, which it copies.
func New(key *[KeySize]byte) *AEAD { return newAEAD(key, chosen) }

func newAEAD(key *[KeySize]byte, kern kernel) *AEAD {
	a := &AEAD{kernel: kern}
	if kern != std {
		a.keys.expand(key)
		return a
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has its one size
	}
	if a.std, err = cipher.NewGCM(block); err != nil {
		panic(err) // AES has blocks of 16 bytes
	}
	return a
}

// Erase overwrites the key; what the standard library keeps of it goes with the garbage. To use the AEAD after it panics.
func (a *AEAD) Erase() { *a = AEAD{} }

// NonceSize is that of every nonce.
func (a *AEAD) NonceSize() int { return NonceSize }

// Overhead is how much longer what Seal makes is than what it takes.
func (a *AEAD) Overhead() int { return TagSize }

// most is the length of the longest plaintext: then the counter would repeat.
const most = (1<<32 - 2) * 16

// Seal encrypts and authenticates plaintext, authenticates data, and appends the result to dst. A nonce must not come twice under
// a key. It panics if the nonce has another size.
func (a *AEAD) Seal(dst, nonce, plaintext, data []byte) []byte {
	if a.kernel == std {
		return a.std.Seal(dst, nonce, plaintext, data)
	}
	if len(nonce) != NonceSize || uint64(len(plaintext)) > most {
		panic("gcm: a nonce of another size, or too long a plaintext")
	}
	n := len(plaintext)
	var sum [16]byte
	a.keys.absorb(&sum, data)
	all, out := extend(dst, n+TagSize)
	move(out, plaintext)
	a.keys.seal(counter(nonce, 2), &sum, out[:n])
	tag := a.tag(nonce, &sum, len(data), n)
	copy(out[n:], tag[:])
	return all
}

// Open decrypts what Seal made under the same nonce with the same data, and appends it to dst. If any of them differs it returns
// an error, and what it wrote behind dst is overwritten. It panics if the nonce has another size.
func (a *AEAD) Open(dst, nonce, sealed, data []byte) ([]byte, error) {
	if a.kernel == std {
		return a.std.Open(dst, nonce, sealed, data)
	}
	if len(nonce) != NonceSize {
		panic("gcm: a nonce of another size")
	}
	n := len(sealed) - TagSize
	if n < 0 || uint64(n) > most {
		return nil, errOpen
	}
	want := [TagSize]byte(sealed[n:])
	var sum [16]byte
	a.keys.absorb(&sum, data)
	all, out := extend(dst, n)
	move(out, sealed[:n])
	a.keys.open(counter(nonce, 2), &sum, out)
	got := a.tag(nonce, &sum, len(data), n)
	if subtle.ConstantTimeCompare(got[:], want[:]) == 0 {
		clear(out)
		return nil, errOpen
	}
	return all, nil
}

// tag is what authenticates a message whose data and ciphertext, n bytes, came to sum.
func (a *AEAD) tag(nonce []byte, sum *[16]byte, data, n int) [TagSize]byte {
	var lengths [16]byte
	binary.BigEndian.PutUint64(lengths[:8], uint64(data)*8)
	binary.BigEndian.PutUint64(lengths[8:], uint64(n)*8)
	a.keys.absorb(sum, lengths[:])
	tag := counter(nonce, 1)
	a.keys.block(tag)
	slices.Reverse(sum[:]) // the kernel has its elements the other way round
	subtle.XORBytes(tag[:], tag[:], sum[:])
	return *tag
}

// counter is the counter block number i of a nonce.
func counter(nonce []byte, i uint32) *[16]byte {
	var b [16]byte
	copy(b[:], nonce)
	binary.BigEndian.PutUint32(b[NonceSize:], i)
	return &b
}

// extend returns dst with n bytes more, and these.
func extend(dst []byte, n int) (all, more []byte) {
	if n > math.MaxInt-len(dst) {
		panic("gcm: too long")
	}
	all = slices.Grow(dst, n)[:len(dst)+n]
	return all, all[len(dst):]
}

// move copies src to dst, if it is elsewhere.
func move(dst, src []byte) {
	if len(src) > 0 && &dst[0] != &src[0] {
		copy(dst, src)
	}
}

// chosen is the fastest kernel that this machine can run and that does what the standard library does.
var chosen = choose(supported(), agrees)

func choose(kernels []kernel, right func(kernel) bool) kernel {
	for _, kern := range kernels {
		if kern == std || right(kern) {
			return kern
		}
	}
	return std
}

// agrees compares a kernel with the standard library, with lengths that take every turn of its code.
func agrees(kern kernel) bool {
	var key [KeySize]byte
	var text [1 << 10]byte
	for i := range text {
		text[i] = byte(i ^ i>>8)
	}
	copy(key[:], text[1:])
	ours, theirs := newAEAD(&key, kern), newAEAD(&key, std)
	defer ours.Erase()
	for _, n := range []int{0, 1, 63, 64, 255, 256, 257, 700, 1001} {
		nonce, data := text[n/16:][:NonceSize], text[:n/40]
		want := theirs.Seal(nil, nonce, text[:n], data)
		if got := ours.Seal(nil, nonce, text[:n], data); !slices.Equal(got, want) {
			return false
		}
		if got, err := ours.Open(nil, nonce, want, data); err != nil || !slices.Equal(got, text[:n]) {
			return false
		}
		want[n/2] ^= 1
		if _, err := ours.Open(nil, nonce, want, data); err == nil {
			return false
		}
	}
	return true
}
