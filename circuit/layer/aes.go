package layer

import (
	"encoding/binary"
	"math/bits"
)

// AES-128 in constant time: no table is indexed and no branch taken by a secret.
//
// Four blocks are worked on at once, sliced into planes: plane i holds bit i of
// all 64 bytes. The byte in row r and column c of block b (FIPS 197, section
// 3.4) has its bits at position 16r + 4c + b, so that a row is 16 bits of a
// plane and ShiftRows and MixColumns are rotations.
type planes [8]uint64

// schedule has the eleven round keys, as FIPS 197 orders their bytes.
type schedule [176]byte

// expand makes the round keys of a key (FIPS 197, section 5.2).
func (s *schedule) expand(key []byte) {
	copy(s[:16], key)
	w := binary.LittleEndian.Uint32(s[12:])
	rcon := uint32(1)
	for i := 16; i < len(s); i += 4 {
		if i%16 == 0 {
			w = subWord(bits.RotateLeft32(w, -8)) ^ rcon
			rcon = rcon<<1 ^ rcon>>7*0x11b
		}
		w ^= binary.LittleEndian.Uint32(s[i-16:])
		binary.LittleEndian.PutUint32(s[i:], w)
	}
}

func subWord(w uint32) uint32 {
	p := planes{uint64(w)}
	p.transpose()
	p.subBytes()
	p.transpose()
	return uint32(p[0])
}

// A sliced schedule is for four blocks at once. Whoever makes one clears it.
type sliced [11]planes

func (s *schedule) slice(out *sliced) {
	var four [64]byte
	for r := range out {
		for i := 0; i < len(four); i += 16 {
			copy(four[i:], s[16*r:16*r+16])
		}
		out[r].load(&four)
	}
	clear(four[:])
}

// encrypt enciphers four blocks in place.
func (s *sliced) encrypt(blocks *[64]byte) {
	var p planes
	p.load(blocks)
	p.addKey(&s[0])
	for r := 1; r < 10; r++ {
		p.subBytes()
		p.shiftRows()
		p.mixColumns()
		p.addKey(&s[r])
	}
	p.subBytes()
	p.shiftRows()
	p.addKey(&s[10])
	p.store(blocks)
}

// decrypt deciphers four blocks in place.
func (s *sliced) decrypt(blocks *[64]byte) {
	var p planes
	p.load(blocks)
	p.addKey(&s[10])
	for r := 9; r > 0; r-- {
		p.unshiftRows()
		p.unsubBytes()
		p.addKey(&s[r])
		p.unmixColumns()
	}
	p.unshiftRows()
	p.unsubBytes()
	p.addKey(&s[0])
	p.store(blocks)
}

// load slices four blocks. Transposing moves bit i of byte k of word w to
// position 8k + w of plane i; so the columns 0 and 2 of block b go into word b
// byte by byte in turn, and the columns 1 and 3 into word 4 + b.
func (p *planes) load(blocks *[64]byte) {
	for b := range 4 {
		even := binary.LittleEndian.Uint64(blocks[16*b:])
		odd := even >> 32
		third := binary.LittleEndian.Uint64(blocks[16*b+8:])
		p[b] = spread(even) | spread(third)<<8
		p[4+b] = spread(odd) | spread(third>>32)<<8
	}
	p.transpose()
}

func (p *planes) store(blocks *[64]byte) {
	p.transpose()
	for b := range 4 {
		binary.LittleEndian.PutUint64(blocks[16*b:], gather(p[b])|gather(p[4+b])<<32)
		binary.LittleEndian.PutUint64(blocks[16*b+8:], gather(p[b]>>8)|gather(p[4+b]>>8)<<32)
	}
}

// spread puts the four low bytes of x at the even bytes of a word.
func spread(x uint64) uint64 {
	x &= 0x00000000ffffffff
	x = (x | x<<16) & 0x0000ffff0000ffff
	return (x | x<<8) & 0x00ff00ff00ff00ff
}

// gather is the inverse of spread; it ignores the odd bytes.
func gather(x uint64) uint64 {
	x &= 0x00ff00ff00ff00ff
	x = (x | x>>8) & 0x0000ffff0000ffff
	return (x | x>>16) & 0x00000000ffffffff
}

