package cell_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"peel/cell"
)

func TestSizes(t *testing.T) {
	for _, tc := range []struct {
		name      string
		got, want int
	}{
		{"cell", cell.Size, 1408},
		{"body", cell.BodySize, 1403},
		{"data of a message", cell.MaxData, 1382},
		{"grants of a CREDIT", cell.MaxGrants, 174},
		{"shortest reply", cell.MinReplySize, 48 + 1088},
		{"request", cell.RequestSize, 48 + 1184},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, tc.got, tc.want)
		}
	}
	if n := len(unhex("11*32 02 04 c0000201 ffff 06 20010db8 00*11 01 0001 01 0102030405060708 ab*1232")); n > cell.MaxData {
		t.Errorf("the longest EXTEND has %d bytes and does not fit", n)
	}
	if segment := 2 + cell.Size + 16; segment > 1500-40-20-12 {
		t.Errorf("a sealed cell of %d bytes does not fit one TCP segment", segment)
	}
}

func TestHeaderIsWhereItShouldBe(t *testing.T) {
	var c cell.Cell
	c.SetCirc(0x80a1b2c3)
	c.SetCommand(cell.CmdRelayEarly)
	c.Body()[0], c.Body()[cell.BodySize-1] = 0x11, 0x22
	if want := unhex("80a1b2c3 04 11 00*1401 22"); !bytes.Equal(c[:], want) {
		t.Errorf("wrote %x, want %x", c, want)
	}
	if c.Circ() != 0x80a1b2c3 || c.Command() != cell.CmdRelayEarly || len(c.Body()) != cell.BodySize {
		t.Errorf("read circuit %#x, %v, body of %d bytes", c.Circ(), c.Command(), len(c.Body()))
	}
}

func TestZeroCellIsPadding(t *testing.T) {
	var c cell.Cell
	if err := c.Check(); err != nil || c.Command() != cell.CmdPadding {
		t.Errorf("%v: %v", c.Command(), err)
	}
}

func TestPackWithoutABodyIsZero(t *testing.T) {
	var c cell.Cell
	copy(c[:], fill(0x77, cell.Size))
	if err := c.Pack(3, cell.CmdRelay, nil); err != nil || c != *wireCell("00000003 03") {
		t.Errorf("%v: %x", err, c)
	}
}

func TestBytesAliasesTheCells(t *testing.T) {
	cells := make([]cell.Cell, 3)
	for i := range cells {
		cells[i].SetCirc(cell.CircID(i + 1))
		cells[i].Body()[cell.BodySize-1] = byte(i + 1)
	}
	b := cell.Bytes(cells)
	if len(b) != 3*cell.Size {
		t.Fatalf("%d bytes", len(b))
	}
	for i := range cells {
		if !bytes.Equal(b[i*cell.Size:(i+1)*cell.Size], cells[i][:]) {
			t.Errorf("cell %d is elsewhere", i)
		}
	}
	b[cell.Size+4] = byte(cell.CmdDestroy)
	if cells[1].Command() != cell.CmdDestroy {
		t.Error("the bytes are a copy")
	}
	if len(cell.Bytes(nil)) != 0 || len(cell.Bytes(cells[:0])) != 0 {
		t.Error("no cells have bytes")
	}
	if part := cell.Bytes(cells[1:2]); &part[0] != &b[cell.Size] || cap(part) != cell.Size {
		t.Error("the bytes of one cell reach beyond it")
	}
}

func TestBodiesAliasesThoseOfTheCells(t *testing.T) {
	cells := make([]cell.Cell, 4)
	b := cell.Bodies(cells[:3])
	if len(b) != 2*cell.Size+cell.BodySize || cap(b) != len(b) {
		t.Fatalf("%d bytes, room for %d", len(b), cap(b))
	}
	for i := range 3 {
		if body := cells[i].Body(); &b[i*cell.Size] != &body[0] {
			t.Errorf("body %d is elsewhere", i)
		}
	}
}

