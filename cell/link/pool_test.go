package link_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// A town is nodes that can dial each other in memory.
type town struct {
	t     *testing.T
	mu    sync.Mutex
	at    map[string]func(net.Conn) // who listens where
	dials []string
}

func newTown(t *testing.T) *town { return &town{t: t, at: make(map[string]func(net.Conn))} }

func (w *town) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dials = append(w.dials, addr)
	accept := w.at[addr]
	w.mu.Unlock()
	time.Sleep(20 * time.Millisecond) // the way there
	if accept == nil {
		return nil, errors.New("connection refused")
	}
	na, nb := linktest.Pipe(linktest.Options{Delay: 20 * time.Millisecond})
	accept(nb)
	return na, nil
}

func (w *town) dialled() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.dials)
}

// pool adds a node with a pool that listens at the addresses given.
func (w *town) pool(cfg *link.Config, idle time.Duration, addrs ...string) *link.Pool {
	p := link.NewPool(link.PoolConfig{Link: *cfg, Dial: w.dial, Handler: &host{take: true}, Idle: idle})
	var wg sync.WaitGroup
	for _, a := range addrs {
		w.at[a] = func(nc net.Conn) {
			wg.Go(func() {
				if c, err := link.Accept(context.Background(), nc, cfg); err == nil {
					p.Add(c)
				}
			})
		}
	}
	w.t.Cleanup(func() {
		p.Close()
		wg.Wait()
	})
	return p
}

func at(c *link.Config, addrs ...string) link.Peer {
	p := linktest.Peer(c)
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, netip.MustParseAddrPort(a))
	}
	return p
}

func TestPoolDialsOnceForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		a := linktest.Config(t, "a")
		b := relayConfig(t, "b", a)
		pa, pb := w.pool(a, 0), w.pool(b, 0, "10.0.0.2:1")
		var wg sync.WaitGroup
		conns := make([]*link.Conn, 50)
		for i := range conns {
			wg.Go(func() { conns[i], _ = pa.Get(context.Background(), at(b, "10.0.0.2:1")) })
		}
		wg.Wait()
		for _, c := range conns {
			if c == nil || c != conns[0] {
				t.Fatal("not one and the same link")
			}
		}
		if w.dialled() != 1 || pa.Links() != 1 {
			t.Errorf("%d dials, %d links", w.dialled(), pa.Links())
		}
		settle(time.Second)
		// The other side uses the link that it accepted.
		back, err := pb.Get(context.Background(), at(a, "10.0.0.1:1"))
		if err != nil || w.dialled() != 1 || pb.Links() != 1 {
			t.Fatalf("%v, %d dials", err, w.dialled())
		}
		e := openCirc(t, back)
		settle(time.Second)
		if e.reply == nil {
			t.Error("no circuit over the accepted link")
		}
		// A link that ended is dialled again.
		conns[0].Close()
		settle(time.Second)
		if pa.Links() != 0 || pb.Links() != 0 {
			t.Errorf("%d and %d links left", pa.Links(), pb.Links())
		}
		if again, err := pa.Get(context.Background(), at(b, "10.0.0.2:1")); err != nil || again == conns[0] {
			t.Errorf("after the end of the link: %v", err)
		}
		if s := pa.Stats(); s.Errors[link.ReasonClosed] != 1 || s.CellsOut == 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Who stole a relay's link key and connected with it is not taken for the relay any more once that has another key: neither
// on a link that he opened to us nor on one that we opened to him.
func TestLinksUnderAnOldKeyTakeNothingNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		thief := linktest.Config(t, "b")
		b := *thief
		b.Key = linktest.Key(t)
		a := relayConfig(t, "a", thief)
		pa := w.pool(a, 0, "10.0.0.1:1")
		if _, err := w.pool(thief, 0, "10.0.0.3:1").Get(t.Context(), at(a, "10.0.0.1:1")); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		old, err := pa.Get(t.Context(), at(thief, "10.0.0.3:1"))
		if err != nil || w.dialled() != 1 {
			t.Fatalf("%v, %d dials: the old link was not used while its key was the relay's", err, w.dialled())
		}
		w.pool(&b, 0, "10.0.0.2:1")
		fresh, err := pa.Get(t.Context(), at(&b, "10.0.0.2:1"))
		if err != nil || fresh == old {
			t.Fatalf("%v: the link is still that of the old key", err)
		}
		if again, err := pa.Get(t.Context(), at(&b, "10.0.0.2:1")); err != nil || again != fresh {
			t.Errorf("%v: the new link was not kept", err)
		}
		old.Close()
		settle(time.Second)
		if again, err := pa.Get(t.Context(), at(&b, "10.0.0.2:1")); err != nil || again != fresh || w.dialled() != 2 {
			t.Errorf("%v, %d dials: the end of the old link took the new one along", err, w.dialled())
		}
	})
}

func TestPoolTriesTheNextAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		b, other := linktest.Config(t, "b"), linktest.Config(t, "other")
		pa := w.pool(&link.Config{}, 0)
		w.pool(other, 0, "10.0.0.3:1")
		w.pool(b, 0, "[2001:db8::2]:1")
		c, err := pa.Get(context.Background(), at(b, "10.0.0.2:1", "10.0.0.3:1", "[2001:db8::2]:1"))
		if err != nil || w.dialled() != 3 {
			t.Fatalf("%v after %d dials", err, w.dialled())
		}
		if id, _ := c.PeerID(); id != b.ID {
			t.Error("another relay")
		}
		if pa.Stats().Errors[link.ReasonHandshake] != 1 {
			t.Errorf("%+v", pa.Stats().Errors)
		}
	})
}

func TestPoolFailsInWordsAndTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		b := linktest.Config(t, "b")
		pa := w.pool(&link.Config{}, 0)
		if _, err := pa.Get(context.Background(), at(b)); err == nil {
			t.Error("a link to nowhere")
		}
		_, err := pa.Get(context.Background(), at(b, "10.0.0.2:1"))
		if err == nil || !strings.Contains(err.Error(), "10.0.0.2:1: connection refused") {
			t.Errorf("%v", err)
		}
		w.pool(b, 0, "10.0.0.2:1")
		if _, err := pa.Get(context.Background(), at(b, "10.0.0.2:1")); err != nil {
			t.Errorf("when the relay is there: %v", err)
		}
	})
}

func TestCallerMayGiveUpWhileOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		b := linktest.Config(t, "b")
		pa := w.pool(&link.Config{}, 0)
		w.pool(b, 0, "10.0.0.2:1")
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			defer cancel()
			if _, err := pa.Get(ctx, at(b, "10.0.0.2:1")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who gave up: %v", err)
			}
		})
		if _, err := pa.Get(context.Background(), at(b, "10.0.0.2:1")); err != nil {
			t.Errorf("who waited: %v", err)
		}
		wg.Wait()
	})
}

func TestIdleLinksEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		b := linktest.Config(t, "b")
		pa := w.pool(&link.Config{}, time.Minute)
		w.pool(b, time.Hour, "10.0.0.2:1")
		c, err := pa.Get(context.Background(), at(b, "10.0.0.2:1"))
		if err != nil {
			t.Fatal(err)
		}
		e := openCirc(t, c)
		settle(10 * time.Minute)
		if c.Err() != nil {
			t.Fatalf("a link with a circuit ended: %v", c.Err())
		}
		e.circ.Close(cell.DestroyNone)
		settle(50 * time.Second)
		if again, _ := pa.Get(context.Background(), at(b, "10.0.0.2:1")); again != c {
			t.Fatal("another link")
		}
		settle(50 * time.Second)
		if c.Err() != nil {
			t.Fatalf("a link that was just asked for ended: %v", c.Err())
		}
		settle(20 * time.Second)
		if link.ReasonOf(c.Err()) != link.ReasonIdle || pa.Links() != 0 {
			t.Errorf("after a minute without circuits: %v", c.Err())
		}
	})
}

func TestClosingThePoolEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		a := linktest.Config(t, "a")
		b := relayConfig(t, "b", a)
		pa, pb := w.pool(a, 0), w.pool(b, 0, "10.0.0.2:1")
		c, err := pa.Get(context.Background(), at(b, "10.0.0.2:1"))
		if err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		silent := make(chan net.Conn, 1)
		w.mu.Lock()
		w.at["10.0.0.9:1"] = func(nc net.Conn) { silent <- nc }
		w.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := pa.Get(context.Background(), at(linktest.Config(t, "silent"), "10.0.0.9:1")); err == nil {
				t.Error("a link to somebody silent")
			}
		})
		settle(time.Second)
		start := time.Now()
		pa.Close()
		wg.Wait()
		if d := time.Since(start); d > 0 {
			t.Errorf("Close took %v", d)
		}
		if _, err := pa.Get(context.Background(), at(b, "10.0.0.2:1")); err != link.ErrClosed {
			t.Errorf("Get: %v", err)
		}
		if c.Err() == nil || pa.Links() != 0 {
			t.Error("a link is left")
		}
		na, nb := linktest.Pipe(linktest.Options{})
		la, lb, _, _ := linktest.Shake(na, nb, a, b, linktest.Peer(b))
		pa.Add(la)
		if la.Err() == nil {
			t.Error("a closed pool took a link")
		}
		lb.Close()
		(<-silent).Close()
		settle(time.Second)
		if pb.Links() != 0 {
			t.Error("the other side still has the link")
		}
	})
}
