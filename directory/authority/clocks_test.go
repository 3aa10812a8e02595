package authority

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"peel/directory"
)

// clockOf lets a test set the clock of an authority while it runs: so far ahead. It must not run yet.
func (n *node) clockOf() (set func(time.Duration)) {
	var off atomic.Int64
	n.cfg.Now = func() time.Time { return time.Now().Round(0).Add(time.Duration(off.Load())) }
	return func(d time.Duration) {
		off.Store(int64(d))
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.handler != nil { // at the latest it would look at its clock in some minutes
			select {
			case n.auth.turn <- struct{}{}:
			default:
			}
			n.auth.tryAgain()
		}
	}
}

const (
	aDay  = 24 * time.Hour
	aYear = 365 * aDay
)

// A clock that was set far off and back, and starts with one, make no authority say two things of one period.
func TestAClockThatIsSetMakesNoSecondVote(t *testing.T) {
	for name, c := range map[string]struct {
		off    time.Duration
		starts int // when it is off, and when it is right again
	}{
		"ahead": {10 * aYear, 0}, "behind": {-10 * aYear, 0}, "by hours, to a vote": {3 * time.Hour, 0},
		"ahead at a start": {20 * aDay, 1}, "behind at a start": {-20 * time.Hour, 1}, "between two starts, to a vote": {3 * time.Hour, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, 4, 3)
				set := w.nodes[0].clockOf()
				w.startAll()
				defer w.stopAll()
				w.publishAll()
				sleepUntil(minute(50.5)) // all have voted
				clock := func(off time.Duration, restart bool) {
					if restart {
						w.nodes[0].crash()
					}
					set(off)
					if restart {
						w.nodes[0].start()
					}
				}
				clock(c.off, c.starts > 0)
				time.Sleep(30 * time.Second)
				clock(0, c.starts > 1)
				w.wantAgreed(hour(1), 4)
				sleepUntil(hour(1).Add(time.Minute))
				for i, n := range w.nodes {
					if e := n.auth.Status().Evidence; len(e) > 0 {
						t.Errorf("authority %d accuses: %+v", i, e)
					}
				}
			})
		})
	}
}

// An authority that keeps nothing, and started in the middle of a voting, does not know whether it voted before; in the next period it
// votes, also if its clock was ahead when it started.
func TestWhoKeepsNothingVotesInTheNextPeriod(t *testing.T) {
	b := newBallot(4, 1)
	vote := b.period.Vote
	for _, c := range []struct {
		started time.Time
		want    bool
	}{{vote.Add(-time.Minute), true}, {vote.Add(time.Minute), false}, {vote.Add(aYear), false}} {
		v := newVoter(b.net.Network, b.net.Authorities[1].Info.ID, c.started, false)
		v.secret = func() (b [32]byte) { return b }
		v.step(c.started, ticked{})
		for next, want := range []bool{c.want, true} {
			made := false
			now := vote.Add(90*time.Second + time.Duration(next)*time.Hour)
			for _, act := range v.step(now, ticked{}) {
				_, ok := act.(makeVote)
				made = made || ok
			}
			if made != want {
				t.Errorf("started at %v: a vote is made at %v: %v", c.started, now, made)
			}
		}
	}
}

// Nothing is signed for an earlier period than the last one that something was signed for: what was signed last is all that is remembered.
func TestNothingIsSignedForAnEarlierPeriod(t *testing.T) {
	b := newBallot(4, 1)
	for off, want := range map[time.Duration]bool{-time.Hour: true, time.Hour: false, aYear: false} {
		made := b.net.Consensus
		now := made.ValidAfter.Add(-time.Minute)
		v := newVoter(b.net.Network, b.net.Authorities[1].Info.ID, now, true)
		v.sign = func(h *directory.Header) (directory.Signature, error) {
			return h.Sign(b.net.Authorities[1].Certificate, b.net.Authorities[1].Signing)
		}
		last := made.Header
		last.ValidAfter = last.ValidAfter.Add(off)
		v.last = &signed{SignedHeader: directory.SignedHeader{Header: last}}
		v.step(now, ticked{})
		signs := false
		for _, act := range v.step(now, computed{made.ValidAfter, made, nil}) {
			s, ok := act.(save)
			signs = signs || ok && s.name == keptSigned
		}
		if signs != want {
			t.Errorf("something was signed for %v later: what is signed now: %v", off, signs)
		}
	}
}

