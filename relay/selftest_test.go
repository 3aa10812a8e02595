package relay

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/circuit"
	"peel/directory"
	"peel/directory/authority"
	"peel/directory/cache"
	"peel/directory/dirtest"
)

// A tested relay is the last of a world in which all call from the address they announce.
type testedRelay struct {
	*world
	*Relay
	log *lockedLog
	was directory.Descriptor // what it would say if nothing were changed
}

// newTested starts helpers and one more relay, which change makes what the test is about. Whoever dials one of the addresses in
// dropped hears nothing.
func newTested(w *world, dropped *sync.Map, change func(w *world, cfg *Config), each ...func(int, *Config)) *testedRelay {
	last := len(w.net.Relays) - 1
	t := &testedRelay{world: w, log: new(lockedLog), was: w.net.Relays[last].Descriptor}
	w.dropped = dropped
	w.start(append(each, func(i int, cfg *Config) {
		if i == last {
			cfg.Log = slog.New(slog.NewTextHandler(t.log, nil))
			change(w, cfg)
		}
		from := cfg.Listeners[0].Addr().(*net.TCPAddr).AddrPort()
		if len(cfg.Addrs) > 0 {
			from = cfg.Addrs[0]
		}
		if cfg.Dial != nil && i == last && cfg.MeasureFrom.IsValid() { // a test's way to say where it comes from
			from = netip.AddrPortFrom(cfg.MeasureFrom, 1)
		}
		cfg.Dial = func(ctx context.Context, _, addr string) (net.Conn, error) {
			if _, gone := dropped.Load(addr); gone {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			at := from
			if to := netip.MustParseAddrPort(addr); to.Addr().Is6() {
				for _, a := range cfg.Addrs {
					if a.Addr().Is6() {
						at = a
					}
				}
			}
			return w.dialOver(ctx, addr, linktest.Options{A: at})
		}
	})...)
	t.Relay = w.relays[last]
	return t
}

// published is what the authority was sent.
func (t *testedRelay) published() *directory.Descriptor {
	t.world.mu.Lock()
	defer t.world.mu.Unlock()
	return t.said[t.ID()]
}

func (t *testedRelay) verdict(i int) Reach { return t.Reach()[i] }

func port(a netip.AddrPort, p uint16) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), p) }

// A relay that others do not reach never publishes, and says why and what to do, whatever the mistake.
func TestARelayThatOthersDoNotReachIsNotPublished(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*world, *sync.Map, *Config)
		says   string
	}{
		{"nothing listens at the port", func(_ *world, _ *sync.Map, cfg *Config) {
			cfg.Addrs = []netip.AddrPort{port(listenerAddrs(cfg.Listeners)[0], 443)}
		}, "refused: let TCP port 443"},
		{"a firewall drops what comes", func(_ *world, dropped *sync.Map, cfg *Config) {
			dropped.Store(listenerAddrs(cfg.Listeners)[0].String(), true)
		}, "nothing answers: let TCP port 9001 through"},
		{"the address of another relay", func(w *world, _ *sync.Map, cfg *Config) {
			cfg.Addrs = w.net.Relays[0].Descriptor.Addrs
		}, "is not this relay"},
		{"the address of nobody", func(w *world, _ *sync.Map, cfg *Config) {
			cfg.MeasureFrom = listenerAddrs(cfg.Listeners)[0].Addr()
			cfg.Addrs = []netip.AddrPort{netip.MustParseAddrPort("203.0.114.9:9001")}
		}, "others see this relay come from 11."},
	} {
		synctest.Test(t, func(t *testing.T) {
			var dropped sync.Map
			r := newTested(emptyWorld(t, 6), &dropped, func(w *world, cfg *Config) { c.change(w, &dropped, cfg) })
			time.Sleep(5 * time.Minute)
			if d := r.published(); d != nil {
				t.Errorf("%s: it was published with %v", c.name, d.Addrs)
			}
			if v := r.verdict(0); v.Verdict != Unreached || v.Announced || !strings.Contains(v.Why, c.says) {
				t.Errorf("%s: %+v", c.name, v)
			}
			if !strings.Contains(r.log.String(), c.says) || !strings.Contains(r.log.String(), "does not announce the address") {
				t.Errorf("%s: the log has\n%s", c.name, r.log)
			}
		})
	}
}

