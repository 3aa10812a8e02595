package client

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit"
	"peel/client/guard"
	"peel/client/path"
	"peel/directory"
	"peel/directory/cache"
	"peel/directory/dirtest"
)

// entered are the first relays of circuits that were begun.
func entered(c *Client) (begun func() map[cell.NodeID]int) {
	ids, next := make(chan cell.NodeID, 10_000), c.pool.build
	c.pool.build = func(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
		ids <- p[0].ID
		return next(ctx, p)
	}
	return func() map[cell.NodeID]int {
		m := map[cell.NodeID]int{}
		for len(ids) > 0 {
			m[<-ids]++
		}
		return m
	}
}

// blocked makes a client that cannot enter by some relays.
func blocked(c *Client, bad func(cell.NodeID) bool) {
	next := c.pool.build
	c.pool.build = func(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
		if bad(p[0].ID) {
			return nil, &circuit.BuildError{Hop: 0, Err: errors.New("blocked")}
		}
		return next(ctx, p)
	}
}

func preferred(t *testing.T, c *Client) guard.Info {
	t.Helper()
	g := c.Guards()
	if len(g) == 0 {
		t.Fatal("no guards")
	}
	return g[0].Info
}

func TestEveryCircuitEntersByOneGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c := w.client(Config{})
		begun := entered(c)
		run(t, c)
		for i := range 40 {
			if err := dialAndEcho(c.Isolated(i), "www.example:443"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour) // spare ones are replaced, the directory is fetched
		g := preferred(t, c)
		if m := begun(); len(m) != 1 || m[g.ID] < 40 {
			t.Errorf("circuits enter by %d relays", len(m))
		}
		if !g.Primary || !g.Used || !g.Listed || !g.Up || g.Counts.Built < 40 || g.Counts.Carried < 40 {
			t.Errorf("%+v", g)
		}
		if name := c.Guards()[0].Nickname; name == "" {
			t.Error("it has no name")
		}
	})
}

// With a folder the guards outlive the client; without one each start chooses anew.
func TestGuardsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 60)
		dir := t.TempDir()
		first := func(cfg Config) cell.NodeID {
			c := w.client(cfg)
			stop := run(t, c)
			defer stop()
			if err := dialAndEcho(c, "www.example:443"); err != nil {
				t.Fatal(err)
			}
			return preferred(t, c).ID
		}
		want := first(Config{Dir: dir})
		for range 10 {
			if first(Config{Dir: dir}) != want {
				t.Fatal("another guard after a restart")
			}
		}
		different := 0
		for range 10 {
			if first(Config{}) != want {
				different++
			}
		}
		if different == 0 {
			t.Error("without a folder the guard is the same")
		}
		text, err := os.ReadFile(filepath.Join(dir, GuardsFile(w.Network.ID())))
		if err != nil {
			t.Fatal(err)
		}
		if s, err := guard.Parse(text, w.Network.ID()); err != nil || !s.List(time.Now())[0].Used && s.List(time.Now())[0].ID == want {
			t.Errorf("%v", err)
		}
	})
}

