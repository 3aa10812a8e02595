package main

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"peel/cmd/peel/internal/conf"
	"peel/testnet/lab"
	"peel/testnet/netns"
	"peel/testnet/plan"
	"peel/testnet/story"
)

// Nodes of a plan that are processes are killed, frozen and restarted, misbehave, and carry what they should all the same.
func TestANetworkOfProcessesBearsWhatAPlanSays(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("needs some seconds: set PEEL_SLOW=1 to run it")
	}
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux, which has all of 127.0.0.0/8")
	}
	p := plan.Default()
	s := plan.Duration(1e9)
	p.Name, p.Authorities, p.Relays, p.Length = "small", 4, plan.Relays{Count: 6, Exits: 3, Bandwidth: 20e6}, 7*s
	p.Services = []plan.Service{{Name: "web", Kind: "web"}, {Name: "sink", Kind: "sink"}}
	p.Loads = []plan.Load{{To: "web", Count: 12, AtOnce: 2, Size: 100_000, Tries: 20, Pause: s}, {To: "sink", Count: 4, Size: 50_000, Tries: 20, Pause: s}}
	p.Events = []plan.Event{
		{Do: plan.Kill, Node: "relay1", At: s, For: 2 * s}, {Do: plan.Freeze, Node: "relay2", At: 2 * s, For: 2 * s}, {Do: plan.Restart, Node: "relay3", At: 3 * s},
		{Do: plan.Kill, Node: "authority4", At: 3 * s, For: 2 * s},
	}
	if os.Geteuid() == 0 {
		p.Kept = true
		p.Events = append(p.Events, plan.Event{Do: plan.Fill, Node: "authority2", At: s, For: 3 * s})
	}
	p.Villains = []plan.Villain{{Node: "authority3", Script: "stale"}, {Node: "client1", Script: "circles"}}
	p.Period, p.Voting = 6*s, 3*s
	p.Expect.MissedPeriods, p.Expect.Deeds = 100, 1 // of which a busy machine may miss some
	p.Fill()
	runPlan(t, groundProcesses, p, ", complete 100.00 %")
}

// Who looks at a network of processes sees the circuits of its clients, through three of its relays, and more and more that they carry.
func TestANetworkOfProcessesIsSeenAtWork(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("needs some seconds: set PEEL_SLOW=1 to run it")
	}
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux, which has all of 127.0.0.0/8")
	}
	p := plan.Default()
	p.Name, p.Authorities, p.Relays, p.Length = "seen", 3, plan.Relays{Count: 5, Exits: 2, Bandwidth: 20e6}, plan.Duration(10*time.Minute)
	p.Services = []plan.Service{{Name: "web", Kind: "web"}}
	p.Loads = []plan.Load{{To: "web", Count: 1_000_000, AtOnce: 2, Size: 100_000, Pause: plan.Duration(200 * time.Millisecond)}}
	p.Fill()
	dir, file := planFile(t, p)
	report := filepath.Join(dir, "seen.html")
	cmd := exec.CommandContext(t.Context(), "peel", "testnet", "run", "--ground", groundProcesses, "--web", "127.0.0.1:0", "--report", report, file)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	var said, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &complaints // so that Wait waits for all processes
	link := func() (string, bool) {
		urls, _ := filepath.Glob(filepath.Join(dir, "peel-testnet-*", windowFile))
		if len(urls) == 0 {
			return "", false
		}
		text, err := os.ReadFile(urls[0])
		return strings.TrimSpace(string(text)), err == nil && len(text) > 0
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}()
	first := make(map[string]uint64) // cells that a circuit had brought when it was seen first
	var v story.Snapshot
	seen := eventually(func() bool {
		at, there := link()
		if !there {
			return false
		}
		l, err := newLooker(at)
		if err != nil {
			t.Fatalf("%q: %v", at, err)
		}
		if v, err = l.look(t.Context()); err != nil {
			return false
		}
		relay := func(name string) bool {
			return slices.ContainsFunc(v.Nodes, func(n story.Node) bool { return n.Name == name && n.Role == story.Relay && n.State == story.Up })
		}
		for _, c := range v.Circuits {
			if c.Client != "client1" || len(c.Path) != 3 || !relay(c.Path[0]) || !relay(c.Path[1]) || !relay(c.Path[2]) {
				continue
			}
			if before, there := first[c.Key]; !there {
				first[c.Key] = c.Received
			} else if c.Received > before+50 && c.In > 0 && slices.Max(v.Series.In) > 0 {
				return true
			}
		}
		return false
	})
	cmd.Process.Signal(os.Interrupt)
	err := cmd.Wait()
	if !seen {
		t.Fatalf("no circuit was seen to carry something: %+v; it ended with %v and said\n%s%s", v.Circuits, err, &said, &complaints)
	}
	if text, err := os.ReadFile(report); err != nil || !bytes.Contains(text, []byte(`"key":"client1/`)) {
		t.Errorf("its report shows no circuit: %v, %d bytes", err, len(text))
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "peel-lab-*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// Nodes that are processes on machines of their own bear weather as well, and a divided network.
func TestANetworkOfNamespacesBearsWhatAPlanSays(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("needs half a minute, and root: PEEL_SLOW=1 runs it")
	}
	needsNamespaces(t)
	p, s := plan.Default(), plan.Duration(1e9)
	p.Name, p.Authorities, p.Relays, p.Length = "spaces", 3, plan.Relays{Count: 6, Exits: 3}, 8*s
	p.Weathers = []plan.Weather{{Name: "windy", Map: 0.5, Jitter: plan.Duration(2e6), Loss: 0.005, Rate: 2_500_000}}
	p.Weather, p.Voting = "windy", 2*s
	p.Services = []plan.Service{{Name: "web", Kind: "web"}, {Name: "sink", Kind: "sink"}}
	p.Loads = []plan.Load{{To: "web", Count: 12, AtOnce: 2, Size: 100_000, Tries: 20}, {To: "sink", Count: 4, AtOnce: 1, Size: 50_000, Tries: 20}}
	p.Events = []plan.Event{
		{Do: plan.Kill, Node: "relay1", At: s, For: 2 * s}, {Do: plan.Freeze, Node: "relay2", At: 2 * s, For: 2 * s}, {Do: plan.Restart, Node: "relay3", At: 3 * s},
		{Do: plan.Limit, Node: "relay4", Rate: 500_000, At: s, For: 2 * s}, {Do: plan.Part, Nodes: []string{"relay5", "relay6"}, At: 4 * s, For: s},
		{Do: plan.Freeze, Node: "sink", At: s, For: s}, {Do: plan.Change, Weather: plan.Calm, At: 6 * s},
	}
	p.Expect.MissedPeriods = 100 // of which a busy machine may miss some
	p.Fill()
	out := runPlan(t, groundNamespaces, p, "downloads: 16, complete 100.00 %")
	if m := regexp.MustCompile(`packets: ([0-9]+) arrived, ([0-9]+) were lost, [0-9]+ dropped by full queues, ([0-9]+) unheard`).FindStringSubmatch(out); m == nil ||
		len(m[1]) < 4 || m[2] == "0" || m[3] == "0" {
		t.Errorf("packets did not meet the weather: %s", out)
	}
}