// An authority whose clock was weeks ahead for a moment goes on trying relays when it is right again, and does not take one that is gone for running.
func TestAClockThatWasAheadLeavesRelaysTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1, 3)
		n := w.nodes[0]
		var tried atomic.Int64
		var gone atomic.Bool
		n.cfg.Reach = func(_ context.Context, d *directory.Descriptor, _ netip.AddrPort) error {
			tried.Add(1)
			if gone.Load() && d.ID == w.net.Relays[0].Descriptor.ID {
				return errors.New("it is gone")
			}
			return nil
		}
		set := n.clockOf()
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		w.wantAgreed(hour(2), 1)
		id := w.net.Relays[1].Descriptor.ID
		n.auth.samplesMu.Lock()
		for range samplesKept {
			n.auth.samples.add(id, seatFirst, sample{1e6, time.Now()})
		}
		n.auth.samplesMu.Unlock()
		sleepUntil(hour(2).Add(21 * time.Minute)) // by a clock that is ahead so far votes are made now
		set(20*aDay + 30*time.Minute)
		time.Sleep(2 * time.Minute)
		set(0)
		if len(n.auth.voter.said) != 2 || !n.auth.voter.said[1].vote.ValidAfter.After(hour(24)) {
			t.Error("nothing was said by the clock that was ahead")
		}
		if n.auth.samples.estimate(id) == 0 {
			t.Error("what was measured is lost")
		}
		gone.Store(true)
		before := tried.Load()
		w.wantAgreed(hour(5), 1)
		if n := tried.Load() - before; n < 3*3*2 {
			t.Errorf("%d tries of 3 relays in 3 hours", n)
		}
		for _, e := range n.auth.Consensus().Entries {
			if running := e.Flags.Has(directory.Running); running != (e.ID != w.net.Relays[0].Descriptor.ID) {
				t.Errorf("%s is listed as running: %v", e.Nickname, running)
			}
		}
		n.auth.store.mu.Lock()
		defer n.auth.store.mu.Unlock()
		for _, k := range n.auth.store.relays {
			if k.reached.After(time.Now()) {
				t.Errorf("%s counts as reached at %v, which is to come", k.desc.Nickname, k.reached)
			}
		}
	})
}

// An authority that starts with a wrong clock keeps the descriptors it had, though its voting begins meanwhile.
func TestAStartWithAWrongClockKeepsTheDescriptors(t *testing.T) {
	for _, off := range []time.Duration{20*aDay + 31*time.Minute, -20*time.Hour + 31*time.Minute} { // when votes are made
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, 1, 3)
			n := w.nodes[0]
			set := n.clockOf()
			w.startAll()
			defer w.stopAll()
			w.publishAll()
			sleepUntil(minute(20))
			n.crash()
			set(off)
			n.start()
			time.Sleep(5 * time.Minute)
			set(0)
			w.wantAgreed(hour(1), 1)
			if got := len(n.auth.Consensus().Entries); got != 3 {
				t.Errorf("clock %v off at a start: %d relays of 3 are listed", off, got)
			}
		})
	}
}

// Nor does one lose them whose clock is a day ahead for a while: the consensus has expired by it, and may be used still.
func TestAClockADayAheadKeepsTheDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1, 3)
		n := w.nodes[0]
		set := n.clockOf()
		w.startAll()
		defer w.stopAll()
		w.publishAll()
		w.wantAgreed(hour(1), 1)
		sleepUntil(hour(1).Add(20 * time.Minute))
		set(25*time.Hour + 31*time.Minute) // when votes are made
		time.Sleep(time.Minute)
		set(0)
		w.wantAgreed(hour(2), 1)
		if got := len(n.auth.Consensus().Entries); got != 3 {
			t.Errorf("%d relays of 3 are listed", got)
		}
	})
}

