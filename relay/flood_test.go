package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/circuit"
	"peel/circuit/stream"
	"peel/directory"
)

// slowNames is a resolver that takes 50 ms for a name, and for slow ones as long as it may.
func slowNames(ctx context.Context, host string) ([]netip.Addr, error) {
	if strings.HasPrefix(host, "slow") {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-time.After(50 * time.Millisecond):
		return []netip.Addr{netip.MustParseAddr("1.1.1.1")}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// p95 looks a hundred names up, one after the other, and says how long all but five of them took at most.
func p95(t *testing.T, c *circuit.Circuit) time.Duration {
	t.Helper()
	var took []time.Duration
	for i := range 100 {
		began := time.Now()
		if _, err := c.Resolve(t.Context(), cell.Resolve{Name: fmt.Sprintf("name%d.example", i)}); err != nil {
			t.Errorf("look-up %d: %v", i, err)
			took = append(took, time.Hour)
			continue
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[94]
}

// flood begins what do does at a rate, in goroutines, until the function that it returns is called; that says what came of it.
func flood(each time.Duration, n int, do func(i int) error) (stop func() map[string]int) {
	done := make(chan struct{})
	came := make(map[string]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i += n {
			select {
			case <-done:
				return
			case <-time.After(each):
			}
			for k := range n {
				wg.Go(func() {
					err := do(i + k)
					mu.Lock()
					came[fmt.Sprint(err)]++
					mu.Unlock()
				})
			}
		}
	})
	return func() map[string]int {
		close(done)
		wg.Wait()
		return came
	}
}

// A circuit that floods an exit with what is refused, or with names that are slow, does not slow others down.
func TestAnHonestCircuitBesideOneThatFloodsAnExit(t *testing.T) {
	rate := 20 // in 10 ms
	if os.Getenv("PEEL_SLOW") == "1" {
		rate = 100
	} else {
		t.Log("2,000 a second instead of 10,000: PEEL_SLOW=1 for all")
	}
	for name, request := range map[string]func(c *circuit.Circuit, i int) error{
		"ports that are refused": func(c *circuit.Circuit, i int) error {
			_, err := c.Dial(context.Background(), cell.Begin{Host: "1.1.1.1", Port: 25})
			return err
		},
		"names that are slow": func(c *circuit.Circuit, i int) error {
			_, err := c.Resolve(context.Background(), cell.Resolve{Name: fmt.Sprintf("slow%d.example", i)})
			return err
		},
		"hosts whose names are slow": func(c *circuit.Circuit, i int) error {
			_, err := c.Dial(context.Background(), cell.Begin{Host: fmt.Sprintf("slow%d.example", i), Port: 80})
			return err
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, resolves(slowNames))
			honest, other := w.mustBuild(0), w.mustBuild(0)
			alone := p95(t, honest)
			time.Sleep(10 * time.Second)
			stop := flood(10*time.Millisecond, rate, func(i int) error { return request(other, i) })
			beside := p95(t, honest)
			other.Close()
			came := stop()
			if alone < 50*time.Millisecond || beside > 2*alone {
				t.Errorf("%s: p95 %v, alone %v", name, beside, alone)
			}
			if busy := came[(&stream.EndError{Reason: cell.EndBusy}).Error()]; busy < 200 {
				t.Errorf("%s: the flood met no bound: %v", name, came)
			}
			t.Logf("%s: p95 %v, alone %v; of the flood came %v", name, beside, alone, came)
		})
	}
}

// Many circuits that hold all they may leave places for one more.
func TestManyCircuitsOfSlowNamesLeaveRoomForOneMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, resolves(slowNames))
		honest := w.mustBuild(0)
		var wg sync.WaitGroup
		for range 20 { // 1280 look-ups for 1024 places
			c := w.mustBuild(0)
			for i := range mostPending {
				wg.Go(func() { c.Resolve(t.Context(), cell.Resolve{Name: fmt.Sprintf("slow%d.example", i)}) })
			}
		}
		synctest.Wait()
		r := w.relays[0]
		r.mu.Lock()
		n := r.dials.n
		r.mu.Unlock()
		if n != mostDials {
			t.Errorf("%d of %d places are taken", n, mostDials)
		}
		began := time.Now()
		if _, err := honest.Resolve(t.Context(), cell.Resolve{Name: "name.example"}); err != nil || time.Since(began) > 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		wg.Wait()
		synctest.Wait() // a place is free once its answer has gone
		r.mu.Lock()
		n = r.dials.n
		r.mu.Unlock()
		if n != 0 {
			t.Errorf("%d places are still taken", n)
		}
	})
}

func TestBucketOfACircuit(t *testing.T) {
	var b bucket
	now := time.Unix(1e9, 0)
	all := func() (n int) {
		for b.take(now, openBurst, openRate) {
			n++
		}
		return n
	}
	for _, c := range []struct {
		wait time.Duration
		want int
	}{{0, openBurst}, {0, 0}, {9 * time.Millisecond, 0}, {time.Millisecond, 1}, {time.Second, openRate}, {time.Hour, openBurst}, {-time.Hour, 0}, {time.Second, 0}} {
		now = now.Add(c.wait)
		if got := all(); got != c.want {
			t.Errorf("after %v: %d, want %d", c.wait, got, c.want)
		}
	}
}

// A policy that is changed while the relay runs ends what it forbids, and nothing else.
func TestANewPolicyEndsTheStreamsItForbids(t *testing.T) {
	var hosts []net.Listener
	for range 2 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		hosts = append(hosts, l)
	}
	port := func(i int) uint16 { return hosts[i].Addr().(*net.TCPAddr).AddrPort().Port() }
	w := newWorld(t, 1, exits(0))
	r, c := w.relays[0], w.mustBuild(0)
	var here, there []net.Conn
	for i := range hosts {
		s, err := c.Dial(t.Context(), cell.Begin{Host: "127.0.0.1", Port: port(i)})
		if err != nil {
			t.Fatal(err)
		}
		a, err := hosts[i].Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		here, there = append(here, s), append(there, a)
	}
	works := func(i int) error {
		if _, err := here[i].Write([]byte("ping")); err != nil {
			return err
		}
		_, err := io.ReadFull(there[i], make([]byte, 4))
		return err
	}
	only := func(i int) directory.Policy {
		return directory.Policy{{Accept: true, Prefix: netip.MustParsePrefix("127.0.0.1/32"), Lo: port(i), Hi: port(i)}}
	}
	s := r.settled.Load().Settings
	bad := s
	bad.Exit = directory.Policy{{Accept: true, Lo: 2, Hi: 1}}
	if err := r.Change(bad); err == nil || works(0) != nil || works(1) != nil {
		t.Fatalf("a policy that is none: %v", err)
	}
	s.Exit = only(1)
	if err := r.Change(s); err != nil {
		t.Fatal(err)
	}
	if _, err := here[0].Read(make([]byte, 1)); !errors.Is(err, &stream.EndError{Reason: cell.EndPolicy}) {
		t.Errorf("the client of what is forbidden reads %v", err)
	}
	if _, err := io.ReadAll(there[0]); err == nil {
		t.Error("to its host it looks whole")
	}
	if err := works(1); err != nil {
		t.Errorf("what is allowed: %v", err)
	}
	s.Exit = nil
	if err := r.Change(s); err != nil {
		t.Fatal(err)
	}
	if _, err := here[1].Read(make([]byte, 1)); !errors.Is(err, &stream.EndError{Reason: cell.EndPolicy}) {
		t.Errorf("no exit any more: %v", err)
	}
}
