package link

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"peel/cell"
	"peel/cell/gcm"
)

// Sizes of a record in bytes, and when keys move on (spec/link.md, section 3).
const (
	maxCells   = 46 // cells a record: the most that 64 KiB hold
	headerSize = 2
	tagSize    = gcm.TagSize
	maxRecord  = headerSize + maxCells*cell.Size + tagSize

	keySize        = gcm.KeySize
	ratchetRecords = 1 << 20 // records under one key
	ratchetBytes   = 1 << 30 // bytes of records under one key
	ratchetLabel   = "peel link ratchet v1"
)

// A half is one direction of a link: the key, and how much went under it. Each has one owner, the link's reader or its
// writer. It allocates nothing but when the key moves on.
type half struct {
	aead           *gcm.AEAD // nil once erased
	key            [keySize]byte
	nonce          [gcm.NonceSize]byte
	records, bytes uint64 // under this key
}

// newHalf takes a key of keySize bytes; the caller erases its own copy.
func newHalf(key []byte) *half {
	h := new(half)
	h.use(key)
	return h
}

func (h *half) use(key []byte) {
	copy(h.key[:], key)
	h.records, h.bytes = 0, 0
	if h.aead != nil {
		h.aead.Erase()
	}
	h.aead = gcm.New(&h.key)
}

var errErased = errors.New("link: the keys of this link were erased, for it has ended")

// count notes that a record of n bytes went by, and moves the key on when it has done its work: then nobody who takes
// the new key can read what went under the old one.
func (h *half) count(n int) error {
	h.records++
	h.bytes += uint64(n)
	if h.records < ratchetRecords && h.bytes < ratchetBytes {
		return nil
	}
	key, err := hkdf.Expand(sha256.New, h.key[:], ratchetLabel, keySize)
	if err != nil {
		return fmt.Errorf("link: moving the record key on: %w", err)
	}
	h.use(key)
	clear(key)
	return nil
}

// space is where the cells of the record in wire, which has room for maxRecord bytes, stand: room for maxCells.
func space(wire []byte) []cell.Cell {
	return cell.Cells(wire[headerSize : headerSize+maxCells*cell.Size])
}

// seal makes a record, in place, of the first n cells, 1 to maxCells, that stand in space(wire), and returns it.
func (h *half) seal(wire []byte, n int) ([]byte, error) {
	if h.aead == nil {
		return nil, errErased
	}
	plain := wire[headerSize : headerSize+n*cell.Size]
	size := len(plain) + tagSize
	binary.BigEndian.PutUint16(wire, uint16(size))
	binary.BigEndian.PutUint64(h.nonce[4:], h.records)
	h.aead.Seal(plain[:0], h.nonce[:], plain, wire[:headerSize])
	return wire[:headerSize+size], h.count(headerSize + size)
}

// recordSize is the whole size of the record that b, at least headerSize bytes, begins; an error if no record has it.
func recordSize(b []byte) (int, error) {
	n := int(binary.BigEndian.Uint16(b))
	if k := n - tagSize; k < cell.Size || k > maxCells*cell.Size || k%cell.Size != 0 {
		return 0, fmt.Errorf("link: a record of %d bytes is not 1 to %d whole cells", n, maxCells)
	}
	return headerSize + n, nil
}

// open opens a whole record, as recordSize measured it, in place, and returns its cells, which alias it. After an error
// nothing may be made of them.
func (h *half) open(record []byte) ([]cell.Cell, error) {
	if h.aead == nil {
		return nil, errErased
	}
	binary.BigEndian.PutUint64(h.nonce[4:], h.records)
	sealed := record[headerSize:]
	plain, err := h.aead.Open(sealed[:0], h.nonce[:], sealed, record[:headerSize])
	if err != nil {
		return nil, fmt.Errorf("link: a record does not verify: it was altered, repeated, dropped or moved on its way")
	}
	return cell.Cells(plain), h.count(len(record))
}

// erase overwrites the key. The half cannot be used again.
func (h *half) erase() {
	clear(h.key[:])
	if h.aead != nil {
		h.aead.Erase()
		h.aead = nil
	}
}
