package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/link/linktest"
	"peel/directory"
	"peel/directory/authority"
	"peel/directory/dirtest"
)

func TestDataForMeasurementsIsBounded(t *testing.T) {
	m := newMeter()
	now := time.Unix(1, 0)
	m.now = func() time.Time { return now }
	get := func(path string) (int, int) {
		rec := httptest.NewRecorder()
		m.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
		return rec.Code, rec.Body.Len()
	}
	for _, n := range []int{1, 70_000, measureMost} {
		if code, got := get(fmt.Sprint(measurePath, n)); code != 200 || got != n {
			t.Errorf("asked for %d bytes: %d, %d bytes", n, code, got)
		}
	}
	for _, bad := range []string{"", "0", "-1", "x", "1/2", fmt.Sprint(measureMost + 1), "99999999999999999999"} {
		if code, _ := get(measurePath + bad); code != 400 {
			t.Errorf("%q: %d, want 400", bad, code)
		}
	}
	served := 0
	for range 100 {
		code, got := get(fmt.Sprint(measurePath, measureMost))
		if code != 200 && code != 503 {
			t.Fatalf("%d", code)
		}
		if code == 200 {
			served += got
		}
	}
	if served == 0 || served > measureTotal {
		t.Errorf("%d bytes served at once, want at most %d", served, measureTotal)
	}
	now = now.Add(2 * measureMost / measureRate * time.Second)
	if code, _ := get(fmt.Sprint(measurePath, measureMost)); code != 200 {
		t.Errorf("later: %d", code)
	}
	m.left = measureTotal
	for i := range measureAtime + 1 {
		if got := m.take(1); got != (i < measureAtime) {
			t.Errorf("answer %d at a time is begun: %v", i+1, got)
		}
	}
}

// A network in virtual time: an authority that measures, and relays behind lines of 0.1, 1 and 10 MB/s, whatever they say
// of themselves. Their weights come to be in this order.
func TestRelaysAreMeasuredThroughCircuits(t *testing.T) {
	if os.Getenv("PEEL_SLOW") == "" {
		t.Skip("a network that measures for some ten minutes of virtual time: PEEL_SLOW=1 runs it")
	}
	rates := []int{10_000_000, 1_000_000, 100_000, 10_000_000, 1_000_000, 100_000, 10_000_000}
	synctest.Test(t, func(t *testing.T) {
		const period = time.Minute
		w := &world{t: t, listeners: make(map[string]*linktest.Listener), pipes: make(map[string][]*linktest.Conn)}
		w.net = dirtest.New(1, len(rates), dirtest.Authorities(1), dirtest.Schedule(directory.Schedule{
			Start: time.Now().Add(30 * time.Second), Period: period, Voting: 12 * time.Second,
		}), dirtest.At(time.Now()))
		rate := make(map[netip.Addr]int)
		for i, r := range w.net.Relays {
			rate[r.Descriptor.Addrs[0].Addr()] = rates[i]
		}
		dialFrom := func(own int) func(context.Context, string, string) (net.Conn, error) {
			return func(ctx context.Context, _, addr string) (net.Conn, error) {
				o := linktest.Options{Delay: 5 * time.Millisecond, Rate: own}
				if r := rate[netip.MustParseAddrPort(addr).Addr()]; r > 0 && (own == 0 || r < own) {
					o.Rate = r
				}
				return w.dialOver(ctx, addr, o)
			}
		}
		a := w.net.Authorities[0]
		na, err := NewAuthority(Config{
			Network: w.net.Network, Keys: Keys{Link: a.Link}, Listeners: []net.Listener{w.listen(a.Info.Addrs[0])},
			Dial: dialFrom(0), Measure: true,
		}, authority.Config{Certificate: a.Certificate, SigningKey: a.Signing})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		over := make(chan error, 1)
		go func() { over <- na.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-over; err != nil {
				t.Error(err)
			}
		}()
		for i := range w.net.Relays {
			d := &w.net.Relays[i]
			w.run(Config{
				Network: w.net.Network, Keys: Keys{Identity: d.Identity, Link: d.Link, Onion: d.Onion}, Bandwidth: 1_000_000_000,
				Listeners: []net.Listener{w.listen(d.Descriptor.Addrs[0])}, Nickname: d.Descriptor.Nickname, Dial: dialFrom(rates[i]),
			})
		}
		// A tenth goes into cells and records, and what else a line carries meanwhile comes on top. Whom chance put beside
		// slow ones at first is measured again, now and then.
		wrong := []string{"nothing yet"}
		for n, right := 0, 0; n < 60 && right < 2; n++ {
			time.Sleep(period)
			right++
			if wrong = misjudged(w, na.authority.Consensus(), rates); len(wrong) > 0 {
				right = 0
			}
			if right == 2 {
				t.Logf("known after %d periods", n)
			}
		}
		for _, text := range wrong {
			t.Error(text)
		}
	})
}

// misjudged says of which relays the consensus is wrong, and how.
func misjudged(w *world, c *directory.Consensus, rates []int) (list []string) {
	for i := range w.net.Relays {
		var e *directory.Entry
		if c != nil {
			e, _ = c.Lookup(w.net.Relays[i].Descriptor.ID)
		}
		if e == nil {
			list = append(list, fmt.Sprintf("relay %d is not listed", i))
			continue
		}
		if share := float64(e.Bandwidth) / float64(rates[i]); share < 0.4 || share > 1.05 {
			list = append(list, fmt.Sprintf("relay %d of %d bytes a second counts for %d", i, rates[i], e.Bandwidth))
		}
	}
	return list
}

// What goes wrong is laid at the door of those who may be why.
func TestWhoIsToBlameForAMeasurement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		entry := func(i int) *directory.Entry {
			e, _ := w.net.Consensus.Lookup(w.hops[i].ID)
			return e
		}
		measure := measurement(w.net.Network.ID(), w.dial, nil)
		path := []*directory.Entry{entry(0), entry(1), entry(2)}
		if rate, err := measure(t.Context(), path, 1<<20); err != nil || rate == 0 {
			t.Errorf("through relays that work: %d, %v", rate, err)
		}
		blamed := func(what string, path []*directory.Entry, from, to int) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err := measure(ctx, path, 1<<20)
			var hop *authority.HopError
			if !errors.As(err, &hop) || hop.From != from || hop.To != to {
				t.Errorf("%s: %v, want one that blames %d to %d", what, err, from, to)
			}
		}
		w.replace(3, new(mute))
		blamed("the first is mute", []*directory.Entry{entry(3), entry(0)}, 0, 0)
		blamed("the second is mute", []*directory.Entry{entry(0), entry(3), entry(1)}, 0, 1)
		blamed("the last is mute", []*directory.Entry{entry(0), entry(1), entry(3)}, 1, 2)
		w.stop[0]()
		blamed("the first is gone", path, 0, 0)
	})
}
