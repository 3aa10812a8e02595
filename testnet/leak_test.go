package testnet

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cage is a network namespace of which one wire leads to this machine, and counters of all that programs in it send.
type cage struct {
	name, host string // host is this machine's address on the wire
}

// sh runs a command, in the words of a shell.
func sh(t *testing.T, line string) (string, error) {
	t.Helper()
	out, err := exec.Command("sh", "-ec", line).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return string(out), err
}

// newCage makes a namespace that has ways out for IPv4 and IPv6, as a machine on the internet does.
func newCage(t *testing.T) *cage {
	pid := os.Getpid()
	c := &cage{name: fmt.Sprintf("peel%d", pid), host: fmt.Sprintf("10.%d.%d.1", 64+pid>>8&63, pid&255)}
	inside := strings.TrimSuffix(c.host, "1") + "2"
	if _, err := sh(t, "ip netns add "+c.name); err != nil {
		t.Skipf("notice: no network namespace can be made here, so leaks are not counted: %v", err)
	}
	t.Cleanup(func() { sh(t, "ip netns del "+c.name) })
	for _, line := range []string{
		"ip link add pl" + c.name + " type veth peer name wire netns " + c.name,
		"ip addr add " + c.host + "/30 dev pl" + c.name,
		"ip link set pl" + c.name + " up",
		"ip -n " + c.name + " link set lo up",
		"ip -n " + c.name + " addr add " + inside + "/30 dev wire",
		"ip -n " + c.name + " link set wire up",
		"ip -n " + c.name + " route add default via " + c.host,
		"ip -n " + c.name + " addr add fd70::2/64 dev wire nodad",
		"ip -n " + c.name + " -6 route add default via fd70::1",
		"ip -n " + c.name + " neigh add fd70::1 lladdr 02:00:00:00:00:01 dev wire", // or a packet would end as a question for a neighbour
	} {
		if _, err := sh(t, line); err != nil {
			t.Skipf("notice: no wire can be laid here, so leaks are not counted: %v", err)
		}
	}
	return c
}

// count begins to count the packets that leave: those to the door, those to the DNS port, and all others, but for what the kernel says
// to its neighbours, and Chromium does by mDNS, which no router hands on: that a name it drew by chance is its own.
func (c *cage) count(t *testing.T, door string) {
	_, port, _ := strings.Cut(door, ":")
	rules := `table inet leak {
	counter door {}
	counter dns {}
	counter leak_dns {}
	counter leak4 {}
	counter leak6 {}
	chain out {
		type filter hook output priority 0; policy accept;
		oifname "lo" accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld-listener-query, mld-listener-report, mld2-listener-report, mld-listener-done } accept
		ip daddr 224.0.0.0/24 accept
		ip6 daddr ff02::/16 accept
		ip daddr ` + c.host + ` tcp dport ` + port + ` counter name door accept
		ip daddr ` + c.host + ` meta l4proto { tcp, udp } th dport 53 counter name dns accept
		meta l4proto { tcp, udp } th dport 53 counter name leak_dns accept
		meta nfproto ipv4 counter name leak4 accept
		meta nfproto ipv6 counter name leak6 accept
	}
}`
	file := filepath.Join(t.TempDir(), "rules")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sh(t, "ip netns exec "+c.name+" nft -f "+file); err != nil {
		t.Skipf("notice: nftables does not work here, so leaks are not counted: %v", err)
	}
}

// packets are the counts up to now.
func (c *cage) packets(t *testing.T) map[string]int {
	out, err := sh(t, "ip netns exec "+c.name+" nft -j list counters")
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Nftables []struct {
			Counter struct {
				Name    string
				Packets int
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, e := range all.Nftables {
		if e.Counter.Name != "" {
			counts[e.Counter.Name] = e.Counter.Packets
		}
	}
	return counts
}

// While programs use the doors, no packet of theirs goes elsewhere: neither over IPv4 nor IPv6, and no question to another DNS server.
// Packets are counted, for some programs connect sockets that they send nothing on.
func TestNothingLeaks(t *testing.T) {
	if os.Getenv("PEEL_SLOW") != "1" {
		t.Skip("slow, and needs root: PEEL_SLOW=1 runs it")
	}
	if os.Getuid() != 0 {
		t.Skip("notice: only root can make a network namespace, so leaks are not counted")
	}
	needs(t, "ip", "nft", "getent", "curl")
	c := newCage(t)
	cfg := small
	cfg.Resolver = names{}
	h := newHouse(t, run(t, cfg), c.host, "53")
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver "+c.host+"\noptions timeout:20 attempts:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.within = []string{"ip", "netns", "exec", c.name, "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, resolv}
	c.count(t, h.door)
	for _, p := range programs {
		t.Run(p.name, func(t *testing.T) { p.try(t, h) })
	}
	h.must(t, farAddr.String(), nil, "", "getent", "ahostsv4", far) // by way of resolv.conf
	got := c.packets(t)
	t.Logf("packets: %v", got)
	if got["leak4"] != 0 || got["leak6"] != 0 || got["leak_dns"] != 0 || got["door"] < 100 || got["dns"] < 2 {
		t.Errorf("packets: %v", got)
	}
	// The counters see what goes past the doors.
	for _, args := range [][]string{
		{"--max-time", "1", "http://" + farAddr.String() + "/"}, {"--max-time", "1", "http://[2001:db8::1]/"}, {"--max-time", "1", "http://198.51.100.1:53/"},
	} {
		h.try(t, nil, "", "curl", args...)
	}
	seen := c.packets(t)
	for _, leak := range []string{"leak4", "leak6", "leak_dns"} {
		if seen[leak] == 0 {
			t.Errorf("a packet past the doors was not counted as %s: %v", leak, seen)
		}
	}
}
