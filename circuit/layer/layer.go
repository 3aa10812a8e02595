// Package layer is the encryption of one hop of a circuit in one direction: a
// tweakable wide-block cipher (Counter Galois Onion with AES-128 and POLYVAL)
// whose tweak depends on every cell before, and whose keys move on with every
// cell that ends at the layer.
//
// A body is n bytes: a tag of 16 bytes and the message. Whoever makes a cell
// for the other end of a layer Seals it; whoever passes it on adds a layer with
// Wrap or removes one with Peel, which says whether the cell ends here. A body
// that was changed, left out, repeated or moved to another place on its way is
// recognised by nobody, and neither is any body after it.
//
// A hop has two layers, forward and backward, and each has two ends, one at the
// relay and one at the client, which hold the same keys (spec/layer.md).
package layer

import (
	"encoding/binary"
	"fmt"
)

const (
	// KeySize is the length of the keys of one layer, in bytes.
	KeySize = 80
	// MinSize and MaxSize bound the length of a body, in bytes, its tag included.
	MinSize = 33
	MaxSize = 4112

	tagSize = 16
)

// A Layer is one end of one direction of one hop. It is owned by one goroutine
// at a time. Its methods work in place, allocate nothing, and take the same
// time whatever the keys and the bodies are.
//
// Every method takes the whole body, of exactly the length that the Layer was
// made for, and panics when it has another length or when the Layer was erased;
// ad is the command byte of the cell, which both ends must agree on.
type Layer struct {
	keys   keys
	nonce  [tagSize]byte // N: the tag, inside all layers, of the next cell that ends here
	prev   [tagSize]byte // T': the tag, outside this layer, of the cell before
	n      int           // bytes in a body; 0 once erased
	client bool          // the end that deciphers; the relay's end enciphers
	kernel kernel
}

// NewRelay returns the relay's end of a layer for bodies of n bytes. It copies
// keys, which the caller should overwrite.
func NewRelay(keys *[KeySize]byte, n int) *Layer {
	return newLayer(chosen, keys, n, false)
}

// NewClient returns the client's end of a layer for bodies of n bytes. It
// copies keys, which the caller should overwrite.
func NewClient(keys *[KeySize]byte, n int) *Layer {
	return newLayer(chosen, keys, n, true)
}

func newLayer(kern kernel, k *[KeySize]byte, n int, client bool) *Layer {
	if n < MinSize || n > MaxSize {
		panic(fmt.Sprintf("layer: a body of %d bytes: it must have %d to %d", n, MinSize, MaxSize))
	}
	l := &Layer{n: n, client: client, kernel: kern}
	l.keys.mask = counterMask(streamBlocks(n))
	l.setKeys(k)
	return l
}

// Seal makes the message in body[16:] a cell that ends at the other end of this
// layer: it sets the tag, enciphers the body and moves the keys on.
func (l *Layer) Seal(ad byte, body []byte) {
	copy(body, l.nonce[:])
	l.crypt(ad, body)
	if !l.client {
		l.nonce = l.prev
	}
	l.update()
}

// Wrap adds this layer to a cell on its way: at a relay to a cell from a hop
// further on, at a client to a cell for a hop further on.
func (l *Layer) Wrap(ad byte, body []byte) {
	l.crypt(ad, body)
}

// WrapRun is Wrap of all bodies of a run in turn, and faster at a relay. A run is
// bodies that begin stride bytes apart, one at least; it begins with the first and
// ends with the last of them. What is between them is left alone. WrapRun panics
// when the run has no such length.
func (l *Layer) WrapRun(ad byte, run []byte, stride int) {
	for count := l.bodies(run, stride); count > 0; {
		done := l.cryptRun(ad, run, stride, count)
		if count -= done; count > 0 { // a tag was the nonce, which means nothing here
			run = run[done*stride:]
		}
	}
}

