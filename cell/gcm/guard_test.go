//go:build unix

package gcm

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A text and data that begin or end at a page that may not be touched: a load or store outside them would fault.
func TestNothingBesideTheTextIsTouched(t *testing.T) {
	kernels(t)
	var k keys
	k.expand((*[KeySize]byte)(random(1, KeySize)))
	page := os.Getpagesize()
	m, err := unix.Mmap(-1, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(m); err != nil {
			t.Error(err)
		}
	}()
	for _, guard := range [][]byte{m[:page], m[2*page:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	inside := m[page : 2*page]
	for n := 1; n <= 1100; n++ {
		for _, text := range [][]byte{inside[:n], inside[page-n:]} {
			var sum [16]byte
			k.absorb(&sum, text)
			k.seal(new([16]byte), &sum, text)
			k.open(new([16]byte), &sum, text)
		}
	}
}
