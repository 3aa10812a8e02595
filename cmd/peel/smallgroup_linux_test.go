package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/circuit"
	"peel/cmd/peel/internal/conf"
	"peel/relay"
)

// group is a control group with a limit of memory, of whichever version this machine has.
type group struct{ dir, events string }

// newGroup makes one, or skips the test.
func newGroup(t *testing.T, bytes int) *group {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root makes control groups")
	}
	for _, v := range []struct{ root, limit, events string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"},
		{"/sys/fs/cgroup", "memory.max", "memory.events"},
	} {
		g := &group{filepath.Join(v.root, fmt.Sprintf("peel-test-%d", os.Getpid())), ""}
		if os.Mkdir(g.dir, 0o755) != nil {
			continue
		}
		g.events = filepath.Join(g.dir, v.events)
		if err := os.WriteFile(filepath.Join(g.dir, v.limit), []byte(strconv.Itoa(bytes)), 0o644); err != nil {
			os.Remove(g.dir)
			continue
		}
		os.WriteFile(filepath.Join(g.dir, "memory.swap.max"), []byte("0"), 0o644)
		t.Cleanup(func() { os.Remove(g.dir) })
		return g
	}
	t.Skip("no control group with a limit of memory can be made here")
	return nil
}

// kills is how many processes of the group were killed for want of memory.
func (g *group) kills(t *testing.T) (n int) {
	t.Helper()
	text := mustRead(t, g.events)
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "oom_kill %d", &n)
	}
	return n
}

// most is the most memory that was used, in MiB; 0: it is not told.
func (g *group) most() int {
	for _, name := range []string{"memory.max_usage_in_bytes", "memory.peak"} {
		if text, err := os.ReadFile(filepath.Join(g.dir, name)); err == nil {
			n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
			return n >> 20
		}
	}
	return 0
}

// assault is what is done to a relay, over loopback.
type assault struct {
	network cell.NetworkID
	hop     circuit.Hop
	mute    cell.Begin // a host that sends for ever
	deaf    cell.Begin // one that reads nothing
	local   atomic.Uint32
}

// dial connects from an address of its own.
func (a *assault) dial(ctx context.Context) (net.Conn, error) {
	n := a.local.Add(1)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}, Timeout: 5 * time.Second}
	return d.DialContext(ctx, "tcp", a.hop.Addrs[0].String())
}

func (a *assault) link(ctx context.Context, tap func(bool, []cell.Cell)) (*link.Conn, func(), error) {
	nc, err := a.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	lc, err := link.Dial(ctx, nc, &link.Config{Network: a.network, Tap: tap}, link.Peer{ID: a.hop.ID, Key: a.hop.LinkKey})
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() { defer close(done); lc.Serve(nil) }()
	return lc, func() { lc.Close(); <-done }, nil
}

func (a *assault) build(ctx context.Context, lc *link.Conn) (*circuit.Circuit, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return circuit.Build(ctx, lc, circuit.Config{Network: a.network}, []circuit.Hop{a.hop})
}

// slow holds a connection that says next to nothing.
func (a *assault) slow(ctx context.Context) {
	nc, err := a.dial(ctx)
	if err != nil {
		return
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	nc.Write([]byte{0x11})
	io.Copy(io.Discard, nc)
}

// flood opens circuits and leaves them.
func (a *assault) flood(ctx context.Context) {
	lc, end, err := a.link(ctx, nil)
	if err != nil {
		return
	}
	defer end()
	for ctx.Err() == nil {
		if _, err := a.build(ctx, lc); err != nil && lc.Err() != nil {
			return
		}
	}
}

// snipe asks for all there is and reads nothing.
func (a *assault) snipe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var aim atomic.Bool
	lc, end, err := a.link(ctx, func(in bool, _ []cell.Cell) {
		if in && aim.Load() {
			<-ctx.Done()
		}
	})
	if err != nil {
		return
	}
	defer end()
	for range 8 {
		c, err := a.build(ctx, lc)
		if err != nil {
			return
		}
		for range 30 {
			if _, err := c.Open(a.mute); err != nil {
				break
			}
		}
	}
	aim.Store(true)
	<-ctx.Done()
	cancel()
}