func TestAnotherNetworkHasItsOwnGuards(t *testing.T) {
	dir := t.TempDir()
	a, b := dirtest.New(1, 12), dirtest.New(1, 12, dirtest.Name("another"))
	for _, n := range []*directory.Network{a.Network, b.Network} {
		set := guard.New(n.ID())
		set.Update(guard.NewList([]guard.Relay{{ID: cell.NodeID{byte(n.ID()[0]), 1}}}), nil, time.Now(), chance)
		if err := cache.WriteFile(filepath.Join(dir, GuardsFile(n.ID())), set.Encode()); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []*directory.Network{a.Network, b.Network} {
		set, _, err := loadGuards(dir, n.ID())
		if err != nil || set.List(time.Now())[0].ID[0] != n.ID()[0] {
			t.Errorf("%v", err)
		}
	}
}

// A file that is broken stops the client once, is kept, and is named; one of another network or version stays where it is.
func TestBrokenGuardsAreNeverReplacedInSilence(t *testing.T) {
	n := dirtest.New(1, 12)
	set := guard.New(n.Network.ID())
	set.Update(guard.NewList([]guard.Relay{{ID: cell.NodeID{1}}}), nil, time.Now(), chance)
	good := set.Encode()
	foreign := guard.New(cell.NetworkID{1}).Encode()
	for _, x := range []struct {
		name string
		text []byte
		want string
		left string // the file that is there then
	}{
		{"empty", nil, "is broken and was renamed to", ".broken-1"},
		{"half", good[:len(good)/2], "is broken and was renamed to", ".broken-1"},
		{"all zero", make([]byte, len(good)), "is broken and was renamed to", ".broken-1"},
		{"of another network", foreign, "of another network", ""},
		{"of a later version", bytes.Replace(good, []byte("format = 2"), []byte("format = 3"), 1), "later version", ""},
		{"huge", make([]byte, 1<<20), "cannot be read", ""},
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, GuardsFile(n.Network.ID()))
		if err := os.WriteFile(name, x.text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(Config{Network: n.Network, Dir: dir})
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		if got, err := os.ReadFile(name + x.left); err != nil || !bytes.Equal(got, x.text) {
			t.Errorf("%s: it is not kept: %v", x.name, err)
		}
		_, err = New(Config{Network: n.Network, Dir: dir})
		if (err == nil) != (x.left != "") {
			t.Errorf("%s: the next start: %v", x.name, err)
		}
	}
	// A second broken one does not take the place of the first.
	dir := t.TempDir()
	name := filepath.Join(dir, GuardsFile(n.Network.ID()))
	for i, text := range []string{"one", "two"} {
		os.WriteFile(name, []byte(text), 0o600)
		New(Config{Network: n.Network, Dir: dir})
		if got, err := os.ReadFile(name + ".broken-" + string(rune('1'+i))); err != nil || string(got) != text {
			t.Errorf("%q: %v", got, err)
		}
	}
}

// A guard that is down is left for the next, and used again when it is back.
func TestGuardThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 60)
		c := w.client(Config{})
		var down cell.NodeID
		blocked(c, func(id cell.NodeID) bool { return id == down })
		run(t, c)
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		first := preferred(t, c).ID
		c.pool.mu.Lock()
		down = first
		for h := range c.pool.circs {
			h.gone = true
		}
		c.pool.mu.Unlock()
		conn := mustDial(t, c, "www.example:443")
		if PathOf(conn)[0].ID == first {
			t.Fatal("by the one that is down")
		}
		if g := preferred(t, c); g.ID != first || !g.Down {
			t.Errorf("%+v", g)
		}
		conn.Close()
		c.pool.mu.Lock()
		down = cell.NodeID{}
		c.pool.mu.Unlock()
		time.Sleep(time.Hour)
		conn = mustDial(t, c.Isolated(1), "www.example:443")
		defer conn.Close()
		if PathOf(conn)[0].ID != first {
			t.Error("it is back, and not used")
		}
	})
}

// When the client's own network was gone it comes back to its guard, and has used no more than the next one.
func TestNetworkGoneBurnsNoGuards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 60)
		c := w.client(Config{})
		gone := make(chan bool, 1)
		gone <- false
		blocked(c, func(cell.NodeID) bool { g := <-gone; gone <- g; return g })
		run(t, c)
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		first := preferred(t, c).ID
		for _, away := range []time.Duration{time.Second, time.Minute, 20 * time.Minute} {
			<-gone
			gone <- true
			c.pool.mu.Lock()
			for h := range c.pool.circs {
				h.gone = true
			}
			c.pool.mu.Unlock()
			c.pool.kick()
			begin := time.Now()
			for i := 0; time.Since(begin) < away; i++ {
				if err := dialAndEcho(c.Isolated(i), "www.example:443"); err == nil {
					t.Fatal("the network is gone")
				}
				time.Sleep(away / 20)
			}
			<-gone
			gone <- false
			begin = time.Now()
			conn, err := c.Isolated("back").DialContext(t.Context(), "tcp", "www.example:443")
			if err != nil {
				t.Fatalf("gone for %v: %v", away, err)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("gone for %v: the first stream took %v", away, took)
			}
			conn.Close()
			time.Sleep(2 * time.Minute)
			if err := dialAndEcho(c.Isolated("later"), "www.example:443"); err != nil {
				t.Fatal(err)
			}
			used := 0
			for _, g := range c.Guards() {
				if g.Used {
					used++
				}
			}
			if g := preferred(t, c); g.ID != first || !g.Up || used > 2 {
				t.Errorf("gone for %v: %d guards were used; the first is %+v", away, used, g)
			}
		}
	})
}

// The only exit of a port may be the guard: then another is entered by, for that circuit.
func TestGuardThatIsTheOnlyExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12, dirtest.Entries(func(i int, e *directory.Entry) {
			e.Flags |= directory.Guard
			e.Policy = nil
			if i == 5 {
				e.Policy, _ = directory.ParsePolicy([]string{"accept *:443"})
			}
		}))
		for range 10 { // until its first guard is that exit
			c := w.client(Config{Spare: 1})
			stop := run(t, c)
			if err := dialAndEcho(c, "www.example:443"); err != nil {
				t.Fatal(err)
			}
			stop()
		}
	})
}

