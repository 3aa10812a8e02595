package link

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

// A reader that waits for more with a big buffer gives it back when it is called, and loses nothing: neither what it had not given out,
// nor what comes then. That holds for sockets and for what is none.
func TestReaderThatWaitsGivesItsBufferBack(t *testing.T) {
	tcp := func() (net.Conn, net.Conn) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}
	for name, join := range map[string]func() (net.Conn, net.Conn){"socket": tcp, "pipe": net.Pipe} {
		for _, left := range []int{0, 1, smallBuffer - 1, smallBuffer} {
			from, to := join()
			box := &inbox{w: smallBuffer}
			box.buf = box.small[:]
			box.small[smallBuffer-1], box.small[smallBuffer-left%smallBuffer-1] = 1, 2
			box.r = smallBuffer - left
			want := append([]byte(nil), box.small[box.r:]...)
			waits, ended := make(chan bool), make(chan error)
			go func() {
				err := box.fill(callsFirst{newPort(from), waits})
				for err != nil && box.called(from, err) {
					if box.lent.Load() != (left == smallBuffer) || box.w-box.r != left {
						t.Errorf("%s: with %d bytes left it has a big buffer: %v, and %d bytes", name, left, box.lent.Load(), box.w-box.r)
					}
					err = box.fill(newPort(from))
				}
				for err == nil && box.w-box.r < left+len("more") {
					err = box.fill(newPort(from))
				}
				ended <- err
			}()
			<-waits
			box.call(from)
			box.call(from) // as often as anybody likes
			to.Write([]byte("more"))
			if err := <-ended; err != nil || !bytes.Equal(box.buf[box.r:box.w], append(want, "more"...)) {
				t.Errorf("%s: with %d bytes left %d came, %v", name, left, box.w-box.r, err)
			}
			to.Close()
			err := box.fill(newPort(from))
			for box.called(from, err) { // the second time
				err = box.fill(newPort(from))
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("%s: at the end: %v", name, err)
			}
			from.Close()
		}
	}
}

// callsFirst says when it is read from.
type callsFirst struct {
	io.Reader
	waits chan bool
}

func (c callsFirst) Read(b []byte) (int, error) {
	c.waits <- true
	return c.Reader.Read(b)
}
