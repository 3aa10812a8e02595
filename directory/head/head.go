// Package head reads the head of a request over HTTP/1.1 while little is known of who asks: in a small buffer, and by a deadline.
package head

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Most is how large a head may be, in bytes: whoever waits with a part of one takes 8 KiB at most, with all that a connection takes. Besides
// the head that is a stack of 4 KiB, and 1.2 KiB of objects and of what the runtime knows a goroutine by.
const Most = 2 << 10

const (
	firstRead = 512      // bytes of the buffer at first; it grows with what comes
	mostRead  = 64 << 10 // cookies included

	lingering = 500 * time.Millisecond // how long what somebody still sends is read after the last answer, and how much of it
	lingerFor = 64 << 10
)

// ErrTooLarge says that a head is larger than it may be.
var ErrTooLarge = errors.New("head: the head of a request is larger than it may be")

// Read reads from a connection until the head of a request has come whole, and returns that with what came behind it. All of it
// must come within a time, however slowly, else the error is that of a deadline; more than Most bytes of it are ErrTooLarge. What
// stands in the head is not looked at, but for cookies, which browsers bring for whatever else is on a machine: they are left out, once
// "Cookie:" has found its place.
// It leaves the connection without a deadline for reading.
func Read(c net.Conn, within time.Duration) ([]byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	h := reading{said: make([]byte, 0, firstRead)}
	for total := 0; ; {
		if len(h.said) == cap(h.said) {
			if len(h.said) >= Most {
				return nil, ErrTooLarge
			}
			h.said = append(make([]byte, 0, min(2*cap(h.said), Most)), h.said...)
		}
		n, err := c.Read(h.said[len(h.said):cap(h.said)])
		if h.take(h.said[len(h.said) : len(h.said)+n]) {
			return h.said, c.SetReadDeadline(time.Time{})
		}
		if err != nil {
			return nil, err
		}
		if total += n; total >= mostRead {
			return nil, ErrTooLarge
		}
	}
}

// reading is a head that is not whole yet.
type reading struct {
	said   []byte
	line   int  // where its last line begins
	cookie bool // which is part of a cookie, and left out
}

const cookie = "cookie:"

// take takes what came, which stands in said's own memory behind it, and says whether that made the head whole.
func (h *reading) take(came []byte) (whole bool) {
	for i, b := range came {
		if h.cookie {
			if h.cookie = b != '\n'; !h.cookie {
				h.line = len(h.said)
			}
			continue
		}
		h.said = append(h.said, b)
		switch line := h.said[h.line:]; {
		case b == ':' && len(line) == len(cookie) && h.line > 0 && bytes.EqualFold(line, []byte(cookie)):
			h.said, h.cookie = h.said[:h.line], true
		case b == '\n' && (len(line) == 1 || len(line) == 2 && line[0] == '\r'):
			h.said = append(h.said, came[i+1:]...)
			return true
		case b == '\n':
			h.line = len(h.said)
		}
	}
	return false
}

// Refusal is an answer that says no more than a status, and that the connection is closed.
func Refusal(status int) []byte {
	what := fmt.Sprintf("%d %s", status, http.StatusText(status))
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", what, len(what), what)
}

// Last writes the last that is said on a connection within a time, and waits a moment for who still sends: if it were closed at
// once, the answer might be lost with what nobody read. Then the caller closes it.
func Last(c net.Conn, within time.Duration, parts ...[]byte) {
	if c.SetWriteDeadline(time.Now().Add(within)) != nil {
		return
	}
	for _, p := range parts {
		if _, err := c.Write(p); err != nil {
			return
		}
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
	if c.SetReadDeadline(time.Now().Add(lingering)) == nil {
		io.CopyBuffer(io.Discard, &io.LimitedReader{R: onlyReads{c}, N: lingerFor}, make([]byte, firstRead))
	}
}

// onlyReads hides what else a connection can do, which would take more memory.
type onlyReads struct{ io.Reader }
