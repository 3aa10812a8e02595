package cell_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"peel/cell"
)

// unhex reads hexadecimal with spaces; "ab*12" is 12 times the byte ab.
func unhex(s string) []byte {
	var b []byte
	for _, f := range strings.Fields(s) {
		digits, times, repeated := strings.Cut(f, "*")
		part, err := hex.DecodeString(digits)
		if err != nil {
			panic(err)
		}
		n := 1
		if repeated {
			if n, err = strconv.Atoi(times); err != nil {
				panic(err)
			}
		}
		b = append(b, bytes.Repeat(part, n)...)
	}
	return b
}

// parseCell reads the body of a cell of the given command.
func parseCell(cmd cell.Command, body []byte) (cell.Body, error) {
	switch cmd {
	case cell.CmdCreate:
		return asBody(cell.ParseCreate(body))
	case cell.CmdCreated:
		return asBody(cell.ParseCreated(body))
	case cell.CmdDestroy:
		return asBody(cell.ParseDestroy(body))
	case cell.CmdCredit:
		return asBody(cell.ParseCreditCell(body))
	}
	return nil, fmt.Errorf("no parser for the body of %v", cmd)
}

// parseData reads the data of a message of the given type.
func parseData(t cell.MessageType, data []byte) (cell.Body, error) {
	switch t {
	case cell.MsgBegin:
		return asBody(cell.ParseBegin(data))
	case cell.MsgConnected:
		return asBody(cell.ParseConnected(data))
	case cell.MsgEnd:
		return asBody(cell.ParseEnd(data))
	case cell.MsgWindow:
		return asBody(cell.ParseWindow(data))
	case cell.MsgResolve:
		return asBody(cell.ParseResolve(data))
	case cell.MsgResolved:
		return asBody(cell.ParseResolved(data))
	case cell.MsgExtend:
		return asBody(cell.ParseExtend(data))
	case cell.MsgExtended:
		return asBody(cell.ParseExtended(data))
	}
	return nil, fmt.Errorf("no parser for the data of %v", t)
}

func asBody[B cell.Body](b B, err error) (cell.Body, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

func fill(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func node(b byte) cell.NodeID { return cell.NodeID(fill(b, 32)) }

func grants(n int) []cell.Grant {
	g := make([]cell.Grant, n)
	for i := range g {
		g[i] = cell.Grant{Circ: cell.CircID(i + 1), Cells: 1}
	}
	return g
}

func grantsHex(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, " %08x 00000001", i+1)
	}
	return s.String()
}

var keyID = cell.KeyID{1, 2, 3, 4, 5, 6, 7, 8}

// cellCases are cells: what stands on the wire, without the zeros behind it, and what it means.
var cellCases = []struct {
	name  string
	wire  string
	id    cell.CircID
	cmd   cell.Command
	value cell.Body
}{
	{"CREATE", "80000001 01 0400 01 0102030405060708 ab*1232", cell.DialBit | 1, cell.CmdCreate,
		cell.Create{Credit: 1024, Suite: cell.SuiteCGO, Key: keyID, Request: fill(0xab, cell.RequestSize)}},
	{"CREATE without credit", "00000001 01 0000 01 ff*8 00*1232", 1, cell.CmdCreate,
		cell.Create{Suite: cell.SuiteCGO, Key: cell.KeyID(fill(0xff, 8)), Request: fill(0, cell.RequestSize)}},
	{"CREATED, shortest reply", "80000001 02 0040 0470 cd*1136", cell.DialBit | 1, cell.CmdCreated,
		cell.Created{Credit: 64, Reply: fill(0xcd, cell.MinReplySize)}},
	{"CREATED, longest reply", "00000002 02 ffff 04b0 cd*1200", 2, cell.CmdCreated,
		cell.Created{Credit: 65535, Reply: fill(0xcd, cell.MaxReplySize)}},
	{"DESTROY, not told", "00000002 05 00", 2, cell.CmdDestroy, cell.Destroy{}},
	{"DESTROY, busy", "ffffffff 05 05", 0xffffffff, cell.CmdDestroy, cell.Destroy{Reason: cell.DestroyBusy}},
	{"DESTROY, timeout", "00000002 05 0a", 2, cell.CmdDestroy, cell.Destroy{Reason: cell.DestroyTimeout}},
	{"CREDIT asks", "00000000 06 0007 0000", 0, cell.CmdCredit, cell.CreditCell{Ask: 7}},
	{"CREDIT answers", "00000000 06 0000 ffff", 0, cell.CmdCredit, cell.CreditCell{Answer: 0xffff}},
	{"CREDIT grants and gives back", "00000000 06 0001 0002 80000001 00000200 00000002 ffffffff", 0, cell.CmdCredit,
		cell.CreditCell{Ask: 1, Answer: 2, Grants: []cell.Grant{{cell.DialBit | 1, 512}, {2, -1}}}},
	{"CREDIT, the largest grants", "00000000 06 0000 0000 00000001 7fffffff 00000002 80000001", 0, cell.CmdCredit,
		cell.CreditCell{Grants: []cell.Grant{{1, 1<<31 - 1}, {2, -1<<31 + 1}}}},
	{"CREDIT, full", "00000000 06 0000 0000" + grantsHex(cell.MaxGrants), 0, cell.CmdCredit,
		cell.CreditCell{Grants: grants(cell.MaxGrants)}},
}