// One behind a router that forwards a port is reached there, and its own address is no matter.
func TestARelayBehindARouterIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var outside netip.AddrPort
		r := newTested(emptyWorld(t, 6), new(sync.Map), func(w *world, cfg *Config) {
			outside = port(listenerAddrs(cfg.Listeners)[0], 443)
			inside := w.listen(netip.MustParseAddrPort("10.0.0.7:9001"))
			w.mu.Lock()
			w.listeners[outside.String()] = inside
			w.mu.Unlock()
			cfg.Listeners, cfg.Addrs = []net.Listener{inside}, []netip.AddrPort{outside}
		})
		time.Sleep(time.Second)
		if d := r.published(); d == nil || d.Addrs[0] != outside {
			t.Errorf("published: %+v", d)
		}
		if v := r.verdict(0); v.Verdict != Reached || !v.Announced || !strings.Contains(r.log.String(), "others reach this relay") {
			t.Errorf("%+v\n%s", v, r.log)
		}
	})
}

// A machine with several addresses may call from another one than it is reached at: then authorities try it, as relays do not.
func TestARelayThatCallsFromAnotherAddressIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTested(emptyWorld(t, 6), new(sync.Map), func(w *world, cfg *Config) {
			cfg.Addrs, cfg.MeasureFrom = listenerAddrs(cfg.Listeners), netip.MustParseAddr("11.5.0.99")
		})
		time.Sleep(time.Second)
		if d, v := r.published(), r.verdict(0); d == nil || v.Verdict != Reached {
			t.Errorf("published: %+v; %+v", d, v)
		}
	})
}

// What was wrong can be mended from outside, and the relay finds out by itself.
func TestARelayIsPublishedOnceOthersReachIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dropped sync.Map
		r := newTested(emptyWorld(t, 6), &dropped, func(w *world, cfg *Config) { dropped.Store(listenerAddrs(cfg.Listeners)[0].String(), true) })
		time.Sleep(10 * time.Minute)
		if r.published() != nil || r.verdict(0).Verdict != Unreached {
			t.Fatalf("%+v", r.verdict(0))
		}
		dropped.Clear()
		time.Sleep(lastRetest + time.Minute)
		if d, v := r.published(), r.verdict(0); d == nil || v.Verdict != Reached {
			t.Errorf("%+v; %+v", d, v)
		}
	})
}

// Relays that say no to everything keep nobody out: neither two of five nor all.
func TestLiarsKeepNoRelayOut(t *testing.T) {
	for _, liars := range []int{2, 5} {
		synctest.Test(t, func(t *testing.T) {
			no := func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == authority.PathReach {
						http.Error(w, "silent", http.StatusFailedDependency)
						return
					}
					next.ServeHTTP(w, r)
				})
			}
			r := newTested(emptyWorld(t, 6), new(sync.Map), func(*world, *Config) {}, func(i int, cfg *Config) {
				if i < liars {
					cfg.Villain = &Villain{Directory: no}
				}
			})
			time.Sleep(time.Minute)
			if d, v := r.published(), r.verdict(0); d == nil || v.Verdict != Reached {
				t.Errorf("%d liars: %+v; %+v", liars, d, v)
			}
		})
	}
}

