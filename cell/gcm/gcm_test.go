package gcm

import (
	"bytes"
	"crypto/cipher"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

var _ cipher.AEAD = (*AEAD)(nil)

// random returns n bytes that are the same in every run for the same seed.
func random(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b)
	return b
}

// kernels are those of this machine but the standard library.
func kernels(t testing.TB) []kernel {
	t.Helper()
	all := supported()
	if len(all) == 1 {
		t.Skip("no kernel here but the standard library")
	}
	return all[:len(all)-1]
}

// The fastest kernel is used, and one that did something else would be passed over.
func TestFastestRightKernelIsUsed(t *testing.T) {
	all := supported()
	if chosen != all[0] {
		t.Errorf("%v is used, and %v would run here", chosen, all[0])
	}
	for i, wrong := range all {
		got := choose(all, func(kern kernel) bool { return kern != wrong })
		if want := all[0]; i > 0 && got != want || i == 0 && len(all) > 1 && got != all[1] {
			t.Errorf("%v does something else, and %v is used", wrong, got)
		}
	}
	if got := choose(all, func(kernel) bool { return false }); got != std {
		t.Errorf("all do something else, and %v is used", got)
	}
}

// Cases 13 to 16 of McGrew and Viega, "The Galois/Counter Mode of Operation".
func TestVectors(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const (
		key   = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
		text  = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
		out   = "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
		nonce = "cafebabefacedbaddecaf888"
		zero  = "00000000000000000000000000000000"
	)
	for _, c := range []struct{ key, nonce, text, data, want string }{
		{zero + zero, zero[:24], "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
		{zero + zero, zero[:24], zero, "", "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
		{key, nonce, text, "", out + "b094dac5d93471bdec1a502270e3cc6c"},
		{key, nonce, text[:120], "feedfacedeadbeeffeedfacedeadbeefabaddad2", out[:120] + "76fc6ece0f4e1768cddf8853bb2d551b"},
	} {
		for _, w := range supported() {
			a := newAEAD((*[KeySize]byte)(unhex(c.key)), w)
			sealed := a.Seal(nil, unhex(c.nonce), unhex(c.text), unhex(c.data))
			if hex.EncodeToString(sealed) != c.want {
				t.Errorf("%v: sealed %x, not %s", w, sealed, c.want)
			}
			if got, err := a.Open(nil, unhex(c.nonce), unhex(c.want), unhex(c.data)); err != nil || hex.EncodeToString(got) != c.text {
				t.Errorf("%v: opened %x, not %s: %v", w, got, c.text, err)
			}
		}
	}
}

// At every length that the loops' ends tell apart, and those of records, the kernel does what the standard library does, in
// place, and leaves what is beside alone.
func TestAgreesWithTheStandardLibrary(t *testing.T) {
	lengths := make([]int, 0, 1300)
	for n := range 1200 {
		lengths = append(lengths, n)
	}
	for k := range 47 {
		lengths = append(lengths, k*1408, k*1408+1)
	}
	key := (*[KeySize]byte)(random(1, KeySize))
	theirs := newAEAD(key, std)
	room := make([]byte, 47*1408+200)
	for _, kern := range kernels(t) {
		ours := newAEAD(key, kern)
		for i, n := range lengths {
			nonce, data, text := random(uint64(i), NonceSize), random(uint64(i)+1<<17, i%600), random(uint64(i)+1<<18, n)
			want := theirs.Seal(nil, nonce, text, data)
			for j := range room {
				room[j] = byte(j)
			}
			body := room[64+i%64:][: n : n+TagSize]
			copy(body, text)
			if got := ours.Seal(body[:0], nonce, body, data); !bytes.Equal(got, want) || n > 0 && &got[0] != &body[0] {
				t.Fatalf("%v, %d bytes: sealed otherwise", kern, n)
			}
			if got, err := ours.Open(body[:0], nonce, body[:n+TagSize], data); err != nil || !bytes.Equal(got, text) {
				t.Fatalf("%v, %d bytes: opened otherwise: %v", kern, n, err)
			}
			for j := range room {
				if (j < 64+i%64 || j >= 64+i%64+n+TagSize) && room[j] != byte(j) {
					t.Fatalf("%v, %d bytes: byte %d from the text was written", kern, n, j-64-i%64)
				}
			}
		}
	}
}

// The counter has 32 bits, and goes over without a carry into the nonce, as that of the standard library does: here it would
// take too long to come so far, so the kernel begins there.
func TestCounterGoesOver(t *testing.T) {
	for _, kern := range kernels(t) {
		counterGoesOver(t, newAEAD((*[KeySize]byte)(random(1, KeySize)), kern))
	}
}

func counterGoesOver(t *testing.T, ours *AEAD) {
	for _, first := range []uint32{1<<32 - 1, 1<<32 - 5, 1<<32 - 17, 1<<16 - 3, 1<<8 - 6, 1<<24 - 9} {
		nonce, text := random(2, NonceSize), make([]byte, 700)
		ours.keys.seal(counter(nonce, first), new([16]byte), text)
		for i := 0; i < len(text); i += 16 {
			want := counter(nonce, first+uint32(i/16))
			ours.keys.block(want)
			if n := min(16, len(text)-i); !bytes.Equal(text[i:i+n], want[:n]) {
				t.Fatalf("%v, counter %#x: block %d is another", ours.kernel, first, i/16)
			}
		}
	}
}

// Any bit that differs, and any byte that is missing or too much, is found; and nothing that was decrypted stays.
func TestWhatWasChangedIsRefused(t *testing.T) {
	for _, w := range supported() {
		a := newAEAD((*[KeySize]byte)(random(1, KeySize)), w)
		nonce, data := random(2, NonceSize), random(3, 2)
		for _, n := range []int{0, 1, 16, 300, 1408} {
			text := random(4, n)
			sealed := a.Seal(nil, nonce, text, data)
			refused := func(what string, nonce, sealed, data []byte) {
				t.Helper()
				room := make([]byte, 1, 1+len(sealed))
				got, err := a.Open(room, nonce, sealed, data)
				if err == nil || got != nil {
					t.Errorf("%v, %d bytes, %s: opened", w, n, what)
				}
				if rest := room[1:cap(room)]; !bytes.Equal(rest, make([]byte, len(rest))) {
					t.Errorf("%v, %d bytes, %s: left %x", w, n, what, rest)
				}
			}
			flip := func(b []byte, bit int) []byte {
				b = slices.Clone(b)
				b[bit/8] ^= 1 << (bit % 8)
				return b
			}
			for bit := 0; bit < 8*len(sealed); bit += 1 + bit/200*7 {
				refused(fmt.Sprint("bit ", bit), nonce, flip(sealed, bit), data)
			}
			for bit := range 8 * TagSize {
				refused(fmt.Sprint("bit of the tag ", bit), nonce, flip(sealed, 8*n+bit), data)
			}
			for bit := range 8 * NonceSize {
				refused(fmt.Sprint("bit of the nonce ", bit), flip(nonce, bit), sealed, data)
			}
			for bit := range 16 {
				refused(fmt.Sprint("bit of the data ", bit), nonce, sealed, flip(data, bit))
			}
			refused("no data", nonce, sealed, nil)
			refused("more data", nonce, sealed, append(slices.Clone(data), 0))
			refused("a byte less", nonce, sealed[:len(sealed)-1], data)
			refused("a byte more", nonce, append(slices.Clone(sealed), 0), data)
			refused("less than a tag", nonce, sealed[:min(len(sealed), TagSize-1)], data)
			if got, err := a.Open(nil, nonce, sealed, data); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%v, %d bytes: what was not changed is refused: %v", w, n, err)
			}
		}
	}
}

// What is appended to, and where it overlaps what is read, makes no difference.
func TestPlaceOfTheResult(t *testing.T) {
	for _, kern := range kernels(t) {
		placeOfTheResult(t, newAEAD((*[KeySize]byte)(random(1, KeySize)), kern))
	}
}

func placeOfTheResult(t *testing.T, ours *AEAD) {
	theirs := newAEAD((*[KeySize]byte)(random(1, KeySize)), std)
	nonce, data := random(2, NonceSize), random(3, 20)
	for _, n := range []int{0, 5, 300, 1408} {
		text := random(4, n)
		want := theirs.Seal([]byte("before"), nonce, text, data)
		if got := ours.Seal([]byte("before"), nonce, text, data); !bytes.Equal(got, want) {
			t.Errorf("%v, %d bytes: appended otherwise", ours.kernel, n)
		}
		for shift := -20; shift <= 20; shift++ {
			room := make([]byte, 40+n+TagSize+40)
			from := room[40+shift:][:n]
			copy(from, text)
			if got := ours.Seal(room[:40], nonce, from, data); !bytes.Equal(got[40:], want[6:]) {
				t.Errorf("%v, %d bytes, %d from where they go: sealed otherwise", ours.kernel, n, shift)
			}
			room = make([]byte, 40+n+TagSize+40)
			from = room[40+shift:][:n+TagSize]
			copy(from, want[6:])
			if got, err := ours.Open(room[:40], nonce, from, data); err != nil || !bytes.Equal(got[40:], text) {
				t.Errorf("%v, %d bytes, %d from where they go: opened otherwise: %v", ours.kernel, n, shift, err)
			}
		}
	}
}

func TestEraseLeavesNoKey(t *testing.T) {
	for _, kern := range kernels(t) {
		key := (*[KeySize]byte)(random(1, KeySize))
		a := newAEAD(key, kern)
		memory := unsafe.Slice((*byte)(unsafe.Pointer(a)), unsafe.Sizeof(*a))
		if !bytes.Contains(memory, key[:]) {
			t.Fatal("the key is not there: the test looks in the wrong place")
		}
		a.Erase()
		if !bytes.Equal(memory, make([]byte, len(memory))) {
			t.Errorf("%v: it holds %x", kern, memory)
		}
		for name, use := range map[string]func(){
			"Seal": func() { a.Seal(nil, make([]byte, NonceSize), nil, nil) },
			"Open": func() { _, _ = a.Open(nil, make([]byte, NonceSize), make([]byte, TagSize), nil) },
		} {
			mustPanic(t, name+" after Erase", use)
		}
	}
}

func TestNonceOfAnotherSizePanics(t *testing.T) {
	for _, w := range supported() {
		a := newAEAD(new([KeySize]byte), w)
		for _, n := range []int{0, 11, 13} {
			mustPanic(t, "Seal", func() { a.Seal(nil, make([]byte, n), nil, nil) })
			mustPanic(t, "Open", func() { a.Open(nil, make([]byte, n), make([]byte, TagSize), nil) })
		}
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

func TestNoAllocations(t *testing.T) {
	for _, kern := range supported() {
		a := newAEAD((*[KeySize]byte)(random(1, KeySize)), kern)
		nonce, room := make([]byte, NonceSize), make([]byte, 2+5*1408+TagSize)
		if n := testing.AllocsPerRun(20, func() {
			sealed := a.Seal(room[2:2], nonce, room[2:2+5*1408], room[:2])
			if _, err := a.Open(sealed[:0], nonce, sealed, room[:2]); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations", kern, n)
		}
	}
}

// Whatever the key, the nonce, the text and the data: the kernel does what the standard library does, and opens what it made.
func FuzzKernels(f *testing.F) {
	f.Add(make([]byte, KeySize), make([]byte, NonceSize), []byte{}, []byte{}, byte(0))
	f.Add(random(1, KeySize), random(2, NonceSize), random(3, 1408), random(4, 2), byte(7))
	f.Add(random(5, KeySize), random(6, NonceSize), random(7, 5000), random(8, 300), byte(63))
	f.Add(bytes.Repeat([]byte{0xff}, KeySize), bytes.Repeat([]byte{0xff}, NonceSize), bytes.Repeat([]byte{0xff}, 777), []byte{0xff}, byte(1))
	f.Fuzz(func(t *testing.T, key, nonce, text, data []byte, offset byte) {
		if len(key) != KeySize || len(nonce) != NonceSize {
			t.Skip()
		}
		theirs := newAEAD((*[KeySize]byte)(key), std)
		want := theirs.Seal(nil, nonce, text, data)
		for _, kern := range kernels(t) {
			ours := newAEAD((*[KeySize]byte)(key), kern)
			got := ours.Seal(make([]byte, offset), nonce, text, data)[offset:]
			if !bytes.Equal(got, want) {
				t.Fatalf("%v: sealed otherwise", kern)
			}
			if back, err := ours.Open(make([]byte, offset), nonce, got, data); err != nil || !bytes.Equal(back[offset:], text) {
				t.Fatalf("%v: opened otherwise: %v", kern, err)
			}
			got[len(text)/2] ^= 1 << (offset % 8)
			if _, err := ours.Open(got[:0], nonce, got, data); err == nil {
				t.Fatalf("%v: a changed bit was not seen", kern)
			}
		}
	})
}
