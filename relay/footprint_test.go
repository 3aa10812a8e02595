package relay

import (
	"log/slog"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"peel/cell/link/linktest"
	"peel/cell/memtest"
	"peel/circuit"
	"peel/directory/dirtest"
)

// 10,000 circuits that carry nothing take 80 MiB of a relay at most. Both ends of each, the client's too, are in this process.
func TestIdleCircuitsAreSmall(t *testing.T) {
	n := 200
	if os.Getenv("PEEL_SLOW") == "1" {
		n = 10_000
	} else {
		t.Logf("%d circuits: PEEL_SLOW=1 makes it 10000", n)
	}
	w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.Limits.Off = true })
	lc := w.connect(0)
	circs := make([]*circuit.Circuit, 0, n)
	build := func() {
		c, err := w.buildOver(t.Context(), lc, w.hops[:1])
		if err != nil {
			t.Fatalf("circuit %d: %v", len(circs), err)
		}
		circs = append(circs, c)
	}
	build()
	before := memtest.InUse()
	for len(circs) < n {
		build()
	}
	each := (memtest.InUse() - before) / int64(n-1)
	t.Logf("a circuit takes %d bytes of heap at both its ends: 10,000 take %d MiB", each, each*10_000>>20)
	if each > 80<<20/10_000 {
		t.Errorf("a circuit takes %d bytes, want at most %d", each, 80<<20/10_000)
	}
	runtime.KeepAlive(circs)
}

// A relay that carries nothing, in a network of 100, holds a few MiB.
func TestAnIdleRelayIsSmall(t *testing.T) {
	n := dirtest.New(1, 100, dirtest.At(time.Now().UTC().Truncate(time.Second)))
	before := memtest.InUse()
	d := &n.Relays[0]
	l := linktest.Listen(d.Descriptor.Addrs[0])
	r, err := New(Config{
		Network: n.Network, Keys: Keys{Identity: d.Identity, Link: d.Link, Onion: d.Onion}, Listeners: []net.Listener{l},
		Nickname: d.Descriptor.Nickname, Log: slog.New(slog.DiscardHandler), Dir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.cache.Put(n.Text, time.Now()); err != nil {
		t.Fatal(err)
	}
	r.known.Store(r.known.Load().with(r.cache.Consensus()))
	took := memtest.InUse() - before
	t.Logf("a relay with a consensus of 100 relays takes %d KiB of heap", took>>10)
	if took > 4<<20 {
		t.Errorf("it takes %d KiB", took>>10)
	}
	runtime.KeepAlive(r)
	runtime.KeepAlive(n)
}
