package cell

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
)

// MaxGrants is how many circuits one CREDIT cell can speak of.
const MaxGrants = (BodySize - grantsStart) / grantSize // 174

const (
	grantsStart = 4
	grantSize   = 8
)

// CreditCell is the body of a CREDIT cell (spec/flow.md): how many more RELAY cells may come on circuits of this link.
type CreditCell struct {
	Ask    uint16  // not 0: answer at once with a CREDIT cell that has Answer = Ask
	Answer uint16  // not 0: the Ask of a cell that came
	Grants []Grant // at most MaxGrants, no circuit twice
}

// A Grant changes the credit of one circuit of the link.
type Grant struct {
	Circ  CircID // not 0
	Cells int32  // more that may come; negative: credit the sender of the cell gives back unused; never 0 nor -2^31
}

// ParseCreditCell reads the body of a CREDIT cell.
func ParseCreditCell(body []byte) (CreditCell, error) {
	if err := cellBody(CmdCredit, body); err != nil {
		return CreditCell{}, err
	}
	c := CreditCell{Ask: binary.BigEndian.Uint16(body), Answer: binary.BigEndian.Uint16(body[2:])}
	rest := body[grantsStart:]
	n := 0
	for n < MaxGrants && binary.BigEndian.Uint32(rest[n*grantSize:]) != 0 {
		n++
	}
	if n > 0 {
		c.Grants = make([]Grant, n)
	}
	for i := range c.Grants {
		c.Grants[i].Circ = CircID(binary.BigEndian.Uint32(rest))
		c.Grants[i].Cells = int32(binary.BigEndian.Uint32(rest[4:]))
		rest = rest[grantSize:]
	}
	if err := c.Check(); err != nil {
		return CreditCell{}, err
	}
	return c, padding(CmdCredit, rest)
}

// Check implements Body.
func (c CreditCell) Check() error {
	if len(c.Grants) > MaxGrants {
		return fmt.Errorf("cell: CREDIT: %d grants, at most %d fit", len(c.Grants), MaxGrants)
	}
	if c.Ask == 0 && c.Answer == 0 && len(c.Grants) == 0 {
		return fmt.Errorf("cell: CREDIT: says nothing")
	}
	var last [1 << spreadBits]uint8 // of the grants whose circuits are spread to a place, the last; 0: none. They count from 1
	var before [MaxGrants + 1]uint8 // and for each the one before it
	for i, g := range c.Grants {
		switch {
		case g.Circ == 0:
			return fmt.Errorf("cell: CREDIT: a grant to circuit 0")
		case g.Cells == 0 || g.Cells == math.MinInt32:
			return fmt.Errorf("cell: CREDIT: a grant of %d cells", g.Cells)
		}
		at := uint32(g.Circ) * spread >> (32 - spreadBits)
		for j := last[at]; j != 0; j = before[j] {
			if c.Grants[j-1].Circ == g.Circ {
				return fmt.Errorf("cell: CREDIT: two grants to circuit %#x", uint32(g.Circ))
			}
		}
		before[i+1], last[at] = last[at], uint8(i+1)
	}
	return nil
}

// spreadBits is how many of the bits of circuits times spread say where to look for another grant to the same: of 174 that a peer may choose,
// but without knowing spread, some 60 pairs come to one place at most, on average, for any choice.
const spreadBits = 9

// spread is odd, and another in each process, so that no peer can know which circuits come to one place. It decides how long Check takes, never
// what it says.
var spread = rand.Uint32() | 1

// Append implements Body.
func (c CreditCell) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, c.Ask)
	b = binary.BigEndian.AppendUint16(b, c.Answer)
	for _, g := range c.Grants {
		b = binary.BigEndian.AppendUint32(b, uint32(g.Circ))
		b = binary.BigEndian.AppendUint32(b, uint32(g.Cells))
	}
	return b
}
