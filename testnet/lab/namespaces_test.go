package lab

import (
	"net/netip"
	"os"
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
	p, s := small(), plan.Duration(time.Second)
	p.Authorities = 3
	p.Weathers = []plan.Weather{{Name: "windy", Map: 0.5, Jitter: plan.Duration(2 * time.Millisecond), Loss: 0.005, Rate: 2_500_000}}
	p.Weather, p.Voting = "windy", 2*s
	p.Events = append(p.Events,
		plan.Event{Do: plan.Limit, Node: "relay4", Rate: 500_000, At: s, For: 2 * s},
		plan.Event{Do: plan.Part, Nodes: []string{"relay5", "relay6"}, At: 4 * s, For: s},
		plan.Event{Do: plan.Change, Weather: plan.Calm, At: 6 * s})
	g := Namespaces(p).(*namespaces)
	r := real(t, Config{Plan: p, Ground: g})
	if c := g.Counts(); len(r.Downloads) != 16 || c.Lost == 0 || c.Unheard == 0 || c.Carried < 1000 {
		t.Errorf("%d downloads, %+v", len(r.Downloads), c)
	}
}
