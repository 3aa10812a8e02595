package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/circuit"
	"peel/circuit/stream"
)

func TestHowLongSomethingHasStoodStill(t *testing.T) {
	if stillLook*stillLooks != 15*time.Minute || stillLook*behindLooks != time.Hour {
		t.Error("not a quarter of an hour, or an hour")
	}
	var s standstill
	for i, c := range []struct {
		stands  bool
		mark    uint64
		n, want int
	}{
		{true, 0, 1, 0}, {true, 0, 30, 30}, {true, 0, 1000, behindLooks}, // since the start
		{true, 1, 1, 0}, {true, 1, 29, 29}, {true, 2, 1, 0}, {true, 2, 2, 2}, // it moved, and stands again
		{false, 2, 1, 0}, {false, 2, 1000, 0}, {true, 2, 3, 2}, // nothing waited
	} {
		got := 0
		for range c.n {
			got = s.look(c.stands, c.mark)
		}
		if got != c.want {
			t.Errorf("%d: %d", i, got)
		}
	}
}

// drips is a link's Bend that keeps credit back, and gives some cells of it to each circuit once in a while.
func drips(cells int32, every time.Duration) func() func([]cell.Cell, int) int {
	return func() func([]cell.Cell, int) int {
		var last time.Time
		var circs []cell.Grant
		return func(room []cell.Cell, n int) int {
			for i := range room[:n] {
				switch room[i].Command() {
				case cell.CmdCredit:
					m, err := cell.ParseCreditCell(room[i].Body())
					if room[i] = (cell.Cell{}); err != nil {
						continue
					}
					for _, g := range m.Grants {
						if !containsGrant(circs, g.Circ) {
							circs = append(circs, cell.Grant{Circ: g.Circ, Cells: cells})
						}
					}
				case cell.CmdPadding:
					if len(circs) > 0 && time.Since(last) >= every && room[i].Pack(0, cell.CmdCredit, &cell.CreditCell{Grants: circs}) == nil {
						last = time.Now()
					}
				}
			}
			return n
		}
	}
}

func containsGrant(all []cell.Grant, id cell.CircID) bool {
	for _, g := range all {
		if g.Circ == id {
			return true
		}
	}
	return false
}

