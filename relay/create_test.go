package relay

import (
	"crypto/ecdh"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
	"peel/cell/link"
	"peel/cell/link/linktest"
	"peel/circuit"
)

func TestCreatesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(h *circuit.Hop)
		logged string
	}{
		"a key that the relay does not have": {func(h *circuit.Hop) { h.OnionKey[0] ^= 1 }, "an onion key that is none of ours"},
		"a relay of another name":            {func(h *circuit.Hop) { h.ID[0] ^= 1 }, "it does not verify"},
		"the link key":                       {func(h *circuit.Hop) { h.OnionKey = h.LinkKey }, "an onion key that is none of ours"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log lockedLog
				w := newWorld(t, 2, func(_ int, cfg *Config) {
					cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				})
				bad := w.hops[0]
				c.change(&bad)
				client := w.connect(0)
				if _, err := w.open(client, bad); err == nil || err.Error() != "destroyed (none)" {
					t.Errorf("a client was told %v", err)
				}
				other := w.connectAs(0, &w.relays[1].linkCfg)
				if _, err := w.open(other, bad); err == nil || err.Error() != "destroyed (protocol error)" {
					t.Errorf("a relay was told %v", err)
				}
				for _, lc := range []*link.Conn{client, other} { // the links go on
					if _, err := w.open(lc, w.hops[0]); err != nil {
						t.Error(err)
					}
				}
				if n := w.relays[0].Stats().HandshakesFailed.Load(); n != 2 {
					t.Errorf("%d failures were counted", n)
				}
				if n := strings.Count(log.String(), c.logged); n != 2 {
					t.Errorf("the log says %d times, not twice, that %s:\n%s", n, c.logged, log.String())
				}
			})
		})
	}
}

func TestThePreviousOnionKeyIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var previous *ecdh.PrivateKey
		w := newWorld(t, 1, func(_ int, cfg *Config) {
			previous = linktest.Key(t)
			cfg.Keys.Previous = previous
		})
		w.mustBuild(0)
		w.hops[0].OnionKey = linktest.Public(previous)
		w.mustBuild(0)
	})
}

func TestTooManyCircuits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.MaxCircuits = 2 })
		a, _ := w.mustOpen(0), w.mustOpen(0)
		if _, err := w.open(w.connect(0), w.hops[0]); err == nil {
			t.Error("there are three circuits")
		}
		a.circ.Close(cell.DestroyNone)
		synctest.Wait()
		w.mustOpen(0)
	})
}

func TestAFloodOfCreatesWaitsBehindItself(t *testing.T) {
	synctest.Test(t, floodOfCreates)
}

func floodOfCreates(t *testing.T) {
	w := newWorld(t, 1)
	r := w.relays[0]
	r.handshakes.mu.Lock()
	r.handshakes.places.most = 8
	r.handshakes.mu.Unlock()

	flood := w.connect(0)
	stop := make(chan struct{})
	var flooding sync.WaitGroup
	flooding.Go(func() {
		request := make([]byte, cell.RequestSize)
		for {
			select {
			case <-stop:
				return
			default:
			}
			var of sync.WaitGroup
			for range 100 {
				request[rand.N(32)]++
				of.Add(1)
				create := cell.Create{Suite: cell.SuiteCGO, Key: w.hops[0].OnionKey.ID(), Request: request}
				if _, err := flood.Open(flooded{&of}, create); err != nil {
					t.Error(err)
					of.Done()
				}
			}
			of.Wait()
		}
	})
	honest := w.connect(0)
	for i := range 20 {
		x, err := w.open(honest, w.hops[0])
		if err != nil {
			t.Errorf("circuit %d of an honest client: %v", i, err)
			break
		}
		x.circ.Close(cell.DestroyNone)
	}
	close(stop)
	flooding.Wait()
	if n := r.Stats().HandshakesShed.Load(); n == 0 {
		t.Error("there was no flood")
	}
	if flood.Err() != nil || honest.Err() != nil {
		t.Error("a link was lost")
	}
}

// flooded counts the answers to a flood.
type flooded struct{ of *sync.WaitGroup }

