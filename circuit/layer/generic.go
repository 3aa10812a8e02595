package layer

import (
	"crypto/subtle"
	"encoding/binary"
)

// The generic kernel: Go alone, constant time on every machine, and what the
// other kernels are measured against. Of the powers of KU it keeps one.

func (s *keys) setGeneric(k *[64]byte) {
	s.kb.expand(k[:16])
	copy(s.ku[len(s.ku)-16:], k[16:32])
	s.k.expand(k[32:48])
	copy(s.b[:], k[48:])
}

func (s *keys) encipherGeneric(prev, nonce *[tagSize]byte, ad byte, run []byte, n, stride, count int) int {
	for i := range count {
		s.encipherOne(prev, ad, run[i*stride:][:n])
		if same(prev, nonce) {
			return i + 1
		}
	}
	return count
}

func (s *keys) encipherOne(prev *[tagSize]byte, ad byte, body []byte) {
	left, right := body[:tagSize], body[tagSize:]
	m := s.tweak(prev, ad, right)
	xorElement(left, m)
	s.cryptLeft(left, false)
	xorElement(left, m)
	copy(prev[:], left)
	s.xorStreamGeneric(prev, 0, right)
}

func (s *keys) decipherGeneric(prev *[tagSize]byte, ad byte, body []byte) {
	left, right := body[:tagSize], body[tagSize:]
	outer := [tagSize]byte(left)
	s.xorStreamGeneric(&outer, 0, right)
	m := s.tweak(prev, ad, right)
	xorElement(left, m)
	s.cryptLeft(left, true)
	xorElement(left, m)
	*prev = outer
}

// tweak is POLYVAL_KU(T' | AD | right).
func (s *keys) tweak(prev *[tagSize]byte, ad byte, right []byte) element {
	var second [16]byte
	second[0] = ad
	copy(second[1:], right)
	ku := loadElement(s.ku[len(s.ku)-16:])
	return element{}.absorb(ku, prev[:]).absorb(ku, second[:]).absorb(ku, right[15:])
}

func xorElement(left []byte, m element) {
	v := loadElement(left)
	element{v.lo ^ m.lo, v.hi ^ m.hi}.store(left)
}

// cryptLeft runs AES under KB over one block.
func (s *keys) cryptLeft(left []byte, inverse bool) {
	var key sliced
	s.kb.slice(&key)
	var blocks [64]byte
	copy(blocks[:], left)
	if inverse {
		key.decrypt(&blocks)
	} else {
		key.encrypt(&blocks)
	}
	copy(left, blocks[:])
	clear(key[:])
}

func (s *keys) stretchGeneric(y *[tagSize]byte, first uint64, out *[KeySize]byte) {
	clear(out[:])
	s.xorStreamGeneric(y, first, out[:])
}

// xorStreamGeneric adds to p the keystream that y selects, from its block
// number first on.
func (s *keys) xorStreamGeneric(y *[tagSize]byte, first uint64, p []byte) {
	var iv [16]byte
	element{}.absorb(loadElement(s.b[:]), y[:]).store(iv[:])
	counter := binary.BigEndian.Uint64(iv[8:])&binary.BigEndian.Uint64(s.mask[8:]) + first

	var key sliced
	s.k.slice(&key)
	for len(p) > 0 {
		var blocks [64]byte
		for i := 0; i < len(blocks); i += 16 {
			copy(blocks[i:], iv[:8])
			binary.BigEndian.PutUint64(blocks[i+8:], counter)
			counter++
		}
		key.encrypt(&blocks)
		p = p[subtle.XORBytes(p, p, blocks[:]):]
	}
	clear(key[:])
}
