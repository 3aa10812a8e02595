package authority

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"peel/directory"
	"peel/directory/dirtest"
)

// lottery is a network's authorities as far as they make shared random values.
type lottery struct {
	t      *testing.T
	net    *directory.Network
	of     []*random
	down   map[int]bool
	says   func(i, round int, v *directory.Vote) // what a dishonest one changes in its vote
	after  time.Time
	rng    *rand.Rand
	broken map[int]int // how often an authority was found out by another
}

func newLottery(t *testing.T, authorities int) *lottery {
	n := dirtest.New(1, 0, dirtest.Authorities(authorities)).Network
	n.Schedule = directory.Schedule{Start: epoch}
	l := &lottery{t: t, net: n, down: map[int]bool{}, after: epoch, rng: rand.New(rand.NewPCG(1, 2)), broken: map[int]int{}}
	for i := range n.Authorities {
		l.of = append(l.of, newRandom(n.ID(), n.Authorities[i].ID))
	}
	return l
}

func (l *lottery) secret() (b [32]byte) {
	for i := range b {
		b[i] = byte(l.rng.Uint32())
	}
	return b
}

// round votes once. Without a consensus nobody learns anything.
func (l *lottery) round(consensus bool) directory.SharedRandom {
	l.t.Helper()
	run, round := l.net.Schedule.Run(l.after)
	var votes []*directory.Vote
	for i, r := range l.of {
		if l.down[i] {
			continue
		}
		r.prepare(run, round, l.secret)
		v := &directory.Vote{Network: r.network, ValidAfter: l.after, Shared: r.shared, Commitments: r.lines(run, round)}
		v.Certificate.Identity = r.self
		if l.says != nil {
			l.says(i, round, v)
		}
		votes = append(votes, v)
	}
	shared := tallyShared(l.net, l.after, votes)
	l.rng.Shuffle(len(votes), func(i, j int) { votes[i], votes[j] = votes[j], votes[i] })
	if again := tallyShared(l.net, l.after, votes); again != shared {
		l.t.Fatalf("the values depend on the order of the votes: %v, %v", shared, again)
	}
	for i, r := range l.of {
		if l.down[i] || !consensus {
			continue
		}
		for _, id := range r.learn(run, round, honest(l.net), votes) {
			for j := range l.net.Authorities {
				if l.net.Authorities[j].ID == id {
					l.broken[j]++
				}
			}
		}
		r.shared = shared
	}
	l.after = l.after.Add(time.Hour)
	return shared
}

// rounds votes n times and returns the values of the last.
func (l *lottery) rounds(n int) (s directory.SharedRandom) {
	l.t.Helper()
	for range n {
		s = l.round(true)
	}
	return s
}

// restart lets an authority begin again with what it kept.
func (l *lottery) restart(i int) {
	l.t.Helper()
	text := l.of[i].text()
	again := newRandom(l.of[i].network, l.of[i].self)
	if err := again.parse(text); err != nil {
		l.t.Fatal(err)
	}
	if !bytes.Equal(again.text(), text) {
		l.t.Fatalf("kept\n%s\nread\n%s", text, again.text())
	}
	l.of[i] = again
}

func (l *lottery) wantReveals(s directory.SharedRandom, want int) {
	l.t.Helper()
	if s.Current.Reveals != want {
		l.t.Errorf("run %d: the value was made of %d reveals, want %d", s.Run, s.Current.Reveals, want)
	}
}

func TestSharedRandomOfHonestAuthorities(t *testing.T) {
	for _, n := range []int{1, 3, 5, 9} {
		l := newLottery(t, n)
		first := l.rounds(24)
		l.wantReveals(first, 0) // nobody could have committed before
		second := l.rounds(24)
		l.wantReveals(second, n)
		third := l.rounds(1)
		l.wantReveals(third, n)
		if second.Run != first.Run+1 || second.Previous != first.Current || third.Previous != second.Current || third.Current.Value == second.Current.Value {
			t.Errorf("values of three runs: %v, %v, %v", first, second, third)
		}
		if s := l.rounds(23); s != third {
			t.Errorf("the value changed within a run: %v, %v", third, s)
		}
		if len(l.broken) > 0 {
			t.Errorf("honest authorities were found out: %v", l.broken)
		}
	}
}