// An authority of a test network, which certifies itself, signs under another certificate when the clock by which it made one was wrong.
func TestACertificateOfAWrongClockIsMadeAnew(t *testing.T) {
	for _, off := range []time.Duration{10 * aYear, -20 * aYear} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, 1, 1)
			n := w.nodes[0]
			n.cfg.Identity, n.cfg.Certificate, n.cfg.SigningKey = w.net.Authorities[0].Identity, directory.Certificate{}, nil
			set := n.clockOf()
			set(off)
			w.startAll()
			defer w.stopAll()
			time.Sleep(time.Minute)
			set(0)
			w.wantAgreed(hour(1), 1)
		})
	}
}

// Votings at a wrong time cost no secret of the right one, and leave no commitment in the votes after it.
func TestAWrongClockLosesNoSecret(t *testing.T) {
	for _, wrong := range []uint64{1, 9, 5000} {
		l := newLottery(t, 5)
		l.rounds(24 * 3)
		l.rounds(2)
		for range 3 {
			l.of[2].prepare(wrong, 1, l.secret)
			l.restart(2)
		}
		l.says = func(_, _ int, v *directory.Vote) {
			run, _ := l.net.Schedule.Run(l.after)
			for _, c := range v.Commitments {
				if c.Run != run && c.Run+1 != run {
					t.Errorf("a commitment for run %d in a vote of run %d", c.Run, run)
				}
			}
		}
		l.rounds(22)
		l.wantReveals(l.rounds(1), 5)
		for range 100 { // it goes from time to time
			wrong += 50
			l.of[2].prepare(wrong, 1, l.secret)
		}
		l.rounds(24)
		if n := strings.Count(string(l.of[2].text()), "secret "); n > 8 {
			t.Errorf("%d secrets are kept", n)
		}
	}
}

// Where a relay's clock was ahead together with ours, and both are right again, as on a machine that starts without knowing the time, what the relay
// says then counts, also after a restart. What is of a time to come stands in no vote, and is dropped once it is sure what time it is.
func TestADescriptorOfATimeToComeKeepsNoNewOneOut(t *testing.T) {
	s := newShelf(t, 2)
	right := s.now
	at := func(now time.Time) func(d *directory.Descriptor) {
		return func(d *directory.Descriptor) { d.Published = now }
	}
	s.now = right.Add(10 * aYear)
	for i := range s.net.Relays {
		s.publish(i, http.StatusNoContent, "", at(s.now))
	}
	s.now = right
	text, _ := s.bytes()
	again := newStore(time.Hour)
	again.network, again.perPlace = s.network, s.perPlace
	if good, bad := again.load(text, s.now); good != 2 || bad != 0 {
		t.Fatalf("%d descriptors are read again, %d are not", good, bad)
	}
	s.store = again
	if n := len(s.candidates(s.now, s.now)); n != 0 {
		t.Errorf("%d of a time to come are in a vote", n)
	}
	s.publish(0, http.StatusNoContent, "", at(right))
	s.publish(0, http.StatusConflict, "known already", at(right.Add(-time.Hour)))
	if n := len(s.candidates(s.now, s.now)); n != 1 {
		t.Errorf("%d relays that said something now are in a vote", n)
	}
	s.expire(s.now)
	if n := s.len(); n != 1 {
		t.Errorf("%d are left", n)
	}
}

// A store that a clock years ahead filled makes room when the clock is right again, though it looked what is out of date by the wrong one.
func TestAStoreThatAWrongClockFilledMakesRoom(t *testing.T) {
	s := newShelf(t, 3)
	s.capacity = 2
	right := s.now
	for i, off := range []time.Duration{10 * aYear, 10 * aYear, 10 * aYear, 0} {
		s.now = right.Add(off)
		want, why := http.StatusNoContent, ""
		if i == 2 {
			want, why = http.StatusServiceUnavailable, "no room"
		}
		s.publish(min(i, 2), want, why, func(d *directory.Descriptor) { d.Published = s.now })
	}
}
