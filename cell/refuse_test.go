package cell_test

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"peel/cell"
)

func TestBadCellsAreRefused(t *testing.T) {
	for _, tc := range []struct{ name, wire, want string }{
		{"unknown command", "00000001 07", "unknown command 7"},
		{"PADDING on a circuit", "00000001 00", "belongs to the link"},
		{"PADDING that says something", "00000000 00 00*1402 01", "not zero"},
		{"CREDIT on a circuit", "00000001 06 0001", "belongs to the link"},
		{"CREATE without a circuit", "00000000 01 0400 01 0102030405060708 ab*1232", "needs a circuit"},
		{"RELAY without a circuit", "00000000 03", "needs a circuit"},
		{"unknown suite", "00000001 01 0400 02 0102030405060708 ab*1232", "unknown suite 2"},
		{"suite 0", "00000001 01", "unknown suite 0"},
		{"reply too short", "00000001 02 0040 046f cd*1135", "reply of 1135 bytes"},
		{"reply too long", "00000001 02 0040 04b1 cd*1201", "reply of 1201 bytes"},
		{"reply longer than the cell", "00000001 02 0040 ffff cd*1399", "reply of 65535 bytes"},
		{"unknown reason", "00000001 05 0b", "unknown reason 11"},
		{"CREDIT of nothing", "00000000 06", "says nothing"},
		{"grant of no cells", "00000000 06 0000 0000 00000001 00000000", "grant of 0 cells"},
		{"grant that has no opposite", "00000000 06 0000 0000 00000001 80000000", "grant of -2147483648 cells"},
		{"two grants to one circuit", "00000000 06 0000 0000 00000001 00000001 00000002 00000001 00000001 00000001",
			"two grants to circuit 0x1"},
		{"grant behind the end", "00000000 06 0001 0000 00000000 00000001", "not zero"},
	} {
		c := wireCell(tc.wire)
		err := c.Check()
		if err == nil {
			_, err = parseCell(c.Command(), c.Body())
		}
		expect(t, tc.name, err, tc.want)
	}
}

