package lab

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/testnet/plan"
)

// virtual runs a plan in memory and virtual time.
func virtual(t *testing.T, p *plan.Plan) (r *Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var lines []string
		var err error
		if r, err = Virtual(t.Context(), Config{Plan: p, Dir: t.TempDir(), Progress: func(s string) { mu.Lock(); defer mu.Unlock(); lines = append(lines, s) }}); err != nil {
			t.Fatal(err)
		}
		if !r.OK() {
			t.Logf("what happened:\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
	})
	return r
}

func TestADefaultNetworkCarriesWhatItIsGiven(t *testing.T) {
	p := plan.Default()
	p.Relays = plan.Relays{Count: 6, Exits: 2}
	p.Authorities, p.Weather, p.Length = 4, "fair", plan.Duration(12*time.Second)
	for i, kind := range []string{"web", "echo", "sink"} {
		name := fmt.Sprintf("s%d", i)
		p.Services = append(p.Services, plan.Service{Name: name, Kind: kind})
		p.Loads = append(p.Loads, plan.Load{To: name, Count: 4, AtOnce: 2, Size: 100_000, Timeout: plan.Duration(time.Minute), Tries: 1})
	}
	p.Fill()
	r := virtual(t, p)
	if !r.OK() || len(r.Downloads) != 12 || len(r.Periods) < 2 {
		t.Errorf("%s\n%s", r, strings.Join(r.Trace(), "\n"))
	}
	t.Log(r)
}

// What the seed decides is the same each time: whom chance kills, who is there in each period, and what becomes of downloads.
func TestTheSameSeedHasTheSameTrace(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("needs some seconds of CPU: set PEEL_SLOW=1 to run it")
	}
	p := plan.Default()
	p.Authorities, p.Weather, p.Length, p.Relays = 4, "fair", plan.Duration(2*time.Minute), plan.Relays{Count: 8, Exits: 3}
	p.Services = []plan.Service{{Name: "web", Kind: "web"}}
	p.Loads = []plan.Load{{To: "web", Count: 20, AtOnce: 1, Pause: plan.Duration(4 * time.Second), Tries: 5}}
	p.Events = []plan.Event{plan.Churn(17 * time.Second)}
	p.Fill()
	var first *Result
	for i := range 3 {
		r := virtual(t, p)
		if first == nil {
			first = r
			t.Log(r)
		}
		if !r.OK() || r.Digest() != first.Digest() {
			t.Errorf("run %d: %s\n%s\nbut the first:\n%s", i+1, r, strings.Join(r.Trace(), "\n"), strings.Join(first.Trace(), "\n"))
		}
	}
	p.Seed++
	if r := virtual(t, p); r.Digest() == first.Digest() {
		t.Error("another seed has the same trace")
	}
}
