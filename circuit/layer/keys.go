package layer

import (
	"encoding/binary"
	"math/bits"
)

// keys are the four keys of the wide-block cipher, expanded for the kernel that
// uses them. They hold no pointer, so that they are overwritten in place when
// the keys move on, and nothing of them stays behind.
type keys struct {
	high [128]byte // KU^16 … KU^9 for vaes512; for aesni and vaes the sums of the halves of each power in ku
	ku   [128]byte // KU^8 … KU^1, powers by the product of POLYVAL
	kb   schedule  // KB
	k    schedule  // K
	b    [16]byte  // B
	mask [16]byte  // of a first counter block: see counterMask
}

// counterMask clears, of a first counter block, as many low bits as it takes to
// count the blocks of a cell and the five of a key update without a carry.
func counterMask(blocks int) (m [16]byte) {
	binary.BigEndian.PutUint64(m[:], ^uint64(0))
	binary.BigEndian.PutUint64(m[8:], ^uint64(0)<<bits.Len(uint(blocks+5-1)))
	return m
}

// streamBlocks is the number of keystream blocks that a body of n bytes takes.
func streamBlocks(n int) int { return (n - tagSize + 15) / 16 }

// A kernel is one implementation of the wide-block cipher. What each expands of
// the keys is its own, so that a Layer stays with the kernel it began with.
type kernel uint8

const (
	generic kernel = iota
	aesni          // amd64: AES-NI, PCLMULQDQ and AVX
	vaes           // amd64: VAES and VPCLMULQDQ on 256 bits, and AVX2
	vaes512        // amd64: the same on 512 bits, and AVX-512
	armv8          // arm64: AES and PMULL
)

func (k kernel) String() string {
	return [...]string{"generic", "aesni", "vaes", "vaes512", "armv8"}[k]
}
