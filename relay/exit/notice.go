package exit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"peel/cell/contain"
)

// Bounds of the notice (spec/exit.md, section 6).
const (
	MostNotice  = 64 << 10 // bytes of a page
	noticeConns = 64       // at a time, all listeners together; one more takes the place of another (visitors.enter)
	noticeHead  = 4 << 10
	noticeRead  = 5 * time.Second
	noticeWrite = 10 * time.Second
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

// Change has n show the page of another from now on.
func (n *Notice) Change(to *Notice) { n.page.Store(to.page.Load()) }

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
	var conns sync.WaitGroup
	var serving contain.Group
	s := &http.Server{
		Handler: http.HandlerFunc(n.serve), ReadHeaderTimeout: noticeRead, ReadTimeout: noticeRead, WriteTimeout: noticeWrite,
		MaxHeaderBytes: noticeHead, ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, visitorKey{}, c) },
		ConnState: func(_ net.Conn, now http.ConnState) {
			switch now {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed:
				conns.Done()
			}
		},
	}
	s.SetKeepAlivesEnabled(false)
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	for _, l := range ls {
		serving.Go(func(p *contain.Panic) { fail(&noticeError{p}) }, func() {
			if err := s.Serve(&door{l, &n.here}); !errors.Is(err, http.ErrServerClosed) {
				fail(&noticeError{fmt.Errorf("exit: no longer serving the notice on %v: %w", l.Addr(), err)})
			}
		})
	}
	<-ctx.Done()
	s.Close()
	serving.Wait()
	conns.Wait()
	var failed *noticeError
	if errors.As(context.Cause(ctx), &failed) {
		return failed.error
	}
	return nil
}

type noticeError struct{ error }

func (n *Notice) serve(w http.ResponseWriter, r *http.Request) {
	if v, ok := r.Context().Value(visitorKey{}).(*visitor); ok {
		n.here.asked(v)
	}
	h := w.Header()
	h["Date"] = nil // what time it is here is nobody's business
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	page := *n.page.Load()
	h.Set("Content-Length", fmt.Sprint(len(page)))
	if r.Method == http.MethodGet {
		w.Write(page)
	}
}
