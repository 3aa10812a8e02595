package layer

import (
	"bytes"
	"fmt"
	"testing"
)

// A plan is a run of count bodies of n bytes, stride apart, and which of them end at
// the layer that peels it (bit i for body i; those after the 64th do not).
type plan struct {
	n, count, stride int
	ours             uint64
}

func (p plan) size() int { return (p.count-1)*p.stride + p.n }

func (p plan) mine(i int) bool { return p.ours>>i&1 == 1 }

func (p plan) body(run []byte, i int) []byte { return run[i*p.stride:][:p.n] }

// from makes of a run what the other end of a layer sends.
func (p plan) from(other *Layer, ad byte, run []byte) {
	for i := range p.count {
		body := p.body(run, i)
		switch {
		case p.mine(i):
			other.Seal(ad, body)
		case [tagSize]byte(body) == other.nonce: // would end here too
			body[0]++
			fallthrough
		default:
			other.Wrap(ad, body)
		}
	}
}

// singly peels a run body by body.
func (p plan) singly(t *testing.T, l *Layer, ad byte, run []byte) {
	t.Helper()
	for i := range p.count {
		if got := l.Peel(ad, p.body(run, i)); got != p.mine(i) {
			t.Fatalf("%v, %+v: body %d ends here: %v", l.kernel, p, i, got)
		}
	}
}

// peel peels a run by PeelRun, and fails if it stops where it should not.
func (p plan) peel(t *testing.T, l *Layer, ad byte, run []byte) {
	t.Helper()
	for i := 0; i < p.count; {
		want := 1
		for !p.mine(i+want-1) && i+want < p.count {
			want++
		}
		done, ends := l.PeelRun(ad, run[i*p.stride:], p.stride)
		if done != want || ends != p.mine(i+want-1) {
			t.Fatalf("%v, %+v: from body %d on it peeled %d, the last ends here: %v", l.kernel, p, i, done, ends)
		}
		i += done
	}
}

// sameState says whether two ends of a layer are in the same state, whatever their kernels.
func sameState(a, b *Layer) bool { return a.prev == b.prev && a.nonce == b.nonce }

// check peels one and the same run, made by the end other, with a layer by runs and
// with another body by body, and compares all that they leave.
func (p plan) check(t *testing.T, other, byRun, singly *Layer, ad byte, room []byte) {
	t.Helper()
	p.from(other, ad, room[:p.size()])
	want := bytes.Clone(room)
	p.singly(t, singly, ad, want[:p.size()])
	p.peel(t, byRun, ad, room[:p.size()])
	if !bytes.Equal(room, want) {
		t.Fatalf("%v, %+v: the run differs from its bodies in turn", byRun.kernel, p)
	}
	if !sameState(byRun, singly) {
		t.Fatalf("%v, %+v: the run leaves another state than its bodies in turn", byRun.kernel, p)
	}
}

// both makes the two ends of a layer that peel: a relay's, and a client's.
func both(t *testing.T, kern kernel, seed uint64, p plan) {
	t.Helper()
	for _, client := range []bool{false, true} {
		k := [KeySize]byte(random(seed, KeySize))
		byRun, singly := newLayer(kern, &k, p.n, client), newLayer(kern, &k, p.n, client)
		other := newLayer(kern, &k, p.n, !client)
		for range 2 { // the second continues on the state that the first leaves
			p.check(t, other, byRun, singly, command, random(seed+1, p.size()+64))
		}
	}
}

// A run comes to the same as its bodies one by one, wherever cells in it end here.
func TestRunIsItsBodiesInTurn(t *testing.T) {
	for _, kern := range supported() {
		for _, count := range []int{1, 2, 3, 46} {
			for _, ours := range []uint64{0, 1, 2, 3, 4, 5, 7, 1 << 20, 1 << 44, 1 << 45, 0x249249249249} {
				if ours>>count != 0 || kern == generic && count > 3 && ours > 1 {
					continue
				}
				both(t, kern, ours, plan{1403, count, 1408, ours})
				if kern != generic {
					both(t, kern, ours, plan{509, count, 509, ours})
				}
			}
		}
	}
}

