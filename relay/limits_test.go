package relay

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/circuit"
	"peel/directory"
)

// caller is the i-th address of people out there.
func caller(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 40000)
}

// connectFrom makes a client's link to relay i from an address.
func (w *world) connectFrom(i int, from netip.AddrPort) (*link.Conn, error) {
	return w.connectFromAs(i, from, &link.Config{Network: w.net.Network.ID()})
}

func (w *world) connectFromAs(i int, from netip.AddrPort, cfg *link.Config) (*link.Conn, error) {
	h := w.hops[i]
	nc, err := w.dialOver(w.t.Context(), h.Addrs[0].String(), linktest.Options{A: from})
	if err != nil {
		return nil, err
	}
	lc, err := link.Dial(w.t.Context(), nc, cfg, link.Peer{ID: h.ID, Key: h.LinkKey})
	if err != nil {
		return nil, err
	}
	linktest.Serve(w.t, lc, nil)
	return lc, nil
}

// stays says whether a link came about and is kept. It is for bubbles.
func (w *world) stays(lc *link.Conn, err error) bool {
	synctest.Wait()
	return err == nil && lc.Err() == nil
}

// mustConnectFrom makes a link and waits until the relay has counted it: its caller is through with the handshake before. It is for bubbles.
func (w *world) mustConnectFrom(i int, from netip.AddrPort) *link.Conn {
	w.t.Helper()
	lc, err := w.connectFrom(i, from)
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
	return lc
}

func TestWhatCountsAsOneAddress(t *testing.T) {
	for _, c := range []struct{ addr, want string }{
		{"198.51.100.7", "198.51.100.7/32"},
		{"::ffff:198.51.100.7", "198.51.100.7/32"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"2001:db8:1:2::", "2001:db8:1:2::/64"},
		{"fe80::1%eth0", "fe80::/64"},
		{"127.0.0.1", "of 127.0.0.1"}, // programs of this machine
		{"::1", "of ::1"},
		{"::ffff:127.0.0.9", "of 127.0.0.9"},
	} {
		o, at, ok := new(Limits).ownerAt(net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.addr), 1)))
		got := at.String()
		if !ok {
			got = fmt.Sprint("of ", o.of)
		}
		if got != c.want || ok == o.free {
			t.Errorf("%s counts as %s, want %s; free: %v", c.addr, got, c.want, o.free)
		}
	}
	off := Limits{Off: true}
	if _, _, ok := off.ownerAt(net.TCPAddrFromAddrPort(caller(1))); ok {
		t.Error("addresses are told apart though that is off")
	}
	if o, _, ok := new(Limits).ownerAt(&net.UnixAddr{Name: "/a"}); ok || !o.free {
		t.Error("a socket without an address has one")
	}
}

func TestLimitsThatAreRefused(t *testing.T) {
	for _, l := range []Limits{{Links: -1}, {CreateRate: mostRate + 1}} {
		if err := l.bound(100); err == nil || !strings.Contains(err.Error(), "Limits.") {
			t.Errorf("%+v: %v", l, err)
		}
	}
	var l Limits
	if err := l.bound(32768); err != nil || l != (Limits{Links: 128, Circuits: 4096, LinkRate: 10, CreateRate: 30, ExtendRate: 30, StreamRate: 60}) {
		t.Errorf("not what Limits says: %+v, %v", l, err)
	}
}

// Each address has what it may, whatever others do, and however many there are.
func TestAddressesAreCountedApart(t *testing.T) {
	s := newSources(&Limits{LinkRate: 1, CreateRate: 2, ExtendRate: 3, StreamRate: 4})
	s.most = 3
	now := time.Unix(1e9, 0)
	all := func(of kind, i int) (n int) {
		for s.take(directory.SourceOf(caller(i).Addr()), of, now) {
			n++
		}
		return n
	}
	for i := range 3 {
		for of := range kinds {
			if n := all(of, i); n != 10*int(of+1) {
				t.Errorf("address %d: %d of kind %d at once", i, n, of)
			}
		}
	}
	now = now.Add(time.Second)
	for of := range kinds {
		if n := all(of, 1); n != int(of+1) {
			t.Errorf("%d of kind %d in a second", n, of)
		}
	}
	all(ofLinks, 3) // 0 was heard of longest ago, and is forgotten
	if n := all(ofLinks, 1); n != 0 || s.used.Len() != 3 || len(s.of) != 3 {
		t.Errorf("one that was heard of lately has %d more; %d are remembered", n, len(s.of))
	}
	if n := all(ofLinks, 0); n != 10 {
		t.Errorf("one that was forgotten has %d", n)
	}
}

