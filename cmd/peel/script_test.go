package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/net/proxy"

	"peel/cmd/peel/internal/admin"
	"peel/cmd/peel/internal/sealed"
)

// webPage is what the scripts' web server gives.
var webPage = strings.Repeat("through three hops\n", 1<<16)

func pageSum() string { return fmt.Sprintf("%x", sha256.Sum256([]byte(webPage))) }

func TestMain(m *testing.M) {
	// Most of the time the scripts wait for networks to have their first consensus.
	flag.Set("test.parallel", strconv.Itoa(max(6, runtime.GOMAXPROCS(0))))
	testscript.Main(m, map[string]func(){
		"peel":        program,
		"flooder":     flooder,
		"get":         get,
		"wait-for":    waitFor,
		"wait-ready":  waitReady,
		"wait-says":   waitSays,
		"inside":      inside,
		"notified":    notified,
		"serve-page":  servePage,
		"two-signals": twoSignals,
	})
}

// program is ours; with CHEAP_SEALS it takes little to seal and open what it makes, for scripts that do so often.
func program() {
	if os.Getenv("CHEAP_SEALS") != "" {
		sealed.Usual = sealed.Least
	}
	main()
}

// late is when something does not come any more, on however busy a machine.
const late = 5 * time.Minute

// underRace says that the race detector makes everything five to ten times as slow.
var underRace bool

// waitFor waits until files are there.
func waitFor() {
	end := time.Now().Add(late)
	for _, name := range os.Args[1:] {
		for {
			if _, err := os.Lstat(name); err == nil {
				break
			}
			if time.Now().After(end) {
				fmt.Fprintln(os.Stderr, "wait-for: no", name)
				os.Exit(1)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// waitReady waits until the node of a socket says that it is ready.
func waitReady() {
	a, err := admin.NewAsker(os.Args[1])
	for end := time.Now().Add(late); err == nil; time.Sleep(10 * time.Millisecond) {
		if _, err = a.Get(context.Background(), "/readyz"); err == nil {
			return
		}
		if time.Now().Before(end) {
			err = nil
		}
	}
	fmt.Fprintln(os.Stderr, "wait-ready:", err)
	os.Exit(1)
}

// waitSays waits until a page of a node's socket has what an expression means.
func waitSays() {
	a, err := admin.NewAsker(os.Args[1])
	want := regexp.MustCompile(os.Args[3])
	var page []byte
	for end := time.Now().Add(late); err == nil && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if page, err = a.Get(context.Background(), os.Args[2]); want.Match(page) {
			return
		}
	}
	fmt.Fprintf(os.Stderr, "wait-says: %v: %s", err, page)
	os.Exit(1)
}

// get fetches a URL through the SOCKS5 port that PEEL_SOCKS names, or without one, and prints the SHA-256 of what came.
func get() {
	err := func() error {
		if len(os.Args) != 2 {
			return errors.New("usage: get URL")
		}
		d, err := proxy.SOCKS5("tcp", os.Getenv("PEEL_SOCKS"), nil, proxy.Direct)
		if err != nil {
			return err
		}
		c := http.Client{Transport: &http.Transport{DialContext: d.(proxy.ContextDialer).DialContext}}
		if os.Getenv("PEEL_SOCKS") == "" {
			c.Transport = nil
		}
		r, err := c.Get(os.Args[1])
		if err != nil {
			return err
		}
		defer r.Body.Close()
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err != nil {
			return err
		}
		fmt.Printf("sha256 %x\n", h.Sum(nil))
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "get:", err)
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, webPage) }))
	t.Cleanup(s.Close) // the scripts run in parallel, after this function
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("URL", s.URL)
			e.Setenv("SUM", pageSum())
			e.Setenv("PORT", freePort(t))
			e.Setenv("TAKEN", taken.Addr().String())
			e.Setenv("AUTHORITIES", "4")
			if underRace { // which leaves four of them too little time to agree in
				e.Setenv("AUTHORITIES", "1")
			}
			return nil
		},
	})
}

