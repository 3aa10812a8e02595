package relay

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/directory/dirtest"
)

// posts says what an authority's node answers to the post of something as large as a vote, of whoever has this link.
func (w *world) posts(lc *link.Conn) string {
	w.t.Helper()
	c, err := w.buildOver(w.t.Context(), lc, w.hops[w.authority():])
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	s, err := c.DialDir(w.t.Context())
	if err != nil {
		return err.Error()
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	defer s.Close()
	body := strings.Repeat("x", askMost<<10)
	sending.Go(func() {
		fmt.Fprintf(s, "POST /peel/vote HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	})
	s.SetReadDeadline(time.Now().Add(time.Minute))
	answer, err := io.ReadAll(s)
	status, _, _ := strings.Cut(string(answer), "\r\n")
	if status == "" {
		status = err.Error()
	}
	return status
}

// However much others ask of an authority, another one's vote is read, which is too much of anybody else.
func TestAVoteComesBesideAFloodOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := emptyWorld(t, 1, dirtest.Authorities(2)).start()
		r := w.relays[w.authority()]
		other := w.connectAs(w.authority(), &link.Config{Network: w.net.Network.ID(), ID: w.net.Authorities[1].Info.ID, Key: w.net.Authorities[1].Link})
		stranger := w.connectAs(w.authority(), &link.Config{Network: w.net.Network.ID(), ID: w.net.Authorities[1].Info.ID, Key: w.net.Relays[0].Link})
		r.asking.most, r.asking.lends = 1, 1
		for range 3 {
			if got := w.posts(stranger); !strings.Contains(got, "503") {
				t.Fatalf("a relay: %q", got)
			}
			if got := w.posts(other); !strings.Contains(got, "200") {
				t.Errorf("an authority: %q", got)
			}
		}
	})
}

// When all links of an authority are taken, each by another address, another authority still has one there; and no more than a few.
func TestAnAuthorityHasALinkToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := emptyWorld(t, 1, dirtest.Authorities(2)).start()
		i, other := w.authority(), w.net.Authorities[1]
		own := netip.AddrPortFrom(other.Info.Addrs[0].Addr(), 40000)
		synctest.Wait()
		w.relays[i].links.most = w.relays[i].links.n + 3
		for from := range 3 {
			w.mustConnectFrom(i, caller(from))
		}
		if w.stays(w.connectFrom(i, caller(3))) {
			t.Fatal("there was a place for one more")
		}
		if w.stays(w.connectFrom(i, own)) {
			t.Error("whoever calls from the address of an authority has a link")
		}
		key := &link.Config{Network: w.net.Network.ID(), ID: other.Info.ID, Key: other.Link}
		for n := range mostOfVoter + 1 {
			if got, want := w.stays(w.connectFromAs(i, own, key)), n < mostOfVoter; got != want {
				t.Errorf("link %d of an authority: %t", n+1, got)
			}
		}
	})
}

// When every place for handshakes of links is taken, each by another address, and so many wait for a worker that there is no place for one
// more, another authority has its link all the same, and its circuits.
func TestAnAuthorityIsHeardBesideAFloodOfHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := emptyWorld(t, 1, dirtest.Authorities(2)).start()
		i, other := w.authority(), w.net.Authorities[1]
		r := w.relays[i]
		free := busyWorkers(r)
		r.unproved.most, r.handshakes.places.most = 3, 3
		stalled := func(from netip.AddrPort) { // it waits for a worker, or is closed
			nc, err := w.dialOver(t.Context(), w.hops[i].Addrs[0].String(), linktest.Options{A: from})
			if err != nil {
				t.Fatal(err)
			}
			go link.Dial(t.Context(), nc, &link.Config{Network: w.net.Network.ID()}, link.Peer{ID: w.hops[i].ID, Key: w.hops[i].LinkKey})
			synctest.Wait()
		}
		for from := range 4 {
			stalled(caller(from))
		}
		if n := r.handshakes.len(); n != 3 || r.unproved.n != 3 {
			t.Fatalf("%d wait, %d are in their handshake", n, r.unproved.n)
		}
		done := make(chan string)
		go func() {
			lc, err := w.connectFromAs(i, netip.AddrPortFrom(other.Info.Addrs[0].Addr(), 40000), &link.Config{Network: w.net.Network.ID(), ID: other.Info.ID, Key: other.Link})
			if err != nil {
				done <- err.Error()
				return
			}
			done <- w.posts(lc)
		}()
		synctest.Wait()
		if n := r.handshakes.len(); n != 4 {
			t.Errorf("with another authority %d wait", n)
		}
		free()
		if got := <-done; !strings.Contains(got, "200") {
			t.Errorf("an authority: %q", got)
		}
	})
}
