package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"peel/cell/contain"
)

// onHangup is what SIGHUP does instead of ending peel; nil: it ends it, as the end of a terminal does.
var onHangup atomic.Pointer[func()]

// watchHangup heeds SIGHUP until ctx ends; end is how it ends peel. The caller waits for it with done.
func watchHangup(ctx context.Context, end func()) (done func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	var wg contain.Group
	wg.Go(func(*contain.Panic) { end() }, func() {
		defer signal.Stop(c)
		for {
			select {
			case <-ctx.Done():
				return
			case <-c:
				do := onHangup.Load()
				if do == nil {
					end()
					return
				}
				(*do)()
			}
		}
	})
	return wg.Wait
}

// reloadOnHangup lets SIGHUP reload until ctx ends. What is wrong is in the log, and the node goes on as before.
func reloadOnHangup(ctx context.Context, reload func(context.Context) (string, error)) error {
	do := func() { _, _ = reload(ctx) } // it tells in the log
	onHangup.Store(&do)
	<-ctx.Done()
	onHangup.CompareAndSwap(&do, nil)
	return nil
}

// reloading makes a node read its configuration again: once at a time, all of it or nothing, and told in the log. do returns what has
// changed by that, for people; what it returns says the same, or every mistake in a line of its own.
func reloading(log *slog.Logger, do func() (changed []string, err error)) func(context.Context) (string, error) {
	var mu sync.Mutex
	return func(context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		changed, err := do()
		if err != nil {
			var all []string
			for _, e := range each(err) {
				all = append(all, plainly(e))
			}
			log.Warn("configuration not reloaded, the node goes on as before", "why", strings.Join(all, "; "))
			return "", errors.New(strings.Join(all, "\n"))
		}
		what := strings.Join(changed, ", ")
		log.Info("configuration reloaded", "changed", what)
		return fmt.Sprintf("reloaded, and nothing waits for a restart; changed: %s", cmp.Or(what, "nothing")), nil
	}
}
