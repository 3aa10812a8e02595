package cell

import (
	"encoding/binary"
	"fmt"
)

// SuiteCGO is the one layer suite of version 1: Counter Galois Onion with AES-128 and POLYVAL (spec/layer.md).
const SuiteCGO uint8 = 1

// Sizes of the circuit handshake in bytes (spec/handshake.md).
const (
	RequestSize  = 1232 // its first message
	MinReplySize = 1136 // its second, without parameters
	MaxReplySize = 1200 // and with as many as there may be
)

// Create is the body of a CREATE cell: it opens the circuit it names.
type Create struct {
	Credit  uint16 // RELAY cells that may come back before there is more credit
	Suite   uint8  // SuiteCGO
	Key     KeyID  // the onion key that Request is for
	Request []byte // the handshake's first message, RequestSize bytes
}

// ParseCreate reads the body of a CREATE cell. Request aliases body.
func ParseCreate(body []byte) (Create, error) {
	if err := cellBody(CmdCreate, body); err != nil {
		return Create{}, err
	}
	const request = 3 + len(KeyID{})
	c := Create{
		Credit:  binary.BigEndian.Uint16(body),
		Suite:   body[2],
		Key:     KeyID(body[3:request]),
		Request: body[request : request+RequestSize : request+RequestSize],
	}
	if err := c.Check(); err != nil {
		return Create{}, err
	}
	return c, padding(CmdCreate, body[request+RequestSize:])
}

// Check implements Body.
func (c Create) Check() error { return checkRequest(CmdCreate, c.Suite, c.Request) }

// Append implements Body.
func (c Create) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, c.Credit)
	b = append(b, c.Suite)
	b = append(b, c.Key[:]...)
	return append(b, c.Request...)
}

// Created is the body of a CREATED cell: the circuit is open.
type Created struct {
	Credit uint16 // RELAY cells that may go forward before there is more credit
	Reply  []byte // the handshake's second message, MinReplySize to MaxReplySize bytes
}

// ParseCreated reads the body of a CREATED cell. Reply aliases body.
func ParseCreated(body []byte) (Created, error) {
	if err := cellBody(CmdCreated, body); err != nil {
		return Created{}, err
	}
	n := int(binary.BigEndian.Uint16(body[2:]))
	if err := checkReply(CmdCreated, n); err != nil {
		return Created{}, err
	}
	c := Created{Credit: binary.BigEndian.Uint16(body), Reply: body[4 : 4+n : 4+n]}
	return c, padding(CmdCreated, body[4+n:])
}

// Check implements Body.
func (c Created) Check() error { return checkReply(CmdCreated, len(c.Reply)) }

// Append implements Body.
func (c Created) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, c.Credit)
	b = binary.BigEndian.AppendUint16(b, uint16(len(c.Reply)))
	return append(b, c.Reply...)
}

func checkRequest(what fmt.Stringer, suite uint8, request []byte) error {
	if suite != SuiteCGO {
		return fmt.Errorf("cell: %v: unknown suite %d", what, suite)
	}
	if len(request) != RequestSize {
		return fmt.Errorf("cell: %v: request of %d bytes, want %d", what, len(request), RequestSize)
	}
	return nil
}

func checkReply(what fmt.Stringer, n int) error {
	if n < MinReplySize || n > MaxReplySize {
		return fmt.Errorf("cell: %v: reply of %d bytes, want %d to %d", what, n, MinReplySize, MaxReplySize)
	}
	return nil
}