// IPv4 and IPv6 are tested each for itself, and only what works is announced.
func TestEachAddressIsTestedForItself(t *testing.T) {
	six := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x26, 0, byte(i + 1), 0, 15: 1}), 9001)
	}
	for _, broken := range []int{-1, 0, 1} {
		synctest.Test(t, func(t *testing.T) {
			w := emptyWorld(t, 6, dirtest.Relays(func(i int, d *directory.Descriptor) { d.Addrs = append(d.Addrs, six(i)) }))
			r := newTested(w, new(sync.Map), func(w *world, cfg *Config) {
				if broken >= 0 {
					w.mu.Lock()
					delete(w.listeners, cfg.Addrs[broken].String())
					w.mu.Unlock()
				}
			}, func(_ int, cfg *Config) {
				for j := range w.net.Relays {
					if d := &w.net.Relays[j].Descriptor; d.Nickname == cfg.Nickname {
						cfg.Addrs = d.Addrs
						cfg.Listeners = append(cfg.Listeners, w.listen(d.Addrs[1]))
					}
				}
			})
			time.Sleep(time.Minute)
			d := r.published()
			if d == nil {
				t.Fatalf("broken %d: nothing is published: %+v", broken, r.Reach())
			}
			for i, v := range r.Reach() {
				want := Reached
				if i == broken {
					want = Unreached
				}
				if v.Verdict != want || v.Announced != (want == Reached) {
					t.Errorf("broken %d: %+v", broken, v)
				}
			}
			if n := len(d.Addrs); broken < 0 && n != 2 || broken >= 0 && (n != 1 || d.Addrs[0] != r.was.Addrs[1-broken]) {
				t.Errorf("broken %d: published with %v", broken, d.Addrs)
			}
		})
	}
}

// The first relays of a network have nobody to ask, and are published at once: also those of one in which there are few, and those whose
// operator says that they are reached.
func TestTheFirstRelaysOfANetworkComeUp(t *testing.T) {
	for _, c := range []struct {
		name   string
		relays int
		young  bool
		assume bool
		want   Verdict
	}{
		{"no directory", 6, true, false, Unjudged},
		{"one relay", 1, false, false, Unjudged},
		{"three relays", 3, false, false, Unjudged},
		{"an operator who knows", 6, false, true, Assumed},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := emptyWorld(t, c.relays)
			w.young = c.young
			r := newTested(w, new(sync.Map), func(_ *world, cfg *Config) {
				cfg.Addrs = []netip.AddrPort{port(listenerAddrs(cfg.Listeners)[0], 443)} // where nobody is
				cfg.AssumeReachable = c.assume
			})
			time.Sleep(time.Second)
			if d, v := r.published(), r.verdict(0); d == nil || v.Verdict != c.want || !v.Announced {
				t.Errorf("%s: published %+v; %+v", c.name, d, v)
			}
			w.mu.Lock()
			up := len(w.said)
			w.mu.Unlock()
			if c.young && up != c.relays {
				t.Errorf("%d of %d relays came up", up, c.relays)
			}
		})
	}
}

// A relay that is there before its network knows that it is reached as soon as somebody can tell: an authority, or soon after there is a
// directory others in it, and not only a period later.
func TestTheFirstRelaysKnowSoonThatTheyAreReached(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := emptyWorld(t, 6)
			w.young = true
			var dropped sync.Map
			r := newTested(w, &dropped, func(_ *world, cfg *Config) {
				if late { // the authority does not reach it either, at first
					dropped.Store(listenerAddrs(cfg.Listeners)[0].String(), true)
				}
			})
			time.Sleep(askTimeout)
			if late {
				if v := r.verdict(0); v.Verdict != Unjudged || !v.Announced || !strings.Contains(v.Why, "no directory yet") || !strings.Contains(v.Why, "did not reach it (1): ") {
					t.Fatalf("%+v", v)
				}
				dropped.Clear()
				w.mu.Lock()
				w.young = false
				w.mu.Unlock()
				<-r.informed
				time.Sleep(spreadTests + askTimeout)
			}
			if v := r.verdict(0); v.Verdict != Reached || !strings.Contains(r.log.String(), "others reach this relay") {
				t.Errorf("late %v: %+v\n%s", late, v, r.log)
			}
		})
	}
}

