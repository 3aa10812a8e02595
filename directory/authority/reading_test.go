package authority

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link/linktest"
)

// callerConn is a connection of a known caller.
type callerConn struct {
	net.Conn
	by Caller
}

// Who sends descriptors byte by byte, from one source or from as many as there are places, keeps nobody from publishing: those places are taken from
// him, and he is told.
func TestSlowDescriptorsKeepNobodyOut(t *testing.T) {
	for _, sources := range []int{1, 2, 2 * smallRequests} {
		t.Run(fmt.Sprint(sources), func(t *testing.T) {
			inWorld(t, 1, func(t *testing.T, w *world) {
				a := w.nodes[0].auth
				door := linktest.Listen(netip.AddrPort{})
				s := &http.Server{Handler: a, ConnContext: func(ctx context.Context, c net.Conn) context.Context { return WithCaller(ctx, c.(callerConn).by) }}
				var all sync.WaitGroup
				all.Go(func() { s.Serve(door) })
				post := func(by, says int, length int) net.Conn {
					near, far := net.Pipe()
					at := netip.AddrFrom4([4]byte{10, 0, byte(by >> 8), byte(by)})
					door.Conns <- callerConn{far, Caller{Addr: at, Key: cell.Key{byte(by), byte(by >> 8), 1}}}
					text := w.net.Relays[0].Text
					fmt.Fprintf(near, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", pathDescriptor, length)
					near.Write(text[:says])
					return near
				}
				var lost, late int
				var mu sync.Mutex
				flood := func(i int) {
					c := post(1+i%sources, 100, 200)
					all.Go(func() {
						defer c.Close()
						r, err := http.ReadResponse(bufio.NewReader(c), nil)
						mu.Lock()
						defer mu.Unlock()
						switch {
						case err != nil:
						case r.StatusCode == http.StatusServiceUnavailable:
							lost++
						default:
							late++
						}
					})
				}
				for i := range smallRequests {
					flood(i)
				}
				for i := range 200 { // five of them a second, beside an honest one each time
					flood(i)
					if i%20 == 0 {
						text := w.net.Relays[i/20%len(w.net.Relays)].Text
						c := post(0, 0, len(text))
						flood(i + 1) // in the middle of it
						c.Write(text)
						r, err := http.ReadResponse(bufio.NewReader(c), nil)
						if err != nil || r.StatusCode != http.StatusNoContent && r.StatusCode != http.StatusConflict {
							t.Errorf("an honest one: %v, %v", r, err)
						}
						c.Close()
					}
					time.Sleep(200 * time.Millisecond)
				}
				s.Close()
				all.Wait()
				synctest.Wait()
				if lost < 50 {
					t.Errorf("%d lost their place, %d were too late", lost, late)
				}
				a.small.mu.Lock()
				defer a.small.mu.Unlock()
				if len(a.small.all) != 0 {
					t.Errorf("%d places are still taken", len(a.small.all))
				}
			})
		})
	}
}

// slowBody is the body of a request of which nothing comes for as long as a place is for.
type slowBody struct{}

func (slowBody) Read([]byte) (int, error) {
	time.Sleep(readTimeout - time.Second)
	return 0, io.ErrUnexpectedEOF
}

// Who has no authority's key, and posts votes of which nothing comes to all authorities, more than there are places for, keeps no vote out: not even
// that of one which the others cannot reach at the time, so that they have it only if they take it.
func TestSlowVotesKeepNoVoteOut(t *testing.T) {
	inWorld(t, 4, func(t *testing.T, w *world) {
		w.setLink(func(_, to int) (time.Duration, bool) { return 0, to == 3 })
		sleepUntil(minute(49.9))
		ctx, stop := context.WithCancel(t.Context())
		var flood sync.WaitGroup
		var took, refused atomic.Int64
		for _, n := range w.nodes {
			for i := range largeRequests + 1 {
				flood.Go(func() {
					var again time.Duration
					for sleep(ctx, again) {
						rec := httptest.NewRecorder()
						n.auth.ServeHTTP(rec, httptest.NewRequest("POST", pathVote, slowBody{}))
						again = time.Duration(900+100*i) * time.Millisecond
						switch rec.Code {
						case http.StatusServiceUnavailable:
							refused.Add(1)
						case http.StatusBadRequest: // it had a place
							took.Add(1)
							again = 0
						}
					}
				})
			}
		}
		sleepUntil(minute(54)) // no votes are taken any more
		stop()
		flood.Wait()
		w.wantAgreed(hour(1), 4)
		if took.Load() == 0 || refused.Load() == 0 {
			t.Errorf("the flood had %d places and was refused %d: it was none", took.Load(), refused.Load())
		}
		for _, n := range w.nodes {
			if v := n.auth.Status().Before.Votes; len(v) != 4 {
				t.Errorf("%s counted the votes of %v", n.auth.Status().Authority, v)
			}
		}
	})
}
