package layer

import (
	"encoding/binary"
	"math/bits"
)

// An element of the field of POLYVAL (RFC 8452, section 3): a polynomial over
// GF(2) modulo x^128 + x^127 + x^126 + x^121 + 1. Bit i of lo is the
// coefficient of x^i, bit i of hi that of x^(64+i).
type element struct{ lo, hi uint64 }

func loadElement(b []byte) element {
	return element{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}

func (e element) store(b []byte) {
	binary.LittleEndian.PutUint64(b, e.lo)
	binary.LittleEndian.PutUint64(b[8:], e.hi)
}

// dot is the product a·b·x^-128 of POLYVAL, in constant time.
func dot(a, b element) element {
	// Karatsuba: three products of 64 bits instead of four.
	h0, l0 := carrylessMul(a.lo, b.lo)
	h1, l1 := carrylessMul(a.hi, b.hi)
	hm, lm := carrylessMul(a.lo^a.hi, b.lo^b.hi)
	lm ^= l0 ^ l1
	hm ^= h0 ^ h1
	v0, v1, v2, v3 := l0, h0^lm, l1^hm, h1

	// Twice a multiple of the modulus is added that clears the lowest word,
	// and the word dropped, which divides by x^64.
	v1 ^= v0<<63 ^ v0<<62 ^ v0<<57
	v2 ^= v0 ^ v0>>1 ^ v0>>2 ^ v0>>7
	v2 ^= v1<<63 ^ v1<<62 ^ v1<<57
	v3 ^= v1 ^ v1>>1 ^ v1>>2 ^ v1>>7
	return element{v2, v3}
}

// carrylessMul is the product of two polynomials over GF(2), by integer
// multiplication with holes: of operands that have only every fourth bit, each
// sum of up to 15 bits stays within its four bits, and its lowest bit is the
// coefficient wanted. The four highest bits of x, which would make a sixteenth,
// are multiplied by hand.
func carrylessMul(x, y uint64) (hi, lo uint64) {
	const m0, m1, m2, m3 = 0x1111111111111111, 0x2222222222222222, 0x4444444444444444, 0x8888888888888888
	top := x >> 60
	x &= 1<<60 - 1
	x0, x1, x2, x3 := x&m0, x&m1, x&m2, x&m3
	y0, y1, y2, y3 := y&m0, y&m1, y&m2, y&m3

	h, l := sumOfProducts(x0, y0, x1, y3, x2, y2, x3, y1)
	hi, lo = h&m0, l&m0
	h, l = sumOfProducts(x0, y1, x1, y0, x2, y3, x3, y2)
	hi, lo = hi|h&m1, lo|l&m1
	h, l = sumOfProducts(x0, y2, x1, y1, x2, y0, x3, y3)
	hi, lo = hi|h&m2, lo|l&m2
	h, l = sumOfProducts(x0, y3, x1, y2, x2, y1, x3, y0)
	hi, lo = hi|h&m3, lo|l&m3

	for i := range 4 {
		t := y & -(top >> i & 1)
		hi ^= t >> (4 - i)
		lo ^= t << (60 + i)
	}
	return hi, lo
}

func sumOfProducts(a, b, c, d, e, f, g, h uint64) (hi, lo uint64) {
	hi0, lo0 := bits.Mul64(a, b)
	hi1, lo1 := bits.Mul64(c, d)
	hi2, lo2 := bits.Mul64(e, f)
	hi3, lo3 := bits.Mul64(g, h)
	return hi0 ^ hi1 ^ hi2 ^ hi3, lo0 ^ lo1 ^ lo2 ^ lo3
}

// absorb continues the POLYVAL sum under key h over p, whose last block is
// filled up with zeros.
func (e element) absorb(h element, p []byte) element {
	for len(p) >= 16 {
		b := loadElement(p)
		e = dot(element{e.lo ^ b.lo, e.hi ^ b.hi}, h)
		p = p[16:]
	}
	if len(p) > 0 {
		var last [16]byte
		copy(last[:], p)
		b := loadElement(last[:])
		e = dot(element{e.lo ^ b.lo, e.hi ^ b.hi}, h)
	}
	return e
}
