package exit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"peel/cell/contain"
	"peel/directory/head"
)

// Bounds of the notice (spec/exit.md, section 6).
const (
	MostNotice  = 64 << 10 // bytes of a page
	noticeConns = 64       // at a time, all listeners together; one more takes the place of another (visitors.enter)
	noticeRead  = 5 * time.Second
	noticeWrite = 10 * time.Second
	noticePause = 5 * time.Millisecond // before connections are taken again when there was none to be had
)

// Notice is a page that says to who looks at an exit's address what it is: whoever traces something back to it will.
type Notice struct {
	page atomic.Pointer[[]byte]
	here visitors
}

// NewNotice takes a page of HTML.
func NewNotice(page []byte) (*Notice, error) {
	if len(bytes.TrimSpace(page)) == 0 || len(page) > MostNotice || !utf8.Valid(page) {
		return nil, fmt.Errorf("exit: an exit notice must be a page of 1 to %d bytes in UTF-8", MostNotice)
	}
	n := new(Notice)
	page = bytes.Clone(page)
	n.page.Store(&page)
	return n, nil
}

// Change has n show the page of another from now on, and says whether it is a different one.
func (n *Notice) Change(to *Notice) bool {
	next := to.page.Load()
	return !bytes.Equal(*n.page.Swap(next), *next)
}

// ReadNotice takes the page of a file.
func ReadNotice(path string) (*Notice, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("exit: %w", err)
	}
	defer f.Close()
	page, err := io.ReadAll(io.LimitReader(f, MostNotice+1))
	if err != nil {
		return nil, fmt.Errorf("exit: %w", err)
	}
	n, err := NewNotice(page)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, path)
	}
	return n, nil
}

// UsualNotice is the page for operators who have none of their own; contact may be empty.
func UsualNotice(contact string) *Notice {
	who := ""
	if contact != "" {
		who = "<p>The operator can be reached as follows: " + html.EscapeString(contact) + "</p>\n"
	}
	n, err := NewNotice([]byte(usualHead + who + usualRest))
	if err != nil { // a contact is short: what is left without it is the page alone
		n, _ = NewNotice([]byte(usualHead + usualRest))
	}
	return n
}

const usualHead = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>An exit of an anonymity network</title>
<style>body { max-width: 40em; margin: 2em auto; padding: 0 1em; font-family: sans-serif; line-height: 1.5; color-scheme: light dark }</style>
</head>
<body>
<h1>This is an exit of an anonymity network</h1>
<p>You most likely see this page because you looked up an address that connected to you. The machine here is a relay of a
network that runs Peel. It passes on the connections of other people, who use the network so that those they speak to do not
learn their address. What came to you from here came from one of them, not from this machine or who runs it.</p>
<p>The relay does not know who they are. It gets what it sends on from another relay, encrypted in layers, and keeps no
record of it. There is nothing on this machine that would lead to them.</p>
<p>If you do not want connections from this network, you can refuse them: the network's directory lists the addresses of
all its exits, and is public. Please note that most who use such a network do so for good reasons.</p>
`

const usualRest = `</body>
</html>
`

// Run serves the page on listeners, which it closes, until ctx ends or one of them fails, which is the error. It returns when the last of
// its goroutines is gone.
func (n *Notice) Run(ctx context.Context, ls []net.Listener) error {
	var serving contain.Group
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	for _, l := range ls {
		serving.Go(func(p *contain.Panic) { fail(&noticeError{p}) }, func() {
			if err := n.receive(ctx, l, &serving); ctx.Err() == nil {
				fail(&noticeError{fmt.Errorf("exit: no longer serving the notice on %v: %w", l.Addr(), err)})
			}
		})
	}
	<-ctx.Done()
	for _, l := range ls {
		l.Close()
	}
	n.here.closeAll()
	serving.Wait()
	var failed *noticeError
	if errors.As(context.Cause(ctx), &failed) {
		return failed.error
	}
	return nil
}

type noticeError struct{ error }

// receive takes visitors in until the listener fails. Each has a goroutine, which reads and answers one request.
func (n *Notice) receive(ctx context.Context, l net.Listener, serving *contain.Group) error {
	pause := time.Duration(0)
	for {
		c, err := l.Accept()
		var t interface{ Temporary() bool } // there are no descriptors left, or the like
		if errors.As(err, &t) && t.Temporary() {
			pause = min(max(2*pause, noticePause), time.Second)
			select {
			case <-time.After(pause):
				continue
			case <-ctx.Done():
			}
		}
		if err != nil {
			return err
		}
		pause = 0
		v := n.here.enter(c)
		if ctx.Err() != nil { // closeAll may not have seen it
			v.Close()
		}
		serving.Go(nil, func() {
			defer v.Close()
			n.show(v)
		})
	}
}

// show reads a visitor's request and answers it.
func (n *Notice) show(v *visitor) {
	request, err := head.Read(v, noticeRead)
	var first, page []byte
	switch {
	case errors.Is(err, head.ErrTooLarge):
		first = head.Refusal(http.StatusRequestHeaderFieldsTooLarge)
	case err != nil:
		return
	default:
		n.here.asked(v)
		first, page = n.answer(request)
	}
	request = nil // it need not be held while the answer goes
	head.Last(v, noticeWrite, first, page)
}

// answer is what a request gets: a head, and perhaps the page.
func (n *Notice) answer(request []byte) (first, page []byte) {
	r, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(request), len(request)))
	switch {
	case err != nil || r.ProtoMajor == 1 && r.ProtoMinor >= 1 && r.Host == "" && r.Method != http.MethodConnect:
		return head.Refusal(http.StatusBadRequest), nil
	case r.ProtoMajor != 1:
		return head.Refusal(http.StatusHTTPVersionNotSupported), nil
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return fmt.Appendf(nil, noticeFirst, http.StatusMethodNotAllowed, http.StatusText(http.StatusMethodNotAllowed), "Allow: GET, HEAD", 0), nil
	}
	all := *n.page.Load()
	first = fmt.Appendf(nil, noticeFirst, http.StatusOK, http.StatusText(http.StatusOK), "Content-Type: text/html; charset=utf-8", len(all))
	if r.Method == http.MethodGet {
		page = all
	}
	return first, page
}

// noticeFirst is the head of an answer. It has no date: what time it is here is nobody's business.
const noticeFirst = "HTTP/1.1 %d %s\r\n%s\r\nContent-Length: %d\r\n" +
	"Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; img-src data:\r\n" +
	"X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n"