// A process that is killed at any moment of a write leaves the guards as they were or as they are to be.
func TestKilledWhileGuardsAreWritten(t *testing.T) {
	if dir := os.Getenv("PEEL_TEST_GUARDS"); dir != "" {
		writeGuards(dir)
		return
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: nothing can be killed at an exact system call")
	}
	id := cell.NetworkID{7}
	killed, before, after := 0, 0, 0
	calls := []string{"fsync", "renameat,renameat2,rename", "write"}
	if os.Getenv("PEEL_SLOW") != "" {
		calls = append(calls, "openat", "fchmod", "close")
	} else {
		t.Log("killed at three system calls only; PEEL_SLOW=1 has all")
	}
	for _, call := range calls {
		for when := 1; when <= 40; when++ {
			dir := t.TempDir()
			old := guard.New(id)
			old.Update(guard.NewList([]guard.Relay{{ID: cell.NodeID{1}}}), nil, time.Unix(1e9, 0), func(uint64) uint64 { return 0 })
			name := filepath.Join(dir, GuardsFile(id))
			if err := cache.WriteFile(name, old.Encode()); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call, "-e", "inject="+call+":signal=KILL:when="+itoa(when), os.Args[0], "-test.run", "^TestKilledWhileGuardsAreWritten$")
			cmd.Env = append(os.Environ(), "PEEL_TEST_GUARDS="+dir)
			err := cmd.Run()
			release, holdErr := cache.Hold(dir, nil) // as New does
			if holdErr != nil {
				t.Fatal(holdErr)
			}
			release()
			set, _, loadErr := loadGuards(dir, id)
			if loadErr != nil {
				t.Fatalf("killed at %s %d: %v", call, when, loadErr)
			}
			switch n := len(set.List(time.Now())); n {
			case 1:
				before++
			case 2:
				after++
			default:
				t.Fatalf("killed at %s %d: %d guards", call, when, n)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
				t.Errorf("killed at %s %d: left behind: %v", call, when, left)
			}
			if err == nil {
				break // it came to its end before so many calls
			}
			killed++
		}
	}
	t.Logf("killed %d times: %d with the guards from before, %d with the new ones", killed, before, after)
	if killed == 0 {
		t.Skip("strace kills nothing here: it may not trace")
	}
	if before == 0 || after == 0 {
		t.Error("one of the two never was: the test shows nothing")
	}
}

func itoa(n int) string {
	return strings.TrimLeft(string([]byte{byte('0' + n/10), byte('0' + n%10)}), "0")
}

// writeGuards is what is killed: it adds a guard to those in the folder and writes them.
func writeGuards(dir string) {
	id := cell.NetworkID{7}
	set, f, err := loadGuards(dir, id)
	if err != nil {
		os.Exit(3)
	}
	set.Update(guard.NewList([]guard.Relay{{ID: cell.NodeID{1}}, {ID: cell.NodeID{2}}}), nil, time.Unix(1e9, 0), func(uint64) uint64 { return 0 })
	p := newPool(&core{cfg: Config{Write: cache.WriteFile}}, set, f)
	p.keepGuards()
}

// What the configuration excludes is in no path and no guard; guards chosen before are left at once.
func TestExcludedRelaysAreInNoPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24)
		dir := t.TempDir()
		before := w.client(Config{Dir: dir})
		stop := run(t, before)
		if err := dialAndEcho(before, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		stop()
		old := preferred(t, before).ID
		rules := path.Rules{Own: []cell.NodeID{old}}
		var exit cell.NodeID
		for i, e := range w.Consensus.Entries {
			if i%4 == 0 {
				rules.Exclude.IDs = append(rules.Exclude.IDs, e.ID)
			} else if len(e.Policy) > 0 && exit.IsZero() {
				exit = e.ID
				rules.Exits.IDs = append(rules.Exits.IDs, e.ID)
			}
		}
		c := w.client(Config{Dir: dir, Paths: rules})
		run(t, c)
		for i := range 60 {
			conn := mustDial(t, c.Isolated(i), "www.example:443")
			for hop, e := range PathOf(conn) {
				if rules.Exclude.Has(e) || e.ID == old || hop == 2 && e.ID == exit {
					t.Errorf("%s is at place %d", e.Nickname, hop+1)
				}
			}
			conn.Close()
		}
		for _, g := range c.Guards() {
			if g.ID == old && g.Listed {
				t.Error("the guard from before is excluded and may be used")
			}
		}
	})
}

