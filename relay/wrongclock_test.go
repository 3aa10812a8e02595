package relay

import (
	"crypto/ecdh"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/directory"
	"peel/directory/dirtest"
)

const year = 365 * day

// setClock is a clock that a test sets while who reads it runs: so far ahead of the time that it is.
type setClock struct{ off atomic.Int64 }

func (c *setClock) set(off time.Duration) { c.off.Store(int64(off)) }
func (c *setClock) now() time.Time        { return time.Now().Round(0).Add(time.Duration(c.off.Load())) }

// Machines without a battery start with a clock that is years off, and are set right when they have asked others. Whatever the clock says
// meanwhile, and however often, a relay lets in who goes by the directory, which names the key it had.
func TestAClockThatIsYearsWrongCostsNoKeyThatTheDirectoryNames(t *testing.T) {
	for name, clocks := range map[string][]time.Duration{ // at the start, and as it is set afterwards
		"behind":                    {-30 * year, 0},
		"ahead":                     {10 * year, 0},
		"set far ahead":             {0, 10 * year, 0},
		"set far back":              {0, -20 * year, 0},
		"to and fro":                {-30 * year, 10 * year, -20 * year, 30 * year, 0, -9 * day, 9 * day, 0},
		"behind, and long not away": {-30 * year, -8 * day, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if len(clocks) > 2 && os.Getenv("PEEL_SLOW") != "1" {
				t.Skip("PEEL_SLOW=1 has these as well")
			}
			dir := folder(t)
			synctest.Test(t, func(t *testing.T) {
				var clock setClock
				clock.set(clocks[0])
				var keys Keys
				w := emptyWorld(t, 1, dirtest.At(time.Now().UTC().Truncate(time.Second)))
				w.start(func(_ int, cfg *Config) {
					cfg.Keys.Made = time.Now().Add(-6*day - 22*time.Hour).UTC().Truncate(time.Second) // it is to turn while the test runs
					if err := cfg.Keys.Save(dir); err != nil {
						t.Fatal(err)
					}
					cfg.KeyDir, cfg.Now, keys = dir, clock.now, cfg.Keys
				})
				r := w.relays[0]
				for _, off := range clocks {
					clock.set(off)
					time.Sleep(time.Hour + time.Minute) // the keys are looked at in between
					w.mustBuild(0)
					k, err := LoadKeys(dir)
					if err != nil || !k.Onion.Equal(keys.Onion) && !k.Previous.Equal(keys.Onion) {
						t.Fatalf("clock %v off: the key is not on the disk: %v", off, err)
					}
				}
				<-r.informed
				if len(r.onion.Load().keys) > 2 {
					t.Errorf("%d keys", len(r.onion.Load().keys))
				}
			})
		})
	}
}

