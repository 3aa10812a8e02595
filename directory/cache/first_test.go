package cache

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/directory/dirtest"
)

// asked is what a node meets that asks authorities, with a list in hand or without: what each does with the connection.
func asked(t *testing.T, client, has bool, authorities ...func(net.Conn)) (changed bool, dials int, took time.Duration, err error) {
	world := dirtest.New(1, 6, dirtest.At(time.Now().Truncate(time.Second)))
	docs, err := New(Config{Network: world.Network})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := docs.Put(world.Text, time.Now()); err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Network: world.Network})
	if err != nil {
		t.Fatal(err)
	}
	if has {
		if _, err := c.Put(world.Text, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	var n atomic.Int64
	var serving sync.WaitGroup
	defer serving.Wait()
	begin := time.Now()
	changed, err = c.ask(t.Context(), Sources{Client: client, Authority: func(context.Context) (net.Conn, error) {
		i := int(n.Add(1)) - 1
		if i >= len(authorities) {
			return nil, errors.New("no more")
		}
		a, b := net.Pipe()
		serving.Go(func() {
			defer b.Close()
			if authorities[i] != nil {
				authorities[i](b)
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(b)); err == nil {
				w := &plain{header: http.Header{}}
				docs.ServeHTTP(w, r)
				b.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\n" + encoding(w.header) + "\r\n"))
				b.Write(w.body)
			}
		})
		return a, nil
	}}, new(turns))
	return changed, int(n.Load()), time.Since(begin), err
}

type plain struct {
	header http.Header
	body   []byte
}

func (p *plain) Header() http.Header         { return p.header }
func (p *plain) WriteHeader(int)             {}
func (p *plain) Write(b []byte) (int, error) { p.body = append(p.body, b...); return len(b), nil }

func encoding(h http.Header) string {
	if e := h.Get("Content-Encoding"); e != "" {
		return "Content-Encoding: " + e + "\r\n"
	}
	return ""
}

func silent(b net.Conn) { http.ReadRequest(bufio.NewReader(b)); b.Read(make([]byte, 1)) }

func liar(b net.Conn) {
	http.ReadRequest(bufio.NewReader(b))
	b.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nnonsense"))
}

// dripping sends a few bytes every half a second, as long as anybody listens; or more of them, for six seconds.
func dripping(bytes int) func(net.Conn) {
	return func(b net.Conn) {
		http.ReadRequest(bufio.NewReader(b))
		b.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
		for i := 0; i < 12 || bytes < 100; i++ {
			if _, err := b.Write(make([]byte, bytes)); err != nil {
				return
			}
			time.Sleep(500 * time.Millisecond)
		}
	}
}

func TestSilentAuthoritiesAreNotWaitedFor(t *testing.T) {
	for _, x := range []struct {
		name    string
		client  bool
		who     []func(net.Conn)
		changed bool
		dials   int
		took    time.Duration
	}{
		{"a good one", true, []func(net.Conn){nil, nil}, true, 1, 0},
		{"a silent one", true, []func(net.Conn){silent, nil}, true, 2, time.Second},
		{"three silent ones", true, []func(net.Conn){silent, silent, silent, nil, nil}, true, 4, 3 * time.Second},
		{"five silent ones", true, []func(net.Conn){silent, silent, silent, silent, silent, nil, nil}, true, 6, 5 * time.Second},
		{"a silent one and liars", true, []func(net.Conn){silent, liar, liar, liar, liar, nil}, true, 6, time.Second},
		{"a silent one and nothing but liars", true, []func(net.Conn){silent, liar, liar, liar, liar, liar, liar, liar, liar, liar, liar, liar, nil}, false, 12, Stall},
		{"a liar first: Follow asks the next", true, []func(net.Conn){liar, nil}, false, 1, 0},
		{"six silent ones", true, []func(net.Conn){silent, silent, silent, silent, silent, silent, nil}, true, 7, Stall},
		{"only silent ones", true, []func(net.Conn){silent, silent, silent, silent, silent, silent, silent, silent, silent, silent, silent, silent, nil}, false, 12, 2*Stall + 5*time.Second},
		{"one that is slow", true, []func(net.Conn){dripping(1 << 10), nil}, false, 1, 6 * time.Second},
		{"one that drips", true, []func(net.Conn){dripping(1), nil}, true, 2, time.Second},
		{"a relay that has none", false, []func(net.Conn){silent, nil}, true, 2, time.Second},
		{"a relay that has one, and so has time", false, []func(net.Conn){silent, nil}, false, 1, Stall},
	} {
		synctest.Test(t, func(t *testing.T) {
			changed, dials, took, err := asked(t, x.client, strings.Contains(x.name, "has one"), x.who...)
			if changed != x.changed || (err == nil) != x.changed || dials != x.dials || took != x.took {
				t.Errorf("%s: %v, %v; %d were asked, in %v", x.name, changed, err, dials, took)
			}
		})
	}
}

// Of two that are asked at a time and answer at the same moment, one finds the list in place: that it came is known all the same.
func TestAListThatTwoBringIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := dirtest.New(1, 6, dirtest.At(time.Now().Truncate(time.Second)))
		for range 100 {
			c, err := New(Config{Network: world.Network})
			if err != nil {
				t.Fatal(err)
			}
			var n atomic.Int64
			both := make(chan struct{})
			var serving sync.WaitGroup
			changed, err := c.fetchFirst(t.Context(), Sources{Client: true, Authority: func(context.Context) (net.Conn, error) {
				a, b := net.Pipe()
				serving.Go(func() {
					defer b.Close()
					if _, err := http.ReadRequest(bufio.NewReader(b)); err != nil {
						return
					}
					if n.Add(1) == 2 {
						close(both)
					}
					<-both
					b.Write([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"))
					b.Write(world.Text)
				})
				return a, nil
			}}, true)
			serving.Wait()
			if err != nil || !changed || c.Consensus() == nil {
				t.Fatalf("new: %t, %v", changed, err)
			}
		}
	})
}
