package cell_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"peel/cell"
)

// holdCell checks a cell of any content: what its parsers take prints back the same bytes. It says whether they took it.
func holdCell(t *testing.T, c, again *cell.Cell) bool {
	if c.Check() != nil {
		return false
	}
	var body cell.Body
	switch c.Command() {
	case cell.CmdPadding:
	case cell.CmdRelay, cell.CmdRelayEarly:
		return holdMessage(t, c.Body(), again.Body())
	default:
		var err error
		if body, err = parseCell(c.Command(), c.Body()); err != nil {
			return false
		}
	}
	if err := again.Pack(c.Circ(), c.Command(), body); err != nil {
		t.Fatalf("%x was read, but is not written: %v", *c, err)
	}
	if *again != *c {
		t.Fatalf("read  %x\nwrote %x", *c, *again)
	}
	return true
}

// holdMessage is holdCell for the body of a RELAY cell.
func holdMessage(t *testing.T, body, again []byte) bool {
	m, err := cell.ParseMessage(body)
	if err != nil {
		return false
	}
	switch m.Type {
	case cell.MsgData, cell.MsgBeginDir, cell.MsgRekey:
	default:
		value, err := parseData(m.Type, m.Data)
		if err != nil {
			return false
		}
		if m, err = cell.NewMessage(m.Type, m.Stream, value); err != nil {
			t.Fatalf("%x was read, but is not written: %v", body, err)
		}
	}
	copy(again[:cell.TagSize], body)
	if err := m.Put(again); err != nil {
		t.Fatalf("%x was read, but is not written: %v", body, err)
	}
	if !bytes.Equal(again, body) {
		t.Fatalf("read  %x\nwrote %x", body, again)
	}
	return true
}

// seeds are all cells of the tables, messages as RELAY cells, and how many bytes of each say something.
func seeds(tb testing.TB) (cells []cell.Cell, used []int) {
	for _, tc := range cellCases {
		cells, used = append(cells, *wireCell(tc.wire)), append(used, len(unhex(tc.wire)))
	}
	for _, tc := range messageCases {
		var c cell.Cell
		if err := c.Pack(1, cell.CmdRelay, nil); err != nil {
			tb.Fatal(err)
		}
		copy(c.Body(), wireMessage(tc.wire))
		cells, used = append(cells, c), append(used, 5+cell.TagSize+len(unhex(tc.wire)))
	}
	if len(cells) == 0 {
		tb.Fatal("there are no seeds")
	}
	return cells, used
}

func FuzzCell(f *testing.F) {
	cells, _ := seeds(f)
	for _, c := range cells {
		f.Add(c[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var c, again cell.Cell
		copy(c[:], b)
		holdCell(t, &c, &again)
	})
}

// FuzzData gives the parsers of message data what they want at once, without a message around it.
func FuzzData(f *testing.F) {
	if len(messageCases) == 0 {
		f.Fatal("there are no seeds")
	}
	for _, tc := range messageCases {
		f.Add(byte(tc.typ), unhex(tc.wire)[5:])
	}
	f.Fuzz(func(t *testing.T, typ byte, data []byte) {
		value, err := parseData(cell.MessageType(typ), data)
		if err != nil {
			return
		}
		if err := value.Check(); err != nil {
			t.Fatalf("%x was read, but is refused: %v", data, err)
		}
		if again := value.Append(nil); !bytes.Equal(again, data) {
			t.Fatalf("read  %x\nwrote %x", data, again)
		}
	})
}

// mutations is how many TestMutatedCellsAreRefusedOrPrintBack tries.
var mutations = 300_000

// Mutations of all cells of the tables, always the same ones.
func TestMutatedCellsAreRefusedOrPrintBack(t *testing.T) {
	rounds := mutations
	cells, used := seeds(t)
	rng := rand.New(rand.NewPCG(1408, 1403))
	interesting := [...]byte{0, 1, 2, 4, 6, 0x7f, 0x80, 0xff}
	taken, changed := 0, 0
	var again cell.Cell
	for i := range rounds {
		k := i % len(cells)
		c := &cells[k]
		// One to three bytes change, mostly in front, where the meaning is; afterwards they are put back.
		var at [3]int
		var was [3]byte
		n := 1 + rng.IntN(3)
		for j := range n {
			at[j] = rng.IntN(min(used[k]+8, cell.Size))
			if rng.IntN(4) > 0 {
				at[j] = rng.IntN(min(used[k]+2, 80))
			}
			was[j] = c[at[j]]
			if rng.IntN(2) == 0 {
				c[at[j]] = interesting[rng.IntN(len(interesting))]
			} else {
				c[at[j]] ^= 1 << rng.IntN(8)
			}
			if c[at[j]] != was[j] {
				changed++
			}
		}
		if holdCell(t, c, &again) {
			taken++
		}
		for j := n - 1; j >= 0; j-- {
			c[at[j]] = was[j]
		}
	}
	if taken < rounds/10 || taken > rounds*9/10 || changed < rounds {
		t.Errorf("of %d mutations (%d bytes changed) %d were taken: they test nothing", rounds, changed, taken)
	}
}
