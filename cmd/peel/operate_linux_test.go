package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"peel/cmd/peel/internal/admin"
)

// soon bounds what happens at once on a machine that has time for it.
const soon = 2 * time.Minute

// running is a peel of its own whose lines can be waited for.
type running struct {
	name string
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended
	err  error         // of its end, once it has

	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

// start starts a peel, and ends it with the test.
func start(t *testing.T, env []string, args ...string) *running {
	t.Helper()
	return startProgram(t, "peel", env, args...)
}

func startProgram(t *testing.T, program string, env []string, args ...string) *running {
	t.Helper()
	return startProgramWith(t, func(*exec.Cmd) {}, program, env, args...)
}

// startProgramWith starts a program that change has seen before.
func startProgramWith(t *testing.T, change func(*exec.Cmd), program string, env []string, args ...string) *running {
	t.Helper()
	p := &running{name: strings.Join(args, " "), cmd: exec.Command(program, args...), gone: make(chan struct{}), wrote: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p, p // so that Wait waits for all that it started
	change(p.cmd)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.gone) }()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.gone
		if t.Failed() {
			t.Logf("%s: %v\n%s", p.name, p.err, p.tail())
		}
	})
	return p
}

func (p *running) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text.Write(b)
	close(p.wrote)
	p.wrote = make(chan struct{})
	return len(b), nil
}

func (p *running) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.text.Bytes()
	return string(b[max(0, len(b)-4000):])
}

// says waits until it has written a line with this in it, at or after a place in what it writes, and returns the line and the place behind it.
func (p *running) says(t *testing.T, from int, what string) (string, int) {
	t.Helper()
	re := regexp.MustCompile(`(?m)^.*(?:` + what + `).*\n`)
	late := time.NewTimer(soon)
	defer late.Stop()
	for {
		p.mu.Lock()
		at, more := re.FindIndex(p.text.Bytes()[from:]), p.wrote
		var line string
		if at != nil {
			line = string(p.text.Bytes()[from:][at[0]:at[1]])
		}
		p.mu.Unlock()
		if at != nil {
			return line, from + at[1]
		}
		select {
		case <-more:
		case <-p.gone:
			t.Fatalf("%s ended without %q: %v\n%s", p.name, what, p.err, p.tail())
		case <-late.C:
			t.Fatalf("%s did not say %q:\n%s", p.name, what, p.tail())
		}
	}
}

// signal sends it one.
func (p *running) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
}

// ends waits for its end.
func (p *running) ends(t *testing.T) error {
	t.Helper()
	select {
	case <-p.gone:
	case <-time.After(soon):
		t.Fatalf("%s did not end:\n%s", p.name, p.tail())
	}
	return p.err
}

// told collects what a process tells the service manager.
type told struct {
	at string // its socket
	mu sync.Mutex
	b  bytes.Buffer
}

func tellMe(t *testing.T) *told {
	t.Helper()
	dir, err := os.MkdirTemp("", "n") // a short name
	if err != nil {
		t.Fatal(err)
	}
	d := &told{at: filepath.Join(dir, "s")}
	s, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: d.at, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := s.Read(b)
			if err != nil {
				return
			}
			d.mu.Lock()
			d.b.Write(append(b[:n:n], '\n'))
			d.mu.Unlock()
		}
	})
	t.Cleanup(func() { s.Close(); wg.Wait(); os.RemoveAll(dir) })
	return d
}

func (d *told) has(what string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Contains(d.b.String(), what)
}

// processes are a network of them: an authority, three relays of which the last is the exit, and a client with a SOCKS port.
type processes struct {
	dir    string
	relays []*running
	told   []*told // by the relays
	client *running
	socks  proxy.ContextDialer
}

