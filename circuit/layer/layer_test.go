package layer

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
)

// command is the associated data of the cells in these tests.
const command = 3

// random returns n bytes that are the same in every run for the same seed.
func random(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// A circuit has both ends of the layers of some hops.
type circuit struct {
	clientForward, clientBackward []*Layer
	relayForward, relayBackward   []*Layer
}

func newCircuit(seed uint64, hops, n int) *circuit {
	c := new(circuit)
	for i := range hops {
		k := random(seed*16+uint64(i), 2*KeySize)
		f, b := [KeySize]byte(k), [KeySize]byte(k[KeySize:])
		c.clientForward = append(c.clientForward, NewClient(&f, n))
		c.relayForward = append(c.relayForward, NewRelay(&f, n))
		c.clientBackward = append(c.clientBackward, NewClient(&b, n))
		c.relayBackward = append(c.relayBackward, NewRelay(&b, n))
	}
	return c
}

// send is what a client does with a body for a hop.
func (c *circuit) send(hop int, body []byte) {
	c.clientForward[hop].Seal(command, body)
	for i := hop - 1; i >= 0; i-- {
		c.clientForward[i].Wrap(command, body)
	}
}

// carry is what the relays do with it: it returns the hop that knew it, or -1.
func (c *circuit) carry(body []byte) int {
	for i, l := range c.relayForward {
		if l.Peel(command, body) {
			return i
		}
	}
	return -1
}

// answer is what the relays do with a body that comes from a hop.
func (c *circuit) answer(hop int, body []byte) {
	c.relayBackward[hop].Seal(command, body)
	for i := hop - 1; i >= 0; i-- {
		c.relayBackward[i].Wrap(command, body)
	}
}

// receive is what the client does with it: it returns the hop it came from, or -1.
func (c *circuit) receive(body []byte) int {
	for i, l := range c.clientBackward {
		if l.Peel(command, body) {
			return i
		}
	}
	return -1
}

func TestPolyvalOfRFC8452(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	h := loadElement(unhex("25629347589242761d31f826ba4b757b"))
	x := unhex("4f4f95668c83dfb6401762bb2d01a262d1a24ddd2721d006bbe45f20d3c9f362")
	var got [16]byte
	element{}.absorb(h, x).store(got[:])
	if want := "f7a3b47b846119fae5b7866cf5e5b77e"; hex.EncodeToString(got[:]) != want {
		t.Errorf("POLYVAL is %x, not %s", got, want)
	}
}

func TestThreeHopsCarryCellsBothWays(t *testing.T) {
	for _, n := range []int{MinSize, 509, 1403, MaxSize} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			c := newCircuit(1, 3, n)
			for i := range 30 {
				hop := []int{2, 2, 1, 2, 0}[i%5]
				body := random(uint64(i), n)
				message := bytes.Clone(body[tagSize:])

				c.send(hop, body)
				if got := c.carry(body); got != hop || !bytes.Equal(body[tagSize:], message) {
					t.Fatalf("cell %d for hop %d: hop %d knew it, its message intact: %v", i, hop, got, bytes.Equal(body[tagSize:], message))
				}
				c.answer(hop, body)
				if got := c.receive(body); got != hop || !bytes.Equal(body[tagSize:], message) {
					t.Fatalf("answer %d from hop %d: came from %d, its message intact: %v", i, hop, got, bytes.Equal(body[tagSize:], message))
				}
			}
		})
	}
}
