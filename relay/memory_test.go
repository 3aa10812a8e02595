package relay

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"unsafe"

	"peel/cell/link"
	"peel/circuit/layer"
	"peel/circuit/stream"
	"peel/directory/dirtest"
)

// TestSharesOfMemory: whatever a relay's memory is, all that it is divided into comes to no more, and is what the page says.
func TestSharesOfMemory(t *testing.T) {
	page, err := os.ReadFile("../spec/queues.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := 0
	for _, s := range shares {
		parts += s.part
		one, gives := "–", fmt.Sprintf("%d MiB", s.of(1<<30)>>20)
		switch {
		case s.bytes >= 1<<10:
			one, gives = fmt.Sprintf("%d KiB", s.bytes>>10), fmt.Sprint(s.of(1<<30))
		case s.bytes > 1:
			one, gives = fmt.Sprintf("%d bytes", s.bytes), grouped(s.of(1<<30))
		}
		most := "–"
		if s.most > 0 {
			most = fmt.Sprint(s.most)
		}
		if row := fmt.Sprintf("| %d/32 | %s | %s | %s", s.part, one, most, gives); !strings.Contains(string(page), row) {
			t.Errorf("spec/queues.md has no row of %s that says %s", s.name, row)
		}
	}
	if parts != 32 {
		t.Errorf("the shares come to %d of 32", parts)
	}
	for _, memory := range []int64{LeastMemory, 100e6, 1 << 30, usualMemory, 16 << 30, 1 << 40} {
		sum := int64(0)
		for _, s := range shares {
			n := s.of(memory)
			if n < 1 || s.most > 0 && n > s.most {
				t.Errorf("%d bytes of memory: %s is %d", memory, s.name, n)
			}
			sum += int64(n) * int64(s.bytes)
		}
		if sum > memory {
			t.Errorf("%d bytes of memory: all comes to %d", memory, sum)
		}
	}
}

// grouped writes a number of millions with commas.
func grouped(n int) string { return fmt.Sprintf("%d,%03d,%03d", n/1e6, n/1e3%1e3, n%1e3) }

// TestCircuitTakesItsShareAtMost: what a circuit is made of, but for its streams, is no more than is counted for it.
func TestCircuitTakesItsShareAtMost(t *testing.T) {
	const maps = 4 * 64    // the tables of the streams while there are none, and its places in those of relay and links
	const closed = 2 * 512 // circuits that are over (link.Budget)
	n := unsafe.Sizeof(transit{}) + 2*unsafe.Sizeof(layer.Layer{}) + unsafe.Sizeof(stream.Mux{}) + 2*unsafe.Sizeof(link.Circ{}) + maps + closed
	t.Logf("%d bytes", n)
	if n > circuitBytes {
		t.Errorf("%d bytes, and %d are counted", n, circuitBytes)
	}
}

// TestMemorySizesTheBounds: a relay of little memory takes less of everything, unless it is told.
func TestMemorySizesTheBounds(t *testing.T) {
	made := func(change func(*Config)) (Config, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		cfg := Config{Network: dirtest.New(1, 0).Network, Keys: someKeys(t), Listeners: []net.Listener{l}, Nickname: "me"}
		change(&cfg)
		r, err := New(cfg)
		if err != nil {
			return cfg, err
		}
		return r.cfg, nil
	}
	small, err := made(func(c *Config) { c.Memory = 128 << 20; c.MaxTasks = 5 })
	if err != nil {
		t.Fatal(err)
	}
	if small.MaxQueued != 32<<20 || small.MaxUnread != 24<<20 || small.MaxCopied != 8<<20 || small.MaxTasks != 5 ||
		small.MaxLinks != 199 || small.MaxCircuits != 2048 || small.MaxLate != 4<<20/16 {
		t.Errorf("%+v", small)
	}
	usual, err := made(func(*Config) {})
	if err != nil {
		t.Fatal(err)
	}
	if usual.MaxQueued != 512<<20 || usual.MaxUnread != 384<<20 || usual.MaxCopied != 128<<20 || usual.MaxTasks != 8192 ||
		usual.MaxLinks != 3185 || usual.MaxCircuits != 32768 || usual.MaxLate != 4<<20 {
		t.Errorf("not what Config says: %+v", usual)
	}
	for _, n := range []int64{-1, 1, LeastMemory - 1} {
		if _, err := made(func(c *Config) { c.Memory = n }); err == nil || !strings.Contains(err.Error(), "Memory") {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
