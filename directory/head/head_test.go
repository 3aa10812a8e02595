package head

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// reads has Read look at what comes in pieces, after which nothing comes.
func reads(pieces ...string) (string, error) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() {
		for _, p := range pieces {
			if _, err := io.WriteString(near, p); err != nil {
				return
			}
		}
	}()
	b, err := Read(far, 5*time.Second)
	return string(b), err
}

func TestAHeadIsWholeAtItsEmptyLine(t *testing.T) {
	const usual = "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n"
	for name, c := range map[string]struct {
		say  string
		head int // bytes after which it is whole
	}{
		"usual":              {usual, len(usual)},
		"lines without CR":   {"GET / HTTP/1.1\nHost: x\n\n", 24},
		"both":               {"GET / HTTP/1.1\r\nHost: x\n\r\n", 26},
		"no fields":          {"GET / HTTP/1.1\r\n\r\n", 18},
		"nothing":            {"\r\n", 2},
		"nothing without CR": {"\n", 1},
		"CR alone":           {"A\r\r\nB\r\n\r\n", 9},
		"a body behind it":   {"POST / HTTP/1.1\r\nHost: x\r\n\r\nbody\r\n\r\nmore", 28},
		"a long one":         {"GET / HTTP/1.1\r\nX: " + strings.Repeat("x", Most-23) + "\r\n\r\n", Most},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got, err := reads(c.say); got != c.say || err != nil {
					t.Errorf("at once: %q, %v", got, err)
				}
				if got, err := reads(strings.Split(c.say, "")...); got != c.say[:c.head] || err != nil {
					t.Errorf("byte by byte: %q, %v", got, err)
				}
				for n := range min(c.head, 64) {
					if got, err := reads(c.say[:n]); got != "" || !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%d bytes of it: %q, %v", n, got, err)
					}
				}
			})
		})
	}
}

func TestLargeHeadsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := "GET / HTTP/1.1\r\nX: "
		for _, end := range []string{"\r\n\r\n", ""} {
			if _, err := reads(first, strings.Repeat("x", Most+1-len(first)-len(end)), end); !errors.Is(err, ErrTooLarge) {
				t.Errorf("a head of a byte more: %v", err)
			}
		}
		if _, err := reads(append([]string{first}, strings.Split(strings.Repeat("Cookie: "+strings.Repeat("x", 1000)+"\r\n", 70), "\n")...)...); !errors.Is(err, ErrTooLarge) {
			t.Errorf("cookies without end: %v", err)
		}
	})
}

