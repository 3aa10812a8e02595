package link_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// A crossing is a node between two hostile neighbours: what one opens it opens at the other, and passes on what comes, as a relay does.
type crossing struct{ other *link.Conn }

// A lane is one end of a circuit that passes.
type lane struct {
	mu   *sync.Mutex
	here **link.Circ
	on   **link.Circ
}

func (x *crossing) Create(c *link.Circ, m cell.Create) {
	in, out := new(*link.Circ), new(*link.Circ)
	mu := new(sync.Mutex)
	*in = c
	c.Attach(lane{mu, in, out})
	if m.Credit%3 == 0 { // it ends here
		c.Reply(aReply)
		return
	}
	mu.Lock()
	defer mu.Unlock()
	next, err := x.other.Open(lane{mu, out, in}, aCreate)
	if err != nil {
		c.Close(cell.DestroyBusy)
		return
	}
	*out = next
}

func (l lane) both() (here, on *link.Circ) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *l.here, *l.on
}

func (l lane) Created([]byte) {
	if _, on := l.both(); on != nil {
		on.Reply(aReply)
	}
}

func (l lane) Receive(cells []cell.Cell) {
	here, on := l.both()
	switch {
	case here == nil:
	case on == nil:
		here.Taken(len(cells))
	default:
		on.Forward(here, cells)
	}
}

func (l lane) Room() {
	if here, on := l.both(); on == nil && here != nil {
		here.Send(make([]cell.Cell, min(here.Room(), 3)))
	}
}

func (l lane) Closed(cell.DestroyReason) {
	if _, on := l.both(); on != nil {
		on.Close(cell.DestroyNone)
	}
}

// Whatever two neighbours say, in whatever order, and however they agree on it: no link panics, and nothing stays counted
// that is gone.
func FuzzNeighbours(f *testing.F) {
	f.Add([]byte{0x00, 0x80, 1, 0x81, 1, 0, 0x03, 0x80, 5, 0x83, 1, 7, 0x05, 0x80, 100, 0x85, 1, 100, 0x02, 0x80, 0, 0x82, 1, 0})
	f.Add([]byte{0x00, 0x80, 0, 0x00, 0x81, 3, 0x03, 0x80, 7, 0x05, 0x80, 0xf0, 0x09, 0, 200, 0x02, 0x80, 0, 0x00, 0x80, 0})
	f.Add([]byte{0x80, 0x80, 1, 0x01, 1, 9, 0x85, 0x80, 50, 0x05, 1, 50, 0x03, 1, 7, 0x83, 0x80, 7, 0x86, 0, 3, 0x02, 1, 0, 0x82, 0x80, 0, 0x09, 0, 9})
	f.Add([]byte{0x00, 0x80, 1, 0x81, 1, 0, 0x03, 0x80, 5, 0x02, 0x80, 0})                    // ends with cells queued
	f.Add([]byte{0x00, 0x80, 1, 0x81, 1, 200, 0x03, 0x80, 45, 0x03, 0x80, 20, 0x02, 0x80, 0}) // ends with a window that has grown
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 600 {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			budget := link.NewBudget(1 << 20).LimitClosed(8)
			cfg := linktest.Config(t, "b")
			cfg.Budget, cfg.MaxCircuits = budget, 6
			var raws [2]*link.Raw
			var ours [2]*link.Conn
			var wg sync.WaitGroup
			for i := range raws {
				na, nb := linktest.Pipe(linktest.Options{Window: 1 << 18})
				la, lb, erra, errb := linktest.Shake(na, nb, linktest.Config(t, "a"), cfg, linktest.Peer(cfg))
				if erra != nil || errb != nil {
					t.Fatal(erra, errb)
				}
				raws[i], ours[i] = link.NewRaw(la), lb
				defer la.Close()
			}
			for i, l := range ours {
				wg.Go(func() { l.Serve(&crossing{ours[1-i]}) })
				wg.Go(func() {
					for {
						if _, err := raws[i].Receive(); err != nil {
							return
						}
					}
				})
			}
			for ; len(ops) >= 3; ops = ops[3:] {
				r, id, n := raws[ops[0]>>7], cell.CircID(ops[1]&7)|cell.CircID(ops[1]&0x80)<<24, ops[2]
				if cells := said(t, ops[0]&0x7f%10, id, n); cells != nil {
					r.Send(cells...)
				}
				if ops[0]&0x40 == 0 {
					synctest.Wait()
				}
			}
			settle(time.Minute)
			for i := range ours {
				ours[i].Close()
			}
			wg.Wait()
			for _, l := range ours {
				if l.Stats().Errors[link.ReasonBug] != 0 {
					t.Error("a panic: ", l.Err())
				}
			}
			if s := budget.Stats(); s.Extra != 0 || s.Queued != 0 {
				t.Errorf("%+v are still counted", s)
			}
		})
	})
}

// said is what a byte of the fuzzer's has a neighbour say of a circuit.
func said(t *testing.T, op byte, id cell.CircID, n byte) []cell.Cell {
	pack := func(id cell.CircID, cmd cell.Command, body cell.Body) []cell.Cell {
		var c cell.Cell
		if c.Pack(id, cmd, body) != nil {
			return nil
		}
		return []cell.Cell{c}
	}
	switch op {
	case 0:
		m := aCreate
		m.Credit = uint16(n)
		return pack(id, cell.CmdCreate, m)
	case 1:
		return pack(id, cell.CmdCreated, cell.Created{Credit: uint16(n), Reply: aReply})
	case 2:
		return pack(id, cell.CmdDestroy, cell.Destroy{Reason: cell.DestroyReason(n % 11)})
	case 3, 4:
		cells := make([]cell.Cell, n%46+1)
		for i := range cells {
			cells[i].SetCirc(id)
			cells[i].SetCommand(cell.CmdRelay + cell.Command(op-3))
		}
		return cells
	case 5:
		return pack(0, cell.CmdCredit, cell.CreditCell{Grants: []cell.Grant{{Circ: id, Cells: int32(int8(n))}}})
	case 6:
		return pack(0, cell.CmdCredit, cell.CreditCell{Ask: uint16(n), Answer: uint16(id)})
	case 7:
		return pack(0, cell.CmdPadding, nil)
	case 8:
		c := cell.Cell{}
		c.SetCirc(id)
		c.SetCommand(cell.Command(n))
		return []cell.Cell{c}
	}
	time.Sleep(time.Duration(n) * 100 * time.Millisecond)
	return nil
}
