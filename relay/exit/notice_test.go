package exit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/link/linktest"
	"peel/cell/memtest"
	"peel/directory/head"
)

// doorway is where visitors come in.
type doorway struct{ *linktest.Listener }

func newDoorway() *doorway { return &doorway{linktest.Listen(netip.MustParseAddrPort("192.0.2.7:80"))} }

func (v *doorway) visit() net.Conn { return v.visitFrom("192.0.2.1") }

func (v *doorway) visitFrom(a string) net.Conn {
	here, there := net.Pipe()
	v.Conns <- &caller{there, &net.TCPAddr{IP: net.ParseIP(a), Port: 40000}}
	return here
}

// caller is a connection from somewhere.
type caller struct {
	net.Conn
	from net.Addr
}

func (c *caller) RemoteAddr() net.Addr { return c.from }

// noticeWorld serves the usual page in virtual time.
func noticeWorld(t *testing.T, test func(t *testing.T, v *doorway)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		v := newDoorway()
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
	noticeWorld(t, func(t *testing.T, v *doorway) {
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

// Whatever is asked, the answer is one that a web server may give, and the last on its connection.
func TestWhatTheNoticeAnswersToWhat(t *testing.T) {
	noticeWorld(t, func(t *testing.T, v *doorway) {
		for say, status := range map[string]int{
			"GET / HTTP/1.0\r\n\r\n":                                      200,
			"GET http://x/y HTTP/1.1\r\nHost: x\r\n\r\n":                  200,
			"GET / HTTP/1.1\nHost: x\n\n":                                 200,
			"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n":                          200,
			"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n":     200,
			"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody": 405,
			"\r\n":                        400,
			"GET /\r\n\r\n":               400,
			"GET / HTTP/1.1\r\n\r\n":      400,
			"GET / HTTP/1.1\r\nA\r\n\r\n": 400,
			"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n": 400,
			"\x16\x03\x01\n\n":                  400,
			"PRI * HTTP/2.0\r\n\r\n":            505,
			"GET / HTTP/9.1\r\nHost: x\r\n\r\n": 505,
			"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", head.Most) + "\r\n\r\n": 431,
		} {
			c := v.visit()
			go io.WriteString(c, say)
			method, _, _ := strings.Cut(say, " ")
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				t.Errorf("%.60q: %v", say, err)
				continue
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != status || !resp.Close || resp.ContentLength < 0 {
				t.Errorf("%.60q: %v, %v", say, resp, err)
			}
			if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
				t.Errorf("%.60q: behind the answer: %q, %v", say, b, err)
			}
			c.Close()
		}
	})
}

func TestSlowVisitorsOfTheNoticeAreClosed(t *testing.T) {
	noticeWorld(t, func(t *testing.T, v *doorway) {
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
		wg.Wait()
		deaf := v.visit()
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

// Five thousand who say next to nothing, from many addresses, or hundreds from one, keep nobody from reading the notice; each is gone by its deadline, and
// the process has 64 of them at most.
func TestSlowVisitorsKeepNobodyFromTheNotice(t *testing.T) {
	for _, from := range []int{1, 5000} {
		n := max(from, 500)
		noticeWorld(t, func(t *testing.T, v *doorway) {
			var all sync.WaitGroup
			var there atomic.Int64
			began := time.Now()
			for i := range n {
				c := v.visitFrom(fmt.Sprintf("198.%d.%d.1", i%from/256, i%from%256))
				there.Add(1)
				all.Go(func() {
					io.WriteString(c, "GET / HTTP/1.1\r\n")
					io.Copy(io.Discard, c)
					there.Add(-1)
					if took := time.Since(began); took > noticeRead {
						t.Errorf("one was there for %v", took)
					}
					c.Close()
				})
			}
			synctest.Wait()
			if n := there.Load(); n != noticeConns {
				t.Errorf("%d of %d are there", n, from)
			}
			asked := time.Now()
			for range 3 {
				c := v.visitFrom("192.0.2.9")
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatalf("%d addresses: an honest visitor: %v", from, err)
				}
				if page, err := io.ReadAll(resp.Body); err != nil || len(page) == 0 {
					t.Errorf("an honest visitor has %d bytes, %v", len(page), err)
				}
				c.Close()
			}
			if took := time.Since(asked); took > time.Second {
				t.Errorf("three honest visitors took %v", took)
			}
			all.Wait()
		})
	}
}

// Who is being answered keeps the place while others have not asked, and the address with most makes room first.
func TestWhoMakesRoomAtTheNotice(t *testing.T) {
	var v visitors
	enter := func(from string) *visitor {
		a, b := net.Pipe()
		b.Close()
		return v.enter(&caller{a, &net.TCPAddr{IP: net.ParseIP(from)}})
	}
	var of [noticeConns]*visitor
	for i := range of {
		from := fmt.Sprintf("2001:db8::%x", i) // all of one /64
		if i%2 == 0 {
			from = fmt.Sprintf("192.0.2.%d", i)
		}
		of[i] = enter(from)
	}
	v.asked(of[1])
	enter("192.0.2.200")
	if of[3].place != nil || of[1].place == nil || of[0].place == nil || v.here.Len() != noticeConns {
		t.Error("not the oldest silent one of the address with most made room")
	}
	for _, c := range of {
		v.asked(c)
	}
	enter("192.0.2.201")
	if of[1].place != nil || of[5].place == nil {
		t.Error("where all have asked, not the oldest of the address with most made room")
	}
	for e := v.here.Front(); e != nil; e = v.here.Front() {
		e.Value.(*visitor).Close()
	}
	of[1].Close() // again
	if v.here.Len() != 0 {
		t.Errorf("%d are left", v.here.Len())
	}
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
	v := newDoorway()
	v.Close()
	if err := UsualNotice("").Run(t.Context(), []net.Listener{v}); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// Who says nothing, little, or nearly a whole head, and who does not read the answer, takes 8 KiB at most.
func TestASlowVisitorIsSmall(t *testing.T) {
	slowVisitors(t, "GET", 0) // what there is from then on in any case
	for i, says := range []string{"", "G", "GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", head.Most-100), "GET / HTTP/1.1\r\nHost: x\r\n\r\n"} {
		each := slowVisitors(t, says, i+1)
		if t.Logf("%d bytes of a request: %d bytes each", len(says), each); each > 8<<10 && !underRace {
			t.Errorf("%d bytes of a request: %d bytes each", len(says), each)
		}
	}
}

// slowVisitors has notices full of visitors that said so much, and says what memory one takes.
func slowVisitors(t *testing.T, says string, time int) (each int64) {
	defer memtest.Fill(time)()
	const notices = 8 // of 64 places each, so that what else there is makes no difference
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var served sync.WaitGroup
		var doors [notices]*doorway
		for i := range doors {
			doors[i] = newDoorway()
			served.Go(func() { UsualNotice("").Run(ctx, []net.Listener{doors[i]}) })
		}
		near, far := make([]net.Conn, notices*noticeConns), make([]net.Conn, notices*noticeConns)
		for i := range near {
			near[i], far[i] = net.Pipe()
		}
		synctest.Wait()
		before := memtest.InUse()
		for i := range near {
			doors[i%notices].Conns <- far[i]
			io.WriteString(near[i], says)
		}
		synctest.Wait()
		each = (memtest.InUse() - before) / int64(len(near))
		for _, c := range near {
			c.Close()
		}
		stop()
		served.Wait()
	})
	return each
}

// underRace: the race detector makes everything larger.
var underRace bool
