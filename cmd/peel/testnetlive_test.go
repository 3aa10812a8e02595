package main

import (
	"bufio"
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"peel/testnet/story"
)

const watchedPlan = `
name = "watched"
length = "5s"
authorities = 1
[relays]
count = 4
exits = 1
`

// A run in virtual time can be watched, and what those who watch do happens in it; the window stays when it is over, for a terminal too.
func TestARunInVirtualTimeIsWatched(t *testing.T) {
	dir := t.TempDir()
	plan := filepath.Join(dir, "watched.toml")
	if err := os.WriteFile(plan, []byte(watchedPlan), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), late)
	defer cancel()
	cmd := exec.CommandContext(ctx, "peel", "testnet", "run", "--web", "127.0.0.1:0", "--pace", "0.01", plan) // stands nearly still
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "TMP="+dir)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { // before its folder goes
		cmd.Process.Kill()
		cmd.Wait()
	}()
	lines := bufio.NewScanner(out)
	lines.Scan()
	l, err := newLooker(strings.TrimPrefix(lines.Text(), "window: "))
	if err != nil {
		t.Fatalf("%q: %v", lines.Text(), err)
	}
	until := func(what string, is func(story.Snapshot) bool) story.Snapshot {
		t.Helper()
		for {
			v, err := l.look(ctx)
			if err != nil {
				t.Fatalf("%s: %v\n%s", what, err, complaints.String())
			}
			if is(v) {
				return v
			}
			select {
			case <-time.After(10 * time.Millisecond):
			case <-ctx.Done():
				t.Fatalf("never: %s", what)
			}
		}
	}
	post := func(path string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(l.at, "/story")+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+l.token)
		a, err := l.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != http.StatusOK && a.StatusCode != http.StatusConflict { // on a busy machine it is done later than the answer comes
			t.Errorf("%s: %s", path, a.Status)
		}
	}
	down := func(v story.Snapshot) bool {
		return slices.ContainsFunc(v.Nodes, func(n story.Node) bool { return n.Name == "relay2" && n.State == story.Down })
	}
	v := until("time passes slowly", func(v story.Snapshot) bool { return len(v.Nodes) > 0 && v.Now.After(v.Started) })
	if v.Network != "watched" || v.Pace != "0.01x" || down(v) || v.Over {
		t.Errorf("at first %s at pace %s, over: %v", v.Network, v.Pace, v.Over)
	}
	post("/kill?node=relay2")
	until("relay2 is down", down)
	post("/pace?name=full")
	v = until("it is over", func(v story.Snapshot) bool { return v.Over })
	if took := v.Now.Sub(v.Started); took < 5*time.Second || !down(v) {
		t.Errorf("it took %v; relay2 is down: %v", took, down(v))
	}
	var shown bytes.Buffer
	if err := top(ctx, nil, &shown, windowsOfOurs(dir), true); err != nil || !strings.Contains(shown.String(), "relays up 3 of 4") {
		t.Errorf("on a terminal: %v\n%s", err, &shown)
	}
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
		if strings.HasPrefix(lines.Text(), "the window stays") {
			if runtime.GOOS == "windows" {
				cmd.Process.Kill()
			} else {
				cmd.Process.Signal(os.Interrupt)
			}
		}
	}
	if err := cmd.Wait(); err != nil && runtime.GOOS != "windows" {
		t.Errorf("%v\n%s", err, &complaints)
	}
	text := strings.Join(said, "\n")
	for _, want := range []string{"watched: ok", "relay2 by hand: kill", "done by hand: 1;", "the window stays until Ctrl-C"} {
		if !strings.Contains(text, want) {
			t.Errorf("it did not say %q:\n%s", want, text)
		}
	}
}