// As few nodes as make a network, for a few seconds: so little that the race detector can see all of it.
func TestTheLeastNetworkOfProcesses(t *testing.T) {
	if os.Getenv("PEEL_RACE") == "" {
		t.Skip("needs some seconds, and is for the race detector: set PEEL_RACE=1 to run it")
	}
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux, which has all of 127.0.0.0/8")
	}
	p, s := plan.Default(), plan.Duration(1e9)
	p.Name, p.Authorities, p.Relays, p.Length = "least", 1, plan.Relays{Count: 4, Exits: 2}, 2*s
	p.Services = []plan.Service{{Name: "web", Kind: "web"}}
	p.Loads = []plan.Load{{To: "web", Count: 2, AtOnce: 2, Size: 50_000, Tries: 20}}
	p.Events = []plan.Event{{Do: plan.Kill, Node: "relay1", For: s}, {Do: plan.Freeze, Node: "relay2", At: s, For: s}, {Do: plan.Restart, Node: "relay3", At: s}}
	p.Villains = []plan.Villain{{Node: "relay4", Script: "lie"}}
	p.Expect.MissedPeriods = 100 // of which a busy machine may miss some
	p.Fill()
	for _, ground := range []string{groundProcesses, groundNamespaces} {
		t.Run(ground, func(t *testing.T) {
			t.Parallel()
			if ground == groundNamespaces {
				needsNamespaces(t)
			}
			runPlan(t, ground, p, "downloads: 2, complete 100.00 %")
		})
	}
}

func needsNamespaces(t *testing.T) {
	t.Helper()
	space, err := netns.NewSpace(netip.MustParseAddr("10.1.0.1"))
	if err != nil {
		t.Skipf("notice: network namespaces cannot be had here, so no plan is run in them: %v", err)
	}
	space.Close()
}

// However a network of namespaces ends, its processes do, and with them its namespaces, which have no names.
func TestNothingIsLeftOfANetworkOfNamespaces(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("needs some seconds, and root: PEEL_SLOW=1 runs it")
	}
	needsNamespaces(t)
	for _, with := range []os.Signal{os.Interrupt, os.Kill} {
		t.Run(with.String(), func(t *testing.T) {
			dir, err := os.MkdirTemp("", "peel-") // with a name that is short enough for sockets
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			cmd := exec.CommandContext(t.Context(), "peel", "testnet", "run", "-q", "--ground", groundNamespaces, "rolling-restart")
			cmd.Env = append(os.Environ(), "TMPDIR="+dir)
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			started := eventually(func() bool {
				sockets, _ := filepath.Glob(filepath.Join(dir, "peel-lab-*", "*", "state", "admin.sock"))
				return len(sockets) == 14
			})
			spaces := spacesOf(t, dir)
			cmd.Process.Signal(with)
			cmd.Wait()
			if !started || len(spaces) != 14 {
				t.Fatalf("%d of 14 nodes were in namespaces of their own: %s", len(spaces), &said)
			}
			if !eventually(func() bool { return len(spacesOf(t, dir)) == 0 }) {
				t.Errorf("processes are left: %v", spacesOf(t, dir))
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "peel-*")); with == os.Interrupt && len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

// eventually waits for something, for as long as a busy machine may take to start many processes; false: it was not.
func eventually(is func() bool) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Minute); !is(); <-tick.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// spacesOf are the namespaces in which processes are that were started with a word.
func spacesOf(t *testing.T, word string) (all []string) {
	t.Helper()
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		text, err := os.ReadFile(l)
		if err != nil || len(text) == 0 || !strings.Contains(string(text), word) {
			continue // it is gone, or another's
		}
		if in, err := os.Readlink(filepath.Join(filepath.Dir(l), "ns", "net")); err == nil && in != home && !slices.Contains(all, in) {
			all = append(all, in)
		}
	}
	return all
}