func TestBadMessagesAreRefused(t *testing.T) {
	for _, tc := range []struct{ name, wire, want string }{
		{"type 0", "00 0001 0001 00", "unknown message type 0"},
		{"unknown type", "0d 0001 0001 00", "unknown message type 13"},
		{"DATAGRAM", "0c 0001 0001 00", "not in version 1"},
		{"DATA without data", "03 0001 0000", "DATA: without data"},
		{"DATA without a stream", "03 0000 0001 00", "needs a stream"},
		{"BEGIN without data", "01 0001 0000", "BEGIN: without data"},
		{"EXTEND on a stream", "09 0001 0001 00", "belongs to the circuit"},
		{"REKEY on a stream", "0b 0001 0000", "belongs to the circuit"},
		{"REKEY with data", "0b 0000 0001 00", "carries no data"},
		{"BEGIN_DIR with data", "08 0001 0001 00", "carries no data"},
		{"length beyond the cell", "03 0001 0567 00", "says 1383 bytes"},
		{"greatest length", "03 0001 ffff 00", "says 65535 bytes"},

		{"BEGIN to port 0", "01 0001 0005 00 0000 01 61", "port 0"},
		{"BEGIN, unknown flag", "01 0001 0005 08 0001 01 61", "unknown flags 0x8"},
		{"BEGIN, neither family", "01 0001 0005 03 0001 01 61", "neither"},
		{"BEGIN, empty name", "01 0001 0004 00 0001 00", "name of 0 bytes"},
		{"BEGIN, space in the name", "01 0001 0005 00 0001 01 20", "byte 0x20"},
		{"BEGIN, NUL in the name", "01 0001 0006 00 0001 02 6100", "byte 0x00"},
		{"BEGIN, DEL in the name", "01 0001 0005 00 0001 01 7f", "byte 0x7f"},
		{"BEGIN, UTF-8 in the name", "01 0001 0006 00 0001 02 c3a4", "byte 0xc3"},
		{"BEGIN, name cut short", "01 0001 0005 00 0001 02 61", "too early"},
		{"BEGIN, left over", "01 0001 0006 00 0001 01 6161", "1 bytes left over"},

		{"CONNECTED, unknown kind", "02 0001 0009 00000000 05 c0000201", "unknown kind of address 5"},
		{"CONNECTED with a name", "02 0001 0007 00000000 01 01 61", "unknown kind of address 1"},
		{"CONNECTED, IPv4 as IPv6", "02 0001 0015 00000000 06 00*10 ffff c0000201", "IPv4 address as IPv6"},
		{"CONNECTED, seconds of nothing", "02 0001 0005 00000001 00", "1 seconds for no address"},
		{"CONNECTED, left over", "02 0001 0006 00000000 00 00", "left over"},

		{"END 0", "04 0001 0001 00", "unknown reason 0"},
		{"END, unknown reason", "04 0001 0001 0e", "unknown reason 14"},
		{"END, two reasons", "04 0001 0002 0101", "2 bytes of data, want 1"},
		{"WINDOW too high", "05 0001 0008 4000000000000001", "limit 4611686018427387905"},
		{"WINDOW of 7 bytes", "05 0001 0007 00*7", "want 8"},

		{"RESOLVE, unknown kind", "06 0001 0004 0010 01 61", "unknown kind 16"},
		{"RESOLVE, empty name", "06 0001 0003 0000 00", "name of 0 bytes"},
		{"RESOLVE PTR of a name", "06 0001 0004 000c 01 61", "PTR of what is not an address"},
		{"RESOLVE PTR, second spelling", "06 0001 0009 000c 06 303a303a3a31", "PTR of what is not an address"},
		{"RESOLVE PTR with a zone", "06 0001 000c 000c 09 666538303a3a312561", "zone"},
		{"RESOLVE PTR, IPv4 as IPv6", "06 0001 0011 000c 0e 3a3a666666663a312e322e332e34", "IPv4 address as IPv6"},

		{"RESOLVED, neither reason nor answer", "07 0001 0002 00 00", "0 answers"},
		{"RESOLVED, reason and answer", "07 0001 000b 04 01 00000000 04 c0000201", "answers, and a reason"},
		{"RESOLVED, done", "07 0001 0002 01 00", "reason 1"},
		{"RESOLVED, unknown reason", "07 0001 0002 0e 00", "reason 14"},
		{"RESOLVED, too many answers", "07 0001 0127 00 21 00*293", "33 answers"},
		{"RESOLVED, nothing as an answer", "07 0001 0007 00 01 00000000 00", "unknown kind of address 0"},
		{"RESOLVED, empty name", "07 0001 0008 00 01 00000000 01 00", "name of 0 bytes"},
		{"RESOLVED, left over", "07 0001 000c 00 01 00000000 04 c0000201 00", "left over"},

		{"EXTEND to nobody", "09 0000 0501 00*32 01 04 c0000201 2329 01 0102030405060708 ab*1232", "no node id"},
		{"EXTEND to nowhere", "09 0000 04fa 11*32 00 01 0102030405060708 ab*1232", "0 addresses"},
		{"EXTEND, three addresses", "09 0000 050f 11*32 03" + strings.Repeat(" 04 c0000201 2329", 3) +
			" 01 0102030405060708 ab*1232", "3 addresses"},
		{"EXTEND, one family twice", "09 0000 0508 11*32 02 04 c0000201 2329 04 c0000202 2329 01 0102030405060708 ab*1232",
			"one IPv4, then one IPv6"},
		{"EXTEND, IPv6 first", "09 0000 0514 11*32 02 06 20010db8 00*11 01 0001 04 c0000201 ffff 01 0102030405060708 ab*1232",
			"one IPv4, then one IPv6"},
		{"EXTEND to port 0", "09 0000 0501 11*32 01 04 c0000201 0000 01 0102030405060708 ab*1232", "port 0"},
		{"EXTEND, unknown kind", "09 0000 0501 11*32 01 05 c0000201 2329 01 0102030405060708 ab*1232", "unknown kind"},
		{"EXTEND, unknown suite", "09 0000 0501 11*32 01 04 c0000201 2329 00 0102030405060708 ab*1232", "unknown suite 0"},
		{"EXTEND, request too short", "09 0000 0500 11*32 01 04 c0000201 2329 01 0102030405060708 ab*1231", "request of 1231"},
		{"EXTEND, request too long", "09 0000 0502 11*32 01 04 c0000201 2329 01 0102030405060708 ab*1233", "request of 1233"},
		{"EXTENDED, too short", "0a 0000 046f cd*1135", "reply of 1135"},
		{"EXTENDED, too long", "0a 0000 04b1 cd*1201", "reply of 1201"},
	} {
		m, err := cell.ParseMessage(wireMessage(tc.wire))
		if err == nil {
			_, err = parseData(m.Type, m.Data)
		}
		expect(t, tc.name, err, tc.want)
	}
}

