//go:build !purego

package layer

import "golang.org/x/sys/cpu"

// supported returns the kernels that this machine can run, the fastest first.
func supported() []kernel {
	if !cpu.ARM64.HasAES || !cpu.ARM64.HasPMULL {
		return []kernel{generic}
	}
	return []kernel{armv8, generic}
}

// set takes the keys KB | KU | K | B.
func (s *keys) set(kern kernel, k *[64]byte, client bool) {
	if kern == generic {
		s.setGeneric(k)
		return
	}
	expandARM64(s, k, client)
}

// encipher is ENC of count bodies in turn, in place, which begin stride bytes apart;
// it ends early with the first whose tag becomes the nonce. It returns how many it
// did. prev becomes the last tag that came out.
func (s *keys) encipher(kern kernel, prev, nonce *[tagSize]byte, ad byte, run []byte, n, stride, count int) int {
	if kern == generic {
		return s.encipherGeneric(prev, nonce, ad, run, n, stride, count)
	}
	for i := range count {
		encipherARM64(s, prev, ad, &run[i*stride], n)
		if same(prev, nonce) {
			return i + 1
		}
	}
	return count
}

// decipher is DEC, in place; prev becomes the tag that went in.
func (s *keys) decipher(kern kernel, prev *[tagSize]byte, ad byte, body []byte) {
	if kern == generic {
		s.decipherGeneric(prev, ad, body)
		return
	}
	decipherARM64(s, prev, ad, &body[0], len(body))
}

// stretch makes of y as many keystream blocks as KeySize takes, from block
// number first on.
func (s *keys) stretch(kern kernel, y *[tagSize]byte, first uint64, out *[KeySize]byte) {
	if kern == generic {
		s.stretchGeneric(y, first, out)
		return
	}
	stretchARM64(s, y, first, out)
}

// prefetch does nothing here.
func prefetch(*Layer) {}

//go:noescape
func expandARM64(s *keys, k *[64]byte, inverse bool)

//go:noescape
func stretchARM64(s *keys, y *[tagSize]byte, first uint64, out *[KeySize]byte)

//go:noescape
func encipherARM64(s *keys, prev *[tagSize]byte, ad byte, body *byte, n int)

//go:noescape
func decipherARM64(s *keys, prev *[tagSize]byte, ad byte, body *byte, n int)
