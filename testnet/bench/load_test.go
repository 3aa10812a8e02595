package bench

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func config(size int64) Config {
	c := Quick()
	c.Size = size
	return c
}

func TestLoadIsSharedAndCountedToTheByte(t *testing.T) {
	w, err := newWeb()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	b := &bencher{cfg: config(3 << 20), web: w}
	for _, upload := range []bool{false, true} {
		o, err := b.load(t.Context(), upload, w.direct, w.direct, w.direct)
		if err != nil || o.bytes != 3<<20 || o.took <= 0 {
			t.Errorf("upload %v: %d bytes in %v, %v", upload, o.bytes, o.took, err)
		}
	}
	if _, err := first(t.Context(), w.direct); err != nil {
		t.Error(err)
	}
}

// A way that stands still after half of a page is cut off at the limit, and what came before counts.
func TestLoadIsCutOffAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 1 << 20
		b := &bencher{cfg: config(size), web: &web{}}
		stalls := func(sent int) dial {
			return func(context.Context) (net.Conn, error) {
				near, far := net.Pipe()
				go func() {
					defer far.Close()
					http.ReadRequest(bufio.NewReader(far))
					far.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + strings.Repeat("x", sent)))
					bufio.NewReader(far).ReadByte() // until the other end closes
				}()
				return near, nil
			}
		}
		o, err := b.load(t.Context(), false, stalls(size/2))
		if err != nil || o.bytes != size/2 || o.took != b.cfg.Limit {
			t.Errorf("half a page: %d bytes in %v, %v", o.bytes, o.took, err)
		}
		if o, err = b.load(t.Context(), false, stalls(0)); err == nil {
			t.Errorf("nothing came and all is well: %d bytes", o.bytes)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.load(ctx, false, stalls(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended from outside: %v", err)
		}
	})
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	w, err := newWeb()
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	b := &bencher{cfg: config(1 << 20), web: w}
	refused := errors.New("refused")
	no := func(context.Context) (net.Conn, error) { return nil, refused }
	if _, err := b.load(t.Context(), false, w.direct, no); !errors.Is(err, refused) {
		t.Errorf("a way that cannot be dialled: %v", err)
	}
	if _, err := first(t.Context(), no); !errors.Is(err, refused) {
		t.Errorf("first byte of it: %v", err)
	}
	short := func(ctx context.Context) (net.Conn, error) { // a web server that gives less than it says
		near, far := net.Pipe()
		go func() {
			http.ReadRequest(bufio.NewReader(far))
			far.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\nabc"))
			far.Close()
		}()
		return near, nil
	}
	if _, err := b.load(t.Context(), false, short); err == nil {
		t.Error("a page that was cut short was taken for the whole")
	}
}

func TestConfigsThatCannotBe(t *testing.T) {
	for _, good := range []Config{Quick(), Full()} {
		if err := good.Check(); err != nil {
			t.Error(err)
		}
	}
	for name, change := range map[string]func(*Config){
		"no size": func(c *Config) { c.Size = 0 }, "too much": func(c *Config) { c.Size = 1 << 40 }, "no run": func(c *Config) { c.Runs = 0 },
		"no time": func(c *Config) { c.Limit = 0 }, "no stream": func(c *Config) { c.Warm = 0 }, "no circuit": func(c *Config) { c.Circuits = 0 },
	} {
		c := Quick()
		change(&c)
		if c.Check() == nil {
			t.Errorf("%s: taken", name)
		}
		if _, err := Run(t.Context(), Network{}, c); err == nil {
			t.Errorf("%s: run", name)
		}
	}
}