// What the other end would refuse is not even written.
func TestBadValuesAreNotWritten(t *testing.T) {
	var c cell.Cell
	create := cell.Create{Suite: cell.SuiteCGO, Request: fill(0, cell.RequestSize)}
	for _, tc := range []struct {
		name string
		id   cell.CircID
		cmd  cell.Command
		body cell.Body
		want string
	}{
		{"unknown command", 1, 7, nil, "unknown command 7"},
		{"PADDING on a circuit", 1, cell.CmdPadding, nil, "belongs to the link"},
		{"CREATE without a circuit", 0, cell.CmdCreate, create, "needs a circuit"},
		{"no suite", 1, cell.CmdCreate, cell.Create{Request: create.Request}, "unknown suite 0"},
		{"short request", 1, cell.CmdCreate, cell.Create{Suite: cell.SuiteCGO}, "request of 0 bytes"},
		{"short reply", 1, cell.CmdCreated, cell.Created{}, "reply of 0 bytes"},
		{"unknown reason", 1, cell.CmdDestroy, cell.Destroy{Reason: 99}, "unknown reason 99"},
		{"too many grants", 0, cell.CmdCredit, cell.CreditCell{Grants: grants(cell.MaxGrants + 1)}, "175 grants"},
		{"grant to no circuit", 0, cell.CmdCredit, cell.CreditCell{Grants: []cell.Grant{{0, 1}}}, "circuit 0"},
		{"grant without opposite", 0, cell.CmdCredit, cell.CreditCell{Grants: []cell.Grant{{1, math.MinInt32}}}, "grant of"},
		{"too long", 1, cell.CmdRelay, long{}, "body of 1404 bytes"},
	} {
		expect(t, tc.name, c.Pack(tc.id, tc.cmd, tc.body), tc.want)
	}
	name := strings.Repeat("a", cell.MaxName+1)
	many := make([]cell.Answer, 6)
	for i := range many {
		many[i].Name = strings.Repeat("a", cell.MaxName)
	}
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	for _, tc := range []struct {
		name string
		typ  cell.MessageType
		body cell.Body
		want string
	}{
		{"long name", cell.MsgBegin, cell.Begin{Port: 1, Host: name}, "name of 256 bytes"},
		{"long name looked up", cell.MsgResolve, cell.Resolve{Name: name}, "name of 256 bytes"},
		{"mapped address", cell.MsgConnected, cell.Connected{Addr: mapped}, "IPv4 address as IPv6"},
		{"zone", cell.MsgConnected, cell.Connected{Addr: netip.MustParseAddr("fe80::1%eth0")}, "zone"},
		{"mapped answer", cell.MsgResolved, cell.Resolved{Answers: []cell.Answer{{Addr: mapped}}}, "IPv4 address as IPv6"},
		{"address and name", cell.MsgResolved, cell.Resolved{Answers: []cell.Answer{{Addr: node4, Name: "a"}}}, "both"},
		{"too many answers", cell.MsgResolved, cell.Resolved{Answers: make([]cell.Answer, cell.MaxAnswers+1)}, "33 answers"},
		{"too long together", cell.MsgResolved, cell.Resolved{Answers: many}, "answers of 1568 bytes"},
		{"no END reason", cell.MsgEnd, cell.End{}, "unknown reason 0"},
		{"high window", cell.MsgWindow, cell.Window{Limit: math.MaxUint64}, "limit"},
		{"DATAGRAM", cell.MsgDatagram, nil, "not in version 1"},
		{"BEGIN_DIR with data", cell.MsgBeginDir, cell.End{Reason: cell.EndDone}, "carries no data"},
		{"BEGIN without data", cell.MsgBegin, nil, "without data"},
	} {
		_, err := cell.NewMessage(tc.typ, 1, tc.body)
		expect(t, tc.name, err, tc.want)
	}
	body := make([]byte, cell.BodySize)
	expect(t, "empty DATA", cell.Message{Type: cell.MsgData, Stream: 1}.Put(body), "without data")
	expect(t, "DATA on no stream", cell.Message{Type: cell.MsgData, Data: fill(1, 1)}.Put(body), "needs a stream")
	expect(t, "too much DATA", cell.Message{Type: cell.MsgData, Stream: 1, Data: fill(1, cell.MaxData+1)}.Put(body), "1383 bytes")
	expect(t, "no body", cell.Message{Type: cell.MsgData, Stream: 1, Data: fill(1, 1)}.Put(body[1:]), "body of 1402 bytes")
	for i, b := range body {
		if b != 0 {
			t.Fatalf("a refused message was written: byte %d is %#x", i, b)
		}
	}
}

var node4 = netip.MustParseAddr("192.0.2.1")

// long is a body of one byte too much.
type long struct{}

func (long) Check() error           { return nil }
func (long) Append(b []byte) []byte { return append(b, fill(1, cell.BodySize+1)...) }

func expect(t *testing.T, name string, err error, want string) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), "cell: ") || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: error %v, want one of this package with %q", name, err, want)
	}
}
