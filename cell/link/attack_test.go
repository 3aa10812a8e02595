package link_test

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
)

// rawPair is a link at b, served with h, and the hands of whoever dialled it.
func rawPair(t *testing.T, h link.Handler, change func(b *link.Config)) (*link.Raw, *link.Conn) {
	t.Helper()
	b := linktest.Config(t, "b")
	if change != nil {
		change(b)
	}
	na, nb := linktest.Pipe(linktest.Options{Window: 1 << 20})
	la, lb, erra, errb := linktest.Shake(na, nb, linktest.Config(t, "a"), b, linktest.Peer(b))
	if erra != nil || errb != nil {
		t.Fatal(erra, errb)
	}
	t.Cleanup(func() { la.Close() })
	linktest.Serve(t, lb, h)
	return link.NewRaw(la), lb
}

// pack makes a cell.
func pack(t *testing.T, id cell.CircID, cmd cell.Command, body cell.Body) cell.Cell {
	t.Helper()
	var c cell.Cell
	if err := c.Pack(id, cmd, body); err != nil {
		t.Fatal(err)
	}
	return c
}

// receive reads a record, which must hold one cell of this kind for circuit id.
func receive(t *testing.T, r *link.Raw, id cell.CircID, cmd cell.Command) *cell.Cell {
	t.Helper()
	cells, err := r.Receive()
	if err != nil {
		t.Fatal(err)
	}
	if len(cells) != 1 || cells[0].Circ() != id || cells[0].Command() != cmd {
		t.Fatalf("%d cells came, the first %v of circuit %#x; want one %v of circuit %#x", len(cells), cells[0].Command(), cells[0].Circ(), cmd, id)
	}
	return &cells[0]
}

const theirs = cell.DialBit | 77 // a circuit of the dialler's

func relayCell(id cell.CircID) cell.Cell {
	c := numberCells(0, 1)[0]
	c.SetCirc(id)
	return c
}

func grant(n int32) cell.CreditCell {
	return cell.CreditCell{Grants: []cell.Grant{{Circ: theirs, Cells: n}}}
}

