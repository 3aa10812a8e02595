package lab

import (
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"peel/testnet/netns"
	"peel/testnet/plan"
)

// needsNamespaces skips a test where network namespaces cannot be had.
func needsNamespaces(t *testing.T) {
	t.Helper()
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("needs half a minute, and root: PEEL_SLOW=1 runs it")
	}
	s, err := netns.NewSpace(netip.AddrFrom4([4]byte{10, 1, 0, 1}))
	if err != nil {
		t.Skipf("notice: network namespaces cannot be had here, so no plan is run in them: %v", err)
	}
	s.Close()
}

// A plan with weather, and with all that can befall nodes, runs to its end between real kernels.
func TestANetworkOfNamespacesBearsWhatAPlanSays(t *testing.T) {
	needsNamespaces(t)
	p, s := plan.Default(), plan.Duration(time.Second)
	p.Name, p.Authorities, p.Relays, p.Length = "spaces", 3, plan.Relays{Count: 6, Exits: 3}, 7*s
	p.Weathers = []plan.Weather{{Name: "windy", Map: 0.5, Jitter: plan.Duration(2 * time.Millisecond), Loss: 0.005, Rate: 2_500_000}}
	p.Weather, p.Period, p.Voting = "windy", 5*s, 2*s
	p.Services = []plan.Service{{Name: "web", Kind: "web"}, {Name: "sink", Kind: "sink"}}
	p.Loads = []plan.Load{{To: "web", Count: 10, AtOnce: 2, Size: 100_000, Tries: 8}, {To: "sink", Count: 4, Size: 50_000, Tries: 8}}
	p.Events = []plan.Event{
		{Do: plan.Kill, Node: "relay1", At: s, For: 2 * s},
		{Do: plan.Freeze, Node: "relay2", At: 2 * s, For: s},
		{Do: plan.Restart, Node: "relay3", At: 3 * s},
		{Do: plan.Limit, Node: "relay4", Rate: 500_000, At: s, For: 2 * s},
		{Do: plan.Part, Nodes: []string{"relay5", "relay6"}, At: 4 * s, For: s},
		{Do: plan.Change, Weather: plan.Calm, At: 6 * s},
	}
	p.Expect.MissedPeriods = 100 // of which a busy machine may miss some
	p.Fill()
	var mu sync.Mutex
	var lines []string
	g := Namespaces(p).(*namespaces)
	l, err := New(Config{Plan: p, Ground: g, Progress: func(s string) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, s)
	}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := g.Counts()
	t.Logf("%s\n%+v", r, c)
	if !r.OK() || len(r.Downloads) != 14 || c.Carried == 0 || c.Lost == 0 {
		t.Error(strings.Join(lines, "\n"))
	}
}
