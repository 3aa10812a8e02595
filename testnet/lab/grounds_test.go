package lab

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"peel/testnet/plan"
)

// small is a plan of some seconds in which all kinds of things happen that a ground should be able to do.
func small() *plan.Plan {
	p := plan.Default()
	p.Name, p.Authorities, p.Relays, p.Length = "small", 4, plan.Relays{Count: 6, Exits: 3}, plan.Duration(8*time.Second)
	p.Services = []plan.Service{{Name: "web", Kind: "web"}, {Name: "sink", Kind: "sink"}}
	s := plan.Duration(time.Second)
	p.Loads = []plan.Load{{To: "web", Count: 12, AtOnce: 2, Size: 100_000, Tries: 20, Pause: s}, {To: "sink", Count: 4, Size: 50_000, Tries: 20, Pause: s}}
	p.Events = []plan.Event{
		{Do: plan.Kill, Node: "relay1", At: s, For: 2 * s},
		{Do: plan.Freeze, Node: "relay2", At: 2 * s, For: 2 * s},
		{Do: plan.Restart, Node: "relay3", At: 3 * s},
	}
	p.Period, p.Voting = 6*s, 3*s
	p.Expect.MissedPeriods = 100 // of which a busy machine may miss some
	p.Fill()
	return p
}

// real runs a plan in real time.
func real(t *testing.T, cfg Config) *Result {
	t.Helper()
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("needs some seconds: set PEEL_SLOW=1 to run it")
	}
	var mu sync.Mutex
	var lines []string
	cfg.Progress = func(s string) { mu.Lock(); defer mu.Unlock(); lines = append(lines, s) }
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if left := l.Left(); left != "" {
		t.Error(left)
	}
	if !r.OK() {
		t.Errorf("%s\n%s", r, strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
	t.Log(r)
	return r
}

func TestANetworkOverLoopbackBearsWhatAPlanSays(t *testing.T) {
	p := small()
	s := plan.Duration(time.Second)
	p.Weathers = []plan.Weather{{Name: "breeze", Delay: plan.Duration(5 * time.Millisecond), Loss: 0.001}}
	p.Events = append(p.Events, plan.Event{Do: plan.Change, Weather: "breeze", At: s}, plan.Event{Do: plan.Limit, Node: "relay4", Rate: 500_000, At: s, For: 2 * s},
		plan.Event{Do: plan.Part, Nodes: []string{"relay5", "relay6"}, At: 4 * s, For: s}, plan.Event{Do: plan.Skew, Node: "authority2", By: 20 * s, At: s, For: 2 * s})
	p.Villains = []plan.Villain{{Node: "authority4", Script: "equivocate"}, {Node: "client1", Script: "circles"}}
	p.Expect.Accused = []string{"authority4"}
	if r := real(t, Config{Plan: p, Ground: Loopback(p)}); len(r.Downloads) < 4 || r.Refused == 0 {
		t.Errorf("%d downloads, %d refused", len(r.Downloads), r.Refused)
	}
}
