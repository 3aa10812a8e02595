package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	run := func(args ...string) (string, int) {
		cmd := exec.Command(curl, append([]string{"-sS", "--noproxy", "", "--max-time", "20"}, args...)...)
		cmd.Env = []string{}
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %d", r.Method, r.Host, len(b))
	})}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(web) })
	defer wg.Wait()
	defer srv.Close()
	webPort := web.Addr().(*net.TCPAddr).Port

	var mu sync.Mutex
	var seen []Request
	addr := startRules(t, Rules{Extended: true}, &Server{
		Code: func(err error) byte {
			var c codeError
			errors.As(err, &c)
			return byte(c)
		},
		Dial: func(ctx context.Context, r Request) (net.Conn, error) {
			mu.Lock()
			seen = append(seen, r)
			mu.Unlock()
			var code int
			if _, err := fmt.Sscanf(r.Host, "fail-%d.example", &code); err == nil {
				return nil, codeError(code)
			}
			return dialDirect(ctx, Request{Host: "127.0.0.1", Port: r.Port})
		},
	})
	last := func() Request {
		mu.Lock()
		defer mu.Unlock()
		return seen[len(seen)-1]
	}

	url := fmt.Sprintf("http://name.example:%d/", webPort)
	if out, code := run("--socks5-hostname", addr, url); code != 0 || !strings.HasPrefix(out, "GET name.example") {
		t.Errorf("exit %d: %s", code, out)
	}
	if r := last(); r.Host != "name.example" || r.Isolation.Credentials != (Credentials{}) {
		t.Errorf("asked for %q", r.Host)
	}
	if out, code := run("-x", "socks5h://alice:secret@"+addr, "-T", "server_test.go", url); code != 0 || !strings.HasPrefix(out, "PUT ") {
		t.Errorf("exit %d: %s", code, out)
	}
	if r := last(); r.Isolation.Credentials != NewCredentials("alice", "secret") {
		t.Error("curl's user and password did not come")
	}
	for _, c := range []int{1, 2, 3, 4, 5, 7, 8, 0xF0} {
		out, code := run("--socks5-hostname", addr, fmt.Sprintf("http://fail-%d.example/", c))
		if code != 97 || !strings.Contains(out, fmt.Sprintf("(%d)", c)) {
			t.Errorf("reply %d: curl exits with %d: %s", c, code, out)
		}
	}
	for _, proxy := range []string{"socks4a://alice@", "http://alice:@"} {
		if out, code := run("-x", proxy+addr, "--proxytunnel", url); code != 0 || !strings.HasPrefix(out, "GET name.example") {
			t.Errorf("%s: exit %d: %s", proxy, code, out)
		}
		if r := last(); r.Host != "name.example" || r.Isolation.Credentials != NewCredentials("alice", "") {
			t.Errorf("%s: asked for %q, user given: %t", proxy, r.Host, r.Isolation.Credentials != Credentials{})
		}
	}
	for code, status := range map[int]string{1: "503", 2: "403", 3: "502", 4: "502", 5: "502", 0xF0: "502"} {
		out, exit := run("-x", "http://"+addr, "--proxytunnel", fmt.Sprintf("http://fail-%d.example/", code))
		if exit != 56 || !strings.Contains(out, status) {
			t.Errorf("reply %d: curl exits with %d: %s", code, exit, out)
		}
	}
	n := len(seen)
	if out, code := run("-x", "http://"+addr, url); code != 0 || !strings.Contains(out, "SOCKS 5") {
		t.Errorf("as an HTTP proxy without CONNECT: exit %d: %s", code, out)
	}
	if len(seen) != n {
		t.Error("something was connected")
	}
}

type codeError byte

func (c codeError) Error() string { return "failed on purpose" }
