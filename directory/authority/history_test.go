package authority

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"peel/cell"
)

func relayNumber(n uint64) (id cell.NodeID) {
	binary.BigEndian.PutUint64(id[:], n)
	return id
}

// presence reaches relays every 20 minutes as their pattern says, and returns the history and its end.
func presence(h *history, from time.Time, days float64, there ...func(t time.Duration) bool) time.Time {
	now := from
	for t := time.Duration(0); t <= time.Duration(days*24*float64(time.Hour)); t += 20 * time.Minute {
		now = from.Add(t)
		for i, f := range there {
			if f(t) {
				h.reached(relayNumber(uint64(i)), now)
			}
		}
	}
	return now
}

func always(time.Duration) bool { return true }

func near(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if math.Abs(got-want) > within {
		t.Errorf("%s: %.4f, want %.4f", what, got, want)
	}
}

const day = 24 * time.Hour

func days(d time.Duration) float64 { return d.Hours() / 24 }

func TestUptimeAndRuns(t *testing.T) {
	h := newHistory(time.Hour)
	now := presence(h, epoch, 60, always,
		func(t time.Duration) bool { return t%day < 12*time.Hour },               // half of each day
		func(t time.Duration) bool { return t < 30*day },                         // away for a month
		func(t time.Duration) bool { return t > 53*day },                         // came a week ago
		func(t time.Duration) bool { return t/(20*time.Minute)%7 != 3 },          // one try in seven fails
		func(t time.Duration) bool { return t < 50*day || t > 50*day+time.Hour }, // down once for an hour
	)
	of := func(i uint64) standing { return h.of(relayNumber(i), now) }
	near(t, "uptime of one that is always there", of(0).Uptime, 1, 1e-9)
	near(t, "its run", days(of(0).Run), 60, 0.01)
	near(t, "its time known", days(of(0).Known), 60, 0.01)
	near(t, "uptime of one that is there half of the time", of(1).Uptime, 0.5, 0.03)
	near(t, "its run", days(of(1).Run), 0.49, 0.06)
	near(t, "uptime of one that left long ago", of(2).Uptime, math.Exp(-30/decayDays), 0.01)
	near(t, "its run", days(of(2).Run), 30, 0.02)
	near(t, "uptime of a newcomer", of(3).Uptime, 1, 1e-9)
	near(t, "its run", days(of(3).Run), 7, 0.02)
	near(t, "uptime of one that misses a try now and then", of(4).Uptime, 1, 1e-9)
	near(t, "uptime of one that was down for an hour ten days ago", of(5).Uptime, 1-1.33/24*math.Exp(-10/decayDays)/decayDays, 0.002)
	if r := days(of(5).Run); r < 10 || r > 40 {
		t.Errorf("its run: %.1f days, want one between the last and the one before", r)
	}
	if of(9) != (standing{}) {
		t.Error("something is known of a relay that was never reached")
	}
}

// In a network for tests all of it goes as fast as the periods do.
func TestHistoryGoesByPeriods(t *testing.T) {
	a, b := newHistory(time.Hour), newHistory(time.Second)
	half := func(n int) bool { return n%100 < 50 }
	for n := range 3000 {
		if half(n) {
			a.reached(relayNumber(1), epoch.Add(time.Duration(n)*20*time.Minute))
			b.reached(relayNumber(1), epoch.Add(time.Duration(n)*time.Second/3))
		}
		a.reached(relayNumber(0), epoch.Add(time.Duration(n)*20*time.Minute))
		b.reached(relayNumber(0), epoch.Add(time.Duration(n)*time.Second/3))
	}
	sa := a.of(relayNumber(1), epoch.Add(3000*20*time.Minute))
	sb := b.of(relayNumber(1), epoch.Add(1000*time.Second))
	near(t, "uptime", sb.Uptime, sa.Uptime, 1e-3)
	near(t, "run", sb.Run.Seconds()*3600, sa.Run.Seconds(), 20)
	if sa.Uptime < 0.4 || sa.Uptime > 0.6 {
		t.Errorf("uptime of one that is there half of the time: %v", sa.Uptime)
	}
}

