package cell_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"peel/cell"
)

// TestNoCircuitIsGrantedTwice has each two grants of a full cell be to one circuit, whose number is any.
func TestNoCircuitIsGrantedTwice(t *testing.T) {
	c := cell.CreditCell{Grants: grants(cell.MaxGrants)}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range c.Grants {
		c.Grants[i].Circ = cell.CircID(uint32(i)<<24 | r.Uint32()>>8)
	}
	if err := c.Check(); err != nil {
		t.Fatalf("all are to others: %v", err)
	}
	for i := range c.Grants {
		was := c.Grants[i].Circ
		for j := range i {
			c.Grants[i].Circ = c.Grants[j].Circ
			if c.Check() == nil {
				t.Fatalf("grants %d and %d are to circuit %#x, and taken", j, i, uint32(c.Grants[i].Circ))
			}
		}
		c.Grants[i].Circ = was
	}
	if n := testing.AllocsPerRun(10, func() { c.Check() }); n != 0 {
		t.Errorf("to check a cell takes %v allocations", n)
	}
}

// A peer chooses the numbers of its circuits, and how many a cell speaks of: 174 must not cost much more than 174 times as much as one.
func BenchmarkCreditCheck(b *testing.B) {
	for name, number := range map[string]func(i int) uint32{
		"in a row":     func(i int) uint32 { return uint32(i + 1) },
		"high bytes":   func(i int) uint32 { return uint32(i+1) << 24 },
		"by chance":    func(i int) uint32 { return rand.Uint32N(math.MaxUint32) + 1 },
		"from the top": func(i int) uint32 { return math.MaxUint32 - uint32(i) },
	} {
		for _, n := range []int{1, 16, cell.MaxGrants} {
			c := cell.CreditCell{Grants: grants(n)}
			for i := range c.Grants {
				c.Grants[i].Circ = cell.CircID(number(i))
			}
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := c.Check(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
