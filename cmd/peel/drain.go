package main

import (
	"context"
	"errors"
	"fmt"
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

// watchTerminate heeds SIGTERM until it is undone: the first does what there is to do before the end, and ends peel by end. The second
// signal, whichever came first, ends the process at once, and says so.
func watchTerminate(end func()) (undo func()) {
	c := make(chan os.Signal, 2)
	signal.Notify(c, syscall.SIGTERM, os.Interrupt)
	quit := make(chan struct{})
	var wg contain.Group
	next := func() os.Signal {
		select {
		case s := <-c:
			return s
		case <-quit:
			return nil
		}
	}
	wg.Go(func(*contain.Panic) { end() }, func() {
		first := next()
		if first == nil {
			return
		}
		came := time.Now()
		wg.Go(func(*contain.Panic) { end() }, func() {
			s := next()
			for s != nil && echo(first, s, time.Since(came)) {
				s = next()
			}
			if s != nil {
				endAtOnce(s)
			}
		})
		if first == os.Interrupt {
			return // it ends peel by the context of main
		}
		ending.Store(true)
		if do := onTerminate.Load(); do != nil {
			(*do)()
		}
		end()
	})
	return func() {
		signal.Stop(c)
		close(quit)
		wg.Wait()
	}
}

// echo says that a signal that comes so long after the first is the same one: timeout(1) sends it to the program and to the group that the
// program is in, and what hands Ctrl-C on to a program that the terminal tells of it does alike.
func echo(first, s os.Signal, after time.Duration) bool {
	return s == first && after < 500*time.Millisecond
}

// onSecond tells in the node's log that a second signal ends it; nil: there is no log.
var onSecond atomic.Pointer[func(os.Signal)]

// tellAtMost is how long telling of the second signal may keep the process from its end: what its log goes to may take nothing more.
const tellAtMost = time.Second

// endAtOnce ends the process by a signal, as if nobody had heeded it. Signals that come after it do what they do without peel.
func endAtOnce(s os.Signal) {
	signal.Reset(syscall.SIGTERM, os.Interrupt)
	told := make(chan struct{})
	contain.Go(nil, func() {
		defer close(told)
		if tell := onSecond.Load(); tell != nil {
			(*tell)(s)
		} else {
			fmt.Fprintf(os.Stderr, "peel: a second signal (%v) ends it at once\n", s)
		}
	})
	select {
	case <-told:
	case <-time.After(tellAtMost):
	}
	dieOf(s)
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
	second := func(s os.Signal) {
		log.Warn("a second signal ends this node at once: what ran is cut off", "signal", s.String())
	}
	onSecond.Store(&second)
	onTerminate.Store(&do)
	<-ctx.Done()
	onTerminate.CompareAndSwap(&do, nil)
	return nil
}