// The more cells a relay carries, the less of the cores key exchanges take, down to a twelfth. Twice the time of the cells is left to them.
func TestKeyExchangesLeaveTheCoresToCells(t *testing.T) {
	const took = 280 * time.Microsecond
	for _, c := range []struct {
		cells uint64 // a second and core
		share float64
	}{{0, 1}, {25_000, 0.75}, {50_000, 0.5}, {80_000, 0.2}, {160_000, 1.0 / 12}, {1e7, 1.0 / 12}} {
		p := newPace(4)
		now := time.Unix(1e9, 0)
		p.rest(time.Microsecond, now, 7, 0)
		p.did(took)
		p.rest(time.Microsecond, now, 7, 0) // as of what fails at once, which makes no exchange cheaper
		if rest := p.rest(took, now.Add(time.Second), 7+4*c.cells, 0); p.share < c.share-0.001 || p.share > c.share+0.001 {
			t.Errorf("%d cells: a share of %v, want %v", c.cells, p.share, c.share)
		} else if want := time.Duration(float64(took) * (1/c.share - 1)); (rest - want).Abs() > time.Microsecond {
			t.Errorf("%d cells: rests for %v, want %v", c.cells, rest, want)
		}
		if rest := p.rest(time.Hour, now.Add(time.Second), 7+4*c.cells, 0); rest > 22*took+time.Microsecond {
			t.Errorf("after a job that was kept waiting it rests for %v", rest)
		}
	}
	if rest := newPace(1).rest(0, time.Time{}, 0, 9); rest != 0 {
		t.Errorf("rests for %v after nothing", rest)
	}
}

// While there are cells, a worker that has more to do than it can rests for a moment at least; if it wakes late from that, others want the
// cores, and it leaves them as much as it ever does, until it has woken in time for a while.
func TestKeyExchangesGiveWayWhereTheCoresAreBusy(t *testing.T) {
	const took, many, few = 280 * time.Microsecond, 2*waitMany + 1, 2 * waitMany
	now, cells := time.Unix(1e9, 0), uint64(0)
	p := newPace(2)
	look := func(more uint64, waiting int) time.Duration {
		now, cells = now.Add(time.Second), cells+more
		p.did(took)
		return p.rest(took, now, cells, waiting)
	}
	look(0, many)
	for _, step := range []struct {
		more    uint64
		waiting int
		late    time.Duration // of the rest before
		want    time.Duration
	}{
		{0, many, time.Hour, 0}, // no cells: nobody to give way to
		{10, few, 0, 0},
		{10, many, 0, took / 4},
		{10, many, lateRest, took / 4},
		{10, many, 2 * lateRest, 11 * took},
		{10, few, 2 * lateRest, 0},
		{10, many, 0, took / 4},
		{0, many, 2 * lateRest, 0},
	} {
		p.rested(step.late)
		if rest := look(step.more, step.waiting); (rest - step.want).Abs() > time.Microsecond {
			t.Errorf("%+v: rests for %v", step, rest)
		}
	}
	look(10, many)
	if p.rested(2 * lateRest); p.rest(took, now, cells, many) < 11*took-time.Microsecond {
		t.Errorf("a late rest is seen at the next look only")
	}
}

// One address has so many links, and the others theirs.
func TestLinksOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.Limits = Limits{Links: 5} })
		for i := range 5 {
			w.mustConnectFrom(0, netip.AddrPortFrom(caller(1).Addr(), uint16(i+1)))
		}
		if w.stays(w.connectFrom(0, caller(1))) {
			t.Error("a sixth")
		}
		lc := w.mustConnectFrom(0, caller(2))
		lc.Close()
		synctest.Wait()
		r := w.relays[0]
		if r.links.n != r.pool.Links() || len(r.linked) != r.links.n {
			t.Errorf("%d links are counted, there are %d", r.links.n, r.pool.Links())
		}
	})
}

// When a relay has all the links it may, who has many loses one to who has none.
func TestFullRelayTakesAnotherLinkFromWhoHasMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.MaxLinks = 8 })
		time.Sleep(10 * time.Second) // it has told the authority of itself
		synctest.Wait()
		r := w.relays[0]
		before := r.links.n
		if before > 1 {
			t.Errorf("%d links to one authority", before)
		}
		var many []*link.Conn
		for i := range 8 - before {
			many = append(many, w.mustConnectFrom(0, netip.AddrPortFrom(caller(1).Addr(), uint16(i+1))))
		}
		for i := range 6 {
			w.mustConnectFrom(0, caller(i+2))
		}
		synctest.Wait()
		lost := 0
		for _, lc := range many {
			if lc.Err() != nil {
				lost++
			}
		}
		if lost != 6 || r.links.n != 8 || r.stats.LinksShed.Load() != 6 {
			t.Errorf("%d links were lost, %d to make room, there are %d", lost, r.stats.LinksShed.Load(), r.links.n)
		}
		if w.stays(w.connectFrom(0, caller(9))) {
			t.Error("who has one link lost it")
		}
	})
}