// A folder that cannot be written to for a while stops nothing, and the guards are written when it can.
func TestGuardsAreWrittenWhenTheyCanBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24)
		dir := t.TempDir()
		c := w.client(Config{Dir: dir})
		name := filepath.Join(dir, GuardsFile(w.Network.ID()))
		if err := os.MkdirAll(filepath.Join(name, "in the way"), 0o700); err != nil { // no file takes the place of a folder
			t.Fatal(err)
		}
		run(t, c)
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if set, err := guard.Parse(text, w.Network.ID()); err != nil || set.List(time.Now())[0].ID != preferred(t, c).ID {
			t.Errorf("%v", err)
		}
	})
}

// A circuit that was put aside while guards before its own were tried again is used when its own is the one to enter by, and is not
// built anew.
func TestWhatIsPutAsideIsUsedWhenItsGuardIsTheOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 60)
		c := w.client(Config{})
		begun := entered(c)
		run(t, c)
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // for spare circuits
		p := c.pool
		var kept *circuit.Circuit
		p.mu.Lock()
		for h := range p.circs {
			if h.gone = true; kept == nil && h.isBuilt() && !h.taken {
				kept = h.circuit
				delete(p.circs, h)
				p.putAside(&held{era: h.era, path: h.path, born: h.born}, kept, time.Now())
			}
		}
		begun()
		h, err := p.begin(request{usage: path.Usage{Port: 443}, era: p.era}, time.Now())
		n := len(begun())
		p.unlock()
		if kept == nil || err != nil || h.circuit != kept || !h.isBuilt() || n != 0 {
			t.Fatalf("%v, %v, and %d circuits were begun", h, err, n)
		}
		p.mu.Lock()
		other, err := p.begin(request{usage: path.Usage{Port: 443}, era: p.era}, time.Now())
		p.unlock()
		if err != nil || other.circuit == kept {
			t.Errorf("it is used twice: %v", err)
		}
		p.mu.Lock()
		p.putAside(&held{era: h.era, path: h.path, born: h.born, gone: true}, kept, time.Now()) // other rules came while it was built
		other, err = p.begin(request{usage: path.Usage{Port: 443}, era: p.era}, time.Now())
		p.unlock()
		if err != nil || other.circuit == kept {
			t.Errorf("it is used although it takes no more streams: %v", err)
		}
	})
}

// What was put aside is closed when its time is over, when the client has a new identity, and when it ends.
func TestWhatIsPutAsideIsNotKeptForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 60)
		c := w.client(Config{})
		run(t, c)
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		put := func() *circuit.Circuit {
			p := c.pool
			p.mu.Lock()
			defer p.unlock()
			for h := range p.circs {
				if h.isBuilt() && !h.taken {
					delete(p.circs, h)
					way := slices.Clone(h.path)
					way[0] = h.path[1] // by which no circuit enters
					p.putAside(&held{era: h.era, path: way, born: h.born}, h.circuit, time.Now())
					return h.circuit
				}
			}
			t.Fatal("no spare circuit")
			return nil
		}
		for what, end := range map[string]func(){
			"time": func() { time.Sleep(asideFor + time.Minute) }, "identity": func() { c.NewIdentity(t.Context()) }, "another": func() { put() },
			"rules": func() { c.pool.retireAll() },
		} {
			time.Sleep(20 * time.Second) // for spare circuits
			ci := put()
			if ci.Err() != nil {
				t.Fatal(ci.Err())
			}
			end()
			synctest.Wait()
			if ci.Err() == nil {
				t.Errorf("after %s it is there still", what)
			}
		}
	})
}

// A client whose disk is full goes on with the guards that it has in memory, says so and counts it; with room again, they are written.
func TestFullDiskEndsNoClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		var full atomic.Bool
		full.Store(true)
		dir := t.TempDir()
		c := w.client(Config{Dir: dir, Write: func(name string, b []byte) error {
			if full.Load() {
				return &fs.PathError{Op: "write", Path: name, Err: errors.New("no space left on device")}
			}
			return cache.WriteFile(name, b)
		}})
		stop := run(t, c)
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		if c.Unwritten() == 0 {
			t.Error("nothing is counted")
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "guards*")); len(left) > 0 {
			t.Errorf("written all the same: %v", left)
		}
		first := preferred(t, c).ID
		full.Store(false)
		time.Sleep(2 * time.Minute)
		stop()
		again := w.client(Config{Dir: dir})
		run(t, again)
		if err := dialAndEcho(again, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		if preferred(t, again).ID != first {
			t.Error("another guard than before")
		}
	})
}
