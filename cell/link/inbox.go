package link

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	smallBuffer = 4 << 10 // what an idle link waits with
	bigBuffer   = 64 << 10
	quietReads  = 16 // so many short reads in a row, and a link is idle again
)

// buffers are big input buffers, lent to links while much comes in.
var buffers = sync.Pool{New: func() any { return new([bigBuffer]byte) }}

// An inbox takes from the socket as much as there is, and gives it out as whole records.
type inbox struct {
	buf   []byte
	big   *[bigBuffer]byte // buf, if not small
	small [smallBuffer]byte
	r, w  int // what came and was not given out is buf[r:w]
	short int // reads in a row that a small buffer could have held

	lent   atomic.Bool // big is not nil
	mu     sync.Mutex
	recall bool // somebody has the reader wake up and give big back
}

// fill reads once. It makes room for a whole record when one has begun.
func (b *inbox) fill(nc io.Reader) error {
	switch {
	case b.buf == nil:
		b.buf = b.small[:]
	case b.big == nil && b.w == len(b.small): // it may have more
		b.big = buffers.Get().(*[bigBuffer]byte)
		b.lent.Store(true)
		b.w = copy(b.big[:], b.buf[b.r:b.w])
		b.buf, b.r, b.short = b.big[:], 0, 0
	case b.big != nil && b.r == b.w && b.short >= quietReads:
		b.release()
	}
	if b.r > 0 {
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r = 0
	}
	n, err := nc.Read(b.buf[b.w:])
	b.w += n
	if b.short++; n >= smallBuffer {
		b.short = 0
	}
	if n > 0 {
		return nil // an error comes again
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// release goes back to the small buffer, which is then empty.
func (b *inbox) release() {
	b.r, b.w = 0, 0
	b.shrink()
}

// shrink goes back to the small buffer, if what has not been given out leaves room there.
func (b *inbox) shrink() {
	if b.big == nil || b.w-b.r >= len(b.small) {
		return
	}
	b.w = copy(b.small[:], b.buf[b.r:b.w])
	b.r, b.buf = 0, b.small[:]
	buffers.Put(b.big)
	b.big = nil
	b.lent.Store(false)
}

// rested notes that nothing had come for long before what was read last.
func (b *inbox) rested() {
	if b.short > 0 {
		b.short = quietReads
	}
}

// call has the reader of nc, which may wait for more for ever, give a big buffer back.
func (b *inbox) call(nc net.Conn) {
	if !b.lent.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recall = true
	nc.SetReadDeadline(time.Unix(1, 0))
}

// called is for the reader that got an error: it says whether that was only a call, which it then has followed.
func (b *inbox) called(nc net.Conn, err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.recall || nc.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	b.recall = false
	b.shrink()
	return true
}

// record gives out the next whole record, valid until the next fill; nil: not all of it is here.
func (b *inbox) record() ([]byte, error) {
	have := b.buf[b.r:b.w]
	if len(have) < headerSize {
		return nil, nil
	}
	n, err := recordSize(have)
	if err != nil || len(have) < n {
		return nil, err
	}
	b.r += n
	return have[:n], nil
}
