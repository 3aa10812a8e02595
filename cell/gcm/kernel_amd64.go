//go:build !purego

package gcm

import "golang.org/x/sys/cpu"

// keys are what a key comes to, for the kernel.
type keys struct {
	powers [256]byte // H^16 … H^1
	rounds [240]byte // of AES-256
}

// supported says whether this machine can run the kernel.
func supported() bool {
	x := &cpu.X86
	return x.HasAES && x.HasPCLMULQDQ && x.HasAVX2 && x.HasBMI2 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512VL &&
		x.HasAVX512VAES && x.HasAVX512VPCLMULQDQ
}

func (k *keys) expand(key *[KeySize]byte) { expandVAES512(k, key) }

// block is AES of one block, in place.
func (k *keys) block(b *[16]byte) { blockVAES512(k, b) }

// absorb adds data to the hash, filled up to whole blocks.
func (k *keys) absorb(sum *[16]byte, data []byte) {
	if len(data) > 0 {
		absorbVAES512(k, sum, &data[0], len(data))
	}
}

// seal encrypts text, from a counter block on, and absorbs what comes of it.
func (k *keys) seal(counter, sum *[16]byte, text []byte) {
	if len(text) > 0 {
		sealVAES512(k, counter, sum, &text[0], len(text))
	}
}

// open absorbs text and decrypts it, from a counter block on.
func (k *keys) open(counter, sum *[16]byte, text []byte) {
	if len(text) > 0 {
		openVAES512(k, counter, sum, &text[0], len(text))
	}
}

//go:noescape
func expandVAES512(k *keys, key *[KeySize]byte)

//go:noescape
func blockVAES512(k *keys, b *[16]byte)

//go:noescape
func absorbVAES512(k *keys, sum *[16]byte, data *byte, n int)

//go:noescape
func sealVAES512(k *keys, counter, sum *[16]byte, text *byte, n int)

//go:noescape
func openVAES512(k *keys, counter, sum *[16]byte, text *byte, n int)
