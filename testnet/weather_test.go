package testnet

import (
	"bytes"
	"fmt"
	"io"
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
	p.Fill()
	cfg := small
	cfg.Plan = p
	if cfg.Period == 0 {
		cfg.Period, cfg.Voting = 5*time.Second, 2*time.Second
	}
	n := run(t, cfg)
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

func TestLoopbackRefusesWhatItCannotDo(t *testing.T) {
	p := plan.Default()
	p.Events = []plan.Event{{Do: plan.Part, Nodes: []string{"relay1"}}}
	p.Fill()
	if _, err := New(Config{Plan: p}); err == nil || !strings.Contains(err.Error(), "peel testnet run --ground loopback FILE has it") {
		t.Error(err)
	}
}