// upload sends to who does not read.
func (a *assault) upload(ctx context.Context) {
	lc, end, err := a.link(ctx, nil)
	if err != nil {
		return
	}
	defer end()
	c, err := a.build(ctx, lc)
	if err != nil {
		return
	}
	var all sync.WaitGroup
	for range 8 {
		s, err := c.Open(a.deaf)
		if err != nil {
			break
		}
		stop := context.AfterFunc(ctx, func() { c.Close() })
		all.Go(func() {
			defer stop()
			chunk := make([]byte, 64<<10)
			for {
				if _, err := s.Write(chunk); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	c.Close()
}

// honest downloads a little, and says whether it came.
func (a *assault) honest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	lc, end, err := a.link(ctx, nil)
	if err != nil {
		return err
	}
	defer end()
	c, err := a.build(ctx, lc)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Dial(ctx, a.mute)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	_, err = io.ReadFull(s, make([]byte, 256<<10))
	return err
}

// hostile is a host that takes connections and does with them as it likes.
func hostile(t *testing.T, ctx context.Context, wg *sync.WaitGroup, do func(net.Conn)) cell.Begin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	wg.Go(func() {
		defer stop()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); do(c) })
		}
	})
	a := l.Addr().(*net.TCPAddr).AddrPort()
	return cell.Begin{Host: a.Addr().String(), Port: a.Port()}
}

// A relay in a group of 128 MiB is not killed by the worst that peers can do together, and serves others. PEEL_SLOW=1: 20 seconds;
// PEEL_SLOW=5m: five minutes.
func TestARelayInASmallGroupIsNotKilled(t *testing.T) {
	length := 20 * time.Second
	switch v := os.Getenv("PEEL_SLOW"); v {
	case "":
		t.Skip("takes half a minute, and root: PEEL_SLOW=1")
	case "1":
	default:
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		length = d
	}
	g := newGroup(t, 128<<20)
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	peel := filepath.Join(dir, "peel")
	if err := os.Symlink(exe, peel); err != nil {
		t.Fatal(err)
	}
	nodes := filepath.Join(dir, "net")
	if out, err := exec.Command(peel, "init", "network", nodes, "--authorities", "1", "--relays", "3", "--exits", "3", "--port", "29001").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(nodes, "relay1", "relay.toml")
	var f conf.Relay
	if err := conf.Load(file, &f); err != nil {
		t.Fatal(err)
	}
	at := "127.0.0.1:" + freePort(t)
	text := mustRead(t, file)
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), strconv.Quote(f.Listen[0]), strconv.Quote(at), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := relay.LoadKeys(f.Keys)
	if err != nil {
		t.Fatal(err)
	}
	network, err := conf.LoadNetwork(f.Network)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	var logging sync.Mutex
	cmd := exec.Command("/bin/sh", "-c", `echo $$ > "$0"/cgroup.procs && exec "$@"`, g.dir, peel, "relay", "--one-hop", "--config", file)
	cmd.Stderr = writerFunc(func(b []byte) (int, error) { // so that Wait waits for all of them
		logging.Lock()
		defer logging.Unlock()
		if log.Len() < 1<<16 {
			log.Write(b)
		}
		return len(b), nil
	})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	var ended error
	go func() { ended = cmd.Wait(); close(gone) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-gone }) // before the group is removed
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("tcp", at); err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			cmd.Process.Kill()
			<-gone
			t.Fatalf("the relay does not listen: %s", log.String())
		}
	}

	var hosts, attackers sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	id := keys.ID()
	a := &assault{network: network.ID(), hop: circuit.Hop{
		ID: id, LinkKey: cell.Key(keys.Link.PublicKey().Bytes()), OnionKey: cell.Key(keys.Onion.PublicKey().Bytes()), Addrs: []netip.AddrPort{netip.MustParseAddrPort(at)},
	}}
	a.mute = hostile(t, ctx, &hosts, func(c net.Conn) {
		chunk := make([]byte, 64<<10)
		for {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	})
	a.deaf = hostile(t, ctx, &hosts, func(c net.Conn) {
		c.(*net.TCPConn).SetReadBuffer(4096)
		<-ctx.Done()
	})
	again := func(n int, do func(context.Context)) {
		for range n {
			attackers.Go(func() {
				for ctx.Err() == nil {
					do(ctx)
					select {
					case <-time.After(100 * time.Millisecond):
					case <-ctx.Done():
					}
				}
			})
		}
	}
	again(300, a.slow)
	again(4, a.flood)
	again(30, a.snipe)
	again(20, a.upload)
	good, bad, why := 0, 0, map[string]int{}
	for ctx.Err() == nil {
		if err := a.honest(ctx); err == nil {
			good++
		} else if ctx.Err() == nil {
			bad++
			why[err.Error()]++
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	attackers.Wait()
	select {
	case <-gone:
		t.Errorf("the relay ended: %v: %s", ended, log.String())
	default:
	}
	kills, most := g.kills(t), g.most()
	cmd.Process.Kill()
	<-gone
	hosts.Wait()
	if kills != 0 {
		t.Errorf("%d processes were killed for want of memory", kills)
	}
	if good == 0 && bad >= 5 { // fewer: this machine had no time for us
		t.Errorf("no honest download of %d came", bad)
	}
	t.Logf("%v: %d honest downloads came, %d did not; at most %d MiB of 128 were used; %v", length, good, bad, most, why)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