func TestWithheldSecretIsLeftOut(t *testing.T) {
	l := newLottery(t, 5)
	withhold := func(liars int) func(int, int, *directory.Vote) {
		return func(i, round int, v *directory.Vote) {
			for j := range v.Commitments {
				for k := range liars {
					if v.Commitments[j].Authority == l.net.Authorities[k].ID {
						v.Commitments[j].Reveal = directory.Digest{}
					}
				}
			}
		}
	}
	l.rounds(24)
	l.says = withhold(1)
	l.rounds(24)
	l.wantReveals(l.rounds(1), 4)

	// With fewer secrets than must have an honest one among them, all can compute the value.
	l.says = withhold(4)
	before := l.rounds(23)
	s := l.rounds(1)
	l.wantReveals(s, 0)
	if want := before.Next(l.net.ID(), before.Run+1, nil); s != want {
		t.Errorf("the fallback is %v, want %v", s, want)
	}
	l.says = nil
	l.rounds(24)
	l.wantReveals(l.rounds(24), 5)
}

func TestRestartBetweenCommitAndReveal(t *testing.T) {
	for _, when := range []int{0, 1, 11, 12, 13, 23} {
		l := newLottery(t, 5)
		l.rounds(24 + when)
		for i := range l.of {
			l.restart(i)
		}
		l.rounds(24 - when)
		l.wantReveals(l.rounds(1), 5)
		if len(l.broken) > 0 {
			t.Errorf("restart in round %d: %v were found out", when, l.broken)
		}
	}
}

// Who lost its secret is left out, and everybody is told that it committed to another.
func TestLostSecret(t *testing.T) {
	l := newLottery(t, 5)
	l.rounds(24 + 3)
	l.of[2] = newRandom(l.of[2].network, l.of[2].self)
	l.rounds(21)
	l.wantReveals(l.rounds(1), 4)
	if l.broken[2] < 4 || len(l.broken) != 1 {
		t.Errorf("found out: %v", l.broken)
	}
	l.rounds(23)
	l.wantReveals(l.rounds(1), 5)
}

// Who reveals something else than it committed to first is left out and found out.
func TestChangedCommitmentIsFoundOut(t *testing.T) {
	for from, want := range map[int]int{1: 4, 6: 4, 12: 4, 18: 5} { // after 12 it is too late for it: all have its secret
		l := newLottery(t, 5)
		l.rounds(24)
		l.says = func(i, round int, v *directory.Vote) {
			if run, _ := l.net.Schedule.Run(l.after); i != 4 || run == 2 && round < from {
				return
			}
			for j := range v.Commitments {
				if c := &v.Commitments[j]; c.Authority == l.of[4].self && c.Run == 2 {
					*c = directory.Commit(v.Network, c.Run, c.Authority, [32]byte{9})
				}
			}
		}
		l.rounds(24)
		l.wantReveals(l.rounds(1), want)
		if l.broken[4] < 4 || len(l.broken) != 1 {
			t.Errorf("changed in round %d: found out %v", from, l.broken)
		}
		if st := l.of[0].status(l.net, l.after); st.Phase != "commit" || st.Round != 1 || len(st.Committed) != 5 || len(st.Revealed) != 0 ||
			!slices.Equal(st.Changed, []string{"authority5"}) {
			t.Errorf("changed in round %d: the status says %+v", from, st)
		}
	}
}

