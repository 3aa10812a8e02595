package layer

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// A pair has both ends of a layer on one kernel.
type pair struct{ relay, client *Layer }

func newPair(kern kernel, k *[KeySize]byte, n int) pair {
	return pair{newLayer(kern, k, n, false), newLayer(kern, k, n, true)}
}

// run does to body what happens to two cells: the relay passes one on and the
// client undoes it; the relay makes one and the client recognises it. It returns
// what came out of the relay, and its state, on the way.
func (p pair) run(t *testing.T, ad byte, body []byte) (trace []byte) {
	t.Helper()
	original := bytes.Clone(body)

	p.relay.Wrap(ad, body)
	trace = append(append(append(trace, body...), p.relay.prev[:]...), p.relay.nonce[:]...)
	p.client.Wrap(ad, body)
	if !bytes.Equal(body, original) {
		t.Fatalf("%v, %d bytes: the client does not undo the relay", p.relay.kernel, len(body))
	}
	p.relay.Seal(ad, body)
	trace = append(append(append(trace, body...), p.relay.prev[:]...), p.relay.nonce[:]...)
	if !p.client.Peel(ad, body) || !bytes.Equal(body[tagSize:], original[tagSize:]) {
		t.Fatalf("%v, %d bytes: the client does not know the relay's cell", p.relay.kernel, len(body))
	}
	if p.relay.prev != p.client.prev || p.relay.nonce != p.client.nonce {
		t.Fatalf("%v, %d bytes: the ends went apart", p.relay.kernel, len(body))
	}
	return trace
}

// oracle is what run returns, by the generic kernel.
func oracle(k *[KeySize]byte, ad byte, body []byte) (trace []byte) {
	l := newLayer(generic, k, len(body), false)
	for _, verb := range []func(*Layer, byte, []byte){(*Layer).Wrap, (*Layer).Seal} {
		out := bytes.Clone(body)
		verb(l, ad, out)
		trace = append(append(append(trace, out...), l.prev[:]...), l.nonce[:]...)
	}
	return trace
}

// Each kernel of this machine passes the self-test, so that the fastest is used;
// one that gave a wrong tag would be passed over, and without any the program
// would not start.
func TestSelfTest(t *testing.T) {
	for _, kern := range supported() {
		if got := choose([]kernel{kern, generic}, selfTests); got != kern {
			t.Errorf("%v: passed over for %v", kern, got)
		}
	}
	if Kernel() != supported()[0].String() {
		t.Errorf("%s is used, and %v would run here", Kernel(), supported()[0])
	}
	for i := range selfTests {
		wrong := slices.Clone(selfTests)
		wrong[i].tag[15] ^= 1
		mustPanic(t, fmt.Sprintf("a wrong tag in self-test %d", i), func() { choose(supported(), wrong) })
	}
}

// All kernels do the same as the generic one, at every length, and leave what is
// beside the body alone.
func TestKernelsAgreeAtEveryLength(t *testing.T) {
	if supported()[0] == generic {
		t.Skip("no kernel here but the generic one")
	}
	room := make([]byte, MaxSize+128)
	for n := MinSize; n <= MaxSize; n++ {
		k, ad := [KeySize]byte(random(uint64(n), KeySize)), byte(n)
		message := random(uint64(n)+1<<16, n)
		want := oracle(&k, ad, message)
		for _, kern := range supported() {
			if kern == generic {
				continue
			}
			for i := range room {
				room[i] = byte(i)
			}
			body := room[64 : 64+n]
			copy(body, message)
			if got := newPair(kern, &k, n).run(t, ad, body); !bytes.Equal(got, want) {
				t.Fatalf("%v, %d bytes: differs from the generic kernel", kern, n)
			}
			for i := range room {
				if (i < 64 || i >= 64+n) && room[i] != byte(i) {
					t.Fatalf("%v, %d bytes: byte %d from the body was written", kern, n, i-64)
				}
			}
		}
	}
}

// Whatever the keys, the body and its place in memory: all kernels do the same
// as the generic one.
func FuzzKernels(f *testing.F) {
	f.Add(make([]byte, KeySize), make([]byte, MinSize), byte(0), byte(0))
	f.Add(random(1, KeySize), random(2, 509), byte(3), byte(1))
	f.Add(random(3, KeySize), random(4, 1403), byte(4), byte(15))
	f.Add(bytes.Repeat([]byte{0xff}, KeySize), bytes.Repeat([]byte{0xff}, MaxSize), byte(0xff), byte(31))
	f.Fuzz(func(t *testing.T, k, body []byte, ad, offset byte) {
		if len(k) != KeySize || len(body) < MinSize || len(body) > MaxSize {
			t.Skip()
		}
		want := oracle((*[KeySize]byte)(k), ad, body)
		for _, kern := range supported() {
			moved := append(make([]byte, offset), body...)[offset:]
			if got := newPair(kern, (*[KeySize]byte)(k), len(body)).run(t, ad, moved); !bytes.Equal(got, want) {
				t.Fatalf("%v differs from the generic kernel", kern)
			}
		}
	})
}
