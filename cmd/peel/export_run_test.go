//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"peel/testnet/bench"
	"peel/testnet/memnet"
	"peel/testnet/netns"
)

// A process is one of a node, which ends with the test.
type process struct {
	name string
	on   *netns.Space // nil: here
	args []string
}

// startOn starts a command on a machine; nil: here.
func startOn(on *netns.Space, cmd *exec.Cmd) error {
	if on != nil {
		return on.Start(cmd)
	}
	return cmd.Start()
}

// runAll runs the nodes until the test ends, and waits until the client in a folder is ready.
func runAll(t *testing.T, client string, all ...process) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended, started := make(chan string, len(all)), 0
	runtime.LockOSThread() // with which the processes end
	t.Cleanup(func() {
		defer runtime.UnlockOSThread()
		cancel()
		for range started {
			if said := <-ended; t.Failed() {
				t.Log(said)
			}
		}
	})
	for _, p := range all {
		cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
		bench.EndWithParent(cmd)
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := startOn(p.on, cmd); err != nil {
			t.Fatal(err)
		}
		started++
		go func() {
			err := cmd.Wait()
			ended <- fmt.Sprintf("%s: %v: %s", p.name, err, log.Bytes()[max(0, log.Len()-2000):])
		}()
	}
	ready := exec.Command("wait-for", filepath.Join(client, "state", "admin.sock"))
	if out, err := ready.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for try := 0; ; try++ { // a minute each
		out, err := exec.Command("wait-ready", filepath.Join(client, "state", "admin.sock")).CombinedOutput()
		if err == nil {
			return
		}
		if try == 2 {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// fetch gets the page of the scripts through a client's port.
func fetch(t *testing.T, on *netns.Space, within []string, socks, url string) {
	t.Helper()
	args := append(append([]string(nil), within...), "get", url)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "PEEL_SOCKS="+socks)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := startOn(on, cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if want := "sha256 " + pageSum() + "\n"; err != nil || out.String() != want {
		t.Fatalf("%v: %q, want %q", err, &out, want)
	}
}

// machines are network namespaces at addresses, joined by lines with a delay; nil: there are none here. web serves the page of the scripts.
func machines(t *testing.T, web string, hosts ...string) map[string]*netns.Space {
	n, all := netns.New(1), make(map[string]*netns.Space)
	n.SetWays(func(_, _ netip.Addr) memnet.Way {
		return memnet.Way{Delay: 10 * time.Millisecond, Jitter: time.Millisecond}
	})
	for _, host := range append(hosts, web) {
		s, err := netns.NewSpace(netip.MustParseAddr(host))
		if err != nil {
			t.Logf("notice: what is exported for systemd is run over loopback: %v", err)
			return nil
		}
		t.Cleanup(func() { s.Close() })
		if err := n.Add(s.Addr(), s.Wire()); err != nil {
			t.Fatal(err)
		}
		if host == web {
			l, err := s.Listen(netip.AddrPortFrom(s.Addr(), 80))
			if err != nil {
				t.Fatal(err)
			}
			webAt(t, l)
		}
		all[host] = s
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if c := n.Counts(); !t.Failed() && c.Carried < 1000 {
			t.Errorf("the network did not go over the lines: %+v", c)
		}
	})
	return all
}

// webAt serves the page of the scripts until the test ends.
func webAt(t *testing.T, l net.Listener) {
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, webPage) })}
	ended := make(chan error)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		<-ended
	})
}

// The commands of the units, in the folders as they are written, are a network: each host a machine of its own, where such can be had, and
// an address of loopback else.
func TestExportForSystemdRuns(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("a network of eight processes: PEEL_SLOW=1 runs it")
	}
	t.Parallel()
	hosts, web := []string{"10.41.0.1", "10.42.0.1", "10.43.0.1"}, "10.44.0.1:80"
	on := machines(t, "10.44.0.1", hosts...)
	if on == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		webAt(t, l)
		hosts, web = []string{"127.41.0.1", "127.42.0.1", "127.43.0.1"}, l.Addr().String()
	}
	socks := "127.0.0.1:" + freePort(t)
	dir := exportTo(t, "--systemd", "--authorities", "1", "--relays", "5", "--exits", "2", "--host", strings.Join(hosts, ","), "--port", freePort(t),
		"--socks", socks, "--period", "6s", "--exit", "accept "+strings.Split(web, ":")[0]+":*")
	var all []process
	var client, clientHost string
	for _, host := range hosts {
		folders, err := os.ReadDir(filepath.Join(dir, host))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range folders {
			if !f.IsDir() {
				continue
			}
			name, own := f.Name(), filepath.Join(dir, host, f.Name())
			kind := strings.TrimRight(name, "0123456789")
			unit := mustRead(t, filepath.Join(dir, host, "peel-testnet-"+kind+"@.service"))
			_, line, _ := strings.Cut(string(unit), "\nExecStart=/usr/bin/")
			line, _, _ = strings.Cut(line, "\n")
			all = append(all, process{name, on[host], strings.Fields(strings.ReplaceAll(line, "/var/lib/peel-testnet/%i", own))})
			if kind == "client" {
				client, clientHost = own, host
			}
		}
	}
	if len(all) != 7 {
		t.Fatalf("%d nodes", len(all))
	}
	runAll(t, client, all...)
	fetch(t, on[clientHost], nil, socks, "http://"+web+"/")
}

// The nodes as Kubernetes would start them, at the addresses of their services, are a network: all in one network namespace.
func TestExportForKubernetesRuns(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("a network of eight processes: PEEL_SLOW=1 runs it")
	}
	if os.Getuid() != 0 {
		t.Skip("notice: only root can make a network namespace: what is exported for Kubernetes is not run")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("notice: ip is not here: what is exported for Kubernetes is not run")
	}
	t.Parallel()
	space := fmt.Sprintf("peelk%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", space).CombinedOutput(); err != nil {
		t.Skipf("notice: no network namespace can be made here: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", space).Run() })
	within := []string{"ip", "netns", "exec", space}
	lines := []string{"link set lo up"}
	for i := range 6 {
		lines = append(lines, fmt.Sprintf("addr add 10.43.0.%d/32 dev lo", 100+i))
	}
	for _, l := range lines {
		if out, err := exec.Command("ip", append([]string{"-n", space}, strings.Fields(l)...)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", l, err, out)
		}
	}
	dir := exportTo(t, "--kubernetes", "--authorities", "1", "--relays", "5", "--exits", "2", "--address", "10.43.0.100", "--period", "6s", "--exit", "accept 127.0.0.1:*")
	var client string
	all := []process{{"web server", nil, append(slices.Clone(within), "serve-page", "127.0.0.1:80")}}
	for _, p := range pods(t, dir) {
		args := append(slices.Clone(within), "peel")
		for _, a := range p.args {
			args = append(args, strings.ReplaceAll(a, "/var/lib/peel", p.dir))
		}
		all = append(all, process{p.name, nil, args})
		if p.name == "client" {
			client = p.dir
		}
	}
	runAll(t, client, all...)
	fetch(t, nil, within, "127.0.0.1:9250", "http://127.0.0.1/")
}
