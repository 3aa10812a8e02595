//go:build !purego

package gcm

import "golang.org/x/sys/cpu"

// keys are what a key comes to, for the kernel.
type keys struct {
	powers [256]byte // H^16 … H^1
	sums   [256]byte // of the halves of each
	rounds [240]byte // of AES-256
}

// supported returns what this machine can run, the fastest first.
func supported() []kernel {
	x := &cpu.X86
	if !x.HasAES || !x.HasPCLMULQDQ || !x.HasAVX2 || leaf7()&(vaesBit|vpclmulqdqBit) != vaesBit|vpclmulqdqBit {
		return []kernel{std}
	}
	return []kernel{vaes, std}
}

// The bits of ECX of CPUID leaf 7 for instructions on 256-bit registers, which package cpu names only where there are 512-bit
// ones too.
const (
	vaesBit       = 1 << 9
	vpclmulqdqBit = 1 << 10
)

// leaf7 is ECX of CPUID leaf 7. Whoever has AVX2 has that leaf.
func leaf7() (ecx uint32)

func (k *keys) expand(key *[KeySize]byte) { expandVAES(k, key) }

// block is AES of one block, in place.
func (k *keys) block(b *[16]byte) { blockVAES(k, b) }

// absorb adds data to the hash, filled up to whole blocks.
func (k *keys) absorb(sum *[16]byte, data []byte) {
	if len(data) > 0 {
		absorbVAES(k, sum, &data[0], len(data))
	}
}

// seal encrypts text, from a counter block on, and absorbs what comes of it.
func (k *keys) seal(counter, sum *[16]byte, text []byte) {
	if len(text) > 0 {
		sealVAES(k, counter, sum, &text[0], len(text))
	}
}

// open absorbs text and decrypts it, from a counter block on.
func (k *keys) open(counter, sum *[16]byte, text []byte) {
	if len(text) > 0 {
		openVAES(k, counter, sum, &text[0], len(text))
	}
}

//go:noescape
func expandVAES(k *keys, key *[KeySize]byte)

//go:noescape
func blockVAES(k *keys, b *[16]byte)

//go:noescape
func absorbVAES(k *keys, sum *[16]byte, data *byte, n int)

//go:noescape
func sealVAES(k *keys, counter, sum *[16]byte, text *byte, n int)

//go:noescape
func openVAES(k *keys, counter, sum *[16]byte, text *byte, n int)
