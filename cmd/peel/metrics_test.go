package main

import (
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"peel/client"
	"peel/cmd/peel/internal/admin"
	"peel/directory/authority"
	"peel/relay"
	"peel/testnet"
	"peel/testnet/villain"
)

// windows are what a relay, an authority and a client show, each with the node behind it; none runs.
func windows(t *testing.T) map[string]*admin.Server {
	t.Helper()
	return windowsOf(t, func(kind string) admin.Config { return admin.Config{Kind: kind} })
}

func windowsOf(t *testing.T, config func(kind string) admin.Config) map[string]*admin.Server {
	t.Helper()
	l, err := testnet.Plan("local", testnet.Size{Authorities: 1, Relays: 3, Exits: 1}, func(i int) (netip.AddrPort, error) {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(9001+i)), nil
	}, time.Time{}, 5*time.Second, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	listen := func() []net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return []net.Listener{l}
	}
	all := make(map[string]*admin.Server)
	for _, kind := range []string{"relay", "authority", "client"} {
		s, err := admin.Open(config(kind))
		if err != nil {
			t.Fatal(err)
		}
		all[kind] = s
	}
	r, err := relay.New(relay.Config{Network: l.Network, Keys: l.Relays[0].Keys, Nickname: "relay1", Listeners: listen()})
	if err != nil {
		t.Fatal(err)
	}
	relayView(all["relay"], r)
	first := &l.Authorities[0]
	a, err := relay.NewAuthority(relay.Config{Network: l.Network, Keys: relay.Keys{Link: first.Link}, Listeners: listen()},
		authority.Config{Certificate: first.Certificate, SigningKey: first.Signing, PrivateAddrs: true, Params: l.Params()})
	if err != nil {
		t.Fatal(err)
	}
	authorityView(all["authority"], a)
	c, err := client.New(client.Config{Network: l.Network})
	if err != nil {
		t.Fatal(err)
	}
	clientWindow(all["client"], c)
	return all
}

// metricNames are those of all kinds of node.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	for _, s := range windows(t) {
		for _, m := range s.Metrics() {
			names[m.Name] = true
		}
	}
	if len(names) < 20 {
		t.Fatalf("only %d metrics: is this all?", len(names))
	}
	return names
}

var inText = regexp.MustCompile(`\bpeel_[a-z0-9_]+`)

func TestEveryMetricIsDocumented(t *testing.T) {
	const page = "../../docs/metrics.md"
	text := mustRead(t, page)
	names, said := metricNames(t), make(map[string]bool)
	bad, err := admin.Open(admin.Config{Kind: "relay"})
	if err != nil {
		t.Fatal(err)
	}
	(&misdeeds{mind: villain.NewMind(1, nil)}).window(bad)
	for _, m := range bad.Metrics() {
		names[m.Name] = true
	}
	for _, name := range inText.FindAllString(string(text), -1) {
		said[name] = true
		if !names[name] {
			t.Errorf("%s speaks of %s, which no node has", page, name)
		}
	}
	for name := range names {
		if !said[name] {
			t.Errorf("%s says nothing of %s: give it a row", page, name)
		}
	}
}

// What the makers of Prometheus ask of metrics, and what our own rules are: nothing names anybody.
func TestMetricsAreInOrder(t *testing.T) {
	for kind, s := range windows(t) {
		families, err := s.Gatherer().Gather()
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		problems, err := promlint.NewWithMetricFamilies(families).Lint()
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s: %s", kind, p.Metric, p.Text)
		}
		for _, m := range s.Metrics() {
			traffic := strings.HasSuffix(m.Name, "_total") && !slices.Contains([]string{"peel_relay_panics_total", "peel_client_panics_total", "peel_relay_unwritten_total", "peel_client_unwritten_total"}, m.Name)
			if traffic && m.Round < 8 {
				t.Errorf("%s: what people do shows in it: rounded to %v", m.Name, m.Round)
			}
			if m.Round > 0 && !strings.Contains(m.Help, "ounded") {
				t.Errorf("%s: the help does not say that it is rounded", m.Name)
			}
		}
	}
}

// Dashboards and alerts speak of metrics that there are.
func TestDashboardsAndAlertsNameMetricsThatThereAre(t *testing.T) {
	names := metricNames(t)
	var files []string
	for _, pattern := range []string{"../../packaging/grafana/*.json", "../../packaging/prometheus/*.yml"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v: none there", pattern, err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		text := mustRead(t, file)
		named := 0
		for _, name := range inText.FindAllString(string(text), -1) {
			base := name
			for _, of := range []string{"_bucket", "_count", "_sum"} {
				if cut, ok := strings.CutSuffix(name, of); ok && names[cut] {
					base = cut
				}
			}
			if named++; !names[base] {
				t.Errorf("%s names %s, which no node has", file, name)
			}
		}
		if named < 5 {
			t.Errorf("%s names %d metrics: is the check broken?", file, named)
		}
	}
}