// The same for circuits: no honest one ends while one who has more is there.
func TestFullRelayTakesAnotherCircuitFromWhoHasMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, func(_ int, cfg *Config) { cfg.MaxCircuits = 40 })
		relay := w.connectAs(0, &w.relays[1].linkCfg) // with many people behind it
		var kept []*raw
		open := func(lc *link.Conn) *raw {
			x, err := w.open(lc, w.hops[0])
			if err != nil {
				t.Fatal(err)
			}
			return x
		}
		for range 25 {
			kept = append(kept, open(relay))
		}
		abuser := w.mustConnectFrom(0, caller(1))
		for range 15 {
			open(abuser)
		}
		for i := range 10 {
			kept = append(kept, open(w.mustConnectFrom(0, caller(i+2))))
		}
		synctest.Wait()
		for i, x := range kept {
			select {
			case why := <-x.over:
				t.Errorf("circuit %d ended: %v", i, why)
			default:
			}
		}
		if r := w.relays[0]; r.circuits.n != 40 || w.circuits(0) != 40 || r.stats.CircuitsShed.Load() != 10 {
			t.Errorf("%d circuits are counted, there are %d, and %d made room", r.circuits.n, w.circuits(0), r.stats.CircuitsShed.Load())
		}
		w.stop[0]()
		if r := w.relays[0]; r.circuits.n != 0 || r.links.n != 0 || r.unproved.n != 0 || r.handshakes.len() != 0 {
			t.Errorf("%d circuits, %d links, %d handshakes are left", r.circuits.n, r.links.n, r.unproved.n)
		}
	})
}

// Circuits that one address makes longer, and streams that it has at the relay itself, have a rate.
func TestExtensionsAndStreamsOfOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2, func(_ int, cfg *Config) { cfg.Limits = Limits{ExtendRate: 1, StreamRate: 1} })
		lc, hops := w.mustConnectFrom(0, caller(1)), []circuit.Hop{w.hops[0], w.hops[1]}
		build := func(lc *link.Conn) error {
			c, err := w.buildOver(t.Context(), lc, hops)
			if err == nil {
				c.Close()
			}
			return err
		}
		for i := range burstTime {
			if err := build(lc); err != nil {
				t.Errorf("circuit %d: %v", i, err)
			}
		}
		if build(lc) == nil {
			t.Error("an eleventh at once")
		}
		if w.relays[0].stats.Breaches.Load() != 0 {
			t.Error("it was taken for a breach")
		}
		if err := build(w.mustConnectFrom(0, caller(2))); err != nil {
			t.Errorf("another address: %v", err)
		}
		time.Sleep(time.Second)
		if err := build(lc); err != nil {
			t.Errorf("a second later: %v", err)
		}
		one := w.mustBuildOver(lc, hops[:1])
		got := 0
		for range 2 * burstTime {
			if s, err := one.DialDir(t.Context()); err == nil {
				got++
				s.Close()
			}
		}
		if got != burstTime {
			t.Errorf("%d streams at once", got)
		}
	})
}

// ask fetches the head of the directory over a circuit.
func ask(c *circuit.Circuit) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := c.DialDir(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	s.Write([]byte("GET /nothing HTTP/1.0\r\n\r\n"))
	a, err := http.ReadResponse(bufio.NewReader(s), nil)
	if err == nil {
		a.Body.Close()
	}
	return err
}

