package layer

import (
	"bytes"
	"fmt"
	"math/bits"
	"testing"
)

const hops = 3

// A way is one of the two directions in which a circuit of three hops carries
// cells between its client and its last relay. Wire i is the one between relay
// i and its neighbour on the client's side.
type way struct {
	name string
	// give makes a cell of the message in body, as it crosses the wire.
	give func(c *circuit, wire int, body []byte)
	// take carries it on, and reports whether its end knew it.
	take func(c *circuit, wire int, body []byte) bool
}

var ways = []way{
	{
		"forward",
		func(c *circuit, wire int, body []byte) {
			c.send(hops-1, body)
			for _, l := range c.relayForward[:wire] {
				l.Peel(command, body)
			}
		},
		func(c *circuit, wire int, body []byte) bool {
			for _, l := range c.relayForward[wire:] {
				if l.Peel(command, body) {
					return true
				}
			}
			return false
		},
	},
	{
		"backward",
		func(c *circuit, wire int, body []byte) {
			c.relayBackward[hops-1].Seal(command, body)
			for i := hops - 2; i >= wire; i-- {
				c.relayBackward[i].Wrap(command, body)
			}
		},
		func(c *circuit, wire int, body []byte) bool {
			for i := wire - 1; i >= 0; i-- {
				c.relayBackward[i].Wrap(command, body)
			}
			return c.receive(body) >= 0
		},
	},
}

// noise fails the test if body shows anything of message: of that many bits of
// unrelated strings, nearly half differ.
func noise(t *testing.T, what string, body, message []byte) {
	t.Helper()
	differ := 0
	for i := range message {
		differ += bits.OnesCount8(body[i] ^ message[i])
	}
	if differ < len(message)*8/4 || differ > len(message)*8*3/4 {
		t.Fatalf("%s: %d of %d bits differ", what, differ, len(message)*8)
	}
}

// ruined fails the test if a cell that was tampered with, or one of the next
// three, is recognised or shows anything of its message. A client that takes a
// cell off the wire next to its maker deciphers, and there, for this one cell, a
// flipped bit is a flipped bit: it is the tag that must be noise (spec/layer.md,
// section 5).
func ruined(t *testing.T, what string, w way, c *circuit, wire int, body, message []byte) {
	t.Helper()
	for i := range 4 {
		if w.take(c, wire, body) {
			t.Fatalf("%s: recognised, %d cells after it", what, i)
		}
		if i > 0 || w.name == "forward" || wire < hops-1 {
			noise(t, fmt.Sprintf("%s: %d cells after it", what, i), body[tagSize:], message)
		}
		body = random(uint64(100+i), len(body))
		message = bytes.Clone(body[tagSize:])
		w.give(c, wire, body)
	}
}

func TestOneFlippedBitRuinsThisAndEveryLaterCell(t *testing.T) {
	for _, w := range ways {
		for _, n := range []int{MinSize, 509, 1403} {
			t.Run(fmt.Sprintf("%s/%d", w.name, n), func(t *testing.T) {
				fresh := newCircuit(chosen, 2, hops, n)
				for i := range 3 {
					body := random(uint64(i), n)
					if w.give(fresh, 0, body); !w.take(fresh, 0, body) {
						t.Fatal("an untouched cell did not arrive")
					}
				}
				// The shortest body: every bit on every wire. The others: every
				// byte, with bits and wires in turn.
				for at := range n {
					for bit := range 8 {
						for wire := range hops {
							if n != MinSize && (bit != at*5%8 || wire != at%hops) {
								continue
							}
							c, body := fresh.clone(), random(9, n)
							message := bytes.Clone(body[tagSize:])
							w.give(c, wire, body)
							body[at] ^= 1 << bit
							what := fmt.Sprintf("bit %d of byte %d flipped on wire %d", bit, at, wire)
							ruined(t, what, w, c, wire, body, message)
						}
					}
				}
			})
		}
	}
}

// A cell that is left out, repeated or overtaken on any wire is the last that
// its end understood.
func TestDropReplayReorder(t *testing.T) {
	const n = 509
	for _, w := range ways {
		for wire := range hops {
			t.Run(fmt.Sprintf("%s/wire %d", w.name, wire), func(t *testing.T) {
				first, second := random(1, n), random(2, n)
				given := newCircuit(chosen, 3, hops, n)
				w.give(given, wire, first)
				w.give(given, wire, second)
				message := random(2, n)[tagSize:]

				ruined(t, "drop", w, given.clone(), wire, bytes.Clone(second), message)

				c := given.clone()
				if !w.take(c, wire, bytes.Clone(first)) {
					t.Fatal("an untouched cell did not arrive")
				}
				ruined(t, "replay", w, c, wire, bytes.Clone(first), message)

				c = given.clone()
				if w.take(c, wire, second) {
					t.Fatal("a cell that overtook another was recognised")
				}
				ruined(t, "reorder", w, c, wire, first, message)
			})
		}
	}
}
