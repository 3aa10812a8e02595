package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/link/linktest"
	"peel/cell/memtest"
	"peel/cmd/peel/internal/page"
)

// inBubble serves over connections in memory, in virtual time.
func inBubble(t *testing.T, s *Server, do func(dial func() net.Conn)) {
	t.Helper()
	if s.actions == nil {
		t.Fatal("not a server")
	}
	l := linktest.Listen(netip.AddrPort{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, &local{Listener: l, hosts: []string{socketHost}}) }()
	do(func() net.Conn {
		a, b := net.Pipe()
		l.Conns <- b
		return a
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func server(t *testing.T) *Server {
	t.Helper()
	s, err := Open(Config{Kind: "relay"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSlowClientsAreCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		send string
		drip string // again and again, a second apart
		most time.Duration
	}{
		"silent":            {"", "", page.HeaderWithin},
		"half a line":       {"GET /stat", "", page.HeaderWithin},
		"a header for ever": {"GET /status HTTP/1.1\r\nHost: peel\r\n", "A: b\r\n", page.HeaderWithin},
		"a body for ever":   {"POST /slow HTTP/1.1\r\nHost: peel\r\nContent-Length: 60000\r\n\r\n", "x", page.ReadWithin},
		"idle afterwards":   {"GET /healthz HTTP/1.1\r\nHost: peel\r\n\r\n", "", page.IdleWithin},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := server(t)
				s.Handle("POST /slow", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
				inBubble(t, s, func(dial func() net.Conn) {
					conn := dial()
					began := time.Now()
					go func() {
						io.WriteString(conn, c.send)
						for c.drip != "" {
							time.Sleep(time.Second)
							if _, err := io.WriteString(conn, c.drip); err != nil {
								return
							}
						}
					}()
					io.Copy(io.Discard, conn)
					if took := time.Since(began); took > c.most+time.Second {
						t.Errorf("was there for %v", took)
					}
					conn.Close()
					time.Sleep(2 * time.Second)
				})
			})
		})
	}
}

// Thousands of connections that say nothing whole are there 64 at a time, each for its time at most, and keep nobody out.
func TestSlowConnectionsKeepNobodyOut(t *testing.T) {
	for name, says := range map[string]string{"silent": "", "half a head": "GET /status HTTP/1.1\r\nHost: peel\r\n", "idle": "GET /healthz HTTP/1.1\r\nHost: peel\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inBubble(t, server(t), func(dial func() net.Conn) {
					var all sync.WaitGroup
					var there, most atomic.Int64
					for range 5000 {
						c := dial()
						all.Go(func() {
							go io.WriteString(c, says)
							began := time.Now()
							there.Add(1)
							io.Copy(io.Discard, c)
							there.Add(-1)
							most.Store(max(most.Load(), int64(time.Since(began))))
							c.Close()
						})
						synctest.Wait()
					}
					if n := there.Load(); n != page.MostConns {
						t.Errorf("%d are there", n)
					}
					began := time.Now()
					for range 3 {
						honest := dial()
						go io.WriteString(honest, "GET /healthz HTTP/1.1\r\nHost: peel\r\nConnection: close\r\n\r\n")
						if b, _ := io.ReadAll(honest); !strings.HasPrefix(string(b), "HTTP/1.1 200") {
							t.Errorf("an honest one got %q", b)
						}
					}
					if took := time.Since(began); took > time.Second {
						t.Errorf("three honest ones took %v", took)
					}
					all.Wait()
					if took := time.Duration(most.Load()); took > page.IdleWithin+time.Second {
						t.Errorf("one was there for %v", took)
					}
				})
			})
		})
	}
}

// Who says nothing, little, or nearly a whole head takes 8 KiB at most.
func TestASlowConnectionIsSmall(t *testing.T) {
	slowConnections(t, "GET", 0) // what there is from then on in any case
	for i, says := range []string{"", "G", "GET /status HTTP/1.1\r\nHost: peel\r\n", "GET /status HTTP/1.1\r\nHost: peel\r\nX: " + strings.Repeat("x", page.MostHeader-100)} {
		each := slowConnections(t, says, i+1)
		if t.Logf("%d bytes of a head: %d bytes each", len(says), each); each > 8<<10 && !underRace {
			t.Errorf("%d bytes of a head: %d bytes each", len(says), each)
		}
	}
}