func (f flooded) Created([]byte)            { f.of.Done() }
func (f flooded) Receive([]cell.Cell)       {}
func (f flooded) Room()                     {}
func (f flooded) Closed(cell.DestroyReason) { f.of.Done() }

func TestCircuitsGivenUpBeforeTheyAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		lc := w.connect(0)
		x := w.mustOpen(0)
		for range 100 {
			_, key, request := x.initiate(w.hops[0])
			c, err := lc.Open(&handshake{}, cell.Create{Suite: cell.SuiteCGO, Key: key, Request: request})
			if err != nil {
				t.Fatal(err)
			}
			if rand.N(2) == 0 {
				synctest.Wait()
			}
			c.Close(cell.DestroyNone)
		}
		synctest.Wait()
		if n := w.circuits(0); n != 1 || lc.Circuits() != 0 || lc.Err() != nil {
			t.Errorf("%d circuits are left at the relay, %d on the link, which says %v", n, lc.Circuits(), lc.Err())
		}
		w.stop[0]()
		if n := w.circuits(0); n != 0 {
			t.Errorf("%d circuits are left behind Run", n)
		}
	})
}

func TestPeersTakeTurns(t *testing.T) {
	names := make(map[*job]string)
	w := newWaiting(6, 1)
	n := 0
	job := func(of rune) *job {
		j := new(job)
		j.owner = owner{of: of}
		if of == 'W' {
			j.weight = 3
		}
		return j
	}
	for _, step := range []struct{ push, shed, pop string }{
		{"aabcb", "", "a1 a2 b3 b5 c4"},                       // by turns with those that had none, those of one in order
		{"aaaaaa", "", ""},                                    // full
		{"aa", "a6 a7", ""},                                   // who floods loses what has waited for longest
		{"bbb", "a8 a9 a10", ""},                              // and makes room for others
		{"b", "b14", ""},                                      // of equals who comes loses
		{"c", "b15", "a11 a12 b16 a13 c18 b17"},               // all get on
		{"abc", "", "a19 b20 c21"},                            // and it begins anew
		{"abcabcabc", "a22 b23 c24", "a25 a28 b26 b29"},       //
		{"WWWa", "", "c27 c30 W31 W32 a34 W33"},               // a weight is so many at a turn
		{"WWWWWaaa", "a40 a41", "W35 W36 a42 W37 W38 W39"},    // and room for so many
		{"abcdefg", "g49", "a43 b44 c45 d46 e47 f48"},         // nobody loses his only one
		{"aaaaaabcdef", "a50 a51 a52 a53 a54", "a55 b56 c57"}, //
	} {
		var shed, came []string
		for _, from := range step.push {
			n++
			j := job(from)
			names[j] = fmt.Sprintf("%c%d", from, n)
			if s := w.push(j); s != nil {
				shed = append(shed, names[s])
			}
		}
		for range strings.Fields(step.pop) {
			came = append(came, names[w.pop()])
		}
		if s, c := strings.Join(shed, " "), strings.Join(came, " "); s != step.shed || c != step.pop {
			t.Errorf("%q: shed %q, want %q; then came %q, want %q", step.push, s, step.shed, c, step.pop)
		}
	}
	if left := w.close(); len(left) != 3 || w.pop() != nil {
		t.Errorf("a closed queue has %d jobs left, or one came out", len(left))
	}
	if j := job('a'); w.push(j) != j {
		t.Error("a closed queue took a job")
	}
}

// However many others wait, another authority's key exchange has a place, and every other one that is done is its.
func TestAnAuthorityDoesNotWaitBehindOthers(t *testing.T) {
	w := newWaiting(6, 1)
	push := func(of any, kept bool) *job {
		j := &job{kept: kept}
		j.owner = owner{of: of, weight: relayWeight, free: true}
		return w.push(j)
	}
	for i := range 6 {
		push(i, false)
	}
	if push(6, false) == nil {
		t.Fatal("there was a place for one more")
	}
	for n := range keptOfVoter + 1 {
		if shed := push("A", true); (shed != nil) != (n == keptOfVoter) || shed != nil && (!shed.kept || shed.in != nil) {
			t.Errorf("number %d of an authority took the place of %v", n+1, shed)
		}
	}
	if n := w.len(); n != 6+keptOfVoter || n != w.most() {
		t.Errorf("%d wait, of %d", n, w.most())
	}
	order := ""
	for range 14 {
		order += map[bool]string{true: "A", false: "o"}[w.pop().kept]
	}
	if order != "AoAoAoAoAoAoAA" {
		t.Errorf("they were taken in the order %s", order)
	}
}

