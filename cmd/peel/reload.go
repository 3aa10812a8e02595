package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
)

// onHangup is what SIGHUP does instead of ending peel; nil: it ends it, as the end of a terminal does.
var onHangup atomic.Pointer[func()]

// watchHangup heeds SIGHUP until ctx ends; end is how it ends peel. The caller waits for it with done.
func watchHangup(ctx context.Context, end func()) (done func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	var wg sync.WaitGroup
	wg.Go(func() {
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
func reloadOnHangup(ctx context.Context, reload func(context.Context) error) error {
	do := func() { _ = reload(ctx) } // it tells in the log
	onHangup.Store(&do)
	<-ctx.Done()
	onHangup.CompareAndSwap(&do, nil)
	return nil
}
