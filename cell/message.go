package cell

import (
	"encoding/binary"
	"fmt"
	"log/slog"
)

// A StreamID numbers a stream of one circuit; the client chooses it. 0 is no stream but the circuit itself (EXTEND,
// EXTENDED, REKEY).
type StreamID uint16

// A Message is what an end of a circuit says to the other, inside the layers (spec/cell.md, section 3).
type Message struct {
	Type   MessageType
	Stream StreamID
	Data   []byte // at most MaxData bytes
}

// NewMessage makes the message that says body; nil: one without data. It refuses what the other end would refuse.
// DATA is not made this way (DataSpace, FinishMessage).
func NewMessage(t MessageType, s StreamID, body Body) (Message, error) {
	m := Message{Type: t, Stream: s}
	if body != nil {
		if err := body.Check(); err != nil {
			return Message{}, err
		}
		m.Data = body.Append(nil)
	}
	return m, m.check()
}

// Put writes m into the body of a cell, BodySize bytes: header, data, zero padding. It leaves the tag alone. An error
// means a message that the other end would refuse, or a slice that is no body; nothing is written then. Data may be a
// part of body.
func (m Message) Put(body []byte) error {
	if len(body) != BodySize {
		return fmt.Errorf("cell: %v: body of %d bytes, want %d", m.Type, len(body), BodySize)
	}
	if err := m.check(); err != nil {
		return err
	}
	copy(body[dataStart:], m.Data)
	FinishMessage(body, m.Type, m.Stream, len(m.Data))
	return nil
}

// ParseMessage reads the message in the body of a cell whose layers are off; it does not look at the tag. Data aliases
// body. It checks the header, that there is data exactly where the type allows it, and the padding; the data have
// parsers of their own (ParseBegin and so on). An error is the sender's fault and ends the circuit.
func ParseMessage(body []byte) (Message, error) {
	if len(body) != BodySize {
		return Message{}, fmt.Errorf("cell: message: body of %d bytes, want %d", len(body), BodySize)
	}
	n := int(binary.BigEndian.Uint16(body[TagSize+3:]))
	if n > MaxData {
		return Message{}, fmt.Errorf("cell: message: says %d bytes of data, at most %d fit", n, MaxData)
	}
	m := Message{
		Type:   MessageType(body[TagSize]),
		Stream: StreamID(binary.BigEndian.Uint16(body[TagSize+1:])),
		Data:   body[dataStart : dataStart+n : dataStart+n],
	}
	if err := m.check(); err != nil {
		return Message{}, err
	}
	if !isZero(body[dataStart+n:]) {
		return Message{}, fmt.Errorf("cell: %v: unused bytes are not zero", m.Type)
	}
	return m, nil
}

// DataSpace is where the data of a message stand in the body of a cell: MaxData bytes of it. FinishMessage completes
// the message once they are there.
func DataSpace(body []byte) []byte { return body[dataStart:BodySize] }

// FinishMessage writes the header of a message whose n bytes of data are already in DataSpace(body), and zeros behind
// them. It leaves the tag alone and does not check the values. n must be 0 to MaxData.
func FinishMessage(body []byte, t MessageType, s StreamID, n int) {
	clear(body[dataStart+n : BodySize])
	body[TagSize] = byte(t)
	binary.BigEndian.PutUint16(body[TagSize+1:], uint16(s))
	binary.BigEndian.PutUint16(body[TagSize+3:], uint16(n))
}

func (m Message) check() error {
	switch {
	case m.Type == MsgDatagram:
		return fmt.Errorf("cell: DATAGRAM: not in version 1")
	case !m.Type.Valid():
		return fmt.Errorf("cell: unknown message type %d", uint8(m.Type))
	case m.Type.ofCircuit() && m.Stream != 0:
		return fmt.Errorf("cell: %v: belongs to the circuit, but names stream %d", m.Type, m.Stream)
	case !m.Type.ofCircuit() && m.Stream == 0:
		return fmt.Errorf("cell: %v: needs a stream, but names none", m.Type)
	case len(m.Data) > MaxData:
		return fmt.Errorf("cell: %v: %d bytes of data, at most %d fit", m.Type, len(m.Data), MaxData)
	}
	switch bare := m.Type == MsgBeginDir || m.Type == MsgRekey; {
	case bare && len(m.Data) > 0:
		return fmt.Errorf("cell: %v: carries no data, but has %d bytes", m.Type, len(m.Data))
	case !bare && len(m.Data) == 0:
		return fmt.Errorf("cell: %v: without data", m.Type)
	}
	return nil
}

// LogValue keeps what a message carries out of logs.
func (m Message) LogValue() slog.Value {
	return slog.GroupValue(slog.String("type", m.Type.String()), slog.Int("bytes", len(m.Data)))
}

// scrubbed is what logs show of a target, a name or an address of somebody.
func scrubbed() slog.Value { return slog.StringValue("[scrubbed]") }

// exact checks that the data of a message of type t are n bytes long.
func exact(t MessageType, data []byte, n int) error {
	if len(data) != n {
		return fmt.Errorf("cell: %v: %d bytes of data, want %d", t, len(data), n)
	}
	return nil
}

// short is the error of data that end too early, leftOver of data that go on behind the end.
func short(t MessageType) error { return fmt.Errorf("cell: %v: data end too early", t) }

func leftOver(t MessageType, n int) error {
	return fmt.Errorf("cell: %v: %d bytes left over", t, n)
}