// Nor does it wait behind another authority that floods, whose places are always all taken: they go in the order in which they came.
func TestAnAuthorityDoesNotWaitBehindAnother(t *testing.T) {
	w := newWaiting(6, 2)
	push := func(of any) {
		j := &job{kept: true}
		j.owner = owner{of: of}
		w.push(j)
	}
	for range keptOfVoter {
		push("floods")
	}
	push("B")
	for range keptOfVoter + 1 {
		if j := w.pop(); j.of == "B" {
			return
		}
		push("floods")
		push("floods")
	}
	t.Error("it waits without end")
}

// Of a full queue a client who has much of it is refused more, and neither one who has little nor a relay.
func TestWhoHasManyKeyExchangesWaiting(t *testing.T) {
	w := newWaiting(6, 1)
	for _, of := range "RRRaab" {
		j := new(job)
		if j.owner = (owner{of: of}); of == 'R' {
			j.weight = relayWeight
		}
		if w.sated(j.owner) {
			t.Errorf("%c is refused though there is room", of)
		}
		w.push(j)
	}
	for of, want := range map[rune]bool{'a': true, 'b': false, 'R': false, 'x': false} {
		o := owner{of: of}
		if of == 'R' {
			o.weight = relayWeight
		}
		if got := w.sated(o); got != want {
			t.Errorf("%c: %v", of, got)
		}
	}
}

// A CREATE whose client has given up, or that met a bug, is no reason to slow its link down: it is not refused for want of a place.
func TestWhatIsLeftOutIsNotRefused(t *testing.T) {
	for name, c := range map[string]struct{ gone, bug bool }{"done": {}, "given up": {gone: true}, "a bug": {bug: true}} {
		came := ""
		j := &job{do: func() {
			if came += "done "; c.bug {
				panic("a bug")
			}
		}, gone: func() bool { return c.gone }, drop: func() { came += "left out" }}
		j.lose = func() { came += "refused" }
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1)
			r := w.relays[0]
			r.work(newPace(1), j)
			if want := map[string]string{"done": "done ", "given up": "left out", "a bug": "done left out"}[name]; came != want {
				t.Errorf("%s: it was %q, want %q", name, came, want)
			}
			w.stop[0]() // it has no places any more
			came = ""
			r.enqueue(j)
			if want := map[bool]string{false: "refused", true: "left out"}[c.gone]; came != want {
				t.Errorf("%s, for want of a place: it was %q, want %q", name, came, want)
			}
		})
	}
}

// Clients that are refused are slowed; not relays, nor who may be one while there is no directory that says so.
func TestWhomARefusalSlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		r := w.relays[0]
		w.connectAs(0, &w.relays[1].linkCfg)
		w.mustConnectFrom(0, caller(1))
		synctest.Wait()
		waits := func() map[bool]time.Duration { // by whether a key was proved
			r.mu.Lock()
			links := slices.Collect(maps.Keys(r.linked))
			r.mu.Unlock()
			of := make(map[bool]time.Duration)
			for _, c := range links {
				if _, dialled := c.PeerID(); dialled && c.RemoteAddr().String() == w.net.Authorities[0].Info.Addrs[0].String() {
					continue
				}
				_, proved := c.PeerKey()
				o, _, _ := r.peer(c)
				of[proved] = r.wait(c, o)
			}
			return of
		}
		for _, directory := range []string{"a", "no"} {
			if of := waits(); of[true] != refusedRelay || of[false] != refusedClient {
				t.Errorf("with %s directory: %v", directory, of)
			}
			r.known.Store(new(known))
		}
	})
}