// freePort is a port that no address of this machine has in use, and that none is given unasked: what the scripts start with it
// finds it free later, whatever goes on beside them.
func freePort(t testing.TB) string {
	for range 1000 {
		port := strconv.Itoa(10000 + rand.IntN(20000)) // systems give those from 32768 on
		if _, taken := portsGiven.LoadOrStore(port, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", ":"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

var portsGiven sync.Map

// The README's commands for a network of separate processes are run as they stand there, but for the ports, which may be
// taken on this machine, and for the waiting that a person would do.
func TestReadmeProcesses(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the README's commands are for a Unix shell")
	}
	for _, program := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs ", program)
		}
	}
	t.Parallel()
	start, use := readmeCommands(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, webPage) }))
	defer s.Close()
	port := freePort(t)
	more := " --port " + freePort(t) + " --socks 127.0.0.1:" + port
	if underRace { // which leaves 14 processes too little time to vote in
		more += " --period 20s"
	}
	start = replace(t, start, "init network net", "init network net"+more)
	use = replace(t, use, ":9250", ":"+port)
	use = replace(t, use, "http://127.0.0.1:8000/", s.URL)

	dir := t.TempDir()
	sh := exec.Command("sh", "-c", start)
	sh.Dir = dir
	ownGroup(sh)
	out, err := sh.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	sh.Stderr = &errs
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ready := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == "ready: socks5://127.0.0.1:"+port {
				ready <- true
			}
		}
		close(ready)
		ended <- sh.Wait()
	}()
	defer func() {
		endGroup(sh)
		<-ended
		if t.Failed() {
			t.Log(errs.String())
		}
	}()
	select {
	case ok := <-ready:
		if !ok {
			t.Fatal("the client ended before it was ready")
		}
	case <-time.After(late):
		t.Fatalf("the client was not ready after %v", late)
	}
	curl := exec.Command("sh", "-c", use)
	got, err := curl.Output()
	if err != nil || string(got) != webPage {
		t.Fatalf("%s: %v, %d bytes instead of %d", use, err, len(got), len(webPage))
	}
}

// A command's end becomes ours, as a shell would tell it.
func TestCommandStatus(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs a Unix shell")
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want int
	}{
		{"success", []string{sh, "-c", "exit 0"}, 0},
		{"its own status", []string{sh, "-c", "exit 7"}, 7},
		{"ended by a signal", []string{sh, "-c", "kill -9 $$"}, 137},
		{"no such program", []string{"no-such-program-here"}, 127},
		{"no such file", []string{"/no/such/file"}, 127},
		{"not a program", []string{plain}, 126},
	} {
		err := commandStatus(c.args[0], exec.Command(c.args[0], c.args[1:]...).Run())
		got := 0
		var e *exitError
		if errors.As(err, &e) {
			got = e.code
		} else if err != nil {
			got = -1
		}
		if got != c.want {
			t.Errorf("%s: status %d (%v), want %d", c.name, got, err, c.want)
		}
	}
}

// Ctrl-C ends the network, whatever it is doing, without a complaint and without a trace.
func TestInterrupt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs signals")
	}
	t.Parallel()
	for _, c := range []struct{ name, at string }{{"while it starts", "(start)"}, {"when it is ready", "ready: "}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			cmd := exec.Command("peel", "testnet", "--authorities", "1", "--relays", "3", "--exits", "1", "--socks", "127.0.0.1:0")
			cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var errs bytes.Buffer
			cmd.Stderr = &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			seen := false
			for !seen && lines.Scan() {
				seen = strings.Contains(lines.Text(), c.at)
			}
			interrupted := time.Now()
			cmd.Process.Signal(os.Interrupt)
			for lines.Scan() {
			}
			if err := cmd.Wait(); err != nil || !seen || errs.Len() > 0 {
				t.Errorf("%v, seen %q: %v: %s", err, c.at, seen, errs.String())
			}
			t.Logf("ended %v after the interrupt", time.Since(interrupted))
			if left, _ := os.ReadDir(tmp); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// readmeCommands are the two blocks of shell commands behind the README's mark: to start the processes, and to use them.
func readmeCommands(t *testing.T) (start, use string) {
	readme := mustRead(t, "../../README.md")
	m := regexp.MustCompile("(?s)<!-- processes -->\n```sh\n(.*?)```.*?```sh\n(.*?)```").FindSubmatch(readme)
	if m == nil {
		t.Fatal("README.md has no commands for separate processes")
	}
	return string(m[1]), string(m[2])
}

// replace changes what must be there.
func replace(t *testing.T, s, old, with string) string {
	t.Helper()
	if !strings.Contains(s, old) {
		t.Fatalf("the README's commands have no %q:\n%s", old, s)
	}
	return strings.ReplaceAll(s, old, with)
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