// What we do not see because we are away, or because our clock was set, counts for and against nobody.
func TestOurOwnAbsenceCountsAgainstNobody(t *testing.T) {
	for name, away := range map[string]time.Duration{
		"an hour": time.Hour, "ten days": 10 * day, "a clock set back": -5 * day, "a minute": time.Minute,
	} {
		h := newHistory(time.Hour)
		now := presence(h, epoch, 20, always, func(t time.Duration) bool { return t%day < 18*time.Hour })
		before := h.of(relayNumber(1), now)
		again := newHistory(time.Hour)
		if err := again.load(h.bytes()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(away)
		after := again.of(relayNumber(1), now)
		near(t, name+": uptime", after.Uptime, before.Uptime, 0.001)
		again.reached(relayNumber(0), now)
		if s := again.of(relayNumber(0), now); s.Uptime < 1-1e-9 || days(s.Run) < 19.99 || days(s.Known) > 20.01 {
			t.Errorf("%s: a relay that was always there has %+v", name, s)
		}
	}
}

func TestHistoryComesBackFromItsBytes(t *testing.T) {
	h := newHistory(time.Hour)
	rng := rand.New(rand.NewPCG(1, 2))
	var there []func(time.Duration) bool
	for range 50 {
		p := rng.Float64()
		there = append(there, func(time.Duration) bool { return rng.Float64() < p })
	}
	now := presence(h, epoch, 12, there...)
	text := h.bytes()
	again := newHistory(time.Hour)
	if err := again.load(text); err != nil {
		t.Fatal(err)
	}
	if string(again.bytes()) != string(text) {
		t.Error("what was read prints back as something else")
	}
	for i := range uint64(50) {
		a, b := h.of(relayNumber(i), now), again.of(relayNumber(i), now)
		near(t, "uptime", b.Uptime, a.Uptime, 1e-6)
		near(t, "run", b.Run.Seconds(), a.Run.Seconds(), 1)
	}
	if err := newHistory(time.Hour).load(newHistory(time.Hour).bytes()); err != nil {
		t.Errorf("an empty history: %v", err)
	}
	// What is damaged is refused, and what was known before stays.
	lines := strings.SplitAfter(string(text), "\n")
	for name, bad := range map[string]string{
		"cut off":         string(text[:len(text)-5]),
		"another version": strings.Replace(string(text), "history 1", "history 2", 1),
		"a word too many": lines[0] + strings.Replace(lines[1], "\n", " 1\n", 1),
		"not a number":    lines[0] + lines[1][:60] + "NaN" + lines[1][63:],
		"out of order":    "peel-history 1 0 5.000\n" + relayNumber(1).String() + " 3 2 1 0 0 0 0\n",
		"negative":        "peel-history 1 0 5.000\n" + relayNumber(1).String() + " -3 2 2 0 0 0 0\n",
		"ahead":           "peel-history 1 0 5.000\n" + relayNumber(1).String() + " 1 1 9 0 0 0 0\n",
	} {
		if err := again.load([]byte(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if string(again.bytes()) != string(text) {
		t.Error("a history that is damaged changed what was known")
	}
}

// New identities in any number push out each other, not the relays that have been there for long.
func TestHistoryIsBounded(t *testing.T) {
	h := newHistory(time.Hour)
	h.full = 100
	now := presence(h, epoch, 3, always, always, always)
	for i := range uint64(10_000) {
		now = now.Add(10 * time.Second)
		h.reached(relayNumber(1000+i), now)
		if i%60 == 0 {
			for j := range uint64(3) {
				h.reached(relayNumber(j), now)
			}
		}
		if len(h.records) > 100 {
			t.Fatalf("%d records, at most 100 are allowed", len(h.records))
		}
	}
	for j := range uint64(3) {
		if s := h.of(relayNumber(j), now); days(s.Known) < 3 {
			t.Errorf("relay %d was pushed out: %+v", j, s)
		}
	}
}

// An authority that starts again knows its relays.
func TestHistoryOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1, 4)
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		time.Sleep(4 * time.Hour)
		n := w.nodes[0]
		id := w.net.Relays[0].Descriptor.ID
		past := func() standing {
			n.auth.store.mu.Lock()
			defer n.auth.store.mu.Unlock()
			return n.auth.store.past.of(id, time.Now())
		}
		before := past()
		n.crash()
		time.Sleep(3 * time.Hour)
		n.start()
		w.publishAll()
		time.Sleep(time.Minute)
		if got := past(); got.Known < before.Known-20*time.Minute || got.Known > before.Known+25*time.Minute || got.Uptime < 1 {
			t.Errorf("after a restart %+v is known, before %+v", got, before)
		}
		n.crash()
		if err := n.keep.save(keptHistory, []byte("peel-history 1 damaged")); err != nil {
			t.Fatal(err)
		}
		n.start()                                          // with what it has
		if got := past(); got.Known != 0 || got.Run != 0 { // the relay may have been tried already
			t.Errorf("a damaged history says %+v", got)
		}
	})
}