// The same at all lengths that the loops' ends tell apart, four times over, and at
// many beyond.
func TestRunsOfManyLengths(t *testing.T) {
	for _, kern := range supported() {
		if kern == generic {
			continue // which has one loop for runs of all lengths
		}
		for n := MinSize; n <= MaxSize; n += 1 + n/1100*4 {
			both(t, kern, uint64(n), plan{n, 3, n + n%7, uint64(n) % 8})
		}
	}
}

// WrapRun adds a layer to all bodies, even if a tag were the nonce by chance.
func TestWrapRunDoesNotStop(t *testing.T) {
	p := plan{n: 1403, count: 4, stride: 1408}
	for _, kern := range supported() {
		for _, client := range []bool{false, true} {
			k := [KeySize]byte(random(1, KeySize))
			for hit := -1; hit < p.count; hit++ {
				one, run := newLayer(kern, &k, p.n, client), newLayer(kern, &k, p.n, client)
				got := random(2, p.size())
				want := bytes.Clone(got)
				for i := range p.count {
					one.Wrap(command, p.body(want, i))
				}
				if hit >= 0 {
					copy(run.nonce[:], p.body(want, hit))
				}
				run.WrapRun(command, got, p.stride)
				if !bytes.Equal(got, want) || run.prev != one.prev {
					t.Errorf("%v, client %v, body %d has the nonce: the run differs from its bodies in turn", kern, client, hit)
				}
			}
		}
	}
}

func TestRunOfAnotherLengthPanics(t *testing.T) {
	for _, r := range []struct{ size, stride int }{
		{0, 509}, {508, 509}, {510, 509}, {510, 514}, {2 * 509, 514}, {509 + 514 + 1, 514}, {509, 508}, {509, 0}, {509, -509},
	} {
		for name, verb := range map[string]func(*Layer, byte, []byte, int){
			"WrapRun": (*Layer).WrapRun,
			"PeelRun": func(l *Layer, ad byte, run []byte, stride int) { l.PeelRun(ad, run, stride) },
		} {
			l := NewRelay(new([KeySize]byte), 509)
			mustPanic(t, fmt.Sprintf("%s of %d bytes, stride %d", name, r.size, r.stride), func() {
				verb(l, command, make([]byte, r.size), r.stride)
			})
			l.Erase()
			mustPanic(t, name+" of an erased layer", func() { verb(l, command, make([]byte, 509), 509) })
			mustPanic(t, name+" of nothing in an erased layer", func() { verb(l, command, nil, 0) })
		}
	}
}

// Whatever the keys, the bodies, their number and place, and which of them end here:
// all kernels make of a run what the generic one makes of its bodies one by one.
func FuzzRuns(f *testing.F) {
	f.Add(make([]byte, KeySize), make([]byte, 2*MinSize), byte(2), byte(0), uint64(0), byte(3), false)
	f.Add(random(1, KeySize), random(2, 4*1408), byte(4), byte(5), uint64(4), byte(3), false)
	f.Add(random(3, KeySize), random(4, 5*509), byte(5), byte(0), uint64(10), byte(4), true)
	f.Add(random(5, KeySize), random(6, 46*100), byte(46), byte(3), uint64(1)<<45|1, byte(9), false)
	f.Add(bytes.Repeat([]byte{0xff}, KeySize), bytes.Repeat([]byte{0xff}, 2*MaxSize), byte(2), byte(255), uint64(3), byte(0xff), true)
	f.Fuzz(func(t *testing.T, k, room []byte, count, gap byte, ours uint64, ad byte, client bool) {
		p := plan{count: int(count), ours: ours}
		if len(k) != KeySize || count == 0 || len(room) > 1<<16 {
			t.Skip()
		}
		p.stride = len(room) / p.count
		p.n = p.stride - int(gap)
		if p.n < MinSize || p.n > MaxSize {
			t.Skip()
		}
		for _, kern := range supported() {
			key := (*[KeySize]byte)(k)
			other := newLayer(generic, key, p.n, !client)
			byRun, singly := newLayer(kern, key, p.n, client), newLayer(generic, key, p.n, client)
			p.check(t, other, byRun, singly, ad, bytes.Clone(room))
		}
	})
}