// A relay that was told that there is no directory, and so announced an address at which nobody reaches it, finds out with the first directory that comes, and
// its operator hears of it.
func TestAnAddressAnnouncedForWantOfADirectoryIsTestedWithOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := emptyWorld(t, 6)
		w.young = true
		var dropped sync.Map
		r := newTested(w, &dropped, func(_ *world, cfg *Config) { dropped.Store(listenerAddrs(cfg.Listeners)[0].String(), true) })
		time.Sleep(askTimeout)
		if v := r.verdict(0); v.Verdict != Unjudged || !v.Announced {
			t.Fatalf("%+v", v)
		}
		w.mu.Lock()
		w.young = false
		w.mu.Unlock()
		<-r.informed
		time.Sleep(spreadTests + 4*askTimeout) // three rounds of relays, and the authority
		if v := r.verdict(0); v.Verdict != Unreached || !v.Announced || !strings.Contains(r.log.String(), "others do not reach this relay any more") {
			t.Errorf("%+v\n%s", v, r.log)
		}
	})
}

// A directory that comes while an address is tested is asked soon, if the test by the one before could tell nothing.
func TestADirectoryThatComesDuringATest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWorld(t, 1).relays[0]
		synctest.Wait()
		at := r.settled.Load().Addrs[0]
		next := func() time.Duration {
			r.doors.mu.Lock()
			defer r.doors.mu.Unlock()
			return time.Until(r.doors.of[at].next)
		}
		by := r.doors.newer
		r.note(at, Unjudged, "nobody was there", by)
		if d := next(); d <= spreadTests {
			t.Errorf("with the same directory it is tested again in %v", d)
		}
		r.newDirectory()
		for _, when := range []string{"as a directory came", "after a test that had begun before"} {
			if d := next(); d < 0 || d > spreadTests {
				t.Errorf("%s: it is tested again in %v", when, d)
			}
			r.note(at, Unjudged, "nobody was there", by)
		}
		if r.note(at, Reached, "", by); next() < leastSilent {
			t.Errorf("what was reached is tested again in %v", next())
		}
	})
}

// What the settings have since just now is not described before it is tested.
func TestUntestedSettingsAreNotDescribed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newWorld(t, 1).relays[0]
		time.Sleep(time.Second)
		if _, err := r.current(time.Now(), nil); err != nil {
			t.Fatal(err)
		}
		was := r.settled.Load()
		next := *was
		next.Addrs = []netip.AddrPort{port(was.Addrs[0], 80)}
		r.settled.Store(&next)
		if d, err := r.current(time.Now(), nil); err != errUntested {
			t.Errorf("%v, %v", d, err)
		}
		r.settled.Store(was)
	})
}

// An address that the operator changes is tested before it is told.
func TestAnotherAddressIsTestedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newTested(emptyWorld(t, 6), new(sync.Map), func(*world, *Config) {})
		time.Sleep(time.Second)
		first := r.published()
		if first == nil {
			t.Fatal("it was not published")
		}
		good := port(first.Addrs[0], 443)
		for _, at := range []netip.AddrPort{port(first.Addrs[0], 80), good} {
			if at == good {
				r.world.mu.Lock()
				r.listeners[good.String()] = r.listeners[first.Addrs[0].String()]
				r.world.mu.Unlock()
			}
			s := r.settled.Load().Settings
			s.Addrs = []netip.AddrPort{at}
			if err := r.Change(s); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
			d, v := r.published(), r.verdict(0)
			if said := d.Addrs[0] == at; said != (at == good) || said != (v.Verdict == Reached) {
				t.Errorf("%v: published with %v; %+v", at, d.Addrs, v)
			}
		}
	})
}

// Who hears from nobody for long asks again, and tells the operator; what was announced stays, as the authorities find out.
func TestARelayThatHearsFromNobodyAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dropped sync.Map
		r := newTested(emptyWorld(t, 6), &dropped, func(*world, *Config) {})
		time.Sleep(time.Minute)
		if v := r.verdict(0); v.Verdict != Reached {
			t.Fatalf("%+v", v)
		}
		dropped.Store(r.was.Addrs[0].String(), true)
		time.Sleep(leastSilent + 10*time.Minute)
		if v := r.verdict(0); v.Verdict != Unreached || !v.Announced || !strings.Contains(r.log.String(), "do not reach this relay any more") {
			t.Errorf("%+v\n%s", v, r.log)
		}
	})
}