// slowConnections has servers full of connections on which so much of a head was said, and says what memory one takes.
func slowConnections(t *testing.T, says string, time int) (each int64) {
	defer memtest.Fill(time)()
	const servers = 8 // of 64 places each, so that what else there is makes no difference
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var served sync.WaitGroup
		var doors [servers]*linktest.Listener
		for i := range doors {
			doors[i] = linktest.Listen(netip.AddrPort{})
			s := server(t)
			served.Go(func() { s.serve(ctx, &local{Listener: doors[i], hosts: []string{socketHost}}) })
		}
		near, far := make([]net.Conn, servers*page.MostConns), make([]net.Conn, servers*page.MostConns)
		for i := range near {
			near[i], far[i] = net.Pipe()
		}
		synctest.Wait()
		before := memtest.InUse()
		for i := range near {
			doors[i%servers].Conns <- far[i]
			io.WriteString(near[i], says)
		}
		synctest.Wait()
		each = (memtest.InUse() - before) / int64(len(near))
		stop()
		served.Wait()
		for _, c := range near {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("after the server: %v", err)
			}
		}
	})
	return each
}

// underRace: the race detector makes everything larger.
var underRace bool

// When all places are taken by requests that are being answered, one more is closed.
func TestConnectionsHaveABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := server(t)
		release := make(chan struct{})
		s.Handle("GET /long", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		inBubble(t, s, func(dial func() net.Conn) {
			var held []net.Conn
			for range page.MostConns {
				c := dial()
				go io.WriteString(c, "GET /long HTTP/1.1\r\nHost: peel\r\n\r\n")
				synctest.Wait()
				held = append(held, c)
			}
			extra := dial()
			if _, err := extra.Read(make([]byte, 1)); err == nil {
				t.Error("one more was taken")
			}
			close(release)
			for _, c := range held {
				go io.Copy(io.Discard, c)
			}
			synctest.Wait()
			next := dial()
			go io.WriteString(next, "GET /healthz HTTP/1.1\r\nHost: peel\r\nConnection: close\r\n\r\n")
			b, _ := io.ReadAll(next)
			if !strings.HasPrefix(string(b), "HTTP/1.1 200") {
				t.Errorf("after one had gone: %q", b)
			}
			for _, c := range held {
				c.Close()
			}
		})
	})
}

func TestLongRequestsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := server(t)
		var failed error
		s.Handle("POST /body", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, failed = io.Copy(io.Discard, r.Body) }))
		inBubble(t, s, func(dial func() net.Conn) {
			for _, c := range []struct{ request, want string }{
				{"GET /status HTTP/1.1\r\nHost: peel\r\nX: " + strings.Repeat("x", 2*page.MostHeader) + "\r\n\r\n", "HTTP/1.1 431"},
				{"POST /body HTTP/1.1\r\nHost: peel\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000), "HTTP/1.1 200"},
			} {
				conn := dial()
				go io.WriteString(conn, c.request)
				b, _ := io.ReadAll(conn)
				if !strings.HasPrefix(string(b), c.want) {
					t.Errorf("%.40q: %q", c.request, b)
				}
				conn.Close()
			}
		})
		if failed == nil {
			t.Error("a body longer than there may be was read to its end")
		}
	})
}

func TestOneActionAtATime(t *testing.T) {
	dir := folder(t)
	begun, end := make(chan bool), make(chan bool)
	running(t, Config{Dir: dir}, func(s *Server) {
		s.Action("reload", func(context.Context) (string, error) {
			begun <- true
			<-end
			return "", nil
		})
	})
	first := make(chan error, 1)
	go func() { _, err := asker(t, dir).Post(context.Background(), "reload"); first <- err }()
	<-begun
	if _, err := asker(t, dir).Post(t.Context(), "reload"); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("%v", err)
	}
	close(end)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	dir := folder(t)
	running(t, Config{Dir: dir}, func(s *Server) {
		s.Metric(
			Metric{Name: "peel_test_streams_total", Help: "Streams.", Rise: true, Round: 64, Value: func() float64 { return 1000 }},
			Metric{Name: "peel_test_few", Help: "Few.", Round: 8, Value: func() float64 { return 7 }},
			Metric{Name: "peel_test_exact_total", Help: "Panics.", Rise: true, Value: func() float64 { return 1 }},
			Metric{Name: "peel_test_drops_total", Help: "Drops.", Rise: true, Round: 8, Label: "reason", Values: func() map[string]float64 {
				return map[string]float64{"full": 17, strings.Repeat("x", 65): 64}
			}},
			Metric{Name: "peel_test_wait_seconds", Help: "Waiting.", Round: 8, Bounds: []float64{0.01, 1}, Classes: func() ([]uint64, float64) { return []uint64{9, 9, 9}, 7.9 }},
		)
	})
	text := get(t, asker(t, dir), "/metrics")
	for _, want := range []string{
		"peel_test_streams_total 960\n", "peel_test_few 0\n", "peel_test_exact_total 1\n", `peel_test_drops_total{reason="full"} 16` + "\n",
		`peel_test_wait_seconds_bucket{le="0.01"} 8` + "\n", `peel_test_wait_seconds_bucket{le="1"} 16` + "\n", `peel_test_wait_seconds_bucket{le="+Inf"} 24` + "\n",
		"peel_test_wait_seconds_sum 7\n", "peel_test_wait_seconds_count 24\n", "# TYPE peel_test_drops_total counter\n", "# TYPE peel_test_few gauge\n", "peel_goroutines ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "xxxx") {
		t.Error("a value of a label has no bound")
	}
}

