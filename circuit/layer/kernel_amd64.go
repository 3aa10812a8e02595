//go:build !purego

package layer

import "golang.org/x/sys/cpu"

// supported returns the kernels that this machine can run, the fastest first.
func supported() []kernel {
	switch {
	case !cpu.X86.HasAES || !cpu.X86.HasPCLMULQDQ || !cpu.X86.HasAVX:
		return []kernel{generic}
	case !cpu.X86.HasAVX2 || leaf7()&(vaesBit|vpclmulqdqBit) != vaesBit|vpclmulqdqBit:
		return []kernel{aesni, generic}
	case !cpu.X86.HasAVX512F || !cpu.X86.HasAVX512BW || !cpu.X86.HasAVX512VL || !cpu.X86.HasBMI2:
		return []kernel{vaes, aesni, generic}
	default:
		return []kernel{vaes512, vaes, aesni, generic}
	}
}

// The bits of ECX of CPUID leaf 7 for instructions on 256-bit registers, which
// package cpu names only where there are 512-bit ones too.
const (
	vaesBit       = 1 << 9
	vpclmulqdqBit = 1 << 10
)

// leaf7 is ECX of CPUID leaf 7. Whoever has AVX2 has that leaf.
func leaf7() (ecx uint32)

// set takes the keys KB | KU | K | B.
func (s *keys) set(kern kernel, k *[64]byte, client bool) {
	if kern == generic {
		s.setGeneric(k)
		return
	}
	expandAMD64(s, k, client)
	if kern == vaes512 {
		widenVAES512(s)
	}
}

// encipher is ENC of count bodies in turn, in place, which begin stride bytes apart;
// it ends early with the first whose tag becomes the nonce. It returns how many it
// did. prev becomes the last tag that came out.
func (s *keys) encipher(kern kernel, prev, nonce *[tagSize]byte, ad byte, run []byte, n, stride, count int) int {
	switch kern {
	case vaes512:
		return encipherVAES512(s, prev, nonce, &run[0], n, stride, count, ad)
	case vaes:
		return encipherVAES(s, prev, nonce, &run[0], n, stride, count, ad)
	case aesni:
		return encipherAESNI(s, prev, nonce, &run[0], n, stride, count, ad)
	default:
		return s.encipherGeneric(prev, nonce, ad, run, n, stride, count)
	}
}

// decipher is DEC, in place; prev becomes the tag that went in.
func (s *keys) decipher(kern kernel, prev *[tagSize]byte, ad byte, body []byte) {
	switch kern {
	case vaes512:
		decipherVAES512(s, prev, nil, &body[0], len(body), ad)
	case vaes:
		decipherVAES(s, prev, nil, &body[0], len(body), ad)
	case aesni:
		decipherAESNI(s, prev, nil, &body[0], len(body), ad)
	default:
		s.decipherGeneric(prev, ad, body)
	}
}

// stretch makes of y as many keystream blocks as KeySize takes, from block
// number first on.
func (s *keys) stretch(kern kernel, y *[tagSize]byte, first uint64, out *[KeySize]byte) {
	if kern == generic {
		s.stretchGeneric(y, first, out)
		return
	}
	stretchAMD64(s, y, first, out)
}

//go:noescape
func expandAMD64(s *keys, k *[64]byte, inverse bool)

//go:noescape
func stretchAMD64(s *keys, y *[tagSize]byte, first uint64, out *[KeySize]byte)

//go:noescape
func encipherAESNI(s *keys, prev, nonce *[tagSize]byte, body *byte, n, stride, count int, ad byte) (done int)

//go:noescape
func decipherAESNI(s *keys, prev, _ *[tagSize]byte, body *byte, n int, ad byte)

//go:noescape
func encipherVAES(s *keys, prev, nonce *[tagSize]byte, body *byte, n, stride, count int, ad byte) (done int)

//go:noescape
func decipherVAES(s *keys, prev, _ *[tagSize]byte, body *byte, n int, ad byte)

//go:noescape
func encipherVAES512(s *keys, prev, nonce *[tagSize]byte, body *byte, n, stride, count int, ad byte) (done int)

//go:noescape
func decipherVAES512(s *keys, prev, _ *[tagSize]byte, body *byte, n int, ad byte)

//go:noescape
func widenVAES512(s *keys)

// prefetch takes all cache lines of the layer.
//
//go:noescape
func prefetch(l *Layer)
