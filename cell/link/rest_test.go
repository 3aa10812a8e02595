package link_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// TestChainDeliversAndConservesCredit: cells go through two links both ways in order, whatever the windows, delays and rates; at
// rest no credit is lost, and in the end no circuit is left.
func TestChainDeliversAndConservesCredit(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 1))
				sizes := []uint16{1, 2, 3, 7, 8, 31, 32, 64, 1024}
				size := func() uint16 { return sizes[rnd.IntN(len(sizes))] }
				wire := func() linktest.Options {
					return linktest.Options{Delay: time.Duration(rnd.IntN(50)) * time.Millisecond,
						Window: 1000 + rnd.IntN(100000), Rate: []int{0, 1 << 20, 10 << 20}[rnd.IntN(3)]}
				}
				h := &host{take: true}
				next, exit := pair(t, h, func(a, b *link.Config) { a.Credit, b.Credit = size(), size() }, wire())
				client, relay := linktest.Config(t, "client"), linktest.Config(t, "relay")
				client.Credit, relay.Credit = size(), size()
				entry, prev := linktest.Pair(t, client, relay, linktest.Handlers{B: &transit{t, next}}, wire())

				n := 1 + rnd.IntN(5)
				forth, back := make([]int, n), make([]int, n)
				near := make([]*end, n)
				for i := range n {
					near[i] = openCirc(t, entry)
					near[i].take = true
					settle(time.Second)
				}
				for i := range n {
					forth[i], back[i] = rnd.IntN(800), rnd.IntN(800)
					near[i].sendAll(forth[i])
					h.end(i).sendAll(back[i])
				}
				settle(5 * time.Minute)
				for i := range n {
					if !slices.Equal(h.end(i).got(), count(forth[i])) || !slices.Equal(near[i].got(), count(back[i])) {
						t.Errorf("circuit %d: %d of %d cells forth, %d of %d back, or not in order", i,
							len(h.end(i).got()), forth[i], len(near[i].got()), back[i])
					}
				}
				link.Agree(t, entry, prev)
				link.Agree(t, next, exit)
				for _, e := range near {
					e.circ.Close(cell.DestroyFinished)
				}
				settle(time.Second)
				alive(t, entry, prev, next, exit)
				for _, l := range []*link.Conn{entry, prev, next, exit} {
					if n := l.Stats().Circuits; n != 0 {
						t.Errorf("%d circuits left", n)
					}
				}
			})
		})
	}
}

// TestShortCircuitsLeaveNothingBehind: circuits that end before credit for their cells was due do not add up.
func TestShortCircuitsLeaveNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, &host{take: true}, nil, linktest.Options{})
		for range 500 {
			e := openCirc(t, a)
			synctest.Wait()
			if err := e.circ.Send(numberCells(0, 1)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			e.circ.Close(cell.DestroyFinished)
			synctest.Wait()
		}
		if n := link.Kept(a) + link.Kept(b); n > 100 {
			t.Errorf("%d of 500 circuits that are gone are kept", n)
		}
	})
}

// TestUnservedLinkTellsItsCircuits: a circuit opened on a link that ends before anybody serves it hears of the end.
func TestUnservedLinkTellsItsCircuits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := linktest.Config(t, "b")
		na, nb := linktest.Pipe(linktest.Options{})
		a, b, erra, errb := linktest.Shake(na, nb, &link.Config{}, cfg, linktest.Peer(cfg))
		if erra != nil || errb != nil {
			t.Fatal(erra, errb)
		}
		defer b.Close()
		e := openCirc(t, a)
		a.Close()
		if got := e.ended(); !slices.Equal(got, []cell.DestroyReason{cell.DestroyLinkClosed}) {
			t.Errorf("told %v", got)
		}
		if err := a.Serve(nil); link.ReasonOf(err) != link.ReasonClosed {
			t.Errorf("Serve after Close: %v", err)
		}
		if got := e.ended(); len(got) != 1 {
			t.Errorf("told %v", got)
		}
	})
}

// watch notes whether Room comes after Closed.
type watch struct {
	end
	mu    sync.Mutex
	after bool
	gone  chan struct{}
	over  bool
}

func (w *watch) Room() {
	runtime.Gosched()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.after = w.after || w.over
}

func (w *watch) Closed(cell.DestroyReason) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	close(w.gone)
}

// TestClosedIsTheLastCall: the writer may be about to call Room when the reader takes a DESTROY.
func TestClosedIsTheLastCall(t *testing.T) {
	h := &host{}
	a, _ := linktest.Pair(t, &link.Config{}, linktest.Config(t, "b"), linktest.Handlers{B: h}, linktest.Options{})
	for i := range 300 {
		w := &watch{gone: make(chan struct{})}
		c, err := a.Open(w, aCreate)
		if err != nil {
			t.Fatal(err)
		}
		for c.Send(numberCells(0, 32)) != nil {
			runtime.Gosched()
		}
		h.end(i).circ.Close(cell.DestroyFinished)
		<-w.gone
		for range 10 {
			runtime.Gosched()
		}
		w.mu.Lock()
		if w.after {
			t.Fatal("Room after Closed")
		}
		w.mu.Unlock()
	}
}