// Two commitments of one authority, each known to some, can never both be agreed on, so it has no
// choice between them when it has seen what the others reveal.
func TestTwoCommitmentsAreNotAgreedOn(t *testing.T) {
	l := newLottery(t, 5)
	l.rounds(24)
	l.says = func(i, round int, v *directory.Vote) {
		if i != 4 {
			return
		}
		for j := range v.Commitments {
			if c := &v.Commitments[j]; c.Authority == l.of[4].self && c.Run == 2 {
				*c = directory.Commit(v.Network, c.Run, c.Authority, [32]byte{byte(round / 3)})
				if round < 12 {
					c.Reveal = directory.Digest{}
				}
			}
		}
	}
	l.down = map[int]bool{0: true}
	l.rounds(3)
	l.down = map[int]bool{1: true}
	l.rounds(3)
	l.down = map[int]bool{}
	l.rounds(18)
	s := l.rounds(1)
	l.wantReveals(s, 4)
	if l.broken[4] < 3 {
		t.Errorf("found out: %v", l.broken)
	}
}

// Who was away while the others committed learns from them what, so that as many as are needed agree
// although another goes then.
func TestLateAuthorityKnowsTheCommitments(t *testing.T) {
	l := newLottery(t, 5)
	l.rounds(24)
	l.down[0] = true
	l.rounds(12)
	l.down[0] = false
	l.rounds(6)
	l.down[1] = true
	l.rounds(6)
	l.wantReveals(l.rounds(1), 4) // it could not commit itself
}

// A run that begins with periods without a consensus has the same value: its votes go on saying what
// it follows from.
func TestValueOutlivesPeriodsWithoutConsensus(t *testing.T) {
	values := map[directory.SharedRandom]bool{}
	for _, missed := range []int{0, 1, 5, 20} {
		l := newLottery(t, 5)
		l.rounds(48)
		for range missed {
			l.round(false)
		}
		s := l.rounds(1)
		l.wantReveals(s, 5)
		values[directory.SharedRandom{Run: s.Run, Previous: s.Previous}] = true
		if again := l.rounds(23 - missed); again != s {
			t.Errorf("%d periods missed: the value changed from %v to %v", missed, s, again)
		}
		if s := l.rounds(1); s.Previous.Reveals != 5 {
			t.Errorf("%d periods missed: the run after knows %v", missed, s)
		}
	}
	if len(values) != 1 {
		t.Errorf("the value of the run before depends on periods that failed: %v", values)
	}
}

// After days of silence the values are such as everybody can compute, and then random again.
func TestValuesAfterDaysOfSilence(t *testing.T) {
	l := newLottery(t, 5)
	last := l.rounds(48)
	l.after = l.after.Add(72 * time.Hour)
	s := l.rounds(1)
	if want := last.Next(l.net.ID(), s.Run, nil); s != want || s.Run != last.Run+4 {
		t.Errorf("after three days %v, want %v", s, want)
	}
	l.rounds(23)
	l.wantReveals(l.rounds(1), 5)
}

// One dishonest authority cannot make others believe in values that were never in a consensus.
func TestInventedValuesAreIgnored(t *testing.T) {
	honest := newLottery(t, 5)
	honest.rounds(60)
	l := newLottery(t, 5)
	l.says = func(i, round int, v *directory.Vote) {
		if i == 4 {
			v.Shared.Run += uint64(round % 2)
			v.Shared.Current.Value[0] ^= 1
			v.Shared.Previous.Reveals = 3
		}
	}
	l.rounds(60)
	if a, b := honest.rounds(1), l.rounds(1); a != b {
		t.Errorf("%v, want %v", b, a)
	}
}

func TestDamagedRandomFileIsRefused(t *testing.T) {
	l := newLottery(t, 3)
	l.rounds(30)
	text := l.of[0].text()
	for i := range text {
		zeroed := append(bytes.Clone(text[:i]), make([]byte, len(text)-i)...)
		flipped := bytes.Clone(text)
		flipped[i] ^= 1
		for name, bad := range map[string][]byte{"cut off": text[:i], "zeroed": zeroed, "changed": flipped} {
			if err := newRandom(l.net.ID(), l.of[0].self).parse(bad); err == nil {
				t.Fatalf("%s at %d is taken", name, i)
			}
		}
	}
	if strings.Contains(string(l.of[1].text()), "secret 2 "+strings.Repeat("0", 64)) {
		t.Error("a secret is zero")
	}
}