// transpose swaps, in each byte column, the number of the word with the number
// of the bit. It is its own inverse.
func (p *planes) transpose() {
	for i := 0; i < 8; i += 2 {
		swap(&p[i], &p[i+1], 1, 0x5555555555555555)
	}
	for _, i := range [...]int{0, 1, 4, 5} {
		swap(&p[i], &p[i+2], 2, 0x3333333333333333)
	}
	for i := range 4 {
		swap(&p[i], &p[i+4], 4, 0x0f0f0f0f0f0f0f0f)
	}
}

// swap exchanges the bits of x above mask with the bits of y in mask.
func swap(x, y *uint64, shift int, mask uint64) {
	t := (*x>>shift ^ *y) & mask
	*y ^= t
	*x ^= t << shift
}

func (p *planes) addKey(k *planes) {
	for i := range p {
		p[i] ^= k[i]
	}
}

func (p *planes) shiftRows() {
	for i, x := range p {
		p[i] = x&0x000000000000ffff |
			x>>4&0x000000000fff0000 | x<<12&0x00000000f0000000 |
			x>>8&0x000000ff00000000 | x<<8&0x0000ff0000000000 |
			x>>12&0x000f000000000000 | x<<4&0xfff0000000000000
	}
}

func (p *planes) unshiftRows() {
	for i, x := range p {
		p[i] = x&0x000000000000ffff |
			x<<4&0x00000000fff00000 | x>>12&0x00000000000f0000 |
			x<<8&0x0000ff0000000000 | x>>8&0x000000ff00000000 |
			x<<12&0xf000000000000000 | x>>4&0x0fff000000000000
	}
}

// mixColumns is, for the byte a in row r and b, c, d in the rows after it,
// 2a + 3b + c + d = 2(a+b) + b + (c+d).
func (p *planes) mixColumns() {
	var next, sum planes // b, and a+b
	for i, x := range p {
		next[i] = bits.RotateLeft64(x, -16)
		sum[i] = x ^ next[i]
	}
	twice := sum.double()
	for i := range p {
		p[i] = twice[i] ^ next[i] ^ bits.RotateLeft64(sum[i], 32)
	}
}

// unmixColumns makes 5a + 4c of the bytes and mixes: the matrix of MixColumns
// to the third power, which is its inverse, is its product with that.
func (p *planes) unmixColumns() {
	var sum planes // a+c
	for i, x := range p {
		sum[i] = x ^ bits.RotateLeft64(x, 32)
	}
	twice := sum.double()
	fourfold := twice.double()
	for i := range p {
		p[i] ^= fourfold[i]
	}
	p.mixColumns()
}

// double multiplies all bytes by x modulo x^8 + x^4 + x^3 + x + 1.
func (p *planes) double() planes {
	return planes{p[7], p[0] ^ p[7], p[1], p[2] ^ p[7], p[3] ^ p[7], p[4], p[5], p[6]}
}

// The S-box is the inverse in GF(256) and then an affine map. The inverse is
// taken in a tower of fields, where it comes down to products of bits:
//
//	GF(4)   = GF(2)[w]  / (w² + w + 1)
//	GF(16)  = GF(4)[x]  / (x² + x + w + 1)
//	GF(256) = GF(16)[y] / (y² + y + w·x + w)
//
// The bits of a byte stand there for 1, w, x, w·x, y, w·y, x·y, w·x·y. AES's
// byte 2 is the element 1 + w + y + x·y of the tower; its powers are the
// columns of the map into it, and the map back is joined with the affine one.
// Both are written so that sums that occur twice are taken once.

func (p *planes) subBytes() {
	x0, x1, x2, x3, x4, x5, x6, x7 := p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]
	t0 := x1 ^ x5
	t1 := x2 ^ x3
	t2 := x5 ^ x7
	t3 := x6 ^ t0
	l, h := invert256(
		gf16{x0 ^ t3, x1 ^ x7, x2 ^ x7, x2 ^ x4},
		gf16{x1, t1 ^ t2, x4 ^ t1 ^ t3, t2})

	t0 = l.c0 ^ h.c0
	t1 = l.c2 ^ l.c3
	t2 = l.c1 ^ t0
	t3 = h.c0 ^ h.c2
	t4 := h.c2 ^ t0
	*p = planes{
		^(t0 ^ t1), ^t2, l.c2 ^ h.c3 ^ t2, t1 ^ t4,
		t4, ^(h.c0 ^ h.c1 ^ t1), ^t3, l.c2 ^ t3,
	}
}

