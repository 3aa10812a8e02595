package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"peel/cell/contain"
)

// drainFor is how long what runs may take to end after SIGTERM.
const drainFor = 30 * time.Second

// onTerminate is what SIGTERM does before it ends peel; nil: nothing.
var onTerminate atomic.Pointer[func()]

// ending says that the first SIGTERM has come.
var ending atomic.Bool

// watchTerminate heeds the first SIGTERM until ctx ends; after it, the next SIGTERM or interrupt ends the process at once. end is how
// it ends peel. The caller waits for it with done.
func watchTerminate(ctx context.Context, end func()) (done func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	var wg contain.Group
	wg.Go(func(*contain.Panic) { end() }, func() {
		select {
		case <-ctx.Done():
			signal.Stop(c)
			return
		case <-c:
		}
		signal.Stop(c)
		signal.Reset(syscall.SIGTERM, os.Interrupt)
		ending.Store(true)
		if do := onTerminate.Load(); do != nil {
			(*do)()
		}
		end()
	})
	return wg.Wait
}

// drained runs a node until ctx ends; SIGTERM ends what it does not need any more first, and waits for drain, for drainFor at most.
func drained(ctx context.Context, log *slog.Logger, drain func(context.Context) error) error {
	do := func() {
		log.Info("ending: takes nothing new, and waits for what runs", "at_most", drainFor, "hint", "a second signal ends it at once")
		_ = tell("STOPPING=1\nSTATUS=waiting for what runs to end")
		ctx, cancel := context.WithTimeout(ctx, drainFor)
		defer cancel()
		if err := drain(ctx); errors.Is(err, context.DeadlineExceeded) {
			log.Warn("what ran did not end in time and is cut off", "after", drainFor)
		}
	}
	onTerminate.Store(&do)
	<-ctx.Done()
	onTerminate.CompareAndSwap(&do, nil)
	return nil
}
