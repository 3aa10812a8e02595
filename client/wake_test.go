package client

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func addresses(as ...string) (all []netip.Addr) {
	for _, a := range as {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func TestWhatHappenedBetweenTwoLooks(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const home, train = "192.168.1.7", "10.3.2.1"
	for _, x := range []struct {
		name     string
		ran      time.Duration // between the looks
		wall     time.Duration
		had, has []netip.Addr
		used     []netip.Addr
		want     change
	}{
		{"nothing", lookEvery, lookEvery, addresses(home), addresses(home), addresses(home), same},
		{"a busy machine", lookEvery + 5*time.Second, lookEvery + 5*time.Second, nil, nil, nil, same},
		{"sleep, the steady clock stood", lookEvery, 8 * time.Hour, nil, nil, nil, slept},
		{"sleep, the steady clock went on", 8 * time.Hour, 8 * time.Hour, nil, nil, nil, slept},
		{"the process was stopped", time.Minute, time.Minute, nil, nil, nil, slept},
		{"the clock was set a little", lookEvery, lookEvery + 10*time.Second, nil, nil, nil, same},
		{"the clock was set back a day", lookEvery, -24 * time.Hour, nil, nil, nil, same},
		{"another network", lookEvery, lookEvery, addresses(home), addresses(train), addresses(home), moved},
		{"the network is gone", lookEvery, lookEvery, addresses(home), nil, addresses(home), moved},
		{"it was gone before", lookEvery, lookEvery, nil, nil, addresses(home), same},
		{"the network is there", lookEvery, lookEvery, nil, addresses(home), nil, more},
		{"one more", lookEvery, lookEvery, addresses(home), addresses(home, train), addresses(home), more},
		{"one less, which nothing uses", lookEvery, lookEvery, addresses(home, train), addresses(home), addresses(home), same},
		{"one instead, which nothing uses", lookEvery, lookEvery, addresses(home, train), addresses(home, "10.3.2.2"), addresses(home), more},
		{"a loopback one, which is not looked for", lookEvery, lookEvery, addresses(home), addresses(home), addresses("127.0.0.5"), same},
		{"moved while it slept", 2 * time.Minute, time.Hour, addresses(home), addresses(train), addresses(home), slept},
	} {
		before := &look{wall: at, addrs: x.had}
		now := &look{wall: at.Add(x.wall), ran: x.ran, addrs: x.has, used: x.used}
		if got := now.since(before); got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}

func TestThisMachineHasAClockAndNoStrangeAddresses(t *testing.T) {
	m := thisMachine(false)
	if d := time.Since(m.wall()); d < -time.Minute || d > time.Minute {
		t.Error(d)
	}
	for _, a := range m.addrs() {
		if a.IsLoopback() || a.IsLinkLocalUnicast() || a.Zone() != "" {
			t.Error(a)
		}
	}
	if as := thisMachine(true).addrs(); as != nil {
		t.Error(as)
	}
}

// dies makes all that is on its way, and will be, on the connections of a world so far, not arrive; new ones are good.
func (w *world) dies() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.lines {
		c.Stall(1000 * time.Hour)
	}
	w.lines = nil
}

// usedGuards is how many guards the client has entered by.
func usedGuards(c *Client) (n int) {
	for _, g := range c.Guards() {
		if g.Used {
			n++
		}
	}
	return n
}

// An open connection breaks, at once; a new one is there within seconds, by the guard of before.
func TestWorkingAgainAfterSleepAndInOtherNetworks(t *testing.T) {
	const promise = 5 * time.Second
	for name, happens := range map[string]func(*machine, *atomic.Int64, *atomic.Pointer[[]netip.Addr]){
		"eight hours of sleep": func(_ *machine, jump *atomic.Int64, _ *atomic.Pointer[[]netip.Addr]) {
			jump.Add(int64(8 * time.Hour))
		},
		"another address": func(_ *machine, _ *atomic.Int64, as *atomic.Pointer[[]netip.Addr]) {
			other := addresses("10.3.2.1")
			as.Store(&other)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 24)
				w.options.A = netip.MustParseAddrPort("192.168.1.7:40001")
				c := w.client(Config{})
				var jump atomic.Int64
				var as atomic.Pointer[[]netip.Addr]
				home := addresses("192.168.1.7")
				as.Store(&home)
				c.machine.wall = func() time.Time { return time.Now().Round(0).Add(time.Duration(jump.Load())) }
				c.machine.addrs = func() []netip.Addr { return *as.Load() }
				run(t, c)
				if err := c.Ready(t.Context()); err != nil {
					t.Fatal(err)
				}
				conn := mustDial(t, c, "www.example:443")
				if err := echo(conn); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				for range 3 {
					w.dies()
					happens(&c.machine, &jump, &as)
					begin := time.Now()
					if err := dialAndEcho(c, "www.example:443"); err != nil {
						t.Fatal(err)
					}
					took := time.Since(begin)
					t.Logf("working again after %v", took)
					if took > promise {
						t.Errorf("it took %v", took)
					}
					if err := echo(conn); err == nil {
						t.Error("the connection of before lives")
					}
					as.Store(&home)
					time.Sleep(time.Minute)
				}
				if n := usedGuards(c); n != 1 {
					t.Errorf("%d guards were used", n)
				}
			})
		})
	}
}

// A network that was gone for an hour, with all guards failing, is used at once when it is back.
func TestWorkingAgainWhenTheNetworkIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24)
		c := w.client(Config{})
		var as atomic.Pointer[[]netip.Addr]
		as.Store(new([]netip.Addr))
		c.machine.addrs = func() []netip.Addr { return *as.Load() }
		first := entered(c)
		run(t, c)
		if err := c.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(first()); n != 1 {
			t.Fatalf("%d guards", n)
		}
		blockedNow := &w.down
		blockedNow.Store(true)
		w.dies()
		time.Sleep(time.Hour)
		if len(c.Circuits()) > 0 {
			t.Fatal("circuits live")
		}
		blockedNow.Store(false)
		home := addresses("192.168.1.7")
		as.Store(&home)
		time.Sleep(lookEvery)
		begin := time.Now()
		if err := dialAndEcho(c, "www.example:443"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// Links that die without a word, and nothing else to tell by, are found out: soon when something is asked of them, and when
// not, before long.
func TestSilentLinksAreFoundDead(t *testing.T) {
	for _, waits := range []time.Duration{0, lookEvery + silentFor + askedFor + time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 24)
			c := w.ready(Config{})
			time.Sleep(time.Minute)
			w.dies()
			time.Sleep(waits)
			begin := time.Now()
			if err := dialAndEcho(c, "www.example:443"); err != nil {
				t.Fatal(err)
			}
			took, most := time.Since(begin), raceUntold+askedFor+time.Second
			if waits > 0 {
				most = time.Second
			}
			t.Logf("%v later: working again after %v", waits, took)
			if took > most {
				t.Errorf("%v later: it took %v", waits, took)
			}
			if n := usedGuards(c); n != 1 {
				t.Errorf("%d guards were used", n)
			}
		})
	}
}

// Links over which nothing goes, but whose peers are there, stay.
func TestQuietLinksStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 24)
		c := w.ready(Config{})
		time.Sleep(time.Minute)
		conn := mustDial(t, c, "www.example:443")
		time.Sleep(2 * time.Hour)
		if err := echo(conn); err != nil {
			t.Errorf("after two hours without a byte: %v", err)
		}
		conn.Close()
		if err := echo(conn); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}