// TestBreachesEndTheLink says for each breach of protocol what must be counted. Before it, a link with one open circuit,
// theirs, of 8 cells of credit.
func TestBreachesEndTheLink(t *testing.T) {
	create := func(t *testing.T, id cell.CircID) cell.Cell { return pack(t, id, cell.CmdCreate, aCreate) }
	for _, x := range []struct {
		name string
		want link.Reason
		send func(t *testing.T) []cell.Cell
	}{
		{"cell of an unknown circuit", link.ReasonCircuit, func(*testing.T) []cell.Cell { return []cell.Cell{relayCell(theirs + 1)} }},
		{"CREATED of an unknown circuit", link.ReasonCircuit, func(t *testing.T) []cell.Cell {
			return []cell.Cell{pack(t, 5, cell.CmdCreated, cell.Created{Reply: aReply})}
		}},
		{"DESTROY of an unknown circuit", link.ReasonCircuit, func(t *testing.T) []cell.Cell {
			return []cell.Cell{pack(t, theirs+1, cell.CmdDestroy, cell.Destroy{})}
		}},
		{"CREDIT of an unknown circuit", link.ReasonCircuit, func(t *testing.T) []cell.Cell {
			return []cell.Cell{pack(t, 0, cell.CmdCredit, cell.CreditCell{Grants: []cell.Grant{{Circ: 9, Cells: 1}}})}
		}},
		{"CREATE with our number", link.ReasonCreate, func(t *testing.T) []cell.Cell { return []cell.Cell{create(t, 3)} }},
		{"CREATE with a number in use", link.ReasonCreate, func(t *testing.T) []cell.Cell { return []cell.Cell{create(t, theirs)} }},
		{"CREATED for what they opened", link.ReasonOrder, func(t *testing.T) []cell.Cell {
			return []cell.Cell{pack(t, theirs, cell.CmdCreated, cell.Created{Reply: aReply})}
		}},
		{"RELAY after DESTROY", link.ReasonOrder, func(t *testing.T) []cell.Cell {
			return []cell.Cell{pack(t, theirs, cell.CmdDestroy, cell.Destroy{}), relayCell(theirs)}
		}},
		{"two DESTROYs", link.ReasonOrder, func(t *testing.T) []cell.Cell {
			d := pack(t, theirs, cell.CmdDestroy, cell.Destroy{})
			return []cell.Cell{d, d}
		}},
		{"credit overrun by one cell", link.ReasonOverrun, func(*testing.T) []cell.Cell { return slices.Repeat([]cell.Cell{relayCell(theirs)}, 9) }},
		{"giving back one credit too many", link.ReasonCredit, func(t *testing.T) []cell.Cell {
			return []cell.Cell{relayCell(theirs), pack(t, 0, cell.CmdCredit, grant(-8))}
		}},
		{"credit overflow", link.ReasonCredit, func(t *testing.T) []cell.Cell {
			g := pack(t, 0, cell.CmdCredit, grant(1<<31-1))
			return []cell.Cell{g, g}
		}},
		{"unknown command", link.ReasonCell, func(t *testing.T) []cell.Cell {
			c := relayCell(theirs)
			c.SetCommand(99)
			return []cell.Cell{c}
		}},
		{"RELAY of no circuit", link.ReasonCell, func(*testing.T) []cell.Cell { return []cell.Cell{relayCell(0)} }},
		{"PADDING that is not zero", link.ReasonCell, func(*testing.T) []cell.Cell { return []cell.Cell{{1000: 1}} }},
		{"CREATE with bits left over", link.ReasonCell, func(t *testing.T) []cell.Cell {
			c := create(t, theirs+1)
			c[cell.Size-1] = 1
			return []cell.Cell{c}
		}},
		{"DESTROY with an unknown reason", link.ReasonCell, func(t *testing.T) []cell.Cell {
			c := pack(t, theirs, cell.CmdDestroy, cell.Destroy{})
			c.Body()[0] = 200
			return []cell.Cell{c}
		}},
		{"CREDIT that says nothing", link.ReasonCell, func(*testing.T) []cell.Cell {
			var c cell.Cell
			c.SetCommand(cell.CmdCredit)
			return []cell.Cell{c}
		}},
		{"RELAY before CREATED", link.ReasonOverrun, func(t *testing.T) []cell.Cell {
			return []cell.Cell{create(t, theirs+1), relayCell(theirs + 1)}
		}},
		{"CREDIT before CREATED", link.ReasonOrder, func(t *testing.T) []cell.Cell {
			g := cell.CreditCell{Grants: []cell.Grant{{Circ: theirs + 1, Cells: 1}}}
			return []cell.Cell{create(t, theirs+1), pack(t, 0, cell.CmdCredit, g)}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &host{}
				r, l := rawPair(t, h, func(b *link.Config) { b.Credit = 8 })
				r.Send(pack(t, theirs, cell.CmdCreate, aCreate))
				receive(t, r, theirs, cell.CmdCreated)
				h.mu.Lock()
				h.hold = true
				h.mu.Unlock()
				alive(t, l)
				if err := r.Send(x.send(t)...); err != nil {
					t.Fatal(err)
				}
				over(t, l, x.want)
			})
		})
	}
}

func TestWithinTheRulesIsNoBreach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{}
		r, l := rawPair(t, h, func(b *link.Config) { b.Credit = 8 })
		r.Send(pack(t, theirs, cell.CmdCreate, aCreate))
		receive(t, r, theirs, cell.CmdCreated)
		r.Send(cell.Cell{}, cell.Cell{})
		r.Send(slices.Repeat([]cell.Cell{relayCell(theirs)}, 5)...)
		r.Send(pack(t, 0, cell.CmdCredit, grant(-3)))
		r.Send(pack(t, 0, cell.CmdCredit, grant(1<<31-1)), pack(t, 0, cell.CmdCredit, grant(1)))
		alive(t, l)
		if n := len(h.end(0).got()); n != 5 {
			t.Errorf("%d cells came", n)
		}
		if l.Stats().PaddingIn != 2 {
			t.Errorf("%d PADDING cells came", l.Stats().PaddingIn)
		}
		// What was given back is lent again with what has left, and half as much more: nothing waits.
		h.end(0).circ.Taken(5)
		c := receive(t, r, 0, cell.CmdCredit)
		m, err := cell.ParseCreditCell(c.Body())
		if err != nil || m.Ask == 0 || m.Answer != 0 || !slices.Equal(m.Grants, []cell.Grant{{Circ: theirs, Cells: 12}}) {
			t.Errorf("credit: %+v, %v", m, err)
		}
	})
}

func TestRecordsMustBeWholeCells(t *testing.T) {
	for _, n := range []int{0, 1, cell.Size - 1, cell.Size + 1, 3*cell.Size - 1, 65519} {
		synctest.Test(t, func(t *testing.T) {
			r, l := rawPair(t, &host{}, nil)
			if err := r.SendSize(n); err != nil {
				t.Fatal(err)
			}
			over(t, l, link.ReasonLength)
		})
	}
}

func TestCreateToAClientEndsTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := rawPair(t, nil, nil)
		r.Send(pack(t, theirs, cell.CmdCreate, aCreate))
		over(t, l, link.ReasonCreate)
	})
}

// TestTamperedRecordsEndTheLink lets somebody on the way do things to the records; what came before them stands, and
// nothing of them or after them is delivered.
func TestTamperedRecordsEndTheLink(t *testing.T) {
	for _, x := range []struct {
		name   string
		want   link.Reason
		tamper func(n int, record []byte, last []byte) []byte // n: 0 for the first RELAY record
	}{
		{"bit flip", link.ReasonRecord, func(n int, r, _ []byte) []byte {
			if n == 1 {
				r[700] ^= 4
			}
			return r
		}},
		{"flip in the tag", link.ReasonRecord, func(n int, r, _ []byte) []byte {
			if n == 1 {
				r[len(r)-1] ^= 1
			}
			return r
		}},
		{"longer length", link.ReasonRecord, func(n int, r, _ []byte) []byte {
			if n == 1 { // two cells instead of one, which come with the next record
				r[0], r[1] = 11, 16
			}
			return r
		}},
		{"impossible length", link.ReasonLength, func(n int, r, _ []byte) []byte {
			if n == 1 {
				r[1] ^= 1
			}
			return r
		}},
		{"replay", link.ReasonRecord, func(n int, r, last []byte) []byte {
			if n == 1 {
				return slices.Concat(last, r)
			}
			return r
		}},
		{"drop", link.ReasonRecord, func(n int, r, _ []byte) []byte {
			if n == 1 {
				return nil
			}
			return r
		}},
		{"reorder", link.ReasonRecord, func(n int, r, last []byte) []byte {
			switch n {
			case 1:
				return nil
			case 2:
				return slices.Concat(r, last)
			}
			return r
		}},
		{"truncation", link.ReasonRecord, func(n int, r, _ []byte) []byte {
			if n == 1 {
				return r[:len(r)-8] // of one byte alone the next record would have the right one in 256 runs
			}
			return r
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &host{take: true}
				began, n := false, 0
				var last []byte
				la, lb := pair(t, h, nil, linktest.Options{Wiretap: func(fromA bool, p []byte) []byte {
					if !fromA || !began {
						return p
					}
					was := bytes.Clone(p)
					p = x.tamper(n, p, last)
					last, n = was, n+1
					return p
				}})
				e := openCirc(t, la)
				synctest.Wait()
				began = true
				for i := range 4 {
					e.circ.Send(numberCells(i, 1))
					synctest.Wait()
				}
				over(t, lb, x.want)
				if got := h.end(0).got(); !slices.Equal(got, []int{0}) {
					t.Errorf("cells %v were delivered, want the first alone", got)
				}
			})
		})
	}
}

// TestFloodsDoNotFillOurQueues sends what asks for an answer, and never reads one.
func TestFloodsDoNotFillOurQueues(t *testing.T) {
	t.Run("credit questions", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, l := rawPair(t, &host{}, nil)
			for i := range 5000 {
				if err := r.Send(pack(t, 0, cell.CmdCredit, cell.CreditCell{Ask: uint16(i + 1)})); err != nil {
					t.Fatal(err)
				}
			}
			alive(t, l)
			// Only what the connection held is answered, and the last question.
			n, last := 0, uint16(0)
			for last != 5000 {
				cells, err := r.Receive()
				if err != nil {
					t.Fatal(err)
				}
				for i := range cells {
					m, err := cell.ParseCreditCell(cells[i].Body())
					if err != nil || m.Answer <= last || m.Ask != 0 {
						t.Fatalf("%+v after %d, %v", m, last, err)
					}
					last = m.Answer
					n++
				}
			}
			if n > 1000 {
				t.Errorf("%d answers", n)
			}
		})
	})
	t.Run("circuits there is no room for", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, l := rawPair(t, &host{}, func(b *link.Config) { b.MaxCircuits = 10 })
			for i := range cell.CircID(10 + 4096) {
				r.Send(pack(t, theirs+i, cell.CmdCreate, aCreate))
			}
			alive(t, l)
			if n := l.Circuits(); n != 10+4096 {
				t.Fatalf("%d circuits", n)
			}
			r.Send(pack(t, theirs+10+4096, cell.CmdCreate, aCreate))
			over(t, l, link.ReasonFlood)
		})
	})
	t.Run("circuits that come and go", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, l := rawPair(t, &host{}, func(b *link.Config) { b.MaxCircuits = 100 })
			var err error
			for i := 0; i < 10000 && err == nil; i++ {
				id := theirs + cell.CircID(i)
				err = r.Send(pack(t, id, cell.CmdCreate, aCreate), pack(t, id, cell.CmdDestroy, cell.Destroy{}))
				synctest.Wait()
				if n := l.Circuits(); n > 100+4096 {
					t.Fatalf("%d circuits", n)
				}
			}
			over(t, l, link.ReasonFlood)
		})
	})
}

