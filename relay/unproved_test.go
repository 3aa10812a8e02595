package relay

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"

	"peel/cell/link/linktest"
	"peel/cell/memtest"
)

// A connection that has not proved that it is a node's takes 8 KiB of a relay at most, whether it says nothing or has begun.
func TestAConnectionBeforeItsHandshakeIsSmall(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes everything larger")
	}
	const n = 1000
	for _, says := range []int{0, 1, 1200} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1)
			synctest.Wait()
			door := w.listeners[w.hops[0].Addrs[0].String()]
			before := memtest.InUse()
			near, far := make([]*linktest.Conn, n), make([]*linktest.Conn, n)
			first := make([]byte, says)
			for i := range n {
				near[i], far[i] = linktest.Pipe(linktest.Options{A: netip.AddrPortFrom(caller(i/10).Addr(), uint16(1000+i)), B: door.At})
				if says > 0 {
					first[0] = 0x11
					near[i].Write(first)
				}
			}
			pipe := (memtest.InUse() - before) / n // which stands for a socket
			before = memtest.InUse()
			var all sync.WaitGroup
			for i := range n {
				door.Conns <- far[i]
			}
			synctest.Wait()
			each := (memtest.InUse() - before) / n
			w.relays[0].mu.Lock()
			held := w.relays[0].unproved.n
			w.relays[0].mu.Unlock()
			t.Logf("after %d bytes: %d bytes a connection, besides the %d of its pipe", says, each, pipe)
			if each > 8<<10 || held != n {
				t.Errorf("%d bytes a connection; %d are held", each, held)
			}
			for _, c := range near {
				all.Go(func() { c.Close() })
			}
			all.Wait()
		})
	}
}
