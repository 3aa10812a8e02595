package layer

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"math/bits"
)

// keys are the four keys of the wide-block cipher, and room to work in.
type keys struct {
	kb, k  cipher.Block
	ku, b  element
	blocks int    // of keystream in a cell
	mask   uint64 // of the last 64 bits of a counter block
	block  [16]byte
	stream [MaxSize]byte
}

// set takes KB | KU | K | B.
func (s *keys) set(k *[64]byte, n int, client bool) {
	s.kb, s.k = newAES(k[:16]), newAES(k[32:48])
	s.ku, s.b = loadElement(k[16:]), loadElement(k[48:])
	s.blocks = (n - tagSize + 15) / 16
	s.mask = counterMask(s.blocks)
}

func newAES(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	return b
}

// counterMask clears as many low bits of a first counter block as a cell's
// keystream and the five blocks of a key update count through.
func counterMask(blocks int) uint64 {
	return ^uint64(0) << bits.Len(uint(blocks+5-1))
}

func (s *keys) encipher(prev *[16]byte, ad byte, body []byte) {
	left, right := body[:tagSize], body[tagSize:]
	m := s.tweak(prev, ad, right)
	s.xorBlock(left, m)
	s.kb.Encrypt(left, left)
	s.xorBlock(left, m)
	copy(prev[:], left)
	s.xorStream(right, left, 0)
}

func (s *keys) decipher(prev *[16]byte, ad byte, body []byte) {
	left, right := body[:tagSize], body[tagSize:]
	s.xorStream(right, left, 0)
	m := s.tweak(prev, ad, right)
	copy(prev[:], left)
	s.xorBlock(left, m)
	s.kb.Decrypt(left, left)
	s.xorBlock(left, m)
}

// tweak is POLYVAL_KU(T' | AD | right).
func (s *keys) tweak(prev *[16]byte, ad byte, right []byte) element {
	var second [16]byte
	second[0] = ad
	copy(second[1:], right)
	return element{}.absorb(s.ku, prev[:]).absorb(s.ku, second[:]).absorb(s.ku, right[15:])
}

func (s *keys) xorBlock(b []byte, e element) {
	v := loadElement(b)
	element{v.lo ^ e.lo, v.hi ^ e.hi}.store(b)
}

// stretch gives the keys that follow on the nonce.
func (s *keys) stretch(nonce *[16]byte, out *[KeySize]byte) {
	clear(out[:])
	s.xorStream(out[:], nonce[:], s.blocks)
}

// xorStream adds the keystream that y selects to p, from block number first on.
func (s *keys) xorStream(p, y []byte, first int) {
	element{}.absorb(s.b, y).store(s.block[:])
	counter := binary.BigEndian.Uint64(s.block[8:])&s.mask + uint64(first)
	stream := s.stream[:len(p)+15&^15]
	for i := 0; i < len(stream); i += 16 {
		binary.BigEndian.PutUint64(s.block[8:], counter)
		s.k.Encrypt(stream[i:i+16], s.block[:])
		counter++
	}
	subtle.XORBytes(p, p, stream)
	clear(stream)
}