// A relay tries nobody but who asks, and not for somebody behind another relay's link.
func TestARelayTriesOnlyWhoAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		own := w.net.Relays[2].Descriptor.Addrs[0]
		ask := func(from string, key bool, at string) (code int, says string) {
			cfg := &link.Config{Network: w.net.Network.ID()}
			if key {
				cfg.Key, cfg.ID = w.net.Relays[1].Link, w.net.Relays[1].Descriptor.ID
			}
			nc, err := w.dialOver(t.Context(), w.hops[0].Addrs[0].String(), linktest.Options{A: netip.MustParseAddrPort(from)})
			if err != nil {
				t.Fatal(err)
			}
			lc, err := link.Dial(t.Context(), nc, cfg, link.Peer{ID: w.hops[0].ID, Key: w.hops[0].LinkKey})
			if err != nil {
				t.Fatal(err)
			}
			linktest.Serve(t, lc, nil)
			d := w.net.Relays[2].Descriptor
			q := directory.ReachRequest{ID: d.ID, LinkKey: d.LinkKey, Addr: netip.MustParseAddrPort(at)}
			err = cache.Post(t.Context(), func(ctx context.Context) (net.Conn, error) {
				return circuit.DialDirectory(ctx, lc, circuit.Config{Network: w.net.Network.ID()}, w.hops[0])
			}, authority.PathReach, q.Append(nil))
			no, _ := err.(*cache.StatusError)
			switch {
			case err == nil:
				return http.StatusNoContent, ""
			case no == nil:
				t.Fatal(err)
			}
			return no.Code, no.Text
		}
		for _, c := range []struct {
			name, from string
			key        bool
			at         string
			code       int
			says       string
		}{
			{"itself", port(own, 1).String(), false, own.String(), http.StatusNoContent, ""},
			{"a port where nobody is", port(own, 1).String(), false, port(own, 9002).String(), http.StatusFailedDependency, "refused"},
			{"somebody else", "11.9.0.1:1", false, own.String(), http.StatusForbidden, "only the address that you call from"},
			{"over a relay's link", port(own, 1).String(), true, own.String(), http.StatusForbidden, "only if you call as a client"},
			{"its own house", "192.168.0.1:1", false, "192.168.0.1:22", http.StatusForbidden, "the internet does not route"},
			{"this machine", "127.0.0.1:1", false, "127.0.0.1:22", http.StatusForbidden, "the internet does not route"},
		} {
			time.Sleep(30 * time.Second) // an address has a place again some time after a try
			if code, says := ask(c.from, c.key, c.at); code != c.code || !strings.Contains(says, c.says) {
				t.Errorf("%s: %d %s", c.name, code, says)
			}
		}
	})
}

// Each word has its remedy, and what most say counts.
func TestRemedies(t *testing.T) {
	at := netip.MustParseAddrPort("192.0.2.1:9001")
	for said, want := range map[string]string{
		"refused": "refused", "silent": "nothing answers", "no-way": "take it out of advertise", "other": "is not this relay",
		"refused silent silent": "nothing answers", "other other no-way": "is not this relay", "nonsense": "nothing answers", "not": "let TCP port 9001 through", "not refused": "refused",
	} {
		var a tally
		for _, word := range strings.Fields(said) {
			a.add(&cache.StatusError{Code: http.StatusFailedDependency, Text: word})
		}
		if got := a.remedy(at); !strings.Contains(got, want) {
			t.Errorf("%s: %s", said, got)
		}
	}
	var a tally
	if a.add(syscall.ECONNREFUSED) || a.no != 0 || !a.add(nil) {
		t.Error("a helper that is not there counts as one that did not reach us")
	}
}
