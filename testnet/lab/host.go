package lab

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"peel/directory/cache"
)

// host is what a node has of its machine, and what may be wrong with it: its clock and its disk.
type host struct {
	skew atomic.Int64 // nanoseconds: how far the clock is ahead
	full atomic.Bool  // nothing fits on the disk any more
	slow atomic.Int64 // nanoseconds that it takes longer for each file
}

// now is what the clock says.
func (h *host) now() time.Time { return time.Now().Add(time.Duration(h.skew.Load())) }

// write replaces a file as a whole, if there is room.
func (h *host) write(name string, b []byte) error {
	if d := time.Duration(h.slow.Load()); d > 0 {
		time.Sleep(d)
	}
	if h.full.Load() {
		return &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}
	}
	return cache.WriteFile(name, b)
}

// hostOf is that of a node or a client; nil: it has none.
func (l *Lab) hostOf(name string) *host {
	if n := l.byName[name]; n != nil {
		return &n.host
	}
	return l.clientHosts[name]
}

// luck is what befalls a node by chance in one of its lives: it follows from the seed.
func (l *Lab) luck(name string, life int) rand.Source {
	var seed [32]byte
	copy(seed[:], l.secret(name, fmt.Sprintf("luck %d", life)))
	return rand.NewChaCha8(seed)
}

// log is where a node's log goes. What it is expected to say is looked for on the way.
func (l *Lab) log(node string) *slog.Logger {
	h := &listener{Handler: l.cfg.Log(node).Handler(), lab: l}
	for i, s := range l.plan.Expect.Says {
		if s.Node == node {
			h.waits = append(h.waits, i)
		}
	}
	if len(h.waits) == 0 {
		return l.cfg.Log(node)
	}
	return slog.New(h)
}

// listener looks in a log for what is expected of it.
type listener struct {
	slog.Handler
	lab   *Lab
	waits []int // of plan.Expect.Says
}

// Enabled implements slog.Handler.
func (h *listener) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || h.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *listener) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		var b strings.Builder
		b.WriteString(r.Message)
		r.Attrs(func(a slog.Attr) bool {
			fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
			return true
		})
		for _, i := range h.waits {
			if strings.Contains(b.String(), h.lab.plan.Expect.Says[i].Text) {
				h.lab.said[i].Store(true)
			}
		}
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *listener) WithAttrs(as []slog.Attr) slog.Handler {
	return &listener{h.Handler.WithAttrs(as), h.lab, h.waits}
}

// WithGroup implements slog.Handler.
func (h *listener) WithGroup(name string) slog.Handler {
	return &listener{h.Handler.WithGroup(name), h.lab, h.waits}
}
