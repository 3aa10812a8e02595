package link_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

func TestCheckedLinkStaysWhileThePeerIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := linktest.Pair(t, linktest.Config(t, "a"), linktest.Config(t, "b"), linktest.Handlers{}, linktest.Options{Delay: 400 * time.Millisecond})
		for range 20 {
			a.Check(time.Second)
			b.Check(time.Second)
			time.Sleep(700 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		if a.Err() != nil || b.Err() != nil {
			t.Errorf("%v, %v", a.Err(), b.Err())
		}
		a.Close()
		a.Check(time.Second) // nothing to check
	})
}

// A check that begins while the answer to the one before is being taken, which it was too late to be ended by, asks anew.
func TestCheckWhileAnAnswerComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var checked atomic.Pointer[link.Conn]
		checks := 0 // the reader's
		cfg := linktest.Config(t, "a")
		cfg.Tap = func(in bool, cells []cell.Cell) {
			for i := range cells {
				a := checked.Load()
				if !in || a == nil || cells[i].Command() != cell.CmdCredit {
					continue
				}
				if m, err := cell.ParseCreditCell(cells[i].Body()); err == nil && m.Answer != 0 && checks < 10 {
					checks++
					a.Check(5 * time.Second)
					time.Sleep(time.Millisecond) // the writer looks what there is to ask
				}
			}
		}
		a, b := linktest.Pair(t, cfg, linktest.Config(t, "b"), linktest.Handlers{}, linktest.Options{Delay: 20 * time.Millisecond})
		time.Sleep(time.Second)
		checked.Store(a)
		a.Check(5 * time.Second)
		time.Sleep(time.Minute)
		if a.Err() != nil || b.Err() != nil {
			t.Errorf("%v, %v", a.Err(), b.Err())
		}
		if a.Close(); checks != 10 {
			t.Errorf("%d checks began while an answer came", checks)
		}
	})
}

func TestCheckFindsASilentLink(t *testing.T) {
	for _, busy := range []bool{false, true} { // its writer waits for the socket, or for something to write
		synctest.Test(t, func(t *testing.T) {
			na, nb := linktest.Pipe(linktest.Options{Delay: 20 * time.Millisecond, Window: 64 << 10})
			a, _ := linktest.Join(t, na, nb, linktest.Config(t, "a"), linktest.Config(t, "b"), linktest.Handlers{B: &host{}})
			time.Sleep(time.Second)
			nb.Stall(time.Hour)
			if busy {
				for range 100 {
					openCirc(t, a)
				}
				time.Sleep(time.Second)
			}
			begin := time.Now()
			a.Check(5 * time.Second)
			a.Check(time.Hour) // changes nothing
			<-a.Done()
			if took := time.Since(begin); took != 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if err := a.Err(); link.ReasonOf(err) != link.ReasonLost || !strings.Contains(err.Error(), "nothing came from it for 5s") {
				t.Error(err)
			}
		})
	}
}

// An echo comes when the peer has had all that the circuit sent, also if somebody had asked before, or there is much of it.
func TestEchoGoesBehindTheCellsOfItsCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{take: true}
		a, _ := linktest.Pair(t, &link.Config{}, linktest.Config(t, "b"), linktest.Handlers{B: h}, linktest.Options{Delay: time.Second, Rate: 20_000})
		e := openCirc(t, a)
		time.Sleep(5 * time.Second)
		for n := range 5 {
			a.Check(time.Minute)
			if err := e.circ.Send(numberCells(0, 32)); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			if err := e.circ.Echo(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := len(h.end(0).got()); got != 32*(n+1) || time.Since(begun) < 2*time.Second {
				t.Errorf("after %v it has %d cells", time.Since(begun), got)
			}
		}
		done := make(chan error, 2)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- e.circ.Echo(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		e.circ.Close(cell.DestroyNone)
		if err := e.circ.Echo(t.Context()); err != nil { // the peer is there all the same
			t.Error(err)
		}
		go func() { done <- e.circ.Echo(t.Context()) }()
		synctest.Wait()
		a.Close()
		if err := <-done; err == nil {
			t.Error("an echo of a link that has ended")
		}
	})
}

// A check gives a link that is known to be long its time.
func TestCheckKnowsTheRoundTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		na, nb := linktest.Pipe(linktest.Options{Delay: time.Second})
		a, _ := linktest.Join(t, na, nb, &link.Config{}, linktest.Config(t, "b"), linktest.Handlers{B: &host{}})
		na.SetDelay(4 * time.Second)
		nb.SetDelay(4 * time.Second)
		e := openCirc(t, a)
		if err := e.circ.Echo(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			a.Check(5 * time.Second)
			time.Sleep(time.Minute)
		}
		if a.Err() != nil {
			t.Error(a.Err())
		}
	})
}

// A pool checks the links that are silent, and only those; after Reset it dials anew, also where it is dialling.
func TestPoolChecksAndResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		cfg := linktest.Config(t, "relay")
		w.pool(cfg, 0, "192.0.2.1:9001")
		client := w.pool(&link.Config{Network: cfg.Network}, 0)
		peer := linktest.Peer(cfg)
		peer.Addrs = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9001")}
		first, err := client.Get(t.Context(), peer)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			client.Check(15*time.Second, time.Nanosecond) // it is not silent for so long: both pad
			time.Sleep(time.Second)
		}
		if first.Err() != nil {
			t.Fatal(first.Err())
		}
		client.Check(0, time.Nanosecond)
		time.Sleep(time.Second)
		if first.Err() == nil {
			t.Error("it was checked, and had no time to answer")
		}
		second, err := client.Get(t.Context(), peer)
		if err != nil {
			t.Fatal(err)
		}
		client.Reset()
		<-second.Done()
		go client.Get(t.Context(), peer)
		synctest.Wait()
		before := w.dialled()
		client.Reset()
		third, err := client.Get(t.Context(), peer)
		if err != nil || third == second || w.dialled() != before+1 {
			t.Errorf("%d dials, %v", w.dialled()-before, err)
		}
		if third.Err() != nil {
			t.Error(third.Err())
		}
	})
}
