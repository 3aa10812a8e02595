package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/link"
	"peel/circuit"
	"peel/client/path"
)

// builder counts builds, and fails them while it is told to.
type builder struct {
	next  func(context.Context, path.Path) (*circuit.Circuit, error)
	begun atomic.Int64
	now   atomic.Int64 // under way
	most  atomic.Int64 // at a time
	fails atomic.Bool
	takes atomic.Int64 // nanoseconds
}

// counted puts a builder before the client's.
func counted(c *Client) *builder {
	b := &builder{next: c.pool.build}
	c.pool.build = b.build
	return b
}

func (b *builder) build(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
	b.begun.Add(1)
	defer b.now.Add(-1)
	if n := b.now.Add(1); n > b.most.Load() {
		b.most.Store(n)
	}
	select {
	case <-time.After(time.Duration(b.takes.Load())):
	case <-ctx.Done():
		return nil, &circuit.BuildError{Err: ctx.Err()}
	}
	if b.fails.Load() {
		return nil, &circuit.BuildError{Err: errors.New("told to")}
	}
	return b.next(ctx, p)
}

// all are the circuits of a pool and what is being built.
func (p *pool) all() []*held {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.circs))
}

// start runs a client with a builder until it is ready and all is quiet.
func start(t *testing.T, w *world, cfg Config) (*Client, *builder) {
	t.Helper()
	c := w.client(cfg)
	b := counted(c)
	run(t, c)
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	return c, b
}

// counts are the circuits that are spare and in use.
func counts(c *Client) (spare, used int) {
	for _, i := range c.Circuits() {
		if i.Used {
			used++
		} else {
			spare++
		}
	}
	return spare, used
}

func TestSpareCircuitsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, b := start(t, newWorld(t, 12), Config{Spare: 4})
		for n := range 5 {
			if spare, used := counts(c); spare != 4 || used != n {
				t.Errorf("%d spare circuits and %d in use, after %d tokens", spare, used, n)
			}
			begin := time.Now()
			conn := mustDial(t, c.Isolated(n), "www.example:443")
			defer conn.Close()
			if got := time.Since(begin); got > 10*time.Millisecond {
				t.Errorf("a stream waited %v: its circuit was not there", got)
			}
			time.Sleep(time.Second)
		}
		if got := b.begun.Load(); got != 9 {
			t.Errorf("%d builds for 9 circuits", got)
		}
		// Half an hour unused, each is replaced, once.
		time.Sleep(31 * time.Minute)
		if spare, _ := counts(c); spare != 4 {
			t.Errorf("%d spare circuits", spare)
		}
		for _, i := range c.Circuits() {
			if !i.Used && i.Age > spareLife {
				t.Errorf("one is %v old", i.Age)
			}
		}
		if got := b.begun.Load(); got != 13 {
			t.Errorf("%d builds instead of 13", got)
		}
	})
}

func TestCircuitRetiresAfterTenMinutesOfUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := start(t, newWorld(t, 12), Config{})
		dial := func() net.Conn {
			conn := mustDial(t, c, "www.example:443")
			return conn
		}
		old := dial()
		time.Sleep(10*time.Minute - time.Second)
		same := dial()
		if &PathOf(old)[0] != &PathOf(same)[0] {
			t.Error("it was not used for ten minutes")
		}
		same.Close()
		time.Sleep(time.Second)
		other := dial()
		defer other.Close()
		if &PathOf(old)[0] == &PathOf(other)[0] {
			t.Error("it is used after ten minutes")
		}
		time.Sleep(5 * time.Minute)
		if _, used := counts(c); used != 2 {
			t.Errorf("%d circuits in use", used)
		}
		if err := echo(old); err != nil {
			t.Errorf("the stream that it had: %v", err)
		}
		old.Close()
		time.Sleep(2 * upkeep)
		if _, used := counts(c); used != 1 {
			t.Errorf("%d circuits in use, when its last stream has ended", used)
		}
	})
}

func TestDeadCircuitsAreReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c, b := start(t, w, Config{})
		before := b.begun.Load()
		for _, n := range w.nodes {
			n.destroy()
		}
		time.Sleep(time.Second)
		if n := len(c.Circuits()); n != 0 {
			t.Errorf("%d dead circuits are listed", n)
		}
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * upkeep)
		if spare, used := counts(c); spare != 3 || used != 1 {
			t.Errorf("%d spare circuits and %d in use", spare, used)
		}
		if got := b.begun.Load() - before; got != 4 {
			t.Errorf("%d builds for 4 circuits", got)
		}
	})
}

// Relays that end circuits as soon as they are there, or take none, make the client build without end, but not without
// pause.
func TestNoHotLoops(t *testing.T) {
	for name, bad := range map[string]func(*world, *builder){
		"every build fails": func(_ *world, b *builder) { b.fails.Store(true) },
		"relays refuse": func(w *world, _ *builder) {
			for _, n := range w.nodes {
				n.refuse.Store(true)
			}
		},
		"nothing can be dialled": func(w *world, _ *builder) { w.down.Store(true) },
		"circuits end at once": func(w *world, b *builder) {
			next := b.next
			b.next = func(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
				c, err := next(ctx, p)
				if err == nil {
					w.nodeOf(p, path.Hops-1).destroy()
					<-c.Done()
				}
				return c, err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 12)
				c, b := start(t, w, Config{})
				bad(w, b)
				for _, n := range w.nodes {
					n.restart()
				}
				before, dialled := b.begun.Load(), w.dials.Load()
				time.Sleep(time.Minute)
				if got := b.begun.Load() - before; got < 3 || got > 45 {
					t.Errorf("%d builds in a minute", got)
				}
				if got := w.dials.Load() - dialled; got > 60 {
					t.Errorf("%d links in a minute", got)
				}

				// A request does not wait for spare ones, and gives up.
				before = b.begun.Load()
				begin := time.Now()
				_, err := c.DialContext(t.Context(), "tcp", "www.example:443")
				if err == nil {
					t.Fatal("it has a circuit")
				}
				took, n := time.Since(begin), b.begun.Load()-before
				if took > 10*time.Second || n > 3*buildTries+10 {
					t.Errorf("it took %v and %d builds: %v", took, n, err)
				}
			})
		})
	}
}

func TestRequestWaitsLongerAfterEachFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, b := start(t, newWorld(t, 12), Config{Spare: 1})
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		b.fails.Store(true)
		b.takes.Store(int64(10 * time.Millisecond))
		time.Sleep(31 * time.Minute) // spare ones are gone
		begin, before := time.Now(), b.begun.Load()
		var wg sync.WaitGroup
		for range 20 { // who waits for one token shares what is built for it
			wg.Go(func() {
				_, err := c.Isolated("x").DialContext(t.Context(), "tcp", "www.example:443")
				if err == nil || !strings.Contains(err.Error(), "8 circuits could not be built: circuit: hop 1: told to") {
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
		// 8 times 10 ms, and between them 50, 100, 200, 400, 800 ms, 1 s, 1 s
		if got, want := time.Since(begin), 3630*time.Millisecond; got != want {
			t.Errorf("gave up after %v", got)
		}
		if n := b.begun.Load() - before; n < buildTries || n > buildTries+2 {
			t.Errorf("%d builds for 20 that wait", n)
		}
		b.fails.Store(false)
		if err := dialAndEcho(c.Isolated("x"), "www.example:443"); err != nil {
			t.Errorf("as soon as it works again: %v", err)
		}
	})
}

func TestRequestsThatWaitShareABuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, b := start(t, newWorld(t, 12), Config{Spare: 1})
		b.takes.Store(int64(2 * time.Second))
		spare := c.Isolated("takes the spare one")
		if err := dialAndEcho(spare, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		before := b.begun.Load()
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if i == 0 { // who goes away takes nothing from the others
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					_, err := c.DialContext(ctx, "tcp", "www.example:443")
					if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "waiting for a circuit") {
						t.Error(err)
					}
					return
				}
				if err := dialAndEcho(c, "www.example:443"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, h := range c.pool.all() {
			if h.users != 0 {
				t.Errorf("%d still have a circuit that have left", h.users)
			}
		}
		if n := b.begun.Load() - before; n > 2 {
			t.Errorf("%d builds for 50 that wait for the same", n)
		}
	})
}

func TestBuildsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, b := start(t, newWorld(t, 12), Config{})
		b.takes.Store(int64(time.Second))
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if err := dialAndEcho(c.Isolated(i), "www.example:443"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := b.most.Load(); n != builds {
			t.Errorf("%d builds at a time", n)
		}
	})
}

// More tokens than there may be circuits: those without streams make room, the one used longest ago first; when all have some,
// the next is told.
func TestManyTokensAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 20
		c, _ := start(t, newWorld(t, 12), Config{Circuits: most})
		kept, err := c.Isolated("kept").DialContext(t.Context(), "tcp", "www.example:443")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 * most {
			if err := dialAndEcho(c.Isolated(i), "www.example:443"); err != nil {
				t.Fatalf("token %d: %v", i, err)
			}
			time.Sleep(100 * time.Millisecond)
			if n := len(c.pool.all()); n > most {
				t.Fatalf("%d circuits", n)
			}
		}
		for _, h := range c.pool.all() {
			if i, ok := h.token.(int); ok && i < 2*most {
				t.Errorf("the circuit of token %d is kept, and later ones are not", i)
			}
		}
		if err := echo(kept); err != nil {
			t.Errorf("a stream lost its circuit to others: %v", err)
		}
		var conns []net.Conn
		for i := range 2 * most {
			var conn net.Conn
			if conn, err = c.Isolated(fmt.Sprint(i)).DialContext(t.Context(), "tcp", "www.example:443"); err != nil {
				break
			}
			conns = append(conns, conn)
		}
		if !errors.Is(err, errFull) || len(conns) != most-1 {
			t.Errorf("%d circuits in use, then: %v", len(conns)+1, err)
		}
		if err := dialAndEcho(c.Isolated("kept"), "www.example:443"); err != nil {
			t.Errorf("one that has a circuit: %v", err)
		}
		conns[3].Close()
		time.Sleep(time.Second)
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Errorf("when there is room again: %v", err)
		}
		if err := echo(conns[0]); err != nil {
			t.Error(err)
		}
	})
}

// A link that ended between finding it and using it, for want of use, is dialled anew.
func TestIdleLinkIsDialledAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		c := w.ready(Config{})
		r := w.Relays[0].Descriptor
		peer := link.Peer{ID: r.ID, Key: r.LinkKey, Addrs: r.Addrs}
		tries := 0
		open := func(conn *link.Conn) error {
			tries++
			if tries == 1 {
				conn.Close()
				synctest.Wait()
			}
			_, err := circuit.Build(t.Context(), conn, circuit.Config{Network: w.Network.ID()},
				[]circuit.Hop{{ID: r.ID, LinkKey: r.LinkKey, OnionKey: r.OnionKey}})
			return err
		}
		if err := c.on(t.Context(), peer, open); err != nil || tries != 2 {
			t.Errorf("%v after %d tries", err, tries)
		}
		tries = 0
		err := c.on(t.Context(), peer, func(*link.Conn) error { tries++; return fmt.Errorf("x: %w", link.ErrClosed) })
		if !errors.Is(err, link.ErrClosed) || tries != 2 {
			t.Errorf("%v after %d tries: it must not go on for ever", err, tries)
		}
		tries = 0
		if c.on(t.Context(), peer, func(*link.Conn) error { tries++; return link.ErrBusy }); tries != 1 {
			t.Errorf("another error: %d tries", tries)
		}
	})
}

// All circuits that a broken link takes with it are one fault of one relay.
func TestBrokenLinkIsOneFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		c, _ := start(t, w, Config{Spare: 6})
		w.down.Store(true)
		for _, n := range w.nodes {
			n.links().Close()
		}
		time.Sleep(100 * time.Millisecond)
		c.pool.mu.Lock()
		defer c.pool.mu.Unlock()
		c.pool.clean(time.Now())
		for id, f := range c.pool.faults {
			if f.level > 1 {
				t.Errorf("%v: level %d", id, f.level)
			}
		}
		if len(c.pool.faults) == 0 {
			t.Error("nobody is blamed")
		}
	})
}
