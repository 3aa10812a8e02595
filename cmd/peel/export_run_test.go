//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A process is one of a node, which ends with the test.
type process struct {
	name string
	args []string
}

// runAll runs the nodes until the test ends, and waits until the client in a folder is ready.
func runAll(t *testing.T, within []string, client string, all ...process) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended, started := make(chan string, len(all)), 0
	t.Cleanup(func() {
		cancel()
		for range started {
			if said := <-ended; t.Failed() {
				t.Log(said)
			}
		}
	})
	for _, p := range all {
		args := append(append([]string(nil), within...), p.args...)
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGKILL) } // nothing is kept
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
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
func fetch(t *testing.T, within []string, socks, url string) {
	t.Helper()
	args := append(append([]string(nil), within...), "get", url)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "PEEL_SOCKS="+socks)
	out, err := cmd.CombinedOutput()
	if want := "sha256 " + pageSum() + "\n"; err != nil || string(out) != want {
		t.Fatalf("%v: %q, want %q", err, out, want)
	}
}

// The commands of the units, in the folders as they are written, are a network.
func TestExportForSystemdRuns(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("a network of eight processes: PEEL_SLOW=1 runs it")
	}
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, webPage) }))
	defer s.Close()
	socks := "127.0.0.1:" + freePort(t)
	hosts := []string{"127.41.0.1", "127.42.0.1", "127.43.0.1"}
	dir := exportTo(t, "--systemd", "--authorities", "1", "--relays", "5", "--exits", "2", "--host", strings.Join(hosts, ","), "--port", freePort(t),
		"--socks", socks, "--period", "6s", "--exit", "accept 127.0.0.1:*")
	var all []process
	var client string
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
			unit, err := os.ReadFile(filepath.Join(dir, host, "peel-testnet-"+kind+"@.service"))
			if err != nil {
				t.Fatal(err)
			}
			_, line, _ := strings.Cut(string(unit), "\nExecStart=/usr/bin/")
			line, _, _ = strings.Cut(line, "\n")
			all = append(all, process{name, strings.Fields(strings.ReplaceAll(line, "/var/lib/peel-testnet/%i", own))})
			if kind == "client" {
				client = own
			}
		}
	}
	if len(all) != 7 {
		t.Fatalf("%d nodes", len(all))
	}
	runAll(t, nil, client, all...)
	fetch(t, nil, socks, s.URL)
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
	all := []process{{"web server", []string{"serve-page", "127.0.0.1:80"}}}
	for _, p := range pods(t, dir) {
		args := []string{"peel"}
		for _, a := range p.args {
			args = append(args, strings.ReplaceAll(a, "/var/lib/peel", p.dir))
		}
		all = append(all, process{p.name, args})
		if p.name == "client" {
			client = p.dir
		}
	}
	runAll(t, within, client, all...)
	fetch(t, within, "127.0.0.1:9250", "http://127.0.0.1/")
}
