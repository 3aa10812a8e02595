// Package contain starts goroutines in which a panic ends what they were for, and not the program.
//
// Every goroutine of this module begins here; house_test.go holds the code to it. What a panic was is told without
// anything that the program was working on: it may stand in a log that a stranger reads.
package contain

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Panic is a panic that was caught: a bug. It is an error.
type Panic struct {
	Value string // what the program said, or the kind of it: values that are errors may hold names
	Stack string // a line for each function, without arguments: keys and addresses may be among them
}

func (p *Panic) Error() string { return "a bug of this program: " + p.Value }

// LogValue gives both parts to a log.
func (p *Panic) LogValue() slog.Value {
	return slog.GroupValue(slog.String("panic", p.Value), slog.String("stack", p.Stack))
}

var total atomic.Uint64

// Total is how many panics were caught since the program began.
func Total() uint64 { return total.Load() }

// mostFrames is how much of a stack is told.
const mostFrames = 64

// Caught makes a Panic of what recover returned, which is not nil. It is for deferred functions, while the panic unwinds.
func Caught(value any) *Panic {
	total.Add(1)
	return &Panic{describe(value), stack()}
}

// describe tells of a value what was written in a program: texts of panics and of the runtime. Of all else it tells the type.
func describe(value any) string {
	switch v := value.(type) {
	case runtime.Error:
		return v.Error()
	case string:
		return v
	}
	return fmt.Sprintf("a value of type %T", value)
}

func stack() string {
	pcs := make([]uintptr, mostFrames)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	var b strings.Builder
	for panicked := false; ; {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic":
			panicked = true
		case panicked && !strings.HasPrefix(f.Function, "runtime."):
			fmt.Fprintf(&b, "%s (%s:%d)\n", f.Function, path.Base(f.File), f.Line)
		}
		if !more {
			return b.String()
		}
	}
}

// Do runs do, and returns the panic that ended it; nil: none did.
func Do(do func()) (p *Panic) {
	defer func() {
		if v := recover(); v != nil {
			p = Caught(v)
		}
	}()
	do()
	return nil
}

// tell tells ended of a panic, which is in the log if nobody wants to be told.
func tell(ended func(*Panic), p *Panic) {
	if p == nil {
		return
	}
	if ended == nil {
		slog.Default().Error("a bug: please report this", "bug", p)
		return
	}
	if again := Do(func() { ended(p) }); again != nil {
		slog.Default().Error("a bug in what deals with one: please report this", "bug", again)
	}
}

// Go runs do in a goroutine. If do panics, ended is told, in the same goroutine; nil: nobody is, and the log of the program says so.
// Whoever calls it waits for it, as for every goroutine.
func Go(ended func(*Panic), do func()) {
	go func() { tell(ended, Do(do)) }()
}

// A Group is goroutines that somebody waits for, as a sync.WaitGroup is. Its zero value is ready.
type Group struct{ wg sync.WaitGroup }

// Go is Go for a goroutine of the group, which is over when ended has returned too.
func (g *Group) Go(ended func(*Panic), do func()) {
	g.wg.Go(func() { tell(ended, Do(do)) })
}

// Wait waits for all of them.
func (g *Group) Wait() { g.wg.Wait() }

// After is time.AfterFunc.
func After(d time.Duration, ended func(*Panic), do func()) *time.Timer {
	return time.AfterFunc(d, func() { tell(ended, Do(do)) })
}

// AtEnd runs do when ctx ends, unless undo is called before, which waits for do if it has begun. Undo is called once.
func AtEnd(ctx context.Context, ended func(*Panic), do func()) (undo func()) {
	done := make(chan struct{})
	stop := OnDone(ctx, ended, func() {
		defer close(done)
		do()
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// OnDone is context.AfterFunc.
func OnDone(ctx context.Context, ended func(*Panic), do func()) (stop func() bool) {
	return context.AfterFunc(ctx, func() { tell(ended, Do(do)) })
}