func TestMessageDataMayAlreadyBeInTheBody(t *testing.T) {
	body := wireMessage("03 0001 0004 61626364")
	m, err := cell.ParseMessage(body)
	if err != nil {
		t.Fatal(err)
	}
	m.Data, m.Stream = m.Data[1:3], 2
	if err := m.Put(body); err != nil || !bytes.Equal(body, wireMessage("03 0002 0002 6263")) {
		t.Errorf("%v: %x", err, body)
	}
}

func TestMessageDataEndWhereTheyEnd(t *testing.T) {
	body := wireMessage("03 0001 0001 61")
	m, err := cell.ParseMessage(body)
	if err != nil {
		t.Fatal(err)
	}
	if _ = append(m.Data, 'x'); !bytes.Equal(body, wireMessage("03 0001 0001 61")) {
		t.Error("appending to the data changed the body")
	}
}

func TestTheDataPathDoesNotAllocate(t *testing.T) {
	cells := make([]cell.Cell, 2)
	c, data := &cells[0], fill(0x55, 1000)
	end, window := unhex("01"), unhex("0000000000100000")
	for _, tc := range []struct {
		name string
		do   func()
	}{
		{"header", func() {
			c.SetCirc(c.Circ() + 1)
			c.SetCommand(cell.CmdRelay)
			if c.Check() != nil || len(cell.Bytes(cells)) != 2*cell.Size {
				panic("header")
			}
		}},
		{"Put", func() {
			if (cell.Message{Type: cell.MsgData, Stream: 1, Data: data}).Put(c.Body()) != nil {
				panic("Put")
			}
		}},
		{"ParseMessage", func() {
			if m, err := cell.ParseMessage(c.Body()); err != nil || len(m.Data) == 0 {
				panic("ParseMessage")
			}
		}},
		{"in place", func() {
			cell.FinishMessage(c.Body(), cell.MsgData, 1, copy(cell.DataSpace(c.Body()), data))
		}},
		{"END", func() {
			if _, err := cell.ParseEnd(end); err != nil {
				panic(err)
			}
		}},
		{"WINDOW", func() {
			if w, err := cell.ParseWindow(window); err != nil || w.Limit != 1<<20 {
				panic("WINDOW")
			}
		}},
	} {
		if n := testing.AllocsPerRun(100, tc.do); n != 0 {
			t.Errorf("%s: %v allocations", tc.name, n)
		}
	}
}

func TestLogsDoNotShowTargets(t *testing.T) {
	const secret = "secret.example"
	addr := netip.MustParseAddr("192.0.2.77")
	answer := cell.Answer{Name: secret}
	var out strings.Builder
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("x",
		"begin", cell.Begin{Port: 1, Host: secret},
		"connected", cell.Connected{Addr: addr},
		"resolve", cell.Resolve{Name: secret},
		"resolved", cell.Resolved{Answers: []cell.Answer{answer, {Addr: addr}}},
		"answer", answer,
		"message", cell.Message{Type: cell.MsgBegin, Stream: 40961, Data: []byte(secret)})
	s := out.String()
	if strings.Contains(s, "secret") || strings.Contains(s, "192.0.2") || strings.Contains(s, "40961") {
		t.Error(s)
	}
	if strings.Count(s, "[scrubbed]") != 5 || !strings.Contains(s, `{"type":"BEGIN","bytes":14}`) {
		t.Error(s)
	}
}

func TestCellsIsTheOppositeOfBytes(t *testing.T) {
	cells := make([]cell.Cell, 3)
	cells[2].SetCirc(7)
	b := append(cell.Bytes(cells), 1, 2, 3)
	got := cell.Cells(b)
	if len(got) != 3 || got[2].Circ() != 7 {
		t.Fatalf("%d cells, the last of circuit %d", len(got), got[2].Circ())
	}
	got[1].SetCirc(9)
	if (*cell.Cell)(b[cell.Size:]).Circ() != 9 {
		t.Fatal("the cells do not alias the bytes")
	}
	if len(cell.Cells(nil)) != 0 {
		t.Fatal("cells out of nothing")
	}
}
