//go:build unix

package layer

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A body, or a run of them, that begins or ends at a page that may not be touched: a load or store
// outside it would fault.
func TestNothingBesideTheBodyIsTouched(t *testing.T) {
	if supported()[0] == generic {
		t.Skip("no kernel but the generic one, and Go checks its bounds")
	}
	page := os.Getpagesize()
	inside := (2*MaxSize + page - 1) / page * page
	m, err := unix.Mmap(-1, 0, inside+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(m); err != nil {
			t.Error(err)
		}
	}()
	for _, guard := range [][]byte{m[:page], m[page+inside:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	body := m[page : page+inside]
	k := [KeySize]byte(random(1, KeySize))
	for _, kern := range supported() {
		if kern == generic {
			continue
		}
		for n := MinSize; n <= MaxSize; n++ {
			newPair(kern, &k, n).run(t, command, body[:n])
			newPair(kern, &k, n).run(t, command, body[inside-n:])
			newLayer(kern, &k, n, false).WrapRun(command, body[:2*n], n)
			newLayer(kern, &k, n, false).WrapRun(command, body[inside-2*n:], n)
		}
	}
}
