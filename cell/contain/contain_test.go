package contain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What ends in a panic is told, counted, and waited for; the program goes on.
func TestAPanicEndsItsGoroutineOnly(t *testing.T) {
	before := Total()
	told := make(chan *Panic, 1)
	tell := func(p *Panic) { told <- p }
	oh := func() { panic("oh") }
	ctx, cancel := context.WithCancel(t.Context())
	ways := map[string]func(){
		"Go":    func() { Go(tell, oh) },
		"Group": func() { var g Group; g.Go(tell, oh); g.Wait() },
		"After": func() { After(time.Nanosecond, tell, oh) },
		"Done":  func() { OnDone(ctx, tell, oh); cancel() },
		"Do":    func() { tell(Do(oh)) },
	}
	for name, way := range ways {
		way()
		if p := <-told; p.Value != "oh" || !strings.Contains(p.Stack, "contain.TestAPanicEndsItsGoroutineOnly.func") || !strings.Contains(p.Error(), "oh") {
			t.Errorf("%s: %q, in\n%s", name, p.Value, p.Stack)
		}
	}
	if n := Total() - before; n != uint64(len(ways)) {
		t.Errorf("%d panics were counted", n)
	}
	if p := Do(func() {}); p != nil {
		t.Error("a panic where there was none:", p)
	}
}

// A group waits for who is told, and one who panics in turn is caught too.
func TestWhoIsToldMayPanic(t *testing.T) {
	before := Total()
	var g Group
	heard := false
	g.Go(func(*Panic) { heard = true; panic("again") }, func() { panic("oh") })
	g.Wait()
	if n := Total() - before; !heard || n != 2 {
		t.Errorf("heard: %v; %d panics were counted", heard, n)
	}
}

// Where nobody is told the program's log says it.
func TestAPanicThatNobodyHearsOfIsLogged(t *testing.T) {
	var b bytes.Buffer
	was := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&b, nil)))
	defer slog.SetDefault(was)
	var g Group
	g.Go(nil, func() { panic("oh") })
	g.Wait()
	if s := b.String(); !strings.Contains(s, "panic=oh") || !strings.Contains(s, "stack=") {
		t.Errorf("the log says %q", s)
	}
}

func TestWhatIsDoneAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var did string
		ctx, cancel := context.WithCancel(t.Context())
		AtEnd(ctx, nil, func() { did += "undone " })()
		undo := AtEnd(ctx, nil, func() {
			time.Sleep(time.Second)
			did += "done"
		})
		cancel()
		undo()
		if did != "done" {
			t.Errorf("when undo returned: %q", did)
		}
	})
}

const canary = "canary.example"

// crash panics with arguments that a trace of the runtime would show as numbers.
//
//go:noinline
func crash(how int, name string, key [32]byte, host []byte, none map[string]int) {
	switch how {
	case 0:
		panic(fmt.Errorf("dial %s with %x: refused", name, key))
	case 1:
		panic([]string{name, string(host)})
	case 2:
		panic(errors.New(name))
	case 3:
		_ = host[len(name)+how*1000]
	case 4:
		none[name] = int(key[0])
	case 5:
		panic("a text of the program")
	}
}

// Names, addresses and keys that code was at work on are not in what a log is told of its panic.
func TestNoSecretIsTold(t *testing.T) {
	key := [32]byte([]byte("\xca\xfe\xca\xfe\xba\xbe" + strings.Repeat("\xca\xfe", 13)))
	for how, want := range []string{"a value of type *", "a value of type []string", "a value of type *errors", "index out of range", "nil map", "a text of the program"} {
		p := Do(func() { crash(how, canary, key, []byte(canary), nil) })
		if p == nil {
			t.Fatalf("%d did not panic", how)
		}
		var b bytes.Buffer
		slog.New(slog.NewTextHandler(&b, nil)).Error("bug", "bug", p)
		all := b.String() + p.Error() + p.Stack + p.Value
		for _, secret := range []string{canary, "cafe", "0x", fmt.Sprintf("%x", canary)} {
			if strings.Contains(all, secret) {
				t.Errorf("%d: %q is in %s", how, secret, all)
			}
		}
		if !strings.Contains(p.Value, want) {
			t.Errorf("%d: told of as %q", how, p.Value)
		}
		if !strings.HasPrefix(p.Stack, "peel/cell/contain.crash (contain_test.go:") {
			t.Errorf("%d: the stack begins elsewhere:\n%s", how, p.Stack)
		}
	}
}

// Points do nothing but while one is armed.
func TestPoints(t *testing.T) {
	Point("a")
	var met []string
	disarm := Arm(func(name string) { met = append(met, name) })
	Point("b")
	disarm()
	Point("c")
	if len(met) != 1 || met[0] != "b" {
		t.Errorf("met %v", met)
	}
}
