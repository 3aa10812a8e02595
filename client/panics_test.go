package client

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/circuit"
	"peel/client/path"
)

// A bug where circuits are built fails what waits for one, is counted and in the log, and the client goes on.
func TestPanicOfABuildIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		c := newWorld(t, 12).client(Config{Spare: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
		var bug atomic.Bool
		build := c.pool.build
		c.pool.build = func(ctx context.Context, p path.Path) (*circuit.Circuit, error) {
			if bug.Load() {
				panic("oh")
			}
			return build(ctx, p)
		}
		run(t, c)
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		bug.Store(true)
		dialAndEcho(c.Isolated("takes the spare one"), "www.example:443")
		if err := dialAndEcho(c.Isolated("needs another"), "www.example:443"); !errors.Is(err, errPanic) {
			t.Fatal(err)
		}
		if n := c.Panics(); n < buildTries {
			t.Errorf("%d panics were counted", n)
		}
		if s := log.String(); !strings.Contains(s, "panic=oh") || !strings.Contains(s, "stack=") {
			t.Errorf("the log does not tell: %s", s)
		}
		bug.Store(false)
		if err := dialAndEcho(c.Isolated("later"), "www.example:443"); err != nil {
			t.Error(err)
		}
	})
}

// One in the upkeep ends Run with an error, and with it the circuits and what waits for them.
func TestPanicOfTheUpkeepEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWorld(t, 12).client(Config{})
		over := make(chan error)
		go func() { over <- c.Run(t.Context()) }()
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn := mustDial(t, c, "www.example:443")
		c.pool.mu.Lock()
		c.pool.guards = nil
		c.pool.mu.Unlock()
		if err := <-over; !errors.Is(err, errPanic) {
			t.Errorf("Run ended with %v", err)
		}
		if err := echo(conn); err == nil {
			t.Error("a stream outlived the client")
		}
		if _, err := c.DialContext(t.Context(), "tcp", "www.example:443"); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}
