//go:build (!amd64 && !arm64) || purego

package layer

// supported returns the kernels that this machine can run, the fastest first.
func supported() []kernel { return []kernel{generic} }

// set takes the keys KB | KU | K | B.
func (s *keys) set(_ kernel, k *[64]byte, _ bool) { s.setGeneric(k) }

// encipher is ENC of count bodies in turn, in place, which begin stride bytes apart;
// it ends early with the first whose tag becomes the nonce. It returns how many it
// did. prev becomes the last tag that came out.
func (s *keys) encipher(_ kernel, prev, nonce *[tagSize]byte, ad byte, run []byte, n, stride, count int) int {
	return s.encipherGeneric(prev, nonce, ad, run, n, stride, count)
}

// decipher is DEC, in place; prev becomes the tag that went in.
func (s *keys) decipher(_ kernel, prev *[tagSize]byte, ad byte, body []byte) {
	s.decipherGeneric(prev, ad, body)
}

// stretch makes of y as many keystream blocks as KeySize takes, from block
// number first on.
func (s *keys) stretch(_ kernel, y *[tagSize]byte, first uint64, out *[KeySize]byte) {
	s.stretchGeneric(y, first, out)
}

// prefetch does nothing here.
func prefetch(*Layer) {}
