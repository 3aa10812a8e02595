package relay

import (
	"context"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/circuit"
)

// credits has a client's link send other CREDIT cells than it should: none, if change is nil, or with other grants.
func credits(change func(*cell.CreditCell)) func() func([]cell.Cell, int) int {
	return func() func([]cell.Cell, int) int {
		return func(room []cell.Cell, n int) int {
			for i := range room[:n] {
				if room[i].Command() != cell.CmdCredit {
					continue
				}
				m, err := cell.ParseCreditCell(room[i].Body())
				room[i] = cell.Cell{} // PADDING
				if change == nil || err != nil {
					continue
				}
				if change(&m); room[i].Pack(0, cell.CmdCredit, m) != nil {
					room[i] = cell.Cell{}
				}
			}
			return n
		}
	}
}

// A thousand streams of those who ask for all there is and do not play by the rules, each in one way, cost a guard and an exit no more than is
// set aside for it, and honest people nothing. Who breaks the protocol, or takes nothing from the wire for a minute, loses the link; who only leaves
// out what would bring more loses the circuits for which credit is missing, or the streams that are not read, after a quarter of an hour.
func TestSnipersOfEveryKind(t *testing.T) {
	links, quick := 1, true
	if os.Getenv("PEEL_SLOW") == "1" {
		links, quick = 10, false
	} else {
		t.Logf("%d streams: PEEL_SLOW=1 makes it 1000", links*100)
	}
	for _, k := range []struct {
		name        string
		bend        func() func([]cell.Cell, int) int
		deaf, reads bool // the link is not read; the streams are
		ends        bool // the links end
		stuck       int  // of what each link has, so many circuits or streams are ended for it
		ample       bool // there is memory for all of it
	}{
		{"read neither links nor streams", nil, true, false, true, 0, false},
		{"read links and not streams", nil, false, false, false, 100, false},
		{"never credit", credits(nil), false, false, false, 4, false},
		{"never credit, and memory lasts", credits(nil), false, false, false, 4, true},
		{"read but never credit", credits(nil), false, true, false, 4, false},
		{"credit too much", credits(func(m *cell.CreditCell) {
			for i := range m.Grants {
				m.Grants[i].Cells = math.MaxInt32
			}
		}), false, true, true, 0, false},
	} {
		if k.ample && quick { // it lasts anyway
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			memory := int64(LeastMemory)
			if k.ample {
				memory = 1 << 30
			}
			synctest.Test(t, func(t *testing.T) {
				var hosts sync.WaitGroup
				var sent atomic.Int64
				pour := func(context.Context, string, string) (net.Conn, error) { // a host that sends for ever
					near, far := linktest.Pipe(linktest.Options{A: netip.MustParseAddrPort("127.0.0.9:80"), B: netip.MustParseAddrPort("127.0.0.9:80")})
					hosts.Go(func() {
						defer far.Close()
						for chunk := make([]byte, 16<<10); ; {
							n, err := far.Write(chunk)
							if sent.Add(int64(n)); err != nil {
								return
							}
						}
					})
					return near, nil
				}
				w := newWorld(t, 2, exits(1), func(_ int, cfg *Config) { cfg.Memory, cfg.Connect = memory, pour })
				target := cell.Begin{Host: "127.0.0.9", Port: 80}
				try := func(lc *link.Conn) (*circuit.Circuit, error) {
					return w.buildOver(t.Context(), lc, w.hops[:2])
				}
				build := func(lc *link.Conn) *circuit.Circuit {
					c, err := try(lc)
					if err != nil {
						t.Fatal(err)
					}
					return c
				}
				stop := make(chan struct{})
				var snipers sync.WaitGroup
				var all []*link.Conn
				var got atomic.Int64
				for i := range links {
					var aim atomic.Bool
					nc, err := w.dialOver(t.Context(), w.hops[0].Addrs[0].String(), linktest.Options{A: caller(i)})
					if err != nil {
						t.Fatal(err)
					}
					lc, err := link.Dial(t.Context(), nc, &link.Config{Network: w.net.Network.ID(), Bend: k.bend, Tap: func(in bool, _ []cell.Cell) {
						if in && k.deaf && aim.Load() {
							<-stop
						}
					}}, link.Peer{ID: w.hops[0].ID, Key: w.hops[0].LinkKey})
					if err != nil {
						t.Fatal(err)
					}
					linktest.Serve(t, lc, nil)
					all = append(all, lc)
					var circs []*circuit.Circuit
					for range 4 {
						c, err := try(lc)
						if err != nil { // what the others hold may end one that is being made, which is as it should be
							t.Logf("a sniper's circuit: %v", err)
							c = build(lc)
						}
						circs = append(circs, c)
					}
					aim.Store(true)
					each := 25
					if quick && !k.deaf && !k.reads && k.bend == nil {
						each = 2 // a MiB comes on each
					}
					for _, c := range circs {
						for range each {
							snipers.Go(func() {
								s, err := c.Dial(t.Context(), target)
								if err != nil {
									return
								}
								if !k.reads {
									<-s.Context().Done()
									return
								}
								for buf := make([]byte, 4<<10); got.Load() < 64<<20; { // enough to tell
									n, err := s.Read(buf)
									if got.Add(int64(n)); err != nil {
										return
									}
								}
							})
						}
					}
				}
				check := func() {
					for i, r := range w.relays[:2] {
						b := r.pool.Budget()
						r.mu.Lock()
						places := r.streams.n
						r.mu.Unlock()
						if n := b.Queued * 1536; n > int64(r.cfg.MaxQueued) || b.Extra > b.Cells || r.budget.Used() > r.cfg.MaxUnread || places > r.cfg.MaxTasks {
							t.Errorf("relay %d: %d bytes wait for links, %d cells are granted, %d bytes wait for hosts; there are %d streams", i, n, b.Extra, r.budget.Used(), places)
						}
					}
				}
				honest := build(w.mustConnectFrom(0, caller(1000)))
				places := func() int { // at the exit
					w.relays[1].mu.Lock()
					defer w.relays[1].mu.Unlock()
					return w.relays[1].streams.n
				}
				stuck := func() uint64 { return w.relays[0].stats.Stuck.Load() + w.relays[1].stats.Stuck.Load() }
				for range 4 {
					time.Sleep(30 * time.Second)
					check()
					began := time.Now()
					s, err := honest.Dial(t.Context(), target)
					if err != nil {
						t.Fatalf("an honest stream: %v", err)
					}
					if _, err := io.ReadFull(s, make([]byte, 1<<20)); err != nil {
						t.Errorf("an honest download: %v", err)
					}
					s.Close()
					if took := time.Since(began); took > time.Second {
						t.Errorf("an honest MiB took %v", took)
					}
				}
				ended := 0
				for _, lc := range all {
					if lc.Err() != nil {
						ended++
					}
				}
				if k.deaf { // they do not hear of it themselves
					ended = links
					w.relays[0].mu.Lock()
					for lc := range w.relays[0].linked {
						if a := addrOf(lc.RemoteAddr()); a.IsValid() && a.Compare(caller(0).Addr()) >= 0 && a.Compare(caller(links-1).Addr()) <= 0 {
							ended--
						}
					}
					w.relays[0].mu.Unlock()
				}
				if k.ends != (ended == links) || !k.ends && ended > 0 {
					t.Errorf("%d of %d links ended", ended, links)
				}
				if n := stuck(); n > 0 {
					t.Errorf("%d were ended after two minutes", n)
				}
				time.Sleep(time.Second) // the honest stream is over
				held := places()
				time.Sleep(stillLook*(stillLooks+1) - 2*time.Minute + time.Second)
				check()
				if n := places(); n > 0 {
					t.Errorf("the exit had %d streams after two minutes, and still has %d", held, n)
				}
				sooner := w.relays[0].pool.Budget().Ended + w.relays[1].pool.Budget().Ended // circuits, for memory
				switch n := int(stuck()); {
				case k.stuck == 0 && (n > 0 || held > 0), k.stuck == 100 && n != held, k.stuck == 4 && n+int(sooner) < links*4, k.stuck > 0 && (quick || k.ample) && (n == 0 || sooner > 0):
					t.Errorf("of %d streams after two minutes, %d were ended because they stood still, and %d circuits for memory", held, n, sooner)
				}
				if s, err := honest.Dial(t.Context(), target); err != nil {
					t.Errorf("an honest stream: %v", err)
				} else if _, err := io.ReadFull(s, make([]byte, 1<<20)); err != nil {
					t.Errorf("an honest download: %v", err)
				} else {
					s.Close()
				}
				t.Logf("%d of %d links ended; %d streams stood at the exit after two minutes; hosts sent %d KiB, snipers read %d", ended, links, held, sent.Load()>>10, got.Load()>>10)
				close(stop)
				for _, lc := range all {
					lc.Close()
				}
				snipers.Wait()
				honest.Close()
				for _, stop := range w.stop {
					stop()
				}
				hosts.Wait()
			})
		})
	}
}
