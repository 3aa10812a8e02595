package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/circuit"
	"peel/cmd/peel/internal/conf"
	"peel/directory/dirtest"
	"peel/relay"
)

// residentMiB is what a process has of the machine's memory: in all, and of that what is its own, in MiB.
func residentMiB(t *testing.T, pid int) (all, own float64) {
	t.Helper()
	text := mustRead(t, fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		n, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "VmRSS:":
			all = n / 1024
		case "RssAnon:":
			own = n / 1024
		}
	}
	if all == 0 || own == 0 {
		t.Skip("this system does not say what memory a process has")
	}
	return all, own
}

// relayFiles writes into a folder all that the first relay of a directory of so many needs; change has its configuration before.
func relayFiles(t *testing.T, relays int, change func(*conf.Relay)) (n *dirtest.Net, f conf.Relay, dir string) {
	t.Helper()
	n, dir = dirtest.New(1, relays, dirtest.At(time.Now().UTC().Truncate(time.Second))), t.TempDir()
	d := &n.Relays[0]
	f = conf.Relay{
		Network: "network.toml", Keys: "keys", State: "state", Nickname: d.Descriptor.Nickname, Listen: []string{"127.0.0.1:" + freePort(t)},
		Advertise: []string{d.Descriptor.Addrs[0].String()}, Log: "info",
	}
	change(&f)
	text, err := n.Network.Encode()
	if err == nil {
		err = put(filepath.Join(dir, "network.toml"), string(text))
	}
	if err == nil {
		err = writeRelay(dir, f, relay.Keys{Identity: d.Identity, Link: d.Link, Onion: d.Onion, Made: time.Now()})
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "state"), 0o700)
	}
	if err == nil {
		err = put(filepath.Join(dir, "state", "consensus"), string(n.Text))
	}
	if err != nil {
		t.Fatal(err)
	}
	return n, f, dir
}

// A relay process that has a consensus of 100 relays and carries nothing has 25 MiB at most, and 10,000 circuits that carry nothing either take
// 80 MiB more at most. PEEL_SLOW=1.
func TestAnIdleRelayProcessIsSmall(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("takes ten seconds: PEEL_SLOW=1")
	}
	const circuits, links = 10_000, 20
	n, f, dir := relayFiles(t, 100, func(f *conf.Relay) { f.NoAddr, f.MaxCircuits = true, 2*circuits })
	d := &n.Relays[0]
	// The program as it is shipped: this one has all tests in it, and so more pages of files.
	program := filepath.Join(dir, "peel")
	if out, err := exec.CommandContext(t.Context(), "../../packaging/build", program).CombinedOutput(); err != nil {
		t.Skipf("the program cannot be built here: %v: %s", err, out)
	}
	r := startProgram(t, program, nil, "relay", "--config", filepath.Join(dir, "relay.toml"))
	r.says(t, 0, "relay starts")

	hop := circuit.Hop{
		ID: d.Descriptor.ID, LinkKey: cell.Key(d.Link.PublicKey().Bytes()), OnionKey: cell.Key(d.Onion.PublicKey().Bytes()),
		Addrs: []netip.AddrPort{netip.MustParseAddrPort(f.Listen[0])},
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	dial := func() *link.Conn {
		nc, err := net.Dial("tcp", f.Listen[0])
		if err != nil {
			t.Fatal(err)
		}
		lc, err := link.Dial(t.Context(), nc, &link.Config{Network: n.Network.ID()}, link.Peer{ID: hop.ID, Key: hop.LinkKey})
		if err != nil {
			t.Fatal(err)
		}
		serving.Go(func() { lc.Serve(nil) })
		return lc
	}
	build := func(lc *link.Conn, many int) {
		for range many {
			if _, err := circuit.Build(t.Context(), lc, circuit.Config{Network: n.Network.ID()}, []circuit.Hop{hop}); err != nil {
				t.Errorf("a circuit: %v", err)
				return
			}
		}
	}
	var open []*link.Conn
	defer func() {
		for _, lc := range open {
			lc.Close()
		}
	}()
	open = append(open, dial())
	build(open[0], 1) // what the first of all needs is there
	idle, own := residentMiB(t, r.cmd.Process.Pid)
	var building sync.WaitGroup
	for range links {
		lc := dial()
		open = append(open, lc)
		building.Go(func() { build(lc, circuits/links) })
	}
	building.Wait()
	if t.Failed() {
		return
	}
	after, ownAfter := residentMiB(t, r.cmd.Process.Pid)
	t.Logf("a relay with a consensus of 100 relays has %.1f MiB (%.1f of its own), with %d idle circuits on %d links %.1f (%.1f) more", idle, own, circuits, links, after-idle, ownAfter-own)
	if idle > 25 {
		t.Errorf("%.1f MiB at rest, want at most 25", idle)
	}
	if after-idle > 80 {
		t.Errorf("%d idle circuits take %.1f MiB, want at most 80", circuits, after-idle)
	}
}
