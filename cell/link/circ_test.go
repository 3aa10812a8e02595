package link_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// A transit joins circuits of two links as a relay does: what the client sends goes on, and the other way round.
type transit struct {
	t    *testing.T
	next *link.Conn
}

// side takes what comes on one circuit and forwards it on the other.
type side struct{ in, out *link.Circ }

func (s *side) Created([]byte)            {}
func (s *side) Room()                     {}
func (s *side) Closed(cell.DestroyReason) { s.out.Close(cell.DestroyNone) }
func (s *side) Receive(cells []cell.Cell) { s.out.Forward(s.in, cells) }

func (h *transit) Create(c *link.Circ, m cell.Create) {
	back := &side{out: c}
	next, err := h.next.Open(back, aCreate)
	if err != nil {
		c.Close(cell.DestroyBusy)
		return
	}
	back.in = next
	c.Attach(&side{in: c, out: next})
	c.Reply(aReply)
}

// chain is client – relay – exit; o is the link between relay and exit.
func chain(t *testing.T, h *host, o linktest.Options) (client, prev, next, exit *link.Conn) {
	t.Helper()
	next, exit = pair(t, h, nil, o)
	client, prev = linktest.Pair(t, linktest.Config(t, "client"), linktest.Config(t, "relay"),
		linktest.Handlers{B: &transit{t, next}}, linktest.Options{})
	return
}

func TestForwardedCellsArriveInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{take: true}
		client, _, _, exit := chain(t, h, linktest.Options{Delay: 3 * time.Millisecond})
		e := openCirc(t, client)
		e.take = true
		settle(time.Second) // the relay's own circuit must stand before cells can go on
		e.sendAll(5000)
		settle(5 * time.Second)
		h.end(0).sendAll(5000)
		settle(5 * time.Second)
		if !slices.Equal(h.end(0).got(), count(5000)) || !slices.Equal(e.got(), count(5000)) {
			t.Errorf("%d and %d cells came", len(h.end(0).got()), len(e.got()))
		}
		alive(t, client, exit)
	})
}

func TestFullCircuitLeavesLinkAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{} // takes nothing
		client, prev, next, _ := chain(t, h, linktest.Options{})
		stuck := openCirc(t, client)
		synctest.Wait()
		stuck.sendAll(20000)
		settle(time.Minute)
		if n := len(h.end(0).got()); n != 64 {
			t.Fatalf("%d cells came to who takes none; want what was granted", n)
		}
		// The exit's credit and the relay's are used up: what waits, waits at the client.
		if out, in := client.Stats().CellsOut, prev.Stats().CellsIn; in > 2*64+50 || out > 2*64+50 {
			t.Errorf("%d cells went to the relay", out)
		}
		h.mu.Lock()
		h.take = true
		h.mu.Unlock()
		other := openCirc(t, client)
		synctest.Wait()
		other.sendAll(5000)
		settle(time.Minute)
		if got := h.end(1).got(); !slices.Equal(got, count(5000)) {
			t.Errorf("%d cells came on the circuit beside the stuck one", len(got))
		}
		// And the stuck one goes on when its end takes cells again.
		end := h.end(0)
		end.mu.Lock()
		end.take = true
		end.mu.Unlock()
		end.circ.Taken(64)
		settle(time.Minute)
		if got := end.got(); !slices.Equal(got, count(20000)) {
			t.Errorf("%d cells came in the end", len(got))
		}
		alive(t, client, prev, next)
	})
}

func TestOneCellOfCreditIsEnough(t *testing.T) {
	for _, credit := range []uint16{1, 2, 3} {
		synctest.Test(t, func(t *testing.T) {
			h := &host{take: true}
			la, lb := pair(t, h, func(a, b *link.Config) { a.Credit, b.Credit = credit, credit }, linktest.Options{Delay: time.Millisecond})
			e := openCirc(t, la)
			e.take = true
			e.sendAll(100)
			settle(time.Second)
			h.end(0).sendAll(100)
			settle(time.Second)
			if !slices.Equal(h.end(0).got(), count(100)) || !slices.Equal(e.got(), count(100)) {
				t.Errorf("credit %d: %d and %d cells came", credit, len(h.end(0).got()), len(e.got()))
			}
			alive(t, la, lb)
		})
	}
}

func TestSendTakesNoMoreThanRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		la, lb := pair(t, h, func(a, b *link.Config) { b.Credit = 40 }, linktest.Options{})
		e := openCirc(t, la)
		if err := e.circ.Send(numberCells(0, 1)); err != link.ErrClosed || e.circ.Room() != 0 {
			t.Errorf("before CREATED: %v, room %d", err, e.circ.Room())
		}
		synctest.Wait()
		if e.rooms != 1 || e.circ.Room() != 32 {
			t.Errorf("after CREATED: Room called %d times, room %d", e.rooms, e.circ.Room())
		}
		if err := e.circ.Send(numberCells(0, 33)); err != link.ErrRoom {
			t.Errorf("33 cells at once: %v", err)
		}
		if err := e.circ.Send(numberCells(0, 32)); err != nil {
			t.Error(err)
		}
		if err := e.circ.Send(nil); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if e.circ.Room() != 8 || e.rooms != 2 {
			t.Errorf("with 8 credits left: room %d, called %d times", e.circ.Room(), e.rooms)
		}
		e.circ.Send(numberCells(32, 8))
		synctest.Wait()
		if e.circ.Room() != 0 || e.rooms != 2 {
			t.Errorf("without credit: room %d, called %d times", e.circ.Room(), e.rooms)
		}
		h.end(0).circ.Taken(20)
		synctest.Wait()
		if e.circ.Room() != 20 || e.rooms != 3 {
			t.Errorf("with credit again: room %d, called %d times", e.circ.Room(), e.rooms)
		}
		alive(t, la, lb)
	})
}

func TestOwnCellsAreNotStarvedByForwardedOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		la, lb := pair(t, h, func(a, b *link.Config) { b.Credit = 4 }, linktest.Options{})
		e := openCirc(t, la)
		synctest.Wait()
		// As if from another link: nobody checks what was granted here.
		from := openCirc(t, la)
		if err := e.circ.Forward(from.circ, numberCells(0, 100)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := e.circ.Room(); n != 32 {
			t.Errorf("room for %d cells of our own behind forwarded ones", n)
		}
		if err := e.circ.Send(numberCells(100, 32)); err != nil || e.circ.Room() != 0 {
			t.Errorf("%v, room %d", err, e.circ.Room())
		}
		o := h.end(0)
		o.mu.Lock()
		o.take = true
		o.mu.Unlock()
		o.circ.Taken(4)
		settle(time.Second)
		if got := o.got(); !slices.Equal(got, count(132)) {
			t.Errorf("%d cells came, or in another order", len(got))
		}
		alive(t, la, lb)
	})
}

func TestDestroyIsAnsweredAndTheNumberFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		la, lb := pair(t, h, nil, linktest.Options{Delay: 10 * time.Millisecond})
		e := openCirc(t, la)
		settle(time.Second)
		o := h.end(0)
		o.circ.Send(numberCells(0, 5)) // on their way when the circuit is closed
		e.circ.Close(cell.DestroyFinished)
		e.circ.Close(cell.DestroyBusy)
		if la.Circuits() != 1 {
			t.Error("the number is free before the peer's DESTROY")
		}
		if e.circ.Send(numberCells(0, 1)) != link.ErrClosed || e.circ.Room() != 0 {
			t.Error("a closed circuit takes cells")
		}
		settle(time.Second)
		if la.Circuits() != 0 || lb.Circuits() != 0 {
			t.Errorf("%d and %d circuits left", la.Circuits(), lb.Circuits())
		}
		if len(e.ended()) != 0 || len(e.got()) != 0 {
			t.Errorf("after Close came %v and %d cells", e.ended(), len(e.got()))
		}
		if got := o.ended(); !slices.Equal(got, []cell.DestroyReason{cell.DestroyFinished}) {
			t.Errorf("the other end heard %v", got)
		}
		o.circ.Close(cell.DestroyNone)
		alive(t, la, lb)
	})
}

func TestDestroysMayCross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		la, lb := pair(t, h, nil, linktest.Options{Delay: 10 * time.Millisecond})
		var ends []*end
		for range 20 {
			ends = append(ends, openCirc(t, la))
		}
		settle(time.Second)
		for i, e := range ends {
			e.sendAll(50)
			h.end(i).sendAll(50)
		}
		for i, e := range ends {
			e.circ.Close(cell.DestroyNone)
			h.end(i).circ.Close(cell.DestroyNone)
		}
		settle(time.Second)
		if la.Circuits() != 0 || lb.Circuits() != 0 {
			t.Errorf("%d and %d circuits left", la.Circuits(), lb.Circuits())
		}
		for i, e := range ends {
			if len(e.ended()) != 0 || len(h.end(i).ended()) != 0 {
				t.Error("Closed after Close")
			}
		}
		alive(t, la, lb)
	})
}

func TestCircuitClosedBeforeItWentOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := linktest.Config(t, "a"), linktest.Config(t, "b")
		na, nb := linktest.Pipe(linktest.Options{})
		la, lb, _, _ := linktest.Shake(na, nb, a, b, linktest.Peer(b))
		e := openCirc(t, la)
		kept := openCirc(t, la)
		e.circ.Close(cell.DestroyNone)
		if la.Circuits() != 1 {
			t.Errorf("%d circuits", la.Circuits())
		}
		linktest.Serve(t, la, nil)
		h := &host{}
		linktest.Serve(t, lb, h)
		synctest.Wait()
		if len(h.ends) != 1 || kept.reply == nil || len(e.ended()) != 0 {
			t.Errorf("%d circuits came", len(h.ends))
		}
		alive(t, la, lb)
	})
}

func TestCircuitClosedBeforeCreated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{hold: true}
		la, lb := pair(t, h, nil, linktest.Options{Delay: time.Millisecond})
		e := openCirc(t, la)
		settle(time.Second)
		late := &end{}
		e.circ.Close(cell.DestroyTimeout)
		if err := h.offers[0].Reply(aReply); err == nil {
			t.Error("Reply without a Receiver")
		}
		h.offers[0].Attach(&end{})
		if err := h.offers[0].Reply(aReply); err != nil { // crosses the DESTROY
			t.Error(err)
		}
		if err := h.offers[0].Reply(aReply); err == nil {
			t.Error("two Replies")
		}
		settle(time.Second)
		if e.reply != nil || la.Circuits() != 0 || lb.Circuits() != 0 {
			t.Errorf("%d and %d circuits left", la.Circuits(), lb.Circuits())
		}

		// And with DESTROY there before anybody attached.
		e = openCirc(t, la)
		settle(time.Second)
		e.circ.Close(cell.DestroyTimeout)
		settle(time.Second)
		h.offers[1].Attach(late)
		if err := h.offers[1].Reply(aReply); err != link.ErrClosed {
			t.Errorf("Reply: %v", err)
		}
		if got := late.ended(); !slices.Equal(got, []cell.DestroyReason{cell.DestroyTimeout}) {
			t.Errorf("who attached late heard %v", got)
		}
		alive(t, la, lb)
	})
}

func TestRefusedCircuitHearsWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{hold: true}
		la, lb := pair(t, h, nil, linktest.Options{})
		e := openCirc(t, la)
		synctest.Wait()
		h.offers[0].Close(cell.DestroyProtocol)
		synctest.Wait()
		if got := e.ended(); !slices.Equal(got, []cell.DestroyReason{cell.DestroyProtocol}) || e.reply != nil {
			t.Errorf("heard %v", got)
		}
		if la.Circuits() != 0 || lb.Circuits() != 0 {
			t.Errorf("%d and %d circuits left", la.Circuits(), lb.Circuits())
		}
		alive(t, la, lb)
	})
}

// A relay whose circuit is one too many hears that the link is busy; a client hears no reason.
func TestLinkFullOfCircuits(t *testing.T) {
	t.Run("client", func(t *testing.T) { fullOfCircuits(t, func(a, b *link.Config) {}, cell.DestroyNone) })
	t.Run("relay", func(t *testing.T) {
		fullOfCircuits(t, func(a, b *link.Config) {
			b.Identify = func(cell.Key) (cell.NodeID, bool) { return cell.NodeID{7}, true }
		}, cell.DestroyBusy)
	})
}

func fullOfCircuits(t *testing.T, who func(a, b *link.Config), why cell.DestroyReason) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		la, lb := pair(t, h, func(a, b *link.Config) {
			a.MaxCircuits, b.MaxCircuits = 12, 8
			who(a, b)
		}, linktest.Options{Delay: time.Millisecond})
		var ends []*end
		for range 12 {
			ends = append(ends, openCirc(t, la))
		}
		if _, err := la.Open(&end{}, aCreate); err != link.ErrBusy {
			t.Errorf("one too many of our own: %v", err)
		}
		settle(time.Second)
		for i, e := range ends {
			if i < 8 && (e.reply == nil || len(e.ended()) != 0) {
				t.Errorf("circuit %d is not there", i)
			}
			if i >= 8 && !slices.Equal(e.ended(), []cell.DestroyReason{why}) {
				t.Errorf("circuit %d heard %v", i, e.ended())
			}
		}
		if la.Circuits() != 8 || lb.Circuits() != 8 {
			t.Errorf("%d and %d circuits", la.Circuits(), lb.Circuits())
		}
		ends[0].circ.Close(cell.DestroyNone)
		settle(time.Second)
		e := openCirc(t, la)
		settle(time.Second)
		if e.reply == nil {
			t.Error("no room after a circuit was closed")
		}
		alive(t, la, lb)
	})
}

func TestCloseWithinReceiveEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		la, lb := pair(t, h, nil, linktest.Options{})
		e, other := openCirc(t, la), openCirc(t, la)
		synctest.Wait()
		o := h.end(0)
		o.onCells = func([]cell.Cell) { o.circ.Close(cell.DestroyNone) }
		// Two circuits take turns, so the first has several runs in one record.
		e.circ.Send(numberCells(0, 10))
		other.circ.Send(numberCells(0, 10))
		synctest.Wait()
		if n := len(o.got()); n > 10 {
			t.Errorf("%d cells", n)
		}
		if n := len(h.end(1).got()); n != 10 {
			t.Errorf("%d cells on the circuit beside", n)
		}
		if len(o.ended()) != 0 {
			t.Error("Closed after Close")
		}
		alive(t, la, lb)
	})
}

func TestCreditOfManyCircuitsComesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 300 // more than one CREDIT cell can speak of
		credits := 0
		h := &host{}
		la, lb := pair(t, h, func(a, b *link.Config) {
			b.Credit = 16
			a.Tap = func(in bool, cells []cell.Cell) {
				for i := range cells {
					if in && cells[i].Command() == cell.CmdCredit {
						credits++
					}
				}
			}
		}, linktest.Options{})
		var ends []*end
		for range n {
			ends = append(ends, openCirc(t, la))
		}
		synctest.Wait()
		for _, e := range ends {
			e.circ.Send(numberCells(0, 16))
		}
		synctest.Wait()
		h.end(0).circ.Taken(8) // half a window: due at once
		synctest.Wait()
		for i := range n {
			h.end(i).circ.Taken(7) // not due so soon after
		}
		synctest.Wait()
		if credits != 1 {
			t.Errorf("%d CREDIT cells for what is not due", credits-1)
		}
		h.end(n - 1).circ.Taken(1)
		synctest.Wait()
		if credits != 3 {
			t.Errorf("%d CREDIT cells, want 1 and 2", credits)
		}
		for i, e := range ends {
			want := 7
			switch i {
			case 0:
				want = 15
			case n - 1:
				want = 8
			}
			if e.circ.Room() != want {
				t.Fatalf("circuit %d has room for %d, want %d", i, e.circ.Room(), want)
			}
		}
		alive(t, la, lb)
	})
}

// A peer that reads nothing any more is lost after a minute or so, not when the kernel gives up.
func TestPeerThatReadsNothingIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := linktest.Config(t, "a"), linktest.Config(t, "b")
		na, nb := linktest.Pipe(linktest.Options{Window: 4096})
		la, lb, erra, errb := linktest.Shake(na, nb, a, b, linktest.Peer(b))
		if erra != nil || errb != nil {
			t.Fatal(erra, errb)
		}
		var wg sync.WaitGroup
		wg.Go(func() { la.Serve(nil) }) // lb is never served: nobody reads there
		for range 8 {
			openCirc(t, la) // more than the window holds
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := link.ReasonOf(la.Err()); got != link.ReasonLost {
			t.Errorf("after two minutes the link says %v", la.Err())
		}
		la.Close()
		lb.Close()
		wg.Wait()
	})
}

// That its link is lost a node knows itself: who says so over the link that is there is not believed. A client is told no reasons.
func TestNobodyIsToldByThePeerThatTheLinkIsLost(t *testing.T) {
	for _, x := range []struct {
		client    bool
		say, hear cell.DestroyReason
	}{
		{false, cell.DestroyBusy, cell.DestroyBusy}, {false, cell.DestroyLinkClosed, cell.DestroyNone},
		{true, cell.DestroyBusy, cell.DestroyNone}, {true, cell.DestroyLinkClosed, cell.DestroyNone},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b, h := &link.Config{}, linktest.Config(t, "b"), &host{}
			if !x.client {
				a = linktest.Config(t, "a")
			}
			l, _ := linktest.Pair(t, a, b, linktest.Handlers{B: h}, linktest.Options{})
			e := openCirc(t, l)
			synctest.Wait()
			h.end(0).circ.Close(x.say)
			synctest.Wait()
			if got := e.ended(); !slices.Equal(got, []cell.DestroyReason{x.hear}) || l.Err() != nil {
				t.Errorf("client %t, %v: heard %v", x.client, x.say, got)
			}
		})
	}
}
