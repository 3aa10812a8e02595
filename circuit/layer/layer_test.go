package layer

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
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

func newCircuit(kern kernel, seed uint64, hops, n int) *circuit {
	c := new(circuit)
	for i := range hops {
		k := random(seed*16+uint64(i), 2*KeySize)
		c.add(kern, (*[KeySize]byte)(k), (*[KeySize]byte)(k[KeySize:]), n)
	}
	return c
}

func (c *circuit) add(kern kernel, forward, backward *[KeySize]byte, n int) {
	c.clientForward = append(c.clientForward, newLayer(kern, forward, n, true))
	c.relayForward = append(c.relayForward, newLayer(kern, forward, n, false))
	c.clientBackward = append(c.clientBackward, newLayer(kern, backward, n, true))
	c.relayBackward = append(c.relayBackward, newLayer(kern, backward, n, false))
}

func (c *circuit) clone() *circuit {
	return &circuit{
		clone(c.clientForward), clone(c.clientBackward),
		clone(c.relayForward), clone(c.relayBackward),
	}
}

func clone(ls []*Layer) (out []*Layer) {
	for _, l := range ls {
		same := *l
		out = append(out, &same)
	}
	return out
}

// seal is what an end does with a body for the hop, or from it, through those before.
func seal(ls []*Layer, hop int, body []byte) {
	ls[hop].Seal(command, body)
	for i := hop - 1; i >= 0; i-- {
		ls[i].Wrap(command, body)
	}
}

// peel is what the other end does with it: it returns the hop that knew it, or that it came from, or -1.
func peel(ls []*Layer, body []byte) int {
	return slices.IndexFunc(ls, func(l *Layer) bool { return l.Peel(command, body) })
}

func (c *circuit) send(hop int, body []byte)   { seal(c.clientForward, hop, body) }
func (c *circuit) carry(body []byte) int       { return peel(c.relayForward, body) }
func (c *circuit) answer(hop int, body []byte) { seal(c.relayBackward, hop, body) }
func (c *circuit) receive(body []byte) int     { return peel(c.clientBackward, body) }

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
			c := newCircuit(chosen, 1, 3, n)
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

// Bodies of every length go through and come back.
func TestEveryLength(t *testing.T) {
	for n := MinSize; n <= MaxSize; n += 1 + n/1500*6 {
		c := newCircuit(chosen, uint64(n), 1, n)
		body := random(uint64(n), n)
		message := bytes.Clone(body[tagSize:])
		c.send(0, body)
		if bytes.Equal(body[tagSize:], message) || c.carry(body) != 0 || !bytes.Equal(body[tagSize:], message) {
			t.Fatalf("a body of %d bytes did not arrive", n)
		}
		c.answer(0, body)
		if bytes.Equal(body[tagSize:], message) || c.receive(body) != 0 || !bytes.Equal(body[tagSize:], message) {
			t.Fatalf("a body of %d bytes did not come back", n)
		}
	}
}

func TestWrongCommandIsNotRecognised(t *testing.T) {
	c := newCircuit(chosen, 1, 1, 509)
	body := random(1, 509)
	c.clientForward[0].Seal(4, body)
	if c.relayForward[0].Peel(3, body) {
		t.Error("a cell sealed under one command was recognised under another")
	}
}

func TestBodyOfAnotherLengthPanics(t *testing.T) {
	for _, n := range []int{0, 15, 508, 510} {
		for name, verb := range map[string]func(*Layer, byte, []byte){
			"Seal": (*Layer).Seal, "Wrap": (*Layer).Wrap, "Peel": func(l *Layer, ad byte, b []byte) { l.Peel(ad, b) },
		} {
			mustPanic(t, fmt.Sprintf("%s of %d bytes", name, n), func() {
				verb(NewRelay(new([KeySize]byte), 509), command, make([]byte, n))
			})
		}
	}
	for _, n := range []int{MinSize - 1, MaxSize + 1} {
		mustPanic(t, fmt.Sprintf("a layer for %d bytes", n), func() { NewClient(new([KeySize]byte), n) })
	}
}

func mustPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s did not panic", what)
		}
	}()
	f()
}

// memory returns the bytes that a Layer consists of.
func memory(l *Layer) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(l)), unsafe.Sizeof(*l))
}