// planFile writes a plan into a folder of its own, with a name that is short enough for sockets.
func planFile(t *testing.T, p *plan.Plan) (dir, file string) {
	t.Helper()
	text, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if dir, err = os.MkdirTemp("", "peel-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file = filepath.Join(dir, "plan.toml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

// runPlan runs a plan by the verb, and wants something said in the end.
func runPlan(t *testing.T, ground string, p *plan.Plan, want string) string {
	t.Helper()
	dir, file := planFile(t, p)
	cmd := exec.CommandContext(t.Context(), "peel", "testnet", "run", "-q", "--ground", ground, file)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	var errs bytes.Buffer
	cmd.Stderr = &errs // so that Wait waits for all processes
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v\n%s%s", err, out, errs.String())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "peel-lab-*")); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	return string(out)
}

func TestWhatProcessesCannotDoIsRefused(t *testing.T) {
	how, err := thisProgram()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		do   func(*plan.Plan)
		want string
	}{
		{func(p *plan.Plan) { p.Weather = "fair" }, `weather "fair"`},
		{func(p *plan.Plan) { p.Events = []plan.Event{{Do: plan.Change, Weather: "bad"}} }, `event "weather"`},
		{func(p *plan.Plan) { p.Events = []plan.Event{{Do: plan.Part, Node: "relay1"}} }, `event "part"`},
		{func(p *plan.Plan) { p.Events = []plan.Event{{Do: plan.Limit, Node: "relay1", Rate: 1000}} }, `event "limit"`},
		{func(p *plan.Plan) { p.Events = []plan.Event{{Do: plan.Freeze, Node: "web"}} }, "of the service web"},
		{func(p *plan.Plan) { p.Events = []plan.Event{{Do: plan.Skew, Node: "authority1", By: 1e9}} }, "the machine's clock"},
		{func(p *plan.Plan) {
			p.Kept, p.Events = true, []plan.Event{{Do: plan.Slow, Node: "relay1", By: 1e9}}
		}, "use --ground virtual or loopback"},
		{func(p *plan.Plan) { p.Events = []plan.Event{{Do: plan.Corrupt, Node: "relay1", Script: "tag"}} }, "use [[villain]]"},
		{func(p *plan.Plan) { p.Villains = []plan.Villain{{Node: "authority1", Script: "equivocate"}} }, "one face"},
	} {
		p := plan.Default()
		p.Services = []plan.Service{{Name: "web", Kind: "web"}}
		c.do(p)
		p.Fill()
		_, err := lab.New(lab.Config{Plan: p, Ground: lab.Apart(p), Processes: how, Dir: t.TempDir()})
		if err == nil || runtime.GOOS == "linux" && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// What a plan says of bandwidth is what a relay reads in its file, or is refused before anything is started.
func TestARelaysProcessReadsItsBandwidth(t *testing.T) {
	for _, n := range []uint64{1000, 1001, 1_234_567, 1_000_000_000, 40_000_000_000} {
		if got, err := conf.ParseRate(rateText(n)); got > n || got+1 < n || err != nil { // a byte is lost in rounding
			t.Errorf("%d became %s, and %d: %v", n, rateText(n), got, err)
		}
	}
	for _, c := range []struct {
		all, one plan.Bytes
		want     string
	}{
		{0, 0, ""}, {1000, 1e9, ""}, {500, 0, `bandwidth of [relays]: "0.5 kB/s": must be a rate of at least 1 kB/s`}, {0, 999, "bandwidth of relay2"},
	} {
		p := plan.Default()
		p.Relays.Bandwidth, p.Relay = c.all, []plan.Relay{{Name: "relay2", Bandwidth: c.one}}
		p.Fill()
		if err := checkRates(p); (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// A process misbehaves as its hidden flag says, as far as a process can (that it does so in test networks only, relay sees to).
func TestAProcessMisbehavesAsItCan(t *testing.T) {
	for role, script := range map[string]string{"relay": "tag", "authority": "lie"} {
		bad := misdeeds{script: script}
		if v, err := bad.villain(role); v == nil || err != nil {
			t.Errorf("%s=%s: %v", role, script, err)
		}
		bad.script = "equivocate"
		if _, err := bad.villain(role); err == nil {
			t.Errorf("a process that is a %s has two faces", role)
		}
	}
}
