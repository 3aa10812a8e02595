package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
)

// burst dials a host so many times at once, and gives back what stays open, and the errors.
func burst(t *testing.T, c *Client, n int) (open []net.Conn, errs []error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			conn, err := c.DialContext(t.Context(), "tcp", "www.example:443")
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
			} else {
				open = append(open, conn)
			}
		})
	}
	wg.Wait()
	return open, errs
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// A program dials a thousand times at once. All connections come about, on as few circuits as relays take them on.
func TestThousandDialsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		w.narrow, w.delayed = true, func() time.Duration { return 100 * time.Millisecond }
		c, _ := start(t, w, Config{})
		open, errs := burst(t, c, 1000)
		defer closeAll(open)
		if len(errs) > 0 {
			t.Errorf("%d failed: %v", len(errs), errs[0])
		}
		if _, used := counts(c); used < 4 || used > 5 {
			t.Errorf("%d circuits for 1000 streams", used)
		}
	})
}

// More streams than all circuits may carry: the error says which bound it was, and when some have ended there is place again.
func TestStreamsBeyondAllCircuits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		w.narrow = true
		c, _ := start(t, w, Config{Spare: 1, Circuits: 2})
		open, errs := burst(t, c, 2*mostStreams+100)
		if len(open) > 2*mostStreams || len(errs) == 0 {
			t.Fatalf("%d open on two circuits, %d failed", len(open), len(errs))
		}
		if !slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, errFull) }) {
			t.Error(errs[0])
		}
		closeAll(open)
		time.Sleep(fullFor)
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Error(err)
		}
	})
}

// A circuit on which 64 hosts do not answer keeps nobody who asks for another host for longer than a moment.
func TestHostsThatAreSilentKeepNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		w.narrow = true
		c, _ := start(t, w, Config{NoRacing: true})
		var wg sync.WaitGroup
		defer wg.Wait()
		for range mostAsked {
			wg.Go(func() { c.DialContext(t.Context(), "tcp", "silence.example:443") })
		}
		time.Sleep(100 * time.Millisecond)
		begin := time.Now()
		for i := range 3 {
			if err := dialAndEcho(c, "www.example:443"); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took > raceUntold+100*time.Millisecond {
				t.Errorf("after %d more: %v", i+1, took)
			}
		}
		if _, used := counts(c); used != 2 {
			t.Errorf("%d circuits are used", used)
		}
	})
}

// A relay that is busy is let be for a while, and asked again: its circuit has not failed. Not a second time: it may say so to be shown more.
func TestBusyCircuitIsUsedAgainOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		c, _ := start(t, w, Config{Spare: 1, NoRacing: true})
		way := func() any {
			conn := mustDial(t, c, "www.example:443")
			defer conn.Close()
			return &PathOf(conn)[0] // another one for each circuit
		}
		first := way()
		for i, again := range []bool{true, false} {
			w.refusals.Store(1)
			conn := mustDial(t, c, fmt.Sprintf("fickle-%d.example:443", cell.EndBusy))
			conn.Close()
			time.Sleep(fullFor - time.Second)
			if way() == first {
				t.Errorf("%d: asked again while it is busy", i)
			}
			time.Sleep(2 * time.Second)
			if (way() == first) != again {
				t.Errorf("%d: asked again: %v", i, !again)
			}
		}
	})
}

// Who waits in line for a circuit that is given up meanwhile takes another.
func TestNobodyWaitsForACircuitThatIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 12)
		w.narrow = true
		c, _ := start(t, w, Config{NoRacing: true})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		for range mostAsked {
			wg.Go(func() { c.DialContext(ctx, "tcp", "silence.example:443") })
		}
		time.Sleep(100 * time.Millisecond)
		var full *held
		for _, h := range c.pool.all() {
			if len(h.line) == mostAsked {
				full = h
			}
		}
		if full == nil {
			t.Fatal("no circuit has so many that wait")
		}
		got := make(chan net.Conn, 1)
		wg.Go(func() {
			conn, err := c.DialContext(t.Context(), "tcp", "www.example:443")
			if err != nil {
				t.Error(err)
			} else {
				got <- conn
			}
		})
		time.Sleep(100 * time.Millisecond)
		c.pool.discard(full)
		cancel() // so that there is place in the line
		time.Sleep(time.Second)
		var conn net.Conn
		select {
		case conn = <-got:
			defer conn.Close()
		default:
			t.Fatal("it waits still")
		}
		if &PathOf(conn)[0] == &full.path[0] {
			t.Error("it was asked for on the circuit that had been given up")
		}
	})
}
