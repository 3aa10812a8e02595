package cache

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peel/directory"
	"peel/directory/dirtest"
)

// Whatever a directory answers, to one with a list and to one without: what does not verify and is not newer changes nothing, is an error that can be
// shown, and leads nowhere else.
func TestALyingDirectoryChangesNothing(t *testing.T) {
	h := newHistory(t, 6, 2, time.Now().Add(-90*time.Minute).Truncate(time.Second))
	good, old := string(h.texts[1]), string(h.texts[0])
	back, err := directory.MakeDiff(h.texts[1], h.texts[0])
	if err != nil {
		t.Fatal(err)
	}
	z := func(text string) string { return string(compress([]byte(text))) }
	ok := func(header, body string) string { return "HTTP/1.1 200 OK\r\n" + header + "\r\n" + body }
	for name, x := range map[string]struct {
		answer string
		with   bool // only to one with a list: to another it is a good one
	}{
		"a redirect":                   {answer: "HTTP/1.1 301 Moved Permanently\r\nLocation: http://127.0.0.1/peel/consensus\r\n\r\n" + good},
		"a redirect to itself":         {answer: "HTTP/1.1 307 Temporary Redirect\r\nLocation: /peel/consensus\r\nContent-Length: 0\r\n\r\n"},
		"that nothing has changed":     {answer: "HTTP/1.1 304 Not Modified\r\n\r\n"},
		"a list as an error":           {answer: "HTTP/1.1 404 Not Found\r\n\r\n" + good},
		"a part":                       {answer: "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\n\r\n" + good},
		"no content":                   {answer: "HTTP/1.1 204 No Content\r\n\r\n"},
		"that more will come":          {answer: strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1000) + ok("", good)},
		"an error page, as if it were": {answer: ok("Content-Type: text/html\r\n", "<!doctype html><title>502 Bad Gateway</title>")},
		"a long error":                 {answer: "HTTP/1.1 500 \x1b[2J\r\n\r\n\x1b[2J" + strings.Repeat("failed ", 1<<16)},
		"an empty text":                {answer: ok("Content-Length: 0\r\n", "")},
		"a list with a line too many":  {answer: ok("", good+"relay\n")},
		"a list and a list":            {answer: ok("", good+good)},
		"a list of another network":    {answer: ok("", string(dirtest.New(2, 6, dirtest.At(time.Now().Truncate(time.Second))).Text))},
		"a list of long ago":           {answer: ok("", string(dirtest.New(1, 6, dirtest.At(time.Now().Add(-72*time.Hour).Truncate(time.Second))).Text))},
		"an older list":                {answer: ok("", old), with: true},
		"what leads to an older list":  {answer: ok("", string(back))},
		"gzip in gzip":                 {answer: ok("Content-Encoding: gzip\r\n", z(z(good)))},
		"gzip in gzip, as it says":     {answer: ok("Content-Encoding: gzip, gzip\r\n", z(z(good)))},
		"plain text called gzip":       {answer: ok("Content-Encoding: gzip\r\n", good)},
		"gzip called plain text":       {answer: ok("", z(good))},
		"gzip of another checksum":     {answer: ok("Content-Encoding: gzip\r\n", z(good)[:len(z(good))-8]+"12345678")},
		"gzip with a list behind it":   {answer: ok("Content-Encoding: gzip\r\n", z("")+z(good))},
		"two lengths":                  {answer: ok("Content-Length: 5\r\nContent-Length: 6\r\n", good)},
		"a length below zero":          {answer: ok("Content-Length: -1\r\n", good)},
		"chunks that are none":         {answer: ok("Transfer-Encoding: chunked\r\n", good)},
		"chunks of 2^64 bytes":         {answer: ok("Transfer-Encoding: chunked\r\n", "ffffffffffffffff\r\n"+good)},
		"chunks cut off":               {answer: ok("Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s", len(good)+1, good))},
		"no head":                      {answer: good},
	} {
		for _, has := range []bool{true, false} {
			if x.with && !has {
				continue
			}
			c := open(t, h.Net, "")
			if has {
				h.put(t, c, 1, 2)
			}
			before := c.Consensus()
			var dials atomic.Int64
			changed, err := c.Fetch(t.Context(), func(ctx context.Context) (net.Conn, error) {
				dials.Add(1)
				return raw(func(nc net.Conn) {
					http.ReadRequest(bufio.NewReader(nc))
					nc.Write([]byte(x.answer))
				})(ctx)
			})
			if quiet := has && strings.HasPrefix(x.answer, "HTTP/1.1 304"); changed || (err == nil) != quiet || c.Consensus() != before {
				t.Errorf("%s, with a list %v: changed %v, %v", name, has, changed, err)
			}
			if n := dials.Load(); n != 1 && !(has && n == 2) {
				t.Errorf("%s: asked %d times", name, n)
			}
			if err != nil && (len(err.Error()) > 600 || bytes.ContainsFunc([]byte(err.Error()), func(r rune) bool { return r < ' ' || r > '~' })) {
				t.Errorf("%s: an error of %d bytes: %q", name, len(err.Error()), err)
			}
		}
	}
}
