package testnet

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"peel/testnet/plan"
)

// Over loopback too there is weather, and villains and events: bytes take their time, and are right.
func TestWeatherOverLoopback(t *testing.T) {
	beside(t)
	const delay = 5 * time.Millisecond
	p := plan.Default()
	p.Authorities, p.Relays.Count, p.Relays.Exits = small.Authorities, small.Relays, small.Exits
	p.Weathers = []plan.Weather{{Name: "near", Delay: plan.Duration(delay)}}
	p.Weather = "near"
	p.Villains = []plan.Villain{{Node: "authority2", Script: "lie"}}
	p.Events = []plan.Event{{Do: plan.Freeze, Node: "authority1", For: plan.Duration(10 * time.Millisecond)}}
	p.Fill()
	cfg := small
	cfg.Plan = p
	befell := make(chan string, 10)
	cfg.Befell = func(_ time.Duration, text string) { befell <- text }
	n := run(t, cfg)
	for _, want := range []string{"authority1 is frozen", "authority1 is back"} {
		select {
		case got := <-befell:
			if got != want {
				t.Errorf("told %q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("not told that %s", want)
		}
	}
	page := noise(300_000)
	s := web(t, page)
	fetch := func() time.Duration {
		c, err := n.Client().DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
		asked := time.Now()
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		took := time.Since(asked)
		rest, err := io.ReadAll(c)
		if err != nil || !bytes.HasSuffix(rest, page) {
			t.Errorf("%v after %d bytes", err, len(rest))
		}
		return took
	}
	if took := fetch(); took < 6*delay { // three links, there and back
		t.Errorf("the first byte came after %v", took)
	}
	if err := n.SetWeather("calm"); err != nil {
		t.Fatal(err)
	}
	fetch()
	if err := n.SetWeather("hail"); err == nil {
		t.Error("there is hail")
	}
}

// Where the weather comes late there is none at first, nor what it costs; then all connections are made anew, and meet it.
func TestWeatherThatComesLate(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("starts a network of its own: set PEEL_SLOW=1 to run it")
	}
	const delay = 20 * time.Millisecond
	p := plan.Default()
	p.Authorities, p.Relays.Count, p.Relays.Exits = small.Authorities, small.Relays, small.Exits
	p.Weathers = []plan.Weather{{Name: "near", Delay: plan.Duration(delay)}}
	p.Fill()
	cfg := small
	cfg.Plan, cfg.Late = p, true
	n := run(t, cfg)
	page := noise(100_000)
	s := web(t, page)
	fetch := func() (first time.Duration, err error) {
		c, err := n.Client().DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
		if err != nil {
			return 0, err
		}
		defer c.Close()
		asked := time.Now()
		if _, err := fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			return 0, err
		}
		first = time.Since(asked)
		if rest, err := io.ReadAll(c); err != nil || !bytes.HasSuffix(rest, page) {
			return 0, fmt.Errorf("%w after %d bytes", err, len(rest))
		}
		return first, nil
	}
	if _, err := fetch(); err != nil {
		t.Fatal(err)
	}
	n.plain.mu.Lock()
	links := len(n.plain.conns)
	n.plain.mu.Unlock()
	if links == 0 {
		t.Error("there are no plain connections")
	}
	if err := n.SetWeather("near"); err != nil {
		t.Fatal(err)
	}
	for ends := time.Now().Add(time.Minute); ; {
		first, err := fetch()
		if err == nil {
			if first < 6*delay { // three links, there and back
				t.Errorf("the first byte came after %v", first)
			}
			break
		}
		if time.Now().After(ends) {
			t.Fatal(err)
		}
	}
}

// Connections that have ended are let go of, so that there are not ever more of them.
func TestPlainConnectionsThatEndedAreLetGo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var p plain
	var last net.Conn
	for range 100 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if !p.add(c) {
			t.Fatal("there is weather")
		}
		if last != nil {
			last.Close()
		}
		last = c
	}
	if n := len(p.conns); n > 64 {
		t.Errorf("%d connections are held, of which one is open", n)
	}
	p.end()
	if !closed(last) || p.add(last) || !p.over() {
		t.Error("connections are there after the end")
	}
}

func TestLoopbackRefusesWhatItCannotDo(t *testing.T) {
	p := plan.Default()
	p.Events = []plan.Event{{Do: plan.Part, Nodes: []string{"relay1"}}}
	p.Fill()
	if _, err := New(Config{Plan: p}); err == nil || !strings.Contains(err.Error(), "peel testnet run --ground loopback FILE has it") {
		t.Error(err)
	}
}