func TestMetricsThatMayNotBe(t *testing.T) {
	value, values := func() float64 { return 0 }, func() map[string]float64 { return nil }
	for name, m := range map[string]Metric{
		"names a person":      {Name: "peel_x", Help: "h", Label: "user", Values: values},
		"names a peer":        {Name: "peel_x", Help: "h", Label: "peer", Values: values},
		"names a circuit":     {Name: "peel_x", Help: "h", Label: "circuit", Values: values},
		"a foreign name":      {Name: "go_x", Help: "h", Value: value},
		"no help":             {Name: "peel_x", Value: value},
		"counter's name":      {Name: "peel_x_total", Help: "h", Value: value},
		"gauge's name":        {Name: "peel_x", Help: "h", Rise: true, Value: value},
		"no value":            {Name: "peel_x", Help: "h"},
		"label, no values":    {Name: "peel_x", Help: "h", Label: "reason", Value: value},
		"there already":       {Name: "peel_goroutines", Help: "h", Value: value},
		"a histogram of one":  {Name: "peel_x", Help: "h", Bounds: []float64{1}, Value: value},
		"a histogram of none": {Name: "peel_x", Help: "h", Bounds: []float64{1}},
		"bounds in disorder":  {Name: "peel_x", Help: "h", Bounds: []float64{2, 1}, Classes: func() ([]uint64, float64) { return nil, 0 }},
		"a histogram's past":  {Name: "peel_x", Help: "h", Bounds: []float64{1}, Keep: true, Classes: func() ([]uint64, float64) { return nil, 0 }},
		"negative step":       {Name: "peel_x", Help: "h", Round: -1, Value: value},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: was taken", name)
				}
			}()
			server(t).Metric(m)
		}()
	}
}

func TestAStatusIsWrittenForPeople(t *testing.T) {
	var b strings.Builder
	err := WriteText(&b, []byte(`{"node": {"kind": "relay", "ready": true, "started": "2026-11-25T18:00:00Z"},
		"links": [{"to": "a", "age_s": 3}, {"to": "bb\u001b[2J", "up": false}], "none": [], "words": ["x", "y"],
		"offer": {"bandwidth_bytes_a_second": 12500000, "idle_bytes_a_second": 0, "kept_bytes": 1536, "quota_MB": 2500000},
		"limits": [{"what": "circuits", "now": 64, "most": 131072}, {"unit": "bytes", "what": "cells", "now": 0, "most": 3159562752}]}`))
	want := `node
  kind     relay
  ready    yes
  started  2026-11-25 18:00:00 UTC
links
  to      age s  up
  a       3      -
  bb?[2J  -      no
none      none
words     x, y
offer
  bandwidth  12.5 MB/s (100 Mbit/s)
  idle       0 B/s
  kept       1.5 KiB
  quota      2.5 TB
limits
  what      now  most
  circuits  64   131072
  cells     0 B  2.94 GiB
`
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s", err, b.String())
	}
	for _, bad := range []string{"", "{", `{"a"`, `[1,`, "x"} {
		if err := WriteText(io.Discard, []byte(bad)); err == nil {
			t.Errorf("%q was written", bad)
		}
	}
	deep := strings.Repeat("[", 100000)
	if err := WriteText(io.Discard, []byte(deep)); err == nil {
		t.Error("a bottomless answer was written")
	}
}
