// Package cell is the vocabulary of the network: the fixed-size cells that links carry, the messages inside their
// layers, and the names of nodes, keys and reasons.
//
// A cell on the wire, all numbers big-endian:
//
//	offset  bytes  what
//	0       4      CircID; 0 is the link itself
//	4       1      Command
//	5       1403   Body
//
// The body of a RELAY or RELAY_EARLY cell, once its last layer is gone, is a message:
//
//	offset  bytes  what
//	0       16     tag of the layer (circuit/layer)
//	16      1      MessageType
//	17      2      StreamID; 0 is the circuit itself
//	19      2      length n of the data, at most 1382
//	21      n      data
//	21+n           zero
//
// The package is about bytes alone: it starts nothing, keeps nothing and knows no time. Parsers are strict: what parses
// prints back the same bytes, everything else is refused (spec/cell.md).
package cell

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"
)

// Sizes in bytes (spec/cell.md, section 1).
const (
	Size     = 1408                 // of a cell
	BodySize = Size - headerSize    // of its body: 1403
	TagSize  = 16                   // of the tag that begins the body of a RELAY cell
	MaxData  = BodySize - dataStart // of the data of one message: 1382

	headerSize = 5
	dataStart  = TagSize + 5
)

// MaxEarly is how many RELAY_EARLY cells a circuit may carry, all of them away from the client.
const MaxEarly = 8

// A CircID numbers a circuit on one link. Whoever dialled the link opens circuits with DialBit set, whoever accepted
// it without, so that both may open at the same moment. 0 is no circuit but the link itself (PADDING, CREDIT).
type CircID uint32

// DialBit is set in the ids of the circuits opened by the side that dialled the link.
const DialBit CircID = 1 << 31

// A Cell is one cell as it stands on the wire. Its zero value is a valid PADDING cell.
type Cell [Size]byte

// A Body is what the body of a cell, or the data of a message, says.
type Body interface {
	// Check says why the parser at the other end would refuse these values; nil: it would not.
	Check() error
	// Append appends the wire form. It means nothing for values that Check refuses.
	Append([]byte) []byte
}

// Circ is the circuit the cell belongs to.
func (c *Cell) Circ() CircID { return CircID(binary.BigEndian.Uint32(c[0:4])) }

// SetCirc makes the cell one of circuit id.
func (c *Cell) SetCirc(id CircID) { binary.BigEndian.PutUint32(c[0:4], uint32(id)) }

// Command is what the cell asks; it may be unknown (Command.Valid).
func (c *Cell) Command() Command { return Command(c[4]) }

// SetCommand sets what the cell asks.
func (c *Cell) SetCommand(cmd Command) { c[4] = byte(cmd) }

// Body is the cell's body: BodySize bytes of the cell itself, not a copy.
func (c *Cell) Body() []byte { return c[headerSize:] }

// Check says what is wrong with the header: an unknown command, a circuit where the command speaks of the link, none
// where it needs one. It also refuses a PADDING cell whose body is not zero. Other bodies have their own parsers.
func (c *Cell) Check() error {
	if err := checkHeader(c.Circ(), c.Command()); err != nil {
		return err
	}
	if c.Command() == CmdPadding && !isZero(c.Body()) {
		return fmt.Errorf("cell: PADDING: the body is not zero")
	}
	return nil
}

func checkHeader(id CircID, cmd Command) error {
	switch {
	case !cmd.Valid():
		return fmt.Errorf("cell: unknown command %d", uint8(cmd))
	case cmd.ofLink() && id != 0:
		return fmt.Errorf("cell: %v: belongs to the link, but names circuit %#x", cmd, uint32(id))
	case !cmd.ofLink() && id == 0:
		return fmt.Errorf("cell: %v: needs a circuit, but names none", cmd)
	}
	return nil
}

// Pack makes c the cell of these values, zero behind the body. A nil body is all zero. It refuses what the other end
// would refuse, and a body that is too long; the cell's content is then undefined. The body must not alias c.
func (c *Cell) Pack(id CircID, cmd Command, body Body) error {
	if err := checkHeader(id, cmd); err != nil {
		return err
	}
	n := 0
	if body != nil {
		if err := body.Check(); err != nil {
			return err
		}
		n = len(body.Append(c[headerSize:headerSize]))
		if n > BodySize {
			return fmt.Errorf("cell: %v: body of %d bytes, at most %d fit", cmd, n, BodySize)
		}
	}
	clear(c[headerSize+n:])
	c.SetCirc(id)
	c.SetCommand(cmd)
	return nil
}

// Bytes is the wire form of consecutive cells. It aliases them: writing to one changes the other.
func Bytes(cells []Cell) []byte {
	// A Cell is an array of bytes, so a slice of cells is the bytes of all of them without gaps.
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(cells))), len(cells)*Size)
}

// Cells is the opposite of Bytes: the whole cells that b consists of, aliasing it. What is left over is not returned.
func Cells(b []byte) []Cell {
	return unsafe.Slice((*Cell)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/Size)
}

// Bodies is the bodies of consecutive cells and what is between them: the first begins with it, the last ends with it, and
// they begin Size bytes apart. It aliases them. There must be one cell at least.
func Bodies(cells []Cell) []byte { return Bytes(cells)[headerSize:] }

var zeros [BodySize]byte

// isZero says whether b, at most BodySize bytes, is all zero.
func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }

// cellBody checks that b is a whole body; what names it in the error.
func cellBody(what Command, b []byte) error {
	if len(b) != BodySize {
		return fmt.Errorf("cell: %v: body of %d bytes, want %d", what, len(b), BodySize)
	}
	return nil
}

// padding checks that b, what a body leaves unused, is zero.
func padding(what Command, b []byte) error {
	if !isZero(b) {
		return fmt.Errorf("cell: %v: unused bytes are not zero", what)
	}
	return nil
}
