package layer

// kernels are those that this machine can run, the fastest last.
var kernels = []kernel{generic}

// set takes the keys KB | KU | K | B.
func (s *keys) set(_ kernel, k *[64]byte, _ bool) { s.setGeneric(k) }

// encipher is ENC, in place; prev becomes the tag that comes out.
func (s *keys) encipher(_ kernel, prev *[tagSize]byte, ad byte, body []byte) {
	s.encipherGeneric(prev, ad, body)
}

// decipher is DEC, in place; prev becomes the tag that went in.
func (s *keys) decipher(_ kernel, prev *[tagSize]byte, ad byte, body []byte) {
	s.decipherGeneric(prev, ad, body)
}

// xorStream adds to p the keystream that y selects, from block number first on.
func (s *keys) xorStream(_ kernel, y *[tagSize]byte, first uint64, p *[KeySize]byte) {
	s.xorStreamGeneric(y, first, p[:])
}
