package cache

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"peel/cell/contain"
	"peel/directory"
)

// Limits of one request. (spec/directory.md, section 9)
const (
	Timeout    = time.Minute      // from dialling to the last byte, if the context has no earlier end
	Stall      = 20 * time.Second // without a byte, while the request or the answer is under way
	maxHeader  = 16 << 10         // of an answer, bytes
	chunk      = 256 << 10        // an answer is read in pieces of this size
	maxMessage = 200              // of an error's text, bytes
)

// Dial opens a stream to a directory.
type Dial func(ctx context.Context) (net.Conn, error)

// StatusError is an answer that is not the one hoped for.
type StatusError struct {
	Path string
	Code int    // an HTTP status
	Text string // what the directory said (directory.Said)
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("cache: %s: the directory answered %d %s: %s", e.Path, e.Code, http.StatusText(e.Code), e.Text)
}

// ErrStalled is the error of a directory that was silent for too long.
var ErrStalled = fmt.Errorf("cache: the directory was silent for %v", Stall)

// ErrTooLong is the error of an answer above the limit, compressed or not.
var ErrTooLong = errors.New("cache: the answer is above its limit")

// Get fetches a document of at most limit bytes. It takes no more than that into memory whatever
// the directory sends, compressed or not.
func Get(ctx context.Context, dial Dial, path string, limit int) ([]byte, error) {
	a, err := do(ctx, dial, http.MethodGet, path, "", nil, limit)
	if err != nil {
		return nil, err
	}
	if a.code != http.StatusOK {
		return nil, &StatusError{Path: path, Code: a.code, Text: said(a.body)}
	}
	return a.body, nil
}

// Post sends a document. An answer other than 200, 201, 202 or 204 is a StatusError.
func Post(ctx context.Context, dial Dial, path string, document []byte) error {
	a, err := do(ctx, dial, http.MethodPost, path, "", document, chunk)
	if err != nil {
		return err
	}
	switch a.code {
	case http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent:
		return nil
	}
	return &StatusError{Path: path, Code: a.code, Text: said(a.body)}
}

type answer struct {
	code int
	body []byte
}

// do makes one request over a stream of its own.
func do(ctx context.Context, dial Dial, method, path, etag string, body []byte, limit int) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	nc, err := dial(ctx)
	if err != nil {
		return answer{}, fmt.Errorf("cache: %w", err) // whatever was to be asked for
	}
	defer nc.Close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	undo := contain.AtEnd(ctx, nil, func() { nc.SetDeadline(time.Unix(1, 0)) })
	watch := contain.After(Stall, nil, func() { stop(ErrStalled) })
	a, err := exchange(&watched{nc, watch}, method, path, etag, body, limit)
	watch.Stop()
	undo()
	if err != nil {
		if ctx.Err() != nil && !errors.Is(err, ErrTooLong) {
			err = context.Cause(ctx)
		}
		return answer{}, fmt.Errorf("cache: %s: %w", path, err)
	}
	return a, nil
}

// watched puts off a stall with every byte that passes.
type watched struct {
	net.Conn
	watch *time.Timer
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.watch.Reset(Stall)
	}
	return n, err
}

func (w *watched) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if n > 0 {
		w.watch.Reset(Stall)
	}
	return n, err
}

func exchange(nc net.Conn, method, path, etag string, body []byte, limit int) (answer, error) {
	req := &http.Request{
		Method: method, URL: &url.URL{Path: path}, Host: "directory", Close: true,
		Header: http.Header{"Accept-Encoding": {"gzip"}, "User-Agent": {""}},
	}
	if body != nil {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		req.Header.Set("Content-Type", "text/plain; charset=us-ascii")
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	// The answer may come before the whole request is read, so it is read meanwhile.
	sent := make(chan error, 1)
	contain.Go(func(p *contain.Panic) { sent <- p }, func() { sent <- req.Write(nc) })
	a, err := readAnswer(nc, req, limit)
	nc.Close()
	if serr := <-sent; serr != nil && err != nil {
		return answer{}, fmt.Errorf("sending the request: %w", serr)
	}
	return a, err
}

func readAnswer(nc net.Conn, req *http.Request, limit int) (answer, error) {
	wire := &io.LimitedReader{R: nc, N: maxHeader}
	br := bufio.NewReader(wire)
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		if wire.N == 0 {
			err = ErrTooLong
		}
		return answer{}, fmt.Errorf("reading the answer's head: %w", err)
	}
	defer resp.Body.Close()
	wire.N = int64(limit) + int64(limit)/16 + maxHeader // and what chunks and gzip's own bytes take
	b, err := readBody(resp, limit)
	if err != nil {
		if wire.N == 0 {
			err = ErrTooLong
		}
		return answer{}, fmt.Errorf("reading the answer: %w", err)
	}
	return answer{code: resp.StatusCode, body: b}, nil
}

func readBody(resp *http.Response, limit int) ([]byte, error) {
	if resp.ContentLength > int64(limit) {
		return nil, ErrTooLong
	}
	switch enc := resp.Header.Get("Content-Encoding"); enc {
	case "", "identity":
		return readLimited(resp.Body, limit)
	case "gzip":
		return gunzip(resp.Body, limit)
	default:
		return nil, fmt.Errorf("it is encoded as %q, which was not asked for", directory.Said(enc, maxMessage))
	}
}

// gunzip reads a single gzip member and refuses anything after it.
func gunzip(r io.Reader, limit int) ([]byte, error) {
	br := bufio.NewReader(r)
	z, err := gzip.NewReader(br)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	b, err := readLimited(z, limit)
	if err != nil {
		return nil, err
	}
	if _, err := br.ReadByte(); err != io.EOF {
		return nil, errors.New("more follows after the compressed document")
	}
	return b, nil
}

// readLimited reads to the end, in pieces, so that at no time more than twice the limit is held.
func readLimited(r io.Reader, limit int) ([]byte, error) {
	var pieces [][]byte
	total := 0
	for {
		piece := make([]byte, 0, min(chunk, limit+1-total))
		for len(piece) < cap(piece) {
			n, err := r.Read(piece[len(piece):cap(piece)])
			piece, total = piece[:len(piece)+n], total+n
			if total > limit {
				return nil, ErrTooLong
			}
			if err == io.EOF {
				return bytes.Join(append(pieces, piece), nil), nil
			}
			if err != nil {
				return nil, err
			}
		}
		pieces = append(pieces, piece)
	}
}

// said is the text of an error that a directory answers. It may be long, and have nothing printable: the beginning will do.
func said(b []byte) string { return directory.Said(string(b[:min(len(b), 8*maxMessage)]), maxMessage) }