// Who takes a little every ten minutes, who paused for fourteen, and who has nothing to take keeps what he has for hours; who takes no more at all
// loses it after a quarter of an hour, and nobody else does.
func TestSlowAndIdleStreamsStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hosts sync.WaitGroup
		connect := func(_ context.Context, _, addr string) (net.Conn, error) { // port 80 sends for ever, 81 nothing, 82 a window's worth
			at := netip.MustParseAddrPort(addr)
			near, far := linktest.Pipe(linktest.Options{A: at, B: at})
			hosts.Go(func() {
				defer far.Close()
				chunk := make([]byte, 16<<10)
				switch at.Port() {
				case 80:
					for {
						if _, err := far.Write(chunk); err != nil {
							return
						}
					}
				case 82:
					for range stream.InitialWindow / len(chunk) {
						far.Write(chunk)
					}
				}
				io.Copy(io.Discard, far)
			})
			return near, nil
		}
		w := newWorld(t, 2, exits(1), func(_ int, cfg *Config) { cfg.Connect = connect })
		build := func(i int, bend func() func([]cell.Cell, int) int) *circuit.Circuit {
			nc, err := w.dialOver(t.Context(), w.hops[0].Addrs[0].String(), linktest.Options{A: caller(i)})
			if err != nil {
				t.Fatal(err)
			}
			lc, err := link.Dial(t.Context(), nc, &link.Config{Network: w.net.Network.ID(), Bend: bend}, link.Peer{ID: w.hops[0].ID, Key: w.hops[0].LinkKey})
			if err != nil {
				t.Fatal(err)
			}
			linktest.Serve(t, lc, nil)
			c := w.mustBuildOver(lc, w.hops[:2])
			return c
		}
		dial := func(c *circuit.Circuit, port uint16) *stream.Stream {
			s, err := c.Dial(t.Context(), cell.Begin{Host: "127.0.0.9", Port: port})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		usual, dripping := build(0, nil), build(1, drips(8, time.Minute))
		slow, paused, idle, full, thin := dial(usual, 80), dial(usual, 80), dial(usual, 81), dial(usual, 82), dial(dripping, 80)
		stuck := func() uint64 { return w.relays[0].stats.Stuck.Load() + w.relays[1].stats.Stuck.Load() }
		var thinRead atomic.Int64
		var reading sync.WaitGroup
		reading.Go(func() {
			for buf := make([]byte, 4<<10); ; {
				n, err := thin.Read(buf)
				if thinRead.Add(int64(n)); err != nil {
					return
				}
			}
		})
		take := func(s *stream.Stream, n int) {
			t.Helper()
			if _, err := io.ReadFull(s, make([]byte, n)); err != nil {
				t.Errorf("after %d were ended: %v", stuck(), err)
			}
		}
		before := int64(0)
		for range 6 { // an hour and a half
			time.Sleep(14 * time.Minute)
			synctest.Wait()
			take(slow, stream.InitialWindow/4)
			take(paused, stream.InitialWindow)
			n := thinRead.Load()
			if n == before {
				t.Error("not a cell came where credit drips")
			}
			before = n
		}
		if n := stuck(); n > 0 || usual.Err() != nil || dripping.Err() != nil {
			t.Errorf("%d were ended; %v, %v", n, usual.Err(), dripping.Err())
		}
		for _, s := range []*stream.Stream{slow, paused, idle, full, thin} {
			if s.Context().Err() != nil {
				t.Errorf("one of the streams is over")
			}
		}
		take(slow, 16<<10)
		time.Sleep(stillLook*(stillLooks+1) + time.Second)
		synctest.Wait()
		var end *stream.EndError
		if _, err := io.Copy(io.Discard, slow); !errors.As(err, &end) || end.Reason != cell.EndTimeout {
			t.Errorf("who took no more has %v", err)
		}
		if n := stuck(); n != 2 { // paused, too
			t.Errorf("%d were ended", n)
		}
		take(full, stream.InitialWindow)
		if _, err := idle.Write([]byte("still here")); err != nil || thin.Context().Err() != nil {
			t.Errorf("who was idle, %v, or slow, lost it", err)
		}
		usual.Close()
		dripping.Close()
		reading.Wait()
		for _, stop := range w.stop {
			stop()
		}
		hosts.Wait()
	})
}

// A relay of the directory that gives no credit is given an hour: it may be that another behind it gives none, for whom it has the quarter.
func TestARelayThatGivesNoCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hosts sync.WaitGroup
		connect := func(context.Context, string, string) (net.Conn, error) {
			near, far := linktest.Pipe(linktest.Options{A: netip.MustParseAddrPort("127.0.0.9:80"), B: netip.MustParseAddrPort("127.0.0.9:80")})
			hosts.Go(func() {
				defer far.Close()
				for chunk := make([]byte, 16<<10); ; {
					if _, err := far.Write(chunk); err != nil {
						return
					}
				}
			})
			return near, nil
		}
		w := newWorld(t, 2, exits(1), func(i int, cfg *Config) {
			if cfg.Connect = connect; i == 0 {
				cfg.Villain = &Villain{Cells: credits(nil)}
			}
		})
		c, err := circuit.Build(t.Context(), w.mustConnectFrom(0, caller(1)), circuit.Config{Network: w.net.Network.ID()}, w.hops[:2])
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Dial(t.Context(), cell.Begin{Host: "127.0.0.9", Port: 80})
		if err != nil {
			t.Fatal(err)
		}
		var reading sync.WaitGroup
		reading.Go(func() { io.Copy(io.Discard, s) })
		stuck := &w.relays[1].stats.Stuck
		time.Sleep(59 * time.Minute)
		if n := stuck.Load(); n > 0 || c.Err() != nil {
			t.Errorf("%d were ended before the hour; %v", n, c.Err())
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := stuck.Load(); n != 1 || c.Err() == nil {
			t.Errorf("%d were ended after the hour; %v", n, c.Err())
		}
		reading.Wait()
		for _, stop := range w.stop {
			stop()
		}
		hosts.Wait()
	})
}