// Peel removes this layer from a cell on its way, and reports whether the cell
// ends here: then body[16:] is the message that the other end sealed, and the
// keys have moved on. Otherwise the body must be passed on unread; a cell that
// no hop recognises ends the circuit.
func (l *Layer) Peel(ad byte, body []byte) bool {
	l.crypt(ad, body)
	return l.recognise(body)
}

// PeelRun is Peel of the bodies of a run in turn (WrapRun says what that is, and
// when it panics), and faster at a relay. It stops behind the first cell that ends
// here. It returns how many bodies it peeled, and whether the last of these is
// such a cell.
func (l *Layer) PeelRun(ad byte, run []byte, stride int) (done int, ends bool) {
	done = l.cryptRun(ad, run, stride, l.bodies(run, stride))
	return done, l.recognise(run[(done-1)*stride:])
}

// Prefetch begins to bring the layer's state into the cache, and does not wait
// for it. Who works on cells of many circuits in turn calls it some two cells
// before the Wrap or Peel. It reads and changes nothing, so that it may be called
// while another goroutine owns the layer. On machines other than amd64 it does
// nothing.
func (l *Layer) Prefetch() { prefetch(l) }

// Erase overwrites the keys. The Layer cannot be used again.
func (l *Layer) Erase() {
	*l = Layer{}
}

// crypt runs the wide-block cipher over the body and chains its outer tag.
func (l *Layer) crypt(ad byte, body []byte) {
	switch {
	case len(body) != l.n:
		panic(fmt.Sprintf("layer: a body of %d bytes in a layer for %d (0: an erased one)", len(body), l.n))
	case l.client:
		l.keys.decipher(l.kernel, &l.prev, ad, body)
	default:
		l.keys.encipher(l.kernel, &l.prev, &l.nonce, ad, body, l.n, l.n, 1)
	}
}

// bodies is how many bodies there are in a run.
func (l *Layer) bodies(run []byte, stride int) int {
	if l.n == 0 || stride < l.n || len(run) < l.n || (len(run)-l.n)%stride != 0 {
		panic(fmt.Sprintf("layer: a run of %d bytes, one body every %d, in a layer for bodies of %d (0: an erased one)", len(run), stride, l.n))
	}
	return (len(run)-l.n)/stride + 1
}

// cryptRun is crypt of count > 0 bodies in turn, up to the first that ends here. It
// returns how many it did.
func (l *Layer) cryptRun(ad byte, run []byte, stride, count int) int {
	if !l.client {
		return l.keys.encipher(l.kernel, &l.prev, &l.nonce, ad, run, l.n, stride, count)
	}
	for i := range count {
		body := run[i*stride:][:l.n]
		l.keys.decipher(l.kernel, &l.prev, ad, body)
		if same((*[tagSize]byte)(body), &l.nonce) {
			return i + 1
		}
	}
	return count
}

// recognise reports whether a body ends here, and if so moves the keys on.
func (l *Layer) recognise(body []byte) bool {
	if !same((*[tagSize]byte)(body), &l.nonce) {
		return false
	}
	if l.client {
		l.nonce = l.prev
	}
	l.update()
	return true
}

// same reports whether two tags are the same, in constant time.
// subtle.ConstantTimeCompare goes byte by byte, a tenth of the time that a whole
// body takes.
func same(a, b *[tagSize]byte) bool {
	low := binary.LittleEndian.Uint64(a[:]) ^ binary.LittleEndian.Uint64(b[:])
	high := binary.LittleEndian.Uint64(a[8:]) ^ binary.LittleEndian.Uint64(b[8:])
	return low|high == 0
}

// setKeys takes the 80 bytes KB | KU | K | B | N.
func (l *Layer) setKeys(k *[KeySize]byte) {
	l.keys.set(l.kernel, (*[64]byte)(k[:64]), l.client)
	copy(l.nonce[:], k[64:])
}

// update replaces all keys by what they make of the nonce.
func (l *Layer) update() {
	var k [KeySize]byte
	l.keys.stretch(l.kernel, &l.nonce, uint64(streamBlocks(l.n)), &k)
	l.setKeys(&k)
	clear(k[:])
}
