package layer

import "bytes"

// chosen is the kernel of new layers: the fastest that this machine can run and
// that gives the results it must.
var chosen = choose(supported(), selfTests)

// Kernel names the implementation that this machine runs, for people to read.
func Kernel() string { return chosen.String() }

// A chain is a test vector: the last tag after a relay with the keys 00 01 … 4f
// has sealed the body 00 01 … ff 00 … of n bytes, and what came of it twice
// again (spec/vectors/layer.json, chains).
type chain struct {
	n   int
	tag [tagSize]byte
}

// Between them the lengths take every turn of the code for bodies as long as
// those of cells.
var selfTests = []chain{
	{509, [tagSize]byte{
		0x1c, 0xa8, 0x60, 0x8e, 0x8e, 0xa5, 0x07, 0x15, 0xc7, 0x9e, 0x7a, 0x61, 0x57, 0x84, 0x60, 0x49}},
	{530, [tagSize]byte{
		0xb4, 0x80, 0x82, 0x51, 0xea, 0xd0, 0x5f, 0xb1, 0x86, 0x69, 0xcf, 0x07, 0x34, 0x01, 0x59, 0x75}},
	{1403, [tagSize]byte{
		0x94, 0xb8, 0xa9, 0x47, 0xd9, 0x19, 0x06, 0x45, 0xab, 0x8c, 0x29, 0x52, 0x67, 0xe2, 0xd7, 0x1e}},
}

// choose returns the first kernel that passes all tests.
func choose(kernels []kernel, tests []chain) kernel {
next:
	for _, kern := range kernels {
		for _, c := range tests {
			if !c.holds(kern) {
				continue next
			}
		}
		return kern
	}
	panic("layer: no kernel gives the results it must: this machine or this build is faulty; try one with -tags purego")
}

// holds reports whether a kernel gives the chain's tag, and whether its
// deciphering end recognises and undoes what its enciphering end did.
func (c chain) holds(kern kernel) bool {
	var k [KeySize]byte
	for i := range k {
		k[i] = byte(i)
	}
	relay, client := newLayer(kern, &k, c.n, false), newLayer(kern, &k, c.n, true)
	body, got := make([]byte, c.n), make([]byte, c.n)
	for i := range body {
		body[i] = byte(i)
	}
	for range 3 {
		copy(got, body)
		relay.Seal(3, got)
		sealed := bytes.Clone(got)
		if !client.Peel(3, got) || !bytes.Equal(got[tagSize:], body[tagSize:]) {
			return false
		}
		body = sealed
	}
	return [tagSize]byte(body) == c.tag
}