// TestARelaysLinkIsNoFlood: a relay's link on which the circuits of many are just being closed stays, where those of others, with fewer each, end.
func TestARelaysLinkIsNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := link.NewBudget(1 << 30).LimitClosed(1000)
		closed := func(n int, named bool) *link.Conn {
			r, l := rawPair(t, refuser{}, func(b *link.Config) {
				b.Budget = budget
				b.Identify = func(cell.Key) (cell.NodeID, bool) { return cell.NodeID{7}, named }
			})
			for k := range n {
				r.Send(pack(t, theirs+cell.CircID(k), cell.CmdCreate, aCreate))
			}
			synctest.Wait()
			return l
		}
		relay := closed(400, true)
		var others []*link.Conn
		for range 70 {
			others = append(others, closed(10, false))
		}
		alive(t, relay)
		if _, named := relay.PeerID(); !named {
			t.Fatal("the relay's link is nobody's")
		}
		ended := 0
		for _, l := range others {
			if l.Err() != nil {
				ended++
			}
		}
		if ended == 0 || ended > 20 {
			t.Errorf("%d of the others ended", ended)
		}
	})
}

// TestCircuitsThatNobodyDestroysAreBounded: what is closed here and not by the peer has a bound over all links, and the link that has
// most of it ends.
func TestCircuitsThatNobodyDestroysAreBounded(t *testing.T) {
	for name, also := range map[string]bool{"CREATE alone": false, "CREATE and DESTROY, and nothing is read": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				budget := link.NewBudget(1 << 30).LimitClosed(1000)
				var raws []*link.Raw
				var links []*link.Conn
				for range 4 {
					r, l := rawPair(t, refuser{}, func(b *link.Config) { b.Budget = budget })
					raws, links = append(raws, r), append(links, l)
				}
				flood := func(i, n int) {
					for k := range n {
						id := theirs + cell.CircID(k)
						raws[i].Send(pack(t, id, cell.CmdCreate, aCreate))
						if also {
							raws[i].Send(pack(t, id, cell.CmdDestroy, cell.Destroy{}))
						}
					}
					synctest.Wait()
				}
				flood(0, 10) // an honest one, slow to answer
				flood(1, 900)
				alive(t, links[0])
				if !also {
					alive(t, links[1])
					flood(2, 200)
					over(t, links[1], link.ReasonFlood)
					alive(t, links[2])
				} else {
					flood(2, 900)
					flood(3, 900)
				}
				if n := link.Closed(budget); n > 1000 {
					t.Errorf("%d circuits are closed and kept", n)
				}
				for i := range 10 {
					receiveAny(t, raws[0])
					if !also {
						raws[0].Send(pack(t, theirs+cell.CircID(i), cell.CmdDestroy, cell.Destroy{}))
					}
				}
				synctest.Wait()
				alive(t, links[0])
				if n := links[0].Circuits(); n != 0 {
					t.Errorf("%d circuits are left on the honest link", n)
				}
				for _, l := range links {
					l.Close()
				}
				synctest.Wait()
				if n := link.Closed(budget); n != 0 {
					t.Errorf("%d circuits are counted when all links have ended", n)
				}
			})
		})
	}
	if n := link.CircSize + 64; n > 512 { // and its place in a table
		t.Errorf("a circuit takes %d bytes, and 512 are counted", n)
	}
}

// refuser closes every circuit at once.
type refuser struct{}

func (refuser) Create(c *link.Circ, _ cell.Create) { c.Close(cell.DestroyBusy) }

// receiveAny reads a record.
func receiveAny(t *testing.T, r *link.Raw) {
	t.Helper()
	if _, err := r.Receive(); err != nil {
		t.Fatal(err)
	}
}

func TestAskIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := rawPair(t, nil, nil)
		start := time.Now()
		r.Send(pack(t, 0, cell.CmdCredit, cell.CreditCell{Ask: 4711}))
		m, err := cell.ParseCreditCell(receive(t, r, 0, cell.CmdCredit).Body())
		if err != nil || m.Answer != 4711 || m.Ask != 0 || len(m.Grants) != 0 || time.Since(start) > 0 {
			t.Errorf("%+v, %v, after %v", m, err, time.Since(start))
		}
	})
}