// messageCases are messages: type, stream, length and data as they stand behind the tag, and what the data mean.
var messageCases = []struct {
	name   string
	wire   string
	typ    cell.MessageType
	stream cell.StreamID
	value  cell.Body // nil: the type has no data, or they mean nothing here (DATA)
}{
	{"BEGIN", "01 0001 000f 00 01bb 0b 6578616d706c652e636f6d", cell.MsgBegin, 1,
		cell.Begin{Port: 443, Host: "example.com"}},
	{"BEGIN with flags", "01 ffff 0005 06 0001 01 7e", cell.MsgBegin, 0xffff,
		cell.Begin{Flags: cell.NoIPv6 | cell.PreferIPv6, Port: 1, Host: "~"}},
	{"BEGIN to an address, only IPv4", "01 0001 0007 02 ffff 03 3a3a31", cell.MsgBegin, 1,
		cell.Begin{Flags: cell.NoIPv6, Port: 65535, Host: "::1"}},
	{"BEGIN, the longest name", "01 0001 0103 01 0050 ff 61*255", cell.MsgBegin, 1,
		cell.Begin{Flags: cell.NoIPv4, Port: 80, Host: strings.Repeat("a", cell.MaxName)}},
	{"CONNECTED, not told", "02 0001 0005 00000000 00", cell.MsgConnected, 1, cell.Connected{}},
	{"CONNECTED, IPv4", "02 0001 0009 0000003c 04 c0000201", cell.MsgConnected, 1,
		cell.Connected{TTL: 60, Addr: netip.MustParseAddr("192.0.2.1")}},
	{"CONNECTED, IPv6", "02 0001 0015 ffffffff 06 20010db8 00*11 01", cell.MsgConnected, 1,
		cell.Connected{TTL: 1<<32 - 1, Addr: netip.MustParseAddr("2001:db8::1")}},
	{"DATA, one byte", "03 0001 0001 00", cell.MsgData, 1, nil},
	{"DATA, full", "03 0001 0566 55*1382", cell.MsgData, 1, nil},
	{"END, done", "04 0001 0001 01", cell.MsgEnd, 1, cell.End{Reason: cell.EndDone}},
	{"END, protocol", "04 0001 0001 0d", cell.MsgEnd, 1, cell.End{Reason: cell.EndProtocol}},
	{"WINDOW", "05 0001 0008 0000000000100000", cell.MsgWindow, 1, cell.Window{Limit: 1 << 20}},
	{"WINDOW, the highest", "05 0001 0008 4000000000000000", cell.MsgWindow, 1, cell.Window{Limit: cell.MaxWindow}},
	{"RESOLVE any", "06 0001 0004 0000 01 61", cell.MsgResolve, 1, cell.Resolve{Name: "a"}},
	{"RESOLVE A", "06 0001 0004 0001 01 61", cell.MsgResolve, 1, cell.Resolve{Kind: cell.ResolveA, Name: "a"}},
	{"RESOLVE AAAA", "06 0001 0004 001c 01 61", cell.MsgResolve, 1, cell.Resolve{Kind: cell.ResolveAAAA, Name: "a"}},
	{"RESOLVE PTR of IPv4", "06 0001 000c 000c 09 3139322e302e322e31", cell.MsgResolve, 1,
		cell.Resolve{Kind: cell.ResolvePTR, Name: "192.0.2.1"}},
	{"RESOLVE PTR of IPv6", "06 0001 0006 000c 03 3a3a31", cell.MsgResolve, 1,
		cell.Resolve{Kind: cell.ResolvePTR, Name: "::1"}},
	{"RESOLVED, no such host", "07 0001 0002 04 00", cell.MsgResolved, 1, cell.Resolved{Reason: cell.EndNotFound}},
	{"RESOLVED, an address", "07 0001 000b 00 01 00000000 04 c0000201", cell.MsgResolved, 1,
		cell.Resolved{Answers: []cell.Answer{{Addr: netip.MustParseAddr("192.0.2.1")}}}},
	{"RESOLVED, three of a kind", "07 0001 0028 00 03 0000003c 06 00*15 01 00000001 04 7f000001 00000002 01 02 6162",
		cell.MsgResolved, 1, cell.Resolved{Answers: []cell.Answer{
			{TTL: 60, Addr: netip.MustParseAddr("::1")},
			{TTL: 1, Addr: netip.MustParseAddr("127.0.0.1")},
			{TTL: 2, Name: "ab"},
		}}},
	{"BEGIN_DIR", "08 0001 0000", cell.MsgBeginDir, 1, nil},
	{"EXTEND, IPv4", "09 0000 0501 11*32 01 04 c0000201 2329 01 0102030405060708 ab*1232", cell.MsgExtend, 0,
		cell.Extend{To: cell.LinkSpec{ID: node(0x11), Addrs: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9001")}},
			Suite: cell.SuiteCGO, Key: keyID, Request: fill(0xab, cell.RequestSize)}},
	{"EXTEND, IPv6", "09 0000 050d 11*32 01 06 20010db8 00*11 01 0001 01 0102030405060708 ab*1232", cell.MsgExtend, 0,
		cell.Extend{To: cell.LinkSpec{ID: node(0x11), Addrs: []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:1")}},
			Suite: cell.SuiteCGO, Key: keyID, Request: fill(0xab, cell.RequestSize)}},
	{"EXTEND, both", "09 0000 0514 11*32 02 04 c0000201 ffff 06 20010db8 00*11 01 0001 01 0102030405060708 ab*1232",
		cell.MsgExtend, 0, cell.Extend{To: cell.LinkSpec{ID: node(0x11), Addrs: []netip.AddrPort{
			netip.MustParseAddrPort("192.0.2.1:65535"), netip.MustParseAddrPort("[2001:db8::1]:1")}},
			Suite: cell.SuiteCGO, Key: keyID, Request: fill(0xab, cell.RequestSize)}},
	{"EXTENDED, shortest reply", "0a 0000 0470 cd*1136", cell.MsgExtended, 0,
		cell.Extended{Reply: fill(0xcd, cell.MinReplySize)}},
	{"EXTENDED, longest reply", "0a 0000 04b0 cd*1200", cell.MsgExtended, 0,
		cell.Extended{Reply: fill(0xcd, cell.MaxReplySize)}},
	{"REKEY", "0b 0000 0000", cell.MsgRekey, 0, nil},
}

// wireCell is a cell of the given bytes, zero behind them.
func wireCell(wire string) *cell.Cell {
	c := new(cell.Cell)
	if copy(c[:], unhex(wire)) != len(unhex(wire)) {
		panic("too long for a cell: " + wire)
	}
	return c
}

var tag = fill(0xee, cell.TagSize)

// wireMessage is a body with that tag and message, zero behind them.
func wireMessage(wire string) []byte {
	b := make([]byte, cell.BodySize)
	if copy(b[copy(b, tag):], unhex(wire)) != len(unhex(wire)) {
		panic("too long for a message: " + wire)
	}
	return b
}

func TestCellsReadAsTheyAreWritten(t *testing.T) {
	for _, tc := range cellCases {
		t.Run(tc.name, func(t *testing.T) {
			wire := wireCell(tc.wire)
			var c cell.Cell
			copy(c[:], fill(0x77, cell.Size)) // what a buffer held before must not show
			if err := c.Pack(tc.id, tc.cmd, tc.value); err != nil {
				t.Fatalf("Pack: %v", err)
			}
			if c != *wire {
				t.Errorf("wrote %x\nwant  %x", c, *wire)
			}
			if err := wire.Check(); err != nil {
				t.Errorf("Check: %v", err)
			}
			if wire.Circ() != tc.id || wire.Command() != tc.cmd {
				t.Errorf("read circuit %#x, %v; want %#x, %v", wire.Circ(), wire.Command(), tc.id, tc.cmd)
			}
			got, err := parseCell(tc.cmd, wire.Body())
			if err != nil || !reflect.DeepEqual(got, tc.value) {
				t.Errorf("read %+v, %v\nwant %+v", got, err, tc.value)
			}
		})
	}
}

func TestMessagesReadAsTheyAreWritten(t *testing.T) {
	for _, tc := range messageCases {
		t.Run(tc.name, func(t *testing.T) {
			wire := wireMessage(tc.wire)
			data := unhex(tc.wire)[5:]
			m, err := cell.ParseMessage(wire)
			if err != nil {
				t.Fatal(err)
			}
			if m.Type != tc.typ || m.Stream != tc.stream || !bytes.Equal(m.Data, data) {
				t.Fatalf("read %v, stream %d, %x; want %v, stream %d, %x", m.Type, m.Stream, m.Data, tc.typ, tc.stream, data)
			}
			if tc.value != nil {
				got, err := parseData(m.Type, m.Data)
				if err != nil || !reflect.DeepEqual(got, tc.value) {
					t.Errorf("read %+v, %v\nwant %+v", got, err, tc.value)
				}
				if m, err = cell.NewMessage(tc.typ, tc.stream, tc.value); err != nil {
					t.Fatalf("NewMessage: %v", err)
				}
			}
			body := append(bytes.Clone(tag), fill(0x77, cell.BodySize-cell.TagSize)...)
			if err := m.Put(body); err != nil || !bytes.Equal(body, wire) {
				t.Errorf("Put: %v, wrote %x\nwant  %x", err, body, wire)
			}
			body = append(bytes.Clone(tag), fill(0x77, cell.BodySize-cell.TagSize)...)
			cell.FinishMessage(body, tc.typ, tc.stream, copy(cell.DataSpace(body), data))
			if !bytes.Equal(body, wire) {
				t.Errorf("FinishMessage: wrote %x\nwant  %x", body, wire)
			}
		})
	}
}

// Every command and message type is in a table, or has no body to read.
func TestTablesAreComplete(t *testing.T) {
	cmds := map[cell.Command]bool{cell.CmdPadding: true, cell.CmdRelay: true, cell.CmdRelayEarly: true}
	for _, tc := range cellCases {
		cmds[tc.cmd] = true
	}
	for c := range 256 {
		if cmd := cell.Command(c); cmd.Valid() != cmds[cmd] {
			t.Errorf("%v: valid %v, in the table %v", cmd, cmd.Valid(), cmds[cmd])
		}
	}
	types := map[cell.MessageType]bool{}
	for _, tc := range messageCases {
		types[tc.typ] = true
	}
	for c := range 256 {
		if typ := cell.MessageType(c); typ.Valid() != types[typ] {
			t.Errorf("%v: valid %v, in the table %v", typ, typ.Valid(), types[typ])
		}
	}
}

func TestEveryTruncationOfACellIsRefused(t *testing.T) {
	for _, tc := range cellCases {
		wire, n := wireCell(tc.wire), len(unhex(tc.wire))-5
		for i := range cell.BodySize {
			if got, err := parseCell(tc.cmd, wire.Body()[:i]); err == nil {
				t.Errorf("%s: a body of %d bytes was read as %+v", tc.name, i, got)
			}
		}
		if got, err := parseCell(tc.cmd, append(bytes.Clone(wire.Body()), 0)); err == nil {
			t.Errorf("%s: a body of one byte too much was read as %+v", tc.name, got)
		}
		for i := n; i < cell.BodySize; i++ {
			c := *wire
			c.Body()[i] = 1
			if got, err := parseCell(tc.cmd, c.Body()); err == nil {
				t.Errorf("%s: an unused byte at %d was overlooked: %+v", tc.name, i, got)
			}
		}
	}
}

func TestEveryTruncationOfAMessageIsRefused(t *testing.T) {
	for _, tc := range messageCases {
		wire, data := wireMessage(tc.wire), unhex(tc.wire)[5:]
		for i := range wire {
			if _, err := cell.ParseMessage(wire[:i]); err == nil {
				t.Errorf("%s: a body of %d bytes was read", tc.name, i)
			}
		}
		if _, err := cell.ParseMessage(append(bytes.Clone(wire), 0)); err == nil {
			t.Errorf("%s: a body of one byte too much was read", tc.name)
		}
		for i := cell.TagSize + 5 + len(data); i < cell.BodySize; i++ {
			b := bytes.Clone(wire)
			b[i] = 1
			if _, err := cell.ParseMessage(b); err == nil {
				t.Errorf("%s: an unused byte at %d was overlooked", tc.name, i)
			}
		}
		if tc.value == nil {
			continue
		}
		for i := range data {
			got, err := parseData(tc.typ, data[:i])
			if err == nil && (tc.typ != cell.MsgExtended || i < cell.MinReplySize) { // a reply has no length of its own
				t.Errorf("%s: %d of %d bytes were read as %+v", tc.name, i, len(data), got)
			}
		}
		if got, err := parseData(tc.typ, append(bytes.Clone(data), 0)); err == nil && len(data) != cell.MinReplySize {
			t.Errorf("%s: a byte too much was read as %+v", tc.name, got)
		}
	}
}
