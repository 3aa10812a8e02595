package exit

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// visitors is a listener of connections in memory.
type visitors struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newVisitors() *visitors { return &visitors{conns: make(chan net.Conn), done: make(chan struct{})} }

func (v *visitors) Accept() (net.Conn, error) {
	select {
	case c := <-v.conns:
		return c, nil
	case <-v.done:
		return nil, net.ErrClosed
	}
}

func (v *visitors) Close() error   { v.once.Do(func() { close(v.done) }); return nil }
func (v *visitors) Addr() net.Addr { return &net.TCPAddr{Port: 80} }

func (v *visitors) visit() net.Conn {
	here, there := net.Pipe()
	v.conns <- there
	return here
}

// noticeWorld serves the usual page in virtual time.
func noticeWorld(t *testing.T, test func(t *testing.T, v *visitors)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		v := newVisitors()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := UsualNotice(`<me@example.net> & "co"`).Run(ctx, []net.Listener{v}); err != nil {
				t.Error(err)
			}
		})
		test(t, v)
		stop()
		wg.Wait()
	})
}

func TestWhoLooksAtAnExitIsToldWhatItIs(t *testing.T) {
	noticeWorld(t, func(t *testing.T, v *visitors) {
		for _, c := range []struct {
			method, path string
			code         int
			page         bool
		}{{"GET", "/", 200, true}, {"GET", "/../../etc/passwd?x=1", 200, true}, {"HEAD", "/", 200, false}, {"POST", "/", 405, false}, {"CONNECT", "example.org:80", 405, false}} {
			conn := v.visit()
			io.WriteString(conn, c.method+" "+c.path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: c.method})
			if err != nil {
				t.Fatal(err)
			}
			page, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != c.code || strings.Contains(string(page), "an exit of an anonymity network") != c.page {
				t.Errorf("%s %s: %d, %q", c.method, c.path, resp.StatusCode, page)
			}
			if c.page && (!strings.Contains(string(page), "&lt;me@example.net&gt; &amp; &#34;co&#34;") || resp.Header.Get("Content-Type") != "text/html; charset=utf-8") {
				t.Errorf("%v %s", resp.Header, page)
			}
			if resp.Header.Get("Date") != "" || resp.Header.Get("Server") != "" || !resp.Close || !strings.HasPrefix(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("%v", resp.Header)
			}
			conn.Close()
		}
	})
}

func TestSlowVisitorsOfTheNoticeAreClosed(t *testing.T) {
	noticeWorld(t, func(t *testing.T, v *visitors) {
		var wg sync.WaitGroup
		began := time.Now()
		for i := range noticeConns {
			conn := v.visit()
			wg.Go(func() {
				if i%2 == 0 { // one asks for ever, the other says nothing
					for _, err := io.WriteString(conn, "GET / HTTP/1.1\r\n"); err == nil; _, err = io.WriteString(conn, "X: y\r\n") {
						time.Sleep(time.Second)
					}
				}
				io.Copy(io.Discard, conn)
				if took := time.Since(began); took > noticeRead+time.Second {
					t.Errorf("closed after %v", took)
				}
				conn.Close()
			})
		}
		synctest.Wait()
		extra := v.visit() // there is no room
		if _, err := extra.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || time.Since(began) != 0 {
			t.Errorf("one too many: %v after %v", err, time.Since(began))
		}
		wg.Wait()
		deaf := v.visit() // there is room again
		io.WriteString(deaf, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		asked := time.Now()
		time.Sleep(noticeWrite + time.Second)
		io.Copy(io.Discard, deaf)
		if took := time.Since(asked); took != noticeWrite+time.Second {
			t.Errorf("one who does not read was served for %v", took)
		}
		head := v.visit()
		wg.Go(func() { io.WriteString(head, "GET / HTTP/1.1\r\nX: "+strings.Repeat("x", 1<<20)) })
		resp, err := http.ReadResponse(bufio.NewReader(head), nil)
		if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a request without end: %v, %v", resp, err)
		}
		head.Close()
		wg.Wait()
	})
}

func TestPagesOfAnOperator(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"good":  {"<p>mine</p>", true},
		"large": {strings.Repeat("x", MostNotice), true},
		"more":  {strings.Repeat("x", MostNotice+1), false},
		"empty": {" \n", false},
		"bytes": {"\xff\xfe", false},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := ReadNotice(path)
		if (err == nil) != c.ok || c.ok && string(*n.page.Load()) != c.text || !c.ok && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadNotice(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if n := UsualNotice(strings.Repeat("x", MostNotice)); n == nil || len(*n.page.Load()) > MostNotice {
		t.Error("a contact without end")
	}
}

func TestAFailedListenerOfTheNoticeIsToldOf(t *testing.T) {
	v := newVisitors()
	v.Close()
	if err := UsualNotice("").Run(t.Context(), []net.Listener{v}); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