func startProcesses(t *testing.T) *processes {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "net")
	out, err := exec.Command("peel", "init", "network", dir, "--authorities", "1", "--relays", "3", "--exits", "1", "--port", freePort(t), "--socks", "127.0.0.1:0").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	n := &processes{dir: dir}
	start(t, nil, "authority", "--config", filepath.Join(dir, "authority1", "authority.toml"))
	for i := range 3 {
		d := tellMe(t)
		n.told = append(n.told, d)
		n.relays = append(n.relays, start(t, []string{"NOTIFY_SOCKET=" + d.at}, "relay", "--config", n.file(i)))
	}
	n.client = start(t, nil, "client", "--config", filepath.Join(dir, "client", "client.toml"))
	line, _ := n.client.says(t, 0, "ready: socks5://")
	_, at, _ := strings.Cut(strings.TrimSpace(line), "socks5://")
	d, err := proxy.SOCKS5("tcp", at, nil, proxy.Direct)
	if err != nil {
		t.Fatal(err)
	}
	n.socks = d.(proxy.ContextDialer)
	return n
}

// file is the configuration of a relay.
func (n *processes) file(i int) string {
	return filepath.Join(n.dir, fmt.Sprintf("relay%d", i+1), "relay.toml")
}

// dial opens a stream, with as many tries as it takes.
func (n *processes) dial(ctx context.Context, to string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	for {
		c, err := n.socks.DialContext(ctx, "tcp", to)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no stream opened in %v: %w", soon, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// serve is a host behind the exit: it does with each connection what do says.
func serve(t *testing.T, do func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				do(c)
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
	return l.Addr().String()
}

// pattern is what the nth piece of a stream's bytes must be.
func pattern(stream, piece uint64) []byte {
	b := make([]byte, 0, 16<<10)
	var seed [16]byte
	binary.LittleEndian.PutUint64(seed[:8], stream)
	binary.LittleEndian.PutUint64(seed[8:], piece)
	sum := sha256.Sum256(seed[:])
	for len(b) < cap(b) {
		b = append(b, sum[:]...)
		sum[0]++
	}
	return b
}

// exchanged sends a piece to a host that sends it back.
func exchanged(c net.Conn, stream, piece uint64) error {
	want := pattern(stream, piece)
	c.SetDeadline(time.Now().Add(soon))
	if _, err := c.Write(want); err != nil {
		return fmt.Errorf("stream %d, piece %d: %w", stream, piece, err)
	}
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("stream %d, piece %d: after %d bytes: %w", stream, piece, n, err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("stream %d, piece %d: wrong bytes", stream, piece)
	}
	return nil
}

// slips are how an operator's file can be wrong. Each also sets what would do harm if any of it were taken: an exit policy that ends
// every stream.
var slips = []struct{ what, old, with, says string }{
	{"a word that is none", `(?m)^log = .*`, `lgo = "info"`, `relay\.toml:\d+: there is no key \\"lgo\\"; did you mean \\"log\\"`},
	{"another kind of value", `(?m)^contact = .*`, `contact = 7`, `relay\.toml:\d+: contact: must be a text in quotes`},
	{"a value that cannot be", `(?m)^bandwidth = .*`, `bandwidth = "20 elephants"`, `relay\.toml:\d+: bandwidth: `},
	{"no TOML", `(?m)^family = .*`, `family = [`, `relay\.toml:\d+: `},
	{"what cannot change", `(?m)^nickname = .*`, `nickname = "another"`, `relay\.toml:\d+: nickname: it cannot be changed while the node runs`},
	{"half a file", `(?s)\nlisten = \[.*`, "\nlisten = [\"127.", `relay\.toml:\d+: `},
}

var policyLine = regexp.MustCompile(`(?m)^exit_policy = .*`)

// Relays reload good and bad files, over and over, while streams run through them: none is dropped, no byte is wrong, nothing of a bad file is
// taken, and each is told with its file, line and reason. Then they are told to end, and what ends in time comes whole.
// PEEL_SLOW=1: 1002 reloads in all; PEEL_SLOW=2m: 1000 of each relay.
func TestReloadsAndEndsHarmNoStream(t *testing.T) {
	reloads := 334
	switch os.Getenv("PEEL_SLOW") {
	case "":
		t.Skip("takes half a minute: PEEL_SLOW=1")
	case "1":
	default:
		reloads = 1000
	}
	n := startProcesses(t)
	t.Run("reloads", func(t *testing.T) { n.reload(t, reloads) })
	t.Run("metrics", n.metrics)
	if !t.Failed() {
		t.Run("ends", n.end)
	}
}

// metrics looks at what the nodes, which have carried something by now, show to Prometheus.
func (n *processes) metrics(t *testing.T) {
	texts := map[string][]byte{}
	for _, name := range []string{"authority1", "relay1", "relay3", "client"} {
		a, err := admin.NewAsker(admin.Find(filepath.Join(n.dir, name)))
		if err == nil {
			texts[name], err = a.Get(t.Context(), "/metrics")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	queriesAreAnswered(t, texts, nil)
}

func (n *processes) reload(t *testing.T, reloads int) {
	echo := serve(t, func(c net.Conn) { io.Copy(c, c) })
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	var pieces, streams atomic.Uint64
	lost := make(chan error, 64)
	some := make(chan struct{}, 1) // a piece has come back
	carry := func(stream, most uint64) bool {
		c, err := n.dial(ctx, echo)
		if err != nil {
			if ctx.Err() == nil {
				lost <- err
			}
			return false
		}
		defer c.Close()
		streams.Add(1)
		for piece := uint64(0); piece < most && (piece == 0 || ctx.Err() == nil); piece++ {
			if err := exchanged(c, stream, piece); err != nil {
				lost <- err
				return false
			}
			pieces.Add(1)
			select {
			case some <- struct{}{}:
			default:
			}
		}
		return true
	}
	for i := range uint64(4) { // some stay, some come and go
		load.Go(func() {
			most := uint64(1 << 40)
			if i >= 2 {
				most = 5
			}
			for k := i << 32; ctx.Err() == nil && carry(k, most); k++ {
			}
		})
	}
	<-some

	var reloading sync.WaitGroup
	for i, r := range n.relays {
		good := mustRead(t, n.file(i))
		reloading.Go(func() {
			heard := 0
			for k := range reloads {
				text, want := bytes.Replace(good, []byte(`contact = ""`), fmt.Appendf(nil, "contact = \"reload %d\"", k), 1), "configuration reloaded"
				if k%2 == 1 {
					slip := slips[k/2%len(slips)]
					text = policyLine.ReplaceAll(text, []byte(`exit_policy = ["reject *:*"]`))
					bad := regexp.MustCompile(slip.old).ReplaceAll(text, []byte(slip.with))
					if bytes.Equal(bad, text) || !bytes.Contains(bad, []byte("reject *:*")) && slip.what != "half a file" {
						t.Errorf("%s: not in the file that init writes", slip.what)
						return
					}
					text, want = bad, "configuration not reloaded, the node goes on as before.*"+slip.says
				}
				if err := os.WriteFile(n.file(i), text, 0o600); err != nil {
					t.Error(err)
					return
				}
				r.signal(t, syscall.SIGHUP)
				var line string
				if line, heard = r.says(t, heard, "configuration reloaded|configuration not reloaded"); !regexp.MustCompile(want).MatchString(line) {
					t.Errorf("relay %d, reload %d: it said %s, want %s", i, k, line, want)
					return
				}
				if k%10 == 0 {
					select {
					case <-some:
					case err := <-lost:
						lost <- err
						return
					case <-time.After(soon):
						t.Error("nothing comes any more")
						return
					}
				}
			}
			if err := os.WriteFile(n.file(i), good, 0o600); err != nil {
				t.Error(err)
			}
		})
	}
	reloading.Wait()
	if t.Failed() {
		return
	}
	stop()
	load.Wait()
	close(lost)
	for err := range lost {
		t.Error(err)
	}
	t.Logf("3 relays, %d reloads each, half of bad files; %d streams, %d pieces of 16 KiB there and back", reloads, streams.Load(), pieces.Load())

	// A good file with that policy ends what runs: so it would have been seen.
	c, err := n.dial(t.Context(), echo)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := exchanged(c, 7, 0); err != nil {
		t.Fatal(err)
	}
	exit := len(n.relays) - 1
	good := mustRead(t, n.file(exit))
	if err := os.WriteFile(n.file(exit), policyLine.ReplaceAll(good, []byte(`exit_policy = ["reject *:*"]`)), 0o600); err != nil {
		t.Fatal(err)
	}
	n.relays[exit].signal(t, syscall.SIGHUP)
	c.SetDeadline(time.Now().Add(soon))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a policy that was taken did not end a stream: %v", err)
	}
	if err := os.WriteFile(n.file(exit), good, 0o600); err != nil {
		t.Fatal(err)
	}
	n.relays[exit].signal(t, syscall.SIGHUP)
}

// end has relays and client end while transfers run.
func (n *processes) end(t *testing.T) {
	const size, transfers = 512 << 10, 8
	text := bytes.Repeat(pattern(1, 2), size/(16<<10))
	rest, begun := make(chan struct{}), make(chan struct{}, transfers)
	slow := serve(t, func(c net.Conn) { // half of it, and the rest when all are ending
		c.Write(text[:size/2])
		<-rest
		c.Write(text[size/2:])
	})
	var load sync.WaitGroup
	whole := make(chan error, transfers)
	for range transfers {
		c, err := n.dial(t.Context(), slow)
		if err != nil {
			t.Fatal(err)
		}
		load.Go(func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(soon))
			got := make([]byte, size)
			k, err := io.ReadFull(c, got[:size/2])
			begun <- struct{}{}
			if err == nil {
				var m int
				m, err = io.ReadFull(c, got[size/2:])
				k += m
			}
			if err == nil {
				_, err = c.Read(make([]byte, 1))
				if errors.Is(err, io.EOF) {
					err = nil
				}
			}
			if err == nil && !bytes.Equal(got, text) {
				err = errors.New("wrong bytes")
			}
			if err != nil {
				err = fmt.Errorf("after %d bytes of %d: %w", k, size, err)
			}
			whole <- err
		})
	}
	for range transfers {
		<-begun
	}
	echo := serve(t, func(c net.Conn) { io.Copy(c, c) })
	endless, err := n.dial(t.Context(), echo)
	if err != nil {
		t.Fatal(err)
	}
	defer endless.Close()

	all := append([]*running{n.client}, n.relays...)
	exit := all[len(all)-1]
	for _, p := range all {
		p.signal(t, syscall.SIGTERM)
	}
	for _, p := range all {
		p.says(t, 0, "ending: takes nothing new")
	}
	close(rest)
	var failed []error
	for range transfers {
		if err := <-whole; err != nil {
			failed = append(failed, fmt.Errorf("a transfer: %w", err))
		}
	}
	load.Wait()
	if err := exchanged(endless, 3, 0); err != nil {
		failed = append(failed, fmt.Errorf("what does not end: %w", err))
	}
	exit.signal(t, syscall.SIGINT) // another SIGTERM so soon may count as the same one
	late := false
	for _, p := range all {
		err := p.ends(t)
		late = late || strings.Contains(p.tail(), "did not end in time")
		var how *exec.ExitError
		if p == exit {
			if !errors.As(err, &how) || how.Sys().(syscall.WaitStatus).Signal() != syscall.SIGINT && how.ExitCode() != 130 {
				failed = append(failed, fmt.Errorf("%s: the second signal did not end it at once: %w", p.name, err))
			}
			if !strings.Contains(p.tail(), "a second signal ends this node at once") {
				failed = append(failed, fmt.Errorf("%s: the log does not say that the second signal ended it: %s", p.name, p.tail()))
			}
		} else if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	if late {
		t.Skipf("this machine was too busy for %d KiB within the time that nodes give: %v", transfers*size>>11, failed)
	}
	for _, err := range failed {
		t.Error(err)
	}
	for i, d := range n.told {
		if !d.has("READY=1") || !d.has("STOPPING=1") {
			t.Errorf("relay %d told the service manager %q", i, d.b.String())
		}
	}
}