func TestKeysAreOverwritten(t *testing.T) {
	for _, kern := range supported() {
		k := [KeySize]byte(random(7, KeySize))
		ends := map[string]*Layer{"client": newLayer(kern, &k, 509, true), "relay": newLayer(kern, &k, 509, false)}
		for end, l := range ends {
			for i, name := range []string{"KB", "KU", "K", "B", "N"} {
				if !bytes.Contains(memory(l), k[16*i:16*i+16]) {
					t.Fatalf("%v, %s: %s is not in the layer: the test looks in the wrong place", kern, end, name)
				}
			}
			l.Seal(command, make([]byte, 509))
			for i, name := range []string{"KB", "KU", "K", "B"} { // N was the tag of the cell, and is chained
				if bytes.Contains(memory(l), k[16*i:16*i+16]) {
					t.Errorf("%v, %s: the old %s outlived a cell", kern, end, name)
				}
			}
			l.Erase()
			if m := memory(l); !bytes.Equal(m, make([]byte, len(m))) {
				t.Errorf("%v, %s: an erased layer holds %x", kern, end, m)
			}
			mustPanic(t, "Wrap of an erased layer", func() { l.Wrap(command, make([]byte, 509)) })
			mustPanic(t, "Wrap of no body in an erased layer", func() { l.Wrap(command, nil) })
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for _, kern := range supported() {
		c := new(circuit)
		k := [KeySize]byte(random(8, KeySize))
		c.add(kern, &k, &k, 1403)
		body, run := make([]byte, 1403), make([]byte, 3*1408-5)
		if n := testing.AllocsPerRun(10, func() {
			c.clientForward[0].Seal(command, body)
			c.relayForward[0].Peel(command, body)
			c.relayBackward[0].Wrap(command, body)
			c.clientBackward[0].Peel(command, body)
			c.relayForward[0].PeelRun(command, run, 1408)
			c.relayBackward[0].WrapRun(command, run, 1408)
			c.clientBackward[0].PeelRun(command, run, 1408)
		}); n != 0 {
			t.Errorf("%v: %v allocations", kern, n)
		}
	}
}

// Prefetch changes nothing, of an erased layer either, and the eleven lines that it
// takes at the least hold the whole state.
func TestPrefetch(t *testing.T) {
	l := NewRelay((*[KeySize]byte)(random(9, KeySize)), 1403)
	for _, state := range []string{"fresh", "erased"} {
		before := *l
		if n := testing.AllocsPerRun(10, l.Prefetch); n != 0 {
			t.Errorf("%s: %v allocations", state, n)
		}
		if *l != before {
			t.Errorf("%s: the layer is another after it was prefetched", state)
		}
		l.Erase()
	}
	if size := unsafe.Sizeof(*l); size > 11*64 {
		t.Errorf("a Layer has %d bytes: prefetch must take more lines", size)
	}
}

// Whatever the keys and the body: the client's end undoes what the relay's does,
// both chain the same tag, and a cell that one end seals the other recognises.
func FuzzLayer(f *testing.F) {
	f.Add(make([]byte, KeySize), make([]byte, MinSize), byte(0))
	f.Add(random(1, KeySize), random(2, 509), byte(3))
	f.Add(random(3, KeySize), random(4, 1403), byte(4))
	f.Add(bytes.Repeat([]byte{0xff}, KeySize), bytes.Repeat([]byte{0xff}, 640), byte(0xff))
	f.Fuzz(func(t *testing.T, k, body []byte, ad byte) {
		if len(k) != KeySize || len(body) < MinSize || len(body) > MaxSize {
			t.Skip()
		}
		relay, client := NewRelay((*[KeySize]byte)(k), len(body)), NewClient((*[KeySize]byte)(k), len(body))
		got := bytes.Clone(body)
		for range 2 {
			relay.Wrap(ad, got)
			client.Wrap(ad, got)
			if !bytes.Equal(got, body) || relay.prev != client.prev {
				t.Fatal("the client's end does not undo the relay's")
			}
			relay.Seal(ad, got)
			if !client.Peel(ad, got) || !bytes.Equal(got[tagSize:], body[tagSize:]) {
				t.Fatal("the client does not know the relay's cell")
			}
			if relay.nonce != client.nonce || relay.prev != client.prev {
				t.Fatal("the ends went apart")
			}
			copy(got, body)
		}
	})
}
