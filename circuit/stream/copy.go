package stream

import (
	"errors"
	"io"
	"net"
	"sync"

	"peel/cell/contain"
)

const copyChunks = 8 // handed to a writer at once: 64 KiB

// WriteTo implements io.WriterTo: it writes to w what comes, from the receive buffer itself, until the other end has
// ended. Bytes count as read, and make room in the window, when w has taken them.
func (s *Stream) WriteTo(w io.Writer) (int64, error) {
	var total int64
	space := make(net.Buffers, 0, copyChunks)
	for {
		first, n, err := s.lend()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
		bufs := slices(first, space)
		written, err := bufs.WriteTo(w)
		freeChunks(first)
		total += written
		s.settle(n, err == nil)
		if err != nil {
			return total, err
		}
	}
}

// lend waits for data and takes some out of the receive buffer for a writer, and says how many bytes that is.
func (s *Stream) lend() (first *chunk, n int, err error) {
	s.mux.mu.Lock()
	defer s.mux.mu.Unlock()
	contain.Point("stream: lend")
	if err := s.awaitData(false); err != nil {
		return nil, 0, err
	}
	first, n = s.in.take(copyChunks)
	s.lent += n
	return first, n, nil
}

// settle says that the writer is through with what was lent to it, and whether it took all of it.
func (s *Stream) settle(n int, all bool) {
	s.mux.mu.Lock()
	defer s.mux.unlock()
	back := min(n, s.lent) // 0 if the stream was shed meanwhile
	s.lent -= back
	s.mux.count(s, -back)
	if all { // else it is lost: Close will say so
		s.took(n)
	}
}

const (
	idleCopy = 4 << 10  // what ReadFrom holds while nothing much comes
	bulkCopy = 64 << 10 // and while it does
)

var copies = sync.Pool{New: func() any { return new([bulkCopy]byte) }}

// ReadFrom implements io.ReaderFrom: it writes what r gives until its end.
func (s *Stream) ReadFrom(r io.Reader) (int64, error) {
	idle := make([]byte, idleCopy)
	var total int64
	for bulk := false; ; {
		n, w, err := 0, 0, error(nil)
		if bulk && s.mux.cfg.Budget.borrow() {
			buf := copies.Get().(*[bulkCopy]byte)
			n, w, err = s.pass(r, buf[:])
			copies.Put(buf)
			s.mux.cfg.Budget.repay()
		} else {
			n, w, err = s.pass(r, idle)
		}
		total += int64(w)
		bulk = n >= idleCopy
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// pass reads once and writes what came, and says how much that was, and how much of it went.
func (s *Stream) pass(r io.Reader, buf []byte) (n, w int, err error) {
	n, err = r.Read(buf)
	if n > 0 {
		var werr error
		if w, werr = s.Write(buf[:n]); werr != nil {
			err = werr
		}
	}
	return n, w, err
}
