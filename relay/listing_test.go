package relay

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/directory"
	"peel/directory/cache"
	"peel/directory/dirtest"
)

// What an operator hears of his relay's place in the directory, consensus after consensus.
func TestListingIsToldWhenItChanges(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		taken  bool   // authorities took the descriptor half an hour before the first consensus
		listed string // 1: as it is, o: as it was, 0: not
		want   string // n: listed now, g: gone, x: never listed, -: nothing
	}{
		{"listed, dropped, listed", true, "01100010", "-n--g-n-"},
		{"dropped by one at a time", true, "1010010", "n---gn-"},
		{"never", true, "00000", "-x---"},
		{"late", true, "001100", "-xn--g"},
		{"with keys of before, then with its own", true, "oo1o0o00", "--n----g"},
		{"not taken by any authority, which was told before", false, "0000", "----"},
	} {
		var l listing
		if c.taken {
			l.took(at.Add(-30 * time.Minute))
			l.took(at.Add(300 * time.Hour)) // again: the first counts
		}
		got := ""
		for i, in := range c.listed {
			now, missing := l.saw(map[rune]presence{'0': absent, 'o': asWas, '1': present}[in], at.Add(time.Duration(i)*time.Hour))
			switch {
			case now:
				got += "n"
			case missing > 0 && l.lost():
				got += "g"
			case missing > 0:
				got += "x"
			default:
				got += "-"
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	var l listing
	l.took(at)
	if _, missing := l.saw(absent, at.Add(-time.Hour)); missing != 0 || l.missed != 0 {
		t.Error("a consensus that was there before counts as one that lacks the relay")
	}
}

// A relay that most authorities reach is given more time to be listed before its operator hears that it is not, and then he hears.
func TestARelayThatIsReachedIsMissedLater(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct{ reached, told int }{{0, 2}, {2, 2}, {3, 4}, {5, 4}} { // of five authorities
		var l listing
		l.saw(present, at)
		told := 0
		for i := 1; i <= 6; i++ {
			if _, missing := l.saw(absent, at.Add(time.Duration(i)*time.Hour)); missing > 0 && !mayComeBack(missing, c.reached, 5) {
				if told != 0 || !l.lost() {
					t.Errorf("reached by %d: told again, or as if it had never been listed", c.reached)
				}
				told = i
			}
		}
		if told != c.told {
			t.Errorf("reached by %d: told at the consensus %d without it, want %d", c.reached, told, c.told)
		}
	}
}

func TestForeignAddressIsTold(t *testing.T) {
	own := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9001")}
	l := listing{seen: map[cell.NodeID]netip.Addr{
		{1}: netip.MustParseAddr("198.51.100.1"), {2}: netip.MustParseAddr("198.51.100.1"), {3}: netip.MustParseAddr("192.0.2.1"),
	}}
	if got := l.from(own); !slices.Equal(got, []string{"198.51.100.1"}) {
		t.Errorf("seen at %v", got)
	}
}

// A relay whose clock is wrong, or that gets no consensus, tells its operator which of both it is.
func TestStaleDirectoryIsExplainedOnce(t *testing.T) {
	var b strings.Builder
	now := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	world := dirtest.New(1, 0, dirtest.At(now))
	clock := now
	c, err := cache.New(cache.Config{Network: world.Network})
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{log: slog.New(slog.NewTextHandler(&b, nil)), cache: c, cfg: Config{Network: world.Network, Now: func() time.Time { return clock }}}
	for i := range 3 {
		r.clock.Heard(cell.NodeID{byte(i)}, -50*time.Hour)
	}
	err = &directory.TimeError{Err: directory.ErrExpired, ValidAfter: now.Add(-51 * time.Hour), ValidUntil: now.Add(-48 * time.Hour), Now: now}
	if _, err := c.Put(world.Text, now); err != nil {
		t.Fatal(err)
	}
	r.tellStale(err) // by one that is cut off: what is here may be used
	if b.Len() != 0 {
		t.Errorf("told, though there is one to use:\n%s", b.String())
	}
	clock = world.Consensus.ValidUntil.Add(directory.Grace + time.Second)
	r.tellStale(errors.New("no answer"))
	for range 3 {
		r.tellStale(err)
	}
	if s := b.String(); strings.Count(s, "no directory that holds now") != 1 || !strings.Contains(s, "2 days ahead of those of 3 other nodes") {
		t.Errorf("told:\n%s", s)
	}
}

// A relay that knows no other is alone, and has authorities asked for the directory.
func TestARelayIsAloneWithoutAnother(t *testing.T) {
	for n, want := range []bool{true, true, false} {
		world := dirtest.New(1, n, dirtest.Authorities(1))
		c, err := cache.New(cache.Config{Network: world.Network})
		if err != nil {
			t.Fatal(err)
		}
		r := &Relay{cache: c}
		if n > 0 {
			r.id = world.Relays[0].Descriptor.ID
		}
		if !r.alone() {
			t.Error("without a directory it is not")
		}
		if _, err := c.Put(world.Text, world.Consensus.ValidAfter); err != nil {
			t.Fatal(err)
		}
		if r.alone() != want {
			t.Errorf("of %d relays: %v", n, !want)
		}
	}
}

// unreached is a relay whose descriptor was taken, and that nobody reaches.
func unreached(t *testing.T, log io.Writer) *Relay {
	r := &Relay{log: slog.New(slog.NewTextHandler(log, nil)), cfg: Config{Network: dirtest.New(1, 0, dirtest.Authorities(1)).Network, Now: time.Now}}
	at := netip.MustParseAddrPort("192.0.2.1:9001")
	r.settled.Store(&settled{Settings: Settings{Addrs: []netip.AddrPort{at}}})
	r.doors.of = make(map[netip.AddrPort]*tested)
	r.doors.announced.Store(&announced{of: []netip.AddrPort{at}, addrs: []netip.AddrPort{at}})
	r.pool = link.NewPool(link.PoolConfig{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no way") }})
	t.Cleanup(r.pool.Close)
	r.listing.took(time.Unix(0, 0))
	r.listing.seen = map[cell.NodeID]netip.Addr{{1}: netip.MustParseAddr("198.51.100.1")}
	return r
}

// hears has it hear of four directories without it, and that others do not reach it.
func hears(ctx context.Context, r *Relay) {
	for h := range 4 {
		r.tellListed(ctx, absent, time.Unix(int64(3600*(h+1)), 0))
	}
	if ctx.Err() == nil { // else no test has a result
		r.note(r.settled.Load().Addrs[0], Unreached, "no answer", 0)
	}
}

// A relay that no authority reaches hears why, from each of them.
func TestUnreachableRelayHearsWhy(t *testing.T) {
	var b strings.Builder
	hears(t.Context(), unreached(t, &b))
	for _, want := range []string{"not listed in the directory", "authority1: no answer", "come from another address", "do not reach this relay any more"} {
		if strings.Count(b.String(), want) != 1 {
			t.Errorf("not told once: %s\n%s", want, b.String())
		}
	}
}

// A relay that its operator ends is reached and listed no more: that is as he asked for, and nothing to warn him of.
func TestARelayThatEndsWarnsOfNothing(t *testing.T) {
	for name, end := range map[string]func(*Relay, func()){
		"drains": func(r *Relay, _ func()) { r.draining.Store(true) },
		"ends":   func(_ *Relay, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			r := unreached(t, &b)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			end(r, cancel)
			hears(ctx, r)
			if b.Len() != 0 {
				t.Errorf("told:\n%s", b.String())
			}
		})
	}
}

// A relay that begins with a directory of before says that clients can use it only if they can: it has the keys and an address that stand there.
func TestARelayIsPresentAsItIsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		r, other := w.relays[0], w.relays[1]
		listed := w.net.Consensus
		if is := r.presence(listed); is != present {
			t.Fatalf("as it is: %d", is)
		}
		for name, change := range map[string]func(*directory.Entry, *directory.Consensus){
			"another link key":  func(e *directory.Entry, _ *directory.Consensus) { e.LinkKey[0] ^= 1 },
			"another onion key": func(e *directory.Entry, _ *directory.Consensus) { e.OnionKey[0] ^= 1 },
			"another address":   func(e *directory.Entry, _ *directory.Consensus) { e.Addrs = other.settled.Load().Addrs },
			"of long ago":       func(_ *directory.Entry, c *directory.Consensus) { c.ValidUntil = time.Now() },
		} {
			c := *listed
			c.Entries = slices.Clone(c.Entries)
			e, ok := c.Lookup(r.id)
			if !ok {
				t.Fatal("it is not listed")
			}
			change(e, &c)
			if is := r.presence(&c); is != asWas {
				t.Errorf("%s: %d", name, is)
			}
		}
		if is := r.presence(&directory.Consensus{}); is != absent {
			t.Errorf("of nobody: %d", is)
		}
	})
}

// A relay that reaches no authority says so once, and only after a while, for the authorities may be starting too.
func TestRelayWithoutADirectorySaysSo(t *testing.T) {
	var b strings.Builder
	clock := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	world := dirtest.New(1, 0, dirtest.At(clock))
	c, err := cache.New(cache.Config{Network: world.Network})
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{log: slog.New(slog.NewTextHandler(&b, nil)), cache: c, cfg: Config{Network: world.Network, Now: func() time.Time { return clock }}}
	fail := func(err error, times int) (said int) {
		for range times {
			r.tellCutOff(err)
			clock = clock.Add(10 * time.Second)
		}
		return strings.Count(b.String(), "no directory yet")
	}
	refused := errors.New("connection refused")
	if fail(refused, 3) != 0 || fail(&cache.StatusError{Code: 404}, 1) != 0 || fail(refused, 3) != 0 {
		t.Errorf("told too soon:\n%s", b.String())
	}
	if fail(refused, 5) != 1 || !strings.Contains(b.String(), "connection refused") {
		t.Errorf("told:\n%s", b.String())
	}
	if b.Reset(); fail(refused, 5) != 0 {
		t.Errorf("told again:\n%s", b.String())
	}
}