func (p *planes) unsubBytes() {
	x0, x1, x2, x3, x4, x5, x6, x7 := ^p[0], ^p[1], p[2], p[3], p[4], ^p[5], ^p[6], p[7]
	t0 := x0 ^ x3
	t1 := x4 ^ x6
	t2 := x6 ^ x7
	l, h := invert256(
		gf16{t1, x1 ^ x4 ^ t0, t2, x3 ^ x7 ^ t1},
		gf16{x6 ^ t0, x0 ^ x5 ^ t1, t0, x1 ^ x2 ^ t2})

	t0 = l.c1 ^ h.c0
	t1 = l.c2 ^ t0
	t2 = l.c3 ^ h.c1
	t3 := h.c2 ^ t2
	t4 := h.c3 ^ t1
	*p = planes{
		l.c0 ^ t3 ^ t4, h.c0, t1, h.c1 ^ t4,
		l.c3 ^ t1, h.c3 ^ t0, l.c2 ^ h.c0 ^ t3, t0,
	}
}

// gf16 is c0 + c1·w + c2·x + c3·w·x, 64 of them at once; gf4 is c0 + c1·w.
type (
	gf16 struct{ c0, c1, c2, c3 uint64 }
	gf4  struct{ c0, c1 uint64 }
)

// invert256 inverts l + h·y: with d = (w·x+w)h² + hl + l², the inverse is
// (h+l)/d + (h/d)y. It leaves zero as it is.
func invert256(l, h gf16) (gf16, gf16) {
	m := h.mul(l)
	d := gf16{
		h.c1 ^ m.c0 ^ l.c0 ^ l.c1 ^ l.c2,
		h.c0 ^ m.c1 ^ l.c1 ^ l.c2 ^ l.c3,
		h.c1 ^ h.c2 ^ h.c3 ^ m.c2 ^ l.c2 ^ l.c3,
		h.c0 ^ h.c3 ^ m.c3 ^ l.c3,
	}.invert()
	return h.add(l).mul(d), h.mul(d)
}

func (a gf16) add(b gf16) gf16 {
	return gf16{a.c0 ^ b.c0, a.c1 ^ b.c1, a.c2 ^ b.c2, a.c3 ^ b.c3}
}

func (a gf16) mul(b gf16) gf16 {
	low := gf4{a.c0, a.c1}.mul(gf4{b.c0, b.c1})
	high := gf4{a.c2, a.c3}.mul(gf4{b.c2, b.c3})
	both := gf4{a.c0 ^ a.c2, a.c1 ^ a.c3}.mul(gf4{b.c0 ^ b.c2, b.c1 ^ b.c3})
	return gf16{
		low.c0 ^ high.c0 ^ high.c1, low.c1 ^ high.c0, // low + (w+1)·high
		both.c0 ^ low.c0, both.c1 ^ low.c1,
	}
}

// invert does for l + h·x in GF(16) what invert256 does in GF(256), with
// d = (w+1)h² + hl + l², whose inverse in GF(4) is its square.
func (a gf16) invert() gf16 {
	l, h := gf4{a.c0, a.c1}, gf4{a.c2, a.c3}
	m := h.mul(l)
	d := gf4{h.c0 ^ m.c0 ^ l.c0 ^ l.c1, h.c0 ^ h.c1 ^ m.c1 ^ l.c1}
	d.c0 ^= d.c1
	l, h = gf4{l.c0 ^ h.c0, l.c1 ^ h.c1}.mul(d), h.mul(d)
	return gf16{l.c0, l.c1, h.c0, h.c1}
}

func (a gf4) mul(b gf4) gf4 {
	low, high := a.c0&b.c0, a.c1&b.c1
	return gf4{low ^ high, (a.c0^a.c1)&(b.c0^b.c1) ^ low}
}