// A relay lives for half a year with a clock that is set to and fro, and is restarted. By a model of the directory: whatever key one of the last
// 27 hours names is honoured; no more than two are there; and each is gone two weeks after it came, a day for what clocks may be off, and as long
// as nothing bore the clock out.
func TestOnionKeysByAClockThatIsSetToAndFro(t *testing.T) {
	turned, doubted, anew := 0, 0, 0
	seeds := uint64(20)
	if os.Getenv("PEEL_SLOW") == "1" {
		seeds = 300
	}
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(seed, 1))
		within := func(d time.Duration) time.Duration { return time.Duration(rng.Int64N(2*int64(d))) - d }
		start := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
		o := someOnion(t, false)
		o.since = start
		if seed%2 == 1 { // made by a wrong clock
			o.since = start.Add(within(40 * year))
		}
		const hours = 180 * 24
		var (
			off          time.Duration           // how far the clock is wrong
			had, sure    int                     // the hours of a witness
			last         = -1                    // the hour of the consensus that the relay has; -1: none
			told         *ecdh.PrivateKey        // the key that authorities know
			toldAt       int                     // when they heard it last: they forget it after 18 hours
			named        [hours]*ecdh.PrivateKey // by the consensus of each hour
			came, doubts = map[*ecdh.PrivateKey]int{}, map[*ecdh.PrivateKey]int{}
		)
		for h := range hours {
			switch n := rng.IntN(60); {
			case n < 2:
				off = within(40 * year)
			case n < 4:
				off = within(20 * day)
			case n < 14 && seed%3 > 0, n == 4: // a third of them seldom have the time
				off = 0
			case n == 14: // restarted
				had, sure, last = h, h, -1
			}
			now := start.Add(time.Duration(h)*time.Hour + off)
			if told != nil && h-toldAt <= 18 {
				named[h] = told
			}
			if off == 0 {
				last = h
			}
			var w witness
			if held := start.Add(time.Duration(last) * time.Hour); last >= 0 && !now.Before(held.Add(-directory.MaxSkew)) && !now.After(held.Add(3*time.Hour+directory.Grace)) {
				w.sure, w.named, sure = true, named[last] == o.current, h
			}
			w.ran, w.unaware = time.Duration(h-had)*time.Hour, time.Duration(h-sure)*time.Hour
			next, changed, err := o.at(now, w, newOnionKey)
			switch {
			case err != nil:
				t.Fatal(err)
			case next.current != o.current:
				had, sure = h, h
				turned++
			case changed:
				anew++
			}
			o = next
			if off == 0 {
				told, toldAt = o.current, h
			}
			for _, k := range []*ecdh.PrivateKey{o.current, o.previous} {
				if k == nil {
					continue
				}
				if _, ok := came[k]; !ok {
					came[k] = h
				}
				if !w.sure {
					doubts[k]++
					doubted++
				}
				if age := h - came[k]; age > 15*24+1+doubts[k] {
					t.Fatalf("seed %d, hour %d: a key is there for %d hours, %d of them in doubt", seed, h, age, doubts[k])
				}
			}
			for back := range min(27, h) + 1 {
				if k := named[h-back]; k != nil && k != o.current && k != o.previous {
					t.Fatalf("seed %d, hour %d: the directory of %d hours ago names a key that is gone", seed, h, back)
				}
			}
		}
	}
	t.Logf("%d new keys, %d counted anew, %d hours of a key in doubt", turned, anew, doubted)
	if turned < 100 || anew == 0 || doubted < 1000 {
		t.Error("that shows little")
	}
}

// A descriptor of a wrong time, which no authority takes, is not sent for longer than the clock is wrong.
func TestADescriptorOfAWrongTimeIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, func(_ int, cfg *Config) { cfg.AssumeReachable = true })
		r := w.relays[0]
		if r.announcing(t.Context()) == nil {
			t.Fatal("nothing is to be announced")
		}
		for _, off := range []time.Duration{10 * year, -20 * year, -20 * time.Hour} {
			if _, err := r.current(time.Now().Add(off), nil); err != nil {
				t.Fatal(err)
			}
			d, err := r.current(time.Now(), nil)
			if err != nil {
				t.Fatal(err)
			}
			told, err := directory.ParseDescriptor(d.text)
			if err != nil || time.Since(told.Published).Abs() > time.Minute {
				t.Errorf("clock %v off before: published %v, now %v, %v", off, told.Published, time.Now(), err)
			}
		}
	})
}

// What a relay knows of its onion key besides its clock: how long it has had it, though its time was counted anew meanwhile, and since when no
// directory bore the clock out. One that is due when the first directory comes is replaced before any authority is told of it.
func TestWhatARelayKnowsOfItsOnionKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var clock setClock
		w := emptyWorld(t, 1, dirtest.At(time.Now().UTC().Truncate(time.Second)))
		var due *ecdh.PrivateKey
		w.start(func(_ int, cfg *Config) {
			cfg.Keys.Made, cfg.Now, due = time.Now().Add(-8*day), clock.now, cfg.Keys.Onion
		})
		r := w.relays[0]
		<-r.informed
		if o := r.onion.Load(); o.current == due || o.previous != due {
			t.Error("a key that is due is not replaced when a directory has come")
		}
		wants := func(ran, unaware time.Duration) {
			t.Helper()
			r.turning.Lock()
			defer r.turning.Unlock()
			w := r.witness(clock.now())
			if w.sure != (unaware == 0) || (w.ran-ran).Abs() > time.Minute || w.unaware < unaware || w.unaware > unaware+onionLook+time.Minute {
				t.Errorf("after %v, of them %v in doubt: %+v", ran, unaware, w)
			}
		}
		time.Sleep(10 * time.Hour)
		wants(10*time.Hour, 0)
		clock.set(10 * year)
		time.Sleep(5 * time.Hour)
		wants(15*time.Hour, 5*time.Hour)
		r.turning.Lock()
		o := r.onion.Load().onionKeys
		o.since = o.since.Add(-time.Hour)
		r.honour(o)
		r.turning.Unlock()
		wants(15*time.Hour, 5*time.Hour)
		clock.set(0)
		wants(15*time.Hour, 0)
	})
}
