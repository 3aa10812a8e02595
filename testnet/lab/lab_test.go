package lab

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/testnet/memnet"
	"peel/testnet/plan"
)

// virtual runs a plan in memory and virtual time.
func virtual(t *testing.T, p *plan.Plan) (r *Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var lines []string
		l, err := New(Config{Plan: p, Internet: memnet.New(p.Seed), Ground: "in memory, in virtual time", Dir: t.TempDir(), Progress: func(s string) {
			lines = append(lines, s)
		}})
		if err != nil {
			t.Fatal(err)
		}
		if r, err = l.Run(t.Context()); err != nil {
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
	p.Authorities, p.Weather, p.Length = 4, "fair", plan.Duration(20*time.Second)
	for i, kind := range []string{"web", "echo", "sink"} {
		name := fmt.Sprintf("s%d", i)
		p.Services = append(p.Services, plan.Service{Name: name, Kind: kind})
		p.Loads = append(p.Loads, plan.Load{To: name, Count: 4, AtOnce: 2, Size: 100_000, Timeout: plan.Duration(time.Minute), Tries: 1})
	}
	r := virtual(t, p)
	if !r.OK() || len(r.Downloads) != 12 || len(r.Periods) < 4 {
		t.Errorf("%s\n%s", r, strings.Join(r.Trace(), "\n"))
	}
	t.Log(r)
}