// What other programs on this machine had a browser keep is neither read nor held.
func TestCookiesAreLeftOut(t *testing.T) {
	large := strings.Repeat("crumb=1234567; ", 1000)
	for say, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + large + "\r\nA: b\r\n\r\nCookie: body":            "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\nCookie: body",
		"GET / HTTP/1.1\ncOOKIE:" + large + "\nCOOKIE: y\n\n":                                       "GET / HTTP/1.1\n\n",
		"GET / HTTP/1.1\r\nX-Cookie: x\r\nCookie2: y\r\nCookies: z\r\n:Cookie: q\r\nCookie\r\n\r\n": "",
		"cookie: HTTP/1.1\r\n\r\n": "",
	} {
		if want == "" {
			want = say
		}
		synctest.Test(t, func(t *testing.T) {
			for _, pieces := range [][]string{{say}, strings.Split(say, "")} {
				whole := strings.TrimSuffix(want, "Cookie: body")
				if got, err := reads(pieces...); err != nil || !strings.HasPrefix(got, whole) || !strings.HasPrefix(want, got) {
					t.Errorf("%.60q in %d pieces: %q, %v", say, len(pieces), got, err)
				}
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\nbody"), 7)
	f.Add([]byte("\n"), 1)
	f.Add([]byte("\n"+strings.Repeat("more than one read takes ", 40)), 1000)
	f.Add([]byte("A\r\n\r"), 2)
	f.Add([]byte("A\nCookie: b\r\nB: c\r\n\r\n"), 3)
	f.Add(bytes.Repeat([]byte("x\r\n"), 2000), 1000)
	for _, before := range []int{Most - 1, Most - 2, Most - len(cookie) - 1, Most - len(cookie), Most - len(cookie) + 1} { // what stands before a cookie
		f.Add([]byte(strings.Repeat("x", before-1)+"\nCookie: b\n\n"), 100)
	}
	f.Add([]byte(strings.Repeat("x", Most-2)+"\n\n"), Most)
	f.Add([]byte("A\ncookie:\nCOOKIE\n\r\r\n\r\n"), 5)
	f.Fuzz(func(t *testing.T, said []byte, step int) {
		if step = max(step, 1); len(said) > 8<<10 {
			return
		}
		got, err := Read(&spoken{left: said, step: step}, time.Second)
		// As a reader of lines sees it: the first that is empty ends the head. A cookie is one from its colon on; until then it has its place.
		var want []byte
		ends, most, whole := 0, 0, false
		for r := bufio.NewReader(bytes.NewReader(said)); !whole; {
			line, err := r.ReadBytes('\n')
			if err != nil {
				break
			}
			ends += len(line)
			whole = len(bytes.TrimRight(line, "\r\n")) == 0 && len(line) <= 2
			if len(want) == 0 || len(line) < len(cookie) || !bytes.EqualFold(line[:len(cookie)], []byte(cookie)) {
				want = append(want, line...)
			} else {
				most = max(most, len(want)+len(cookie))
			}
		}
		switch {
		case whole && max(len(want), most) <= Most:
			if err != nil || !bytes.HasPrefix(got, want) || len(got) > Most || !bytes.HasPrefix(said[ends:], got[len(want):]) {
				t.Errorf("a head of %d bytes: %d, %v", len(want), len(got), err)
			}
		case err == nil:
			t.Errorf("%q was taken", got)
		}
	})
}

// spoken is a connection on which somebody says something, in steps.
type spoken struct {
	net.Conn
	left []byte
	step int
}

func (s *spoken) SetReadDeadline(time.Time) error { return nil }

func (s *spoken) Read(b []byte) (int, error) {
	if len(s.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.left[:min(s.step, len(s.left))])
	s.left = s.left[n:]
	return n, nil
}

func TestSlowHeadsEndAtTheDeadline(t *testing.T) {
	for _, pause := range []time.Duration{time.Hour, time.Second, 20 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			over := make(chan struct{})
			defer func() { far.Close(); <-over }()
			go func() { // for ever
				defer close(over)
				for _, err := io.WriteString(near, "G"); err == nil; _, err = io.WriteString(near, "X: y\r\n") {
					time.Sleep(pause)
				}
			}()
			began := time.Now()
			_, err := Read(far, 5*time.Second)
			if took := time.Since(began); took != 5*time.Second || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("every %v: %v after %v", pause, err, took)
			}
		})
	}
}

// What is said last comes, even to who still sends, and nobody is waited for long.
func TestTheLastAnswerComes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, strings.Repeat("x", 16<<10)) // nobody has read it when the answer goes
	done := make(chan struct{})
	go func() {
		defer close(done)
		Last(far, time.Minute, Refusal(http.StatusRequestHeaderFieldsTooLarge))
		far.Close()
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if want := "431 Request Header Fields Too Large"; err != nil || resp.Status != want || string(body) != want || !resp.Close {
		t.Errorf("%v %q, %v", resp, body, err)
	}
	c.Close()
	<-done
	for _, say := range []string{"", "x"} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			stop := make(chan struct{})
			go func() {
				fmt.Fscan(near, new(string))
				for say != "" {
					if _, err := io.WriteString(near, say); err != nil {
						return
					}
				}
				<-stop
			}()
			began := time.Now()
			Last(far, time.Second, []byte("end\n"))
			if took := time.Since(began); took > lingering {
				t.Errorf("who says %q for ever is waited for %v", say, took)
			}
			far.Close()
			close(stop)
			began = time.Now()
			_, deaf := net.Pipe()
			if Last(deaf, time.Second, []byte("end\n")); time.Since(began) != time.Second {
				t.Errorf("who does not read is waited for %v", time.Since(began))
			}
		})
	}
}