// A flood of CREATE at ten times what a relay can answer, from one address and from two hundred: circuits of others come about, and
// what there is works on.
func TestHonestCircuitsInAFloodOfCreates(t *testing.T) {
	for _, from := range []int{1, 200} {
		t.Run(fmt.Sprint(from), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const cost, rate, lasts = 10 * time.Millisecond, 2000, 2 * time.Second // 10 ms each on two cores: 200 a second
				cores := make(chan struct{}, 2)                                        // whatever this machine has
				w := newWorld(t, 1, func(_ int, cfg *Config) {
					cfg.MaxCircuits = 1024
					cfg.toll = func() {
						cores <- struct{}{}
						time.Sleep(cost)
						<-cores
					}
				})
				there := w.mustBuildOver(w.mustConnectFrom(0, caller(5000)), w.hops[:1])
				works := func() (n int) {
					for began := time.Now(); time.Since(began) < lasts; n++ {
						if err := ask(there); err != nil {
							t.Errorf("what was there before: %v", err)
							return n
						}
						time.Sleep(100 * time.Millisecond) // as often as one circuit may
					}
					return n
				}
				alone := works()

				var links []*link.Conn
				for i := range from {
					links = append(links, w.mustConnectFrom(0, caller(i)))
				}
				x := w.mustOpen(0)
				_, key, request := x.initiate(w.hops[0]) // which can be repeated
				var sent, answered atomic.Int64
				stop := make(chan struct{})
				var flooding sync.WaitGroup
				flooding.Go(func() {
					for i := 0; ; {
						select {
						case <-stop:
							return
						case <-time.After(10 * time.Millisecond):
						}
						for range rate / 100 {
							i++
							c, err := links[i%from].Open(repeated{&answered}, cell.Create{Suite: cell.SuiteCGO, Key: key, Request: request})
							if err == nil {
								sent.Add(1)
							}
							if err == nil && i%2 == 0 { // half of them stay
								flooding.Go(func() {
									time.Sleep(time.Second)
									c.Close(cell.DestroyNone)
								})
							}
						}
					}
				})
				time.Sleep(time.Second)
				var honest sync.WaitGroup
				var tried, made atomic.Int64
				for i := range 10 {
					lc, err := w.connectFrom(0, caller(1000+i))
					if err != nil {
						t.Errorf("an honest link: %v", err)
						continue
					}
					honest.Go(func() {
						for began := time.Now(); time.Since(began) < lasts; {
							ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
							c, err := w.buildOver(ctx, lc, w.hops[:1])
							cancel()
							tried.Add(1)
							if err == nil {
								made.Add(1)
								c.Close()
							}
							time.Sleep(300 * time.Millisecond)
						}
					})
				}
				beside := works()
				honest.Wait()
				close(stop)
				flooding.Wait()
				r := w.relays[0]
				if made.Load()*100 < tried.Load()*80 || tried.Load() < 15 {
					t.Errorf("of %d honest circuits came %d", tried.Load(), made.Load())
				}
				if beside*100 < alone*80 || alone < 15 {
					t.Errorf("what was there before did %d instead of %d", beside, alone)
				}
				if n := r.handshakes.len(); n > mostHandshakes || r.circuits.n > 1024 || w.circuits(0) > 1024 {
					t.Errorf("%d wait, and there are %d circuits", n, r.circuits.n)
				}
				shed := r.stats.HandshakesShed.Load()
				if sent.Load() < 3000 || shed < 100 {
					t.Errorf("only %d were sent, and %d shed: there was no flood", sent.Load(), shed)
				}
				t.Logf("honest: %d of %d; what was there before: %d of %d; of a flood of %d %d were answered, and %d refused", made.Load(), tried.Load(), beside, alone,
					sent.Load(), answered.Load(), shed)
			})
		})
	}
}

// repeated counts what of a flood was answered.
type repeated struct{ n *atomic.Int64 }

func (f repeated) Created([]byte)            { f.n.Add(1) }
func (f repeated) Receive([]cell.Cell)       {}
func (f repeated) Room()                     {}
func (f repeated) Closed(cell.DestroyReason) {}

// Thousands of connections that say next to nothing are each closed in time, and let others in.
func TestSlowConnectionsToARelay(t *testing.T) {
	for _, from := range []int{1, 200} {
		t.Run(fmt.Sprint(from), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1)
				r := w.relays[0]
				var all sync.WaitGroup
				var longest atomic.Int64
				for i := range 5000 {
					from := netip.AddrPortFrom(caller(i%from).Addr(), uint16(1000+i))
					all.Go(func() {
						nc, err := w.dialOver(t.Context(), w.hops[0].Addrs[0].String(), linktest.Options{A: from})
						if err != nil {
							t.Error(err)
							return
						}
						began := time.Now()
						nc.Write([]byte{0x11})
						nc.Read(make([]byte, 1)) // returns when the relay closes it
						for took := int64(time.Since(began)); ; {
							if was := longest.Load(); took <= was || longest.CompareAndSwap(was, took) {
								break
							}
						}
						nc.Close()
					})
				}
				synctest.Wait()
				r.mu.Lock()
				n := r.unproved.n
				r.mu.Unlock()
				if n > mostUnproved || from > 1 && n < mostUnproved*9/10 || n < 100 { // one that made room may have come after the last that was refused
					t.Errorf("%d connections are held", n)
				}
				began := time.Now()
				for i := range 20 {
					if _, err := w.connectFrom(0, caller(1000+i)); err != nil {
						t.Errorf("an honest link: %v", err)
					}
				}
				if took := time.Since(began); took > time.Second {
					t.Errorf("20 honest links took %v", took)
				}
				all.Wait()
				if took := time.Duration(longest.Load()); took > 5*time.Second+time.Millisecond {
					t.Errorf("one was closed after %v", took)
				}
				synctest.Wait()
				if r.unproved.n != 0 {
					t.Errorf("%d places are still taken", r.unproved.n)
				}
			})
		})
	}
}
