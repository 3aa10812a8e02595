package relay

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"unsafe"

	"peel/cell"
)

// memoryOf are the bytes of what a pointer points to, copied.
func memoryOf[T any](p *T) []byte {
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Sizeof(*p)))
}

// telling says whether bytes are worth looking for: a key, not counters, pointers and zeroes.
func telling(b []byte) bool {
	var seen [256]bool
	n := 0
	for _, x := range b {
		if !seen[x] {
			seen[x] = true
			n++
		}
	}
	return n >= 14
}

// Neither a log at its most talkative, nor the trace of a contained panic, nor that of all goroutines has what a circuit's layers are made of.
func TestNoLogAndNoTraceHasACircuitsSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedLog
		w := newWorld(t, 1, resolves(func(_ context.Context, host string) ([]netip.Addr, error) {
			if host == "panic.example." {
				panic("a bug that the test made")
			}
			return nil, &net.DNSError{IsNotFound: true}
		}), func(_ int, cfg *Config) {
			cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		c := w.mustBuild(0)
		c.Resolve(t.Context(), cell.Resolve{Name: "quagga.example"})
		c.Resolve(t.Context(), cell.Resolve{Name: "panic.example"})
		synctest.Wait() // nobody works on the layers now
		all := w.relays[0].all()
		if len(all) != 1 {
			t.Fatalf("%d circuits", len(all))
		}
		trace := make([]byte, 4<<20)
		trace = trace[:runtime.Stack(trace, true)]
		text := log.String() + string(trace) + fmt.Sprintf("%+v", w.relays[0].Gauges())
		for _, want := range []string{"a bug that the test made", "relay.(*Relay)"} {
			if !strings.Contains(text, want) {
				t.Errorf("there is no %q: is it all there?", want)
			}
		}
		n := 0
		for _, secret := range [][]byte{memoryOf(all[0].fwd), memoryOf(all[0].back)} {
			for i := 0; i+16 <= len(secret); i += 4 {
				b := secret[i : i+16]
				if !telling(b) {
					continue
				}
				n++
				var parts []string
				for _, x := range b[:6] {
					parts = append(parts, fmt.Sprintf("%#x", x))
				}
				for _, written := range []string{string(b), hex.EncodeToString(b[:8]), strings.Join(parts, ", "), strings.Trim(fmt.Sprint(b[:6]), "[]")} {
					if strings.Contains(text, written) {
						t.Errorf("bytes %d to %d of a layer are written down", i, i+16)
					}
				}
			}
		}
		if n < 8 {
			t.Errorf("only %d pieces of keys were found in the layers: is the test broken?", n)
		}
		if strings.Contains(log.String(), "quagga") {
			t.Error("a name is in a log")
		}
	})
}
