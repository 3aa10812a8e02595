package link

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"peel/cell"
)

// A record is uint16 length | AEAD(cells): 1 to 46 whole cells (spec/link.md, section 2).
const (
	mostCells    = 46
	recordHead   = 2
	recordTag    = 16
	leastRecord  = cell.Size + recordTag
	mostRecord   = mostCells*cell.Size + recordTag
	recordBuffer = recordHead + mostRecord

	ratchetRecords = 1 << 20 // a key is used for so many records
	ratchetBytes   = 1 << 30 // or so many bytes, whichever comes first
	ratchetLabel   = "peel link v1 ratchet"
)

// Errors of records: each is the peer's fault, or that of someone on the way.
var (
	errRecordLength = errors.New("link: a record that is no whole number of cells")
	errRecordTag    = errors.New("link: a record that does not open: tampered with, replayed, or out of order")
)

// half is one direction of a link: a key that moves on, and a counter.
type half struct {
	key     [32]byte
	aead    cipher.AEAD
	nonce   [12]byte // the last 8 bytes count records
	records uint64   // under this key
	bytes   uint64
}

func newHalf(key [32]byte) *half {
	h := new(half)
	h.use(key)
	return h
}

func (h *half) use(key [32]byte) {
	h.key = key
	block, err := aes.NewCipher(h.key[:])
	if err != nil {
		panic(err) // cannot be: the key has 32 bytes
	}
	if h.aead, err = cipher.NewGCM(block); err != nil {
		panic(err) // cannot be: AES has blocks of 16 bytes
	}
	h.nonce, h.records, h.bytes = [12]byte{}, 0, 0
}

// count moves the counter on, and the key when it has been used enough. The old key is overwritten: it opens nothing any more.
func (h *half) count(n int) {
	h.records++
	h.bytes += uint64(n)
	if h.records < ratchetRecords && h.bytes < ratchetBytes {
		binary.BigEndian.PutUint64(h.nonce[4:], h.records)
		return
	}
	next, err := hkdf.Expand(sha256.New, h.key[:], ratchetLabel, len(h.key))
	if err != nil {
		panic(err) // cannot be: 32 bytes are not too many
	}
	h.use([32]byte(next))
	clear(next)
}

// seal makes the record of the n cells that stand in b behind the room for its head, in place, and returns it.
func (h *half) seal(b []byte, n int) []byte {
	size := n * cell.Size
	binary.BigEndian.PutUint16(b, uint16(size+recordTag))
	h.aead.Seal(b[recordHead:recordHead], h.nonce[:], b[recordHead:recordHead+size], b[:recordHead])
	h.count(size)
	return b[:recordHead+size+recordTag]
}

// length reads the head of a record: how many bytes follow it.
func length(head []byte) (int, error) {
	n := int(binary.BigEndian.Uint16(head))
	if n < leastRecord || n > mostRecord || (n-recordTag)%cell.Size != 0 {
		return 0, fmt.Errorf("%w: length %d", errRecordLength, n)
	}
	return n, nil
}

// open opens a whole record in place and returns its cells, which alias b.
func (h *half) open(b []byte) ([]cell.Cell, error) {
	sealed := b[recordHead:]
	if _, err := h.aead.Open(sealed[:0], h.nonce[:], sealed, b[:recordHead]); err != nil {
		return nil, errRecordTag
	}
	size := len(sealed) - recordTag
	h.count(size)
	return cell.Cells(sealed[:size]), nil
}
